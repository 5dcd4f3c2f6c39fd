//! Which stages are watched: those in which something was moved, or was found before it had settled.

use super::fleet::{Fleet, MINUTE, set_name, stage};
use crate::Budget;
use invivo_terms::{Hold, Level, NodeState};

/// The node runs what is offered, in this state, and was told nothing.
fn has_it(fleet: &mut Fleet, name: &str, state: NodeState) {
    let report = fleet.report(name);
    (report.level, report.set, report.state) = (Level(1), Some(set_name(1)), state);
}

#[test]
fn a_level_that_was_there_before_is_watched_unless_it_has_settled() {
    for (state, expected) in [(NodeState::Applied, &[] as &[&str]), (NodeState::Settled, &["r1"])] {
        let mut fleet = Fleet::with(1, 1);
        has_it(&mut fleet, "c1", state);
        assert_eq!(fleet.decide(), expected, "{state}");
    }
}

#[test]
fn a_level_that_the_agent_does_not_vouch_for_is_not_there() {
    let mut fleet = Fleet::with(1, 0);
    has_it(&mut fleet, "c1", NodeState::Idle);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.end("c1", NodeState::Idle);
    assert!(fleet.plan().in_flight.contains("c1"));
}

#[test]
fn a_stage_that_is_found_settled_is_watched_once_the_rollout_has_moved_somebody() {
    let mut fleet = Fleet::with(1, 1);
    fleet.world.policy.stages = vec![stage("canary", 1, 0), stage("early", 1, 30)];
    fleet.add("s1", 2, 1);
    has_it(&mut fleet, "r1", NodeState::Settled);
    assert_eq!(fleet.run(), ["c1"]);
    assert_eq!((fleet.rollout().stage, fleet.hold("s1")), (1, Some(Hold::StageSoaking)));
    fleet.pass(30 * MINUTE);
    assert_eq!(fleet.run(), ["s1"]);
}

#[test]
fn a_stage_without_a_node_that_can_be_patched_is_not_watched() {
    let mut fleet = Fleet::with(0, 1);
    fleet.add("c1", 0, 9);
    assert_eq!(fleet.decide(), ["r1"]);
}

#[test]
fn a_stage_whose_only_node_failed_within_the_budget_is_watched() {
    let mut fleet = Fleet::with(1, 1);
    fleet.world.policy.failure_budget = Budget::Nodes(1);
    fleet.decide();
    fleet.end("c1", NodeState::Failed);
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("r1"), Some(Hold::StageSoaking));
    fleet.pass(30 * MINUTE);
    assert_eq!(fleet.decide(), ["r1"]);
}

#[test]
fn a_stage_does_not_end_with_more_failed_nodes_than_may() {
    let mut fleet = Fleet::with(1, 1);
    fleet.decide();
    fleet.end("c1", NodeState::Failed);
    fleet.decide();
    fleet.pass(60 * MINUTE);
    fleet.decide();
    assert_eq!(fleet.rollout().stage, 0);
}

#[test]
fn a_node_that_joins_and_may_not_start_does_not_keep_its_stage_from_ending() {
    let mut fleet = Fleet::with(1, 1);
    fleet.run();
    fleet.world.brakes.fleet = Some(0);
    fleet.add("c2", 0, 1);
    fleet.pass(30 * MINUTE);
    fleet.decide();
    assert_eq!((fleet.rollout().stage, fleet.hold("c2")), (1, Some(Hold::FleetLimit)));
}
