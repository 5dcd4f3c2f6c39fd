//! Stages, soaks, pace, brakes.

use super::fleet::{Fleet, MINUTE, after, stage};
use crate::{Instruction, Parallel, Readiness, Wish};
use invivo_terms::{Hold, Level, NodeState};

#[test]
fn the_rest_starts_only_after_the_canary_and_its_soak() {
    let mut fleet = Fleet::with(1, 2);
    assert_eq!(fleet.decide(), ["c1"]);
    assert_eq!(fleet.hold("r1"), Some(Hold::NotInStage));
    fleet.pass(60);
    fleet.obey("c1");
    assert!(fleet.decide().is_empty());
    let held = fleet.held("r1").unwrap();
    assert_eq!((held.hold, held.until), (Hold::StageSoaking, Some(after(60 + 30 * MINUTE))));
    assert_eq!(fleet.plan().wake, held.until);
    fleet.pass(30 * MINUTE - 1);
    assert!(fleet.decide().is_empty());
    fleet.pass(1);
    assert_eq!(fleet.decide(), ["r1"]);
    assert!(fleet.world.memory.proven.is_empty(), "not before every stage is through");
    fleet.obey("r1");
    assert_eq!(fleet.run(), ["r2"]);
    let rollout = fleet.rollout();
    assert!(rollout.complete);
    assert_eq!((rollout.number, rollout.started, rollout.finished, rollout.failed), (1, 3, 3, 0));
}

#[test]
fn a_finished_rollout_is_silent() {
    let mut fleet = Fleet::with(1, 2);
    fleet.run();
    fleet.pass(30 * MINUTE);
    fleet.run();
    fleet.pass(20 * MINUTE);
    let memory = fleet.world.memory.clone();
    let plan = fleet.plan();
    assert_eq!((plan.actions.len(), plan.holds.len(), plan.done.len(), plan.wake), (0, 0, 3, None));
    assert_eq!(plan.memory, memory);
}

#[test]
fn the_soak_counts_by_the_operators_clock_whatever_the_node_says() {
    for since in [after(0), after(0) - std::time::Duration::from_secs(999_999_999), after(900_000_000)] {
        let mut fleet = Fleet::with(1, 1);
        fleet.decide();
        fleet.pass(60);
        fleet.obey("c1");
        fleet.report("c1").since = since;
        fleet.decide();
        assert_eq!(fleet.rollout().soak_until, Some(after(60 + 30 * MINUTE)));
    }
}

#[test]
fn a_soak_is_not_cut_short_where_only_whole_seconds_are_known() {
    let mut fleet = Fleet::with(1, 1);
    fleet.world.imprecision = std::time::Duration::from_secs(1);
    fleet.decide();
    fleet.obey("c1");
    fleet.decide();
    // The report may have come nearly a second later than it seems.
    fleet.pass(30 * MINUTE);
    assert_eq!(fleet.decide(), [] as [&str; 0]);
    fleet.pass(1);
    assert_eq!(fleet.decide(), ["r1"]);
}

#[test]
fn a_node_that_joins_neither_restarts_the_soak_nor_is_left_behind() {
    let mut fleet = Fleet::with(1, 1);
    fleet.run();
    let soak_until = fleet.rollout().soak_until;
    fleet.pass(10 * MINUTE);
    fleet.add("c2", 0, 1);
    assert_eq!(fleet.decide(), ["c2"]);
    assert_eq!(fleet.rollout().soak_until, soak_until);
    fleet.pass(20 * MINUTE);
    assert!(fleet.decide().is_empty(), "c2 is still moving");
    fleet.obey("c2");
    assert_eq!(fleet.decide(), ["r1"]);
}

#[test]
fn a_node_that_joins_an_earlier_stage_goes_at_the_pace_of_the_present_one() {
    let mut fleet = Fleet::with(1, 2);
    fleet.run();
    fleet.pass(30 * MINUTE);
    assert_eq!(fleet.decide(), ["r1"]);
    fleet.add("c2", 0, 1);
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("c2"), Some(Hold::AtMaxParallel));
    fleet.obey("r1");
    assert_eq!(fleet.decide(), ["c2"]);
}

#[test]
fn a_stage_without_soak_goes_on_in_the_same_decision() {
    let mut fleet = Fleet::with(1, 3);
    fleet.world.policy.stages = vec![stage("canary", 1, 0)];
    fleet.world.policy.rest = stage("rest", 2, 0);
    fleet.decide();
    fleet.obey("c1");
    assert_eq!(fleet.decide(), ["r1", "r2"]);
    assert_eq!(fleet.rollout().stage, 1);
}

#[test]
fn a_share_is_rounded_down_and_at_least_one() {
    for (percent, nodes, expected) in [(25, 10, 2), (25, 3, 1), (1, 5, 1), (100, 4, 4), (50, 7, 3)] {
        let mut fleet = Fleet::with(1, nodes);
        fleet.world.policy.stages = vec![stage("canary", 1, 0)];
        fleet.world.policy.rest.max_parallel = Parallel::Percent(percent);
        fleet.decide();
        fleet.obey("c1");
        fleet.add("u", 1, 7);
        assert_eq!(fleet.decide().len(), expected, "{percent} % of {nodes}, one more is not supported");
    }
}

#[test]
fn an_empty_stage_holds_the_others_unless_it_is_optional() {
    let mut fleet = Fleet::with(0, 2);
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("r1"), Some(Hold::EmptyStage));
    fleet.world.policy.stages[0].optional = true;
    assert_eq!(fleet.decide(), ["r1"]);
}

#[test]
fn a_policy_without_nodes_goes_nowhere() {
    let mut fleet = Fleet::with(0, 0);
    fleet.world.policy.stages[0].optional = true;
    fleet.decide();
    assert_eq!((fleet.rollout().stage, fleet.rollout().complete), (0, false));
    fleet.add("c1", 0, 1);
    fleet.add("r1", 1, 1);
    assert_eq!(fleet.decide(), ["c1"]);
}

#[test]
fn paused_starts_nothing_and_ends_no_stage_but_lets_the_soak_pass() {
    let mut fleet = Fleet::with(2, 1);
    fleet.decide();
    fleet.world.policy.paused = true;
    fleet.obey("c1");
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("c2"), Some(Hold::Paused));
    assert_eq!(fleet.rollout().finished, 1, "what was under way ended");
    fleet.world.policy.paused = false;
    fleet.run();
    fleet.world.policy.paused = true;
    fleet.pass(40 * MINUTE);
    fleet.decide();
    assert_eq!(fleet.rollout().stage, 0);
    fleet.world.policy.paused = false;
    assert_eq!(fleet.decide(), ["r1"]);
}

#[test]
fn a_failed_node_stops_every_start_and_what_is_under_way_ends() {
    let mut fleet = Fleet::with(1, 4);
    fleet.world.policy.rest = stage("rest", 2, 0);
    fleet.run();
    fleet.pass(30 * MINUTE);
    assert_eq!(fleet.decide(), ["r1", "r2"]);
    fleet.end("r1", NodeState::Failed);
    assert!(fleet.decide().is_empty());
    let plan = fleet.plan();
    assert!(plan.failed.contains("r1") && plan.in_flight.contains("r2"));
    assert_eq!(fleet.hold("r1"), Some(Hold::AttemptEnded));
    assert_eq!(fleet.hold("r3"), Some(Hold::FailureBudgetSpent));
    fleet.obey("r2");
    assert!(fleet.decide().is_empty());
    let rollout = fleet.rollout();
    assert_eq!((rollout.started, rollout.finished, rollout.failed), (3, 3, 1));
    fleet.world.nodes.remove("r1");
    assert!(fleet.decide().is_empty(), "a node that leaves does not take its evidence with it");
}

#[test]
fn a_refusal_counts_as_failed() {
    let mut fleet = Fleet::with(1, 1);
    fleet.decide();
    fleet.end("c1", NodeState::Refused);
    fleet.pass(10_000);
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.rollout().failed, 1);
}

#[test]
fn an_instructed_node_that_falls_silent_keeps_its_slot_and_is_lost_after_a_node_deadline() {
    let mut fleet = Fleet::with(2, 1);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.pass(60);
    fleet.unready("c1");
    fleet.pass(10 * MINUTE - 1);
    assert!(fleet.decide().is_empty());
    let plan = fleet.plan();
    assert!(plan.in_flight.contains("c1"));
    assert_eq!(plan.wake, Some(after(11 * MINUTE)));
    fleet.pass(1);
    assert!(fleet.decide().is_empty());
    assert!(fleet.plan().failed.contains("c1"));
    assert_eq!(
        (fleet.hold("c1"), fleet.hold("c2")),
        (Some(Hold::NodeNotReady), Some(Hold::FailureBudgetSpent))
    );
    assert_eq!(fleet.rollout().evidence[0].who, "c1");
    fleet.node("c1").ready = Readiness::Ready;
    fleet.obey("c1");
    assert!(fleet.decide().is_empty(), "that it came back does not undo what was seen");
}

#[test]
fn a_canary_that_is_not_ready_before_it_has_settled_keeps_the_stage_from_ending() {
    let mut fleet = Fleet::with(1, 1);
    fleet.run();
    fleet.pass(25 * MINUTE);
    fleet.unready("c1");
    fleet.pass(9 * MINUTE);
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("c1"), Some(Hold::NodeNotReady));
    fleet.node("c1").ready = Readiness::Ready;
    assert_eq!(fleet.decide(), ["r1"]);
}

#[test]
fn a_node_that_is_not_ready_after_it_has_settled_is_not_the_rollouts_business() {
    let mut fleet = Fleet::with(1, 1);
    fleet.run();
    fleet.report("c1").state = NodeState::Settled;
    fleet.unready("c1");
    fleet.pass(30 * MINUTE);
    assert_eq!(fleet.decide(), ["r1"]);
}

#[test]
fn missing_agents_and_unready_nodes_are_excused_once_another_has_shown_that_it_works() {
    for unready in [false, true] {
        let mut fleet = Fleet::with(2, 1);
        if unready {
            fleet.unready("c1");
        } else {
            fleet.node("c1").report = None;
        }
        assert_eq!(fleet.decide(), ["c2"]);
        fleet.obey("c2");
        fleet.decide();
        assert_eq!(fleet.rollout().soak_until, None, "c1 is waited for");
        assert_eq!(fleet.plan().wake, Some(after(10 * MINUTE)));
        fleet.pass(10 * MINUTE);
        fleet.decide();
        assert_eq!(fleet.rollout().soak_until, Some(after(40 * MINUTE)));
        assert_eq!(fleet.plan().stage.unwrap().excused, 1);
    }
}

#[test]
fn a_canary_that_never_came_up_does_not_let_the_others_go() {
    for unready in [false, true] {
        let mut fleet = Fleet::with(1, 3);
        if unready {
            fleet.unready("c1");
        } else {
            fleet.node("c1").report = None;
        }
        fleet.decide();
        fleet.pass(1_000_000);
        assert!(fleet.decide().is_empty());
        assert_eq!(fleet.rollout().stage, 0);
    }
}

#[test]
fn a_kernel_that_the_repository_does_not_know_is_never_waited_for() {
    let mut fleet = Fleet::with(1, 1);
    fleet.add("c0", 0, 9);
    fleet.run();
    assert_eq!(fleet.hold("c0"), Some(Hold::UnsupportedKernel));
    fleet.pass(30 * MINUTE);
    assert_eq!(fleet.run(), ["r1"]);
    assert!(fleet.rollout().complete);
}

#[test]
fn a_node_of_another_policy_is_not_counted() {
    let mut fleet = Fleet::with(2, 1);
    fleet.node("c2").claimed_by_other = true;
    fleet.run();
    assert_eq!(fleet.hold("c2"), Some(Hold::ClaimedByOther));
    assert_eq!(fleet.plan().stage.unwrap().total, 1);
    fleet.pass(30 * MINUTE);
    assert_eq!(fleet.run(), ["r1"]);
}

#[test]
fn a_build_without_canary_gets_on_one_node_the_canarys_soak() {
    let mut fleet = Fleet::with(1, 1);
    fleet.world.policy.rest = stage("rest", 5, 0);
    fleet.offer(vec![super::fleet::set(1, &[(1, 1), (2, 1)])]);
    for name in ["s1", "s2", "s3"] {
        fleet.add(name, 1, 2);
    }
    fleet.run();
    fleet.pass(30 * MINUTE);
    assert_eq!(fleet.decide(), ["r1", "s1"]);
    assert_eq!(fleet.hold("s2"), Some(Hold::KernelNotProven));
    fleet.pass(60);
    fleet.obey("r1");
    fleet.obey("s1");
    assert!(fleet.decide().is_empty());
    let held = fleet.held("s2").unwrap();
    assert_eq!((held.hold, held.until), (Hold::KernelNotProven, Some(after(61 * MINUTE))));
    assert_eq!(fleet.plan().wake, held.until);
    fleet.pass(30 * MINUTE);
    assert_eq!(fleet.decide(), ["s2", "s3"]);
}

#[test]
fn in_the_first_stage_one_node_of_a_build_must_report_before_the_others_start() {
    let mut fleet = Fleet::with(4, 0);
    fleet.world.policy.stages = vec![stage("canary", 3, 30)];
    assert_eq!(fleet.decide(), ["c1"]);
    assert_eq!(fleet.hold("c2"), Some(Hold::KernelNotProven));
    fleet.obey("c1");
    assert_eq!(fleet.decide(), ["c2", "c3", "c4"]);
}

#[test]
fn a_new_node_of_a_proven_build_needs_no_first() {
    let mut fleet = Fleet::with(1, 1);
    fleet.world.policy.rest = stage("rest", 3, 0);
    fleet.run();
    fleet.pass(30 * MINUTE);
    fleet.run();
    assert_eq!(fleet.world.memory.proven[&super::fleet::build(1)].0, Level(1));
    fleet.world.nodes.clear();
    for name in ["n1", "n2"] {
        fleet.add(name, 1, 1);
    }
    assert_eq!(fleet.decide(), ["n1", "n2"]);
}

#[test]
fn an_operator_killed_between_its_two_writes_loses_time_but_no_slot() {
    let mut fleet = Fleet::with(2, 0);
    let lost = fleet.plan();
    fleet.world.memory = lost.memory;
    assert!(fleet.decide().is_empty(), "whoever comes next cannot know what was written");
    assert_eq!(fleet.hold("c1"), Some(Hold::KernelNotProven));
    assert_eq!(fleet.plan().wake, Some(after(10 * MINUTE)));
    fleet.pass(10 * MINUTE);
    assert_eq!(fleet.decide(), ["c1"]);
}

#[test]
fn an_old_view_only_slows() {
    let mut fleet = Fleet::with(1, 3);
    fleet.world.policy.rest = stage("rest", 2, 0);
    fleet.run();
    fleet.pass(30 * MINUTE);
    let old = fleet.world.nodes.clone();
    assert_eq!(fleet.decide(), ["r1", "r2"]);
    let new = std::mem::replace(&mut fleet.world.nodes, old);
    assert!(fleet.decide().is_empty());
    fleet.world.nodes = new;
    for name in ["r1", "r2"] {
        fleet.obey(name);
    }
    assert_eq!(fleet.decide(), ["r3"]);
}

#[test]
fn a_builds_first_node_is_alone_also_where_another_operator_started_it_unseen() {
    let mut fleet = Fleet::with(2, 0);
    fleet.world.policy.stages = vec![stage("canary", 2, 30)];
    let mut old = fleet.clone();
    fleet.unready("c1");
    assert_eq!(fleet.decide(), ["c2"]);
    old.world.memory = fleet.world.memory.clone();
    assert!(old.decide().is_empty(), "the old view shows c1 Ready and c2 at rest");
    assert_eq!(old.hold("c1"), Some(Hold::KernelNotProven));
    assert_eq!(old.plan().wake, old.rollout().deadline);
}

#[test]
fn an_instruction_under_way_is_left_to_end_before_the_next_target() {
    let mut fleet = Fleet::with(1, 0);
    fleet.decide();
    fleet.world.policy.target = Wish::None;
    assert!(fleet.decide().is_empty());
    assert!(fleet.plan().in_flight.contains("c1"));
    fleet.obey("c1");
    fleet.decide();
    let spec = fleet.node("c1").spec.clone().unwrap();
    assert!(matches!(spec.instruction, Instruction::RollBack { .. }));
}

#[test]
fn a_boot_before_settling_gets_a_new_instruction() {
    let mut fleet = Fleet::with(1, 0);
    fleet.run();
    fleet.pass(11 * MINUTE);
    let report = fleet.report("c1");
    report.level = Level(0);
    report.set = None;
    report.state = NodeState::Idle;
    assert_eq!(fleet.run(), ["c1"]);
    assert_eq!(fleet.level("c1"), 1);
}
