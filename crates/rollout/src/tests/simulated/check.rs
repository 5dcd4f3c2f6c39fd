//! The rules, checked against what really happened and not against what was believed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use invivo_terms::{BuildId, Hold, Level, NodeState};
use jiff::Timestamp;

use super::super::fleet::accounts_for_every_node;
use super::cluster::{Cluster, Part, deadline, is_open};
use crate::{
    Budget, GateVerdict, Instruction, Memory, Node, Offer, OnFailure, OnWithdrawn, Plan, RolloutMemory,
    Window, Wish, World,
};

/// Whether a node may start, told without the planner's help: it must be through by the end.
fn is_open_until(world: &World, now: Timestamp, end: Timestamp) -> bool {
    let second_of_day = |at: Timestamp| at.as_second().rem_euclid(86_400);
    let within = |window: &Window| {
        let opens = i64::from(window.start.hour()) * 3600 + i64::from(window.start.minute()) * 60;
        let since = (second_of_day(now) - opens).rem_euclid(86_400);
        let until = since + end.duration_since(now).as_secs();
        until <= i64::try_from(window.duration.as_secs()).unwrap()
    };
    let policy = &world.policy;
    let dark = policy.blackouts.iter().any(|b| b.from < b.until && b.from < end && now < b.until);
    (policy.windows.is_empty() || policy.windows.iter().any(within)) && !dark
}

fn gate_is_shut(world: &World) -> bool {
    world.gates.iter().any(|gate| gate.verdict != GateVerdict::Passed)
}

/// It brings the node only to what the policy had proven before.
fn is_late(world: &World, stored: &Memory, instruction: &Instruction) -> bool {
    let Instruction::Apply(apply) = instruction else { return false };
    // A rollout may end and the next one begin in one decision.
    let known = [&world.memory, stored].map(|memory| memory.proven.get(&apply.build_id));
    let is_known = known.iter().flatten().any(|(level, _)| *level == apply.level);
    world.policy.target == Wish::Latest && is_known
}

/// What one plan must hold to, whatever was believed.
pub(super) fn plan(world: &World, made: &Plan, parallel: usize) {
    accounts_for_every_node(world, made);
    let failures = [Hold::AttemptEnded, Hold::Convicted, Hold::Suspected, Hold::NodeNotReady];
    assert!(made.failed.iter().all(|name| failures.contains(&made.holds[name].hold)));
    assert!(made.starts.iter().all(|name| made.actions.contains_key(name)));
    assert!(made.wake.is_none_or(|wake| wake > world.now));
    assert!(made.holds.values().all(|held| held.until.is_none_or(|until| until > world.now)));
    let told: BTreeMap<_, _> = made.actions.iter().filter(|(_, told)| **told != Instruction::Hold).collect();
    assert!(told.is_empty() || told.len() + made.in_flight.len() <= parallel);
    assert!(world.brakes.fleet.is_none_or(|fleet| made.starts.len() <= usize::try_from(fleet).unwrap()));
    let policy = &world.policy;
    assert!(told.is_empty() || !(policy.paused || policy.dry_run || world.brakes.emergency_stop));
    if world.brakes.emergency_stop {
        let loads = |name: &&String| {
            let spec = world.nodes[*name].spec.as_ref();
            matches!(spec.map(|spec| &spec.instruction), Some(Instruction::Apply(_)))
        };
        assert!(!made.in_flight.iter().any(|name| loads(&name)), "a load is not held");
    }
    let returning = made.memory.rollout.as_ref().is_some_and(|rollout| rollout.returning);
    assert!(!returning || policy.on_failure == OnFailure::RollBack);
    for (name, instruction) in told {
        instructed(world, made, name, instruction, returning);
    }
    trials(world, made);
}

fn instructed(world: &World, made: &Plan, name: &str, instruction: &Instruction, returning: bool) {
    let node = &world.nodes[name];
    let report = node.report.as_ref().expect("nobody is instructed blindly");
    assert!(node.ready.is_ready() && !node.claimed_by_other);
    if made.starts.contains(name) {
        let held = node.held.is_some_and(|held| held.until.is_none_or(|until| until > world.now));
        assert!(!held, "{name} is held by a person");
    }
    match instruction {
        Instruction::Hold => {}
        Instruction::RollBack { .. } => {
            // One that lost its patch while it went back has still to be given what it came from.
            assert!(report.level > Level(0) || returning, "{name} runs nothing");
            let asked = world.policy.target != Wish::Latest;
            let withdrawn = world.policy.on_withdrawn == OnWithdrawn::RollBack && is_withdrawn(world, node);
            assert!(asked || returning || withdrawn, "{name} is lowered by Latest");
        }
        Instruction::Apply(apply) => {
            assert_eq!(apply.build_id, report.build_id);
            assert!(apply.level >= report.level, "{name} would be lowered");
            assert!(!node.cordoned || !made.starts.contains(name), "{name} is cordoned");
            assert!(
                returning || world.policy.target != Wish::None,
                "{name} is loaded although none is asked for"
            );
            let Offer::Sets(sets) = &world.offer else { panic!("no load without a feed") };
            let set = sets.iter().find(|set| set.name == apply.set && set.digest == apply.digest).unwrap();
            let brings = |set: &&crate::Set| {
                let kernel = set.kernels.get(&apply.build_id);
                kernel.is_some_and(|k| (k.level, &k.manifest) == (apply.level, &apply.manifest))
            };
            let origin = sets.iter().find(brings).unwrap();
            assert!(set.is_active() && origin.is_active(), "{name} gets what was withdrawn");
            let named = Wish::Named(set.name.clone()) == world.policy.target;
            let back = returning && !made.starts.contains(name);
            assert!(
                origin.is_eligible() || back || (named && set.name == origin.name),
                "{name} gets what is not eligible"
            );
        }
    }
}

fn is_withdrawn(world: &World, node: &Node) -> bool {
    let Offer::Sets(sets) = &world.offer else { return false };
    let report = node.report.as_ref().unwrap();
    let brought =
        |set: &crate::Set| set.kernels.get(&report.build_id).is_some_and(|k| k.level == report.level);
    let same = |set: &crate::Set| report.set.as_ref() == Some(&set.name);
    sets.iter().any(|set| !set.is_active() && (brought(set) || same(set)))
}

/// A build on which the level was not shown to work gets it on one node only.
fn trials(world: &World, made: &Plan) {
    let mut first: BTreeMap<(&BuildId, Level), usize> = BTreeMap::new();
    let loads = made.actions.iter().filter(|(name, _)| made.starts.contains(*name));
    let loads = loads.filter(|(_, told)| !is_late(world, &made.memory, told)).map(|(_, told)| told);
    let runs = |node: &Node, told: &Instruction| {
        let build = node.report.as_ref().map(|report| &report.build_id);
        matches!(told, Instruction::Apply(apply) if build == Some(&apply.build_id))
    };
    let moving = made.in_flight.iter().filter_map(|name| {
        let node = &world.nodes[name];
        node.spec.as_ref().map(|spec| &spec.instruction).filter(|told| runs(node, told))
    });
    let moving: Vec<&Instruction> = moving.collect();
    let started: BTreeSet<_> = loads
        .clone()
        .filter_map(|told| if let Instruction::Apply(a) = told { Some((&a.build_id, a.level)) } else { None })
        .collect();
    for told in loads.chain(moving) {
        if let Instruction::Apply(apply) = told {
            *first.entry((&apply.build_id, apply.level)).or_default() += 1;
        }
    }
    for ((build, level), number) in first {
        let shown = world.nodes.values().filter(|node| !node.claimed_by_other).any(|node| {
            node.report.as_ref().is_some_and(|report| {
                let held = matches!(report.state, NodeState::Applied | NodeState::Settled);
                report.build_id == *build && report.level == level && held
            })
        });
        let known = world.memory.proven.get(build).is_some_and(|(proven, _)| *proven == level);
        assert!(
            number <= 1 || shown || known || !started.contains(&(build, level)),
            "{build} has shown nothing"
        );
    }
}

/// What must be so when a start is really written.
pub(super) fn start(cluster: &Cluster, world: &World, policy: usize, name: &str, told: &Instruction) {
    let part = &cluster.parts[policy];
    let rollout = part.rollout().expect("who starts has a rollout");
    let node = &world.nodes[name];
    let late = is_late(world, &part.memory, told);
    let back = rollout.returning;
    let end = match told {
        Instruction::Apply(apply) => apply.deadline,
        Instruction::RollBack { deadline, .. } => *deadline,
        Instruction::Hold => panic!("to hold a node is no start"),
    };
    assert!(back || is_open_until(world, cluster.now, end), "{name} starts outside the windows");
    assert!(end <= cluster.now + part.policy.node_deadline + Duration::from_secs(601), "{name} has for ever");
    let shut = gate_is_shut(world) && part.policy.target != Wish::None;
    assert!(back || late || !shut, "{name} starts with a gate that is shut");
    alone(cluster, world, policy, name, told);
    let stage = stage_of(name, node, rollout);
    assert!(back || late || stage <= rollout.stage, "{name} is of a stage that has not begun");
    if back {
        let own = node.spec.as_ref().is_some_and(|spec| !spec.by_other);
        assert!(own && deadline(node) > rollout.before, "{name} was not moved by this rollout");
    }
    let over = part.failed.len();
    if let Budget::Nodes(budget) = part.policy.failure_budget {
        let most = usize::try_from(budget).unwrap() + part.parallel;
        assert!(over <= most, "{over} failed, {budget} may");
    }
    let spread = part.policy.stages.get(rollout.stage).unwrap_or(&part.policy.rest).spread.as_ref();
    if let Some(label) = spread {
        let zone = |node: &Node| node.domains.get(label).cloned();
        let moving = cluster
            .nodes
            .iter()
            .filter(|(_, member)| member.giver == policy && moves(&member.node, cluster.now));
        for (other, member) in moving {
            assert_eq!(zone(&member.node), zone(node), "{name} starts while {other} moves");
        }
    }
}

/// Where a build has shown nothing to who writes, nobody else of it really moves to that level.
fn alone(cluster: &Cluster, world: &World, policy: usize, name: &str, told: &Instruction) {
    let Instruction::Apply(apply) = told else { return };
    let shows = |node: &Node| {
        let report = node.report.as_ref().filter(|_| !node.claimed_by_other);
        report.is_some_and(|report| {
            (&report.build_id, report.level) == (&apply.build_id, apply.level)
                && matches!(report.state, NodeState::Applied | NodeState::Settled)
        })
    };
    let known = cluster.parts[policy].memory.proven.get(&apply.build_id);
    if known.is_some_and(|(level, _)| *level == apply.level) || world.nodes.values().any(shows) {
        return;
    }
    let of_policy =
        cluster.nodes.iter().filter(|(_, member)| (member.owner, member.giver) == (policy, policy));
    for (other, member) in
        of_policy.filter(|(other, member)| *other != name && moves(&member.node, cluster.now))
    {
        let running = member.node.spec.as_ref().map(|spec| &spec.instruction);
        if let Some(Instruction::Apply(running)) = running {
            let same = (&running.build_id, running.level) == (&apply.build_id, apply.level);
            assert!(!same, "{name} starts beside {other}, and {} has shown nothing", apply.build_id);
        }
    }
}

fn moves(node: &Node, now: Timestamp) -> bool {
    is_open(node) && deadline(node) > Some(now)
}

/// The stage of a node, told without the planner's help where no share is taken.
pub(super) fn stage_of(name: &str, node: &Node, rollout: &RolloutMemory) -> usize {
    let build = node.report.as_ref().map(|report| &report.build_id);
    crate::cut::stage_of(name, node.stage, build, rollout)
}

/// How many really move, of one policy and of all.
pub(super) fn flight(cluster: &Cluster, policy: usize) {
    let moving = |giver: usize| {
        let of = cluster.nodes.values().filter(|member| member.giver == giver);
        of.filter(|member| moves(&member.node, cluster.now)).count()
    };
    let part = &cluster.parts[policy];
    let own = moving(policy);
    assert!(own <= part.parallel, "{own} in flight, {} allowed", part.parallel);
    let all: usize = (0..cluster.parts.len()).map(moving).sum();
    if let Some(limit) = cluster.limit {
        assert!(all <= usize::try_from(limit).unwrap(), "{all} in flight, the fleet's limit is {limit}");
    }
}

/// How a stored memory may differ from the one before.
pub(super) fn memory(part: &mut Part, old: &Memory, now: Timestamp) {
    let (Some(old), Some(new)) = (&old.rollout, &part.memory.rollout) else {
        part.moved.clear();
        return;
    };
    assert!(new.number >= old.number);
    if new.number > old.number {
        part.moved.clear();
        part.failed.clear();
        return;
    }
    assert!(new.started >= old.started && new.finished >= old.finished && new.failed >= old.failed);
    assert!(new.finished <= new.started && new.stage >= old.stage && (new.returning || !old.returning));
    assert!(old.cuts.iter().all(|cut| new.cuts.contains(cut)), "a cut was changed");
    let expedited = part.policy.expedite.as_ref().is_some_and(|expedite| now < expedite.until);
    let shut = part.gates.iter().any(|gate| gate.verdict != GateVerdict::Passed) && new.target.is_some();
    for (index, stage) in part.policy.stages.iter().enumerate().take(new.stage).skip(old.stage) {
        let of_stage = || part.moved.values().filter(|moved| moved.stage == index);
        assert!(!part.policy.paused, "a stage ends although people paused it");
        assert!(
            !shut || of_stage().next().is_none() || new.started == 0,
            "a stage ends with a gate that is shut"
        );
        for moved in of_stage().filter(|moved| !moved.while_watched && !moved.may_be_lost) {
            let ended = moved.ended.expect("a node of the stage has not ended");
            assert!(expedited || ended + stage.soak <= now, "stage {index} was not watched to its end");
        }
    }
}
