//! A canary that falls silent after the stage is through: nothing starts any more.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use invivo_terms::Hold;
use jiff::Timestamp;

use super::agents::{Pace, Swarm};
use super::ledger::Ledger;
use super::nodes::{self, CANARY, Node};
use super::stand::{SETS, Stand};
use super::table::Table;
use crate::audit;
use crate::fleet::Seen;
use crate::product::{FEED, POLICY};
use crate::progress;

/// Of the last stage so many are started before the canary falls silent.
const STARTED: u32 = 30;
/// How long the fleet is watched afterwards.
const WATCHED: Duration = Duration::from_secs(8);
/// No node has settled: the canaries are still waited for.
const UNSETTLED: Pace = Pace { apply: Duration::from_millis(200), settle: Duration::from_hours(1) };
const GOAL: Duration = Duration::from_secs(2);

/// Lets one canary fall silent in the middle of a rollout, and come back.
///
/// # Errors
/// When a node starts later than it may, or none once the canary is back.
pub(super) fn show(stand: &Stand, swarm: &Swarm, fleet: &[Node], table: &mut Table) -> anyhow::Result<()> {
    let step = progress::begin("a canary falls silent");
    swarm.set_pace(UNSETTLED);
    let log = stand.audit_log();
    let begun = audit::length(&log)?;
    stand.product()?.apply(&format!(
        "apiVersion: invivo.dev/v1alpha1\nkind: PatchPolicy\nmetadata: {{name: {POLICY}}}\nspec:\n  \
         feed: {FEED}\n  target: {{set: \"{set}\"}}\n  gates: []\n  \
         rollout:\n    nodeDeadline: 5m\n    stages:\n    \
         - {{name: canary, nodeSelector: {{matchLabels: {{{CANARY}: \"true\"}}}}, maxParallel: 10}}\n    \
         - {{name: rest, maxParallel: 4}}\n",
        set = SETS[1],
    ))?;
    let canaries = u32::try_from(fleet.iter().filter(|node| node.canary).count())?;
    wait_started(stand, canaries + STARTED)?;
    let canary = fleet.iter().find(|node| node.canary).context("a fleet without canary")?;
    nodes::set_ready(stand, &canary.name, false)?;
    let silent = Timestamp::now();
    std::thread::sleep(WATCHED);
    let ledger = Ledger::of(&audit::read_from(&log, begun)?);
    let last = ledger.instructions().map(|line| line.received).max().context("nobody was instructed")?;
    let after = Duration::try_from(last.duration_since(silent)).unwrap_or_default();
    let status = stand.fleet().policy(POLICY)?.status.unwrap_or_default();
    let held: Vec<&str> = status.holds.iter().map(|hold| hold.reason.as_str()).collect();
    table.add(
        "canary NotReady seen -> the last start",
        format!("{:.2} s; then {}", after.as_secs_f64(), held.join(", ")),
    );
    ensure!(after <= GOAL, "a node was started {after:?} after the canary had fallen silent");
    ensure!(status.holds.iter().any(|hold| hold.reason == Hold::GateUnknown), "held by {held:?}");
    let started = status.rollout.map(|rollout| rollout.started).unwrap_or_default();
    nodes::set_ready(stand, &canary.name, true)?;
    wait_started(stand, started + 1)?;
    step.done();
    swarm.check()
}

fn wait_started(stand: &Stand, wanted: u32) -> anyhow::Result<()> {
    stand.fleet().wait(&format!("{wanted} starts"), super::PATIENCE, || {
        let status = stand.fleet().policy(POLICY)?.status.unwrap_or_default();
        let ours = status.rollout.filter(|rollout| rollout.key.target == SETS[1]);
        let started = ours.map(|rollout| rollout.started).unwrap_or_default();
        Ok(if started >= wanted {
            Seen::Answer(())
        } else {
            Seen::NotYet(format!("{started}, {:?}", status.next_action))
        })
    })
}
