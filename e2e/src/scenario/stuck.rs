//! Transitions that do not end.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use invivo_terms::{Level, NodeState};

use super::verdicts::{FUNCTION, wait};
use super::{PATIENCE, Stage};
use crate::demo::{CANARY, RECIPE};
use crate::rebundle::{ByHand, TELL_EAGAIN};

const SET: &str = "2026-11-23.3";

/// A thread of the agent's own pod makes a link on a file system that is frozen: it sleeps within the
/// function that is to be replaced, and nothing wakes it.
const BLOCK: &str = "
set -e
modprobe loop
cd /run && truncate -s 32M frozen.img && mke2fs -q -t ext4 frozen.img && mkdir -p frozen
mount -o loop frozen.img frozen && touch frozen/one && fsfreeze -f frozen
group=/sys/fs/cgroup$(cut -d: -f3 /proc/$(pidof invivo-agent)/cgroup)
nohup sh -c \"echo \\$\\$ > $group/cgroup.procs; exec ln /run/frozen/one /run/frozen/two\" >/dev/null 2>&1 &
sleep 1
grep -q do_linkat /proc/$(pidof -s ln)/stack
";
const RELEASE: &str =
    "cd /run; fsfreeze -u frozen; sleep 1; ls frozen; umount frozen; rm frozen.img; rmdir frozen";

pub(super) fn thread_in_a_pod(stage: &Stage<'_>) -> anyhow::Result<()> {
    let by_hand = ByHand { set: SET, level: 5, function: FUNCTION, replaces: "do_linkat", code: TELL_EAGAIN };
    let bundle = by_hand.make(&stage.product.build_patch(RECIPE)?, &stage.product.folder("stuck")?)?;
    stage.repository.add(&stage.product, &bundle, SET, "test")?;
    let node = stage.node(CANARY)?;
    let blocked = node.run(BLOCK, Duration::from_mins(1))?;
    ensure!(blocked.success(), "a thread that blocks: {}", blocked.text());
    let result = named_and_reversed(stage);
    let released = node.run(RELEASE, Duration::from_mins(1))?;
    println!("  {CANARY}: released: {}", released.text().trim().replace('\n', " "));
    ensure!(released.text().contains("two"), "the link was not made: the function had been replaced");
    result
}

fn named_and_reversed(stage: &Stage<'_>) -> anyhow::Result<()> {
    let policy = stage.product.policy(SET).replace("  rollout:\n", "  rollout:\n    nodeDeadline: 40s\n");
    stage.product.apply(&policy)?;
    let status = wait(stage, "Blocked", |status| status.state == NodeState::Blocked)?;
    println!("  {CANARY}: {}", status.message.as_deref().unwrap_or_default());
    ensure!(status.level == Level::UNPATCHED, "level {} is on", status.level);
    let blocker = status.blockers.iter().find(|blocker| blocker.comm == "ln").context("ln is not named")?;
    let pod = stage.product.kubectl(&[
        "get",
        "pod",
        "-n",
        "invivo-system",
        "-l",
        "app.kubernetes.io/name=invivo-agent",
        "--field-selector",
        &format!("spec.nodeName={CANARY}"),
        "-o",
        "jsonpath={.items[0].metadata.uid}",
    ])?;
    println!("  {CANARY}: thread {} ({}) of pod {:?}", blocker.tid, blocker.comm, blocker.pod_uid);
    ensure!(blocker.pod_uid.as_deref() == Some(pod.trim()), "its pod is {}", pod.trim());
    stage.target_at_once("None")?;
    stage.fleet.wait_at_target(crate::product::POLICY, "None", PATIENCE)
}
