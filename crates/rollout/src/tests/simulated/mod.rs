//! A fleet, two operators that believe old views, kills between two writes, and every brake.
//! What must always hold is checked against what really happened, not against what was believed.

mod any;
mod check;
mod cluster;
mod event;
mod home;
mod node;

use proptest::prelude::*;

use crate::{Budget, NewNodes, OnFailure, OnWithdrawn, Supersede};
use cluster::{Cluster, Setup};

/// Fewer where that is asked for from outside, as when many faulty planners are tried.
fn cases(usual: u32) -> ProptestConfig {
    let cases = match std::env::var("INVIVO_CASES") {
        Ok(number) => number.parse::<u32>().expect("INVIVO_CASES is a number of cases").min(usual),
        Err(_) => usual,
    };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn setup() -> impl Strategy<Value = Setup> {
    let soaks = (prop_oneof![Just(0), Just(30_u64)], prop_oneof![Just(0), Just(5_u64), Just(60)]);
    let budget = prop_oneof![
        3 => Just(Budget::Nodes(0)),
        1 => (1..3_u32).prop_map(Budget::Nodes),
        1 => (10..60_u8).prop_map(Budget::Percent),
    ];
    let ways = (
        prop_oneof![Just(OnFailure::Pause), Just(OnFailure::RollBack)],
        prop_oneof![Just(Supersede::Finish), Just(Supersede::Restart)],
        prop_oneof![Just(OnWithdrawn::Keep), Just(OnWithdrawn::RollBack)],
        prop_oneof![Just(NewNodes::Proven), Just(NewNodes::Staged)],
    );
    let share = prop::option::weighted(0.3, 1..101_u8);
    let limit = prop::option::weighted(0.4, 1..4_u32);
    (1..4_u32, soaks, share, prop::bool::weighted(0.3), budget, ways, limit).prop_map(
        |(parallel, soaks, share, spread, budget, ways, limit)| Setup {
            parallel,
            soaks,
            share,
            spread,
            budget,
            on_failure: ways.0,
            supersede: ways.1,
            on_withdrawn: ways.2,
            new_nodes: ways.3,
            limit,
        },
    )
}

proptest! {
    #![proptest_config(cases(20_000))]

    #[test]
    fn whatever_happens_no_rule_is_broken_and_peace_brings_everybody_home(
        members in prop::collection::vec((0..3_usize, 1..4_u32, 0..3_u8), 0..9),
        setup in setup(),
        events in prop::collection::vec(event::event(), 1..90),
    ) {
        let mut cluster = Cluster::new(&members, &setup);
        for event in events {
            cluster.handle(event);
        }
        cluster.settle_down();
    }
}

/// Found by the histories above, once in some hundred thousand.
#[test]
fn who_went_down_while_nothing_was_offered_takes_a_slot_again_to_go_up() {
    use event::Event::{Act, Decide, Feed, Join, Pass};

    let decide = |leader| Decide { leader, policy: 0, killed_after: None };
    let setup = Setup {
        parallel: 1,
        soaks: (0, 0),
        share: None,
        spread: false,
        budget: Budget::Nodes(0),
        on_failure: OnFailure::Pause,
        supersede: Supersede::Finish,
        on_withdrawn: OnWithdrawn::RollBack,
        new_nodes: NewNodes::Proven,
        limit: Some(1),
    };
    let mut cluster = Cluster::new(&[(0, 1, 0); 6], &setup);
    let (all_withdrawn, one_withdrawn) = (Feed(7), Feed(2));
    for event in [
        decide(false),
        Act(6),
        all_withdrawn,
        Pass(600),
        decide(true),
        Act(6),
        decide(false),
        Join(1, 0, 1, 0),
        one_withdrawn,
        Pass(1),
    ] {
        cluster.handle(event);
    }
    cluster.settle_down();
}
