//! What is to be written down against a set, from what is on its object already, what agents
//! report, and what the control plane says of their nodes. Pure.
//!
//! One node can bear witness twice: by its own word, and by what the control plane saw of it. A node
//! that is not Ready while the set is on its way or has not settled is written down as `NotReady`
//! before anything is done about it; it is gone again if the node comes back in the same boot, and
//! becomes `Rebooted` if it comes back in another one and `Lost` if the node goes.

use invivo_api::SetEvidence;
use invivo_terms::{EvidenceVerdict, NodeState};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::seen::{SeenNode, SeenPatch};

/// How many pieces one object holds.
pub const MOST: usize = 50;

/// One node as it bears on a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Uid of the Node.
    pub node_uid: String,
    /// The boot that its agent last reported.
    pub boot_id: Option<String>,
    /// The set is on its way there, or has not settled.
    pub unsettled: bool,
    /// What its agent says against the set.
    pub told: Option<EvidenceVerdict>,
}

impl Witness {
    /// What the NodePatch of a node says about the set of its instruction; none where that is nothing
    /// of interest.
    pub fn of(patch: &SeenPatch) -> Option<Self> {
        patch.spec.apply.as_ref()?;
        let status = patch.status.as_ref();
        let answered = status.is_some_and(|status| status.observed_revision >= patch.spec.revision);
        let state = status.map(|status| status.state).filter(|_| answered);
        let unsettled = state.is_none_or(|state| match state {
            NodeState::Working | NodeState::Applied => true,
            NodeState::Idle
            | NodeState::Settled
            | NodeState::RolledBack
            | NodeState::Blocked
            | NodeState::Refused
            | NodeState::Failed
            | NodeState::Suspected
            | NodeState::Convicted => false,
        });
        let reason = status.and_then(|status| status.reason.as_deref());
        let told = state.and_then(|state| EvidenceVerdict::told(state, reason));
        let node_uid = patch.owner.clone().filter(|_| unsettled || told.is_some())?;
        Some(Self { node_uid, boot_id: status.and_then(|status| status.boot_id.clone()), unsettled, told })
    }
}

/// A node as the control plane has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence<'a> {
    /// The kubelet reports Ready.
    pub ready: bool,
    /// The boot that the kubelet reports.
    pub boot_id: Option<&'a str>,
}

impl<'a> Presence<'a> {
    /// Of this node.
    pub fn of(node: &'a SeenNode) -> Self {
        Self { ready: node.ready.is_ready(), boot_id: node.boot_id.as_deref() }
    }
}

/// The evidence on an object as it must be from now on. `here` finds the node of a uid, if there
/// still is one.
pub fn gather<'a>(
    known: &[SetEvidence],
    witnesses: &[Witness],
    here: impl Fn(&str) -> Option<Presence<'a>>,
    now: Timestamp,
) -> Vec<SetEvidence> {
    let mut evidence: Vec<SetEvidence> =
        known.iter().filter_map(|piece| followed(piece, here(&piece.node_uid))).collect();
    for witness in witnesses {
        let seen = watched(witness, here(&witness.node_uid));
        for verdict in witness.told.into_iter().chain(seen) {
            let same = |piece: &SetEvidence| {
                piece.node_uid == witness.node_uid
                    && piece.boot_id == witness.boot_id
                    && piece.verdict.convicts() == verdict.convicts()
            };
            if !evidence.iter().any(same) {
                evidence.push(SetEvidence {
                    node_uid: witness.node_uid.clone(),
                    boot_id: witness.boot_id.clone(),
                    time: Time(now),
                    verdict,
                    overruled_by: None,
                });
            }
        }
    }
    within(evidence)
}

/// What has become of a node that was not Ready when it was last looked at; everything else stays.
fn followed(piece: &SetEvidence, node: Option<Presence<'_>>) -> Option<SetEvidence> {
    if piece.verdict != EvidenceVerdict::NotReady {
        return Some(piece.clone());
    }
    let becomes = |verdict| Some(SetEvidence { verdict, ..piece.clone() });
    match node {
        None => becomes(EvidenceVerdict::Lost),
        Some(node) if differ(node.boot_id, piece.boot_id.as_deref()) => becomes(EvidenceVerdict::Rebooted),
        Some(node) if node.ready => None,
        Some(_) => Some(piece.clone()),
    }
}

/// What the control plane says of a node on which the set has not settled.
fn watched(witness: &Witness, node: Option<Presence<'_>>) -> Option<EvidenceVerdict> {
    match node {
        _ if !witness.unsettled => None,
        None => Some(EvidenceVerdict::Lost),
        Some(node) if node.ready => None,
        Some(node) if differ(node.boot_id, witness.boot_id.as_deref()) => Some(EvidenceVerdict::Rebooted),
        Some(_) => Some(EvidenceVerdict::NotReady),
    }
}

/// Two boots that are known not to be one.
fn differ(one: Option<&str>, other: Option<&str>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one != other)
}

/// What other objects about the same set have is evidence here too. Whose approval took its weight
/// there does not take it here.
pub fn join<'a>(own: Vec<SetEvidence>, others: impl Iterator<Item = &'a SetEvidence>) -> Vec<SetEvidence> {
    let mut evidence = own;
    for piece in others.filter(|piece| piece.verdict != EvidenceVerdict::NotReady) {
        let same = |known: &SetEvidence| {
            known.node_uid == piece.node_uid
                && known.boot_id == piece.boot_id
                && known.verdict.convicts() == piece.verdict.convicts()
        };
        if !evidence.iter().any(same) {
            evidence.push(SetEvidence { overruled_by: None, ..piece.clone() });
        }
    }
    within(evidence)
}

/// As much as an object holds. What decides something stays: what is merely seen goes first, then
/// what has lost its weight, and of equals the oldest.
fn within(mut evidence: Vec<SetEvidence>) -> Vec<SetEvidence> {
    while evidence.len() > MOST {
        let worth = |piece: &SetEvidence| (weighs(piece.verdict), piece.overruled_by.is_none());
        let least = evidence.iter().enumerate().min_by_key(|(_, piece)| worth(piece)).map(|(at, _)| at);
        let Some(least) = least else { break };
        evidence.remove(least);
    }
    evidence
}

const fn weighs(verdict: EvidenceVerdict) -> bool {
    verdict.convicts() || verdict.is_foreign()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn applied(uid: &str) -> Witness {
        Witness { node_uid: uid.to_owned(), boot_id: Some("boot-1".to_owned()), unsettled: true, told: None }
    }

    fn convicted(uid: &str) -> Witness {
        let told = Some(EvidenceVerdict::Convicted);
        Witness { unsettled: false, boot_id: Some("boot-2".to_owned()), told, ..applied(uid) }
    }

    const UP: Presence<'_> = Presence { ready: true, boot_id: Some("boot-1") };
    const AWAY: Presence<'_> = Presence { ready: false, boot_id: Some("boot-1") };
    const BACK: Presence<'_> = Presence { ready: true, boot_id: Some("boot-2") };

    fn verdicts(evidence: &[SetEvidence]) -> Vec<EvidenceVerdict> {
        evidence.iter().map(|piece| piece.verdict).collect()
    }

    #[test]
    fn a_node_that_is_well_says_nothing() {
        assert!(gather(&[], &[applied("a")], |_| Some(UP), now()).is_empty());
    }

    #[test]
    fn a_node_that_is_away_is_written_down_and_forgotten_if_it_comes_back_without_a_boot() {
        let away = gather(&[], &[applied("a")], |_| Some(AWAY), now());
        assert_eq!(verdicts(&away), [EvidenceVerdict::NotReady]);
        assert_eq!(gather(&away, &[applied("a")], |_| Some(AWAY), now()), away, "it is written once");
        assert!(gather(&away, &[applied("a")], |_| Some(UP), now()).is_empty());
    }

    #[test]
    fn a_node_that_was_away_and_comes_back_in_another_boot_has_rebooted() {
        let away = gather(&[], &[applied("a")], |_| Some(AWAY), now());
        let back = gather(&away, &[], |_| Some(BACK), now());
        assert_eq!(verdicts(&back), [EvidenceVerdict::Rebooted]);
        assert_eq!(back[0].boot_id.as_deref(), Some("boot-1"), "the boot in which it died");
        let at_once = Presence { ready: false, boot_id: Some("boot-2") };
        assert_eq!(
            verdicts(&gather(&[], &[applied("a")], |_| Some(at_once), now())),
            [EvidenceVerdict::Rebooted]
        );
        assert_eq!(gather(&back, &[], |_| None, now()), back, "it survives the node");
    }

    #[test]
    fn a_node_that_goes_takes_nothing_with_it() {
        let away = gather(&[], &[applied("a")], |_| Some(AWAY), now());
        assert_eq!(verdicts(&gather(&away, &[], |_| None, now())), [EvidenceVerdict::Lost]);
        assert_eq!(verdicts(&gather(&[], &[applied("a")], |_| None, now())), [EvidenceVerdict::Lost]);
        let settled = Witness { unsettled: false, ..applied("a") };
        assert!(gather(&[], &[settled], |_| None, now()).is_empty());
    }

    #[test]
    fn a_nodes_own_word_and_what_was_seen_of_it_stand_side_by_side_once_each() {
        let away = gather(&[], &[applied("a")], |_| Some(AWAY), now());
        let told = gather(&away, &[convicted("a")], |_| Some(BACK), now());
        assert_eq!(verdicts(&told), [EvidenceVerdict::Rebooted, EvidenceVerdict::Convicted]);
        assert_eq!(gather(&told, &[convicted("a")], |_| Some(BACK), now()), told);
    }

    #[test]
    fn an_overruled_piece_is_not_written_anew_by_the_same_report() {
        let mut told = gather(&[], &[convicted("a")], |_| Some(BACK), now());
        told[0].overruled_by = Some("ada".to_owned());
        assert_eq!(gather(&told, &[convicted("a")], |_| Some(BACK), now()), told);
        let again = Witness { boot_id: Some("boot-3".to_owned()), ..convicted("a") };
        assert_eq!(gather(&told, &[again], |_| Some(BACK), now()).len(), 2, "another boot is news");
    }

    #[test]
    fn what_other_feeds_know_counts_here_and_whom_they_believe_does_not() {
        let mut there = gather(&[], &[convicted("a")], |_| Some(BACK), now());
        there[0].overruled_by = Some("ada".to_owned());
        let here = join(gather(&[], &[convicted("b")], |_| Some(BACK), now()), there.iter());
        assert_eq!(here.len(), 2);
        assert!(here.iter().all(|piece| piece.overruled_by.is_none()));
        assert_eq!(join(here.clone(), there.iter()), here);
    }

    #[test]
    fn an_object_holds_fifty_pieces_and_keeps_what_weighs() {
        let many: Vec<Witness> = (0..60).map(|n| applied(&format!("away-{n}"))).collect();
        let away = gather(&[], &many, |_| Some(AWAY), now());
        assert_eq!(away.len(), MOST);
        let told = gather(&away, &[convicted("a"), convicted("b")], |_| Some(AWAY), now());
        assert_eq!(told.len(), MOST);
        assert_eq!(told.iter().filter(|piece| piece.verdict.convicts()).count(), 2);
    }

    #[test]
    fn only_instructions_on_their_way_or_unsettled_and_words_against_them_are_of_interest() {
        let patch = |revision: i64, state: &str, reason: &str| SeenPatch {
            owner: Some("u".to_owned()),
            spec: serde_json::from_value(json!({"revision": 2, "policy": "p", "feed": "f", "apply": {
                "buildId": "b".repeat(40), "level": 1, "set": "2026-11-21.1", "digest": "e".repeat(64),
                "manifest": "c".repeat(64), "mechanism": "Livepatch", "deadline": "2026-11-22T12:10:00Z",
                "settleAfter": "30m"}}))
            .unwrap(),
            status: serde_json::from_value(
                json!({"observedRevision": revision, "state": state, "reason": reason, "bootId": "boot-1"}),
            )
            .unwrap(),
        };
        let of = |revision, state, reason| {
            Witness::of(&patch(revision, state, reason)).map(|witness| (witness.unsettled, witness.told))
        };
        assert_eq!(of(2, "Applied", ""), Some((true, None)));
        assert_eq!(of(2, "Settled", ""), None);
        assert_eq!(of(2, "Refused", "BelowThreshold"), None);
        assert_eq!(of(2, "Convicted", "RebootedAgain"), Some((false, Some(EvidenceVerdict::Convicted))));
        assert_eq!(of(2, "Failed", "KernelOops"), Some((false, Some(EvidenceVerdict::Harmed))));
        assert_eq!(of(1, "Convicted", "RebootedAgain"), Some((true, None)), "of an earlier instruction");
        let mut hold = patch(2, "Convicted", "RebootedAgain");
        hold.spec.apply = None;
        assert_eq!(Witness::of(&hold), None);
    }
}
