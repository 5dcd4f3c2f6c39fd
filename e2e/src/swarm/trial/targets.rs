//! Where a rollout goes, and what becomes of it when that changes.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use invivo_api::{HoldCount, Outcome, PatchPolicyStatus};
use invivo_terms::{Block, Hold};

use super::{AT_ONCE, CANARIES, NODES, STAGES, Trial};
use crate::fleet::Seen;
use crate::product::{FEED, POLICY};
use crate::swarm::agents::{Manner, Pace};
use crate::swarm::nodes;
use crate::swarm::stand::{LATEST, LATEST_TEST, SETS};

/// Slow enough that the rest is still under way when something is changed.
const SLOW: Pace = Pace { apply: Duration::from_millis(900), settle: Duration::from_secs(1) };
const ONE_BY_ONE: (&str, &str) = ("maxParallel: 2", "maxParallel: 1");

fn rest_begun(status: &PatchPolicyStatus) -> bool {
    let stage = status.stage.as_ref().is_some_and(|stage| stage.name == "rest");
    let canaries = u32::try_from(CANARIES).unwrap_or(u32::MAX);
    stage && status.rollout.as_ref().is_some_and(|rollout| rollout.started > canaries)
}

pub(super) fn superseded(trial: &Trial<'_>) -> anyhow::Result<()> {
    trial.swarm.set_pace(SLOW);
    let stages = STAGES.replace(ONE_BY_ONE.0, ONE_BY_ONE.1);
    trial.policy("Latest", &stages, "    supersede: Finish\n", "")?;
    trial.wait("the rest to begin", rest_begun)?;
    trial.stand.feed("  channel: Test\n")?;
    trial.complete(LATEST_TEST)?;
    let ledger = trial.ledger()?;
    let (old, new) = (ledger.told(LATEST), ledger.told(LATEST_TEST));
    ensure!(old.len() == NODES, "{} of {NODES} were told the one that was under way: {old:?}", old.len());
    ensure!(new.len() == NODES, "{} of {NODES} were told the newer one", new.len());
    println!("  Finish: {NODES} nodes to {LATEST}, and then to {LATEST_TEST}");

    trial.stand.feed("")?;
    trial.policy("None", AT_ONCE, "", "")?;
    trial.complete("None")?;
    let begun = trial.ledger()?.told(LATEST).len();
    trial.policy("Latest", &stages, "    supersede: Restart\n", "")?;
    trial.wait("the rest to begin", |status| {
        rest_begun(status) && status.rollout.as_ref().is_some_and(|rollout| rollout.key.target == LATEST)
    })?;
    trial.stand.feed("  channel: Test\n")?;
    trial.complete(LATEST_TEST)?;
    let moved = trial.ledger()?.told(LATEST).len() - begun;
    println!("  Restart: {moved} of {NODES} to {LATEST} before {LATEST_TEST} took its place");
    ensure!((CANARIES..NODES).contains(&moved), "{moved} of {NODES} were told the one that was under way");
    let history = trial.status()?.history;
    let superseded = history.iter().any(|over| over.to == LATEST && over.outcome == Outcome::Superseded);
    ensure!(superseded, "{history:?}");
    Ok(())
}

pub(super) fn new_nodes(trial: &Trial<'_>) -> anyhow::Result<()> {
    // One kernel build has been through it, the other has not.
    let known = trial.nodes.first().context("no nodes")?;
    let unknown: Vec<_> = trial.nodes.iter().filter(|node| node.build != known.build).collect();
    let like = unknown.first().context("all nodes have one kernel build")?;
    for node in &unknown {
        trial.product()?.kubectl(&["delete", "node", &node.name])?;
    }
    trial.policy("Latest", AT_ONCE, "", "")?;
    trial.wait("the set to be proven", |status| {
        status.proven.iter().any(|proven| proven.build_id == known.build && proven.set.as_str() == LATEST)
    })?;
    // A newer one is watched on the canaries for long.
    let watched = STAGES.replace("maxParallel: 100%", "maxParallel: 100%, soak: 1h");
    trial.policy("Latest", &watched, "", "")?;
    trial.stand.feed("  channel: Test\n")?;
    trial.wait("the canaries to be watched", |status| {
        let newer = status.rollout.as_ref().is_some_and(|rollout| rollout.key.target == LATEST_TEST);
        newer && status.stage.as_ref().is_some_and(|stage| stage.soak_until.is_some())
    })?;
    let same = trial.join("newcomer", known)?;
    let other = trial.join("stranger", like)?;
    trial.stand.fleet().wait("the newcomer at the proven level", super::PATIENCE, || {
        let told = trial.ledger()?.told(LATEST).contains(&same.name.as_str());
        let patch = trial.stand.fleet().patches()?.remove(&same.name);
        let set = patch.and_then(|patch| patch.status).and_then(|status| status.set);
        let there = set.is_some_and(|set| set.as_str() == LATEST);
        Ok(if told && there { Seen::Answer(()) } else { Seen::NotYet(format!("{told} {there}")) })
    })?;
    let held = |name: &str| {
        let name = name.to_owned();
        trial.wait(&format!("{name} to be held"), move |status| {
            let held = |hold: &HoldCount| hold.examples.contains(&name) && hold.reason != Hold::AgentMissing;
            status.holds.iter().any(held)
        })
    };
    let status = held(&other.name)?;
    let why = status.holds.iter().find(|hold| hold.examples.contains(&other.name)).context("not held")?;
    println!("  {} got {}; {} waits: {}", same.name, LATEST, other.name, why.reason);
    trial.nothing_moves()?;
    let ledger = trial.ledger()?;
    let told = |name: &str| ledger.instructions().any(|line| line.name == name);
    ensure!(!told(&other.name), "{} was instructed", other.name);
    ensure!(!ledger.told(LATEST_TEST).contains(&same.name.as_str()), "the newcomer got what is being tried");

    // Staged: the next one waits for its stage.
    trial.policy("Latest", &watched, "", "  newNodes: Staged\n")?;
    let late = trial.join("latecomer", known)?;
    let status = held(&late.name)?;
    let why: Vec<_> = status.holds.iter().filter(|hold| hold.examples.contains(&late.name)).collect();
    ensure!(why.iter().any(|hold| hold.reason == Hold::StageSoaking), "held as {why:?}");
    trial.nothing_moves()
}

pub(super) fn deleted_and_kept(trial: &Trial<'_>) -> anyhow::Result<()> {
    trial.swarm.set_pace(SLOW);
    trial.policy(SETS[0], STAGES, "", "")?;
    trial.wait("the rest to begin", rest_begun)?;
    trial.product()?.kubectl(&["delete", "patchpolicy", POLICY, "--timeout=20s"])?;
    std::thread::sleep(SLOW.apply * 2);
    trial.nothing_moves()?;
    let ledger = trial.ledger()?;
    let moved = ledger.told(SETS[0]).len();
    println!("  {moved} of {NODES} had been moved and keep what they have");
    ensure!((CANARIES..NODES).contains(&moved), "{moved} were moved");
    ensure!(ledger.taken_back().count() == 0, "something was taken off");
    Ok(())
}

pub(super) fn deleted_and_taken_back(trial: &Trial<'_>) -> anyhow::Result<()> {
    trial.swarm.set_pace(SLOW);
    trial.policy(SETS[0], STAGES, "", "  onDelete: RollBack\n")?;
    trial.wait("the rest to begin", rest_begun)?;
    // One that has it is out of reach, and says no more.
    let dead = trial.nodes.iter().find(|node| node.canary).context("a fleet without canary")?;
    trial.swarm.set_manner(&dead.name, Manner::Dead);
    nodes::set_ready(trial.stand, &dead.name, false)?;
    trial.product()?.kubectl(&["delete", "patchpolicy", POLICY, "--wait=false"])?;
    let begun = std::time::Instant::now();
    trial.stand.fleet().wait("the policy to be gone", super::PATIENCE, || {
        let left = trial.product()?.kubectl(&["get", "patchpolicy", POLICY, "--ignore-not-found"])?;
        Ok(if left.trim().is_empty() { Seen::Answer(()) } else { Seen::NotYet(left) })
    })?;
    let levels: Vec<(String, u32)> = trial
        .stand
        .fleet()
        .patches()?
        .into_iter()
        .map(|(name, patch)| (name, patch.status.unwrap_or_default().level.0))
        .filter(|(_, level)| *level > 0)
        .collect();
    println!("  gone after {:.0} s; still patched: {levels:?}", begun.elapsed().as_secs_f64());
    ensure!(levels.iter().map(|(name, _)| name).eq([&dead.name]), "still patched: {levels:?}");
    let ledger = trial.ledger()?;
    ensure!(ledger.told(SETS[0]).len() < NODES, "every node had been moved");
    Ok(())
}

pub(super) fn withdrawn(trial: &Trial<'_>) -> anyhow::Result<()> {
    trial.stand.feed("  channel: Test\n")?;
    trial.policy("Latest", AT_ONCE, "", "")?;
    trial.complete(LATEST_TEST)?;
    trial.stand.withdraw(LATEST_TEST)?;
    let blocked = trial.stand.fleet().wait("the feed to say so", super::PATIENCE, || {
        let blocked = trial.feed_status(FEED)?.blocked;
        let found = blocked.iter().find(|blocked| blocked.set.as_str() == LATEST_TEST);
        let found = found.filter(|blocked| blocked.reason == Block::Withdrawn).cloned();
        Ok(found.map_or_else(|| Seen::NotYet(format!("{blocked:?}")), Seen::Answer))
    })?;
    trial.stand.feed("")?;
    trial.held(Hold::AheadOfTarget, NODES)?;
    trial.nothing_moves()?;
    ensure!(trial.ledger()?.taken_back().count() == 0, "taken off although it should be kept");
    println!("  {} {}: kept", blocked.set, blocked.reason.as_str());
    trial.policy("Latest", AT_ONCE, "    onWithdrawn: RollBack\n", "")?;
    trial.complete(LATEST)?;
    let back = trial.ledger()?.taken_back().count();
    println!("  RollBack: {back} of {NODES} taken back, and then {LATEST}, what is left of the feed");
    ensure!(back == NODES, "{back} were taken back");
    Ok(())
}
