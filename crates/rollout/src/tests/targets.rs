//! What a policy's wish means, and that nothing is lowered by accident.

use super::fleet::{Fleet, MINUTE, after, build, digest, set, set_name};
use crate::{Blocked, Held, Instruction, Offer, OnWithdrawn, Set, Wish};
use invivo_terms::{Block, Hold, Level, NodeState};

fn blocked(set: Set, reason: Block) -> Set {
    Set { blocked: Some(Blocked { reason, until: None }), ..set }
}

fn delayed(set: Set, minutes: u64) -> Set {
    let until = Some(after(minutes * MINUTE));
    Set { blocked: Some(Blocked { reason: Block::Delayed, until }), ..set }
}

fn withdrawn(set: Set) -> Set {
    blocked(set, Block::Withdrawn)
}

fn withheld(set: Set) -> Set {
    blocked(set, Block::TestOnly)
}

/// Patched everywhere, every stage through.
fn patched(sets: Vec<Set>) -> Fleet {
    let mut fleet = Fleet::with(1, 2);
    fleet.offer(sets);
    fleet.run();
    fleet.pass(30 * MINUTE);
    fleet.run();
    fleet.pass(60 * MINUTE);
    assert!(fleet.rollout().complete);
    fleet
}

fn complete(fleet: &mut Fleet) {
    for _ in 0..10 {
        fleet.run();
        fleet.pass(31 * MINUTE);
    }
}

#[test]
fn each_node_gets_the_level_of_its_own_build_bound_to_every_digest() {
    let mut fleet = Fleet::with(1, 0);
    fleet.add("c2", 0, 2);
    fleet.world.policy.stages[0].max_parallel = crate::Parallel::Nodes(2);
    fleet.offer(vec![set(1, &[(1, 4), (2, 7)])]);
    let plan = fleet.plan();
    for (name, number, level) in [("c1", 1, 4), ("c2", 2, 7)] {
        let Instruction::Apply(apply) = &plan.actions[name] else { panic!("not an apply") };
        assert_eq!((&apply.build_id, apply.level), (&build(number), Level(level)));
        assert_eq!((&apply.set, &apply.digest), (&set_name(1), &digest(1)));
        assert_eq!(apply.manifest, digest(number * 1000 + level));
        assert_eq!(apply.from, (Level(0), None));
        assert_eq!(apply.settle_after.as_secs(), 30 * MINUTE);
    }
}

#[test]
fn a_build_that_a_set_does_not_touch_has_the_level_of_the_sets_before_it() {
    let mut fleet = Fleet::with(1, 0);
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)]), set(3, &[(2, 1)])]);
    let Instruction::Apply(apply) = &fleet.plan().actions["c1"] else { panic!("not an apply") };
    assert_eq!((apply.level, &apply.set), (Level(2), &set_name(2)));
}

#[test]
fn what_was_withdrawn_or_withheld_is_not_offered_by_way_of_a_later_set() {
    for middle in [withdrawn(set(2, &[(1, 2)])), withheld(set(2, &[(1, 2)]))] {
        let mut fleet = Fleet::with(1, 0);
        fleet.offer(vec![set(1, &[(1, 1)]), middle, set(3, &[(2, 1)])]);
        let Instruction::Apply(apply) = &fleet.plan().actions["c1"] else { panic!("not an apply") };
        assert_eq!(apply.level, Level(1));
    }
}

#[test]
fn latest_never_lowers() {
    let both = || vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])];
    let mut fleet = patched(both());
    for sets in [
        vec![set(1, &[(1, 1)]), withdrawn(set(2, &[(1, 2)]))],
        vec![set(1, &[(1, 1)]), withheld(set(2, &[(1, 2)]))],
        vec![set(1, &[(1, 1)])],
        vec![set(3, &[(2, 1)])],
    ] {
        fleet.offer(sets);
        complete(&mut fleet);
        assert_eq!(fleet.level("r1"), 2);
        assert_eq!(fleet.hold("r1"), Some(Hold::AheadOfTarget));
    }
    let number = fleet.rollout().number;
    fleet.offer(both());
    complete(&mut fleet);
    assert_eq!((fleet.rollout().number, fleet.hold("r1")), (number + 1, None));
}

#[test]
fn nothing_eligible_is_no_instruction() {
    let mut fleet = patched(vec![set(1, &[(1, 1)])]);
    for sets in [vec![], vec![withdrawn(set(1, &[(1, 1)]))]] {
        fleet.offer(sets);
        let memory = fleet.world.memory.clone();
        fleet.add("r9", 1, 1);
        assert!(fleet.decide().is_empty());
        assert_eq!(fleet.hold("r9"), Some(Hold::TargetMissing));
        assert_eq!(fleet.world.memory, memory);
    }
}

#[test]
fn a_feed_that_cannot_be_trusted_starts_nothing_and_takes_nothing_back() {
    let mut fleet = Fleet::with(2, 1);
    fleet.decide();
    fleet.world.offer = Offer::Unknown;
    let mut memory = fleet.world.memory.clone();
    assert!(fleet.decide().is_empty());
    assert!(fleet.plan().in_flight.contains("c1"));
    assert_eq!(fleet.world.memory, memory);
    memory.rollout.as_mut().unwrap().finished = 1;
    fleet.obey("c1");
    fleet.pass(100_000);
    assert!(fleet.decide().is_empty());
    assert!(fleet.plan().done.contains("c1"));
    assert_eq!(fleet.hold("c2"), Some(Hold::FeedStalled));
    assert_eq!(fleet.world.memory, memory);
}

#[test]
fn who_has_the_last_target_is_not_at_the_target_of_a_feed_that_offers_nothing() {
    let mut fleet = patched(vec![set(1, &[(1, 1)])]);
    fleet.world.offer = Offer::Suspended;
    assert!(fleet.plan().done.contains("c1"), "nothing is known of what is offered");
    fleet.offer(Vec::new());
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("c1"), Some(Hold::TargetMissing));
    assert_eq!(fleet.level("c1"), 1, "nothing was taken off");
}

#[test]
fn taking_patches_off_needs_no_feed() {
    let mut fleet = patched(vec![set(1, &[(1, 1)])]);
    fleet.world.offer = Offer::Unknown;
    fleet.world.policy.target = Wish::None;
    assert_eq!(fleet.run(), ["c1"]);
    assert_eq!(fleet.hold("r1"), Some(Hold::StageSoaking));
    complete(&mut fleet);
    assert_eq!((fleet.level("r1"), fleet.rollout().number, fleet.rollout().started), (0, 2, 3));
    assert!(fleet.rollout().complete);
}

#[test]
fn a_named_set_that_is_unknown_or_withdrawn_starts_nothing() {
    for sets in [vec![set(1, &[(1, 1)])], vec![set(1, &[(1, 1)]), withdrawn(set(2, &[(1, 2)]))]] {
        let mut fleet = Fleet::with(1, 0);
        fleet.world.policy.target = Wish::Named(set_name(2));
        fleet.world.policy.on_withdrawn = OnWithdrawn::RollBack;
        fleet.offer(sets);
        assert!(fleet.decide().is_empty());
        assert_eq!(fleet.hold("c1"), Some(Hold::TargetMissing));
    }
}

#[test]
fn a_named_set_need_not_be_what_latest_would_choose() {
    let mut fleet = Fleet::with(1, 0);
    fleet.world.policy.target = Wish::Named(set_name(2));
    fleet.offer(vec![set(1, &[(1, 1)]), withheld(set(2, &[(1, 2)])), set(3, &[(1, 3)])]);
    fleet.run();
    assert_eq!(fleet.level("c1"), 2);
}

#[test]
fn the_instruction_names_the_set_that_a_person_named_and_the_level_it_means() {
    let mut fleet = Fleet::with(1, 0);
    fleet.world.policy.target = Wish::Named(set_name(3));
    fleet.offer(vec![set(1, &[(1, 1)]), withheld(set(2, &[(1, 2)])), set(3, &[(2, 1)])]);
    let Instruction::Apply(apply) = &fleet.plan().actions["c1"] else { panic!("not an apply") };
    assert_eq!((&apply.set, &apply.digest, apply.level), (&set_name(3), &digest(3), Level(1)));
    assert_eq!(apply.manifest, digest(1001));
}

#[test]
fn going_down_to_a_named_set_passes_through_no_patch_as_one_movement() {
    let mut fleet = patched(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    fleet.world.policy.target = Wish::Named(set_name(1));
    assert_eq!(fleet.decide(), ["c1"]);
    assert!(matches!(fleet.node("c1").spec.clone().unwrap().instruction, Instruction::RollBack { .. }));
    fleet.obey("c1");
    assert_eq!((fleet.level("c1"), fleet.decide()), (0, vec!["c1".to_owned()]));
    fleet.obey("c1");
    fleet.decide();
    assert_eq!(fleet.level("c1"), 1);
    assert_eq!((fleet.rollout().started, fleet.rollout().finished), (1, 1));
    complete(&mut fleet);
    assert_eq!((fleet.level("r1"), fleet.level("r2")), (1, 1));
    assert_eq!((fleet.rollout().started, fleet.rollout().finished), (3, 3));
}

#[test]
fn a_node_midway_down_goes_on_although_another_failed() {
    let mut fleet = patched(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])]);
    fleet.world.policy.stages.clear();
    fleet.world.nodes.values_mut().for_each(|node| node.stage = 0);
    fleet.world.policy.rest.max_parallel = crate::Parallel::Nodes(2);
    fleet.world.memory.proven.insert(build(1), (Level(1), set_name(1)));
    fleet.world.policy.target = Wish::Named(set_name(1));
    assert_eq!(fleet.decide(), ["c1", "r1"]);
    fleet.obey("c1");
    fleet.end("r1", NodeState::Failed);
    assert_eq!(fleet.run(), ["c1"]);
    assert_eq!((fleet.level("c1"), fleet.hold("r2")), (1, Some(Hold::FailureBudgetSpent)));
}

#[test]
fn a_withdrawal_below_a_named_set_lowers_nobody() {
    let mut fleet = patched(vec![set(1, &[(1, 1)]), set(2, &[(1, 2)]), set(3, &[(2, 1)])]);
    fleet.world.policy.target = Wish::Named(set_name(3));
    complete(&mut fleet);
    fleet.offer(vec![set(1, &[(1, 1)]), withdrawn(set(2, &[(1, 2)])), set(3, &[(2, 1)])]);
    complete(&mut fleet);
    assert_eq!((fleet.level("r1"), fleet.hold("r1")), (2, Some(Hold::AheadOfTarget)));
}

#[test]
fn another_target_is_another_rollout_counted_from_nothing() {
    let mut fleet = patched(vec![set(1, &[(1, 1)])]);
    fleet.world.policy.target = Wish::None;
    let rollout = fleet.plan().memory.rollout.unwrap();
    assert_eq!((rollout.number, rollout.started, rollout.finished, rollout.stage), (2, 1, 0, 0));
    assert_eq!((rollout.target, rollout.complete, rollout.soak_until), (None, false, None));
}

#[test]
fn a_set_of_the_same_name_with_another_digest_is_another_rollout() {
    let mut fleet = patched(vec![set(1, &[(1, 1)])]);
    let mut other = set(1, &[(1, 1)]);
    other.digest = digest(77);
    fleet.offer(vec![other]);
    fleet.decide();
    assert_eq!(fleet.rollout().number, 2);
}

#[test]
fn a_node_that_failed_in_an_earlier_rollout_is_tried_again_in_the_next() {
    let mut fleet = Fleet::with(1, 0);
    fleet.decide();
    fleet.end("c1", NodeState::Failed);
    fleet.decide();
    fleet.world.policy.target = Wish::None;
    fleet.pass(60);
    fleet.decide();
    assert!(fleet.rollout().complete, "it runs no patch");
    fleet.world.policy.target = Wish::Latest;
    fleet.pass(60);
    assert_eq!(fleet.decide(), ["c1"]);
    assert_eq!(fleet.rollout().failed, 0);
}

#[test]
fn a_node_that_boots_another_kernel_did_not_fail() {
    let mut fleet = patched(vec![set(1, &[(1, 1), (2, 1)])]);
    let report = fleet.report("r1");
    report.build_id = build(2);
    report.level = Level(0);
    report.set = None;
    report.state = NodeState::Refused;
    assert_eq!(fleet.run(), ["r1"]);
    assert_eq!((fleet.rollout().failed, fleet.level("r1")), (0, 1));
}

#[test]
fn a_report_older_than_an_instruction_of_an_earlier_target_is_not_believed() {
    let mut fleet = Fleet::with(2, 0);
    fleet.decide();
    fleet.pass(20 * MINUTE);
    fleet.world.policy.target = Wish::None;
    fleet.decide();
    assert_eq!(fleet.hold("c1"), Some(Hold::StatusStale));
    fleet.end("c1", NodeState::Idle);
    assert!(fleet.plan().done.contains("c1"));
}

#[test]
fn a_suspended_feed_starts_nothing_but_lets_patches_be_taken_off() {
    let mut fleet = patched(vec![set(1, &[(1, 1)])]);
    fleet.add("r9", 1, 1);
    fleet.world.offer = Offer::Suspended;
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("r9"), Some(Hold::FeedSuspended));
    fleet.world.policy.target = Wish::None;
    assert!(!fleet.decide().is_empty());
}

#[test]
fn a_node_waits_for_what_is_withheld_and_is_told_until_when() {
    for (sets, hold, until) in [
        (vec![delayed(set(1, &[(1, 1)]), 5), delayed(set(2, &[(1, 2)]), 9)], Hold::Delayed, Some(5)),
        (
            vec![delayed(set(1, &[(1, 1)]), 5), blocked(set(2, &[(1, 2)]), Block::AwaitingApproval)],
            Hold::AwaitingApproval,
            None,
        ),
        (
            vec![blocked(set(1, &[(1, 1)]), Block::Quarantined), withdrawn(set(2, &[(1, 2)]))],
            Hold::SetQuarantined,
            None,
        ),
        (vec![blocked(set(1, &[(1, 1)]), Block::Rejected)], Hold::TargetMissing, None),
        (vec![blocked(set(1, &[(1, 1)]), Block::AfterDate)], Hold::TargetMissing, None),
    ] {
        let mut fleet = Fleet::with(1, 1);
        fleet.offer(sets);
        let plan = fleet.plan();
        let until = until.map(|minutes| after(minutes * MINUTE));
        for node in ["c1", "r1"] {
            assert_eq!(plan.holds.get(node), Some(&Held { hold, until }));
        }
        assert_eq!(plan.wake, until);
    }
}

#[test]
fn a_build_that_only_withheld_sets_know_waits_and_is_not_unsupported() {
    let mut fleet = Fleet::with(1, 0);
    fleet.add("r2", 1, 2);
    fleet.add("r3", 1, 3);
    fleet.offer(vec![set(1, &[(1, 1)]), delayed(set(2, &[(2, 1)]), 60)]);
    fleet.decide();
    assert_eq!(fleet.hold("r2"), Some(Hold::Delayed));
    assert_eq!(fleet.hold("r3"), Some(Hold::UnsupportedKernel));
}

#[test]
fn naming_a_set_overrides_its_age_and_channel_but_nobodys_decision() {
    for (reason, hold) in [
        (Block::Delayed, None),
        (Block::TestOnly, None),
        (Block::AfterDate, None),
        (Block::AwaitingApproval, Some(Hold::AwaitingApproval)),
        (Block::Rejected, Some(Hold::TargetMissing)),
        (Block::Quarantined, Some(Hold::SetQuarantined)),
        (Block::Withdrawn, Some(Hold::TargetMissing)),
    ] {
        let mut fleet = Fleet::with(1, 0);
        fleet.offer(vec![blocked(set(1, &[(1, 1)]), reason), set(2, &[(1, 2)])]);
        fleet.world.policy.target = Wish::Named(set_name(1));
        assert_eq!(fleet.decide().is_empty(), hold.is_some(), "{reason}");
        if hold.is_some() {
            assert_eq!(fleet.hold("c1"), hold, "{reason}");
        }
    }
}

#[test]
fn a_quarantined_set_is_not_proven_any_more_and_nobody_goes_there() {
    let both = || vec![set(1, &[(1, 1)]), set(2, &[(1, 2)])];
    let mut fleet = patched(both());
    assert_eq!(fleet.world.memory.proven.get(&build(1)), Some(&(Level(2), set_name(2))));
    let mut sets = both();
    sets[1] = blocked(sets[1].clone(), Block::Quarantined);
    fleet.offer(sets);
    fleet.decide();
    assert!(!fleet.world.memory.proven.contains_key(&build(1)));
    assert_eq!((fleet.level("r1"), fleet.hold("r1")), (2, Some(Hold::AheadOfTarget)));
}

#[test]
fn a_level_that_two_sets_bring_is_that_of_the_first() {
    let mut fleet = Fleet::with(1, 0);
    fleet.offer(vec![set(1, &[(1, 1)]), set(2, &[(1, 1)])]);
    let Instruction::Apply(apply) = &fleet.plan().actions["c1"] else { panic!("not an apply") };
    assert_eq!(apply.set, set_name(1));
}

#[test]
fn a_set_that_brings_no_level_brings_nothing() {
    let mut fleet = Fleet::with(1, 0);
    fleet.offer(vec![set(1, &[(1, 0)])]);
    assert_eq!(fleet.hold("c1"), Some(Hold::UnsupportedKernel));
}
