//! Transitions that do not end.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use invivo_api::NodePatchStatus;
use invivo_terms::{Level, NodeState};

use super::verdicts::wait_within;
use crate::demo::CANARY;
use crate::rebundle::{ByHand, TELL_EAGAIN};
use crate::stage::{PATIENCE, Stage};

const SET: &str = "2026-11-23.3";

/// A node's next deadline is later than its last one, which is ten minutes ahead at most.
const UNTIL_BLOCKED: Duration = Duration::from_mins(12);
/// A pod of somebody's.
const POD: &str = "sleeper";
/// A thread of the pod whose uid stands before this makes a link on a file system that is frozen: it
/// sleeps within the function that is to be replaced, and nothing wakes it.
const BLOCK: &str = "
set -e
modprobe loop
cd /run && truncate -s 32M frozen.img && mke2fs -q -t ext4 frozen.img && mkdir -p frozen
mount -o loop frozen.img frozen && touch frozen/one && fsfreeze -f frozen
of_pod=$(find /sys/fs/cgroup -type d -name \"*pod$(echo $pod | tr - _)*\" | head -n 1)
group=$(find $of_pod -type d -name 'cri-containerd-*' | head -n 1)
nohup sh -c \"echo \\$\\$ > $group/cgroup.procs; exec ln /run/frozen/one /run/frozen/two\" >/dev/null 2>&1 &
sleep 1
grep -q do_linkat /proc/$(pidof -s ln)/stack
";
const RELEASE: &str =
    "cd /run; fsfreeze -u frozen; sleep 1; ls frozen; umount frozen; rm frozen.img; rmdir frozen";

pub(super) fn thread_in_a_pod(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.publish(&ByHand { set: SET, level: 5, replaces: "do_linkat", code: TELL_EAGAIN })?;
    let node = stage.node(CANARY)?;
    let pod = start_pod(stage)?;
    let blocked = node.run(&format!("pod={pod}\n{BLOCK}"), Duration::from_mins(1))?;
    ensure!(blocked.success(), "a thread that blocks: {}", blocked.text());
    let result = named_and_reversed(stage, &pod);
    let released = node.run(RELEASE, Duration::from_mins(1))?;
    println!("  {CANARY}: released: {}", released.text().trim().replace('\n', " "));
    ensure!(released.text().contains("two"), "the link was not made: the function had been replaced");
    stage.product.kubectl(&["delete", "pod", POD, "--grace-period=1"])?;
    result
}

/// Starts the pod on the canary; its uid.
fn start_pod(stage: &Stage<'_>) -> anyhow::Result<String> {
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {POD}}}\nspec:\n  nodeName: {CANARY}\n  \
         containers: [{{name: sleeper, image: \"registry.lab/pause:1\"}}]\n"
    );
    stage.product.apply(&pod)?;
    stage.product.kubectl(&["wait", "pod", POD, "--for=condition=Ready", "--timeout=120s"])?;
    let uid = stage.product.kubectl(&["get", "pod", POD, "-o", "jsonpath={.metadata.uid}"])?;
    Ok(uid.trim().to_owned())
}

fn named_and_reversed(stage: &Stage<'_>, pod: &str) -> anyhow::Result<()> {
    let policy = stage.product.policy(SET).replace("  rollout:\n", "  rollout:\n    nodeDeadline: 40s\n");
    stage.product.apply(&policy)?;
    let blocked = |status: &NodePatchStatus| status.state == NodeState::Blocked;
    let status = wait_within(UNTIL_BLOCKED, stage, CANARY, "Blocked", blocked)?;
    println!("  {CANARY}: {}", status.message.as_deref().unwrap_or_default());
    ensure!(status.level == Level::UNPATCHED, "level {} is on", status.level);
    let blocker = status.blockers.iter().find(|blocker| blocker.comm == "ln").context("ln is not named")?;
    println!("  {CANARY}: thread {} ({}) of pod {:?}", blocker.tid, blocker.comm, blocker.pod_uid);
    ensure!(blocker.pod_uid.as_deref() == Some(pod), "its pod is {pod}");
    stage.target_at_once("None")?;
    stage.fleet.wait_at_target(crate::product::POLICY, "None", PATIENCE)
}
