//! What people trust a rollout for: brakes, priorities, newcomers, nodes that vanish.

use std::time::Duration;

use anyhow::{Context, ensure};
use invivo_api::PatchPolicyStatus;
use invivo_terms::{EMERGENCY_STOP, Hold, NodeState};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::rollout::instructions;
use crate::check::Hole;
use crate::demo::{CANARY, NODES};
use crate::fleet::Seen;
use crate::image::NODE_KERNEL;
use crate::product::{FEED, POLICY};
use crate::stage::{PATIENCE, Stage};

/// The namespace of the operator.
const NAMESPACE: &str = "invivo-system";

pub(super) fn brakes(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.product.kubectl(&[
        "create",
        "configmap",
        "-n",
        NAMESPACE,
        EMERGENCY_STOP,
        "--from-literal=reason=drill",
    ])?;
    let begun = Timestamp::now();
    let stopped = stage.target("Latest").and_then(|()| held(stage, CANARY, Hold::EmergencyStop));
    let started = stage.product.kubectl(&["delete", "configmap", "-n", NAMESPACE, EMERGENCY_STOP]);
    stopped?;
    started?;
    ensure!(
        instructions(&stage.audit(begun)?, CANARY).is_empty(),
        "instructed in spite of the emergency stop"
    );
    stage.wait_closed(&[CANARY])?;

    // A blackout begins in the middle: what was started goes on, nothing else starts.
    let from = Timestamp::now();
    let until = from + Duration::from_mins(1);
    let blackout = format!("  blackouts: [{{from: \"{from}\", until: \"{until}\", reason: drill}}]\n");
    stage.product.apply(&(stage.product.policy("Latest") + &blackout))?;
    held(stage, "node2", Hold::Blackout)?;
    let next = policy(stage)?.next_action.unwrap_or_default();
    ensure!(next.contains("the blackout ends"), "next action: {next}");
    println!("  next action: {next}");
    stage.wait_closed(&NODES)?;
    for node in ["node2", "node3"] {
        let first = *instructions(&stage.audit(from)?, node).first().context("never instructed")?;
        ensure!(first >= until, "{node} was instructed at {first}, within the blackout until {until}");
    }
    Ok(())
}

/// The window closes while the canary is watched: that goes on, the rest waits for the next one.
pub(super) fn window_closes(stage: &Stage<'_>) -> anyhow::Result<()> {
    let begun = Timestamp::now().to_zoned(TimeZone::UTC);
    // A window begins and ends with a minute, and nobody starts in its last 30 s: this one leaves the
    // canary at least as long again.
    let opened = begun.checked_sub(SignedDuration::from_hours(1))?.strftime("%H:%M");
    let window = format!(
        "  windows: [{{days: [Mon, Tue, Wed, Thu, Fri, Sat, Sun], start: \"{opened}\", duration: 62m}}]\n"
    );
    let watched = stage.product.policy("Latest").replace("soak: 15s", "soak: 2m");
    stage.product.apply(&(watched.clone() + &window))?;
    stage.wait_closed(&[CANARY])?;
    held(stage, "node2", Hold::OutsideWindow)?;
    let next = policy(stage)?.next_action.unwrap_or_default();
    println!("  next action: {next}");
    stage.require(CANARY, Hole::Closed)?;
    ensure!(
        instructions(&stage.audit(begun.timestamp())?, "node2").is_empty(),
        "node2 was instructed outside the window"
    );
    stage.product.apply(&watched)?;
    stage.wait_closed(&NODES)
}

/// A policy that goes takes its patches along, if that is what it says.
pub(super) fn deleted_with_roll_back(stage: &Stage<'_>) -> anyhow::Result<()> {
    let policy = stage.product.policy_at_once("Latest") + "  onDelete: RollBack\n";
    stage.product.apply(&policy)?;
    stage.wait_closed(&NODES)?;
    stage.product.kubectl(&["delete", "patchpolicy", POLICY, "--wait=false"])?;
    stage.fleet.wait("the policy to be gone", PATIENCE, || {
        let left =
            stage.product.kubectl(&["get", "patchpolicy", POLICY, "--ignore-not-found", "-o", "name"])?;
        Ok(if left.trim().is_empty() { Seen::Answer(()) } else { Seen::NotYet(left) })
    })?;
    NODES.iter().try_for_each(|node| stage.require(node, Hole::Open))
}

pub(super) fn held_and_dry(stage: &Stage<'_>) -> anyhow::Result<()> {
    let hold = r#"invivo.dev/hold={"reason": "its disk is being replaced"}"#;
    stage.product.kubectl(&["annotate", "node", "node3", "--overwrite", hold])?;
    let result = (|| {
        stage.product.apply(&(stage.product.policy("Latest") + "  dryRun: true\n"))?;
        held(stage, CANARY, Hold::DryRun)?;
        NODES.iter().try_for_each(|node| stage.require(node, Hole::Open))?;
        stage.target("Latest")?;
        stage.wait_closed(&[CANARY, "node2"])?;
        held(stage, "node3", Hold::HeldByPerson)?;
        stage.require("node3", Hole::Open)
    })();
    stage.product.kubectl(&["annotate", "node", "node3", "invivo.dev/hold-"])?;
    result?;
    stage.wait_closed(&NODES)
}

pub(super) fn priority(stage: &Stage<'_>) -> anyhow::Result<()> {
    let urgent = format!(
        "apiVersion: invivo.dev/v1alpha1\nkind: PatchPolicy\nmetadata: {{name: urgent}}\nspec:\n  feed: {FEED}\n  \
         priority: 10\n  nodeSelector: {{matchLabels: {{kubernetes.io/hostname: node3}}}}\n"
    );
    stage.product.apply(&urgent)?;
    let taken = stage.wait_closed(&["node3"]).and_then(|()| {
        let of = stage.fleet.patches()?.remove("node3").and_then(|patch| patch.spec.policy);
        ensure!(of.as_deref() == Some("urgent"), "node3 belongs to {of:?}");
        held(stage, "node3", Hold::ClaimedByOther)?;
        [CANARY, "node2"].iter().try_for_each(|node| stage.require(node, Hole::Open))
    });
    stage.product.kubectl(&["delete", "patchpolicy", "urgent"])?;
    taken?;
    // It falls back to the policy that asks for no patch.
    stage.fleet.wait_states(&["node3"], &[NodeState::RolledBack], PATIENCE)?;
    stage.require("node3", Hole::Open)
}

pub(super) fn newcomer_and_vanished(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.target("Latest")?;
    stage.fleet.wait_at_target(POLICY, crate::product::SET, PATIENCE)?;
    let proven = policy(stage)?.proven;
    ensure!(!proven.is_empty(), "nothing is proven");
    let added = stage.lab.add_node(NODE_KERNEL, None, crate::node::USUAL)?;
    let name = added.name().to_owned();
    let result = (|| {
        stage.fleet.wait_states(&[&name], &[NodeState::Applied, NodeState::Settled], PATIENCE)?;
        println!("  {name} joined and went straight to the proven level");
        stage.target_at_once("None")?;
        stage.fleet.wait_at_target(POLICY, "None", PATIENCE)?;
        // Now it is the canary, alone and watched for long; it dies and its Node is deleted.
        stage.product.kubectl(&["label", "node", CANARY, "invivo.dev/canary-"])?;
        stage.product.kubectl(&["label", "node", &name, "invivo.dev/canary=true"])?;
        stage.product.apply(&stage.product.policy("Latest").replace("soak: 15s", "soak: 10m"))?;
        stage.fleet.wait_states(&[&name], &[NodeState::Applied], PATIENCE)
    })();
    added.power_off()?;
    let deleted = Timestamp::now();
    stage.product.kubectl(&["delete", "node", &name])?;
    stage.product.kubectl(&["label", "--overwrite", "node", CANARY, "invivo.dev/canary=true"])?;
    result?;
    let evidence = stage.fleet.wait("the rollout to halt", PATIENCE, || {
        let status = policy(stage)?;
        let rollout = status.rollout.context("no rollout")?;
        let found = rollout.evidence.iter().find(|found| found.who == name).cloned();
        Ok(found
            .filter(|_| rollout.failed == 1)
            .map_or_else(|| Seen::NotYet(format!("{:?}", rollout.evidence)), Seen::Answer))
    })?;
    println!(
        "  {}: {} ({} after its deletion)",
        evidence.who,
        evidence.what,
        evidence.at.0.duration_since(deleted)
    );
    held(stage, CANARY, Hold::FailureBudgetSpent)?;
    NODES.iter().try_for_each(|node| stage.require(node, Hole::Open))
}

pub(super) fn policy(stage: &Stage<'_>) -> anyhow::Result<PatchPolicyStatus> {
    Ok(stage.fleet.policy(POLICY)?.status.unwrap_or_default())
}

/// Waits until the policy says that it holds this node for this reason.
pub(super) fn held(stage: &Stage<'_>, node: &str, wanted: Hold) -> anyhow::Result<()> {
    stage.fleet.wait(&format!("{wanted} of {node}"), PATIENCE, || {
        let holds = policy(stage)?.holds;
        let found =
            holds.iter().any(|hold| hold.reason == wanted && hold.examples.iter().any(|name| name == node));
        Ok(if found { Seen::Answer(()) } else { Seen::NotYet(format!("{holds:?}")) })
    })
}
