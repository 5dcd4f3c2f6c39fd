//! Two operators, agents and an API server on a small fleet, explored exhaustively: every order of
//! stale reads, lost writes, crashes between writes, failures, boots, lost and replaced nodes, gates
//! and ticks of the clock, each as often as a scenario's budget allows. The budgets are part of the
//! state, so the states are finitely many; each one is visited once and every rule is checked on the
//! way there. A scenario that is too large for an ordinary run is cut: states are taken in turn from
//! both ends of the list, so that all short histories and some long ones have been seen.
//!
//! The decisions are those of [`crate::plan`] itself; only what surrounds it is modelled.

mod check;
mod diagram;
mod state;
mod step;

use std::collections::{HashSet, VecDeque};

use crate::{OnFailure, Supersede};
use state::{Left, State};

/// What the states of one exploration have in common.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    name: &'static str,
    /// For each node the stage that its labels say: 0 is the canaries', 1 the rest.
    stages: &'static [u8],
    /// For each node the kernel build that it runs: 1 or 2.
    builds: &'static [u8],
    parallel: u32,
    budget: u32,
    on_failure: OnFailure,
    supersede: Supersede,
    /// The canaries' soak in seconds.
    soak: u64,
    /// Nodes may start between these minutes; none is always.
    window: Option<(u32, u32)>,
    /// How often what may happen.
    left: Left,
}

const QUIET: Left = Left {
    ticks: 0,
    failures: 0,
    misses: 0,
    boots: 0,
    losses: 0,
    replaced: 0,
    crashes: 0,
    gates: 0,
    stops: 0,
    sets: 0,
    withdrawals: 0,
    feeds: 0,
};

const PLAIN: Scenario = Scenario {
    name: "",
    stages: &[0, 1],
    builds: &[1, 1, 1],
    parallel: 1,
    budget: 0,
    on_failure: OnFailure::Pause,
    supersede: Supersede::Restart,
    soak: 300,
    window: None,
    left: QUIET,
};

fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "failures and crashes between writes",
            stages: &[0, 1, 1],
            parallel: 2,
            left: Left { ticks: 3, failures: 1, crashes: 1, ..QUIET },
            ..PLAIN
        },
        Scenario { name: "boots", left: Left { ticks: 4, boots: 2, crashes: 1, ..QUIET }, ..PLAIN },
        Scenario { name: "lost nodes", left: Left { ticks: 5, losses: 1, crashes: 1, ..QUIET }, ..PLAIN },
        Scenario {
            name: "one node that is lost",
            stages: &[0],
            left: Left { ticks: 2, losses: 1, ..QUIET },
            ..PLAIN
        },
        Scenario {
            name: "one node that boots and is tried again",
            stages: &[0],
            left: Left { ticks: 2, boots: 1, misses: 1, ..QUIET },
            ..PLAIN
        },
        Scenario {
            name: "replaced nodes",
            stages: &[0, 0],
            budget: 1,
            left: Left { ticks: 4, replaced: 1, failures: 1, ..QUIET },
            ..PLAIN
        },
        Scenario {
            name: "a newer set at once",
            left: Left { ticks: 4, sets: 1, misses: 1, ..QUIET },
            ..PLAIN
        },
        Scenario {
            name: "a newer set that waits, and a withdrawal",
            supersede: Supersede::Finish,
            left: Left { ticks: 4, sets: 1, withdrawals: 1, ..QUIET },
            ..PLAIN
        },
        Scenario {
            name: "gates and an emergency stop",
            left: Left { ticks: 4, gates: 2, stops: 2, ..QUIET },
            ..PLAIN
        },
        Scenario {
            name: "going back",
            stages: &[0, 0, 0],
            parallel: 3,
            on_failure: OnFailure::RollBack,
            left: Left { ticks: 2, failures: 2, ..QUIET },
            ..PLAIN
        },
        Scenario {
            name: "going back to the set before for a gate",
            stages: &[0],
            on_failure: OnFailure::RollBack,
            left: Left { ticks: 1, gates: 1, sets: 1, ..QUIET },
            ..PLAIN
        },
        Scenario {
            name: "a second kernel build",
            stages: &[0, 1, 1],
            builds: &[1, 2, 2],
            parallel: 2,
            left: Left { ticks: 3, losses: 1, ..QUIET },
            ..PLAIN
        },
        Scenario {
            name: "two canaries at once, one out of sight",
            stages: &[0, 0],
            parallel: 2,
            left: Left { ticks: 3, losses: 1, crashes: 1, ..QUIET },
            ..PLAIN
        },
        Scenario {
            name: "a window that closes",
            window: Some((0, 11)),
            left: Left { ticks: 4, misses: 1, crashes: 1, ..QUIET },
            ..PLAIN
        },
        Scenario {
            name: "a feed that comes and goes",
            left: Left { ticks: 3, feeds: 3, sets: 1, ..QUIET },
            ..PLAIN
        },
    ]
}

/// How many states of one scenario an ordinary run visits.
const MOST: usize = 100_000;

/// Visits every state that can be reached, up to so many; returns how many it visited, and whether
/// that was all of them. `look` is told of each step, from which state to which.
fn explore(scenario: &Scenario, most: usize, mut look: impl FnMut(&State, &State)) -> (usize, bool) {
    let first = State::first(scenario);
    let mut seen = HashSet::from([first.key()]);
    let mut open = VecDeque::from([first]);
    let mut next = Vec::new();
    let mut newest = false;
    while seen.len() < most {
        newest = !newest;
        let Some(state) = (if newest { open.pop_back() } else { open.pop_front() }) else { break };
        step::all(&state, scenario, &mut next);
        for after in next.drain(..) {
            look(&state, &after);
            if seen.insert(after.key()) {
                check::state(&after, scenario);
                open.push_back(after);
            }
        }
    }
    (seen.len(), open.is_empty())
}

/// Fewer where many faulty planners are tried, more where somebody has the time.
fn asked() -> Option<usize> {
    let number = std::env::var("INVIVO_STATES").ok()?;
    Some(number.parse().expect("INVIVO_STATES is a number of states"))
}

#[test]
fn in_every_order_of_events_two_operators_keep_the_rules() {
    let most = asked().unwrap_or(MOST);
    let mut total = 0;
    for scenario in scenarios() {
        let (states, all) = explore(&scenario, most, |_, _| {});
        println!("{states:>9} states{}: {}", if all { "" } else { ", cut" }, scenario.name);
        total += states;
    }
    println!("{total:>9} states in all");
    assert!(total >= 1_000_000 || asked().is_some(), "{total} states are too few to call it explored");
}
