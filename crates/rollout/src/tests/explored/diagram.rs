//! The picture of `docs/rollouts.md`: how nodes go from one standing to another in what is explored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::state::{Operator, State};
use super::{Scenario, asked, explore, scenarios};
use crate::plan::{Before, before, proven_aims};
use crate::rollout;
use crate::standing::{Judge, Standing};
use crate::target::{Withdrawn, resolve};

/// So many states of each scenario: short histories, and some long ones.
const ENOUGH: usize = 8_000;

const fn name_of(standing: Standing) -> &'static str {
    match standing {
        Standing::Claimed => "Claimed",
        Standing::Moving { .. } => "Moving",
        Standing::Midway => "Midway",
        Standing::Done { .. } => "Done",
        Standing::Unsteady => "Unsteady",
        Standing::Failed(_) => "Failed",
        Standing::Resting(..) => "Resting",
        Standing::Excused(_) => "Excused",
        Standing::Absent(_) => "Absent",
        Standing::Pending(_) => "Pending",
    }
}

/// Where each node stands for an operator who sees everything; none where nothing is aimed at.
fn standings(state: &State, scenario: &Scenario) -> Option<Vec<&'static str>> {
    let (nodes, memory) = (state.nodes.clone(), state.memory.clone());
    let all_seeing = Operator { nodes, memory, current: true, at: state.now, writes: Vec::new() };
    let world = state.world(&all_seeing, scenario);
    let target = resolve(&world, before(&world).map(Before::set));
    let known = world.memory.rollout.as_ref();
    let rollout = rollout::current(known, target.key()?, world.policy.mechanism, &world.nodes, world.now);
    let judge = Judge {
        target: &target,
        offer: &world.offer,
        proven: &proven_aims(&world),
        withdrawn: &Withdrawn::of(&world.offer),
        policy: &world.policy,
        rollout: &rollout,
        now: world.now,
    };
    Some(world.nodes.iter().map(|(name, node)| name_of(judge.judge(name, node).standing)).collect())
}

/// What moved the node, of all that may happen at once.
fn cause(before: &State, after: &State, node: usize) -> &'static str {
    let (old, new) = (&before.nodes[node], &after.nodes[node]);
    let offer = |state: &State| (state.sets, state.withdrawn, state.feed);
    if before.left.replaced != after.left.replaced && old.revision != new.revision {
        "replaced"
    } else if old.told != new.told {
        "instructed"
    } else if (old.state, old.level, old.observed) != (new.state, new.level, new.observed) {
        "reported"
    } else if old.unready.is_some() != new.unready.is_some() {
        if new.unready.is_some() { "not Ready" } else { "Ready again" }
    } else if offer(before) != offer(after) {
        "another offer"
    } else if before.now != after.now {
        "time passed"
    } else {
        "the rollout was decided on"
    }
}

#[test]
fn the_diagram_in_the_documents_is_what_the_planner_does() {
    if asked().is_some() {
        // Other planners are tried; whether each draws the same picture says nothing about their rules.
        return;
    }
    let mut edges: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for scenario in scenarios() {
        explore(&scenario, ENOUGH, |before, after| {
            let (Some(old), Some(new)) = (standings(before, &scenario), standings(after, &scenario)) else {
                return;
            };
            for (node, (old, new)) in
                old.into_iter().zip(new).enumerate().filter(|(_, (old, new))| old != new)
            {
                edges.entry((old, new)).or_default().insert(cause(before, after, node));
            }
        });
    }
    let mut drawn = String::from("stateDiagram-v2\n");
    for ((from, to), causes) in edges {
        let causes = causes.into_iter().collect::<Vec<_>>().join(", ");
        writeln!(drawn, "  {from} --> {to}: {causes}").unwrap();
    }
    let page = include_str!("../../../../../docs/rollouts.md");
    assert!(page.contains(&drawn), "docs/rollouts.md lacks this diagram:\n{drawn}");
}
