//! Input that cannot work: every one is a named condition that says what to do, and nobody else notices.

use std::time::Duration;

use anyhow::{Context, ensure};
use invivo_terms::{Hold, NodeState, Refusal};

use crate::check::Hole;
use crate::demo::{CANARY, NODES, RECIPE};
use crate::fleet::Seen;
use crate::forgery::Forged;
use crate::product::POLICY;
use crate::stage::{PATIENCE, Stage};
use crate::{impostor, rebundle};

/// Ports of servers that are of no use.
const EMPTY_PORT: u16 = 8088;
const SWAPPED_PORT: u16 = 8087;
const BARE_PORT: u16 = 8086;
const UNTRUSTED_PORT: u16 = 8443;
/// A set whose module no kernel takes.
const REFUSED_SET: &str = "2026-11-22.1";

pub(super) fn feeds_that_cannot_work(stage: &Stage<'_>) -> anyhow::Result<()> {
    // What is on stays on, whatever is wrong elsewhere.
    stage.target_at_once("Latest")?;
    stage.wait_closed(&NODES)?;
    let root = stage.repository.root()?;
    let nowhere = "http://10.77.0.1:9/";
    let other_root = "0".repeat(64);
    let empty = stage.product.folder("empty-repository")?;
    let empty = stage.lab.serve("empty", &empty, EMPTY_PORT)?;
    let untrusted = impostor::serve(UNTRUSTED_PORT)?;
    let bundle = rebundle::for_repository(
        &stage.product.build_patch(RECIPE)?,
        "elsewhere",
        &stage.product.folder("elsewhere")?,
    )?;
    let elsewhere = stage.repository.sister(&stage.product, "elsewhere", &bundle)?;
    let swapped = Forged::swapped(&stage.repository, &elsewhere)?;
    let swapped = stage.lab.serve("swapped", swapped.folder(), SWAPPED_PORT)?;
    let way = "check spec.source.repository.url";
    let (wrong_root, confusion) = (Refusal::WrongRoot, Refusal::SignatureConfusion);
    for (name, url, root, reason, remedy) in [
        ("nowhere", nowhere, root.as_str(), "Unreachable", way),
        ("wrong-root", stage.url.as_str(), other_root.as_str(), wrong_root.as_str(), wrong_root.remedy()),
        ("empty", empty.as_str(), root.as_str(), "Unreachable", way),
        ("untrusted-certificate", untrusted.as_str(), root.as_str(), "Unreachable", way),
        ("another-name", swapped.as_str(), root.as_str(), confusion.as_str(), confusion.remedy()),
    ] {
        stage.product.apply(&stage.product.feed_named(name, url, root))?;
        let message = stage.fleet.wait_feed(name, "False", reason, PATIENCE)?;
        println!("  {name}: {reason}: {message}");
        ensure!(message.contains(remedy), "{name}: the condition does not say what to do: {remedy}");
        stage.product.kubectl(&["delete", "pf", name])?;
    }
    // A repository that is in order and has nothing to offer, and a policy over it.
    let bare = stage.repository.without_sets(&stage.product, "bare")?;
    let url = stage.lab.serve("bare", bare.folder(), BARE_PORT)?;
    stage.product.apply(&stage.product.feed_named("bare", &url, &bare.root()?))?;
    println!("  bare: {}", stage.fleet.wait_feed("bare", "True", "Verified", PATIENCE)?);
    stage.product.apply(&stage.product.policy_of("bare", "Latest"))?;
    super::cautious::held(stage, CANARY, Hold::TargetMissing)?;
    // A policy whose feed does not exist says so, and the feed that works is still believed.
    stage.product.apply(&stage.product.policy_of("no-such-feed", "Latest"))?;
    stage.fleet.wait("FeedNotFound", PATIENCE, || {
        let conditions = stage.fleet.policy(POLICY)?.status.unwrap_or_default().conditions;
        Ok(if conditions.iter().any(|condition| condition.reason == "FeedNotFound") {
            Seen::Answer(())
        } else {
            Seen::NotYet(
                conditions
                    .iter()
                    .map(|c| format!("{}={} {}", c.type_, c.status, c.reason))
                    .collect::<Vec<_>>()
                    .join(", "),
            )
        })
    })?;
    stage.fleet.wait_feed(crate::product::FEED, "True", "Verified", PATIENCE)?;
    stage.product.kubectl(&["delete", "pf", "bare"])?;
    NODES.iter().try_for_each(|node| stage.require(node, Hole::Closed))
}

/// A set that is signed and whole, with a module that the kernel refuses: the canary says so, the
/// rest is not touched, and what is on stays on.
pub(super) fn module_that_the_kernel_refuses(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.target("Latest")?;
    stage.wait_closed(&NODES)?;
    let bundle = rebundle::refused_by_kernel(
        &stage.product.build_patch(RECIPE)?,
        REFUSED_SET,
        &stage.product.folder("refused")?,
    )?;
    // In the test channel, so that only who names it gets it.
    stage.repository.add(&stage.product, &bundle, REFUSED_SET, "test")?;
    stage.target(REFUSED_SET)?;
    let message = stage.fleet.wait("LoadRefused on the canary", PATIENCE, || {
        let status = stage.fleet.patches()?.remove(CANARY).and_then(|patch| patch.status).unwrap_or_default();
        Ok(if status.reason.as_deref() == Some("LoadRefused") {
            Seen::Answer(status.message.unwrap_or_default())
        } else {
            Seen::NotYet(format!("{} {:?}", status.state, status.reason))
        })
    })?;
    println!("  {CANARY}: LoadRefused: {message}");
    ensure!(message.contains("EINVAL"), "the errno is not named: {message}");
    stage.fleet.wait("FailureBudgetSpent for the rest", PATIENCE, || {
        let holds = stage.fleet.policy(POLICY)?.status.unwrap_or_default().holds;
        let spent = holds.iter().find(|hold| hold.reason == invivo_terms::Hold::FailureBudgetSpent);
        Ok(match spent {
            Some(hold) if hold.nodes == 2 => Seen::Answer(()),
            _ => Seen::NotYet(format!("{holds:?}")),
        })
    })?;
    NODES.iter().try_for_each(|node| stage.require(node, Hole::Closed))
}

pub(super) fn full_disk(stage: &Stage<'_>) -> anyhow::Result<()> {
    let node = stage.node("node3")?;
    let small = node.run("mount -t tmpfs -o size=16k,mode=700 tmpfs /var/lib/invivo && cp -a /var/lib/invivo/. /tmp/ 2>/dev/null; true", Duration::from_secs(30))?;
    ensure!(small.success(), "make the state folder small: {}", small.text());
    restart_agent(stage, "node3")?;
    stage.target("Latest")?;
    let result = stage
        .fleet
        .wait("StorageFull on node3", PATIENCE, || {
            let status =
                stage.fleet.patches()?.remove("node3").and_then(|patch| patch.status).unwrap_or_default();
            Ok(if status.reason.as_deref() == Some("StorageFull") {
                Seen::Answer(status.message.unwrap_or_default())
            } else {
                Seen::NotYet(format!("{} {:?}", status.state, status.reason))
            })
        })
        .and_then(|message| {
            println!("  node3: StorageFull: {message}");
            stage.fleet.wait_states(
                &["node1", "node2"],
                &[NodeState::Applied, NodeState::Settled],
                PATIENCE,
            )?;
            stage.require("node3", Hole::Open)
        });
    let back = node.run("umount /var/lib/invivo", Duration::from_secs(30)).context("give the disk back");
    restart_agent(stage, "node3")?;
    result.and_then(|()| back.map(|_| ()))
}

/// A new pod sees what is mounted now.
fn restart_agent(stage: &Stage<'_>, node: &str) -> anyhow::Result<()> {
    stage.product.kubectl(&["delete", "pod", "-n", "invivo-system", &stage.agent_on(node)?])?;
    stage.product.kubectl(&[
        "rollout",
        "status",
        "-n",
        "invivo-system",
        "ds/invivo-agent",
        "--timeout=180s",
    ])?;
    Ok(())
}
