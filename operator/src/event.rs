//! What is worth an Event: each change of a condition, each step of a rollout, each failed node,
//! once. Pure: from what was and what is to what to say.

use invivo_api::{GateOutcome, GateStatus, NodePatchStatus, PatchPolicyStatus, PatchSetStatus, SetEvidence};
use invivo_terms::{EvidenceVerdict, Refusal};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType, Recorder};

use crate::seen::SeenPatch;

/// One thing to say about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// A warning rather than news.
    pub warning: bool,
    /// In one word.
    pub reason: String,
    /// What was being done. Events that differ in this only are told apart; others are counted as one.
    pub action: String,
    /// For people.
    pub text: String,
}

impl Note {
    fn new(warning: bool, reason: &str, action: impl Into<String>, text: impl Into<String>) -> Self {
        Self { warning, reason: reason.to_owned(), action: action.into(), text: text.into() }
    }
}

fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// What a feed's new conditions are worth.
pub fn of_feed(old: &[Condition], new: &[Condition]) -> Vec<Note> {
    let Some(ready) = find(new, "Ready") else { return Vec::new() };
    let same = find(old, "Ready").is_some_and(|was| was.reason == ready.reason && was.status == ready.status);
    if same {
        return Vec::new();
    }
    let stalled = find(new, "Stalled").is_some_and(|stalled| stalled.status == "True");
    let warning = stalled || ready.reason == "ExpiresSoon";
    vec![Note::new(warning, &ready.reason, "Verify", ready.message.clone())]
}

/// What a set's new status is worth: each piece of evidence, the quarantine and its end.
pub fn of_set(old: &PatchSetStatus, new: &PatchSetStatus) -> Vec<Note> {
    let mut notes = Vec::new();
    for piece in new.evidence.iter().filter(|piece| piece.verdict != EvidenceVerdict::NotReady) {
        let told = |was: &SetEvidence| {
            (&was.node_uid, &was.boot_id, was.verdict) == (&piece.node_uid, &piece.boot_id, piece.verdict)
        };
        if !old.evidence.iter().any(told) {
            let text = format!("node of uid {}: {}", piece.node_uid, piece.verdict);
            let action = format!("{}{}", piece.verdict, piece.node_uid);
            notes.push(Note::new(true, "EvidenceAgainstSet", action, text));
        }
    }
    match (&old.quarantine, &new.quarantine) {
        (None, Some(_)) => {
            let text = find(&new.conditions, "Quarantined").map_or_else(String::new, |c| c.message.clone());
            notes.push(Note::new(true, "Quarantined", "Quarantine", text));
        }
        (Some(_), None) => {
            let by = new.evidence.iter().rev().find_map(|piece| piece.overruled_by.as_deref());
            let text = format!("the approval of {} lifts the quarantine", by.unwrap_or("a person"));
            notes.push(Note::new(false, "QuarantineLifted", "Quarantine", text));
        }
        (None, None) | (Some(_), Some(_)) => {}
    }
    notes
}

/// What a policy's new status is worth.
pub fn of_policy(old: Option<&PatchPolicyStatus>, new: &PatchPolicyStatus) -> Vec<Note> {
    let gates = old.map_or(&[][..], |status| &status.gates);
    let mut notes: Vec<Note> = new.gates.iter().filter_map(|gate| of_gate(gates, gate)).collect();
    let was = old.and_then(|status| status.rollout.as_ref());
    if let Some(rollout) = &new.rollout {
        let same = was.is_some_and(|was| was.key.number == rollout.key.number);
        let (number, target) = (rollout.key.number, &rollout.key.target);
        if !same && !rollout.complete {
            let text = format!("rollout {number} to {target}");
            notes.push(Note::new(false, "RolloutStarted", format!("Rollout{number}"), text));
        }
        let stage_was =
            old.filter(|_| same).and_then(|status| status.stage.as_ref()).map(|stage| stage.index);
        if let Some(stage) =
            new.stage.as_ref().filter(|stage| !rollout.complete && stage_was != Some(stage.index))
        {
            let text = format!("stage {} of rollout {number}; nodes: {}", stage.name, stage.nodes.total);
            notes.push(Note::new(
                false,
                "StageStarted",
                format!("Rollout{number}Stage{}", stage.index),
                text,
            ));
        }
        if rollout.returning && !was.is_some_and(|was| same && was.returning) {
            let evidence = rollout.evidence.iter().map(|found| format!("{}: {}", found.who, found.what));
            let text = format!("rollout {number} to {target}: {}", evidence.collect::<Vec<_>>().join("; "));
            notes.push(Note::new(true, "RollingBack", format!("Rollout{number}"), text));
        }
        if rollout.complete && was.is_some_and(|was| same && !was.complete) {
            let (started, failed) = (rollout.started, rollout.failed);
            let text = format!("rollout {number} to {target}; nodes instructed: {started}, failed: {failed}");
            notes.push(Note::new(false, "RolloutFinished", format!("Rollout{number}"), text));
        }
    }
    if let Some(stalled) = find(&new.conditions, "Stalled").filter(|stalled| stalled.status == "True") {
        let before = old.and_then(|status| find(&status.conditions, "Stalled"));
        if !before.is_some_and(|before| before.status == "True" && before.reason == stalled.reason) {
            notes.push(Note::new(true, &stalled.reason, "Plan", stalled.message.clone()));
        }
    }
    notes
}

/// What a gate's new verdict is worth. One that nobody knows yet is no news: its question was just
/// asked, or its Job runs.
fn of_gate(old: &[GateStatus], gate: &GateStatus) -> Option<Note> {
    let was = old.iter().find(|was| was.name == gate.name).map(|was| was.verdict);
    let (warning, reason) = match (was, gate.verdict) {
        (Some(GateOutcome::Failed), GateOutcome::Failed) => return None,
        (_, GateOutcome::Failed) => (true, "GateFailing"),
        (Some(GateOutcome::Passed), GateOutcome::Unknown) => (true, "GateUnknown"),
        (Some(GateOutcome::Failed), GateOutcome::Passed) => (false, "GatePassed"),
        (_, GateOutcome::Unknown | GateOutcome::Passed) => return None,
    };
    let message = gate.message.as_deref().map_or_else(String::new, |message| format!(": {message}"));
    Some(Note::new(warning, reason, format!("Gate{}", gate.name), format!("gate {}{message}", gate.name)))
}

/// What a node's new answer is worth: one warning for each attempt that ended without success.
pub fn of_node(before: Option<&SeenPatch>, after: &SeenPatch) -> Option<Note> {
    let status = after.status.as_ref().filter(|status| status.state.is_failure())?;
    let told = |was: &NodePatchStatus| {
        was.state == status.state
            && was.reason == status.reason
            && was.observed_revision == status.observed_revision
    };
    // An answer met on starting up was told by the operator before.
    if before?.status.as_ref().is_some_and(told) {
        return None;
    }
    let reason = status.reason.as_deref().filter(|reason| is_word(reason)).unwrap_or(status.state.as_str());
    let remedy =
        Refusal::ALL.iter().find(|refusal| refusal.as_str() == reason).map(|refusal| refusal.remedy());
    let message = status.message.as_deref().unwrap_or("no message");
    let remedy = remedy.map(|remedy| format!(" ({remedy})")).unwrap_or_default();
    let action = format!("Instruction{}", status.observed_revision);
    Some(Note::new(true, reason, action, format!("{}: {message}{remedy}", status.state)))
}

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Says it. An Event that cannot be written is logged and let go: it decides nothing.
pub async fn publish(recorder: &Recorder, about: &ObjectReference, notes: &[Note]) {
    for note in notes {
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.clone(),
            note: Some(note.text.chars().take(1000).collect()),
            action: note.action.chars().take(128).collect(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, about).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                reason = note.reason,
                name = about.name.as_deref().unwrap_or_default(),
                error,
                "event lost"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn conditions(reason: &str, stalled: &str) -> Vec<Condition> {
        let at = "2026-11-22T12:00:00Z";
        serde_json::from_value(json!([
            {"type": "Ready", "status": "False", "reason": reason, "message": "m", "lastTransitionTime": at},
            {"type": "Stalled", "status": stalled, "reason": reason, "message": "m", "lastTransitionTime": at}
        ]))
        .unwrap()
    }

    fn patch(state: &str, revision: i64) -> SeenPatch {
        SeenPatch {
            owner: None,
            spec: serde_json::from_value(json!({"revision": revision, "hold": {}})).unwrap(),
            status: Some(
                serde_json::from_value(json!({"observedRevision": revision, "state": state,
                    "reason": "ArbitrarySoftware", "message": "digest differs"}))
                .unwrap(),
            ),
        }
    }

    #[test]
    fn a_feed_speaks_once_for_each_change() {
        let (good, bad) = (conditions("Verified", "False"), conditions("BelowThreshold", "True"));
        assert_eq!(of_feed(&good, &good), []);
        let notes = of_feed(&good, &bad);
        assert_eq!(notes.len(), 1);
        assert!(notes[0].warning && notes[0].reason == "BelowThreshold");
    }

    #[test]
    fn an_end_that_is_near_is_a_warning_although_all_is_well() {
        let soon = conditions("ExpiresSoon", "False");
        let notes = of_feed(&conditions("Verified", "False"), &soon);
        assert!(notes.len() == 1 && notes[0].warning && notes[0].reason == "ExpiresSoon");
        assert_eq!(of_feed(&soon, &soon), []);
    }

    #[test]
    fn a_set_tells_each_piece_of_evidence_its_quarantine_and_the_end_of_it_once() {
        let status = |verdicts: &[&str], quarantined: bool, by: Option<&str>| -> PatchSetStatus {
            let evidence: Vec<_> = verdicts
                .iter()
                .enumerate()
                .map(|(node, verdict)| {
                    json!({"nodeUid": format!("node-{node}"), "time": "2026-11-22T12:00:00Z",
                        "verdict": verdict, "overruledBy": by})
                })
                .collect();
            let quarantine = quarantined.then(|| json!({"since": "2026-11-22T12:00:00Z"}));
            serde_json::from_value(json!({"evidence": evidence, "quarantine": quarantine})).unwrap()
        };
        let reasons = |old: &PatchSetStatus, new: &PatchSetStatus| -> Vec<(String, bool)> {
            of_set(old, new).into_iter().map(|note| (note.reason, note.warning)).collect()
        };
        let none = PatchSetStatus::default();
        assert!(reasons(&none, &status(&["NotReady"], false, None)).is_empty(), "it may come back");
        let two = status(&["Convicted", "Harmed"], true, None);
        let told = ["EvidenceAgainstSet", "EvidenceAgainstSet", "Quarantined"].map(|r| (r.to_owned(), true));
        assert_eq!(reasons(&none, &two), told);
        assert!(reasons(&two, &two).is_empty());
        let lifted = status(&["Convicted", "Harmed"], false, Some("ada"));
        assert_eq!(reasons(&two, &lifted), [("QuarantineLifted".to_owned(), false)]);
        assert!(of_set(&two, &lifted)[0].text.contains("ada"));
    }

    #[test]
    fn a_failed_node_is_told_once_by_the_name_of_the_refusal() {
        let note = of_node(Some(&patch("Working", 2)), &patch("Refused", 2)).unwrap();
        assert_eq!(note.reason, "ArbitrarySoftware");
        assert_eq!(of_node(Some(&patch("Refused", 2)), &patch("Refused", 2)), None);
        assert!(of_node(Some(&patch("Refused", 2)), &patch("Refused", 3)).is_some());
        assert_eq!(of_node(None, &patch("Refused", 2)), None);
    }

    #[test]
    fn a_rollout_tells_its_start_its_stages_and_its_end() {
        let status = |number: u64, stage: u32, complete: bool| -> PatchPolicyStatus {
            serde_json::from_value(json!({
                "rollout": {"key": {"number": number, "target": "None", "mechanism": "Livepatch"},
                    "started": 1, "finished": 1, "failed": 0, "complete": complete},
                "stage": {"name": format!("s{stage}"), "index": stage, "since": "2026-11-22T12:00:00Z",
                    "nodes": {"total": 1, "done": 0, "inFlight": 0, "failed": 0, "excused": 0}}
            }))
            .unwrap()
        };
        let reasons = |old: Option<&PatchPolicyStatus>, new: &PatchPolicyStatus| -> Vec<String> {
            of_policy(old, new).into_iter().map(|note| note.reason).collect()
        };
        assert_eq!(reasons(None, &status(1, 0, false)), ["RolloutStarted", "StageStarted"]);
        assert_eq!(reasons(Some(&status(1, 0, false)), &status(1, 1, false)), ["StageStarted"]);
        assert_eq!(reasons(Some(&status(1, 1, false)), &status(1, 1, true)), ["RolloutFinished"]);
        assert!(reasons(Some(&status(1, 1, true)), &status(1, 1, true)).is_empty());
    }

    #[test]
    fn a_gate_tells_that_it_fails_that_nobody_knows_any_more_and_that_it_is_well_again() {
        let status = |verdict: &str| -> PatchPolicyStatus {
            serde_json::from_value(json!({"gates": [{"name": "prometheus", "verdict": verdict,
                "message": "3 of 40 requests failed", "since": "2026-11-22T12:00:00Z"}]}))
            .unwrap()
        };
        let told = |old: Option<&str>, new: &str| -> Vec<(String, bool)> {
            let old = old.map(status);
            of_policy(old.as_ref(), &status(new))
                .into_iter()
                .map(|note| (note.reason, note.warning))
                .collect()
        };
        let one = |reason: &str, warning| vec![(reason.to_owned(), warning)];
        for before in [None, Some("Passed"), Some("Unknown")] {
            assert_eq!(told(before, "Failed"), one("GateFailing", true));
        }
        assert_eq!(told(Some("Passed"), "Unknown"), one("GateUnknown", true));
        assert_eq!(told(Some("Failed"), "Passed"), one("GatePassed", false));
        for (before, now) in [
            (None, "Unknown"),
            (None, "Passed"),
            (Some("Failed"), "Failed"),
            (Some("Failed"), "Unknown"),
            (Some("Unknown"), "Passed"),
        ] {
            assert_eq!(told(before, now), []);
        }
        let note = of_policy(None, &status("Failed")).remove(0);
        assert_eq!(note.text, "gate prometheus: 3 of 40 requests failed");
    }
}
