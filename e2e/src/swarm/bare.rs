//! The same writes without anybody who decides: for each node one of its NodePatch's spec, two of its
//! status and one of the node's labels, by the same accounts, as many at once.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::Request;
use invivo_api::NodePatch;
use invivo_terms::{LABEL_EFFECTIVE, LABEL_LEVEL, NodeState};
use k8s_openapi::api::core::v1 as core;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::Semaphore;

use super::agents::{self, Swarm};
use super::ledger::Ledger;
use super::nodes::Node;
use super::stand::Stand;
use super::table::Table;
use crate::audit;
use crate::progress;

/// So many writes the operator has under way at once, of each kind.
const OPERATOR_AT_ONCE: usize = 16;
/// Beyond that a node waits for its turn with the first of its writes.
const NODES_AT_ONCE: usize = agents::AT_ONCE + 2 * OPERATOR_AT_ONCE;
const MANAGER: &str = "invivo-operator";
const GOAL: f64 = 1.5;

struct Writer {
    operator: Client,
    agents: Client,
    specs: Semaphore,
    labels: Semaphore,
    statuses: Semaphore,
}

/// Makes the writes, and compares with `ours`. The operator must have ended.
///
/// # Errors
/// When the API server refuses one.
pub(super) fn run(
    stand: &Stand,
    swarm: &Swarm,
    nodes: &[Node],
    ours: Duration,
    table: &mut Table,
) -> anyhow::Result<()> {
    let step = progress::begin(format!("the same writes for {} nodes, bare", nodes.len()));
    let mut patches = stand.fleet().patches()?;
    swarm.leave();
    let log = stand.audit_log();
    let begun = audit::length(&log)?;
    swarm.block_on(async {
        let writer = Writer {
            operator: stand.operator_client().await?,
            agents: swarm.client(),
            specs: Semaphore::new(OPERATOR_AT_ONCE),
            labels: Semaphore::new(OPERATOR_AT_ONCE),
            statuses: Semaphore::new(agents::AT_ONCE),
        };
        let writer = &writer;
        let work: Vec<_> =
            nodes.iter().filter_map(|node| Some((node, patches.remove(&node.name)?))).collect();
        stream::iter(work)
            .map(|(node, patch)| async move { writer.one(node, patch).await })
            .buffer_unordered(NODES_AT_ONCE)
            .try_collect::<()>()
            .await
    })?;
    step.done();
    let bare = Ledger::of(&audit::read_from(&log, begun)?).span()?;
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    table.add(
        format!("{} nodes, the same writes bare: first to last report", nodes.len()),
        format!("{:.2} s", bare.as_secs_f64()),
    );
    table.add("ratio (goal: at most 1.5)", format!("{ratio:.2}"));
    ensure!(ratio <= GOAL, "it takes {ratio:.2} times as long as the same writes alone");
    Ok(())
}

impl Writer {
    async fn one(&self, node: &Node, patch: NodePatch) -> anyhow::Result<()> {
        let (level, set, revision) = {
            let status = patch.status.as_ref().context("a node without a word")?;
            (status.level, status.set.clone(), patch.spec.revision.next())
        };
        let uid = patch.metadata.uid.clone().unwrap_or_default();
        self.instruct(node, patch).await?;
        for state in [NodeState::Applied, NodeState::Settled] {
            let _turn = self.statuses.acquire().await?;
            let status = agents::status(node, revision, level, set.clone(), state);
            agents::report(&self.agents, node, &uid, &status).await?;
        }
        let _turn = self.labels.acquire().await?;
        let labels = json!({LABEL_LEVEL: "9", LABEL_EFFECTIVE: "bare"});
        let body = json!({"metadata": {"uid": node.uid, "labels": labels}});
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let nodes: Api<core::Node> = Api::all(self.operator.clone());
        nodes.patch(&node.name, &params, &Patch::Merge(&body)).await?;
        Ok(())
    }

    async fn instruct(&self, node: &Node, patch: NodePatch) -> anyhow::Result<()> {
        let _turn = self.specs.acquire().await?;
        let mut spec = patch.spec;
        spec.revision = spec.revision.next();
        let body = json!([
            {"op": "replace", "path": "/metadata/resourceVersion", "value": patch.metadata.resource_version},
            {"op": "replace", "path": "/spec", "value": spec},
        ]);
        let path = format!("/apis/invivo.dev/v1alpha1/nodepatches/{}?fieldManager={MANAGER}", node.name);
        let request = Request::patch(path).header("Content-Type", "application/json-patch+json");
        self.operator.request_text(request.body(serde_json::to_vec(&body)?)?).await?;
        Ok(())
    }
}
