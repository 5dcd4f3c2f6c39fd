//! The rules that hold in every state and at every step.

use invivo_terms::{Hold, NodeState};

use super::super::fleet::accounts_for_every_node;
use super::state::{DEADLINE, Mem, State, Told, Verdict, name, seconds};
use super::{Scenario, step};
use crate::{Instruction, OnFailure, Plan, World};

/// One state of so many is followed to its peaceful end.
const FOLLOWED: u64 = 512;

/// What must be so whatever happened.
pub(super) fn state(state: &State, scenario: &Scenario) {
    let moving =
        state.nodes.iter().filter(|node| node.is_open() && node.deadline() > Some(state.now)).count();
    assert!(moving <= scenario.parallel as usize, "{moving} in flight: {state:#?}");
    assert!(state.failed <= scenario.budget + scenario.parallel, "too many failed: {state:#?}");
    assert!(state.memory.finished <= state.memory.started, "{state:#?}");
    if state.key().is_multiple_of(FOLLOWED) {
        comes_home(state.clone(), scenario);
    }
}

/// What one plan must hold to, whatever was believed.
pub(super) fn plan(state: &State, world: &World, made: &Plan, scenario: &Scenario) {
    accounts_for_every_node(world, made);
    assert!(made.wake.is_none_or(|wake| wake > world.now));
    let rollout = made.memory.rollout.as_ref();
    let returning = rollout.is_some_and(|rollout| rollout.returning);
    assert!(!returning || scenario.on_failure == OnFailure::RollBack);
    let aimed = state.feed || made.actions.values().all(|told| *told == Instruction::Hold);
    assert!(aimed, "somebody is instructed without a feed: {made:#?}");
    let over = rollout.is_some_and(|rollout| rollout.failed > scenario.budget);
    for (node, instruction) in &made.actions {
        let starts = made.starts.contains(node);
        let seen = &world.nodes[node];
        assert!(!state.stop || *instruction == Instruction::Hold, "{node} starts in an emergency stop");
        match instruction {
            Instruction::Hold => assert!(state.stop, "{node} is held for nothing"),
            Instruction::RollBack { to, .. } => {
                assert!(returning, "{node} is lowered by Latest");
                let before = seen.spec.as_ref().map(|spec| &spec.instruction);
                if let Some(Instruction::Apply(before)) = before {
                    assert_eq!(*to, before.from, "{node} goes somewhere else than where it came from");
                }
            }
            Instruction::Apply(apply) => {
                // A rollout may end and the next one begin in one decision.
                let proven = [&world.memory, &made.memory].map(|memory| memory.proven.get(&apply.build_id));
                let late = proven.iter().flatten().any(|(level, _)| *level == apply.level);
                assert!(
                    !starts || late || state.gate == Verdict::Passed,
                    "{node} starts with a gate that is shut"
                );
                assert!(!starts || late || (!over && !returning), "{node} starts although too many failed");
                assert!(starts || returning, "{node} has no slot");
                let level = seen.report.as_ref().map(|report| report.level);
                let until = seconds(apply.deadline);
                let open = scenario.window.is_none_or(|(_, closes)| until % 86_400 <= closes * 60);
                assert!(!starts || open, "{node} starts outside the window");
                assert!(until > state.now && until <= state.now + 2 * DEADLINE, "{node} has {until}");
                if let (true, Some(Instruction::RollBack { to, .. })) =
                    (returning, seen.spec.as_ref().map(|spec| &spec.instruction))
                {
                    assert_eq!(apply.level, to.0, "{node} goes back to another level");
                }
                assert!(Some(apply.level) >= level, "{node} would be lowered");
                let reached = rollout.map_or(0, |rollout| rollout.stage);
                assert!(!starts || late || seen.stage <= reached, "{node} is of a stage that has not begun");
            }
        }
        assert!(seen.ready.is_ready() || *instruction == Instruction::Hold, "{node} is not Ready");
    }
}

/// Where a build has shown nothing to who writes, nobody else of it really moves to that level.
pub(super) fn written(state: &State, who: usize, index: usize, told: Told, scenario: &Scenario) {
    let Told::Apply { level, deadline, .. } = told else { return };
    // What comes after its deadline is begun by no agent.
    if deadline <= state.now {
        return;
    }
    let same = |other: usize| scenario.builds[other] == scenario.builds[index];
    let view = &state.operators[who];
    let shows = |other: usize| {
        let node = &view.nodes[other];
        node.level == level && matches!(node.state, NodeState::Applied | NodeState::Settled)
    };
    let known = view.memory.proven[usize::from(scenario.builds[index]) - 1] == level;
    if known || view.memory.returning || (0..state.nodes.len()).any(|other| same(other) && shows(other)) {
        return;
    }
    for (other, node) in state.nodes.iter().enumerate().filter(|(other, _)| *other != index && same(*other)) {
        let moves = node.is_open() && node.deadline() > Some(state.now);
        let there = matches!(node.told, Told::Apply { level: running, .. } if running == level);
        assert!(
            !moves || !there,
            "{index} starts beside {other}, and its build has shown nothing: {state:#?}"
        );
    }
}

/// How a stored memory may differ from the one before.
pub(super) fn memory(state: &State, new: &Mem, scenario: &Scenario) {
    let old = &state.memory;
    assert!(new.number >= old.number, "{state:#?}");
    for (index, (new_level, old_level)) in new.proven.iter().zip(old.proven).enumerate() {
        // A rollout may end and the next one begin in one decision, and end with it where its nodes are
        // there already.
        let ended = (new.complete && *new_level == new.target)
            || (new.number > old.number && *new_level == old.target);
        let within = new.failed <= scenario.budget && old.failed <= scenario.budget;
        let proves = ended && within && is_shown(state, scenario, index, *new_level);
        assert!(
            *new_level == old_level || *new_level == 0 || proves,
            "nothing proves it: {new:#?} {state:#?}"
        );
    }
    if new.returning && !old.returning {
        let lost = state.operators.iter().flat_map(|operator| &operator.nodes);
        let lost = lost.chain(&state.nodes).any(|node| node.unready.is_some() || node.vanished.is_some());
        let evident = new.failed >= 2 || lost || state.gate == Verdict::Failed;
        assert!(evident, "one node's word moves others: {new:#?} {state:#?}");
    }
    if new.number > old.number {
        return;
    }
    assert!(new.finished >= old.finished && new.failed >= old.failed && new.stage >= old.stage, "{state:#?}");
    assert!(new.started >= old.started && (new.complete || !old.complete), "{state:#?}");
    if new.stage == old.stage || old.started == 0 {
        return;
    }
    assert_eq!(state.gate, Verdict::Passed, "a stage ended with a gate that is shut: {state:#?}");
    let soak = u32::try_from(scenario.soak).unwrap();
    let began = old.soak_until.map(|until| until - soak);
    let joins = scenario.left.replaced + scenario.left.boots + scenario.left.misses > 0;
    for (index, node) in state.nodes.iter().enumerate().filter(|_| !joins) {
        let ours = node.deadline() > old.before && matches!(node.told, Told::Apply { .. });
        if scenario.stages[index] == 0 && ours && node.observed == node.revision {
            // Who was excused and comes back while the others are watched does not begin that anew.
            let late = scenario.left.losses > 0 && began.is_some_and(|began| node.since > began);
            let soaked = late || node.since + soak <= state.now;
            let held = matches!(node.state, NodeState::Applied | NodeState::Settled);
            assert!(!held || soaked, "the canaries were not watched to the end: {state:#?}");
        }
        let moves = ours && node.is_open() && !node.void;
        assert!(scenario.stages[index] > 0 || !moves, "a canary moves: {state:#?}");
    }
}

/// Whether somebody sees a node of this kernel build that runs the level.
fn is_shown(state: &State, scenario: &Scenario, build: usize, level: u8) -> bool {
    let seen = [&state.nodes].into_iter().chain(state.operators.iter().map(|operator| &operator.nodes));
    seen.flat_map(|nodes| nodes.iter().zip(scenario.builds)).any(|(node, of)| {
        usize::from(*of) == build + 1
            && node.level == level
            && matches!(node.state, NodeState::Applied | NodeState::Settled)
    })
}

/// Nothing happens any more, everything works, one operator sees it all: everybody gets where they
/// are to be, or stays for a reason that only a person or a newer set can lift.
fn comes_home(mut state: State, scenario: &Scenario) {
    (state.gate, state.stop, state.feed) = (Verdict::Passed, false, true);
    for operator in &mut state.operators {
        operator.writes.clear();
    }
    for node in &mut state.nodes {
        node.unready = None;
    }
    for _ in 0..200 {
        see(&mut state);
        state = step::decided(&state, 0, scenario);
        write_all(&mut state);
        let now = state.now;
        for node in state.nodes.iter_mut().filter(|node| node.is_open()) {
            step::answer(node, now);
        }
        see(&mut state);
        let world = state.world(&state.operators[0], scenario);
        let made = crate::plan(&world);
        if made.actions.is_empty() && Mem::of(&made.memory) == state.memory {
            let Some(wake) = made.wake else {
                assert_home(&state, &made, scenario.budget);
                return;
            };
            let ahead = seconds(wake) - state.now;
            step::pass(&mut state, ahead);
        }
    }
    panic!("no end of it: {state:#?}");
}

fn see(state: &mut State) {
    let (nodes, memory, at) = (state.nodes.clone(), state.memory.clone(), state.now);
    let operator = &mut state.operators[0];
    (operator.nodes, operator.memory, operator.current, operator.at) = (nodes, memory, true, at);
}

fn write_all(state: &mut State) {
    for (index, believed, told) in std::mem::take(&mut state.operators[0].writes) {
        let node = &mut state.nodes[usize::from(index)];
        assert_eq!(node.revision, believed);
        (node.revision, node.told) = (believed + 1, told);
        if told == Told::Hold {
            node.observed = node.revision;
        }
    }
}

fn assert_home(state: &State, made: &Plan, budget: u32) {
    assert!(made.in_flight.is_empty(), "{made:#?}\n{state:#?}");
    let spent = state.memory.failed > budget || state.memory.returning;
    for (node, held) in &made.holds {
        let is_final = match held.hold {
            Hold::AheadOfTarget | Hold::TargetMissing => true,
            Hold::AttemptEnded | Hold::Suspected => made.failed.contains(node) || spent,
            Hold::FailureBudgetSpent => spent,
            _ => false,
        };
        assert!(is_final, "{node} is held: {made:#?}\n{state:#?}");
    }
    let home = |index: &usize| made.done.contains(&name(*index)) || made.holds.contains_key(&name(*index));
    assert!((0..state.nodes.len()).all(|index| home(&index)));
}
