//! Corners: two rules that meet.

use super::fleet::{Fleet, MINUTE, after, block, set, set_name, stage, withdraw};
use crate::{
    Budget, Gate, GateVerdict, Instruction, OnFailure, OnWithdrawn, Outcome, Parallel, Readiness, Set,
    Supersede, Wish,
};
use invivo_terms::{Block, Hold, Level, NodeState};

fn withdrawn(mut set: Set) -> Set {
    withdraw(&mut set);
    set
}

/// Level 1 on everybody and settled, then a rollout to level 2 whose first canary has it.
fn second_rollout(canaries: u32, rest: u32) -> Fleet {
    let mut fleet = Fleet::with(canaries, rest);
    fleet.world.policy.stages = vec![stage("canary", canaries, 0)];
    fleet.world.policy.rest = stage("rest", rest, 0);
    fleet.run();
    for name in fleet.world.nodes.keys().cloned().collect::<Vec<_>>() {
        fleet.report(&name).state = NodeState::Settled;
    }
    fleet.world.policy.on_failure = OnFailure::RollBack;
    fleet.world.policy.stages = vec![stage("canary", canaries, 30)];
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.pass(60);
    fleet.obey("c1");
    fleet
}

#[test]
fn an_emergency_stop_holds_what_moves_also_where_there_is_nothing_to_aim_at_or_another_target_waits() {
    for aims_elsewhere in [false, true] {
        let mut fleet = Fleet::with(1, 0);
        fleet.decide();
        if aims_elsewhere {
            fleet.world.policy.target = Wish::None;
        } else {
            fleet.world.offer = crate::Offer::Unknown;
        }
        fleet.world.brakes.emergency_stop = true;
        assert_eq!(fleet.decide(), ["c1"]);
        assert_eq!(fleet.node("c1").spec.clone().unwrap().instruction, Instruction::Hold);
        assert!(fleet.decide().is_empty());
    }
}

#[test]
fn nodes_of_other_policies_do_not_widen_a_budget_in_per_cent() {
    let mut fleet = Fleet::with(2, 2);
    fleet.world.policy.supersede = Supersede::Finish;
    fleet.world.policy.failure_budget = Budget::Percent(25);
    for name in ["r1", "r2"] {
        fleet.node(name).claimed_by_other = true;
    }
    fleet.decide();
    fleet.end("c1", NodeState::Failed);
    fleet.decide();
    assert_eq!(fleet.hold("c2"), Some(Hold::FailureBudgetSpent), "a quarter of two is none");
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    assert_eq!(fleet.decide(), ["c1"], "a rollout that cannot end keeps nobody waiting");
    assert_eq!(fleet.world.memory.history[0].outcome, Outcome::Failed);
}

#[test]
fn a_stage_does_not_end_while_one_of_its_nodes_booted_before_settling_and_was_not_tried_again() {
    let mut fleet = Fleet::with(2, 1);
    fleet.run();
    fleet.pass(30 * MINUTE - 1);
    fleet.reboot("c2");
    fleet.pass(1);
    assert_eq!(fleet.decide(), ["c2"]);
    assert_eq!(fleet.rollout().stage, 0);
    fleet.obey("c2");
    fleet.world.policy.stages[0].max_parallel = Parallel::Nodes(1);
    assert_eq!(fleet.decide(), ["r1"]);
}

#[test]
fn what_was_proven_and_is_eligible_no_more_is_not_given_to_new_nodes() {
    let mut fleet = Fleet::with(1, 1);
    fleet.run();
    fleet.pass(30 * MINUTE);
    fleet.run();
    let mut first = set(1, &[(1, 1)]);
    block(&mut first, Block::TestOnly);
    fleet.offer(vec![first, set(2, &[(1, 2)])]);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.obey("c1");
    fleet.add("new", 1, 1);
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("new"), Some(Hold::StageSoaking));
}

#[test]
fn a_node_that_cannot_go_back_where_it_came_from_gives_its_slot_to_the_next() {
    let mut fleet = second_rollout(4, 1);
    fleet.decide();
    fleet.obey("c2");
    fleet.world.policy.stages[0].max_parallel = Parallel::Nodes(1);
    fleet.end("c3", NodeState::Failed);
    fleet.end("c4", NodeState::Failed);
    fleet.offer(vec![withdrawn(set(1, &[(1, 1)])), set(2, &[(1, 2)])]);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.obey("c1");
    assert_eq!(fleet.decide(), ["c2"]);
    fleet.obey("c2");
    assert!(fleet.decide().is_empty());
    assert_eq!((fleet.level("c1"), fleet.level("c2")), (0, 0));
    assert_eq!(fleet.hold("c1"), Some(Hold::FailureBudgetSpent));
}

#[test]
fn a_node_that_vanished_counts_against_its_own_rollout_and_not_the_next() {
    let mut fleet = Fleet::with(2, 0);
    fleet.decide();
    fleet.world.nodes.remove("c1");
    fleet.world.vanished.insert("c1".to_owned());
    fleet.pass(10 * MINUTE);
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    assert_eq!(fleet.decide(), ["c2"]);
    assert_eq!((fleet.rollout().number, fleet.rollout().failed), (2, 0));
}

#[test]
fn a_withdrawn_level_is_taken_off_although_it_came_by_way_of_a_later_set_that_a_person_named() {
    let mut fleet = Fleet::with(1, 0);
    fleet.world.policy.target = Wish::Named(set_name(3));
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)]), set(3, &[(2, 1)])]);
    fleet.run();
    assert_eq!((fleet.level("c1"), fleet.report("c1").set.clone()), (2, Some(set_name(3))));
    fleet.world.policy.target = Wish::Latest;
    fleet.world.policy.on_withdrawn = OnWithdrawn::RollBack;
    fleet.offer(vec![set(1, &[(1, 1)]), withdrawn(set(2, &[(1, 2)])), set(3, &[(2, 1)])]);
    fleet.run();
    assert_eq!(fleet.level("c1"), 1);
}

#[test]
fn a_rollout_that_ends_with_a_newcomer_on_its_way_counts_no_start_that_nobody_made() {
    let mut fleet = Fleet::with(1, 1);
    fleet.world.policy.supersede = Supersede::Finish;
    fleet.run();
    fleet.pass(30 * MINUTE);
    assert_eq!(fleet.decide(), ["r1"]);
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    fleet.add("c2", 0, 1);
    fleet.obey("r1");
    let mut order = fleet.decide();
    assert_eq!(order.len(), 1, "somebody starts at once: {:#?}", fleet.plan());
    for name in &order {
        fleet.obey(name);
    }
    order.extend(fleet.run());
    let rollout = fleet.rollout();
    assert_eq!((rollout.number, rollout.started), (2, rollout.finished), "{order:?}");
}

#[test]
fn a_rollout_that_goes_back_ends_before_a_newer_set_begins_that_has_waited_for_it() {
    let mut fleet = second_rollout(4, 1);
    fleet.world.policy.supersede = Supersede::Finish;
    fleet.decide();
    fleet.obey("c2");
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)]), set(3, &[(1, 3)])]);
    fleet.decide();
    fleet.end("c3", NodeState::Failed);
    fleet.end("c4", NodeState::Failed);
    assert_eq!(fleet.decide(), ["c1", "c2"]);
    assert_eq!((fleet.rollout().number, fleet.rollout().returning), (2, true));
    fleet.obey("c1");
    fleet.obey("c2");
    assert_eq!(fleet.decide(), ["c1", "c2"], "to level 1");
    fleet.obey("c1");
    fleet.obey("c2");
    assert_eq!((fleet.level("c1"), fleet.level("c2")), (1, 1));
    assert_eq!(fleet.decide(), ["c1"], "the newer set's first canary");
    assert_eq!(fleet.rollout().number, 3);
    assert_eq!(fleet.world.memory.history.last().unwrap().outcome, Outcome::RolledBack);
}

#[test]
fn a_rollout_that_failed_goes_back_although_its_set_was_quarantined_for_that() {
    for supersede in [Supersede::Finish, Supersede::Restart] {
        let mut fleet = second_rollout(4, 1);
        fleet.world.policy.supersede = supersede;
        fleet.decide();
        fleet.obey("c2");
        fleet.end("c3", NodeState::Convicted);
        fleet.end("c4", NodeState::Convicted);
        let mut second = set(2, &[(1, 2)]);
        block(&mut second, Block::TestOnly);
        fleet.offer(vec![set(1, &[(1, 1)]), second]);
        assert_eq!(fleet.decide(), ["c1", "c2"]);
        fleet.obey("c1");
        fleet.obey("c2");
        fleet.run();
        assert_eq!((fleet.level("c1"), fleet.level("c2")), (1, 1));
    }
}

#[test]
fn a_named_set_that_was_quarantined_for_its_failures_is_taken_off_where_the_policy_says_so() {
    for on_failure in [OnFailure::RollBack, OnFailure::Pause] {
        let mut fleet = second_rollout(4, 1);
        fleet.world.policy.target = Wish::Named(set_name(2));
        fleet.world.policy.on_failure = on_failure;
        fleet.decide();
        fleet.obey("c2");
        fleet.end("c3", NodeState::Convicted);
        fleet.end("c4", NodeState::Convicted);
        let mut second = set(2, &[(1, 2)]);
        block(&mut second, Block::Quarantined);
        fleet.offer(vec![set(1, &[(1, 1)]), second]);
        let back: &[&str] = if on_failure == OnFailure::RollBack { &["c1", "c2"] } else { &[] };
        assert_eq!(fleet.decide(), back);
        assert_eq!((fleet.rollout().failed, fleet.rollout().evidence.len()), (2, 2));
        for name in back {
            fleet.obey(name);
        }
        assert_eq!(fleet.run(), Vec::<String>::new());
        assert_eq!(fleet.level("c1"), if back.is_empty() { 2 } else { 0 });
        assert_eq!(fleet.hold("r1"), Some(Hold::SetQuarantined));
    }
}

#[test]
fn a_person_who_names_another_set_need_not_wait_until_a_failed_rollout_has_gone_back() {
    let mut fleet = second_rollout(4, 1);
    fleet.decide();
    fleet.obey("c2");
    fleet.end("c3", NodeState::Failed);
    fleet.end("c4", NodeState::Failed);
    assert_eq!(fleet.decide(), ["c1", "c2"], "back");
    fleet.obey("c1");
    fleet.obey("c2");
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)]), set(3, &[(1, 3)])]);
    fleet.world.policy.target = Wish::Named(set_name(3));
    assert_eq!(fleet.decide(), ["c1"], "on their way to nothing in between");
    assert_eq!((fleet.rollout().number, fleet.rollout().returning), (3, false));
    fleet.obey("c1");
    assert_eq!(fleet.level("c1"), 3);
}

#[test]
fn a_set_that_may_not_be_chosen_any_more_lowers_nobody_unless_its_rollout_failed() {
    let mut fleet = second_rollout(2, 1);
    fleet.world.policy.supersede = Supersede::Finish;
    fleet.run();
    let mut second = set(2, &[(1, 2)]);
    block(&mut second, Block::TestOnly);
    fleet.offer(vec![set(1, &[(1, 1)]), second]);
    fleet.run();
    assert_eq!((fleet.level("c1"), fleet.level("c2")), (2, 2));
    assert_eq!(fleet.hold("c1"), Some(Hold::AheadOfTarget));
}

#[test]
fn another_target_waits_for_what_an_old_view_does_not_show() {
    let mut fleet = Fleet::with(2, 0);
    fleet.unready("c1");
    let old = fleet.world.nodes.clone();
    fleet.node("c1").ready = Readiness::Ready;
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.world.nodes = old;
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    assert!(fleet.decide().is_empty(), "c1 may be moving");
    assert_eq!(fleet.hold("c2"), Some(Hold::AtMaxParallel));
    fleet.pass(10 * MINUTE);
    assert_eq!(fleet.decide(), ["c2"]);
}

#[test]
fn a_gate_that_closes_in_the_middle_of_a_stage_stops_the_next_start_and_keeps_the_stage_from_ending() {
    let gate = |verdict| vec![Gate { name: "gate".to_owned(), foreign: false, about: None, verdict }];
    let message = "no answer".to_owned();
    let mut fleet = Fleet::with(2, 1);
    fleet.decide();
    fleet.obey("c1");
    fleet.world.gates = gate(GateVerdict::Unknown { message });
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("c2"), Some(Hold::GateUnknown));
    fleet.world.gates = gate(GateVerdict::Passed);
    assert_eq!(fleet.run(), ["c2"]);
    fleet.world.gates = gate(GateVerdict::Unknown { message: String::new() });
    fleet.pass(30 * MINUTE);
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.rollout().stage, 0);
}

#[test]
fn a_stage_does_not_end_while_a_start_is_not_seen_although_others_have_ended() {
    let mut fleet = Fleet::with(1, 1);
    fleet.run();
    fleet.pass(25 * MINUTE);
    let mut old = fleet.clone();
    fleet.add("c2", 0, 1);
    assert_eq!(fleet.decide(), ["c2"]);
    old.world.memory = fleet.world.memory.clone();
    old.pass(5 * MINUTE);
    assert!(old.decide().is_empty(), "c1 was watched to the end, c2 is not seen");
    assert_eq!(old.rollout().stage, 0);
    old.pass(5 * MINUTE);
    assert_eq!(old.decide(), ["r1"], "its deadline is past");
}

#[test]
fn somebody_wakes_for_the_end_of_a_soak_that_no_other_node_waits_for() {
    let mut fleet = Fleet::with(1, 0);
    fleet.run();
    assert!(fleet.plan().holds.is_empty());
    assert_eq!(fleet.plan().wake, fleet.rollout().soak_until);
    fleet.pass(30 * MINUTE);
    fleet.run();
    assert!(fleet.rollout().complete);
}

#[test]
fn a_stage_does_not_end_with_a_failing_gate_because_its_canary_was_replaced_or_left() {
    for optional in [false, true] {
        let mut fleet = Fleet::with(1, 1);
        fleet.world.policy.stages[0].optional = optional;
        fleet.run();
        fleet.world.nodes.remove("c1");
        if !optional {
            fleet.add("c2", 0, 1);
        }
        let verdict = GateVerdict::Failed { message: "errors".to_owned() };
        fleet.world.gates = vec![Gate { name: "gate".to_owned(), foreign: false, about: None, verdict }];
        fleet.pass(30 * MINUTE);
        assert!(fleet.decide().is_empty());
        assert_eq!((fleet.rollout().stage, fleet.hold("r1")), (0, Some(Hold::GateFailing)), "{optional}");
    }
}

#[test]
fn a_node_that_another_policy_took_over_in_flight_is_left_to_it() {
    let mut fleet = Fleet::with(2, 0);
    fleet.decide();
    fleet.node("c1").claimed_by_other = true;
    fleet.end("c1", NodeState::Failed);
    fleet.decide();
    assert_eq!((fleet.hold("c1"), fleet.rollout().failed), (Some(Hold::ClaimedByOther), 0));
}

#[test]
fn a_policy_made_anew_under_an_old_name_takes_nothing_for_its_own_that_nodes_were_told_before() {
    let mut fleet = Fleet::with(1, 2);
    let deadline = after(10 * MINUTE);
    for name in ["c1", "r1", "r2"] {
        fleet.instruct(name, Instruction::RollBack { to: (Level(0), None), deadline, attempt: 1 });
        fleet.obey(name);
    }
    assert_eq!(fleet.decide(), ["c1"]);
    assert_eq!(fleet.rollout().started, 1);
    fleet.obey("c1");
    fleet.pass(60);
    assert!(fleet.decide().is_empty(), "the canary is watched");
    assert_eq!(fleet.hold("r1"), Some(Hold::StageSoaking));
}

/// Level 2 everywhere, and its set withdrawn, which takes it off.
fn leaving() -> Fleet {
    let mut fleet = Fleet::with(2, 0);
    fleet.world.policy.on_withdrawn = OnWithdrawn::RollBack;
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    fleet.run();
    fleet.pass(11 * MINUTE);
    fleet.offer(vec![set(1, &[(1, 1)]), withdrawn(set(2, &[(1, 2)]))]);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet
}

#[test]
fn a_withdrawn_level_that_does_not_come_off_has_failed() {
    let mut fleet = leaving();
    fleet.end("c1", NodeState::Failed);
    assert!(fleet.decide().is_empty());
    assert_eq!((fleet.hold("c1"), fleet.rollout().failed), (Some(Hold::AttemptEnded), 1));
    assert_eq!(fleet.hold("c2"), Some(Hold::FailureBudgetSpent));
}

#[test]
fn a_withdrawn_level_that_nobody_tried_to_take_off_rests_before_the_next_attempt() {
    let mut fleet = leaving();
    fleet.pass(10 * MINUTE);
    fleet.miss("c1");
    assert_eq!(fleet.decide(), ["c2"]);
    let held = fleet.held("c1").unwrap();
    assert_eq!((held.hold, held.until), (Hold::NotTried, Some(after(31 * MINUTE))));
}

#[test]
fn a_withdrawn_level_that_may_stay_after_all_has_not_failed_to_come_off() {
    let mut fleet = leaving();
    fleet.end("c1", NodeState::Failed);
    fleet.world.policy.on_withdrawn = OnWithdrawn::Keep;
    fleet.decide();
    assert_eq!((fleet.hold("c1"), fleet.rollout().failed), (Some(Hold::AheadOfTarget), 0));
}

#[test]
fn a_level_that_nobody_withdrew_is_not_taken_off() {
    let mut fleet = Fleet::with(1, 0);
    fleet.world.policy.on_withdrawn = OnWithdrawn::RollBack;
    fleet.report("c1").level = Level(9);
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("c1"), Some(Hold::AheadOfTarget));
}
