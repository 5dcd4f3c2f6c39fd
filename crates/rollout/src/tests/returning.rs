//! A rollout that goes back: who goes, who stays, and what becomes of those that do not make it.

use super::fleet::{Fleet, MINUTE, after, set, set_name, stage};
use crate::{Gate, GateVerdict, HeldByPerson, Instruction, OnFailure, Readiness, Supersede, Wish};
use invivo_terms::{Hold, Level, NodeState};

/// Level 1 on everybody, then a rollout to level 2: the first canary has it, the last two have failed,
/// and so it goes back.
fn going_back(canaries: u32) -> Fleet {
    let mut fleet = Fleet::with(canaries, 1);
    fleet.world.policy.stages = vec![stage("canary", canaries, 0)];
    fleet.run();
    for name in fleet.world.nodes.keys().cloned().collect::<Vec<_>>() {
        fleet.report(&name).state = NodeState::Settled;
    }
    fleet.world.policy.on_failure = OnFailure::RollBack;
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.pass(60);
    fleet.obey("c1");
    fleet.decide();
    for number in [canaries - 1, canaries] {
        fleet.end(&format!("c{number}"), NodeState::Failed);
    }
    fleet
}

#[test]
fn who_has_not_answered_keeps_its_slot_and_who_failed_is_still_told() {
    let mut fleet = going_back(4);
    assert_eq!(fleet.run(), ["c1", "c1"]);
    assert_eq!(fleet.level("c1"), 1);
    for wake in [Some(after(11 * MINUTE)), None] {
        let made = fleet.plan();
        assert!(made.in_flight.contains("c2"));
        assert_eq!(made.failed.iter().collect::<Vec<_>>(), ["c3", "c4"]);
        assert_eq!(made.wake, wake);
        fleet.pass(11 * MINUTE);
    }
}

#[test]
fn who_could_not_be_tried_rests_before_it_is_tried_again() {
    let mut fleet = going_back(3);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.pass(10 * MINUTE);
    fleet.miss("c1");
    assert!(fleet.decide().is_empty());
    let held = fleet.held("c1").unwrap();
    assert_eq!((held.hold, held.until), (Hold::NotTried, Some(after(31 * MINUTE))));
    fleet.pass(20 * MINUTE);
    assert_eq!(fleet.decide(), ["c1"]);
}

#[test]
fn who_has_not_gone_by_its_deadline_is_told_again() {
    let mut fleet = going_back(3);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.end("c1", NodeState::Applied);
    fleet.pass(10 * MINUTE);
    assert_eq!(fleet.decide(), ["c1"]);
}

#[test]
fn who_fails_on_the_way_back_waits_for_a_person() {
    let mut fleet = going_back(3);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.end("c1", NodeState::Failed);
    assert!(fleet.decide().is_empty());
    assert!(fleet.plan().failed.contains("c1"));
    assert_eq!(fleet.hold("c1"), Some(Hold::AttemptEnded));
}

#[test]
fn who_is_not_ready_halfway_is_told_to_go_on_when_it_is() {
    let mut fleet = going_back(3);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.obey("c1");
    fleet.unready("c1");
    assert!(fleet.decide().is_empty());
    fleet.node("c1").ready = Readiness::Ready;
    assert_eq!(fleet.run(), ["c1"]);
    assert_eq!(fleet.level("c1"), 1);
}

#[test]
fn where_a_person_named_the_set_who_goes_back_stays_without_a_patch() {
    let mut fleet = going_back(3);
    fleet.world.policy.target = Wish::Named(set_name(2));
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.obey("c1");
    assert!(fleet.decide().is_empty(), "agents load the set that was named, and no other");
    assert_eq!((fleet.level("c1"), fleet.hold("c1")), (0, Some(Hold::FailureBudgetSpent)));
}

#[test]
fn nobody_goes_back_whom_an_earlier_rollout_to_the_same_set_moved() {
    let mut fleet = Fleet::with(1, 0);
    fleet.world.policy.stages = vec![stage("canary", 3, 0)];
    fleet.run();
    fleet.node("c1").held = Some(HeldByPerson { until: None });
    fleet.world.policy.target = Wish::None;
    fleet.decide();
    fleet.world.policy.target = Wish::Latest;
    fleet.world.policy.on_failure = OnFailure::RollBack;
    fleet.add("c2", 0, 1);
    fleet.add("c3", 0, 1);
    assert_eq!(fleet.decide(), ["c2", "c3"]);
    fleet.node("c1").held = None;
    fleet.end("c2", NodeState::Failed);
    fleet.end("c3", NodeState::Failed);
    assert!(fleet.decide().is_empty());
    assert_eq!((fleet.rollout().number, fleet.rollout().returning, fleet.level("c1")), (3, true, 1));
}

#[test]
fn taking_patches_off_is_not_taken_back() {
    let mut fleet = Fleet::with(2, 0);
    fleet.world.policy.stages = vec![stage("canary", 2, 0)];
    fleet.world.policy.on_failure = OnFailure::RollBack;
    fleet.run();
    fleet.pass(11 * MINUTE);
    fleet.world.policy.target = Wish::None;
    assert_eq!(fleet.decide(), ["c1", "c2"]);
    fleet.end("c1", NodeState::Failed);
    fleet.end("c2", NodeState::Failed);
    assert!(fleet.decide().is_empty());
    assert_eq!((fleet.rollout().failed, fleet.rollout().returning), (2, false));
}

fn failing(name: &str) -> Vec<Gate> {
    let verdict = GateVerdict::Failed { message: "errors".to_owned() };
    vec![Gate { name: name.to_owned(), foreign: true, about: None, verdict }]
}

#[test]
fn a_gate_that_fails_before_anybody_was_moved_or_when_everybody_was_takes_nobody_back() {
    let mut fleet = Fleet::with(1, 0);
    fleet.world.policy.on_failure = OnFailure::RollBack;
    fleet.world.gates = failing("errors");
    fleet.decide();
    assert!(!fleet.rollout().returning);
    fleet.world.gates.clear();
    assert_eq!(fleet.run(), ["c1"]);
    fleet.pass(30 * MINUTE);
    fleet.run();
    fleet.world.gates = failing("errors");
    assert!(fleet.decide().is_empty());
    assert_eq!((fleet.rollout().complete, fleet.rollout().returning), (true, false));
}

#[test]
fn once_it_is_back_a_rollout_that_a_gate_took_back_keeps_no_newer_set_waiting() {
    let mut fleet = Fleet::with(1, 1);
    fleet.world.policy.on_failure = OnFailure::RollBack;
    fleet.world.policy.supersede = Supersede::Finish;
    fleet.run();
    fleet.world.gates = failing("errors");
    assert_eq!(fleet.run(), ["c1"]);
    assert_eq!(fleet.rollout().failed, 0, "a gate is no node");
    fleet.world.gates.clear();
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    assert_eq!(fleet.decide(), ["c1"]);
    assert_eq!(fleet.rollout().number, 2);
}

#[test]
fn a_newer_set_does_not_wait_for_the_way_back_where_people_no_longer_ask_for_it() {
    let mut fleet = going_back(3);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.obey("c1");
    fleet.world.policy.on_failure = OnFailure::Pause;
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)]), set(3, &[(1, 3)])]);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.obey("c1");
    assert_eq!((fleet.rollout().number, fleet.level("c1")), (3, 3));
}

#[test]
fn a_rollout_that_did_not_fail_keeps_no_newer_set_waiting_where_people_ask_for_a_restart() {
    let mut fleet = Fleet::with(2, 0);
    fleet.world.policy.on_failure = OnFailure::RollBack;
    fleet.decide();
    fleet.obey("c1");
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    assert_eq!(fleet.decide(), ["c1"], "to level 2, and c2 not to level 1");
    assert_eq!(fleet.rollout().number, 2);
}

#[test]
fn what_became_of_an_earlier_rollout_is_nothing_to_one_that_goes_back() {
    let failed = |fleet: &mut Fleet| fleet.end("c1", NodeState::Failed);
    let missed = |fleet: &mut Fleet| fleet.miss("c1");
    let ignored = |fleet: &mut Fleet| fleet.end("c1", NodeState::Settled);
    let ends: [&dyn Fn(&mut Fleet); 4] = [&failed, &failed, &missed, &ignored];
    for (goes_down, end) in [false, true, true, true].into_iter().zip(ends) {
        let mut fleet = Fleet::with(2, 0);
        fleet.world.policy.stages = vec![stage("canary", 2, 0)];
        if goes_down {
            fleet.run();
            fleet.pass(11 * MINUTE);
            fleet.world.policy.target = Wish::None;
        }
        assert!(fleet.decide().contains(&"c1".to_owned()));
        end(&mut fleet);
        if goes_down {
            fleet.obey("c2");
        }
        fleet.pass(10 * MINUTE);
        fleet.node("c1").held = Some(HeldByPerson { until: None });
        fleet.world.policy.target = Wish::Latest;
        fleet.world.policy.on_failure = OnFailure::RollBack;
        fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
        assert_eq!(fleet.decide(), ["c2"]);
        fleet.unready("c2");
        fleet.pass(10 * MINUTE);
        fleet.decide();
        assert!(fleet.rollout().returning);
        fleet.node("c1").held = None;
        assert!(fleet.decide().is_empty());
        assert_eq!(fleet.plan().failed.iter().collect::<Vec<_>>(), ["c2"]);
        assert_eq!(fleet.hold("c1"), Some(Hold::FailureBudgetSpent));
    }
}

#[test]
fn what_was_told_before_this_rollout_moves_up_to_its_deadline() {
    let mut fleet = going_back(3);
    fleet.decide();
    fleet.add("c9", 0, 1);
    let deadline = after(5 * MINUTE);
    fleet.instruct("c9", Instruction::RollBack { to: (Level(0), None), deadline, attempt: 1 });
    assert!(fleet.plan().in_flight.contains("c9"));
    assert_eq!(fleet.plan().wake, Some(deadline));
    fleet.world.now = deadline;
    assert_eq!(fleet.hold("c9"), Some(Hold::FailureBudgetSpent));
}
