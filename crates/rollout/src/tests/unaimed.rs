//! Where nothing can be aimed at, as without a feed: what moves goes on, what has ended is counted.

use super::fleet::{Fleet, MINUTE, after, set, stage};
use crate::{Instruction, Offer, Wish};
use invivo_terms::{Hold, Level, NodeState};

/// Three canaries, of which the first is done, the second has failed and the third moves; no feed.
fn done_failed_and_moving() -> Fleet {
    let mut fleet = Fleet::with(3, 0);
    fleet.world.policy.stages = vec![stage("canary", 3, 30)];
    fleet.decide();
    fleet.obey("c1");
    assert_eq!(fleet.decide(), ["c2", "c3"]);
    fleet.end("c2", NodeState::Failed);
    fleet.world.offer = Offer::Unknown;
    fleet
}

#[test]
fn it_is_still_told_who_is_done_who_failed_and_who_moves() {
    let mut fleet = done_failed_and_moving();
    assert!(fleet.decide().is_empty());
    let made = fleet.plan();
    assert!(made.done.contains("c1") && made.failed.contains("c2") && made.in_flight.contains("c3"));
    assert_eq!(fleet.hold("c2"), Some(Hold::AttemptEnded));
}

#[test]
fn who_has_not_answered_keeps_its_slot_beyond_its_deadline() {
    let mut fleet = done_failed_and_moving();
    fleet.pass(10 * MINUTE);
    fleet.decide();
    assert!(fleet.plan().in_flight.contains("c3"));
    assert_eq!((fleet.rollout().started, fleet.rollout().finished), (3, 2));
}

#[test]
fn what_failed_in_an_earlier_rollout_has_not_failed_in_this_one() {
    let mut fleet = Fleet::with(1, 0);
    fleet.decide();
    fleet.end("c1", NodeState::Failed);
    fleet.decide();
    fleet.world.policy.paused = true;
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    fleet.decide();
    fleet.world.offer = Offer::Unknown;
    assert!(fleet.plan().failed.is_empty());
    assert_eq!((fleet.rollout().number, fleet.hold("c1")), (2, Some(Hold::FeedStalled)));
}

#[test]
fn what_a_policy_made_anew_did_not_tell_itself_moves_until_its_deadline_with_and_without_a_feed() {
    let deadline = after(10 * MINUTE);
    let mut fleet = Fleet::with(2, 0);
    fleet.instruct("c1", Instruction::RollBack { to: (Level(0), None), deadline, attempt: 1 });
    assert!(fleet.decide().is_empty(), "one at a time");
    let mut blind = fleet.clone();
    blind.world.offer = Offer::Unknown;
    for fleet in [&fleet, &blind] {
        let made = fleet.plan();
        assert!(made.in_flight.contains("c1"));
        assert_eq!(made.wake, Some(deadline));
    }
    fleet.pass(10 * MINUTE);
    blind.pass(10 * MINUTE);
    assert_eq!(fleet.decide(), ["c2"]);
    assert_eq!(fleet.hold("c1"), Some(Hold::StatusStale));
    assert_eq!(blind.hold("c1"), Some(Hold::FeedStalled));
}

#[test]
fn a_node_that_another_policy_took_over_has_neither_ended_nor_a_slot() {
    let mut fleet = Fleet::with(1, 0);
    fleet.decide();
    fleet.node("c1").claimed_by_other = true;
    fleet.end("c1", NodeState::Failed);
    fleet.world.offer = Offer::Unknown;
    fleet.decide();
    assert_eq!(fleet.rollout().finished, 0);
    fleet.pass(10 * MINUTE);
    fleet.decide();
    assert_eq!(fleet.rollout().finished, 1, "the slot is free after its deadline");
}

#[test]
fn what_an_earlier_rollout_told_keeps_no_slot_of_this_one() {
    let mut fleet = Fleet::with(1, 0);
    fleet.run();
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    // The operator was killed between its two writes.
    fleet.world.memory = fleet.plan().memory;
    fleet.world.offer = Offer::Unknown;
    fleet.world.now = fleet.rollout().deadline.unwrap();
    fleet.decide();
    let rollout = fleet.rollout();
    assert_eq!((rollout.number, rollout.started, rollout.finished), (2, 1, 1));
}

#[test]
fn who_was_taken_down_is_not_at_a_target_that_nobody_knows() {
    let mut fleet = Fleet::with(1, 0);
    fleet.run();
    fleet.world.policy.target = Wish::None;
    assert_eq!(fleet.run(), ["c1"]);
    fleet.world.policy.target = Wish::Latest;
    fleet.world.offer = Offer::Unknown;
    assert!(fleet.plan().done.is_empty());
    assert_eq!(fleet.hold("c1"), Some(Hold::FeedStalled));
}

#[test]
fn nobody_wakes_where_nothing_moves() {
    let mut fleet = Fleet::with(1, 0);
    fleet.run();
    fleet.world.offer = Offer::Unknown;
    assert!(fleet.rollout().deadline > Some(fleet.world.now));
    assert_eq!(fleet.plan().wake, None);
}
