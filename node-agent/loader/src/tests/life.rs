//! What becomes of honest instructions.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::Errno;

use super::*;
use crate::fake::{Killed, Moment, build_id};
use crate::loader::LONGEST;
use crate::missed::Missed;
use crate::seen::Patch;
use crate::store::full::FULL;
use invivo_feed::store::StoreError;
use invivo_terms::Refusal;

#[test]
fn a_level_is_loaded_from_the_verified_buffer_applied_and_after_its_time_settled() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    assert_eq!(trial.hold(1).state, NodeState::Idle);
    let state = trial.apply(2, &bundle);
    assert_eq!((state.state, state.level, state.reason), (NodeState::Applied, Level(1), None));
    assert_eq!(state.order, Some(order("uid", 2)));
    assert_eq!(state.effective, "6.1.170-3+invivo1");
    assert_eq!(state.set, Some(bundle.set.clone()));
    assert!(
        state.switch_millis.is_some_and(|millis| (1200..1300).contains(&millis)),
        "{:?}",
        state.switch_millis
    );
    assert_eq!(trial.kernel.0.borrow().loads, std::slice::from_ref(&bundle.module));
    assert_eq!(state.settles_in_seconds, Some(1800));
    trial.kernel.pass(Duration::from_secs(1799));
    assert_eq!(trial.ask().state, NodeState::Applied);
    trial.kernel.pass(Duration::from_secs(1));
    let state = trial.ask();
    assert_eq!((state.state, state.settles_in_seconds), (NodeState::Settled, None));
}

#[test]
fn an_instruction_that_has_ended_is_not_carried_out_again() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.apply(2, &bundle);
    trial.restart();
    assert_eq!(trial.apply(2, &bundle).state, NodeState::Applied);
    assert_eq!(trial.kernel.loads(), 1);
}

#[test]
fn a_new_instruction_for_what_is_on_already_loads_nothing_and_keeps_its_settling_time() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.apply(2, &bundle);
    trial.kernel.pass(Duration::from_secs(1000));
    let state = trial.apply(3, &bundle);
    assert_eq!((state.state, state.settles_in_seconds), (NodeState::Applied, Some(800)));
    assert_eq!(trial.kernel.loads(), 1);
}

#[test]
fn a_higher_level_replaces_the_lower_one_and_removes_its_module() {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &one);
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    assert_eq!(trial.apply(3, &two).level, Level(2));
    assert_eq!(trial.kernel.0.borrow().modules.len(), 1);
}

#[test]
fn a_stuck_transition_is_reversed_and_its_blockers_named() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.kernel.0.borrow_mut().transition = None;
    let state = trial.apply(2, &bundle);
    assert_eq!((state.state, state.reason), (NodeState::Blocked, Some(fault(Fault::TransitionStuck))));
    assert!(state.message.unwrap().contains("sleeper (77)"));
    assert_eq!(state.level, UNPATCHED);
    assert!(trial.kernel.0.borrow().modules.is_empty());
    trial.kernel.0.borrow_mut().transition = Some(Duration::from_secs(1));
    assert_eq!(trial.apply(3, &bundle).state, NodeState::Applied);
}

#[test]
fn a_transition_that_cannot_even_be_reversed_is_said_to_be_so() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    {
        let mut world = trial.kernel.0.borrow_mut();
        (world.transition, world.reversal) = (None, None);
    }
    let state = trial.apply(2, &bundle);
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::CannotReverse))));
}

#[test]
fn a_transition_that_ends_while_its_blockers_are_looked_at_is_not_reversed() {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &one);
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    trial.sticks_until(Moment::WhileBlockersAreRead);
    let state = trial.apply(3, &two);
    assert_eq!((state.state, state.level), (NodeState::Applied, Level(2)));
    assert_eq!(trial.kernel.0.borrow().switches, 0);
}

#[test]
fn a_reversal_that_came_a_moment_too_late_leaves_the_node_at_the_level_of_before() {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &one);
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    trial.sticks_until(Moment::BeforeItIsReversed);
    trial.apply(3, &two);
    let state = trial.ask();
    assert_eq!((state.state, state.reason), (NodeState::Blocked, Some(fault(Fault::TransitionStuck))));
    assert_eq!(
        (state.level, state.set, state.order),
        (Level(1), Some(one.set.clone()), Some(order("uid", 3)))
    );
    assert_eq!((state.settles_in_seconds, state.unpatched_seconds), (None, None));
    trial.reboot("boot-2");
    assert_eq!(trial.ask().level, Level(1));
}

#[test]
fn a_level_that_had_not_settled_is_put_back_too_and_settles_anew() {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.apply(2, &one);
    trial.kernel.pass(Duration::from_secs(1000));
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    trial.sticks_until(Moment::BeforeItIsReversed);
    let state = trial.apply(3, &two);
    assert_eq!((state.state, state.level), (NodeState::Blocked, Level(1)));
    assert_eq!(state.settles_in_seconds, Some(1800));
}

#[test]
fn a_loader_killed_while_it_puts_the_level_of_before_back_goes_on_with_it() {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &one);
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    trial.sticks_until(Moment::BeforeItIsReversed);
    trial.kernel.0.borrow_mut().killed_then = Some(Killed::BeforeLoad);
    assert!(catch_unwind(AssertUnwindSafe(|| trial.apply(3, &two))).is_err());
    trial.kernel.0.borrow_mut().killed = None;
    trial.restart();
    let state = trial.ask();
    assert_eq!((state.state, state.reason), (NodeState::Blocked, Some(fault(Fault::TransitionStuck))));
    assert_eq!((state.level, state.order), (Level(1), Some(order("uid", 3))));
}

#[test]
fn a_level_of_before_that_cannot_be_put_back_is_said_to_be_lost() {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &one);
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    std::fs::remove_file(trial.state.path().join(format!("levels/{}.ko", invivo_feed::digest(&one.module))))
        .unwrap();
    trial.sticks_until(Moment::BeforeItIsReversed);
    let state = trial.apply(3, &two);
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::NodeIo))));
    assert!(state.message.unwrap().starts_with("level 1 could not be put back"));
    assert_eq!((state.level, trial.ask().reason), (UNPATCHED, Some(fault(Fault::NodeIo))));
}

#[test]
fn a_roll_back_that_ends_in_the_moment_before_it_is_reversed_counts() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &bundle);
    trial.sticks_until(Moment::BeforeItIsReversed);
    let state = trial.roll_back(3);
    assert_eq!((state.state, state.level), (NodeState::RolledBack, UNPATCHED));
}

#[test]
fn a_far_deadline_does_not_keep_the_loader_from_answering_while_a_transition_is_stuck() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.kernel.0.borrow_mut().transition = None;
    let mut request = trial.request(2, &bundle);
    request.deadline = trial.now() + SignedDuration::from_hours(3);
    let began = trial.now();
    let state = trial.pass(request, &bundle.proof, &bundle.module);
    assert_eq!((state.state, state.reason), (NodeState::Blocked, Some(fault(Fault::TransitionStuck))));
    let took = Duration::try_from(trial.now().duration_since(began)).unwrap();
    assert!(took < LONGEST + crate::step::UNDOING, "{took:?}");
}

#[test]
fn the_kernels_refusal_is_reported_with_its_errno() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.kernel.0.borrow_mut().load_error = Some(Errno::KEYREJECTED);
    let state = trial.apply(2, &bundle);
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(refusal(Refusal::LoadRefused))));
    assert!(state.message.unwrap().starts_with("EKEYREJECTED"));
}

#[test]
fn who_holds_a_function_that_the_kernel_does_not_give_away_is_named() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.kernel.0.borrow_mut().load_error = Some(Errno::BUSY);
    let state = trial.apply(2, &bundle);
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(refusal(Refusal::LoadRefused))));
    let message = state.message.unwrap();
    assert!(
        message.starts_with("EBUSY") && message.ends_with("; ip_options_get is held by a kprobe"),
        "{message}"
    );
}

#[test]
fn a_foreign_livepatch_is_not_replaced() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    let foreign = Patch { name: "kpatch_vendor".to_owned(), enabled: true, transition: false };
    trial.kernel.0.borrow_mut().patches.push((foreign, None));
    let state = trial.apply(2, &bundle);
    assert_eq!((state.state, state.reason), (NodeState::Refused, Some(fault(Fault::ForeignLivepatch))));
    assert_eq!(trial.kernel.loads(), 0);
}

#[test]
fn a_roll_back_takes_every_patch_and_module_off_and_nothing_comes_back() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &bundle);
    let state = trial.roll_back(3);
    assert_eq!((state.state, state.level), (NodeState::RolledBack, UNPATCHED));
    assert!(trial.kernel.0.borrow().modules.is_empty());
    trial.reboot("boot-2");
    let state = trial.ask();
    assert_eq!((state.state, state.level, trial.kernel.loads()), (NodeState::RolledBack, UNPATCHED, 0));
    assert_eq!(std::fs::read_dir(trial.state.path().join("levels")).unwrap().count(), 0);
    assert_eq!(trial.apply(4, &bundle).state, NodeState::Applied);
}

#[test]
fn a_stuck_roll_back_leaves_the_level_on() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &bundle);
    trial.kernel.0.borrow_mut().transition = None;
    let state = trial.roll_back(3);
    assert_eq!((state.state, state.reason), (NodeState::Blocked, Some(fault(Fault::TransitionStuck))));
    assert_eq!(state.level, Level(1));
}

#[test]
fn a_loader_killed_while_tasks_move_finds_the_patch_applied_and_does_not_load_it_again() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.kernel.0.borrow_mut().killed = Some(Killed::Waiting);
    assert!(catch_unwind(AssertUnwindSafe(|| trial.apply(2, &bundle))).is_err());
    trial.kernel.0.borrow_mut().killed = None;
    trial.restart();
    let state = trial.ask();
    assert_eq!(
        (state.state, state.level, state.order),
        (NodeState::Applied, Level(1), Some(order("uid", 2)))
    );
    assert_eq!(trial.apply(2, &bundle).state, NodeState::Applied);
    assert_eq!(trial.kernel.loads(), 1);
}

#[test]
fn a_loader_killed_before_the_load_is_told_again_and_then_loads() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.kernel.0.borrow_mut().killed = Some(Killed::BeforeLoad);
    assert!(catch_unwind(AssertUnwindSafe(|| trial.apply(2, &bundle))).is_err());
    trial.kernel.0.borrow_mut().killed = None;
    trial.restart();
    assert_eq!(trial.ask().state, NodeState::Working);
    assert_eq!(trial.apply(2, &bundle).state, NodeState::Applied);
}

#[test]
fn a_patch_taken_off_by_hand_is_reported_gone() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &bundle);
    trial.kernel.0.borrow_mut().patches.clear();
    let state = trial.ask();
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::Vanished))));
    assert_eq!((state.level, state.effective.as_str()), (UNPATCHED, "6.1.170-3"));
}

#[test]
fn nothing_is_loaded_that_cannot_be_written_down_first() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    // A file where the folder should be.
    let levels = trial.state.path().join("levels");
    std::fs::remove_dir_all(&levels).unwrap();
    std::fs::write(&levels, "").unwrap();
    let state = trial.apply(2, &bundle);
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::NodeIo))));
    assert_eq!(trial.kernel.loads(), 0);
    trial.restart();
    assert_eq!(trial.ask().order, Some(order("uid", 2)));
    std::fs::remove_file(&levels).unwrap();
    assert_eq!(trial.apply(3, &bundle).state, NodeState::Applied);
}

#[test]
fn a_disk_that_fills_up_while_a_level_is_loaded_takes_nothing_from_it() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.kernel.0.borrow_mut().load_fills_disk = true;
    let state = trial.apply(2, &bundle);
    assert_eq!((state.state, state.reason, state.level), (NodeState::Applied, None, Level(1)));
    FULL.set(false);
    trial.kernel.pass(Duration::from_mins(30));
    assert_eq!(trial.ask().state, NodeState::Settled);
    trial.kernel.0.borrow_mut().load_fills_disk = false;
    trial.reboot("boot-2");
    assert_eq!((trial.ask().state, trial.ask().level), (NodeState::Settled, Level(1)));
}

#[test]
fn a_full_disk_is_named() {
    let full =
        StoreError::Full { path: "/host/state".into(), source: std::io::ErrorKind::StorageFull.into() };
    assert_eq!(Missed::from(full).reason, Reason::Refusal(Refusal::StorageFull));
}

#[test]
fn a_deadline_that_has_passed_begins_nothing() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    let mut request = trial.request(2, &bundle);
    request.deadline = trial.now();
    let state = trial.pass(request, &bundle.proof, &bundle.module);
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::DeadlinePassed))));
    assert_eq!(trial.kernel.loads(), 0);
}

#[test]
fn a_hold_is_remembered_and_changes_nothing() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &bundle);
    let state = trial.hold(3);
    assert_eq!(
        (state.state, state.level, state.order),
        (NodeState::Settled, Level(1), Some(order("uid", 3)))
    );
}
