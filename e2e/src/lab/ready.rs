//! When nodes are up: Ready, by the boot that was asked for.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, ListParams};

use super::{Error, Lab};
use crate::node::Node;
use crate::progress;

impl Lab {
    /// Waits until each node is Ready, booted by another boot than the one named.
    pub(super) fn wait_ready(
        &self,
        mut nodes: Vec<(String, Option<String>)>,
        patience: Duration,
    ) -> Result<(), Error> {
        let step = progress::begin("wait until the nodes are Ready");
        let start = Instant::now();
        Self::block_on(async {
            let api: Api<core::Node> = Api::all(self.client().await?);
            while !nodes.is_empty() {
                if start.elapsed() >= patience {
                    let names: Vec<String> = nodes.into_iter().map(|(name, _)| name).collect();
                    return Err(Error::NotReady { nodes: names.join(", "), waited: patience });
                }
                for (name, _) in &nodes {
                    self.start_again_after_emulator(&self.node(name)?, &step)?;
                }
                // An API server that starts may still say no.
                let seen =
                    api.list(&ListParams::default()).await.map_or_else(|_| Vec::new(), |list| list.items);
                nodes.retain(|(name, before)| {
                    let ready = seen.iter().any(|node| {
                        node.metadata.name.as_ref() == Some(name)
                            && before.as_ref() != Some(&boot_id(node))
                            && is_ready(node)
                    });
                    if ready {
                        step.note(&format!("{name} Ready"));
                    }
                    !ready
                });
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            Ok(())
        })??;
        step.done();
        Ok(())
    }

    /// Under emulation with several processors QEMU 10 was seen to fail an assertion of its own while
    /// a guest booted (`iotlb_to_section`). That is no power cut that a test asked for: the guest is
    /// started again, and the failure is told.
    fn start_again_after_emulator(&self, node: &Node, step: &progress::Step) -> Result<(), Error> {
        if let Some(failure) = node.emulator_failure() {
            step.note(&format!("{}: started again, QEMU failed: {failure}", node.name()));
            self.start_guest(node)?;
        }
        Ok(())
    }
}

/// Whether the node says that it is ready.
pub fn is_ready(node: &core::Node) -> bool {
    node.status.as_ref().and_then(|status| status.conditions.as_ref()).is_some_and(|conditions| {
        conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
}

/// The boot that the node's kubelet reported last.
pub fn boot_id(node: &core::Node) -> String {
    node.status
        .as_ref()
        .and_then(|status| status.node_info.as_ref())
        .map_or_else(String::new, |info| info.boot_id.clone())
}
