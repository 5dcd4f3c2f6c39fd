//! The Node objects of a fleet, and their end.

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use invivo_api::{CANARY_PATCH, NodePatch};
use invivo_terms::BuildId;
use k8s_openapi::api::core::v1 as core;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::agents::Swarm;
use super::stand::Stand;
use crate::fleet::Seen;
use crate::progress;

/// The label whose values are zones.
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";
/// The label of the nodes that go first.
pub(super) const CANARY: &str = "invivo.dev/canary";
/// So many nodes are made or read at the same time.
const AT_ONCE: usize = 32;
/// Of so many nodes one goes first.
const ONE_CANARY_OF: usize = 100;

/// One simulated node.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) zone: String,
    pub(super) build: BuildId,
    pub(super) release: String,
    pub(super) version: String,
    pub(super) boot: String,
    pub(super) canary: bool,
}

/// Makes so many nodes, in three zones and of two kernel builds, and gives each an agent.
///
/// # Errors
/// When the API server refuses one.
pub(super) fn make(stand: &Stand, swarm: &Swarm, count: usize) -> anyhow::Result<Vec<Node>> {
    let step = progress::begin(format!("make {count} nodes"));
    let nodes: Api<core::Node> = Api::all(swarm.client());
    let kernels = stand.kernels();
    let planned = (0..count).map(|index| {
        // Both builds in every zone, and canaries of both.
        let kernel = kernels.get(index / 3 % kernels.len()).context("a fleet without kernels")?;
        Ok::<_, anyhow::Error>(Node {
            name: format!("node-{index:04}"),
            uid: String::new(),
            zone: format!("zone-{}", index % 3),
            build: kernel.build_id.clone(),
            release: kernel.release.clone(),
            version: kernel.version.clone(),
            boot: format!("00000000-0000-4000-8000-{index:012}"),
            canary: index % ONE_CANARY_OF < 4,
        })
    });
    let made = swarm.block_on(async {
        stream::iter(planned.collect::<anyhow::Result<Vec<_>>>()?)
            .map(|node| create(&nodes, node))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<Node>>()
            .await
    })?;
    swarm.join(&made);
    step.done();
    Ok(made)
}

/// One more node like this one, with another name, that is no canary, and its agent.
///
/// # Errors
/// When the API server refuses it.
pub(super) fn join(swarm: &Swarm, name: &str, like: &Node) -> anyhow::Result<Node> {
    let nodes: Api<core::Node> = Api::all(swarm.client());
    let node = Node { name: name.to_owned(), canary: false, ..like.clone() };
    let made = swarm.block_on(create(&nodes, node))?;
    swarm.join_late(&made)?;
    Ok(made)
}

async fn create(nodes: &Api<core::Node>, mut node: Node) -> anyhow::Result<Node> {
    let mut labels = json!({
        "kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", ZONE: node.zone,
        "node.kubernetes.io/kernel": node.release,
    });
    if let (true, Some(labels)) = (node.canary, labels.as_object_mut()) {
        labels.insert(CANARY.to_owned(), json!("true"));
    }
    let object: core::Node =
        serde_json::from_value(json!({"metadata": {"name": node.name, "labels": labels}}))?;
    let created = nodes.create(&PostParams::default(), &object).await;
    let created = created.with_context(|| format!("create the node {}", node.name))?;
    node.uid = created.metadata.uid.unwrap_or_default();
    let status = json!({"status": {
        "conditions": [ready("True")],
        "nodeInfo": {
            "architecture": "amd64", "bootID": node.boot, "containerRuntimeVersion": "none",
            "kernelVersion": node.release, "kubeProxyVersion": "", "kubeletVersion": "v1.34.4",
            "machineID": node.name, "operatingSystem": "linux", "osImage": "none", "systemUUID": node.name,
        },
    }});
    let written = nodes.patch_status(&node.name, &PatchParams::default(), &Patch::Strategic(&status)).await;
    written.with_context(|| format!("write the status of the node {}", node.name))?;
    Ok(node)
}

fn ready(status: &str) -> serde_json::Value {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "type": "Ready", "status": status, "reason": "Simulated", "message": "",
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    })
}

/// Says of a node that it is Ready or has fallen silent, as the control plane would.
///
/// # Errors
/// When the API server refuses it.
pub(super) fn set_ready(stand: &Stand, name: &str, well: bool) -> anyhow::Result<()> {
    let nodes: Api<core::Node> = Api::all(stand.fleet().client());
    let body = json!({"status": {"conditions": [ready(if well { "True" } else { "Unknown" })]}});
    let params = PatchParams::default();
    stand
        .fleet()
        .block_on(nodes.patch_status(name, &params, &Patch::Strategic(&body)))
        .with_context(|| format!("write the status of the node {name}"))?;
    Ok(())
}

/// Deletes every node and what is known of it; there is no garbage collector.
///
/// # Errors
/// When the API server refuses it.
pub(super) fn remove(stand: &Stand, swarm: &Swarm) -> anyhow::Result<()> {
    let step = progress::begin("remove the nodes");
    let fleet = stand.fleet();
    // Gone before its nodes: what they take with them is nobody's then.
    stand.product()?.kubectl(&["delete", "patchpolicies", "--all", "--timeout=60s"])?;
    swarm.leave();
    let nodes: Api<core::Node> = Api::all(fleet.client());
    let patches: Api<NodePatch> = Api::all(fleet.client());
    let params = DeleteParams::default();
    let theirs = ListParams::default().fields(&format!("metadata.name!={CANARY_PATCH}"));
    // Asked again until nothing is left: a busy API server may break a connection off.
    fleet.wait("an empty cluster", super::PATIENCE, || {
        fleet.block_on(nodes.delete_collection(&params, &ListParams::default()))?;
        fleet.block_on(patches.delete_collection(&params, &theirs))?;
        let left = fleet.patches()?.len();
        Ok(if left == 0 { Seen::Answer(()) } else { Seen::NotYet(format!("{left} NodePatches")) })
    })?;
    step.done();
    Ok(())
}
