//! Attempts that end without success and say nothing about the patch.

use super::fleet::{Fleet, MINUTE, after, set, stage, withdraw};
use crate::{Instruction, Wish};
use invivo_terms::{Excuse, Hold, Level, NodeState};

/// The rest is under way, one node at a time; the canary has shown that the patch works.
fn rest_under_way(nodes: u32) -> Fleet {
    let mut fleet = Fleet::with(1, nodes);
    fleet.run();
    fleet.pass(30 * MINUTE);
    assert_eq!(fleet.decide(), ["r1"]);
    fleet
}

fn attempt(fleet: &mut Fleet, name: &str) -> u32 {
    match &fleet.node(name).spec.as_ref().unwrap().instruction {
        Instruction::Apply(apply) => apply.attempt,
        Instruction::RollBack { attempt, .. } => *attempt,
        Instruction::Hold => 0,
    }
}

#[test]
fn a_node_at_which_nothing_was_tried_does_not_stop_the_others() {
    let mut fleet = rest_under_way(3);
    fleet.pass(10 * MINUTE);
    fleet.miss("r1");
    assert_eq!(fleet.decide(), ["r2"]);
    assert_eq!(fleet.rollout().failed, 0);
    assert!(fleet.plan().failed.is_empty());
    let held = fleet.held("r1").unwrap();
    assert_eq!((held.hold, held.until), (Hold::NotTried, Some(after(50 * MINUTE))));
    fleet.obey("r2");
    assert_eq!(fleet.run(), ["r3"]);
    assert!(fleet.rollout().complete, "r1 is not waited for");
    assert_eq!(fleet.plan().wake, held.until, "nobody looks before");
}

#[test]
fn it_is_tried_again_each_time_after_twice_as_long() {
    let mut fleet = rest_under_way(1);
    for (number, rest) in (1..).zip([10, 20, 40, 80, 160, 320, 640, 640, 640]) {
        assert_eq!(attempt(&mut fleet, "r1"), number);
        fleet.pass(10 * MINUTE);
        fleet.miss("r1");
        assert!(fleet.decide().is_empty());
        assert_eq!(fleet.plan().wake, Some(fleet.world.now + std::time::Duration::from_secs(rest * MINUTE)));
        fleet.pass(rest * MINUTE - 1);
        assert!(fleet.decide().is_empty());
        fleet.pass(1);
        assert_eq!(fleet.decide(), ["r1"]);
    }
    fleet.obey("r1");
    fleet.decide();
    let rollout = fleet.rollout();
    assert_eq!((rollout.complete, rollout.started, rollout.finished, rollout.failed), (true, 11, 11, 0));
}

#[test]
fn a_node_that_is_tried_again_gives_its_slot_back_at_once() {
    let mut fleet = rest_under_way(2);
    fleet.pass(10 * MINUTE);
    fleet.miss("r1");
    assert_eq!(fleet.decide(), ["r2"]);
    fleet.obey("r2");
    fleet.pass(10 * MINUTE);
    assert_eq!(fleet.decide(), ["r1"]);
    fleet.add("r3", 1, 1);
    assert!(fleet.decide().is_empty(), "one at a time");
    fleet.obey("r1");
    assert_eq!(fleet.decide(), ["r3"]);
}

#[test]
fn nodes_that_never_answer_do_not_keep_the_others_from_their_turn() {
    let mut fleet = rest_under_way(9);
    let (mut names, mut done) = (vec!["r1".to_owned()], 0);
    for _ in 0..40 {
        let (dead, alive): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| ["r1", "r2", "r3"].contains(&name.as_str()));
        fleet.pass(if dead.is_empty() { MINUTE } else { 10 * MINUTE });
        for name in &dead {
            fleet.miss(name);
        }
        for name in &alive {
            fleet.obey(name);
        }
        done += alive.len();
        names = fleet.decide();
        if done == 6 {
            break;
        }
    }
    assert_eq!(done, 6);
    assert!(fleet.world.now <= after(30 * MINUTE + 36 * MINUTE), "three attempts in vain, six that worked");
}

#[test]
fn a_kernel_build_on_which_nothing_succeeded_is_not_passed_over() {
    let mut fleet = Fleet::with(1, 3);
    for _ in 0..20 {
        assert_eq!(fleet.decide(), ["c1"]);
        fleet.pass(10 * MINUTE);
        fleet.miss("c1");
        assert!(fleet.decide().is_empty());
        assert_eq!((fleet.rollout().stage, fleet.hold("r1")), (0, Some(Hold::NotInStage)));
        fleet.pass(640 * MINUTE);
    }
    assert!(fleet.world.memory.proven.is_empty());
    fleet.decide();
    fleet.obey("c1");
    fleet.decide();
    fleet.pass(30 * MINUTE);
    assert_eq!(fleet.decide(), ["r1"]);
}

#[test]
fn the_next_node_of_a_build_goes_first_where_the_first_could_not_be_tried() {
    let mut fleet = Fleet::with(2, 1);
    fleet.offer(vec![set(1, &[(1, 1), (2, 1)])]);
    fleet.add("d1", 0, 2);
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.pass(10 * MINUTE);
    fleet.miss("c1");
    assert_eq!(fleet.decide(), ["c2"]);
    fleet.obey("c2");
    assert_eq!(fleet.decide(), ["d1"]);
    fleet.pass(10 * MINUTE);
    fleet.miss("d1");
    // Build 1 was shown to work, build 2 was not: its canary is waited for.
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.obey("c1");
    fleet.decide();
    let view = fleet.plan().stage.unwrap();
    assert_eq!((view.done, view.excused, fleet.rollout().soak_until), (2, 0, None));
}

#[test]
fn a_blocked_node_is_excused_where_its_build_was_shown_to_work() {
    let mut fleet = rest_under_way(2);
    fleet.pass(10 * MINUTE);
    fleet.end("r1", NodeState::Blocked);
    assert_eq!(fleet.decide(), ["r2"]);
    assert_eq!((fleet.hold("r1"), fleet.rollout().failed), (Some(Hold::BlockedByThreads), 0));
    assert_eq!(fleet.plan().stage.unwrap().excused, 1);
}

#[test]
fn a_node_with_a_foreign_module_is_tried_again_later_or_at_once_where_it_may_be_left_out() {
    let mut fleet = rest_under_way(2);
    fleet.pass(MINUTE);
    fleet.end("r1", NodeState::Refused);
    fleet.report("r1").excuse = Some(Excuse::ForeignTarget);
    assert_eq!(fleet.decide(), ["r2"]);
    assert_eq!((fleet.hold("r1"), fleet.rollout().failed), (Some(Hold::ForeignTarget), 0));
    fleet.obey("r2");
    assert!(fleet.decide().is_empty());
    fleet.world.policy.allow_partial = true;
    assert_eq!(fleet.decide(), ["r1"]);
    assert!(matches!(
        &fleet.node("r1").spec.as_ref().unwrap().instruction,
        Instruction::Apply(apply) if apply.allow_partial
    ));
    fleet.end("r1", NodeState::Refused);
    fleet.report("r1").excuse = Some(Excuse::ForeignTarget);
    assert!(fleet.decide().is_empty(), "it was told already");
}

#[test]
fn a_roll_back_that_nobody_tried_is_tried_again() {
    let mut fleet = Fleet::with(1, 0);
    fleet.run();
    fleet.pass(11 * MINUTE);
    fleet.world.policy.target = Wish::None;
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.pass(10 * MINUTE);
    fleet.miss("c1");
    assert!(fleet.decide().is_empty());
    fleet.pass(10 * MINUTE);
    assert_eq!((fleet.decide(), attempt(&mut fleet, "c1")), (vec!["c1".to_owned()], 2));
    fleet.obey("c1");
    assert_eq!((fleet.level("c1"), fleet.plan().done.len()), (0, 1));
}

#[test]
fn a_node_that_booted_before_settling_is_tried_once_more_before_any_other() {
    let mut fleet = Fleet::with(3, 1);
    fleet.decide();
    fleet.pass(60);
    fleet.obey("c1");
    assert_eq!(fleet.decide(), ["c2"]);
    fleet.obey("c2");
    fleet.pass(60);
    fleet.reboot("c2");
    assert_eq!(fleet.decide(), ["c2"], "and not c3");
    assert_eq!(fleet.rollout().failed, 0);
    fleet.obey("c2");
    assert_eq!(fleet.decide(), ["c3"]);
    assert_eq!((fleet.rollout().started, fleet.rollout().finished), (4, 3));
}

/// Its patch was taken off by hand, or by a boot.
#[test]
fn what_a_node_has_lost_is_put_back_only_while_the_policy_still_wants_it() {
    let no_longer: [fn(&mut Fleet); 3] = [
        |fleet| fleet.world.policy.paused = true,
        |fleet| fleet.world.policy.target = Wish::None,
        |fleet| {
            let mut only = set(1, &[(1, 1)]);
            withdraw(&mut only);
            fleet.offer(vec![only]);
        },
    ];
    for (number, no_longer) in no_longer.into_iter().enumerate() {
        let mut fleet = Fleet::with(2, 0);
        fleet.run();
        fleet.reboot("c1");
        no_longer(&mut fleet);
        for _ in 0..3 {
            assert!(!fleet.decide().contains(&"c1".to_owned()), "{number}");
            fleet.pass(60);
        }
    }
    let mut wanted = Fleet::with(2, 0);
    wanted.run();
    wanted.reboot("c1");
    assert_eq!(wanted.decide(), ["c1"]);
}

#[test]
fn a_node_that_booted_twice_before_settling_has_failed() {
    let mut fleet = Fleet::with(2, 1);
    fleet.run();
    fleet.reboot("c1");
    assert_eq!(fleet.decide(), ["c1"]);
    fleet.obey("c1");
    fleet.decide();
    fleet.reboot("c1");
    fleet.pass(10_000);
    assert!(fleet.decide().is_empty());
    assert_eq!((fleet.rollout().failed, fleet.hold("c1")), (1, Some(Hold::AttemptEnded)));
    assert!(fleet.plan().failed.contains("c1"));
}

#[test]
fn going_down_and_up_again_is_one_attempt() {
    let mut fleet = Fleet::with(1, 0);
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    fleet.run();
    fleet.pass(11 * MINUTE);
    fleet.world.policy.target = Wish::Named(super::fleet::set_name(1));
    fleet.decide();
    fleet.obey("c1");
    assert_eq!((fleet.decide(), attempt(&mut fleet, "c1")), (vec!["c1".to_owned()], 1));
    fleet.pass(10 * MINUTE);
    fleet.miss("c1");
    fleet.decide();
    fleet.pass(10 * MINUTE);
    assert_eq!((fleet.decide(), attempt(&mut fleet, "c1")), (vec!["c1".to_owned()], 2));
    fleet.obey("c1");
    fleet.decide();
    assert_eq!((fleet.level("c1"), fleet.rollout().started, fleet.rollout().finished), (1, 2, 2));
}

#[test]
fn another_target_begins_to_count_attempts_anew() {
    let mut fleet = rest_under_way(1);
    fleet.pass(10 * MINUTE);
    fleet.miss("r1");
    fleet.decide();
    fleet.world.policy.stages = vec![stage("canary", 1, 0)];
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    assert_eq!(fleet.run(), ["c1", "r1"]);
    assert_eq!(
        (attempt(&mut fleet, "r1"), fleet.world.nodes["r1"].report.as_ref().unwrap().level),
        (1, Level(2))
    );
}
