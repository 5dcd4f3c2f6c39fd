//! Whether a set is quarantined. Pure.
//!
//! One node's word moves one node: it takes two nodes that speak against the set, or one and what
//! the control plane saw of a node by itself. Once quarantined, a set stays so until a person
//! approves it afterwards; what was known by then has no weight any more. "Afterwards" is told
//! without any clock: the approvals that stood when it was quarantined are written down with it,
//! and only one that is not among them lifts it.

use std::collections::BTreeSet;

use invivo_api::{PatchSetSpec, Quarantine, SetEvidence, StoodApproval};
use invivo_terms::Decision;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// How a set stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdict {
    /// What is held against it.
    pub evidence: Vec<SetEvidence>,
    /// The quarantine, while there is one.
    pub quarantine: Option<Quarantine>,
}

/// Whether evidence is enough for a quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// There is none that counts.
    Nothing,
    /// Not enough: one node's word, or what was merely seen.
    Light,
    /// Two nodes or more speak against the set.
    Nodes,
    /// One node does, and the control plane saw a node die.
    NodeAndControlPlane,
}

impl Weight {
    /// Of what nobody has overruled.
    pub fn of(evidence: &[SetEvidence]) -> Self {
        let counting = || evidence.iter().filter(|piece| piece.overruled_by.is_none());
        let nodes: BTreeSet<&str> = counting()
            .filter(|piece| piece.verdict.convicts())
            .map(|piece| piece.node_uid.as_str())
            .collect();
        let foreign = counting().any(|piece| piece.verdict.is_foreign());
        match (nodes.len(), foreign) {
            (2.., _) => Self::Nodes,
            (1, true) => Self::NodeAndControlPlane,
            (0 | 1, _) if counting().next().is_some() => Self::Light,
            (0 | 1, _) => Self::Nothing,
        }
    }

    /// Whether it is.
    pub const fn is_enough(self) -> bool {
        match self {
            Self::Nodes | Self::NodeAndControlPlane => true,
            Self::Nothing | Self::Light => false,
        }
    }
}

/// Judges a set: `old` as it stands on its object, `spec` with what people decided, `evidence` as it
/// was gathered from there on.
pub fn judge(old: &Verdict, spec: &PatchSetSpec, evidence: Vec<SetEvidence>, now: Timestamp) -> Verdict {
    let Some(quarantine) = &old.quarantine else {
        let begins = Weight::of(&evidence).is_enough();
        let quarantine = begins.then(|| Quarantine { since: Time(now), approvals: standing(spec).collect() });
        return Verdict { evidence, quarantine };
    };
    let standing: Vec<StoodApproval> = standing(spec).collect();
    let Some(later) = standing.iter().find(|approval| !quarantine.approvals.contains(approval)) else {
        // One that was taken back is no longer among those that stood: given again, it is a later one.
        let approvals = quarantine.approvals.iter().filter(|approval| standing.contains(approval)).cloned();
        let quarantine = Quarantine { approvals: approvals.collect(), ..quarantine.clone() };
        return Verdict { evidence, quarantine: Some(quarantine) };
    };
    let known = |piece: &SetEvidence| {
        let same = |before: &SetEvidence| {
            (&before.node_uid, &before.boot_id, before.verdict.convicts())
                == (&piece.node_uid, &piece.boot_id, piece.verdict.convicts())
        };
        old.evidence.iter().any(same)
    };
    let overrule = |piece: SetEvidence| match piece.overruled_by {
        None if known(&piece) => SetEvidence { overruled_by: Some(later.user.clone()), ..piece },
        Some(_) | None => piece,
    };
    let evidence = evidence.into_iter().map(overrule).collect();
    judge(&Verdict::default(), spec, evidence, now)
}

/// The approvals of this very set.
fn standing(spec: &PatchSetSpec) -> impl Iterator<Item = StoodApproval> {
    spec.approvals.iter().filter(|entry| entry.digest == spec.digest).filter_map(|entry| {
        match entry.decision {
            Decision::Approve => {
                Some(StoodApproval { user: entry.user.clone(), reason: entry.reason.clone() })
            }
            Decision::Reject => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use invivo_terms::EvidenceVerdict::{self, Convicted, Harmed, Lost, NotReady, Rebooted};
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn piece(uid: &str, verdict: EvidenceVerdict) -> SetEvidence {
        SetEvidence {
            node_uid: uid.to_owned(),
            boot_id: Some("boot-1".to_owned()),
            time: Time(now()),
            verdict,
            overruled_by: None,
        }
    }

    fn spec(approvals: &[(&str, &str, &str)]) -> PatchSetSpec {
        let approvals: Vec<_> = approvals
            .iter()
            .map(|(user, decision, reason)| {
                json!({"user": user, "decision": decision, "digest": "e".repeat(64), "reason": reason})
            })
            .collect();
        serde_json::from_value(json!({"feed": "production", "repository": "patches", "set": "2026-11-21.1",
            "digest": "e".repeat(64), "approvals": approvals}))
        .unwrap()
    }

    /// Quarantined by two nodes while these approvals stood.
    fn quarantined(approvals: &[(&str, &str, &str)]) -> Verdict {
        let evidence = vec![piece("a", Convicted), piece("b", Harmed)];
        let verdict = judge(&Verdict::default(), &spec(approvals), evidence, now());
        assert!(verdict.quarantine.is_some());
        verdict
    }

    fn again(old: &Verdict, approvals: &[(&str, &str, &str)]) -> Verdict {
        judge(old, &spec(approvals), old.evidence.clone(), now())
    }

    #[test]
    fn it_takes_two_nodes_or_one_and_what_no_node_wrote_itself() {
        for (evidence, enough) in [
            (vec![], false),
            (vec![piece("a", Convicted)], false),
            (vec![piece("a", Convicted), piece("a", Harmed)], false),
            (vec![piece("a", Convicted), piece("b", Convicted)], true),
            (vec![piece("a", Harmed), piece("b", Convicted)], true),
            (vec![piece("a", Convicted), piece("a", Rebooted)], true),
            (vec![piece("a", Convicted), piece("b", Rebooted)], true),
            (vec![piece("a", Convicted), piece("b", NotReady)], false),
            (vec![piece("a", Convicted), piece("b", Lost)], false),
            (vec![piece("a", Rebooted), piece("b", Rebooted), piece("c", Lost)], false),
        ] {
            let verdict = judge(&Verdict::default(), &spec(&[]), evidence.clone(), now());
            assert_eq!(verdict.quarantine.is_some(), enough, "{evidence:?}");
            assert_eq!(verdict.evidence, evidence);
        }
    }

    #[test]
    fn an_approval_from_before_does_not_lift_it() {
        let stood = [("ada", "Approve", "ran a week on staging")];
        let verdict = quarantined(&stood);
        assert_eq!(again(&verdict, &stood), verdict);
        assert_eq!(again(&verdict, &[stood[0], ("bob", "Reject", "no")]), verdict);
    }

    #[test]
    fn a_later_approval_lifts_it_and_takes_the_weight_of_what_was_known() {
        let verdict = quarantined(&[("ada", "Approve", "ran a week on staging")]);
        for later in [
            vec![("ada", "Approve", "both had bad memory")],
            vec![("ada", "Approve", "ran a week on staging"), ("bob", "Approve", "both had bad memory")],
        ] {
            let lifted = again(&verdict, &later);
            assert_eq!(lifted.quarantine, None);
            let by = later.last().unwrap().0;
            assert!(lifted.evidence.iter().all(|piece| piece.overruled_by.as_deref() == Some(by)));
            assert_eq!(again(&lifted, &later), lifted, "it stays lifted");
        }
    }

    #[test]
    fn one_that_was_taken_back_and_given_again_is_a_later_one() {
        let stood = [("ada", "Approve", "ran a week on staging")];
        let without = again(&quarantined(&stood), &[]);
        assert!(without.quarantine.as_ref().is_some_and(|quarantine| quarantine.approvals.is_empty()));
        assert_eq!(again(&without, &stood).quarantine, None);
    }

    #[test]
    fn what_comes_after_the_lifting_counts_anew() {
        let later = [("ada", "Approve", "both had bad memory")];
        let lifted = again(&quarantined(&[]), &later);
        let with = |pieces: &[SetEvidence]| {
            let evidence = [&lifted.evidence[..], pieces].concat();
            judge(&lifted, &spec(&later), evidence, now()).quarantine
        };
        assert_eq!(with(&[piece("c", Convicted)]), None);
        let anew = with(&[piece("c", Convicted), piece("d", Convicted)]).unwrap();
        assert_eq!(anew.approvals.len(), 1, "the one that lifted it stood by now");
    }

    #[test]
    fn what_comes_together_with_the_lifting_approval_was_not_known_to_it() {
        let old = quarantined(&[]);
        let evidence = [&old.evidence[..], &[piece("c", Convicted), piece("d", Convicted)]].concat();
        let verdict = judge(&old, &spec(&[("ada", "Approve", "both had bad memory")]), evidence, now());
        assert!(verdict.quarantine.is_some());
        assert_eq!(verdict.evidence.iter().filter(|piece| piece.overruled_by.is_some()).count(), 2);
    }

    #[test]
    fn evidence_that_goes_does_not_lift_it() {
        let verdict = judge(&quarantined(&[]), &spec(&[]), Vec::new(), now());
        assert!(verdict.quarantine.is_some());
    }
}
