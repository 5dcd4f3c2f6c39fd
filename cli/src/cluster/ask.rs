//! What `why` reads about one node.

use invivo_api::{Blocker, NodePatch, PatchFeed, PatchPolicy};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::connect::{Connection, failure};
use super::object::Kind;
use super::why::Asked;
use crate::exit::{Exit, Failure};

impl Connection {
    /// Reads what concerns one node.
    ///
    /// # Errors
    ///
    /// The API server does not answer, or there is no such node.
    pub async fn ask(&self, node: &str) -> Result<Asked, Failure> {
        let client = || self.client.clone();
        let patch = Api::<NodePatch>::all(client())
            .get_opt(node)
            .await
            .map_err(|e| failure(&e, "reading its NodePatch"))?;
        // Its annotations tell who holds it; without the right to read nodes the rest is told.
        let about = match self.find(Kind::Node, node).await {
            Ok(None) if patch.is_none() => {
                return Err(Failure::missing(format!("there is no node {node}; see `kubectl get nodes`")));
            }
            Ok(about) => about,
            Err(failure) if patch.is_some() && failure.exit == Exit::Denied => None,
            Err(failure) => return Err(failure),
        };
        let name = patch.as_ref().and_then(|patch| patch.spec.policy.clone());
        let mut policy = None;
        let mut feed = None;
        let mut plan = Err("no policy governs the node".to_owned());
        if let Some(name) = name {
            policy = Api::<PatchPolicy>::all(client())
                .get_opt(&name)
                .await
                .map_err(|e| failure(&e, "reading its policy"))?;
            if let Some(policy) = &policy {
                feed = Api::<PatchFeed>::all(client())
                    .get_opt(&policy.spec.feed)
                    .await
                    .map_err(|e| failure(&e, "reading its feed"))?;
                plan = self.plan(&policy.name_any()).await.map_err(|failure| failure.message);
            }
        }
        let blockers = patch.as_ref().and_then(|patch| patch.status.as_ref()).map(|s| s.blockers.clone());
        let pods = self.pods(node, &blockers.unwrap_or_default()).await;
        let stop = self.stop().await?;
        Ok(Asked { node: node.to_owned(), patch, policy, feed, plan, about, stop, pods })
    }

    /// The pods on the node that blockers are in: uid and `namespace/name`. NodePatches hold no
    /// names, so they are found with the caller's own rights, or not at all.
    async fn pods(&self, node: &str, blockers: &[Blocker]) -> Vec<(String, String)> {
        if blockers.iter().all(|blocker| blocker.pod_uid.is_none()) {
            return Vec::new();
        }
        let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let pods = Api::<Pod>::all(self.client.clone()).list_metadata(&on_node).await;
        let named = |pod: &kube::core::PartialObjectMeta<Pod>| {
            let uid = pod.metadata.uid.clone()?;
            blockers.iter().any(|blocker| blocker.pod_uid.as_ref() == Some(&uid)).then(|| {
                (uid, format!("{}/{}", pod.metadata.namespace.as_deref().unwrap_or_default(), pod.name_any()))
            })
        };
        pods.map(|pods| pods.items.iter().filter_map(named).collect()).unwrap_or_default()
    }
}
