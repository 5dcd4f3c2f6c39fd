//! Who is instructed when, and how often.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;

use crate::audit::Event;
use crate::check::Hole;
use crate::demo::{CANARY, NODES};
use crate::fleet::Seen;
use crate::image::OTHER_KERNEL;
use crate::product::{CANARY_SOAK, OPERATOR, POLICY};
use crate::stage::{PATIENCE, Stage};

pub(super) fn canary_then_rest(stage: &Stage<'_>) -> anyhow::Result<()> {
    let begun = Timestamp::now();
    stage.target("Latest")?;
    stage.wait_closed(&[CANARY])?;
    for node in ["node2", "node3"] {
        stage.require(node, Hole::Open)?;
    }
    stage.wait_closed(&NODES)?;
    let settled = [invivo_terms::NodeState::Settled];
    stage.fleet.wait_states(&NODES, &settled, PATIENCE)?;

    let log = stage.audit(begun)?;
    let applied =
        reports(&log, CANARY, "Applied").first().copied().context("the canary never reported Applied")?;
    for node in ["node2", "node3"] {
        let instructed = instructions(&log, node);
        let first = instructed.first().context("never instructed")?;
        let waited = first.duration_since(applied);
        println!("  {node} was instructed {:.1} s after the canary's report", waited.as_secs_f64());
        ensure!(
            waited.unsigned_abs() >= CANARY_SOAK && waited.is_positive(),
            "{node} was instructed {:.1} s after the canary's report; the soak is {} s",
            waited.as_secs_f64(),
            CANARY_SOAK.as_secs()
        );
    }
    for node in NODES {
        let spec = instructions(&log, node).len();
        let status = log
            .iter()
            .filter(|event| event.writes() && event.concerns("nodepatches/status") && event.name() == node)
            .count();
        let labels = label_writes(&log, node);
        println!("  {node}: {spec} instruction, {status} reports, {labels} label write");
        ensure!(
            spec == 1 && status <= 2 && labels == 1,
            "{node}: {spec} instructions, {status} reports, {labels} label writes"
        );
    }
    Ok(())
}

pub(super) fn operator_killed(stage: &Stage<'_>) -> anyhow::Result<()> {
    let begun = Timestamp::now();
    stage.target("Latest")?;
    let first = stage.fleet.wait("a node of the rest to be instructed", PATIENCE, || {
        let log = stage.audit(begun)?;
        Ok(["node2", "node3"]
            .into_iter()
            .find(|node| !instructions(&log, node).is_empty())
            .map_or_else(|| Seen::NotYet("none yet".to_owned()), Seen::Answer))
    })?;
    // Killed, so that it can neither end its work nor give the lease back.
    let killed = kill_operator(stage)?;
    println!("  {first} was in flight; {killed}");
    stage.wait_closed(&NODES)?;
    let log = stage.audit(begun)?;
    for node in NODES {
        let times = instructions(&log, node).len();
        ensure!(times == 1, "{node} was instructed {times} times");
    }
    one_at_a_time(&log)
}

fn kill_operator(stage: &Stage<'_>) -> anyhow::Result<String> {
    let mut killed = Vec::new();
    for name in NODES {
        let kill = "pids=$(pidof invivo-operator) && kill -9 $pids && echo killed $pids";
        let said = stage.node(name)?.run(kill, Duration::from_secs(30))?;
        if said.success() {
            killed.push(format!("{name}: {}", said.text().trim()));
        }
    }
    ensure!(!killed.is_empty(), "no operator runs on any node");
    Ok(killed.join(", "))
}

/// In the rest, `maxParallel: 1`: the second is instructed after the first reported.
fn one_at_a_time(log: &[Event]) -> anyhow::Result<()> {
    let mut rest: Vec<(Timestamp, &str)> = ["node2", "node3"]
        .into_iter()
        .filter_map(|node| instructions(log, node).first().map(|at| (*at, node)))
        .collect();
    rest.sort();
    let [(_, first), (second_at, second)] = rest.as_slice() else {
        anyhow::bail!("not both were instructed")
    };
    let reported = reports(log, first, "Applied").first().copied().context("the first never reported")?;
    ensure!(*second_at >= reported, "{second} was instructed while {first} was in flight");
    Ok(())
}

pub(super) fn unknown_kernel(stage: &Stage<'_>) -> anyhow::Result<()> {
    let added = stage.lab.add_node(OTHER_KERNEL, None, crate::node::USUAL)?;
    let name = added.name().to_owned();
    stage.target("Latest")?;
    stage.wait_closed(&NODES)?;
    let held = stage.fleet.wait("UnsupportedKernel", PATIENCE, || {
        let status = stage.fleet.policy(POLICY)?.status.unwrap_or_default();
        Ok(status.holds.iter().find(|hold| hold.reason == invivo_terms::Hold::UnsupportedKernel).map_or_else(
            || Seen::NotYet(format!("{:?}", status.holds)),
            |hold| Seen::Answer(hold.examples.clone()),
        ))
    });
    let tidy = || -> anyhow::Result<()> {
        added.power_off()?;
        stage.product.kubectl(&["delete", "node", &name])?;
        Ok(())
    };
    tidy()?;
    let held = held?;
    ensure!(held == [name.clone()], "held as UnsupportedKernel: {held:?}, not {name}");
    Ok(())
}

/// When the operator wrote an instruction that moves the node.
pub(crate) fn instructions(log: &[Event], node: &str) -> Vec<Timestamp> {
    log.iter()
        .filter(|event| {
            event.writes()
                && event.user.username.ends_with(OPERATOR)
                && event.concerns("nodepatches")
                && event.name() == node
                && event.response_object.pointer("/spec/apply").is_some_and(serde_json::Value::is_object)
        })
        .map(|event| event.request_received_timestamp)
        .collect()
}

/// When the node's agent wrote that it is in `state`.
pub(crate) fn reports(log: &[Event], node: &str, state: &str) -> Vec<Timestamp> {
    log.iter()
        .filter(|event| {
            event.writes()
                && event.concerns("nodepatches/status")
                && event.name() == node
                && event.request_object.pointer("/status/state").and_then(serde_json::Value::as_str)
                    == Some(state)
        })
        .map(|event| event.request_received_timestamp)
        .collect()
}

/// How often the operator wrote the node's labels.
pub(crate) fn label_writes(log: &[Event], node: &str) -> usize {
    log.iter()
        .filter(|event| {
            event.writes()
                && event.user.username.ends_with(OPERATOR)
                && event.concerns("nodes")
                && event.name() == node
        })
        .filter(|event| !event.request_uri.contains("dryRun"))
        .count()
}

/// Seconds from the first instruction to the report that it is applied, per node.
pub(crate) fn instruction_to_applied(log: &[Event]) -> BTreeMap<String, Duration> {
    NODES
        .iter()
        .filter_map(|node| {
            let from = *instructions(log, node).first()?;
            let to = *reports(log, node, "Applied").first()?;
            Some(((*node).to_owned(), to.duration_since(from).unsigned_abs()))
        })
        .collect()
}
