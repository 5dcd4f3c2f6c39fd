//! The figures of `docs/benchmarks.md`, measured on a lab that is up.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use invivo_terms::NodeState;
use jiff::Timestamp;

use crate::audit;
use crate::demo::NODES;
use crate::fleet::Fleet;
use crate::product::Product;
use crate::scenario::rollout::{instruction_to_applied, instructions, reports};
use crate::{Lab, command};

/// How long the cluster is watched at rest.
const REST: Duration = Duration::from_secs(600);
/// One policy's change, from first instruction to last report.
const PATIENCE: Duration = Duration::from_secs(300);

/// Prints a table of what was measured on the demonstration's lab, which must be up and patched.
///
/// # Errors
/// When there is no such lab, or something does not answer.
pub fn run(rest: Option<u64>) -> anyhow::Result<()> {
    let lab = Lab::open()?;
    if !lab.running() {
        bail!("no lab is up: run make demo first");
    }
    crate::network::enter()?;
    let product = Product::new(&lab)?;
    let fleet = Fleet::open(&lab)?;
    println!("| figure | measured |\n| --- | --- |");

    fleet.wait_states(&NODES, &[NodeState::Settled], PATIENCE)?;
    product.apply(&product.policy("None"))?;
    fleet.wait_states(&NODES, &[NodeState::RolledBack], PATIENCE)?;
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
        let labels = log
            .iter()
            .filter(|event| event.writes() && event.concerns("nodes") && event.name() == node)
            .filter(|event| {
                event.user.username.contains(":invivo-system:") && !event.request_uri.contains("dryRun")
            })
            .count();
        let spec = instructions(&log, node).len();
        ensure!(!reports(&log, node, "Applied").is_empty(), "{node} never reported");
        println!("| writes for {node} | {spec} spec, {status} status, {labels} label |");
    }

    for (program, whole) in [
        ("invivo-agent", false),
        ("invivo-loader", false),
        ("invivo-operator", true),
        ("invivo-patch-server", true),
    ] {
        for node in lab.nodes()? {
            let output = node.run(
                &format!("for p in $(pidof {program}); do grep VmRSS /proc/$p/status; done"),
                Duration::from_secs(30),
            )?;
            let kib: Vec<u64> =
                output.text().split_whitespace().filter_map(|word| word.parse().ok()).collect();
            if !(kib.is_empty() && whole) {
                println!(
                    "| resident memory, {program} on {} | {} KiB |",
                    node.name(),
                    kib.iter().sum::<u64>()
                );
            }
        }
    }

    let rest = rest.map_or(REST, Duration::from_secs);
    let begun = Timestamp::now();
    let start = Instant::now();
    while start.elapsed() < rest {
        std::thread::sleep(Duration::from_secs(1));
    }
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

    let planner = std::env::var_os("CARGO_TARGET_DIR")
        .map(std::path::PathBuf::from)
        .context("CARGO_TARGET_DIR is not set")?
        .join("x86_64-unknown-linux-gnu/release/examples/planner_10k");
    if planner.exists() {
        println!("| planner, 10,000 nodes | {} |", command::output(&mut Command::new(planner))?.trim());
    }
    Ok(())
}
