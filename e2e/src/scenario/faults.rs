//! Processes and nodes that die at the worst moment.

use std::time::Duration;

use anyhow::{Context, ensure};
use invivo_terms::NodeState;

use super::{PATIENCE, Stage};
use crate::check::Hole;
use crate::demo::NODES;

/// Kills both as soon as the kernel has the patch, before either can report it.
const KILL_AT_LOAD: &str = r"
nohup sh -c '
  until ls /sys/kernel/livepatch 2>/dev/null | grep -q ^invivo_; do sleep 0.02; done
  kill -9 $(pidof invivo-agent) $(pidof invivo-loader)
  date +%s > /run/invivo-lab-killed
' >/dev/null 2>&1 &
";

pub(super) fn agent_and_loader_killed(stage: &Stage<'_>) -> anyhow::Result<()> {
    let node = stage.node("node1")?;
    let armed =
        node.run(&format!("rm -f /run/invivo-lab-killed; {KILL_AT_LOAD}"), Duration::from_secs(30))?;
    ensure!(armed.success(), "arm the kill: {}", armed.text());
    stage.target_at_once("Latest")?;
    stage.wait_closed(&NODES)?;
    let killed = node.run("cat /run/invivo-lab-killed", Duration::from_secs(30))?;
    ensure!(killed.success(), "nothing was killed: {}", killed.text());
    let modules = node.run("ls /sys/kernel/livepatch; lsmod | grep -c ^invivo_", Duration::from_secs(30))?;
    ensure!(modules.text().trim().ends_with("\n1"), "not exactly one patch module: {}", modules.text());
    Ok(())
}

pub(super) fn reset_after_settling(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.target_at_once("Latest")?;
    stage.fleet.wait_states(&NODES, &[NodeState::Settled], PATIENCE)?;
    let before = stage.fleet.patches()?.remove("node2").context("node2 has no NodePatch")?;
    let boot_before = before.status.as_ref().and_then(|status| status.boot_id.clone());

    stage.lab.reset(&stage.node("node2")?)?;
    let after = stage.fleet.wait("node2 to report its new boot", PATIENCE, || {
        let patch = stage.fleet.patches()?.remove("node2").context("node2 has no NodePatch")?;
        let status = patch.status.clone().unwrap_or_default();
        Ok(if status.boot_id != boot_before && status.state == NodeState::Settled {
            crate::fleet::Seen::Answer(patch)
        } else {
            crate::fleet::Seen::NotYet(format!(
                "{} level {} boot {:?}",
                status.state, status.level, status.boot_id
            ))
        })
    })?;
    stage.require("node2", Hole::Closed)?;
    let status = after.status.unwrap_or_default();
    ensure!(
        after.spec.revision == before.spec.revision,
        "it took a new instruction: revision {} after {}",
        after.spec.revision,
        before.spec.revision
    );
    let unpatched = status.unpatched_seconds.context("the unpatched seconds were not reported")?;
    println!("  node2 was {unpatched} s without its patch after the boot");
    own_time(stage)
}

/// What of that was the loader's own, from its start to the level's return, the kernel's part aside.
fn own_time(stage: &Stage<'_>) -> anyhow::Result<()> {
    let logs = stage.product.kubectl(&[
        "logs",
        "-n",
        "invivo-system",
        "ds/invivo-agent",
        "-c",
        "loader",
        "--all-pods",
        "--tail=100",
    ])?;
    let line = logs.lines().find_map(|line| line.split_once('{').filter(|_| line.contains("level is back")));
    let (_, fields) = line.context("no loader says that its level is back")?;
    let said: serde_json::Value = serde_json::from_str(&format!("{{{fields}"))?;
    let number = |name: &str| said.pointer(&format!("/fields/{name}")).and_then(serde_json::Value::as_u64);
    let (whole, kernel) = number("millis").zip(number("kernel_millis")).context("a line without times")?;
    println!("  its loader took {whole} ms, of which the kernel {kernel} ms");
    ensure!(whole.saturating_sub(kernel) <= 2000, "the loader itself took more than 2 s");
    Ok(())
}
