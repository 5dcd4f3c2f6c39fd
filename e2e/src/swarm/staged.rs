//! A fleet through four stages, with a gate that fails in the third.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use invivo_terms::Hold;
use jiff::Timestamp;

use super::agents::{Pace, Swarm};
use super::gate::{Gate, Manner};
use super::ledger::Ledger;
use super::nodes::{CANARY, Node, ZONE};
use super::stand::{SETS, Stand};
use super::table::Table;
use crate::audit;
use crate::fleet::Seen;
use crate::product::{FEED, POLICY};
use crate::progress;

/// How many nodes of each stage may be moving at once.
const AT_ONCE: [usize; 4] = [4, 4, 8, 50];
/// The stage that goes zone by zone.
const SPREAD: u64 = 1;
/// The stage in which the gate fails.
const GATED: u64 = 2;
/// How long the fleet is watched while the gate fails.
const WATCHED: Duration = Duration::from_secs(15);
/// What only people read is written no sooner than this after the write before.
const SHOWN: Duration = Duration::from_secs(2);
/// What began before the gate's answer was known may end its writes in this time.
const UNDER_WAY: Duration = Duration::from_secs(2);
const QUICK: Pace = Pace { apply: Duration::from_millis(150), settle: Duration::from_secs(5) };
/// Slow enough that the stage is not over before the gate has been asked again.
const SLOW: Pace = Pace { apply: Duration::from_millis(1500), settle: Duration::from_secs(5) };

fn policy(paused: bool) -> String {
    let [canary, early, quarter, rest] = AT_ONCE;
    format!(
        "apiVersion: invivo.dev/v1alpha1\nkind: PatchPolicy\nmetadata: {{name: {POLICY}}}\nspec:\n  \
         feed: {FEED}\n  target: {{set: \"{set}\"}}\n  paused: {paused}\n  \
         gates:\n  - prometheus: {{address: \"{gate}\", query: \"errors > 0\", for: 1s}}\n  \
         rollout:\n    nodeDeadline: 5m\n    stages:\n    \
         - {{name: canary, nodeSelector: {{matchLabels: {{{CANARY}: \"true\"}}}}, maxParallel: {canary}, soak: 3s}}\n    \
         - {{name: early, share: 5%, spread: {ZONE}, maxParallel: {early}, soak: 3s}}\n    \
         - {{name: quarter, share: 25%, maxParallel: {quarter}, soak: 3s}}\n    \
         - {{name: rest, maxParallel: {rest}}}\n",
        set = SETS[0],
        gate = Gate::address(),
    )
}

/// Rolls a set out to the whole fleet.
///
/// # Errors
/// When more moved than may, anything moved that the gate holds, or a node was told twice.
pub(super) fn show(
    stand: &Stand,
    swarm: &Swarm,
    gate: &Gate,
    nodes: &[Node],
    table: &mut Table,
) -> anyhow::Result<()> {
    let product = stand.product()?;
    let fleet = stand.fleet();
    product.apply(&policy(true))?;
    stand.wait_known(nodes.len())?;
    swarm.set_pace(QUICK);
    let log = stand.audit_log();
    let begun = audit::length(&log)?;
    let step = progress::begin(format!("four stages of {} nodes", nodes.len()));
    product.apply(&policy(false))?;
    fleet.wait("the third stage", super::PATIENCE, || {
        let stage = fleet.policy(POLICY)?.status.unwrap_or_default().stage;
        let there = stage.as_ref().is_some_and(|stage| u64::from(stage.index) == GATED);
        Ok(if there { Seen::Answer(()) } else { Seen::NotYet(format!("{stage:?}")) })
    })?;
    swarm.set_pace(SLOW);
    gate.set(Manner::Failing);
    step.note("third stage; the gate begins to fail");
    let words = fleet.wait("GateFailing", super::PATIENCE, || {
        let status = fleet.policy(POLICY)?.status.unwrap_or_default();
        let failing = status.holds.iter().any(|hold| hold.reason == Hold::GateFailing);
        Ok(if failing {
            Seen::Answer(status.next_action.unwrap_or_default())
        } else {
            Seen::NotYet(format!("{:?} {:?}", status.stage, status.gates))
        })
    })?;
    let held_since = Timestamp::now();
    step.note(&format!("held: {words}"));
    std::thread::sleep(WATCHED);
    let ledger = Ledger::of(&audit::read_from(&log, begun)?);
    let late = held_since.checked_add(UNDER_WAY)?;
    let started: Vec<_> =
        ledger.instructions().filter(|line| line.received > late).map(|line| line.name.as_str()).collect();
    ensure!(started.is_empty(), "started although the gate fails: {}", started.join(", "));
    ledger.replay(|moment| {
        ensure!(moment.stage <= GATED, "{} of stage {} was instructed", moment.node, moment.stage);
        Ok(())
    })?;
    let told = ledger.instructions().count();
    table.add(
        format!("gate fails in the third stage of four, {} nodes", nodes.len()),
        format!(
            "{told} nodes instructed by then, none in {} s after, none of the last stage",
            WATCHED.as_secs()
        ),
    );
    gate.set(Manner::Well);
    swarm.set_pace(QUICK);
    stand.wait_complete(SETS[0], nodes.len())?;
    step.done();
    swarm.check()?;
    let ledger = stand.settled_ledger(begun, nodes.len())?;
    in_flight(&ledger, nodes, table)?;
    writes(&ledger, nodes.len(), "a gate, soaks", table)
}

/// Never more than allowed, and in the spread stage one zone at a time.
fn in_flight(ledger: &Ledger, nodes: &[Node], table: &mut Table) -> anyhow::Result<()> {
    let zones: BTreeMap<&str, &str> = nodes.iter().map(|n| (n.name.as_str(), n.zone.as_str())).collect();
    let mut most = [0; AT_ONCE.len()];
    let mut most_in_a_zone = [0; AT_ONCE.len()];
    let mut zones_at_once = 0;
    ledger.replay(|moment| {
        let stage = usize::try_from(moment.stage)?;
        let allowed = AT_ONCE.get(stage).context("a stage that is not in the policy")?;
        let count = moment.in_flight.len();
        ensure!(
            count <= *allowed,
            "{count} in flight in stage {stage}, {allowed} may: {:?}",
            moment.in_flight
        );
        let mut by_zone: BTreeMap<&str, usize> = BTreeMap::new();
        for node in moment.in_flight {
            *by_zone.entry(zones.get(node).copied().unwrap_or_default()).or_default() += 1;
        }
        if moment.stage == SPREAD {
            ensure!(by_zone.len() <= 1, "several zones at once: {by_zone:?}");
            zones_at_once = zones_at_once.max(by_zone.len());
        }
        if let (Some(all), Some(zone)) = (most.get_mut(stage), most_in_a_zone.get_mut(stage)) {
            *all = count.max(*all);
            *zone = by_zone.into_values().max().unwrap_or_default().max(*zone);
        }
        Ok(())
    })?;
    let told = Ledger::count(ledger.instructions());
    let names: BTreeSet<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    let twice: Vec<_> = told.iter().filter(|(_, count)| **count != 1).collect();
    ensure!(twice.is_empty(), "instructed more than once: {twice:?}");
    ensure!(told.keys().copied().collect::<BTreeSet<_>>() == names, "not every node was instructed");
    table.add(
        "most in flight at once, by stage (allowed)",
        most.iter().zip(AT_ONCE).map(|(most, may)| format!("{most} ({may})")).collect::<Vec<_>>().join(", "),
    );
    table.add(
        "most in flight in one zone, by stage; zones at once in the spread stage",
        format!("{most_in_a_zone:?}; {zones_at_once}"),
    );
    table.add("nodes instructed exactly once", format!("{} of {}", told.len(), nodes.len()));
    Ok(())
}

/// How much was written for it.
///
/// # Errors
/// When that was more for a node than it may be.
pub(super) fn writes(ledger: &Ledger, nodes: usize, how: &str, table: &mut Table) -> anyhow::Result<()> {
    let most = |counts: &BTreeMap<&str, u32>| counts.values().copied().max().unwrap_or_default();
    let (spec, status) = (Ledger::count(ledger.instructions()), Ledger::count(ledger.reports()));
    let labels = ledger.labels.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    let (a, b, c) = (most(&spec), most(&status), most(&labels));
    table.add(
        format!("most writes for one node, {nodes} nodes, {how}"),
        format!("{a} spec, {b} status, {c} label"),
    );
    let writes = ledger.policy_writes();
    let least = writes.least.map_or_else(String::new, |least| {
        format!(", at the earliest {:.2} s after the write before", least.as_secs_f64())
    });
    table.add(
        format!("writes of the policy's status, {nodes} nodes, {how}"),
        format!(
            "{} count a wave, {} decide without a start, {} only show{least}",
            writes.waves, writes.decisions, writes.shown
        ),
    );
    let (sets, feeds) = ledger.others();
    table.add(
        format!("writes of sets' and feeds' statuses, {nodes} nodes, {how}"),
        format!("{sets} and {feeds} in {:.1} s", ledger.span()?.as_secs_f64()),
    );
    let hurried = writes.least.filter(|least| *least < SHOWN);
    ensure!(hurried.is_none(), "what only people read was written {hurried:?} after the write before");
    ensure!(a <= 1 && b <= 2 && c <= 1, "too many writes for a node: {a} spec, {b} status, {c} label");
    Ok(())
}
