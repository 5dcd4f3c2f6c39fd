//! The budget, and going back on evidence.

use super::fleet::{Fleet, MINUTE, set, stage, withdraw};
use crate::{Budget, EVIDENCE, EVIDENCE_BYTES, HISTORY, Instruction, OnFailure, Outcome, Readiness};
use invivo_terms::{Hold, Level, NodeState};

/// Level 1 on everybody, then a rollout to level 2 that has reached the canaries.
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
fn failures_within_the_budget_do_not_stop_a_rollout() {
    for budget in [Budget::Nodes(1), Budget::Percent(40)] {
        let mut fleet = Fleet::with(2, 2);
        fleet.world.policy.stages = vec![stage("canary", 2, 30)];
        fleet.world.policy.failure_budget = budget;
        fleet.decide();
        fleet.end("c1", NodeState::Failed);
        assert_eq!(fleet.decide(), ["c2"]);
        fleet.obey("c2");
        fleet.decide();
        fleet.pass(30 * MINUTE);
        assert_eq!(fleet.run(), ["r1", "r2"]);
        assert!(fleet.rollout().complete);
        assert_eq!(fleet.world.memory.history[0].outcome, Outcome::Complete);
        assert_eq!(fleet.world.memory.history[0].failed, 1);
    }
}

#[test]
fn a_share_that_is_less_than_a_node_allows_none() {
    let mut fleet = Fleet::with(2, 2);
    fleet.world.policy.failure_budget = Budget::Percent(24);
    fleet.decide();
    fleet.end("c1", NodeState::Failed);
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("c2"), Some(Hold::FailureBudgetSpent));
}

#[test]
fn one_nodes_word_moves_no_other_node() {
    let mut fleet = second_rollout(3, 1);
    assert_eq!(fleet.decide(), ["c2", "c3"]);
    fleet.obey("c2");
    fleet.end("c3", NodeState::Convicted);
    assert!(fleet.decide().is_empty());
    assert!(!fleet.rollout().returning);
    assert_eq!(fleet.hold("c3"), Some(Hold::Convicted));
    assert_eq!(fleet.level("c2"), 2);
}

#[test]
fn a_piece_of_evidence_is_kept_up_to_a_kibibyte() {
    let mut fleet = second_rollout(3, 1);
    fleet.decide();
    fleet.end("c3", NodeState::Convicted);
    fleet.report("c3").why = Some("\u{20ac}".repeat(1024));
    fleet.decide();
    let what = fleet.rollout().evidence[0].what.clone();
    assert!(what.starts_with("Convicted: \u{20ac}") && (1022..=1024).contains(&what.len()), "{}", what.len());
}

#[test]
fn two_nodes_that_failed_take_the_rollout_back_to_where_it_came_from() {
    let mut fleet = second_rollout(4, 1);
    fleet.decide();
    fleet.obey("c2");
    fleet.end("c3", NodeState::Failed);
    fleet.end("c4", NodeState::Convicted);
    fleet.report("c4").level = Level(0);
    let names = fleet.decide();
    assert!(fleet.rollout().returning);
    assert_eq!(names, ["c1", "c2"], "only what it moved and what is still there");
    let Instruction::RollBack { to, .. } = fleet.node("c1").spec.clone().unwrap().instruction else {
        panic!()
    };
    assert_eq!(to.0, Level(1));
    for name in &names {
        fleet.obey(name);
    }
    assert_eq!(fleet.run(), ["c1", "c2"]);
    assert_eq!((fleet.level("c1"), fleet.level("c2"), fleet.level("r1")), (1, 1, 1));
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("r1"), Some(Hold::FailureBudgetSpent));
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)]), set(3, &[(1, 3)])]);
    assert_eq!(fleet.decide(), ["c1"], "another target begins anew");
    let past = fleet.world.memory.history.last().unwrap();
    assert_eq!((past.outcome, past.evidence.len()), (Outcome::RolledBack, 2));
}

#[test]
fn going_back_is_paced_and_waits_for_no_window() {
    let mut fleet = second_rollout(4, 1);
    fleet.decide();
    for name in ["c2", "c3", "c4"] {
        fleet.obey(name);
    }
    fleet.decide();
    fleet.world.policy.stages[0].max_parallel = crate::Parallel::Nodes(1);
    fleet.world.policy.blackouts =
        vec![crate::Blackout { from: fleet.world.now, until: super::fleet::after(900 * MINUTE) }];
    fleet.end("c3", NodeState::Failed);
    fleet.end("c4", NodeState::Failed);
    (fleet.report("c3").level, fleet.report("c4").level) = (Level(0), Level(0));
    assert_eq!(fleet.decide(), ["c1"]);
    assert_eq!(fleet.hold("c2"), Some(Hold::AtMaxParallel));
    fleet.obey("c1");
    assert_eq!(fleet.decide(), ["c1"], "its second half first");
    fleet.obey("c1");
    assert_eq!(fleet.decide(), ["c2"]);
}

#[test]
fn a_node_whose_former_level_is_not_offered_any_more_goes_back_to_none() {
    let mut fleet = second_rollout(3, 0);
    fleet.decide();
    fleet.end("c2", NodeState::Failed);
    fleet.end("c3", NodeState::Failed);
    let mut first = set(1, &[(1, 1)]);
    withdraw(&mut first);
    fleet.offer(vec![first, set(2, &[(1, 2)])]);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.obey("c1");
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.level("c1"), 0);
    assert_eq!(fleet.hold("c1"), Some(Hold::FailureBudgetSpent));
}

#[test]
fn a_lost_node_is_evidence_that_it_did_not_write_itself() {
    let mut fleet = second_rollout(2, 0);
    fleet.decide();
    fleet.unready("c2");
    fleet.pass(10 * MINUTE);
    assert_eq!(fleet.decide(), ["c1"]);
    assert!(fleet.rollout().returning);
    fleet.node("c2").ready = Readiness::Ready;
    fleet.obey("c2");
    assert_eq!(fleet.decide(), ["c2"], "what came up after all goes back too");
}

#[test]
fn a_node_that_vanished_in_flight_has_failed() {
    let mut fleet = Fleet::with(2, 1);
    fleet.decide();
    fleet.world.nodes.remove("c1");
    fleet.world.vanished.insert("c1".to_owned());
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("c2"), Some(Hold::FailureBudgetSpent));
    assert_eq!((fleet.rollout().failed, fleet.rollout().evidence[0].who.as_str()), (1, "c1"));
}

#[test]
fn evidence_is_what_a_node_said_or_what_is_known_of_it() {
    let mut fleet = Fleet::with(4, 0);
    fleet.world.policy.failure_budget = Budget::Nodes(4);
    fleet.decide();
    fleet.end("c1", NodeState::Failed);
    fleet.report("c1").why = Some("no memory".repeat(200));
    assert_eq!(fleet.decide(), ["c2"]);
    fleet.end("c2", NodeState::Convicted);
    assert_eq!(fleet.decide(), ["c3"]);
    fleet.unready("c3");
    fleet.pass(10 * MINUTE);
    assert_eq!(fleet.decide(), ["c4"]);
    fleet.world.nodes.remove("c4");
    fleet.world.vanished.insert("c4".to_owned());
    fleet.decide();
    let evidence = &fleet.rollout().evidence;
    assert!(evidence[0].what.starts_with("Failed: no memory") && evidence[0].what.len() == EVIDENCE_BYTES);
    let others: Vec<(&str, &str)> = evidence[1..].iter().map(|e| (e.who.as_str(), e.what.as_str())).collect();
    let lost = "not Ready since before it had settled";
    let expected = [("c2", "Convicted"), ("c3", lost), ("c4", "vanished before it had settled")];
    assert_eq!(others, expected);
}

#[test]
fn a_node_that_failed_and_left_is_counted_with_those_that_fail_after_it() {
    let mut fleet = Fleet::with(3, 0);
    fleet.world.policy.failure_budget = Budget::Nodes(1);
    fleet.decide();
    fleet.end("c1", NodeState::Failed);
    assert_eq!(fleet.decide(), ["c2"]);
    fleet.world.nodes.remove("c1");
    fleet.end("c2", NodeState::Failed);
    assert!(fleet.decide().is_empty());
    assert_eq!((fleet.rollout().failed, fleet.hold("c3")), (2, Some(Hold::FailureBudgetSpent)));
}

#[test]
fn all_who_fail_are_counted_and_the_first_are_named() {
    let count = u32::try_from(EVIDENCE).unwrap() + 3;
    let mut fleet = Fleet::with(count, 0);
    fleet.world.policy.failure_budget = Budget::Nodes(count);
    for _ in 0..count {
        let names = fleet.decide();
        assert_eq!(names.len(), 1);
        fleet.end(&names[0], NodeState::Failed);
    }
    fleet.decide();
    fleet.decide();
    assert_eq!((fleet.rollout().failed, fleet.rollout().evidence.len()), (count, EVIDENCE));
}

#[test]
fn the_last_rollouts_are_remembered_each_once() {
    let mut fleet = Fleet::with(1, 0);
    fleet.world.policy.stages = vec![stage("canary", 1, 0)];
    for number in 1..=12 {
        fleet.offer(vec![set(number, &[(1, number)])]);
        assert_eq!(fleet.run(), ["c1"]);
        fleet.run();
    }
    let numbers: Vec<u64> = fleet.world.memory.history.iter().map(|past| past.number).collect();
    assert_eq!(numbers, (3..=12).collect::<Vec<u64>>());
    assert_eq!(numbers.len(), HISTORY);
}

#[test]
fn a_rollout_that_moved_nobody_is_not_remembered() {
    let mut fleet = Fleet::with(1, 1);
    for name in ["c1", "r1"] {
        let report = fleet.report(name);
        (report.level, report.state) = (Level(1), NodeState::Settled);
    }
    fleet.world.policy.paused = true;
    fleet.decide();
    fleet.world.policy.paused = false;
    fleet.decide();
    assert!(fleet.rollout().complete);
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    assert_eq!(fleet.decide(), ["c1"]);
    assert_eq!(fleet.world.memory.history, []);
}
