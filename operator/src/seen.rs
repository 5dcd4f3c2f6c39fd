//! What the operator keeps of the objects that it watches: the parts that decide something.
//! Everything else (managed fields, images, heartbeats) is dropped before it is stored, so that
//! it costs no memory and wakes nobody.

use std::collections::BTreeMap;

use invivo_api::{NodePatch, NodePatchSpec, NodePatchStatus, PatchFeed, PatchPolicy, PatchSet};
use invivo_rollout::{HeldByPerson, Readiness};
use invivo_terms::ANNOTATION_HOLD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Resource;
use serde::de::DeserializeOwned;

/// A watched kind, and what is kept of it.
pub trait Seen: PartialEq + Send + Sync + Sized + 'static {
    /// The kind as the API server gives it.
    type Object: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static;

    /// The kind's name.
    const KIND: &'static str;

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
    /// What the kubelet reports.
    pub ready: Readiness,
    /// It takes no new pods.
    pub cordoned: bool,
    /// A person's hold of it.
    pub held: Option<HeldByPerson>,
    /// The boot that the kubelet reports.
    pub boot_id: Option<String>,
}

/// What people write into the annotation that holds a node.
#[derive(Debug, Default, serde::Deserialize)]
struct HoldAnnotation {
    until: Option<Timestamp>,
}

/// A hold that cannot be read holds until somebody corrects it.
fn held(annotations: &BTreeMap<String, String>) -> Option<HeldByPerson> {
    let text = annotations.get(ANNOTATION_HOLD)?;
    let hold: HoldAnnotation = serde_json::from_str(text).unwrap_or_default();
    Some(HeldByPerson { until: hold.until })
}

impl Seen for SeenNode {
    type Object = Node;

    const KIND: &'static str = "Node";

    fn see(node: Node) -> Self {
        let status = node.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        let ready = match ready {
            Some(condition) if condition.status == "True" => Readiness::Ready,
            // Where the control plane does not say since when: since ever.
            Some(condition) => Readiness::NotReady {
                since: condition.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            },
            None => Readiness::NotReady { since: Timestamp::UNIX_EPOCH },
        };
        let held = node.metadata.annotations.as_ref().and_then(held);
        Self {
            uid: node.metadata.uid.unwrap_or_default(),
            labels: node.metadata.labels.unwrap_or_default(),
            ready,
            cordoned: node.spec.and_then(|spec| spec.unschedulable).unwrap_or_default(),
            held,
            boot_id: status.node_info.map(|info| info.boot_id),
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

    const KIND: &'static str = "NodePatch";

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

            const KIND: &'static str = stringify!($kind);

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

    #[test]
    fn a_persons_hold_is_read_and_one_that_cannot_be_read_holds_as_well() {
        let of = |text: &str| held(&[(ANNOTATION_HOLD.to_owned(), text.to_owned())].into());
        let until = "2026-11-22T12:00:00Z".parse().ok();
        assert_eq!(
            of(r#"{"reason": "disk", "until": "2026-11-22T12:00:00Z"}"#),
            Some(HeldByPerson { until })
        );
        for text in [r#"{"reason": "disk"}"#, "broken", ""] {
            assert_eq!(of(text), Some(HeldByPerson { until: None }), "{text}");
        }
        assert_eq!(held(&BTreeMap::new()), None);
    }

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
