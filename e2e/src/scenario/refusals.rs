//! Bytes that nobody signed, offered along the way and past a patch server that lies.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use invivo_api::{NodePatch, NodePatchSpec};
use invivo_terms::{NodeState, Revision};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, PostParams};

use crate::check::Hole;
use crate::corrupted;
use crate::demo::{CANARY, NODES};
use crate::fleet::Seen;
use crate::forgery::{Forged, Forgery};
use crate::product::POLICY;
use crate::prometheus::Prometheus;
use crate::stage::{PATIENCE, Stage};

/// Ports of the servers that offer forgeries.
const FORGED_PORT: u16 = 8090;

pub(super) fn changed_bundle(stage: &Stage<'_>) -> anyhow::Result<()> {
    refused(stage, Forgery::ChangedBundle)
}

pub(super) fn one_signature(stage: &Stage<'_>) -> anyhow::Result<()> {
    refused(stage, Forgery::OneSignature)
}

/// A feed whose repository is forged: named in condition, metric and Event; nothing loaded, nothing unloaded.
fn refused(stage: &Stage<'_>, forgery: Forgery) -> anyhow::Result<()> {
    let reason = forgery.refusal().as_str();
    let open = ["node2", "node3"];
    stage.product.apply(&stage.product.policy("Latest").replace("soak: 15s", "soak: 30m"))?;
    stage.wait_closed(&[CANARY])?;

    let forged = Forged::make(&stage.repository, forgery)?;
    let name = forgery.name();
    let url = stage.lab.serve(name, forged.folder(), FORGED_PORT + forgery as u16)?;
    stage.product.apply(&stage.product.feed_named(name, &url, &stage.repository.root()?))?;
    let message = stage.fleet.wait_feed(name, "False", reason, PATIENCE)?;
    println!("  condition: {reason}: {message}");
    stage.product.apply(&stage.product.policy_of(name, "Latest"))?;

    let promql = format!("invivo_feed_refusals_total{{feed=\"{name}\",reason=\"{reason}\"}}");
    let metric = stage.fleet.wait(&promql, PATIENCE, || {
        let answer = stage.fleet.block_on(Prometheus::query(&promql))?;
        Ok(match answer.pointer("/0/value/1").and_then(serde_json::Value::as_str) {
            Some(value) if value != "0" => Seen::Answer(value.to_owned()),
            other => Seen::NotYet(format!("{other:?}")),
        })
    })?;
    println!("  metric: {promql} {metric}");
    let events = stage.product.kubectl(&[
        "get",
        "events.events.k8s.io",
        "-A",
        "-o",
        "jsonpath={range .items[*]}{.regarding.kind}/{.regarding.name} {.reason} {.note}{\"\\n\"}{end}",
    ])?;
    let event = events.lines().find(|line| line.starts_with(&format!("PatchFeed/{name} {reason}")));
    println!(
        "  event: {}",
        event.with_context(|| format!("no Event of PatchFeed/{name} {reason} among:\n{events}"))?
    );

    stage.require(CANARY, Hole::Closed)?;
    open.iter().try_for_each(|node| stage.require(node, Hole::Open))?;
    stage.product.apply(&stage.product.policy("None"))?;
    stage.product.kubectl(&["delete", "pf", name])?;
    Ok(())
}

pub(super) fn lying_patch_server(stage: &Stage<'_>) -> anyhow::Result<()> {
    // A true instruction to repeat by hand, once the operator is away and the server lies.
    stage.target_at_once("Latest")?;
    stage.wait_closed(&NODES)?;
    let truth = stage.fleet.patches()?.remove("node1").context("node1 has no NodePatch")?.spec;
    stage.target_at_once("None")?;
    stage.fleet.wait_at_target(POLICY, "None", PATIENCE)?;

    scale_operator(stage, 0)?;
    // The agent obeys only what its policy allows, so the policy must aim at the set again.
    stage.target_at_once("Latest")?;
    let result = [Forgery::ChangedBundle, Forgery::OneSignature].into_iter().try_for_each(|forgery| {
        begin_lying(stage, forgery)?;
        let result = agent_refuses(stage, &truth, forgery).and_then(|()| operator_refuses(stage, forgery));
        end_lying(stage)?;
        result
    });
    stage.target_at_once("None")?;
    // What was written by hand must not stay: the operator would take it for its own.
    write_by_hand(stage, serde_json::json!({"hold": {}}))?;
    scale_operator(stage, 1)?;
    result
}

/// An operator that has seen nothing before reads the documents, not the bundles.
fn operator_refuses(stage: &Stage<'_>, forgery: Forgery) -> anyhow::Result<()> {
    match forgery {
        Forgery::ChangedBundle | Forgery::ChangedModule => return Ok(()),
        Forgery::OneSignature => {}
    }
    scale_operator(stage, 1)?;
    let message =
        stage.fleet.wait_feed(crate::product::FEED, "False", forgery.refusal().as_str(), PATIENCE)?;
    println!("  operator: {}: {message}", forgery.refusal());
    scale_operator(stage, 0)
}

fn agent_refuses(stage: &Stage<'_>, truth: &NodePatchSpec, forgery: Forgery) -> anyhow::Result<()> {
    let revision = instruct(stage, truth)?;
    let wanted = forgery.refusal();
    let seen = stage.fleet.wait("the agent's refusal", PATIENCE, || {
        let status =
            stage.fleet.patches()?.remove("node1").and_then(|patch| patch.status).unwrap_or_default();
        Ok(if status.observed_revision.0 == revision && status.state == NodeState::Refused {
            Seen::Answer(status)
        } else {
            Seen::NotYet(format!(
                "{} revision {} {:?}",
                status.state, status.observed_revision, status.reason
            ))
        })
    })?;
    println!("  agent: {} {}", seen.reason.clone().unwrap_or_default(), seen.message.unwrap_or_default());
    ensure!(seen.reason.as_deref() == Some(wanted.as_str()), "refused as {:?}, not {wanted}", seen.reason);
    stage.require("node1", Hole::Open)
}

/// The instruction again with a higher revision and a new deadline; returns the revision.
fn instruct(stage: &Stage<'_>, truth: &NodePatchSpec) -> anyhow::Result<i64> {
    let mut spec = truth.clone();
    if let Some(apply) = &mut spec.apply {
        apply.deadline = Time(jiff::Timestamp::now() + jiff::SignedDuration::from_mins(10));
    }
    write_by_hand(stage, serde_json::to_value(spec)?)
}

/// Writes the spec of node1's NodePatch with the next revision; returns that.
fn write_by_hand(stage: &Stage<'_>, spec: serde_json::Value) -> anyhow::Result<i64> {
    let mut patch = stage.fleet.patches()?.remove("node1").context("node1 has no NodePatch")?;
    let revision = patch.spec.revision.next();
    patch.spec = serde_json::from_value(with_revision(spec, revision)?)?;
    patch.metadata.managed_fields = None;
    let api: Api<NodePatch> = Api::all(stage.fleet.client());
    stage.fleet.block_on(api.replace("node1", &PostParams::default(), &patch))?;
    Ok(revision.0)
}

fn with_revision(mut spec: serde_json::Value, revision: Revision) -> anyhow::Result<serde_json::Value> {
    spec.as_object_mut()
        .context("a spec is an object")?
        .insert("revision".to_owned(), serde_json::to_value(revision)?);
    Ok(spec)
}

pub(super) fn corrupted_agent(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.target_at_once("Latest")?;
    stage.wait_closed(&NODES)?;
    let truth = stage.fleet.patches()?.remove("node1").context("node1 has no NodePatch")?.spec;
    stage.target_at_once("None")?;
    stage.fleet.wait_at_target(POLICY, "None", PATIENCE)?;
    let apply = truth.apply.context("node1 was not told to apply anything")?;
    for forgery in [Forgery::ChangedModule, Forgery::OneSignature] {
        let said = corrupted::ask_loader(stage, "node1", &apply, forgery)?;
        println!("  loader to {}: {said}", forgery.name());
        let wanted = forgery.refusal();
        if !said.contains(wanted.as_str()) {
            bail!("the loader did not answer {wanted}: {said}");
        }
        stage.require("node1", Hole::Open)?;
    }
    Ok(())
}

/// A patch server that serves a forgery and says that all is well.
fn begin_lying(stage: &Stage<'_>, forgery: Forgery) -> anyhow::Result<()> {
    let folder = Forged::make(&stage.repository, forgery)?.as_patch_server(crate::product::FEED)?;
    let port = FORGED_PORT + 10 + forgery as u16;
    stage.lab.serve(&format!("liar-{}", forgery.name()), &folder, port)?;
    select_pods(stage, "liar")?;
    stage.product.apply(&format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: invivo-liar\n  namespace: invivo-system\n  \
         labels: {{kubernetes.io/service-name: invivo-patch-server}}\naddressType: IPv4\n\
         ports: [{{name: http, port: {port}, protocol: TCP}}]\nendpoints: [{{addresses: [{host}], conditions: {{ready: true}}}}]\n",
        host = crate::network::HOST,
    ))?;
    // kube-proxy on the node must have followed before the agent is told anything.
    let node = stage.node("node1")?;
    let service = stage.product.patch_server();
    stage.fleet.wait("kube-proxy to follow", PATIENCE, || {
        let output =
            node.run(&format!("busybox wget -q -O - {service}/feeds/liar"), Duration::from_secs(30))?;
        let text = output.text();
        Ok(if text.contains(forgery.name()) { Seen::Answer(()) } else { Seen::NotYet(text) })
    })
}

fn end_lying(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.product.kubectl(&["delete", "endpointslice", "-n", "invivo-system", "invivo-liar"])?;
    select_pods(stage, "invivo-patch-server")
}

/// Which pods the patch server's Service stands for.
fn select_pods(stage: &Stage<'_>, name: &str) -> anyhow::Result<()> {
    let selector = serde_json::json!({"spec": {"selector": {"app.kubernetes.io/name": name}}}).to_string();
    let service = ["patch", "service", "-n", "invivo-system", "invivo-patch-server", "--type=merge", "-p"];
    stage.product.kubectl(&[&service[..], &[selector.as_str()]].concat()).map(|_| ())
}

fn scale_operator(stage: &Stage<'_>, replicas: u8) -> anyhow::Result<()> {
    stage.product.kubectl(&[
        "scale",
        "-n",
        "invivo-system",
        "deploy/invivo-operator",
        &format!("--replicas={replicas}"),
    ])?;
    if replicas == 0 {
        stage.product.kubectl(&[
            "wait",
            "-n",
            "invivo-system",
            "--for=delete",
            "pod",
            "-l",
            "app.kubernetes.io/name=invivo-operator",
            "--timeout=120s",
        ])?;
    }
    Ok(())
}
