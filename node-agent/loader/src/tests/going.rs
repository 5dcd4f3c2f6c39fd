//! Levels that did harm and go later than is waited for, and roll-backs that end late.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::Errno;

use super::*;
use crate::fake::{Killed, build_id};

const SOON: Option<Duration> = Some(Duration::from_millis(200));

fn oopses(trial: &mut Trial) -> State {
    {
        let mut world = trial.kernel.0.borrow_mut();
        world.health.oopses = world.health.oopses.map(|oopses| oopses + 1);
    }
    trial.kernel.pass(Duration::from_secs(1));
    trial.loader.tick();
    trial.ask()
}

/// Level 2 over a settled level 1. The kernel has oopsed, and tasks will not leave level 2.
fn stuck_undoing() -> (Trial, [Bundle; 2]) {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &one);
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    assert_eq!(trial.apply(3, &two).state, NodeState::Applied);
    trial.kernel.0.borrow_mut().transition = None;
    let state = oopses(&mut trial);
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::KernelOops))));
    assert!(state.message.unwrap().contains("could not be taken off"));
    assert_eq!(state.blockers.len(), 1);
    is_going(&trial);
    (trial, [one, two])
}

fn is_going(trial: &Trial) {
    let world = trial.kernel.0.borrow();
    let patches: Vec<_> = world.patches.iter().map(|(patch, _)| (patch.enabled, patch.transition)).collect();
    assert_eq!(patches, [(false, true)], "the tasks would go back to what did harm");
    assert!(world.put_on.is_empty());
}

/// What had kept the tasks lets them go after this.
fn goes_in(trial: &Trial, length: Duration) {
    let mut world = trial.kernel.0.borrow_mut();
    let at = world.since_boot + length;
    (world.transition, world.reversal) = (SOON, SOON);
    world.patches.iter_mut().filter(|(patch, _)| patch.transition).for_each(|(_, until)| *until = Some(at));
}

fn goes(trial: &mut Trial) -> State {
    goes_in(trial, Duration::ZERO);
    assert_eq!(trial.loader.next_tick(), Duration::from_secs(1));
    trial.kernel.pass(Duration::from_secs(1));
    trial.loader.tick();
    trial.ask()
}

fn held_against(trial: &Trial, bundle: &Bundle) -> Option<invivo_wire::Judgement> {
    let module = invivo_feed::digest(&bundle.module);
    trial.loader.journal.verdicts.of(&module).map(|verdict| verdict.judgement)
}

#[test]
fn an_undoing_that_is_stuck_goes_on_and_is_neither_reversed_nor_tried_every_second() {
    let (mut trial, [_, two]) = stuck_undoing();
    let switches = trial.kernel.0.borrow().switches;
    trial.kernel.pass(Duration::from_mins(40));
    trial.loader.tick();
    trial.restart();
    trial.loader.tick();
    assert_eq!(trial.kernel.0.borrow().switches, switches);
    is_going(&trial);
    // What did harm does not come back, and a second time convicts.
    trial.reboot("boot-2");
    assert_eq!(held_against(&trial, &two), Some(invivo_wire::Judgement::Convicted));
    assert!(trial.kernel.0.borrow().loads.iter().all(|image| *image != two.module));
}

#[test]
fn a_level_is_reported_until_the_last_task_has_left_it_and_never_as_applied() {
    let (mut trial, [_, two]) = stuck_undoing();
    let state = trial.ask();
    assert_eq!((state.state, state.level, state.set), (NodeState::Failed, Level(2), Some(two.set)));
    assert_eq!(state.effective, "6.1.170-3", "a scanner may not believe in it");
    assert_eq!(state.settles_in_seconds, None);
    // Whoever has nothing else to say of it says that it has not ended.
    let held = trial.hold(4);
    assert_eq!((held.state, held.level), (NodeState::Working, Level(2)));
    trial.restart();
    assert_eq!((trial.ask().state, trial.ask().level), (NodeState::Working, Level(2)));
    assert_eq!((goes(&mut trial).level, trial.ask().state), (Level(1), NodeState::Settled));
}

#[test]
fn an_undoing_that_ends_late_is_noticed_and_the_settled_level_comes_back() {
    let (mut trial, _) = stuck_undoing();
    let state = goes(&mut trial);
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::KernelOops))));
    assert_eq!((state.level, state.blockers), (Level(1), Vec::new()));
    let message = state.message.unwrap();
    assert!(message.ends_with("level 2 did harm and has come off at last"), "{message}");
    // Told once.
    trial.loader.tick();
    assert_eq!(trial.ask().message, Some(message));
    assert_eq!(trial.loader.next_tick(), Duration::from_mins(1));
}

#[test]
fn an_undoing_that_ends_while_no_loader_runs_is_noticed_too() {
    let (mut trial, _) = stuck_undoing();
    goes_in(&trial, Duration::ZERO);
    trial.kernel.pass(Duration::from_secs(1));
    trial.restart();
    assert_eq!(trial.ask().reason, Some(fault(Fault::KernelOops)), "not somebody else's doing");
    trial.loader.tick();
    assert_eq!((trial.ask().level, trial.ask().state), (Level(1), NodeState::Failed));
}

#[test]
fn a_loader_killed_at_any_moment_of_a_late_undoing_ends_it_the_same_way() {
    for calls in 0..25 {
        let (mut trial, _) = stuck_undoing();
        goes_in(&trial, Duration::ZERO);
        trial.kernel.pass(Duration::from_secs(1));
        trial.kernel.0.borrow_mut().calls_left = Some(calls);
        let killed = catch_unwind(AssertUnwindSafe(|| trial.loader.tick())).is_err();
        trial.kernel.0.borrow_mut().calls_left = None;
        if killed {
            trial.restart();
            trial.loader.tick();
        }
        let state = trial.ask();
        assert_eq!((state.level, state.state), (Level(1), NodeState::Failed), "after {calls}");
        assert_eq!(trial.kernel.0.borrow().put_on, [""; 0]);
    }
}

#[test]
fn what_somebody_puts_on_again_while_it_goes_is_taken_off_again() {
    let (mut trial, _) = stuck_undoing();
    {
        let mut world = trial.kernel.0.borrow_mut();
        world.transition = SOON;
        let (patch, until) = world.patches.first_mut().unwrap();
        (patch.enabled, patch.transition, *until) = (true, false, None);
    }
    trial.loader.tick();
    let state = trial.ask();
    assert_eq!((state.level, state.state), (Level(1), NodeState::Failed));
    assert!(state.message.unwrap().ends_with("it was taken off"));
    assert_eq!(trial.kernel.0.borrow().put_on, [""; 0]);
}

#[test]
fn a_roll_back_of_what_did_harm_does_not_put_it_on_again_and_ends_as_told_when_it_has_gone() {
    let (mut trial, _) = stuck_undoing();
    let state = trial.roll_back(4);
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::CannotReverse))));
    assert_eq!(state.level, Level(2), "who waits until it is off has to wait on");
    assert!(state.message.unwrap().contains("sleeper (77)"));
    is_going(&trial);
    let state = goes(&mut trial);
    assert_eq!((state.state, state.reason, state.level), (NodeState::RolledBack, None, UNPATCHED));
    assert_eq!(state.order, Some(order("uid", 4)));
    assert_eq!(trial.loader.next_tick(), Duration::from_mins(1));
    trial.reboot("boot-2");
    assert_eq!((trial.ask().level, trial.kernel.loads()), (UNPATCHED, 0));
}

#[test]
fn a_boot_ends_a_late_roll_back() {
    let (mut trial, [_, two]) = stuck_undoing();
    trial.roll_back(4);
    trial.reboot("boot-2");
    let state = trial.ask();
    // The boot ended with it, whatever was asked for.
    assert_eq!((state.state, state.level), (NodeState::Convicted, UNPATCHED));
    assert_eq!(held_against(&trial, &two), Some(invivo_wire::Judgement::Convicted));
    assert_eq!(trial.kernel.loads(), 0, "the settled level comes back no more");
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &one);
    cannot_be_reversed(&mut trial);
    trial.reboot("boot-2");
    let state = trial.ask();
    assert_eq!((state.state, state.reason, state.level), (NodeState::RolledBack, None, UNPATCHED));
    assert_eq!(trial.kernel.loads(), 0);
}

/// A roll-back of what did no harm, whose reversal is stuck too.
fn cannot_be_reversed(trial: &mut Trial) {
    (trial.kernel.0.borrow_mut().transition, trial.kernel.0.borrow_mut().reversal) = (None, None);
    let state = trial.roll_back(3);
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::CannotReverse))));
    assert_eq!(state.level, Level(1));
}

#[test]
fn a_roll_back_that_cannot_be_reversed_is_carried_out_when_the_level_has_gone_after_all() {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &one);
    cannot_be_reversed(&mut trial);
    trial.kernel.0.borrow_mut().patches.clear();
    trial.loader.tick();
    let state = trial.ask();
    assert_eq!((state.state, state.reason, state.level), (NodeState::RolledBack, None, UNPATCHED));
}

#[test]
fn a_roll_back_whose_reversal_ends_late_leaves_the_level_on_and_the_loader_at_rest() {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &one);
    cannot_be_reversed(&mut trial);
    let state = goes(&mut trial);
    assert_eq!((state.state, state.level), (NodeState::Failed, Level(1)));
    assert_eq!(trial.loader.next_tick(), Duration::from_mins(1));
    // It is not as told if somebody takes it off one day.
    trial.kernel.0.borrow_mut().patches.clear();
    trial.loader.tick();
    assert_eq!(trial.ask().reason, Some(fault(Fault::Vanished)));
}

#[test]
fn a_roll_back_in_which_the_kernel_oopses_does_not_put_the_level_on_again_and_blames_it() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.apply(2, &bundle);
    {
        let mut world = trial.kernel.0.borrow_mut();
        (world.transition, world.oops_at) = (None, Some(world.since_boot + Duration::from_mins(2)));
    }
    let state = trial.roll_back(3);
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::KernelOops))));
    is_going(&trial);
    trial.loader.tick();
    let suspected = Some(invivo_wire::Judgement::Suspected);
    assert_eq!(held_against(&trial, &bundle), suspected, "once for one oops");
    let state = goes(&mut trial);
    assert_eq!((state.state, state.level), (NodeState::RolledBack, UNPATCHED));
    assert_eq!(held_against(&trial, &bundle), suspected);
}

#[test]
fn an_oops_just_before_or_in_a_roll_back_that_ends_in_time_is_not_forgotten() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.apply(2, &bundle);
    trial.kernel.0.borrow_mut().health.oopses = Some(1);
    assert_eq!(trial.roll_back(3).state, NodeState::RolledBack);
    assert_eq!(held_against(&trial, &bundle), Some(invivo_wire::Judgement::Suspected));
}

#[test]
fn a_harm_that_is_found_while_a_late_roll_back_is_reversed_turns_it_round_again() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.apply(2, &bundle);
    {
        let mut world = trial.kernel.0.borrow_mut();
        (world.transition, world.reversal) = (None, None);
        world.oops_at = Some(world.since_boot + Duration::from_secs(615));
    }
    let state = trial.roll_back(3);
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::KernelOops))));
    {
        let world = trial.kernel.0.borrow();
        let (patch, _) = world.patches.first().unwrap();
        assert!(!patch.enabled && patch.transition);
    }
    assert_eq!(goes(&mut trial).state, NodeState::RolledBack);
}

#[test]
fn a_late_roll_back_of_what_did_no_harm_is_reversed_though_another_had_to_come_off_first() {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &one);
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    {
        let mut world = trial.kernel.0.borrow_mut();
        (world.transition, world.reversal) = (None, None);
    }
    assert_eq!(trial.apply(3, &two).reason, Some(fault(Fault::CannotReverse)));
    goes_in(&trial, Duration::from_secs(5));
    trial.kernel.0.borrow_mut().transition = None;
    let state = trial.roll_back(4);
    assert_eq!((state.state, state.reason), (NodeState::Blocked, Some(fault(Fault::TransitionStuck))));
    assert_eq!((state.level, state.set), (Level(1), Some(one.set)));
}

#[test]
fn a_roll_back_that_waits_for_another_to_come_off_leaves_what_is_on_as_it_is() {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &one);
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    (trial.kernel.0.borrow_mut().transition, trial.kernel.0.borrow_mut().reversal) = (None, None);
    assert_eq!(trial.apply(3, &two).reason, Some(fault(Fault::CannotReverse)));
    let state = trial.roll_back(4);
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::CannotReverse))));
    assert_eq!((state.level, state.set), (Level(1), Some(one.set)));
    assert_eq!((goes(&mut trial).level, trial.kernel.0.borrow().put_on.len()), (Level(1), 0));
    assert_eq!(trial.roll_back(5).state, NodeState::RolledBack);
}

#[test]
fn what_went_late_can_be_tried_again_and_settles() {
    let (mut trial, [_, two]) = stuck_undoing();
    goes_in(&trial, Duration::from_secs(5));
    assert_eq!(trial.apply(4, &two).state, NodeState::Applied);
    trial.kernel.pass(Duration::from_mins(30));
    assert_eq!((trial.ask().state, trial.ask().level), (NodeState::Settled, Level(2)));
}

/// Wherever the loader is killed while it is loaded anew.
#[test]
fn what_did_harm_and_is_loaded_anew_has_no_past_wherever_the_loader_is_killed() {
    for killed in [Killed::BeforeLoad, Killed::Waiting] {
        let mut trial = Trial::new();
        let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
        trial.apply(2, &two);
        // It cannot be taken off by the loader, and somebody takes it off.
        trial.loader.journal.active.as_mut().unwrap().harmed = true;
        trial.kernel.0.borrow_mut().patches.clear();
        trial.kernel.0.borrow_mut().modules.clear();
        trial.kernel.0.borrow_mut().killed = Some(killed);
        assert!(catch_unwind(AssertUnwindSafe(|| trial.apply(3, &two))).is_err());
        trial.kernel.0.borrow_mut().killed = None;
        trial.restart();
        assert_eq!(trial.apply(3, &two).state, NodeState::Applied);
        trial.kernel.pass(Duration::from_mins(30));
        assert_eq!((trial.ask().state, trial.ask().level), (NodeState::Settled, Level(2)), "{killed:?}");
    }
}

#[test]
fn a_level_that_came_on_when_nobody_wanted_it_settles_once_somebody_does() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    (trial.kernel.0.borrow_mut().transition, trial.kernel.0.borrow_mut().reversal) = (None, None);
    assert_eq!(trial.apply(2, &bundle).reason, Some(fault(Fault::CannotReverse)));
    assert_eq!(trial.ask().level, Level(1), "tasks are in it");
    {
        let mut world = trial.kernel.0.borrow_mut();
        let (patch, _) = world.patches.first_mut().unwrap();
        (patch.enabled, patch.transition) = (true, false);
    }
    assert_eq!((trial.ask().state, trial.ask().level), (NodeState::Failed, Level(1)));
    assert_eq!(trial.apply(3, &bundle).state, NodeState::Applied);
    // It is looked after like any other.
    assert_eq!(trial.loader.next_tick(), Duration::from_secs(1));
    trial.kernel.pass(Duration::from_mins(30));
    assert_eq!(trial.ask().state, NodeState::Settled);
}

#[test]
fn where_a_load_fails_that_had_waited_for_it_the_settled_level_comes_back_all_the_same() {
    let (mut trial, _) = stuck_undoing();
    let three = trial.author.publish(&build_id(0xab), 3, "2026-11-21.3");
    goes_in(&trial, Duration::from_secs(5));
    trial.kernel.0.borrow_mut().load_error = Some(Errno::NOEXEC);
    let state = trial.apply(4, &three);
    assert_eq!(
        (state.state, state.reason),
        (NodeState::Failed, Some(refusal(invivo_terms::Refusal::LoadRefused)))
    );
    trial.kernel.0.borrow_mut().load_error = None;
    trial.loader.tick();
    assert_eq!((trial.ask().level, trial.ask().reason), (Level(1), state.reason));
}

#[test]
fn a_second_level_that_does_harm_meanwhile_is_not_forgotten() {
    let (mut trial, [_, two]) = stuck_undoing();
    let three = trial.author.publish(&build_id(0xab), 3, "2026-11-21.3");
    goes_in(&trial, Duration::from_secs(5));
    {
        let mut world = trial.kernel.0.borrow_mut();
        (world.transition, world.reversal) = (None, None);
        world.oops_at = Some(world.since_boot + Duration::from_secs(10));
    }
    let state = trial.apply(4, &three);
    assert_eq!((state.reason, state.level), (Some(fault(Fault::KernelOops)), Level(3)));
    let since = trial.kernel.0.borrow().since_boot;
    for _ in 0..3 {
        trial.loader.tick();
    }
    // Level 1 has to wait, and so that the loader does not.
    assert_eq!(trial.kernel.0.borrow().since_boot, since);
    is_going(&trial);
    let suspected = Some(invivo_wire::Judgement::Suspected);
    assert_eq!([held_against(&trial, &two), held_against(&trial, &three)], [suspected, suspected]);
    let mut cut = trial.loader.journal.clone();
    assert_eq!((goes(&mut trial).level, trial.loader.next_tick()), (Level(1), Duration::from_mins(1)));
    // The other way: a boot ends with both of them known.
    std::mem::swap(&mut trial.loader.journal, &mut cut);
    trial.loader.save();
    trial.reboot("boot-2");
    let convicted = Some(invivo_wire::Judgement::Convicted);
    assert_eq!([held_against(&trial, &two), held_against(&trial, &three)], [convicted, convicted]);
}

#[test]
fn a_transition_of_somebody_elses_is_waited_for_before_a_level_is_taken_off() {
    for (ends, state) in [(Some(Duration::from_secs(30)), UNPATCHED), (None, Level(1))] {
        let mut trial = Trial::new();
        let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
        trial.apply(2, &bundle);
        {
            let mut world = trial.kernel.0.borrow_mut();
            let until = ends.map(|ends| world.since_boot + ends);
            let name = "kpatch_x".to_owned();
            world.patches.push((crate::seen::Patch { name, enabled: false, transition: true }, until));
        }
        let told = oopses(&mut trial);
        assert_eq!((told.reason, told.level), (Some(fault(Fault::KernelOops)), state));
        let message = told.message.unwrap();
        let busy = message.contains("could not be taken off: kernel files");
        assert_eq!(busy, ends.is_none(), "{message}");
    }
}

#[test]
fn nothing_is_put_back_over_what_is_on() {
    let (mut trial, _) = stuck_undoing();
    {
        let mut world = trial.kernel.0.borrow_mut();
        world.patches.clear();
        let name = "invivo_l3_0123456789abcdef".to_owned();
        world.patches.push((crate::seen::Patch { name, enabled: true, transition: false }, None));
    }
    trial.loader.tick();
    let state = trial.ask();
    assert_eq!((state.state, state.level), (NodeState::Failed, Level(3)));
    assert!(state.message.unwrap().ends_with("has come off at last"));
}
