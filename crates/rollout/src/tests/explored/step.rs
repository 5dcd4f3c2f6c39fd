//! What may happen next: to an operator, to a node, to the world around them.

use invivo_terms::{Excuse, NodeState};

use super::state::{DEADLINE, Mem, Member, State, Told, Verdict, name};
use super::{Scenario, check};
use crate::plan;

/// A tick of the clock, in seconds.
const TICK: u32 = 300;

/// Every state that may follow.
pub(super) fn all(state: &State, scenario: &Scenario, next: &mut Vec<State>) {
    for who in 0..state.operators.len() {
        operator(state, who, scenario, next);
    }
    for index in 0..state.nodes.len() {
        node(state, index, next);
    }
    around(state, next);
}

fn operator(state: &State, who: usize, scenario: &Scenario, next: &mut Vec<State>) {
    let operator = &state.operators[who];
    if operator.writes.is_empty() {
        let mut looked = state.clone();
        look(&mut looked, who);
        next.push(looked);
        // Watches end by themselves within minutes: a view as old as the node deadline is not believed.
        if operator.at + DEADLINE > state.now {
            next.push(decided(state, who, scenario));
        }
        return;
    }
    let mut written = state.clone();
    write(&mut written, who, scenario);
    next.push(written);
    if state.left.crashes > 0 {
        let mut crashed = state.clone();
        crashed.left.crashes -= 1;
        crashed.operators[who].writes.clear();
        look(&mut crashed, who);
        next.push(crashed);
        // The write is lost on its way, and the operator is not told.
        let mut lost = state.clone();
        lost.left.crashes -= 1;
        lost.operators[who].writes.remove(0);
        next.push(lost);
    }
}

fn look(state: &mut State, who: usize) {
    let (nodes, memory, at) = (state.nodes.clone(), state.memory.clone(), state.now);
    let operator = &mut state.operators[who];
    (operator.nodes, operator.memory, operator.current, operator.at) = (nodes, memory, true, at);
}

/// The memory is stored by compare-and-swap; the instructions are written one by one after that.
pub(super) fn decided(state: &State, who: usize, scenario: &Scenario) -> State {
    let mut state = state.clone();
    let operator = &state.operators[who];
    let world = state.world(operator, scenario);
    let made = plan(&world);
    check::plan(&state, &world, &made, scenario);
    let memory = Mem::of(&made.memory);
    if memory != operator.memory {
        if !operator.current {
            (state.operators[who].memory, state.operators[who].current) = (state.memory.clone(), true);
            return state;
        }
        store(&mut state, who, memory, scenario);
    }
    let believed = |index: usize| state.operators[who].nodes[index].revision;
    let of = |index: usize| made.actions.get(&name(index)).map(|told| (index, Told::of(told)));
    let writes = (0..state.nodes.len()).filter_map(of);
    let writes = writes.map(|(index, told)| (u8::try_from(index).unwrap(), believed(index), told)).collect();
    state.operators[who].writes = writes;
    state
}

fn store(state: &mut State, who: usize, memory: Mem, scenario: &Scenario) {
    check::memory(state, &memory, scenario);
    if memory.number != state.memory.number {
        state.failed = 0;
    }
    state.memory = memory;
    state.operators[1 - who].current = false;
    (state.operators[who].memory, state.operators[who].current) = (state.memory.clone(), true);
}

/// The next instruction of a wave. What another operator wrote meanwhile stays; a start that was
/// never written is given back if nobody has changed the memory since.
fn write(state: &mut State, who: usize, scenario: &Scenario) {
    let (index, believed, told) = state.operators[who].writes.remove(0);
    if state.nodes[usize::from(index)].revision == believed {
        check::written(state, who, usize::from(index), told, scenario);
    }
    let now = state.now;
    let node = &mut state.nodes[usize::from(index)];
    if node.revision == believed {
        node.revision += 1;
        node.told = told;
        node.void = node.deadline().is_some_and(|deadline| deadline <= now);
        if told == Told::Hold {
            node.observed = node.revision;
        }
        return;
    }
    let starts = told != Told::Hold && state.operators[who].current && state.memory.started > 0;
    let goes_on = matches!(state.operators[who].nodes[usize::from(index)].told, Told::RollBack { .. });
    if starts && !goes_on {
        let mut memory = state.memory.clone();
        memory.started -= 1;
        state.memory = memory.clone();
        state.operators[1 - who].current = false;
        state.operators[who].memory = memory;
    }
}

fn node(state: &State, index: usize, next: &mut Vec<State>) {
    let member = &state.nodes[index];
    let mut with = |change: &dyn Fn(&mut State, &mut Member)| {
        let mut state = state.clone();
        let mut member = member.clone();
        change(&mut state, &mut member);
        state.nodes[index] = member;
        next.push(state);
    };
    let ready = member.unready.is_none();
    if member.is_open() && ready {
        with(&|state, member| answer(member, state.now));
        if state.left.failures > 0 && member.deadline() > Some(state.now) {
            with(&|state, member| {
                state.left.failures -= 1;
                let of_target =
                    matches!(member.told, Told::Apply { level, .. } if level == state.memory.target);
                let ours = member.deadline() > state.memory.before;
                state.failed += u32::from(of_target && ours);
                end(member, NodeState::Failed, None);
            });
        }
        if state.left.misses > 0 {
            with(&|state, member| {
                state.left.misses -= 1;
                end(member, NodeState::Failed, Some(Excuse::NotTried));
            });
        }
    }
    if state.left.boots > 0 && member.state == NodeState::Applied && !member.is_open() {
        with(&|state, member| {
            state.left.boots -= 1;
            (member.level, member.since) = (0, state.now);
            end(member, NodeState::Suspected, Some(Excuse::Lost));
        });
    }
    if !ready {
        with(&|_, member| member.unready = None);
    } else if state.left.losses > 0 {
        with(&|state, member| {
            state.left.losses -= 1;
            member.unready = Some(state.now);
        });
    }
    if state.left.replaced > 0 {
        with(&|state, member| {
            state.left.replaced -= 1;
            let loaded = matches!(member.told, Told::Apply { .. });
            let unsettled = member.is_open() || member.state == NodeState::Applied;
            // The name comes back with another uid: what was meant for the old one is refused.
            let revision = member.revision + 1;
            *member = Member {
                unready: None,
                revision,
                told: Told::Hold,
                observed: revision,
                level: 0,
                state: NodeState::Idle,
                excuse: None,
                since: state.now,
                vanished: if loaded && unsettled { member.deadline() } else { member.vanished },
                void: false,
            };
        });
    }
}

/// The agent does as it was told, or says after the deadline that it did nothing.
pub(super) fn answer(member: &mut Member, now: u32) {
    let in_time = member.deadline() > Some(now);
    match member.told {
        Told::Apply { level, .. } if in_time => {
            assert!(level >= member.level, "a load lowers {member:?}");
            (member.level, member.since) = (level, now);
            end(member, NodeState::Applied, None);
        }
        Told::RollBack { .. } if in_time => {
            (member.level, member.since) = (0, now);
            end(member, NodeState::RolledBack, None);
        }
        Told::Apply { .. } | Told::RollBack { .. } => {
            let state = if member.state.is_failure() { NodeState::Idle } else { member.state };
            end(member, state, None);
        }
        Told::Hold => {}
    }
}

fn end(member: &mut Member, state: NodeState, excuse: Option<Excuse>) {
    (member.observed, member.state, member.excuse) = (member.revision, state, excuse);
}

fn around(state: &State, next: &mut Vec<State>) {
    if state.left.ticks > 0 {
        let mut later = state.clone();
        later.left.ticks -= 1;
        pass(&mut later, TICK);
        next.push(later);
    }
    if state.left.gates > 0 {
        for verdict in [Verdict::Passed, Verdict::Failed, Verdict::Unknown] {
            if verdict != state.gate {
                let mut changed = state.clone();
                (changed.left.gates, changed.gate) = (state.left.gates - 1, verdict);
                next.push(changed);
            }
        }
    }
    if state.left.stops > 0 {
        let mut changed = state.clone();
        (changed.left.stops, changed.stop) = (state.left.stops - 1, !state.stop);
        next.push(changed);
    }
    if state.left.feeds > 0 {
        let mut changed = state.clone();
        (changed.left.feeds, changed.feed) = (state.left.feeds - 1, !state.feed);
        next.push(changed);
    }
    if state.left.sets > 0 {
        let mut changed = state.clone();
        (changed.left.sets, changed.sets) = (state.left.sets - 1, state.sets + 1);
        next.push(changed);
    }
    if state.left.withdrawals > 0 && state.withdrawn == 0 {
        let mut changed = state.clone();
        (changed.left.withdrawals, changed.withdrawn) = (state.left.withdrawals - 1, state.sets);
        next.push(changed);
    }
}

/// Time passes; levels settle by themselves, where the node can say so.
pub(super) fn pass(state: &mut State, seconds: u32) {
    state.now += seconds;
    for node in &mut state.nodes {
        let settle = match node.told {
            Told::Apply { settle, .. } => settle,
            Told::RollBack { .. } | Told::Hold => 0,
        };
        let told = node.state == NodeState::Applied && !node.is_open() && node.unready.is_none();
        if told && node.since + settle <= state.now {
            node.state = NodeState::Settled;
        }
    }
}
