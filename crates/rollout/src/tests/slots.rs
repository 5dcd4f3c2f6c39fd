//! Who has a slot, for how long, and whose turn is next.

use super::fleet::{Fleet, MINUTE, after, build, set, set_name, stage};
use crate::{Budget, HeldByPerson, Instruction, Offer, Parallel, Wish};
use invivo_terms::{Block, Hold, Level, NodeState};

fn both() -> Vec<crate::Set> {
    vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]
}

/// So many canaries at level 2, all of which may move at once, and a person who named level 1.
fn going_down(canaries: u32) -> Fleet {
    let mut fleet = Fleet::with(canaries, 0);
    fleet.world.policy.stages = vec![stage("canary", canaries, 0)];
    fleet.offer(both());
    fleet.run();
    fleet.pass(11 * MINUTE);
    fleet.world.memory.proven.insert(build(1), (Level(1), set_name(1)));
    fleet.world.policy.target = Wish::Named(set_name(1));
    fleet
}

#[test]
fn who_has_seen_what_it_was_told_and_not_begun_has_until_its_deadline() {
    for (level, state) in [(0, NodeState::Idle), (1, NodeState::Settled)] {
        let mut fleet = Fleet::with(1, 0);
        fleet.offer(both());
        fleet.report("c1").level = Level(level);
        assert_eq!(fleet.plan().wake, Some(after(10 * MINUTE)), "that is when somebody looks again");
        fleet.decide();
        fleet.end("c1", state);
        assert!(fleet.decide().is_empty(), "{state}");
        assert!(fleet.plan().in_flight.contains("c1"));
        fleet.pass(10 * MINUTE);
        assert_eq!(fleet.decide(), ["c1"], "{state}");
        assert_eq!((fleet.rollout().started, fleet.rollout().finished), (2, 1));
    }
}

#[test]
fn an_attempt_under_way_goes_on_to_its_end_whatever_its_deadline() {
    let mut fleet = Fleet::with(2, 0);
    fleet.decide();
    fleet.end("c1", NodeState::Working);
    fleet.pass(10 * MINUTE);
    assert!(fleet.decide().is_empty());
    assert!(fleet.plan().in_flight.contains("c1"));
}

#[test]
fn what_came_of_an_earlier_rollout_puts_nobody_first_or_last() {
    let mut missed = Fleet::with(2, 0);
    missed.decide();
    missed.pass(10 * MINUTE);
    missed.miss("c1");
    assert_eq!(missed.run(), ["c2"]);
    missed.offer(both());
    assert_eq!(missed.decide(), ["c1"]);

    let mut booted = Fleet::with(2, 0);
    booted.run();
    booted.reboot("c2");
    booted.offer(both());
    assert_eq!(booted.decide(), ["c1"]);
}

#[test]
fn who_failed_at_a_level_that_is_not_aimed_at_any_more_is_tried_at_the_one_that_is() {
    let sets = |middle| vec![set(1, &[(1, 1)]), middle, set(3, &[(2, 1)])];
    let mut fleet = Fleet::with(1, 0);
    fleet.world.policy.failure_budget = Budget::Nodes(1);
    fleet.offer(sets(set(2, &[(1, 2)])));
    fleet.decide();
    fleet.end("c1", NodeState::Failed);
    fleet.decide();
    let mut second = set(2, &[(1, 2)]);
    super::fleet::block(&mut second, Block::Rejected);
    fleet.offer(sets(second));
    assert_eq!(fleet.run(), ["c1"]);
    assert_eq!((fleet.level("c1"), fleet.rollout().number), (1, 1));
}

#[test]
fn who_is_midway_waits_where_fewer_may_move_than_do() {
    let mut fleet = going_down(2);
    assert_eq!(fleet.decide(), ["c1", "c2"]);
    fleet.obey("c1");
    fleet.world.policy.stages[0].max_parallel = Parallel::Nodes(1);
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("c1"), Some(Hold::AtMaxParallel));
    fleet.obey("c2");
    assert_eq!(fleet.decide(), ["c1"]);
}

#[test]
fn who_is_midway_takes_a_slot_again_before_anybody_else_gets_one() {
    let mut fleet = going_down(2);
    fleet.world.policy.stages[0].max_parallel = Parallel::Nodes(1);
    fleet.node("c1").held = Some(HeldByPerson { until: None });
    assert_eq!(fleet.decide(), ["c2"]);
    fleet.obey("c2");
    let offer = std::mem::replace(&mut fleet.world.offer, Offer::Unknown);
    fleet.decide();
    assert_eq!((fleet.rollout().started, fleet.rollout().finished), (1, 1), "down is where its way ends");
    fleet.world.offer = offer;
    fleet.node("c1").held = None;
    assert_eq!(fleet.decide(), ["c2"]);
    assert_eq!((fleet.rollout().started, fleet.hold("c1")), (2, Some(Hold::AtMaxParallel)));
}

#[test]
fn who_was_told_to_go_down_and_did_not_is_told_to_stay() {
    let mut fleet = Fleet::with(1, 0);
    fleet.run();
    fleet.pass(11 * MINUTE);
    fleet.world.policy.target = Wish::None;
    fleet.decide();
    fleet.end("c1", NodeState::Settled);
    fleet.pass(10 * MINUTE);
    fleet.world.policy.target = Wish::Latest;
    assert_eq!(fleet.decide(), ["c1"]);
    let told = fleet.node("c1").spec.clone().unwrap().instruction;
    assert!(matches!(told, Instruction::Apply(apply) if apply.level == Level(1)));
}

#[test]
fn only_the_very_level_of_the_very_set_is_proven() {
    for (level, number, expected) in [(1, 1, &["c1", "c2"] as &[&str]), (1, 9, &["c1"]), (2, 1, &["c1"])] {
        let mut fleet = Fleet::with(2, 0);
        fleet.world.policy.stages = vec![stage("canary", 2, 30)];
        fleet.world.memory.proven.insert(build(1), (Level(level), set_name(number)));
        assert_eq!(fleet.decide(), expected, "level {level} of set {number}");
    }
}

#[test]
fn a_node_whose_clock_is_ahead_holds_nobody_where_being_applied_is_enough() {
    let mut fleet = Fleet::with(3, 0);
    fleet.world.policy.stages = vec![stage("canary", 2, 30)];
    fleet.decide();
    fleet.obey("c1");
    fleet.report("c1").since = after(900_000_000);
    assert_eq!(fleet.decide(), ["c2", "c3"]);
}

#[test]
fn another_target_waits_for_what_moves_up_to_its_deadline_and_no_longer() {
    let mut fleet = Fleet::with(2, 0);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.offer(both());
    fleet.pass(10 * MINUTE - 1);
    assert!(fleet.decide().is_empty());
    fleet.pass(1);
    assert_eq!(fleet.decide(), ["c2"]);
}
