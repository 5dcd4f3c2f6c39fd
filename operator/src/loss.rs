//! Nodes that vanish in flight or before they had settled. They failed, and do not take that with
//! them: a node that crashes and is replaced by an autoscaler would look like one that never was.
//!
//! Known here until the policy's status has it among its evidence, which counts from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use invivo_api::PatchPolicyStatus;
use invivo_terms::NodeState;
use jiff::Timestamp;

use crate::seen::SeenPatch;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Loss {
    policy: String,
    deadline: Timestamp,
}

/// What has vanished, by node.
#[derive(Debug, Default)]
pub struct Losses(Mutex<BTreeMap<String, Loss>>);

/// How many are kept; more at once is no longer about single nodes.
const KEPT: usize = 10_000;

impl Losses {
    /// A node is gone; this was its NodePatch. Says which policy that concerns: none if that went before
    /// it, for one of its name would begin with a loss.
    pub fn gone(&self, node: &str, patch: &SeenPatch, is_there: impl Fn(&str) -> bool) -> Option<String> {
        let loss = loss(patch).filter(|loss| is_there(&loss.policy))?;
        let policy = loss.policy.clone();
        let mut losses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if losses.len() >= KEPT {
            losses.pop_first();
        }
        losses.insert(node.to_owned(), loss);
        Some(policy)
    }

    /// The policy is gone: one that is made later under its name has lost nothing.
    pub fn forget(&self, policy: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, loss| loss.policy != policy);
    }

    /// The nodes that vanished in the rollout that this status tells of.
    pub fn of(&self, policy: &str, status: Option<&PatchPolicyStatus>) -> BTreeSet<String> {
        let Some(rollout) = status.and_then(|status| status.rollout.as_ref()) else {
            return BTreeSet::new();
        };
        let before = rollout.before.as_ref().map(|before| before.0);
        let losses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let concerned = losses
            .iter()
            .filter(|(_, loss)| loss.policy == policy && Some(loss.deadline) > before && !rollout.complete);
        concerned.map(|(node, _)| node.clone()).collect()
    }
}

/// What a NodePatch loses with its node: a load that was under way or had not settled.
fn loss(patch: &SeenPatch) -> Option<Loss> {
    let apply = patch.spec.apply.as_ref()?;
    let policy = patch.spec.policy.clone()?;
    let answered = patch.status.as_ref().filter(|status| status.observed_revision >= patch.spec.revision);
    let lost = match answered.map(|status| status.state) {
        None | Some(NodeState::Working | NodeState::Applied | NodeState::Idle) => true,
        // Settled is over; a failure was told by the node itself and is counted as such.
        Some(
            NodeState::Settled
            | NodeState::RolledBack
            | NodeState::Blocked
            | NodeState::Refused
            | NodeState::Failed
            | NodeState::Suspected
            | NodeState::Convicted,
        ) => false,
    };
    lost.then_some(Loss { policy, deadline: apply.deadline.0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patch(state: &str, observed: i64) -> SeenPatch {
        SeenPatch {
            owner: Some("u".into()),
            spec: serde_json::from_value(
                json!({"revision": 2, "policy": "workers", "feed": "production", "apply": {
                "buildId": "b".repeat(40), "level": 1, "set": "2026-11-21.1", "digest": "e".repeat(64),
                "manifest": "c".repeat(64), "mechanism": "Livepatch", "deadline": "2026-11-22T12:10:00Z",
                "settleAfter": "30m"}}),
            )
            .unwrap(),
            status: serde_json::from_value(json!({"observedRevision": observed, "state": state})).unwrap(),
        }
    }

    fn status(before: &str, complete: bool) -> PatchPolicyStatus {
        serde_json::from_value(json!({"rollout": {"key": {"number": 1, "target": "2026-11-21.1",
            "mechanism": "Livepatch"}, "started": 1, "finished": 0, "failed": 0, "complete": complete,
            "before": before}}))
        .unwrap()
    }

    #[test]
    fn a_node_that_vanishes_before_it_has_settled_is_lost_to_its_rollout_and_to_no_other() {
        for (state, observed) in [("Idle", 1), ("Working", 2), ("Applied", 2)] {
            let losses = Losses::default();
            assert_eq!(
                losses.gone("a", &patch(state, observed), |_| true).as_deref(),
                Some("workers"),
                "{state}"
            );
            let now = status("2026-11-22T12:00:00Z", false);
            assert_eq!(losses.of("workers", Some(&now)), BTreeSet::from(["a".to_owned()]));
            assert!(losses.of("others", Some(&now)).is_empty());
            assert!(losses.of("workers", Some(&status("2026-11-22T12:10:00Z", false))).is_empty());
            assert!(losses.of("workers", Some(&status("2026-11-22T12:00:00Z", true))).is_empty());
            assert!(losses.of("workers", None).is_empty());
        }
    }

    #[test]
    fn a_policy_made_anew_under_an_old_name_has_lost_nothing() {
        let losses = Losses::default();
        losses.gone("a", &patch("Applied", 2), |_| true);
        losses.forget("others");
        let now = status("2026-11-22T12:00:00Z", false);
        assert_eq!(losses.of("workers", Some(&now)).len(), 1);
        losses.forget("workers");
        assert!(losses.of("workers", Some(&now)).is_empty());
        assert_eq!(losses.gone("a", &patch("Applied", 2), |policy| policy != "workers"), None);
        assert!(losses.of("workers", Some(&now)).is_empty(), "the node went after its policy");
    }

    #[test]
    fn what_had_settled_or_failed_by_its_own_word_is_no_loss() {
        for state in ["Settled", "Failed", "Convicted", "Blocked"] {
            assert_eq!(Losses::default().gone("a", &patch(state, 2), |_| true), None, "{state}");
        }
    }
}
