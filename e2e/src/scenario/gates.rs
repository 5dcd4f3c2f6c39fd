//! What a rollout asks outside: a real Prometheus, and Jobs.

use anyhow::{Context, ensure};
use invivo_api::{GateOutcome, GateStatus};
use invivo_terms::Hold;
use jiff::Timestamp;

use super::cautious::{held, policy};
use super::rollout::instructions;
use crate::check::Hole;
use crate::demo::{CANARY, NODES};
use crate::fleet::Seen;
use crate::product::{GATE_SECRET, POLICY};
use crate::prometheus::{self, Prometheus};
use crate::stage::{PATIENCE, Stage};

/// The program of a gate's Job: any that answers and ends.
const PROGRAM: &str = concat!("registry.lab/invivo-patch-server:", env!("CARGO_PKG_VERSION"));

/// The canary breaks what Prometheus watches: here, that nobody is at the target.
pub(super) fn prometheus(stage: &Stage<'_>) -> anyhow::Result<()> {
    let begun = Timestamp::now();
    let query = format!(r#"invivo_policy_nodes{{policy="{POLICY}",state="current"}} > 0"#);
    let gate = format!(
        "  gates:\n  - prometheus: {{address: \"{}\", query: '{query}', for: 5s}}\n",
        Prometheus::address()
    );
    let watched = stage.product.policy("Latest").replace("soak: 15s", "soak: 45s");
    stage.product.apply(&(watched.clone() + &gate))?;
    stage.wait_closed(&[CANARY])?;
    let failing = verdict(stage, "prometheus", GateOutcome::Failed)?;
    println!("  gate prometheus: {}", failing.message.as_deref().unwrap_or_default());
    held(stage, "node2", Hold::GateFailing)?;
    let told = format!("involvedObject.name={POLICY},reason=GateFailing");
    let events = stage.product.kubectl(&["get", "events", "-A", "--field-selector", &told, "-o", "name"])?;
    ensure!(!events.trim().is_empty(), "no Event says that the gate fails");
    for node in ["node2", "node3"] {
        stage.require(node, Hole::Open)?;
        ensure!(instructions(&stage.audit(begun)?, node).is_empty(), "{node} was instructed");
    }

    // One that gives no answer is not healthy either.
    let nowhere = gate.replace(":9090", ":9");
    stage.product.apply(&(watched.clone() + &nowhere))?;
    let unknown = verdict(stage, "prometheus", GateOutcome::Unknown)?;
    println!("  gate prometheus: {}", unknown.message.as_deref().unwrap_or_default());
    held(stage, "node2", Hold::GateUnknown)?;

    stage.product.apply(&(watched + &gate.replace("> 0", "> 99")))?;
    verdict(stage, "prometheus", GateOutcome::Passed)?;
    stage.wait_closed(&NODES)
}

/// Over TLS, with a password; both from a Secret.
pub(super) fn guarded_prometheus(stage: &Stage<'_>) -> anyhow::Result<()> {
    let pki = stage.lab.pki();
    stage.lab.prometheus().guarded_up(&pki.path("apiserver.crt"), &pki.path("apiserver.key"))?;
    stage.product.kubectl(&[
        "create",
        "secret",
        "generic",
        GATE_SECRET,
        "--namespace=invivo-system",
        &format!("--from-file=ca.crt={}", pki.path("ca.crt").display()),
        &format!("--from-literal=right={}", prometheus::CREDENTIALS),
        "--from-literal=wrong=aW52aXZvOnh5eg==",
    ])?;
    let result = guarded(stage);
    stage.product.kubectl(&["delete", "secret", GATE_SECRET, "--namespace=invivo-system"])?;
    result
}

fn guarded(stage: &Stage<'_>) -> anyhow::Result<()> {
    let gate = |more: &str| {
        format!(
            "  gates:\n  - prometheus: {{address: \"{}\", query: 'vector(0) > 1', for: 5s{more}}}\n",
            Prometheus::guarded_address()
        )
    };
    let authority = format!(", caBundle: {{secret: {{name: {GATE_SECRET}, key: ca.crt}}}}");
    let with = |key: &str| {
        format!("{authority}, authorization: {{type: Basic, secret: {{name: {GATE_SECRET}, key: {key}}}}}")
    };
    for (more, told) in [
        (String::new(), "certificate"),
        (authority.clone(), "401"),
        (with("wrong"), "401"),
        (with("no-such-key"), "has no key no-such-key"),
    ] {
        stage.product.apply(&(stage.product.policy("Latest") + &gate(&more)))?;
        stage.fleet.wait(&format!("{told} of the gate"), PATIENCE, || {
            let gates = policy(stage)?.gates;
            let said = gates.iter().find(|gate| gate.name == "prometheus");
            let said = said.and_then(|gate| gate.message.clone()).unwrap_or_default();
            Ok(if said.contains(told) { Seen::Answer(()) } else { Seen::NotYet(said) })
        })?;
        let unknown = verdict(stage, "prometheus", GateOutcome::Unknown)?;
        println!("  gate prometheus: {}", unknown.message.as_deref().unwrap_or_default());
        held(stage, CANARY, Hold::GateUnknown)?;
    }
    stage.product.apply(&(stage.product.policy("Latest") + &gate(&with("right"))))?;
    verdict(stage, "prometheus", GateOutcome::Passed)?;
    stage.wait_closed(&[CANARY])
}

/// A Job that fails holds all; in its place one that succeeds lets them go.
pub(super) fn job(stage: &Stage<'_>) -> anyhow::Result<()> {
    let gate = |argument: &str| {
        format!(
            "  gates:\n  - job: {{deadline: 5m, template: {{image: \"{PROGRAM}\", args: [\"{argument}\"]}}}}\n"
        )
    };
    stage.product.apply(&(stage.product.policy("Latest") + &gate("--no-such-argument")))?;
    let failed = verdict(stage, "job", GateOutcome::Failed)?;
    let message = failed.message.unwrap_or_default();
    println!("  gate job: {message}");
    ensure!(message.contains("--no-such-argument"), "the end of its log is not told");
    held(stage, CANARY, Hold::GateFailing)?;
    NODES.iter().try_for_each(|node| stage.require(node, Hole::Open))?;

    stage.product.apply(&(stage.product.policy("Latest") + &gate("--version")))?;
    verdict(stage, "job", GateOutcome::Passed)?;
    stage.wait_closed(&NODES)?;
    let jobs =
        stage.product.kubectl(&["get", "jobs", "-A", "-o", "jsonpath={.items[*].metadata.namespace}"])?;
    let elsewhere = jobs.split_whitespace().any(|namespace| namespace != "invivo-gates");
    ensure!(!jobs.trim().is_empty() && !elsewhere, "Jobs are in {jobs}");
    Ok(())
}

/// Waits until the policy says this of its gate.
fn verdict(stage: &Stage<'_>, name: &str, wanted: GateOutcome) -> anyhow::Result<GateStatus> {
    stage.fleet.wait(&format!("gate {name} {}", wanted.as_str()), PATIENCE, || {
        let gates = policy(stage)?.gates;
        let gate = gates.iter().find(|gate| gate.name == name).with_context(|| format!("{gates:?}"))?;
        Ok(if gate.verdict == wanted {
            Seen::Answer(gate.clone())
        } else {
            Seen::NotYet(format!("{gate:?}"))
        })
    })
}
