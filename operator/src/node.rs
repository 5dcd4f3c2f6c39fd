//! One node: its labels and its NodePatch.

use std::collections::BTreeMap;

use invivo_api::{HoldInstruction, NodePatchSpec};
use invivo_terms::{LABEL_AGENT, LABEL_EFFECTIVE, LABEL_LEVEL, Revision, label_value};

use crate::claim::{Claimant, claim};
use crate::context::{Context, Done};
use crate::error::Error;
use crate::observe::patch_of;
use crate::seen::{SeenNode, SeenPatch};
use crate::write;

/// What a node lacks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lacking {
    /// Labels to put on it, all in one write.
    pub labels: BTreeMap<&'static str, String>,
    /// The NodePatch to create.
    pub patch: Option<NodePatchSpec>,
}

/// What a node lacks. A node that no policy wants any more keeps its label and its NodePatch, and
/// its level stays known; one that none ever wanted is left alone.
pub fn lacking(
    node: &SeenNode,
    patch: Option<&SeenPatch>,
    claimants: &[Claimant],
    feed_of: impl Fn(&str) -> Option<String>,
) -> Lacking {
    let bound = patch.and_then(|patch| patch.spec.policy.as_deref());
    let owner = claim(&node.labels, bound, claimants);
    let mut wanted: BTreeMap<&'static str, String> = BTreeMap::new();
    if owner.is_some() {
        wanted.insert(LABEL_AGENT, String::new());
    }
    let status = patch.and_then(|patch| patch.status.as_ref());
    if let Some(status) = status.filter(|status| status.kernel.is_some()) {
        wanted.insert(LABEL_LEVEL, status.level.to_string());
        if let Some(effective) = &status.effective {
            wanted.insert(LABEL_EFFECTIVE, label_value(effective));
        }
    }
    wanted.retain(|key, value| node.labels.get(*key) != Some(value));
    let patch = match (owner, patch) {
        (Some(owner), None) => Some(NodePatchSpec {
            revision: Revision(1),
            policy: Some(owner.name.clone()),
            feed: feed_of(&owner.name),
            apply: None,
            roll_back: None,
            hold: Some(HoldInstruction {}),
        }),
        (Some(_), Some(_)) | (None, _) => None,
    };
    Lacking { labels: wanted, patch }
}

/// Gives one node what it lacks.
///
/// # Errors
///
/// The write that did not happen.
pub async fn reconcile(context: &Context, name: &str) -> Result<Done, Error> {
    let stores = &context.stores;
    let Some(node) = stores.nodes.get(name) else { return Ok(Done::default()) };
    let patch = patch_of(stores, &node);
    // The one that an earlier node of this name left goes with that node; until then, wait.
    if patch.is_none() && stores.patches.get(name).is_some() {
        return Ok(Done::default());
    }
    // It may have one, or belong to a policy, that cannot be read.
    if stores.patches.unreadable_of(name).is_some() || !stores.policies.unreadable().is_empty() {
        return Ok(Done::default());
    }
    let feed_of = |policy: &str| stores.policies.get(policy).map(|policy| policy.value.spec.feed.clone());
    let lacking =
        lacking(&node.value, patch.as_ref().map(|patch| patch.value.as_ref()), &stores.claimants(), feed_of);
    if let Some(spec) = &lacking.patch {
        write::create_patch(&context.client, stores, &node, spec).await?;
    }
    if !lacking.labels.is_empty() {
        write::label(&context.client, stores, &node, &lacking.labels).await?;
    }
    Ok(Done::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::{Expression, Selector};
    use serde_json::{Value, json};

    fn node(labels: &[(&str, &str)]) -> SeenNode {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        SeenNode {
            uid: "u".into(),
            labels,
            ready: invivo_rollout::Readiness::Ready,
            cordoned: false,
            held: None,
            boot_id: None,
        }
    }

    fn patch(status: Value) -> SeenPatch {
        SeenPatch {
            owner: Some("u".into()),
            spec: serde_json::from_value(json!({"revision": 1, "policy": "p", "feed": "f", "hold": {}}))
                .unwrap(),
            status: serde_json::from_value(status).unwrap(),
        }
    }

    fn workers() -> [Claimant; 1] {
        let selector = Selector::from(Expression::Exists("worker".into()));
        [Claimant {
            name: "p".into(),
            priority: 0,
            created: jiff::Timestamp::UNIX_EPOCH,
            selector: Some(selector),
        }]
    }

    #[test]
    fn a_governed_node_gets_the_agent_and_a_patch_that_holds() {
        let lacking = lacking(&node(&[("worker", "")]), None, &workers(), |_| Some("f".to_owned()));
        assert_eq!(lacking.labels.keys().copied().collect::<Vec<_>>(), [LABEL_AGENT]);
        let spec = lacking.patch.unwrap();
        assert_eq!((spec.revision, spec.policy.as_deref()), (Revision(1), Some("p")));
        assert!(spec.hold.is_some() && spec.apply.is_none());
    }

    #[test]
    fn a_node_that_nobody_selects_is_left_alone() {
        assert_eq!(lacking(&node(&[]), None, &workers(), |_| Some("f".to_owned())), Lacking::default());
    }

    #[test]
    fn level_and_version_go_on_in_one_write_and_only_once() {
        let kernel = json!({"buildId": "b".repeat(40), "release": "6.1.0-47", "supports": ["Livepatch"], "signing": "Off"});
        let patch = patch(
            json!({"level": 4, "effective": "6.1.170-3+invivo4", "kernel": kernel, "state": "Applied"}),
        );
        let now = lacking(&node(&[("worker", ""), (LABEL_AGENT, "")]), Some(&patch), &workers(), |_| {
            Some("f".to_owned())
        })
        .labels;
        assert_eq!(
            now,
            BTreeMap::from([(LABEL_LEVEL, "4".into()), (LABEL_EFFECTIVE, "6.1.170-3_invivo4".into())])
        );
        let labelled = node(&[
            ("worker", ""),
            (LABEL_AGENT, ""),
            (LABEL_LEVEL, "4"),
            (LABEL_EFFECTIVE, "6.1.170-3_invivo4"),
        ]);
        assert_eq!(
            lacking(&labelled, Some(&patch), &workers(), |_| Some("f".to_owned())),
            Lacking::default()
        );
    }

    #[test]
    fn a_node_that_left_the_selector_keeps_its_label() {
        let left = node(&[(LABEL_AGENT, "")]);
        assert_eq!(
            lacking(&left, Some(&patch(json!({"state": "Idle"}))), &workers(), |_| Some("f".to_owned())),
            Lacking::default()
        );
    }
}
