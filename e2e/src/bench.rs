//! The figures of `docs/benchmarks.md`, measured on a lab that is up.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use invivo_terms::{LABEL_LEVEL, NodeState};
use jiff::Timestamp;

use crate::audit;
use crate::demo::{self, NODES};
use crate::fleet::{Fleet, Seen};
use crate::product::Product;
use crate::scenario::rollout::{instruction_to_applied, instructions, label_writes, reports};
use crate::stage::PATIENCE;
use crate::{Lab, command, spend};

/// How long the cluster is watched at rest.
const REST: Duration = Duration::from_mins(10);

/// Shows the demonstration on a new lab and prints a table of what was measured on it.
///
/// # Errors
/// When something does not answer, or a program that measures was not built.
pub fn run(rest: Option<u64>) -> anyhow::Result<()> {
    let beside = spend::fetch_beside()?;
    demo::run()?;
    let lab = Lab::open()?;
    crate::network::enter()?;
    let product = Product::new(&lab)?;
    let fleet = Fleet::open(&lab)?;
    println!("Machine: {}\n", machine()?);
    println!("| figure | measured |\n| --- | --- |");
    one_patch(&lab, &product, &fleet)?;
    spend::start_beside(&lab, &beside)?;
    spend::memory(&lab)?;
    let before = spend::processor_time(&lab)?;
    let rest = rest.map_or(REST, Duration::from_secs);
    at_rest(&lab, rest)?;
    spend::processor_time(&lab)?.tell_since(&before, rest);
    spend::a_large_bundle(&lab, &product, &fleet)?;
    spend::wake_ups(&lab)?;
    programs()
}

/// What these figures were measured on.
fn machine() -> anyhow::Result<String> {
    let text = |path: &str| std::fs::read_to_string(path).with_context(|| format!("read {path}"));
    let value = |of: &str, key: &str| {
        of.lines()
            .find_map(|line| {
                Some(line.strip_prefix(key)?.trim_start_matches([' ', '\t', ':']).trim().to_owned())
            })
            .unwrap_or_default()
    };
    Ok(format!(
        "{} processors ({}), memory {}, guests under {:?}",
        std::thread::available_parallelism()?,
        value(&text("/proc/cpuinfo")?, "model name"),
        value(&text("/proc/meminfo")?, "MemTotal"),
        invivo_guest::Accelerator::detect(),
    ))
}

/// One patch on every node: how long, and how many writes.
fn one_patch(lab: &Lab, product: &Product<'_>, fleet: &Fleet) -> anyhow::Result<()> {
    fleet.wait_states(&NODES, &[NodeState::Settled], PATIENCE)?;
    product.apply(&product.policy("None"))?;
    fleet.wait_states(&NODES, &[NodeState::RolledBack], PATIENCE)?;
    // The roll back's last write, which would be counted otherwise.
    fleet.wait("labels of level 0", PATIENCE, || {
        for node in NODES {
            let level = fleet.node(node)?.metadata.labels.unwrap_or_default().remove(LABEL_LEVEL);
            if level.as_deref() != Some("0") {
                return Ok(Seen::NotYet(format!("{node}: {level:?}")));
            }
        }
        Ok(Seen::Answer(()))
    })?;
    let begun = Timestamp::now();
    product.apply(&product.policy("Latest"))?;
    fleet.wait_states(&NODES, &[NodeState::Settled], PATIENCE)?;
    let log: Vec<audit::Event> = audit::read(&lab.audit_log())?
        .into_iter()
        .filter(|event| event.request_received_timestamp >= begun && event.granted())
        .collect();
    for (node, seconds) in instruction_to_applied(&log) {
        let kernel = fleet
            .patches()?
            .remove(&node)
            .and_then(|patch| patch.status?.last_switch)
            .context("no switch reported")?;
        println!(
            "| instruction to Applied, {node} | {:.2} s, of which the kernel {:.2} s |",
            seconds.as_secs_f64(),
            f64::from(kernel.millis) / 1000.0
        );
    }
    for node in NODES {
        let status = log
            .iter()
            .filter(|event| event.writes() && event.concerns("nodepatches/status") && event.name() == node)
            .count();
        let labels = label_writes(&log, node);
        let spec = instructions(&log, node).len();
        ensure!(!reports(&log, node, "Applied").is_empty(), "{node} never reported");
        println!("| writes for {node} | {spec} spec, {status} status, {labels} label |");
    }
    Ok(())
}

/// What Invivo's own accounts ask while nothing happens.
fn at_rest(lab: &Lab, rest: Duration) -> anyhow::Result<()> {
    let begun = Timestamp::now();
    std::thread::sleep(rest);
    let ours: Vec<audit::Event> = audit::read(&lab.audit_log())?
        .into_iter()
        .filter(|event| event.request_received_timestamp >= begun)
        .filter(|event| event.user.username.starts_with("system:serviceaccount:invivo-system:"))
        .filter(|event| !event.concerns("leases") && !event.request_uri.contains("dryRun"))
        .collect();
    let writes = ours.iter().filter(|event| event.writes()).count();
    let lists = ours.iter().filter(|event| event.verb == "list").count();
    println!(
        "| requests at rest over {} s, leases and the dry-run check aside | {writes} writes, {lists} lists |",
        rest.as_secs()
    );
    for event in ours.iter().filter(|event| event.writes() || event.verb == "list") {
        println!("| | {} {} by {} |", event.verb, event.request_uri, event.user.username);
    }
    Ok(())
}

/// Programs that measure one thing on this machine, built for release.
fn programs() -> anyhow::Result<()> {
    let folder = std::env::current_exe()?.with_file_name("examples");
    for (figure, name) in
        [("planner, 10,000 nodes", "planner_10k"), ("whole proof and a 100 kB bundle", "verify_proof")]
    {
        let program = folder.join(name);
        ensure!(program.exists(), "{} was not built", program.display());
        let output = command::output(&mut Command::new(program))?;
        for line in output.lines() {
            println!("| {figure} | {line} |");
        }
    }
    Ok(())
}
