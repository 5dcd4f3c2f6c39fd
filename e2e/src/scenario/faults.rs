//! Processes and nodes that die at the worst moment.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use invivo_api::NodePatchStatus;
use invivo_terms::{Level, NodeState};
use jiff::Timestamp;

use super::verdicts::{clear_verdict, set_status};
use crate::check::Hole;
use crate::demo::NODES;
use crate::fleet::Seen;
use crate::loader;
use crate::product::{POLICY, SET};
use crate::spend;
use crate::stage::{PATIENCE, Stage};

/// Kills both.
const KILL: &str = "kill -9 $(pidof invivo-agent) $(pidof invivo-loader)";

/// The kernel kills the agent as if there were no memory left.
const RUN_OUT: &str = "echo 1000 > /proc/$(pidof invivo-agent)/oom_score_adj; \
                       echo 1 > /proc/sys/kernel/sysrq; echo f > /proc/sysrq-trigger";

/// Does that on a node as soon as its kernel has the patch, before anybody can report it.
fn at_load(end: &str) -> String {
    format!(
        r"rm -f /run/invivo-lab-killed
nohup sh -c '
  until ls /sys/kernel/livepatch 2>/dev/null | grep -q ^invivo_; do sleep 0.02; done
  {end}
  date +%s > /run/invivo-lab-killed
' >/dev/null 2>&1 &
"
    )
}

/// How often a node with everything on it loses its power.
const CUTS: u32 = 5;
/// An operator that dies with its node may have counted a wave that it did not write any more: its slots
/// are taken until the deadlines that it would have given, ten minutes.
const LOST_WAVE: Duration = Duration::from_mins(12);
/// When at the latest, after what its policy wants has changed: by then it has been carried out.
const LATEST_CUT: Duration = Duration::from_secs(12);
/// Longest time of the loader's own before a settled level is back. It is meant to take 2 s (see
/// `docs/benchmarks.md`); emulated, while all of a node's pods start, everything takes longer.
const OWN_TIME: Duration = Duration::from_secs(10);

/// How long the API server is away.
const GONE: Duration = Duration::from_mins(1);

pub(super) fn agent_and_loader_killed(stage: &Stage<'_>) -> anyhow::Result<()> {
    loaded_once_whatever_ends(stage, KILL)
}

pub(super) fn agent_out_of_memory(stage: &Stage<'_>) -> anyhow::Result<()> {
    loaded_once_whatever_ends(stage, RUN_OUT)?;
    let log = stage.node("node1")?.run("dmesg | grep -a 'Killed process'", Duration::from_secs(30))?;
    println!("  node1: {}", log.text().trim());
    ensure!(log.text().contains("(invivo-agent)"), "the kernel did not kill it");
    Ok(())
}

/// Nodes need nobody to keep what they have.
pub(super) fn api_server_gone(stage: &Stage<'_>) -> anyhow::Result<()> {
    const NODE: &str = "node2";
    stage.target_at_once("Latest")?;
    stage.fleet.wait_states(&NODES, &[NodeState::Settled], PATIENCE)?;
    let before = loader::state(stage, NODE)?;
    let revision = |stage: &Stage<'_>| -> anyhow::Result<_> {
        Ok(stage.fleet.patches()?.remove(NODE).context("no NodePatch")?.spec.revision)
    };
    let instruction = revision(stage)?;
    stage.lab.without_api_server(|| {
        let killed = stage.node(NODE)?.run("kill -9 $(pidof invivo-loader)", Duration::from_secs(30))?;
        ensure!(killed.success(), "kill the loader: {}", killed.text());
        std::thread::sleep(GONE);
        let now = loader::state(stage, NODE)?;
        println!(
            "  {NODE}, {} s without the API server, its loader killed: {} level {}",
            GONE.as_secs(),
            now.state,
            now.level
        );
        ensure!(
            (now.state, now.level, &now.order) == (NodeState::Settled, before.level, &before.order),
            "it was {} level {}",
            before.state,
            before.level
        );
        stage.require(NODE, Hole::Closed)
    })?;
    stage.fleet.wait_states(&NODES, &[NodeState::Settled], PATIENCE)?;
    ensure!(revision(stage)? == instruction, "it was instructed anew");
    Ok(())
}

fn loaded_once_whatever_ends(stage: &Stage<'_>, end: &str) -> anyhow::Result<()> {
    let node = stage.node("node1")?;
    let armed = node.run(&at_load(end), Duration::from_secs(30))?;
    ensure!(armed.success(), "arm it: {}", armed.text());
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
            Seen::Answer(patch)
        } else {
            Seen::NotYet(format!("{} level {} boot {:?}", status.state, status.level, status.boot_id))
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
    let spent = spend::time(spend::ticks_of(&stage.node("node2")?, "invivo-loader")?);
    println!("  its loader has had {} ms of processor time since it began", spent.as_millis());
    own_time(stage)
}

/// Wherever it is cut, the node comes back, says what its kernel is, believes nothing older than before,
/// leaves a bundle that it has convicted alone, and can be patched.
pub(super) fn power_cuts(stage: &Stage<'_>) -> anyhow::Result<()> {
    let node = stage.node("node2")?;
    let mut convicted = false;
    for cut in 0..CUTS {
        let before = stage.fleet.patches()?.remove("node2").and_then(|patch| patch.status?.boot_id);
        let floors = loader::state(stage, "node2")?.floors;
        stage.target_at_once(if cut % 2 == 0 { "Latest" } else { "None" })?;
        let chance = Timestamp::now().as_nanosecond().unsigned_abs() % LATEST_CUT.as_nanos();
        let pause = Duration::from_nanos(u64::try_from(chance).unwrap_or_default());
        std::thread::sleep(pause);
        stage.lab.reset(&node)?;
        let (state, level) = stage.fleet.wait("node2 to say what its kernel shows", PATIENCE, || {
            let told = status_of(stage)?;
            let seen = stage.check.run(&node)?;
            let steady = status_of(stage)?.level == told.level && told.boot_id != before;
            let right = (seen == Hole::Closed) == (told.level != Level::UNPATCHED);
            Ok(if steady && right && told.state != NodeState::Working {
                Seen::Answer((told.state, told.level))
            } else if convicted && seen == Hole::Closed {
                bail!("node2 put a bundle on that it had convicted");
            } else {
                Seen::NotYet(format!("{} level {}, the hole is {seen}", told.state, told.level))
            })
        })?;
        let after = loader::state(stage, "node2")?.floors;
        let same = floors.repository.is_none() || after.repository == floors.repository;
        ensure!(same && after.not_below(&floors).is_ok(), "node2 forgot: {after:?} after {floors:?}");
        let refused = status_of(stage)?.reason.as_deref() == Some("ConvictedHere");
        ensure!(!convicted || level == Level::UNPATCHED, "node2 put a bundle on that it had convicted");
        convicted |= state == NodeState::Convicted || refused;
        println!(
            "  cut {:.1} s after the change: {state}, level {level}, as its kernel shows; floors {}, {}, {}",
            pause.as_secs_f64(),
            after.trust,
            after.index,
            after.timestamp
        );
    }
    // Two cuts before a patch settled are a conviction.
    let cleared = clear_verdict(stage, &node)?;
    println!("  node2# invivo clear-verdict: {}", cleared.trim());
    // With what the control plane saw of the node's deaths, it may be one against the set as well.
    if set_status(stage, SET)?.quarantine.is_some() {
        let said = stage.product.kubectl_invivo(&["approve", SET, "--reason", "the lab cut the power"])?;
        println!("  $ kubectl invivo approve: {}", said.trim());
    }
    // A conviction has ended its rollout as well.
    stage.target_at_once("None")?;
    stage.fleet.wait_at_target(POLICY, "None", LOST_WAVE)?;
    stage.target_at_once("Latest")?;
    stage.wait_closed(&NODES)
}

fn status_of(stage: &Stage<'_>) -> anyhow::Result<NodePatchStatus> {
    let patch = stage.fleet.patches()?.remove("node2").context("node2 has no NodePatch")?;
    Ok(patch.status.unwrap_or_default())
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
    let own = Duration::from_millis(whole.saturating_sub(kernel));
    ensure!(own <= OWN_TIME, "the loader itself took {} ms", own.as_millis());
    Ok(())
}
