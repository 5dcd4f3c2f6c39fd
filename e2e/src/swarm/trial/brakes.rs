//! Limits over all policies, and what an emergency skips.

use std::time::Duration;

use anyhow::ensure;
use invivo_terms::Hold;
use jiff::Timestamp;

use super::{NODES, STAGES, Trial, policy};
use crate::fleet::Seen;
use crate::product::{FEED, POLICY};
use crate::swarm::agents::Pace;
use crate::swarm::stand::SETS;

/// As many as may move in the whole fleet.
const LIMIT: usize = 3;

pub(super) fn fleet_limit(trial: &Trial<'_>) -> anyhow::Result<()> {
    let product = trial.product()?;
    trial.swarm.set_pace(Pace { apply: Duration::from_millis(1500), settle: Duration::from_secs(1) });
    trial.stand.restart_operator(Some(LIMIT))?;
    let shown = limited(trial);
    product.kubectl(&["delete", "patchpolicies", "--all", "--timeout=30s"])?;
    trial.stand.restart_operator(None)?;
    shown
}

fn limited(trial: &Trial<'_>) -> anyhow::Result<()> {
    let product = trial.product()?;
    let zones = [("zone-0", POLICY), ("zone-1", "another"), ("zone-2", "third")];
    for (zone, name) in zones {
        let select = format!("  nodeSelector: {{matchLabels: {{topology.kubernetes.io/zone: {zone}}}}}\n");
        product.apply(&policy(name, FEED, SETS[0], super::AT_ONCE, "", &select))?;
    }
    let held = |name: &str| -> anyhow::Result<bool> {
        let status = trial.stand.fleet().policy(name)?.status.unwrap_or_default();
        Ok(status.holds.iter().any(|hold| hold.reason == Hold::FleetLimit))
    };
    trial.stand.fleet().wait("FleetLimit", super::PATIENCE, || {
        let held = zones.iter().map(|(_, name)| held(name)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(if held.contains(&true) { Seen::Answer(()) } else { Seen::NotYet(format!("{held:?}")) })
    })?;
    trial.stand.fleet().wait("every node at the target", super::PATIENCE, || {
        let patches = trial.stand.fleet().patches()?;
        let on =
            patches.values().filter(|patch| patch.status.as_ref().is_some_and(|s| s.level.0 == 1)).count();
        Ok(if on == NODES { Seen::Answer(()) } else { Seen::NotYet(format!("{on} patched")) })
    })?;
    let most = trial.ledger()?.most_at_once();
    println!("  three policies of four nodes, all at once: {most} moved at once, {LIMIT} may");
    ensure!(most == LIMIT, "{most} moved at once, {LIMIT} may");
    Ok(())
}

pub(super) fn expedited(trial: &Trial<'_>) -> anyhow::Result<()> {
    let watched = STAGES.replace("maxParallel: 100%", "maxParallel: 100%, soak: 1h");
    let expedite = |set: &str| {
        let until = Timestamp::now() + Duration::from_mins(10);
        format!(
            "    expedite: {{set: \"{set}\", reason: a hole is used, user: {}, until: \"{until}\"}}\n",
            crate::pki::ADMINISTRATOR
        )
    };
    // Of another set: it is watched all the same.
    trial.policy(SETS[0], &watched, &expedite(SETS[1]), "")?;
    trial.wait("the canaries to be watched", |status| {
        status.stage.as_ref().is_some_and(|stage| stage.soak_until.is_some())
    })?;
    trial.nothing_moves()?;
    trial.policy(SETS[0], &watched, &expedite(SETS[0]), "")?;
    trial.complete(SETS[0])?;
    println!("  an hour's soak was skipped for {} alone", SETS[0]);
    let others = expedite(SETS[1]).replace(crate::pki::ADMINISTRATOR, "somebody-else");
    let stolen = trial.policy(SETS[1], &watched, &others, "").err();
    ensure!(stolen.is_some(), "expedited in another's name");
    Ok(())
}
