//! Patches that bring a node down, and nodes that go down for another reason.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use invivo_api::{HoldCount, NodePatchStatus, PatchSetStatus};
use invivo_terms::{Hold, Level, NodeState};
use invivo_wire::{Request, frame};

use super::rollout::instructions;
use crate::check::Hole;
use crate::demo::{CANARY, NODES};
use crate::fleet::Seen;
use crate::loader;
use crate::node::Node;
use crate::product::{FEED, POLICY};
use crate::rebundle::{ByHand, FUNCTION, OOPS};
use crate::stage::{PATIENCE, Stage};

/// The set whose patch oopses when it is called.
const FAULTY_SET: &str = "2026-11-23.1";
/// A node that is no canary.
const STEADY: &str = "node2";
/// Where `invivo` is put on a node.
const PROGRAM: &str = "/run/invivo-cli";

pub(super) fn panic_in_the_patch(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.publish(&ByHand { set: FAULTY_SET, level: 3, replaces: FUNCTION, code: OOPS })?;
    let watched_for_long = stage.product.policy(FAULTY_SET).replace("soak: 15s", "soak: 30m");
    stage.product.apply(&watched_for_long)?;
    wait(stage, "level 3", |status| status.level == Level(3))?;
    let node = stage.node(CANARY)?;
    node.crash_by(crate::check::ON_NODE)?;
    stage.lab.power_on(&node)?;
    let status = wait(stage, "a verdict", |status| status.state == NodeState::Convicted)?;
    println!("  {CANARY}: {}", status.message.as_deref().unwrap_or_default());
    ensure!(status.reason.as_deref() == Some("PanicNamesPatch"), "{:?}", status.reason);
    ensure!(status.level == Level::UNPATCHED, "level {} is on", status.level);
    let evidence = status
        .evidence
        .unwrap_or_else(|| invivo_api::Evidence { digest: invivo_feed::digest(b""), excerpt: String::new() });
    println!("  evidence {:.12}: {}", evidence.digest.as_str(), evidence.excerpt);
    ensure!(evidence.excerpt.contains(FUNCTION), "the evidence does not name {FUNCTION}");
    let kept = format!("grep -c 'Kernel panic\\|{FUNCTION}' /var/lib/invivo/evidence/{}", evidence.digest);
    ensure!(node.run(&kept, Duration::from_secs(30))?.success(), "the record is not kept on the node");
    stage.require(CANARY, Hole::Open)?;
    told_once(stage, "PanicNamesPatch")?;
    // The rollout pauses. Where the control plane saw the node die as well, its word quarantines the set.
    let why = stage.fleet.wait("the rest to be held", PATIENCE, || {
        let holds = super::cautious::policy(stage)?.holds;
        let of = |hold: &&HoldCount| {
            NODES
                .iter()
                .filter(|node| **node != CANARY)
                .all(|node| hold.examples.iter().any(|name| name == node))
        };
        Ok(match holds.iter().find(of).map(|hold| hold.reason) {
            Some(why @ (Hold::FailureBudgetSpent | Hold::SetQuarantined)) => Seen::Answer(why),
            _ => Seen::NotYet(format!("{holds:?}")),
        })
    })?;
    println!("  the rest: {why}");

    stage.target_at_once("None")?;
    stage.fleet.wait_at_target(POLICY, "None", PATIENCE)?;
    stage.target(FAULTY_SET)?;
    // The control plane saw the node die as well: with its word the set is quarantined, and the node
    // is not even asked. Where it was back too soon for that, the node itself refuses.
    let refused = stage.fleet.wait("the set to be refused", PATIENCE, || {
        let status = stage.fleet.patches()?.remove(CANARY).and_then(|patch| patch.status).unwrap_or_default();
        ensure!(status.level == Level::UNPATCHED, "level {} is on", status.level);
        let holds = stage.fleet.policy(POLICY)?.status.unwrap_or_default().holds;
        let quarantined = holds.iter().any(|hold| hold.reason == Hold::SetQuarantined);
        let told = status.reason.as_deref() == Some("ConvictedHere");
        Ok(match (quarantined, told) {
            (true, _) => Seen::Answer("SetQuarantined"),
            (false, true) => Seen::Answer("ConvictedHere"),
            (false, false) => Seen::NotYet(format!("{:?} {holds:?}", status.reason)),
        })
    })?;
    println!("  {CANARY}: {refused}");
    for other in NODES.iter().filter(|name| **name != CANARY) {
        stage.require(other, Hole::Open)?;
    }
    cleared_by_root_alone(stage, &node, "convicted since")
}

/// The operator says the canary's verdict as one Event of its NodePatch, with the line that tells.
fn told_once(stage: &Stage<'_>, reason: &str) -> anyhow::Result<()> {
    let told =
        "jsonpath={range .items[*]}{.reason} {.regarding.kind}/{.regarding.name} {.note}{\"\\n\"}{end}";
    let told = stage.fleet.wait("the verdict's Event", PATIENCE, || {
        let all = stage.product.kubectl(&["get", "events.events.k8s.io", "-n", "default", "-o", told])?;
        let told: Vec<String> =
            all.lines().filter(|line| line.starts_with(reason)).map(str::to_owned).collect();
        Ok(if told.is_empty() {
            Seen::NotYet(format!("{} others", all.lines().count()))
        } else {
            Seen::Answer(told)
        })
    })?;
    println!("  Event: {}", told.join("\n  Event: "));
    let about = format!("{reason} NodePatch/{CANARY} ");
    ensure!(
        matches!(&told[..], [one] if one.starts_with(&about) && one.contains(FUNCTION)),
        "not this, once"
    );
    Ok(())
}

/// One node's word moves one node; what two say is believed everywhere.
pub(super) fn two_nodes_panic(stage: &Stage<'_>) -> anyhow::Result<()> {
    const SET: &str = "2026-11-23.2";
    stage.publish(&ByHand { set: SET, level: 4, replaces: FUNCTION, code: OOPS })?;
    let begun = jiff::Timestamp::now();
    to_the_pair(stage, SET, Level(4))?;
    let fallen = [CANARY, STEADY];
    for name in fallen {
        stage.node(name)?.crash_by(crate::check::ON_NODE)?;
    }
    for name in fallen {
        stage.lab.power_on(&stage.node(name)?)?;
    }
    let mut uids = Vec::new();
    for name in fallen {
        let status = wait_of(stage, name, "a verdict", |status| status.state == NodeState::Convicted)?;
        println!("  {name}: {}", status.message.as_deref().unwrap_or_default());
        uids.extend(stage.fleet.node(name)?.metadata.uid);
    }
    quarantined(stage, SET, &uids)?;
    left_alone(stage, Hold::SetQuarantined, begun)?;
    fallen.iter().try_for_each(|name| cleared_by_root_alone(stage, &stage.node(name)?, "convicted since"))
}

/// A set for two nodes and, after a long soak, the third.
fn to_the_pair(stage: &Stage<'_>, set: &str, level: Level) -> anyhow::Result<()> {
    const PAIR: &str = "{name: pair, maxParallel: 2, soak: 30m, nodeSelector: {matchExpressions: \
                        [{key: kubernetes.io/hostname, operator: In, values: [node1, node2]}]}}";
    let policy = stage.product.policy_at_once(set).replace("{name: all, maxParallel: 10, soak: 1s}", PAIR);
    stage.product.apply(&policy)?;
    for name in [CANARY, STEADY] {
        wait_of(stage, name, &format!("level {level}"), |status| status.level == level)?;
    }
    Ok(())
}

/// The node that comes after the pair is held, was told nothing, and its kernel is as it was.
fn left_alone(stage: &Stage<'_>, hold: Hold, since: jiff::Timestamp) -> anyhow::Result<()> {
    const THIRD: &str = "node3";
    super::cautious::held(stage, THIRD, hold)?;
    ensure!(instructions(&stage.audit(since)?, THIRD).is_empty(), "{THIRD} was instructed");
    stage.require(THIRD, Hole::Open)
}

/// Waits until there is the evidence of these nodes against the set, and nothing rolls it out any more.
fn quarantined(stage: &Stage<'_>, set: &str, uids: &[String]) -> anyhow::Result<()> {
    let since = stage.fleet.wait("both nodes' evidence and a quarantine", PATIENCE, || {
        let status = set_status(stage, set)?;
        let told = |uid: &String| status.evidence.iter().any(|evidence| evidence.node_uid == *uid);
        Ok(match status.quarantine {
            Some(quarantine) if uids.iter().all(told) => Seen::Answer(quarantine.since),
            _ => Seen::NotYet(format!("{:?}", status.evidence)),
        })
    })?;
    println!("  {set}: quarantined since {}", since.0);
    Ok(())
}

pub(super) fn set_status(stage: &Stage<'_>, set: &str) -> anyhow::Result<PatchSetStatus> {
    let name = format!("{FEED}.{set}");
    let mut sets = stage.fleet.sets()?.into_iter();
    let set = sets.find(|set| set.metadata.name.as_ref() == Some(&name));
    Ok(set.and_then(|set| set.status).unwrap_or_default())
}

fn cleared_by_root_alone(stage: &Stage<'_>, node: &Node, verdict: &str) -> anyhow::Result<()> {
    let mut message = Vec::new();
    frame::write(&mut message, &Request::ClearVerdicts, &[])?;
    let said = loader::said(stage, node.name(), &message)?;
    println!("  the agent's user asks for the same: {:.120}", said.trim());
    ensure!(!said.contains("cleared") && !said.is_empty(), "the agent may clear verdicts");
    let cleared = clear_verdict(stage, node)?;
    println!("  {}# invivo clear-verdict: {}", node.name(), cleared.trim());
    ensure!(cleared.contains(verdict), "not cleared");
    let again = clear_verdict(stage, node)?;
    ensure!(again.contains("no bundle was suspected"), "not cleared for good: {again}");
    Ok(())
}

/// What the command says, run on the node as root.
pub(super) fn clear_verdict(stage: &Stage<'_>, node: &Node) -> anyhow::Result<String> {
    let copied = stage.lab.copy_to(node, &stage.product.program("invivo"), PROGRAM)?;
    ensure!(copied.success(), "copy invivo: {}", copied.text());
    let clear = format!("chmod 755 {PROGRAM} && {PROGRAM} clear-verdict");
    let said = node.run(&clear, Duration::from_mins(1))?;
    ensure!(said.success(), "clear-verdict: {}", said.text());
    Ok(said.text())
}

pub(super) fn power_cut_while_soaking(stage: &Stage<'_>) -> anyhow::Result<()> {
    let soaking = stage.product.policy("Latest").replace("soak: 15s", "soak: 90s");
    stage.product.apply(&soaking)?;
    let before = wait(stage, "Applied", |status| status.state == NodeState::Applied)?.boot_id;
    let node = stage.node(CANARY)?;
    node.power_off()?;
    let audit = jiff::Timestamp::now();
    stage.lab.power_on(&node)?;
    let again = |status: &NodePatchStatus| {
        status.state == NodeState::Applied && status.level == Level(1) && status.boot_id != before
    };
    wait(stage, "level 1 in the next boot", again)?;
    stage.require(CANARY, Hole::Closed)?;
    let suspected = stage.audit(audit)?.iter().any(|event| {
        event.object_ref.as_ref().is_some_and(|object| object.name == CANARY)
            && event.request_object.to_string().contains("\"Suspected\"")
    });
    ensure!(suspected, "Suspected was never reported");
    Ok(())
}

/// Unloaded while the policy is paused, and put back when it goes on; disabled again, which is the second
/// time in one rollout.
pub(super) fn taken_off_by_hand(stage: &Stage<'_>) -> anyhow::Result<()> {
    const DISABLE: &str = "for patch in /sys/kernel/livepatch/invivo_*; do echo 0 > $patch/enabled; done";
    const UNLOAD: &str = "while lsmod | grep -q ^invivo_; do \
                          rmmod $(lsmod | cut -d' ' -f1 | grep ^invivo_); sleep 0.2; done";
    stage.target_at_once("Latest")?;
    stage.fleet.wait_states(&NODES, &[NodeState::Settled], PATIENCE)?;
    let paused = |paused: bool| {
        let change = format!("{{\"spec\": {{\"paused\": {paused}}}}}");
        stage.product.kubectl(&["patch", "patchpolicy", POLICY, "--type", "merge", "-p", &change])
    };
    paused(true)?;
    vanishes(stage, &format!("{DISABLE}; {UNLOAD}"))?;
    stays_off(stage, "the policy is paused")?;
    paused(false)?;
    let back = |status: &NodePatchStatus| status.level == Level(1) && status.state == NodeState::Settled;
    wait_of(stage, STEADY, "level 1 put back", back)?;
    stage.require(STEADY, Hole::Closed)?;

    vanishes(stage, DISABLE)?;
    stays_off(stage, "it was put back before")?;
    super::cautious::held(stage, STEADY, Hold::AttemptEnded)
}

fn stays_off(stage: &Stage<'_>, since: &str) -> anyhow::Result<()> {
    std::thread::sleep(Duration::from_secs(20));
    let status = stage.fleet.patches()?.remove(STEADY).and_then(|patch| patch.status).unwrap_or_default();
    println!("  {STEADY}, 20 s later, as {since}: {} level {}", status.state, status.level);
    ensure!(status.level == Level::UNPATCHED, "it was put back, and {since}");
    stage.require(STEADY, Hole::Open)
}

fn vanishes(stage: &Stage<'_>, by_hand: &str) -> anyhow::Result<()> {
    let node = stage.node(STEADY)?;
    let off = node.run(by_hand, Duration::from_secs(50))?;
    ensure!(off.success(), "{by_hand}: {}", off.text());
    let began = Instant::now();
    let gone = |status: &NodePatchStatus| status.reason.as_deref() == Some("Vanished");
    wait_of(stage, STEADY, "Vanished", gone)?;
    let seen = began.elapsed();
    println!("  {STEADY}: taken off by hand, told after {:.0} s", seen.as_secs_f64());
    // The agent asks each 55 s.
    ensure!(seen < Duration::from_mins(1), "it was told only after {seen:?}");
    Ok(())
}

/// One node's word stops the rollout, and a second one's the set.
pub(super) fn oops_survived(stage: &Stage<'_>) -> anyhow::Result<()> {
    /// It oopses where no lock is held: a thread that dies with one would stay in the patch for ever.
    const SET: &str = "2026-11-23.4";
    stage.publish(&ByHand { set: SET, level: 6, replaces: "do_linkat", code: OOPS })?;
    let begun = jiff::Timestamp::now();
    let fallen = [CANARY, STEADY];
    // kubelet sets it to 1 when it starts.
    fallen.iter().try_for_each(|name| panic_on_oops(stage, name, false))?;
    to_the_pair(stage, SET, Level(6))?;
    undone_live(stage, CANARY)?;
    left_alone(stage, Hold::FailureBudgetSpent, begun)?;
    let rollout = super::cautious::policy(stage)?.rollout.context("no rollout")?;
    ensure!(rollout.failed == 1, "{} failed", rollout.failed);
    let told = rollout.evidence.iter().find(|piece| piece.who == CANARY).context("no evidence")?;
    println!("  the rollout pauses: {}: {}", told.who, told.what);
    ensure!(set_status(stage, SET)?.quarantine.is_none(), "quarantined by one node's word");

    undone_live(stage, STEADY)?;
    let uids: Vec<String> = fallen
        .iter()
        .filter_map(|name| stage.fleet.node(name).ok().and_then(|node| node.metadata.uid))
        .collect();
    ensure!(uids.len() == fallen.len(), "a node is gone");
    quarantined(stage, SET, &uids)?;
    left_alone(stage, Hold::SetQuarantined, begun)?;
    fallen.iter().try_for_each(|name| panic_on_oops(stage, name, true))?;
    fallen.iter().try_for_each(|name| cleared_by_root_alone(stage, &stage.node(name)?, "suspected since"))
}

/// The chart lets the loader read the kernel's log, and what holds functions.
pub(super) fn told_by_the_log(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.product.upgrade(&["loader.kernelLog=true", "loader.tracing=true"])?;
    let told = oops_in_the_log(stage);
    stage.product.upgrade(&["loader.kernelLog=false", "loader.tracing=false"])?;
    told
}

fn oops_in_the_log(stage: &Stage<'_>) -> anyhow::Result<()> {
    const SET: &str = "2026-11-23.5";
    stage.publish(&ByHand { set: SET, level: 7, replaces: "do_linkat", code: OOPS })?;
    panic_on_oops(stage, CANARY, false)?;
    to_the_pair(stage, SET, Level(7))?;
    undone_live(stage, CANARY)?;
    let status = wait(stage, "evidence", |status| status.evidence.is_some())?;
    let excerpt = status.evidence.map(|evidence| evidence.excerpt).unwrap_or_default();
    println!("  {CANARY}: evidence: {excerpt}");
    ensure!(excerpt.contains("[invivo_l7_"), "it does not name the patch");
    panic_on_oops(stage, CANARY, true)?;
    cleared_by_root_alone(stage, &stage.node(CANARY)?, "convicted since")
}

fn panic_on_oops(stage: &Stage<'_>, name: &str, panics: bool) -> anyhow::Result<()> {
    let set = format!("echo {} > /proc/sys/kernel/panic_on_oops", u8::from(panics));
    let said = stage.node(name)?.run(&set, Duration::from_secs(30))?;
    ensure!(said.success(), "panic_on_oops: {}", said.text());
    Ok(())
}

/// Calls the patched function on this node, and waits until it is as before.
fn undone_live(stage: &Stage<'_>, name: &str) -> anyhow::Result<()> {
    let script = "cd /tmp; touch one; ln one two; began=$(date +%s%3N)
        until ! ls /sys/kernel/livepatch | grep -q ^invivo_; do sleep 0.1; done
        echo restored after $(($(date +%s%3N) - began)) ms; ln one two && rm one two && echo works";
    let undone = stage.node(name)?.run(script, PATIENCE)?;
    println!("  {name}: {}", undone.text().trim());
    ensure!(undone.success() && undone.text().contains("works"), "the function is not back");
    let harmed = |status: &NodePatchStatus| status.reason.as_deref() == Some("KernelOops");
    let status = wait_of(stage, name, "KernelOops", harmed)?;
    println!("  {name}: {} {}", status.state, status.message.as_deref().unwrap_or_default());
    ensure!(status.level == Level::UNPATCHED, "level {} is on", status.level);
    Ok(())
}

/// Waits until the canary's status is as wanted.
pub(super) fn wait(
    stage: &Stage<'_>,
    what: &str,
    wanted: impl Fn(&NodePatchStatus) -> bool,
) -> anyhow::Result<NodePatchStatus> {
    wait_of(stage, CANARY, what, wanted)
}

pub(super) fn wait_of(
    stage: &Stage<'_>,
    node: &str,
    what: &str,
    wanted: impl Fn(&NodePatchStatus) -> bool,
) -> anyhow::Result<NodePatchStatus> {
    wait_within(PATIENCE, stage, node, what, wanted)
}

/// The same with another patience.
pub(super) fn wait_within(
    patience: Duration,
    stage: &Stage<'_>,
    node: &str,
    what: &str,
    wanted: impl Fn(&NodePatchStatus) -> bool,
) -> anyhow::Result<NodePatchStatus> {
    stage.fleet.wait(&format!("{what} of {node}"), patience, || {
        let patch = stage.fleet.patches()?.remove(node);
        let status = patch.and_then(|patch| patch.status).unwrap_or_default();
        Ok(if wanted(&status) {
            Seen::Answer(status)
        } else {
            Seen::NotYet(format!("{} level {} {:?}", status.state, status.level, status.reason))
        })
    })
}
