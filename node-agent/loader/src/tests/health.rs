//! Levels that do harm before they have settled.

use super::*;
use crate::fake::build_id;
use crate::health::Health;

fn applied() -> (Trial, Bundle) {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    assert_eq!(trial.apply(2, &bundle).state, NodeState::Applied);
    (trial, bundle)
}

fn happens(trial: &mut Trial, change: impl FnOnce(&mut Health)) -> State {
    change(&mut trial.kernel.0.borrow_mut().health);
    assert_eq!(trial.loader.next_tick(), Duration::from_secs(1));
    trial.kernel.pass(Duration::from_secs(1));
    trial.loader.tick();
    trial.ask()
}

#[test]
fn an_oops_before_it_had_settled_takes_it_off_and_a_second_one_convicts() {
    let (mut trial, bundle) = applied();
    let state = happens(&mut trial, |health| health.oopses = Some(1));
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::KernelOops))));
    assert_eq!(state.level, UNPATCHED);
    assert!(state.message.unwrap().ends_with("it was taken off"));
    // It is not put on again by itself, in this boot or the next.
    trial.reboot("boot-2");
    assert_eq!((trial.ask().level, trial.kernel.loads()), (UNPATCHED, 0));
    assert_eq!(trial.apply(3, &bundle).state, NodeState::Applied);
    assert_eq!(happens(&mut trial, |health| health.oopses = Some(1)).level, UNPATCHED);
    assert_eq!(trial.apply(4, &bundle).reason, Some(fault(Fault::ConvictedHere)));
}

#[test]
fn what_was_settled_before_is_put_back_in_its_place() {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &one);
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    trial.apply(3, &two);
    let state = happens(&mut trial, |health| health.tainted |= 1 << 14);
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::KernelLockup))));
    assert_eq!((state.level, state.set), (Level(1), Some(one.set)));
}

#[test]
fn a_warning_is_told_and_takes_nothing_off() {
    let (mut trial, _) = applied();
    let state = happens(&mut trial, |health| health.warnings = Some(3));
    assert_eq!((state.state, state.reason), (NodeState::Applied, Some(fault(Fault::KernelWarning))));
    assert_eq!(state.level, Level(1));
    trial.kernel.pass(Duration::from_mins(30));
    assert_eq!(trial.ask().state, NodeState::Settled);
}

#[test]
fn troubles_of_a_kernel_whose_level_has_settled_take_nothing_off() {
    let (mut trial, _) = applied();
    trial.kernel.pass(Duration::from_mins(30));
    assert_eq!(trial.ask().state, NodeState::Settled);
    trial.kernel.0.borrow_mut().health.oopses = Some(1);
    assert_eq!(trial.loader.next_tick(), Duration::from_mins(1));
    trial.loader.tick();
    assert_eq!((trial.ask().state, trial.ask().level), (NodeState::Settled, Level(1)));
}

#[test]
fn an_oops_that_nobody_had_looked_at_when_it_would_have_settled_comes_first() {
    let (mut trial, _) = applied();
    trial.kernel.pass(Duration::from_mins(40));
    trial.kernel.0.borrow_mut().health.oopses = Some(1);
    trial.restart();
    assert_eq!(trial.ask().state, NodeState::Applied);
    trial.loader.tick();
    let state = trial.ask();
    assert_eq!((state.reason, state.level), (Some(fault(Fault::KernelOops)), UNPATCHED));
}

#[test]
fn a_loader_killed_while_undoing_sees_it_through() {
    let (mut trial, _) = applied();
    trial.kernel.0.borrow_mut().health.oopses = Some(1);
    trial.kernel.0.borrow_mut().killed = Some(crate::fake::Killed::Waiting);
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| trial.loader.tick()));
    assert!(died.is_err());
    trial.kernel.0.borrow_mut().killed = None;
    trial.restart();
    let state = trial.ask();
    assert_eq!((state.state, state.level), (NodeState::Failed, UNPATCHED));
    assert_eq!(state.reason, Some(fault(Fault::KernelOops)));
}

#[test]
fn a_load_that_kills_the_loader_is_blamed_and_not_tried_again() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.kernel.0.borrow_mut().load_oopses = true;
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| trial.apply(2, &bundle)));
    assert!(died.is_err());
    trial.kernel.0.borrow_mut().load_oopses = false;
    trial.restart();
    let state = trial.ask();
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::KernelOops))));
    // The same instruction has ended; a new one finds half a module, which no load may wait for.
    assert_eq!(trial.apply(2, &bundle).state, NodeState::Failed);
    let state = trial.apply(3, &bundle);
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::KernelOops))));
    assert_eq!(trial.kernel.loads(), 0);
    trial.reboot("boot-2");
    assert_eq!(trial.apply(4, &bundle).state, NodeState::Applied);
}

#[test]
fn an_oops_while_tasks_move_is_not_waited_out() {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &one);
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    {
        let mut world = trial.kernel.0.borrow_mut();
        (world.transition, world.oops_at) = (None, Some(world.since_boot + Duration::from_secs(3)));
    }
    let began = trial.kernel.0.borrow().since_boot;
    let state = trial.apply(3, &two);
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::KernelOops))));
    assert_eq!((state.level, state.set), (Level(1), Some(one.set)));
    let took = trial.kernel.0.borrow().since_boot.saturating_sub(began);
    assert!(took < Duration::from_secs(6), "{took:?}");
    trial.kernel.0.borrow_mut().transition = Some(Duration::from_millis(200));
    assert_eq!(trial.apply(4, &two).state, NodeState::Applied);
    assert_eq!(happens(&mut trial, |health| health.oopses = Some(2)).level, Level(1));
    assert_eq!(trial.apply(5, &two).reason, Some(fault(Fault::ConvictedHere)));
}

#[test]
fn what_could_neither_end_nor_be_reversed_is_minded_when_it_comes_after_all() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    {
        let mut world = trial.kernel.0.borrow_mut();
        (world.transition, world.reversal) = (None, None);
    }
    assert_eq!(trial.apply(2, &bundle).reason, Some(fault(Fault::CannotReverse)));
    {
        let mut world = trial.kernel.0.borrow_mut();
        let (patch, until) = world.patches.first_mut().unwrap();
        (patch.enabled, *until) = (true, Some(Duration::ZERO));
    }
    trial.kernel.pass(Duration::from_hours(2));
    let state = trial.ask();
    assert_eq!(
        (state.level, state.set.as_ref(), state.state),
        (Level(1), Some(&bundle.set), NodeState::Failed)
    );
    trial.reboot("boot-2");
    assert_eq!((trial.ask().state, trial.kernel.loads()), (NodeState::Suspected, 0));
}

#[test]
fn a_level_settles_no_sooner_than_the_node_allows() {
    let mut trial = Trial::new();
    trial.loader.settle_no_sooner_than(Duration::from_mins(1));
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    let request = ApplyRequest { settle_after_seconds: 0, ..trial.request(2, &bundle) };
    assert_eq!(trial.pass(request, &bundle.proof, &bundle.module).state, NodeState::Applied);
    trial.kernel.pass(Duration::from_secs(59));
    assert_eq!(trial.ask().state, NodeState::Applied);
    trial.kernel.pass(Duration::from_secs(1));
    assert_eq!(trial.ask().state, NodeState::Settled);
}

#[test]
fn a_warning_in_its_own_code_takes_it_off_where_the_log_may_be_read() {
    let (mut trial, bundle) = applied();
    let module = trial.kernel.0.borrow().modules.last().unwrap().to_string();
    let log = format!("[ 9.0] WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2 [{module}]");
    trial.kernel.0.borrow_mut().log =
        Some("[ 9.0] WARNING: CPU: 0 PID: 1 at b.c:2 g+0x1/0x2 [ext4]".to_owned());
    let state = happens(&mut trial, |health| health.warnings = Some(1));
    assert_eq!((state.state, state.reason), (NodeState::Applied, Some(fault(Fault::KernelWarning))));
    assert!(state.message.unwrap().contains("something else"));
    trial.kernel.0.borrow_mut().log = Some(log.clone());
    let state = happens(&mut trial, |health| health.warnings = Some(2));
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::WarningNamesPatch))));
    assert_eq!((state.level, state.evidence.unwrap().excerpt), (UNPATCHED, log));
    assert_eq!(std::fs::read_dir(trial.state.path().join("evidence")).unwrap().count(), 1);
    assert_eq!(trial.apply(3, &bundle).state, NodeState::Applied);
}
