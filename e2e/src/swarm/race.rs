//! As fast as it goes: four stages, no soak, every node of a stage at once, nodes that do what they
//! are told in no time.

use std::time::Duration;

use anyhow::ensure;

use super::agents::{Pace, Swarm};
use super::nodes::{CANARY, Node};
use super::staged;
use super::stand::{SETS, Stand};
use super::table::Table;
use crate::audit;
use crate::product::{FEED, POLICY};
use crate::progress;

/// Applied and Settled at once.
const AT_ONCE: Pace = Pace { apply: Duration::ZERO, settle: Duration::ZERO };
const DECISION_GOAL: Duration = Duration::from_secs(1);

fn policy(paused: bool) -> String {
    format!(
        "apiVersion: invivo.dev/v1alpha1\nkind: PatchPolicy\nmetadata: {{name: {POLICY}}}\nspec:\n  \
         feed: {FEED}\n  target: {{set: \"{set}\"}}\n  paused: {paused}\n  \
         rollout:\n    nodeDeadline: 5m\n    stages:\n    \
         - {{name: canary, nodeSelector: {{matchLabels: {{{CANARY}: \"true\"}}}}, maxParallel: 100%}}\n    \
         - {{name: early, share: 5%, maxParallel: 100%}}\n    \
         - {{name: quarter, share: 25%, maxParallel: 100%}}\n    \
         - {{name: rest, maxParallel: 100%}}\n",
        set = SETS[0],
    )
}

/// Rolls a set out, and says how long it took from the first instruction to the last report.
///
/// # Errors
/// When it does not end, or more is written for a node than may be.
pub(super) fn run(
    stand: &Stand,
    swarm: &Swarm,
    nodes: &[Node],
    table: &mut Table,
) -> anyhow::Result<Duration> {
    let product = stand.product()?;
    swarm.set_pace(AT_ONCE);
    product.apply(&policy(true))?;
    stand.wait_known(nodes.len())?;
    let log = stand.audit_log();
    let begun = audit::length(&log)?;
    let step = progress::begin(format!("four stages of {} nodes without a soak", nodes.len()));
    product.apply(&policy(false))?;
    stand.wait_complete(SETS[0], nodes.len())?;
    step.done();
    swarm.check()?;
    let ledger = stand.settled_ledger(begun, nodes.len())?;
    let span = ledger.span()?;
    table.add(
        format!("{} nodes, four stages, no soak: first instruction to last report", nodes.len()),
        format!("{:.2} s", span.as_secs_f64()),
    );
    staged::writes(&ledger, nodes.len(), "no soak", table)?;
    let decisions = ledger.decisions();
    let slowest = decisions.iter().map(|(_, took)| *took).max().unwrap_or_default();
    let all: Vec<_> = decisions.iter().map(|(_, took)| format!("{:.2}", took.as_secs_f64())).collect();
    table.add(
        "a stage's last report -> the decision that it is through, each stage",
        format!("{} s", all.join(", ")),
    );
    ensure!(slowest <= DECISION_GOAL, "a stage was decided about {slowest:?} after its last report");
    if let Some(kib) = stand.operator_memory() {
        table.add(format!("operator resident, {} nodes", nodes.len()), format!("{kib} KiB"));
    }
    Ok(span)
}
