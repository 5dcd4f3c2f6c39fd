//! A patch of a kernel module that comes and goes.

use std::time::{Duration, Instant};

use anyhow::ensure;
use invivo_api::TargetCounts;
use invivo_terms::Level;

use super::verdicts::wait_of;
use crate::fleet::Seen;
use crate::node::Node;
use crate::stage::{PATIENCE, Stage};

const SET: &str = "2026-11-23.6";
/// Above those that are made by hand.
const LEVEL: Level = Level(8);
const NODE: &str = "node2";
/// What the patched module answers tells whether it is patched: see the recipe.
const RECIPE: &str = "e2e/recipes/dummy";
const ASK: &str = "ip link add asked address 01:00:00:00:00:01 type dummy";
const ORIGINAL: &str = "assign requested address";
const PATCHED: &str = "resource busy";
/// The loader looks by itself once a minute. What is told earlier than this was heard.
const HEARD: Duration = Duration::from_secs(30);

/// The agent hears of the module, the loader looks, and the agent's metrics tell.
pub(super) fn comes_and_goes(stage: &Stage<'_>) -> anyhow::Result<()> {
    let node = stage.node(NODE)?;
    node.run("rmmod dummy", Duration::from_secs(30))?;
    let bundle = stage.product.build_patch_of(&stage.product.tree().join(RECIPE), SET, LEVEL)?;
    stage.repository.add(&stage.product, &bundle, SET, "test")?;
    stage.target_at_once(SET)?;
    let absent = TargetCounts { absent: 1, ..TargetCounts::default() };
    wait_of(stage, NODE, "its target absent", |status| {
        status.level == LEVEL && status.targets.as_ref() == Some(&absent)
    })?;
    for round in ["first", "second"] {
        does(&node, "modprobe dummy numdummies=0")?;
        told(stage, round, "Patched")?;
        let answer = node.run(ASK, Duration::from_secs(30))?.text();
        ensure!(answer.contains(PATCHED), "the module is not patched: {answer}");
        does(&node, "rmmod dummy")?;
        told(stage, round, "Absent")?;
    }
    stage.target_at_once("None")?;
    wait_of(stage, NODE, "no patch", |status| status.level == Level::UNPATCHED)?;
    does(&node, "modprobe dummy numdummies=0")?;
    let answer = node.run(ASK, Duration::from_secs(30))?.text();
    ensure!(answer.contains(ORIGINAL), "the module is not as it was: {answer}");
    does(&node, "rmmod dummy")
}

fn does(node: &Node, command: &str) -> anyhow::Result<()> {
    let said = node.run(command, PATIENCE)?;
    ensure!(said.success(), "{command}: {}", said.text());
    Ok(())
}

/// What the node's metrics tell: which modules are loaded is no news to the cluster.
fn told(stage: &Stage<'_>, round: &str, what: &str) -> anyhow::Result<()> {
    let wanted = format!("invivo_node_targets{{state=\"{what}\"}} 1");
    let pod = stage.agent_on(NODE)?;
    let metrics = format!("/api/v1/namespaces/invivo-system/pods/{pod}:9464/proxy/metrics");
    let began = Instant::now();
    stage.fleet.wait(&format!("a module that is {what}"), PATIENCE, || {
        let told = stage.product.kubectl(&["get", "--raw", &metrics])?;
        let of = |line: &&str| line.starts_with("invivo_node_targets") && !line.ends_with(" 0");
        Ok(if told.lines().any(|line| line == wanted) {
            Seen::Answer(())
        } else {
            Seen::NotYet(told.lines().filter(of).collect::<Vec<_>>().join(", "))
        })
    })?;
    let took = began.elapsed();
    println!("  {NODE}, the {round} time: {what}, told after {:.1} s", took.as_secs_f64());
    ensure!(took < HEARD, "it was told only after {took:?}: was it not heard?");
    Ok(())
}
