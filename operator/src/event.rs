//! What is worth an Event: each change of a condition, each step of a rollout, each failed node,
//! once. Pure: from what was and what is to what to say.

use invivo_api::{
    GateOutcome, GateStatus, NodePatch, NodePatchStatus, PatchPolicyStatus, PatchSetStatus, SetEvidence,
};
use invivo_terms::{EvidenceVerdict, Refusal};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource};

use crate::seen::SeenPatch;
use crate::store::Entry;

/// The longest note of an Event and the longest action, in bytes: the API server takes no more.
const LONGEST_NOTE: usize = 1024;
const LONGEST_ACTION: usize = 128;

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
        for found in rollout.evidence.iter().filter(|found| !found.gate) {
            let known =
                was.filter(|_| same).is_some_and(|was| was.evidence.iter().any(|was| was.who == found.who));
            if !known {
                let text = format!("rollout {number} to {target}: {}: {}", found.who, found.what);
                notes.push(Note::new(true, "NodeFailed", format!("Rollout{number}{}", found.who), text));
            }
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

/// A node whose attempt ended without success.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// Its NodePatch.
    pub about: ObjectReference,
    /// Names the answer: the same one is told once, by whichever operator.
    pub id: String,
    /// What to say.
    pub note: Note,
}

/// For how long an answer is told by an operator that meets it when it begins to work. The API server
/// keeps Events for an hour: who told it before is known for as long.
const TOLD_AFTERWARDS: SignedDuration = SignedDuration::from_mins(55);

/// What a node's new answer is worth: one warning for each attempt that ended without success.
pub fn of_node(before: Option<&SeenPatch>, after: &Entry<SeenPatch>) -> Option<Failure> {
    let status = after.value.status.as_ref()?;
    let told = |was: &NodePatchStatus| {
        was.state == status.state
            && was.reason == status.reason
            && was.observed_revision == status.observed_revision
    };
    // An answer met on starting up is told when work begins, unless somebody has told it.
    if before?.status.as_ref().is_some_and(told) { None } else { failure(after) }
}

/// What an answer is worth that is there already when an operator begins to work: nobody may have told it.
pub fn of_node_found(found: &Entry<SeenPatch>, now: Timestamp) -> Option<Failure> {
    let since = found.value.status.as_ref()?.since.as_ref()?.0;
    if now.duration_since(since) <= TOLD_AFTERWARDS { failure(found) } else { None }
}

fn failure(patch: &Entry<SeenPatch>) -> Option<Failure> {
    let status = patch.value.status.as_ref().filter(|status| status.state.is_failure())?;
    let note = of_failure(status);
    let (node, uid) = (cut(&patch.name, 120), patch.uid.get(..8).unwrap_or(&patch.uid));
    // A name part must not end in one of these.
    let node = node.trim_end_matches(['-', '.']);
    let (revision, state) = (status.observed_revision, status.state);
    let id = format!("{node}.{uid}.{revision}.{state}.{}", note.reason).to_ascii_lowercase();
    let about = ObjectReference {
        api_version: Some(NodePatch::api_version(&()).into_owned()),
        kind: Some(NodePatch::kind(&()).into_owned()),
        name: Some(patch.name.clone()),
        uid: Some(patch.uid.clone()),
        ..ObjectReference::default()
    };
    Some(Failure { about, id, note })
}

fn of_failure(status: &NodePatchStatus) -> Note {
    let reason = status.reason.as_deref().filter(|reason| is_word(reason)).unwrap_or(status.state.as_str());
    let remedy =
        Refusal::ALL.iter().find(|refusal| refusal.as_str() == reason).map(|refusal| refusal.remedy());
    let message = status.message.as_deref().unwrap_or("no message");
    let remedy = remedy.map(|remedy| format!(" ({remedy})")).unwrap_or_default();
    let excerpt = status.evidence.as_ref().map(|found| format!(": {}", found.excerpt)).unwrap_or_default();
    let action = format!("Instruction{}", status.observed_revision);
    Note::new(true, reason, action, format!("{}: {message}{remedy}{excerpt}", status.state))
}

fn cut(text: &str, bytes: usize) -> String {
    let mut text = text.to_owned();
    text.truncate(text.floor_char_boundary(bytes));
    text
}

fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Tells of a node that failed, unless that was told. An Event that cannot be written is logged and let go.
pub async fn publish_once(client: &Client, reporter: &Reporter, failure: &Failure, now: Timestamp) {
    let Failure { about, id, note } = failure;
    let controller = &reporter.controller;
    let event = k8s_openapi::api::events::v1::Event {
        metadata: ObjectMeta { name: Some(id.clone()), ..ObjectMeta::default() },
        event_time: Some(MicroTime(now)),
        action: Some(cut(&note.action, LONGEST_ACTION)),
        reason: Some(note.reason.clone()),
        note: Some(cut(&note.text, LONGEST_NOTE)),
        regarding: Some(about.clone()),
        reporting_controller: Some(controller.clone()),
        reporting_instance: Some(reporter.instance.clone().unwrap_or_else(|| controller.clone())),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        ..Default::default()
    };
    // Where Events about objects of the whole cluster are.
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(client.clone(), "default");
    match events.create(&PostParams::default(), &event).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(error) => lost(note, about, &error),
    }
}

fn lost(note: &Note, about: &ObjectReference, error: &kube::Error) {
    let error = error as &dyn std::error::Error;
    tracing::warn!(
        reason = note.reason,
        name = about.name.as_deref().unwrap_or_default(),
        error,
        "event lost"
    );
}

/// Says it. An Event that cannot be written is logged and let go: it decides nothing.
pub async fn publish(recorder: &Recorder, about: &ObjectReference, notes: &[Note]) {
    for note in notes {
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason.clone(),
            note: Some(cut(&note.text, LONGEST_NOTE)),
            action: cut(&note.action, LONGEST_ACTION),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, about).await {
            lost(note, about, &error);
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

    fn patch(state: &str, revision: i64) -> Entry<SeenPatch> {
        let patch = json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "NodePatch",
            "metadata": {"name": "node-1", "uid": "0123456789"}, "spec": {"revision": revision, "hold": {}},
            "status": {"observedRevision": revision, "state": state, "since": "2026-11-22T12:00:00Z",
                "reason": "ArbitrarySoftware", "message": "digest differs",
                "evidence": {"digest": "a".repeat(64), "excerpt": "RIP: 0010:f+0x5/0x26 [invivo_l1]"}}});
        Entry::of(serde_json::from_value(patch).unwrap())
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
    fn a_failed_node_is_told_once_by_the_name_of_the_refusal_with_what_its_log_says() {
        let told = |before: &Entry<SeenPatch>, after: &Entry<SeenPatch>| of_node(Some(&before.value), after);
        let failure = told(&patch("Working", 2), &patch("Refused", 2)).unwrap();
        assert_eq!(failure.note.reason, "ArbitrarySoftware");
        assert!(failure.note.text.ends_with(": RIP: 0010:f+0x5/0x26 [invivo_l1]"), "{}", failure.note.text);
        assert_eq!(told(&patch("Refused", 2), &patch("Refused", 2)), None);
        let again = told(&patch("Refused", 2), &patch("Refused", 3)).unwrap();
        assert_ne!(again.id, failure.id);
        assert_eq!(of_node(None, &patch("Refused", 2)), None, "it is told when work begins");
    }

    #[test]
    fn a_failed_node_that_is_found_is_the_one_that_was_told_and_after_an_hour_it_is_no_news() {
        let at = |time: &str| format!("2026-11-22T{time}Z").parse().unwrap();
        let told = of_node(Some(&patch("Applied", 2).value), &patch("Convicted", 2));
        assert!(told.is_some());
        assert_eq!(of_node_found(&patch("Convicted", 2), at("12:30:00")), told);
        assert_eq!(of_node_found(&patch("Convicted", 2), at("13:00:00")), None);
        assert_eq!(of_node_found(&patch("Settled", 2), at("12:30:00")), None);
    }

    #[test]
    fn each_node_that_fails_in_a_rollout_is_told_once_with_its_evidence() {
        let status = |nodes: &[&str]| -> PatchPolicyStatus {
            let evidence: Vec<_> = nodes
                .iter()
                .map(|node| json!({"who": node, "at": "2026-11-22T12:00:00Z", "what": "Convicted: Panic: f+0x5"}))
                .collect();
            serde_json::from_value(json!({"rollout": {"key": {"number": 3, "target": "2026-11-21.1",
                "mechanism": "Livepatch"}, "started": 2, "finished": 1, "failed": 1, "evidence": evidence}}))
            .unwrap()
        };
        let told = |old: &[&str], new: &[&str]| -> Vec<String> {
            of_policy(Some(&status(old)), &status(new)).into_iter().map(|note| note.text).collect()
        };
        let one = "rollout 3 to 2026-11-21.1: a: Convicted: Panic: f+0x5";
        assert_eq!(told(&[], &["a"]), [one]);
        assert_eq!(told(&["b"], &["b", "a"]), [one]);
        assert!(told(&["a"], &["a"]).is_empty());
    }

    #[test]
    fn an_event_is_no_longer_than_the_api_server_takes() {
        assert_eq!(cut(&"\u{e9}".repeat(1000), LONGEST_NOTE).len(), LONGEST_NOTE);
        assert_eq!(cut(&"\u{20ac}".repeat(1000), LONGEST_NOTE).len(), LONGEST_NOTE - 1);
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
