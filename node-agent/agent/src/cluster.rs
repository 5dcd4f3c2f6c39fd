//! The agent's few words with the API server.

use std::time::Duration;

use invivo_api::{CANARY_PATCH, NodePatch, NodePatchStatus, PatchFeed, PatchPolicy, PatchSet};
use kube::api::{Api, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::{Client, ResourceExt};
use serde_json::json;

/// The field manager of everything that the agent writes.
pub const MANAGER: &str = "invivo-agent";

/// Longest that one answer of the API server is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the API server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// It said no, or the connection broke.
    #[error("API server: {0}")]
    Api(#[from] kube::Error),
    /// It did not answer.
    #[error("API server: no answer within {} s", PATIENCE.as_secs())]
    Silent,
}

async fn within<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
    Ok(tokio::time::timeout(PATIENCE, answer).await.map_err(|_| ClusterError::Silent)??)
}

/// The API server, as far as the agent needs it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    node: String,
}

/// Whether the policy that keeps agents apart is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fence {
    /// It is.
    Up,
    /// It is not, or that cannot be known; why, for people.
    NotKnownUp(String),
}

impl Cluster {
    /// For the node of this name.
    pub fn new(client: Client, node: String) -> Self {
        Self { client, node }
    }

    /// Every object of the watch may fail to be read without breaking the watch.
    pub fn node_patches(&self) -> Api<DeserializeGuard<NodePatch>> {
        Api::all(self.client.clone())
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// A policy; none if there is none of that name.
    ///
    /// # Errors
    ///
    /// The API server's.
    pub async fn policy(&self, name: &str) -> Result<Option<PatchPolicy>, ClusterError> {
        let policies: Api<PatchPolicy> = Api::all(self.client.clone());
        within(policies.get_opt(name)).await
    }

    /// A feed; none if there is none of that name.
    ///
    /// # Errors
    ///
    /// The API server's.
    pub async fn feed(&self, name: &str) -> Result<Option<PatchFeed>, ClusterError> {
        let feeds: Api<PatchFeed> = Api::all(self.client.clone());
        within(feeds.get_opt(name)).await
    }

    /// A set; none if there is none of that name.
    ///
    /// # Errors
    ///
    /// The API server's.
    pub async fn set(&self, name: &str) -> Result<Option<PatchSet>, ClusterError> {
        let sets: Api<PatchSet> = Api::all(self.client.clone());
        within(sets.get_opt(name)).await
    }

    /// Writes the whole status of the object of this uid: an apply drops what is not repeated.
    ///
    /// # Errors
    ///
    /// The API server's; `Conflict` if the object was made anew.
    pub async fn report(&self, uid: &str, status: &NodePatchStatus) -> Result<NodePatch, ClusterError> {
        let api: Api<NodePatch> = Api::all(self.client.clone());
        let body = json!({
            "apiVersion": "invivo.dev/v1alpha1",
            "kind": "NodePatch",
            "metadata": {"name": self.node, "uid": uid},
            "status": status,
        });
        let params = PatchParams::apply(MANAGER).force();
        within(api.patch_status(&self.node, &params, &Patch::Apply(&body))).await
    }

    /// Tries, dry, to write the status of an object that is not this node's. It must be refused by
    /// the policy, not merely by RBAC, which cannot tell one node's agent from another's.
    pub async fn fence(&self) -> Fence {
        let api: Api<NodePatch> = Api::all(self.client.clone());
        let body = json!({
            "apiVersion": "invivo.dev/v1alpha1",
            "kind": "NodePatch",
            "metadata": {"name": CANARY_PATCH},
            "status": {"observedRevision": 1},
        });
        let params = PatchParams::apply(MANAGER).force().dry_run();
        match within(api.patch_status(CANARY_PATCH, &params, &Patch::Apply(&body))).await {
            Ok(canary) => Fence::NotKnownUp(format!(
                "the status of {} would be accepted: the admission policy invivo-agent is not in force; \
                 install the chart's admission policies",
                canary.name_any()
            )),
            Err(ClusterError::Api(kube::Error::Api(status))) => judge(status.code, &status.message),
            Err(error) => Fence::NotKnownUp(error.to_string()),
        }
    }
}

fn judge(code: u16, message: &str) -> Fence {
    match code {
        403 if message.contains("ValidatingAdmissionPolicy") => Fence::Up,
        403 => Fence::NotKnownUp(format!("RBAC forbids this agent to write any status: {message}")),
        404 => Fence::NotKnownUp(format!(
            "there is no NodePatch {CANARY_PATCH} to try the admission policy on; install the chart again"
        )),
        code => Fence::NotKnownUp(format!("the API server answered {code}: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_by_the_policy_itself_counts() {
        let denied = "nodepatches.invivo.dev \"invivo-canary\" is forbidden: ValidatingAdmissionPolicy \
                      'invivo-agent' with binding 'invivo-agent' denied request: the invivo agent of node";
        assert_eq!(judge(403, denied), Fence::Up);
        let rbac = "nodepatches.invivo.dev \"invivo-canary\" is forbidden: User \"x\" cannot patch resource";
        for (code, message) in [(403, rbac), (404, "not found"), (500, "boom"), (422, "invalid")] {
            assert!(matches!(judge(code, message), Fence::NotKnownUp(_)), "{code}");
        }
    }
}
