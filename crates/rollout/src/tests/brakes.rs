//! What people stop or delay: windows, blackouts, emergency stop, single nodes, the whole fleet, dry runs,
//! emergencies.

use std::time::Duration;

use super::fleet::{Fleet, MINUTE, after, set, set_name, stage, withdraw};
use crate::{
    Blackout, Expedite, HeldByPerson, Instruction, NewNodes, Offer, OnFailure, OnWithdrawn, Supersede, Wish,
};
use invivo_terms::{Hold, Level, NodeState};

fn blackout(from: u64, until: u64) -> Blackout {
    Blackout { from: after(from * MINUTE), until: after(until * MINUTE) }
}

#[test]
fn outside_its_windows_a_policy_starts_nothing_and_what_is_under_way_ends() {
    let mut fleet = Fleet::with(2, 0);
    fleet.decide();
    fleet.world.policy.blackouts = vec![blackout(1, 60)];
    fleet.pass(2 * MINUTE);
    fleet.obey("c1");
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.rollout().finished, 1);
    let held = fleet.held("c2").unwrap();
    assert_eq!((held.hold, held.until), (Hold::Blackout, Some(after(60 * MINUTE))));
    assert_eq!(fleet.plan().wake, held.until);
    fleet.pass(58 * MINUTE);
    assert_eq!(fleet.decide(), ["c2"]);
}

#[test]
fn no_attempt_starts_after_a_windows_end() {
    let mut fleet = Fleet::with(2, 0);
    fleet.world.policy.blackouts = vec![blackout(5, 60)];
    fleet.decide();
    let Instruction::Apply(apply) = fleet.node("c1").spec.clone().unwrap().instruction else { panic!() };
    assert_eq!(apply.deadline, after(5 * MINUTE), "the deadline is the window's end");
    fleet.obey("c1");
    fleet.pass(4 * MINUTE + 31);
    assert!(fleet.decide().is_empty(), "29 seconds are too few");
    assert_eq!(fleet.hold("c2"), Some(Hold::OutsideWindow));
}

#[test]
fn an_emergency_stop_holds_what_is_not_applied_yet_and_starts_nothing() {
    let mut fleet = Fleet::with(2, 1);
    fleet.decide();
    fleet.world.brakes.emergency_stop = true;
    assert_eq!(fleet.decide(), ["c1"]);
    assert_eq!(fleet.node("c1").spec.clone().unwrap().instruction, Instruction::Hold);
    fleet.obey("c1");
    assert!(fleet.decide().is_empty());
    for name in ["c1", "c2"] {
        assert_eq!(fleet.hold(name), Some(Hold::EmergencyStop), "{name}");
    }
    fleet.world.brakes.emergency_stop = false;
    fleet.decide();
    fleet.pass(10 * MINUTE);
    assert_eq!(fleet.decide(), ["c1"], "the slot of the held attempt is free after its deadline");
}

#[test]
fn an_emergency_stop_lets_patches_come_off_that_are_coming_off() {
    let mut fleet = Fleet::with(1, 0);
    fleet.run();
    fleet.world.policy.target = Wish::None;
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.world.brakes.emergency_stop = true;
    assert!(fleet.decide().is_empty());
    assert!(fleet.plan().in_flight.contains("c1"));
}

#[test]
fn a_node_that_a_person_holds_is_left_alone_until_then_and_not_waited_for() {
    let mut fleet = Fleet::with(2, 1);
    fleet.node("c1").held = Some(HeldByPerson { until: Some(after(90 * MINUTE)) });
    assert_eq!(fleet.run(), ["c2"]);
    let held = fleet.held("c1").unwrap();
    assert_eq!((held.hold, held.until), (Hold::HeldByPerson, Some(after(90 * MINUTE))));
    fleet.pass(30 * MINUTE);
    assert_eq!(fleet.run(), ["r1"]);
    fleet.pass(60 * MINUTE);
    assert_eq!(fleet.run(), ["c1"]);
}

#[test]
fn a_lone_canary_that_a_person_holds_lets_nobody_go() {
    let mut fleet = Fleet::with(1, 1);
    fleet.node("c1").held = Some(HeldByPerson { until: None });
    fleet.pass(1_000_000);
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("r1"), Some(Hold::NotInStage));
}

#[test]
fn a_cordoned_node_is_not_patched_but_its_patch_comes_off() {
    let mut fleet = Fleet::with(1, 0);
    fleet.node("c1").cordoned = true;
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("c1"), Some(Hold::NodeCordoned));
    fleet.node("c1").cordoned = false;
    fleet.run();
    fleet.node("c1").cordoned = true;
    fleet.world.policy.target = Wish::None;
    assert_eq!(fleet.decide(), ["c1"]);
}

#[test]
fn the_whole_fleets_limit_holds_over_maxparallel() {
    let mut fleet = Fleet::with(5, 0);
    fleet.world.policy.stages = vec![stage("canary", 4, 0)];
    fleet.decide();
    fleet.obey("c1");
    fleet.world.brakes.fleet = Some(2);
    assert_eq!(fleet.decide(), ["c2", "c3"]);
    fleet.world.brakes.fleet = Some(0);
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("c4"), Some(Hold::FleetLimit));
}

#[test]
fn a_dry_run_says_who_would_start_and_instructs_nobody() {
    let mut fleet = Fleet::with(2, 1);
    fleet.world.policy.dry_run = true;
    assert!(fleet.decide().is_empty());
    let holds = ["c1", "c2", "r1"].map(|name| fleet.hold(name).unwrap());
    assert_eq!(holds, [Hold::DryRun, Hold::KernelNotProven, Hold::NotInStage]);
    assert_eq!(fleet.rollout().started, 0);
    fleet.world.policy.dry_run = false;
    assert_eq!(fleet.decide(), ["c1"]);
}

#[test]
fn an_emergency_skips_the_soaks_of_its_set_and_of_no_other() {
    let mut fleet = Fleet::with(1, 2);
    fleet.world.policy.rest = stage("rest", 2, 0);
    fleet.world.policy.expedite = Some(Expedite { set: set_name(2), until: after(100 * MINUTE) });
    assert_eq!(fleet.run(), ["c1"]);
    fleet.world.policy.expedite = Some(Expedite { set: set_name(1), until: after(60) });
    fleet.pass(60);
    assert!(fleet.run().is_empty(), "it is over");
    fleet.world.policy.expedite = Some(Expedite { set: set_name(1), until: after(100 * MINUTE) });
    assert_eq!(fleet.run(), ["r1", "r2"]);
    assert!(fleet.rollout().complete);
}

#[test]
fn a_rollout_ends_before_a_newer_set_begins_unless_people_ask_for_a_restart() {
    for supersede in [Supersede::Finish, Supersede::Restart] {
        let mut fleet = Fleet::with(1, 1);
        fleet.world.policy.supersede = supersede;
        fleet.world.policy.on_failure = OnFailure::RollBack;
        fleet.run();
        fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
        fleet.decide();
        let finishes = supersede == Supersede::Finish;
        assert_eq!(fleet.rollout().number, if finishes { 1 } else { 2 });
        if finishes {
            fleet.pass(30 * MINUTE);
            assert_eq!(fleet.run(), ["r1", "c1"]);
            assert_eq!((fleet.level("c1"), fleet.level("r1")), (2, 1));
        } else {
            assert_eq!(fleet.world.memory.history[0].outcome, crate::Outcome::Superseded);
        }
    }
}

#[test]
fn a_rollout_that_cannot_end_does_not_keep_a_newer_set_waiting() {
    let mut fleet = Fleet::with(1, 1);
    fleet.world.policy.supersede = Supersede::Finish;
    fleet.decide();
    fleet.end("c1", NodeState::Failed);
    fleet.decide();
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    assert_eq!(fleet.decide(), ["c1"]);
    assert_eq!(fleet.rollout().number, 2);
    let past = &fleet.world.memory.history[0];
    assert_eq!((past.number, past.outcome, past.failed), (1, crate::Outcome::Failed, 1));
    assert_eq!(past.evidence[0].who, "c1");

    let mut withdrawn = Fleet::with(1, 1);
    withdrawn.world.policy.supersede = Supersede::Finish;
    withdrawn.run();
    let mut first = set(1, &[(1, 1)]);
    withdraw(&mut first);
    withdrawn.offer(vec![first, set(2, &[(1, 2)])]);
    assert_eq!(withdrawn.decide(), ["c1"]);
}

#[test]
fn a_withdrawn_level_stays_or_is_taken_off_as_people_ask() {
    for rolls_back in [false, true] {
        let mut fleet = Fleet::with(1, 1);
        fleet.world.policy.stages = vec![stage("canary", 1, 0)];
        fleet.run();
        fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
        fleet.run();
        assert_eq!(fleet.level("r1"), 2);
        if rolls_back {
            fleet.world.policy.on_withdrawn = OnWithdrawn::RollBack;
        }
        let mut second = set(2, &[(1, 2)]);
        withdraw(&mut second);
        fleet.offer(vec![set(1, &[(1, 1)]), second.clone()]);
        fleet.run();
        assert_eq!(fleet.level("c1"), if rolls_back { 1 } else { 2 });
        second.kernels.clear();
        let mut first = set(1, &[(1, 1)]);
        withdraw(&mut first);
        fleet.offer(vec![first, second]);
        fleet.run();
        assert_eq!(fleet.level("r1"), if rolls_back { 0 } else { 2 });
        if rolls_back {
            assert_eq!(fleet.run(), Vec::<String>::new(), "and stays off");
        } else {
            assert_eq!(fleet.hold("r1"), Some(Hold::TargetMissing));
        }
    }
}

#[test]
fn a_new_node_goes_straight_to_what_is_proven_and_then_waits_for_its_stage() {
    for new_nodes in [NewNodes::Proven, NewNodes::Staged] {
        let mut fleet = Fleet::with(1, 1);
        fleet.world.policy.new_nodes = new_nodes;
        fleet.run();
        fleet.pass(30 * MINUTE);
        fleet.run();
        fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
        assert_eq!(fleet.decide(), ["c1"]);
        fleet.obey("c1");
        fleet.add("new", 1, 1);
        fleet.add("other", 1, 2);
        let expected: &[&str] = if new_nodes == NewNodes::Proven { &["new"] } else { &[] };
        assert_eq!(fleet.decide(), expected);
        assert_eq!(fleet.hold("other"), Some(Hold::UnsupportedKernel));
        if new_nodes == NewNodes::Proven {
            fleet.obey("new");
            assert_eq!(fleet.level("new"), 1);
        }
        assert!(fleet.decide().is_empty());
        assert_eq!(fleet.hold("new"), Some(Hold::StageSoaking));
        fleet.pass(30 * MINUTE + 1);
        assert_eq!(fleet.run(), ["new", "r1"]);
        assert_eq!(fleet.level("new"), 2);
    }
}

#[test]
fn a_node_that_was_taken_down_is_not_new_and_waits_for_its_stage() {
    let mut fleet = Fleet::with(1, 1);
    fleet.run();
    fleet.pass(30 * MINUTE);
    fleet.run();
    fleet.world.policy.target = Wish::None;
    fleet.run();
    fleet.pass(30 * MINUTE);
    assert_eq!(fleet.run(), ["r1"]);
    fleet.world.policy.target = Wish::Latest;
    assert_eq!(fleet.run(), ["c1"]);
    assert_eq!(fleet.hold("r1"), Some(Hold::StageSoaking));
}

#[test]
fn a_node_that_boots_another_kernel_is_new_to_it() {
    let mut fleet = Fleet::with(1, 1);
    fleet.offer(vec![set(1, &[(1, 1), (2, 1)])]);
    fleet.add("other", 1, 2);
    fleet.run();
    fleet.pass(30 * MINUTE);
    fleet.run();
    fleet.pass(31 * MINUTE);
    fleet.run();
    fleet.offer(vec![set(1, &[(1, 1), (2, 1)]), set(2, &[(1, 2), (2, 2)])]);
    assert_eq!(fleet.run(), ["c1"]);
    let report = fleet.report("r1");
    (report.build_id, report.level, report.set, report.state) =
        (super::fleet::build(2), Level(0), None, NodeState::Idle);
    assert_eq!(fleet.decide(), ["r1"]);
    fleet.obey("r1");
    assert_eq!(fleet.level("r1"), 1);
}

#[test]
fn what_is_proven_is_given_to_new_nodes_although_the_next_rollout_failed() {
    let mut fleet = Fleet::with(1, 1);
    fleet.run();
    fleet.pass(30 * MINUTE);
    fleet.run();
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    fleet.decide();
    fleet.end("c1", NodeState::Failed);
    fleet.decide();
    fleet.add("new", 1, 1);
    assert_eq!(fleet.decide(), ["new"]);
    fleet.end("new", NodeState::Failed);
    assert!(fleet.decide().is_empty(), "once");
    assert_eq!(fleet.hold("new"), Some(Hold::AttemptEnded));
    assert_eq!(fleet.rollout().failed, 1, "that it failed says nothing about the newer set");
    assert_eq!(fleet.world.memory.proven[&super::fleet::build(1)].0, Level(1));
}

#[test]
fn a_window_of_one_second_starts_nothing() {
    let mut fleet = Fleet::with(1, 0);
    let zone = jiff::tz::TimeZone::UTC;
    let local = after(0).to_zoned(zone.clone());
    fleet.world.policy.windows = vec![crate::Window {
        days: vec![local.date().weekday()],
        start: local.time(),
        duration: Duration::from_secs(1),
        zone,
    }];
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("c1"), Some(Hold::OutsideWindow));
}

#[test]
fn who_goes_on_after_its_deadline_counts_towards_the_whole_fleets_limit() {
    let mut fleet = Fleet::with(1, 0);
    fleet.add("d1", 0, 2);
    fleet.world.policy.stages = vec![stage("canary", 2, 30)];
    fleet.offer(vec![set(1, &[(1, 1), (2, 1)]), set(2, &[(1, 2), (2, 2)])]);
    fleet.run();
    fleet.world.policy.target = Wish::Named(set_name(1));
    fleet.world.brakes.fleet = Some(1);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.obey("c1");
    fleet.world.brakes.fleet = Some(0);
    assert!(fleet.plan().actions.contains_key("c1"), "its start was counted");
    fleet.world.brakes.fleet = Some(1);
    fleet.world.now = fleet.rollout().deadline.unwrap();
    let made = fleet.plan();
    assert_eq!(made.actions.keys().collect::<Vec<_>>(), ["c1"], "down already, on its way to the lower set");
    assert_eq!(made.holds["d1"].hold, Hold::FleetLimit);
    fleet.world.brakes.fleet = Some(0);
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("c1"), Some(Hold::FleetLimit));
}

#[test]
fn a_policy_that_aims_at_nothing_still_counts_what_has_ended() {
    let mut fleet = Fleet::with(2, 0);
    fleet.world.policy.stages = vec![stage("canary", 2, 30)];
    fleet.run();
    let mut killed = fleet.clone();
    fleet.add("c3", 0, 1);
    assert_eq!(fleet.decide(), ["c3"]);
    fleet.obey("c3");
    fleet.world.offer = Offer::Unknown;
    fleet.decide();
    assert_eq!((fleet.rollout().started, fleet.rollout().finished), (3, 3));

    killed.add("c3", 0, 1);
    killed.world.memory = killed.plan().memory;
    killed.world.offer = Offer::Unknown;
    let deadline = killed.rollout().deadline;
    assert_eq!(killed.plan().wake, deadline, "then the fleet's limit is not used up any more");
    killed.world.now = deadline.unwrap();
    killed.decide();
    assert_eq!((killed.rollout().started, killed.rollout().finished), (3, 3));
}

#[test]
fn nothing_starts_in_a_window_that_closes_before_the_last_deadline_of_the_rollout_before() {
    // An instruction belongs to the rollout that it was given in by its deadline.
    for (closes, expected) in [(9, &[] as &[&str]), (10, &[]), (11, &["c1"])] {
        let mut fleet = Fleet::with(1, 0);
        fleet.run();
        fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
        fleet.world.policy.blackouts = vec![blackout(closes, 60)];
        assert_eq!(fleet.decide(), expected, "{closes} minutes");
    }
}

#[test]
fn a_rollout_that_moved_nobody_keeps_no_newer_set_waiting() {
    let mut fleet = Fleet::with(1, 1);
    fleet.world.policy.supersede = Supersede::Finish;
    fleet.world.policy.paused = true;
    fleet.decide();
    fleet.world.policy.paused = false;
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    assert_eq!(fleet.decide(), ["c1"]);
    assert_eq!((fleet.rollout().number, fleet.world.memory.history.len()), (2, 0));
}

#[test]
fn a_set_that_was_replaced_under_its_name_keeps_no_newer_set_waiting() {
    let mut fleet = Fleet::with(1, 1);
    fleet.world.policy.supersede = Supersede::Finish;
    fleet.run();
    let mut first = set(1, &[(1, 1)]);
    first.digest = super::fleet::digest(77);
    fleet.offer(vec![first, set(2, &[(1, 2)])]);
    assert_eq!(fleet.decide(), ["c1"]);
}
