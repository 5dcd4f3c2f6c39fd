//! What the operator keeps of the objects that it watches: the parts that decide something.
//! Everything else (managed fields, images, heartbeats) is dropped before it is stored, so that
//! it costs no memory and wakes nobody.

use std::collections::BTreeMap;

use invivo_api::{NodePatch, NodePatchSpec, NodePatchStatus, PatchFeed, PatchPolicy, PatchSet};
use k8s_openapi::api::core::v1::Node;
use kube::Resource;
use serde::de::DeserializeOwned;

/// A watched kind, and what is kept of it.
pub trait Seen: PartialEq + Send + Sync + Sized + 'static {
    /// The kind as the API server gives it.
    type Object: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static;

    /// The kept parts of one object.
    fn see(object: Self::Object) -> Self;
}

/// What is kept of a Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenNode {
    /// Tells this node from another one of the same name.
    pub uid: String,
    /// All labels: people's selectors may ask for any.
    pub labels: BTreeMap<String, String>,
    /// The kubelet reports Ready.
    pub ready: bool,
}

impl Seen for SeenNode {
    type Object = Node;

    fn see(node: Node) -> Self {
        let ready = node
            .status
            .and_then(|status| status.conditions)
            .unwrap_or_default()
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        Self {
            uid: node.metadata.uid.unwrap_or_default(),
            labels: node.metadata.labels.unwrap_or_default(),
            ready,
        }
    }
}

/// What is kept of a NodePatch.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenPatch {
    /// The uid of the Node that owns it.
    pub owner: Option<String>,
    /// The instruction.
    pub spec: NodePatchSpec,
    /// The agent's answer.
    pub status: Option<NodePatchStatus>,
}

impl Seen for SeenPatch {
    type Object = NodePatch;

    fn see(patch: NodePatch) -> Self {
        let owner = patch
            .metadata
            .owner_references
            .unwrap_or_default()
            .into_iter()
            .find(|owner| owner.kind == "Node")
            .map(|owner| owner.uid);
        Self { owner, spec: patch.spec, status: patch.status }
    }
}

/// Implements [`Seen`] for a kind that is kept whole but for its bookkeeping.
macro_rules! kept_whole {
    ($($kind:ty),+) => {$(
        impl Seen for $kind {
            type Object = Self;

            fn see(mut object: Self) -> Self {
                object.metadata.managed_fields = None;
                object.metadata.resource_version = None;
                object
            }
        }
    )+};
}
kept_whole!(PatchFeed, PatchPolicy, PatchSet);

#[cfg(test)]
mod tests {
    use super::*;

    fn node(heartbeat: &str, ready: &str) -> Node {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "a", "uid": "u", "resourceVersion": heartbeat.len().to_string()},
            "status": {"conditions": [
                {"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat, "lastTransitionTime": null}
            ]}
        }))
        .unwrap()
    }

    #[test]
    fn a_heartbeat_changes_nothing_that_is_kept() {
        let before = SeenNode::see(node("2026-11-22T12:00:00Z", "True"));
        assert_eq!(before, SeenNode::see(node("2026-11-22T12:05:00Z", "True")));
        assert_ne!(before, SeenNode::see(node("2026-11-22T12:05:00Z", "Unknown")));
    }
}
