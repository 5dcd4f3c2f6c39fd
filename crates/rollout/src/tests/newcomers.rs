//! Nodes that come late, and get what is proven while they wait for their stage.

use super::fleet::{Fleet, MINUTE, set, set_name};
use crate::Wish;
use invivo_terms::{Hold, NodeState};

/// Level 1 is proven; the canary is told to go to level 2.
fn second_rollout() -> Fleet {
    let mut fleet = Fleet::with(1, 1);
    fleet.run();
    fleet.pass(30 * MINUTE);
    fleet.run();
    fleet.pass(11 * MINUTE);
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet
}

#[test]
fn also_a_new_canary_gets_what_is_proven_where_the_rollout_has_failed() {
    let mut fleet = second_rollout();
    fleet.end("c1", NodeState::Failed);
    fleet.decide();
    fleet.add("c2", 0, 1);
    assert_eq!(fleet.run(), ["c2"]);
    assert_eq!(fleet.level("c2"), 1);
}

#[test]
fn a_new_node_that_boots_gets_what_is_proven_once_more() {
    let mut fleet = second_rollout();
    fleet.obey("c1");
    fleet.add("new", 1, 1);
    assert_eq!(fleet.run(), ["new"]);
    fleet.reboot("new");
    assert_eq!(fleet.run(), ["new"]);
    assert_eq!(fleet.level("new"), 1);
}

#[test]
fn a_new_node_that_could_not_be_tried_rests() {
    let mut fleet = second_rollout();
    fleet.obey("c1");
    fleet.add("new", 1, 1);
    assert_eq!(fleet.decide(), ["new"]);
    fleet.pass(10 * MINUTE);
    fleet.miss("new");
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("new"), Some(Hold::NotTried));
    fleet.pass(10 * MINUTE);
    assert_eq!(fleet.decide(), ["new"]);
}

#[test]
fn what_failed_on_a_new_node_is_tried_again_in_the_next_rollout() {
    let mut fleet = second_rollout();
    fleet.obey("c1");
    fleet.add("new", 1, 1);
    assert_eq!(fleet.decide(), ["new"]);
    fleet.end("new", NodeState::Failed);
    fleet.decide();
    fleet.offer(vec![set(1, &[(1, 1)]), set(3, &[(1, 3)])]);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.obey("c1");
    assert_eq!(fleet.decide(), ["new"]);
}

#[test]
fn where_a_person_named_a_set_a_new_node_gets_no_other() {
    let mut fleet = second_rollout();
    fleet.world.policy.target = Wish::Named(set_name(2));
    fleet.obey("c1");
    fleet.add("new", 1, 1);
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("new"), Some(Hold::StageSoaking));
}
