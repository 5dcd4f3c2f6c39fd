//! What follows when nodes fail.

use anyhow::{Context as _, bail, ensure};
use invivo_api::{Outcome, RolloutEvidence};
use invivo_terms::Hold;

use super::{AT_ONCE, CANARIES, NODES, STAGES, Trial};
use crate::fleet::Seen;
use crate::swarm::agents::Manner;
use crate::swarm::stand::{FAULTY, SETS};

pub(super) fn budget(trial: &Trial<'_>) -> anyhow::Result<()> {
    let one_by_one = STAGES.replace("maxParallel: 2", "maxParallel: 1");
    for node in trial.nodes.iter().filter(|node| !node.canary) {
        trial.swarm.set_manner(&node.name, Manner::Refuses);
    }
    trial.policy(SETS[0], &one_by_one, "    failureBudget: 1\n", "")?;
    let held = NODES - CANARIES - 2;
    trial.held(Hold::FailureBudgetSpent, held)?;
    trial.nothing_moves()?;
    let status = trial.status()?;
    let rollout = status.rollout.context("no rollout")?;
    let ([first, _], 2) = (rollout.evidence.as_slice(), rollout.failed) else {
        bail!("{} failed: {:?}", rollout.failed, rollout.evidence);
    };
    let current = status.nodes.unwrap_or_default().current;
    ensure!(usize::try_from(current)? == CANARIES, "{current} nodes are at the target");
    println!("  two of {} refused it, {held} were not asked: {}", NODES - CANARIES, first.what);
    Ok(())
}

pub(super) fn taken_back(trial: &Trial<'_>) -> anyhow::Result<()> {
    trial.policy(SETS[0], AT_ONCE, "", "")?;
    trial.complete(SETS[0])?;
    // The canaries bear it, and whoever comes after them goes down.
    for node in trial.nodes.iter().filter(|node| !node.canary) {
        trial.swarm.set_manner(&node.name, Manner::Convicts);
    }
    trial.policy(FAULTY, STAGES, "    onFailure: RollBack\n", "")?;
    let status = trial.wait("everybody who was moved to go back", |status| {
        let ours =
            status.rollout.as_ref().filter(|rollout| rollout.key.target == FAULTY && rollout.returning);
        ours.is_some_and(|rollout| rollout.started > 0 && rollout.finished == rollout.started)
            && status.nodes.as_ref().is_some_and(|nodes| nodes.in_flight == 0)
    })?;
    let evidence = status.rollout.context("no rollout")?.evidence;
    let of_node = |piece: &&RolloutEvidence| !piece.gate && piece.what.contains("PanicNamesPatch");
    let told = evidence.iter().filter(of_node).count();
    ensure!(told == 2, "the word of two nodes is not told: {evidence:?}");
    let ledger = trial.ledger()?;
    let moved = ledger.told(FAULTY);
    let mut back: Vec<&str> = ledger.taken_back().map(|line| line.name.as_str()).collect();
    back.sort_unstable();
    println!("  {} were moved, 2 of them fell; taken back: {back:?}", moved.len());
    let canaries: Vec<&str> =
        trial.nodes.iter().filter(|node| node.canary).map(|node| node.name.as_str()).collect();
    ensure!(moved.len() == CANARIES + 2, "{moved:?} were moved");
    ensure!(back == canaries, "those that bore it are taken back, once each, and nobody else");
    let quarantine = trial.stand.fleet().wait("the set's quarantine", super::PATIENCE, || {
        let status = trial.set_status(FAULTY)?;
        Ok(status.quarantine.map_or_else(|| Seen::NotYet(format!("{:?}", status.evidence)), Seen::Answer))
    })?;
    println!("  quarantined since {}", quarantine.since.0);
    trial.nothing_moves()?;
    trial.policy(SETS[0], AT_ONCE, "", "")?;
    let status = trial.wait("the rollout in the history", |status| {
        status.history.iter().any(|over| over.to == FAULTY && over.outcome == Outcome::RolledBack)
    })?;
    let over = status.history.iter().find(|over| over.to == FAULTY).context("no such rollout")?;
    ensure!(over.failed == 2 && !over.evidence.is_empty(), "{over:?}");
    Ok(())
}
