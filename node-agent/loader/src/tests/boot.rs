//! What comes back after a boot, and what does not.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::Errno;

use super::*;
use crate::fake::{Killed, build_id};
use crate::store::full::FULL;
use invivo_terms::Refusal;

#[test]
fn a_settled_level_comes_back_by_itself_even_after_its_documents_expired() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &bundle);
    trial.kernel.pass(Duration::from_hours(400 * 24));
    trial.reboot("boot-2");
    let state = trial.ask();
    assert_eq!((state.state, state.level), (NodeState::Settled, Level(1)));
    assert_eq!(state.boot_id, "boot-2");
    assert_eq!(state.unpatched_seconds, Some(10));
    assert_eq!(trial.kernel.0.borrow().loads, std::slice::from_ref(&bundle.module));
    trial.restart();
    assert_eq!((trial.ask().unpatched_seconds, trial.kernel.loads()), (Some(10), 1));
}

#[test]
fn a_level_that_had_not_settled_does_not_come_back_until_told_anew() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.apply(2, &bundle);
    trial.reboot("boot-2");
    let state = trial.ask();
    assert_eq!((state.state, state.reason), (NodeState::Suspected, Some(fault(Fault::RebootedUnsettled))));
    assert_eq!((state.level, trial.kernel.loads()), (UNPATCHED, 0));
    assert_eq!(trial.apply(2, &bundle).state, NodeState::Suspected);
    assert_eq!(trial.apply(3, &bundle).state, NodeState::Applied);
}

#[test]
fn the_settled_level_below_an_unsettled_one_comes_back() {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &one);
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    trial.apply(3, &two);
    trial.reboot("boot-2");
    let state = trial.ask();
    assert_eq!((state.state, state.reason), (NodeState::Suspected, Some(fault(Fault::RebootedUnsettled))));
    assert_eq!((state.level, state.set), (Level(1), Some(one.set.clone())));
}

#[test]
fn a_boot_that_ended_while_the_settled_level_came_back_is_the_last_to_bring_it_back_by_itself() {
    for moment in [Killed::BeforeLoad, Killed::Waiting] {
        let mut trial = Trial::new();
        let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
        trial.settle(2, &bundle);
        trial.kernel.0.borrow_mut().killed = Some(moment);
        assert!(catch_unwind(AssertUnwindSafe(|| trial.reboot("boot-2"))).is_err());
        trial.kernel.0.borrow_mut().killed = None;
        for boot in ["boot-3", "boot-4"] {
            trial.reboot(boot);
            let state = trial.ask();
            assert_eq!(
                (state.state, state.reason),
                (NodeState::Suspected, Some(fault(Fault::RebootedBringingBack)))
            );
            assert_eq!((state.level, trial.kernel.loads()), (UNPATCHED, 0));
        }
        assert_eq!(trial.apply(2, &bundle).state, NodeState::Suspected);
        assert_eq!(trial.apply(3, &bundle).state, NodeState::Applied);
    }
}

#[test]
fn a_loader_killed_while_the_settled_level_came_back_sees_it_through_in_the_same_boot() {
    for moment in [Killed::BeforeLoad, Killed::Waiting] {
        let mut trial = Trial::new();
        let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
        trial.settle(2, &bundle);
        trial.kernel.0.borrow_mut().killed = Some(moment);
        assert!(catch_unwind(AssertUnwindSafe(|| trial.reboot("boot-2"))).is_err());
        trial.kernel.0.borrow_mut().killed = None;
        trial.restart();
        let state = trial.ask();
        assert_eq!((state.state, state.level, state.reason), (NodeState::Settled, Level(1), None));
        assert_eq!(trial.kernel.loads(), 1);
        trial.reboot("boot-3");
        assert_eq!(trial.ask().state, NodeState::Settled);
    }
}

#[test]
fn a_level_that_had_settled_once_and_was_put_on_anew_has_to_settle_anew() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &bundle);
    trial.kernel.0.borrow_mut().load_error = Some(Errno::KEYREJECTED);
    trial.reboot("boot-2");
    trial.kernel.0.borrow_mut().load_error = None;
    assert_eq!(trial.apply(3, &bundle).state, NodeState::Applied);
    trial.reboot("boot-3");
    let state = trial.ask();
    assert_eq!((state.state, state.reason), (NodeState::Suspected, Some(fault(Fault::RebootedUnsettled))));
    assert_eq!((state.level, trial.kernel.loads()), (UNPATCHED, 0));
}

#[test]
fn the_settled_level_is_not_brought_back_unless_that_can_be_written_down_first() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &bundle);
    FULL.set(true);
    trial.reboot("boot-2");
    let state = trial.ask();
    assert_eq!((state.state, state.reason), (NodeState::Refused, Some(refusal(Refusal::StorageFull))));
    assert_eq!((state.level, trial.kernel.loads()), (UNPATCHED, 0));
    FULL.set(false);
    trial.kernel.pass(Duration::from_secs(5));
    trial.loader.tick();
    assert_eq!(trial.ask().state, NodeState::Settled);
}

/// A node that found its kernel busy after a boot, and is still unpatched; it is busy no more.
fn busy_at_boot() -> Trial {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &bundle);
    trial.kernel.0.borrow_mut().load_error = Some(Errno::BUSY);
    trial.reboot("boot-2");
    trial.kernel.0.borrow_mut().load_error = None;
    let state = trial.ask();
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(refusal(Refusal::LoadRefused))));
    assert_eq!(state.level, UNPATCHED);
    trial
}

#[test]
fn a_kernel_that_was_too_busy_for_the_settled_level_is_asked_again_soon() {
    let mut trial = busy_at_boot();
    assert!(trial.loader.next_tick() <= Duration::from_secs(5));
    trial.loader.tick();
    assert_eq!(trial.ask().level, UNPATCHED, "not at once");
    trial.kernel.pass(Duration::from_secs(5));
    trial.loader.tick();
    let state = trial.ask();
    assert_eq!((state.state, state.level, state.reason), (NodeState::Settled, Level(1), None));
    assert_eq!(state.unpatched_seconds, Some(15));
    assert_eq!(trial.loader.next_tick(), Duration::from_mins(1));
}

#[test]
fn a_kernel_that_refused_the_settled_level_is_not_asked_again() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &bundle);
    trial.kernel.0.borrow_mut().load_error = Some(Errno::KEYREJECTED);
    trial.reboot("boot-2");
    trial.kernel.0.borrow_mut().load_error = None;
    trial.kernel.pass(Duration::from_hours(1));
    trial.loader.tick();
    assert_eq!((trial.ask().state, trial.ask().level), (NodeState::Failed, UNPATCHED));
}

#[test]
fn a_loader_or_a_node_that_starts_again_between_two_tries_tries_at_once() {
    let mut trial = busy_at_boot();
    trial.restart();
    assert_eq!(trial.ask().level, Level(1));
    let mut trial = busy_at_boot();
    trial.reboot("boot-3");
    assert_eq!(trial.ask().level, Level(1));
}

#[test]
fn an_instruction_carried_out_between_two_tries_ends_them() {
    let mut trial = busy_at_boot();
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    assert_eq!(trial.apply(3, &two).state, NodeState::Applied);
    trial.kernel.pass(Duration::from_hours(1));
    trial.loader.tick();
    assert_eq!((trial.ask().level, trial.kernel.loads()), (Level(2), 1));

    let mut trial = busy_at_boot();
    assert_eq!(trial.roll_back(3).state, NodeState::RolledBack);
    trial.kernel.pass(Duration::from_hours(1));
    trial.loader.tick();
    assert_eq!((trial.ask().level, trial.kernel.loads()), (UNPATCHED, 0));
}

#[test]
fn an_instruction_that_fails_between_two_tries_is_told_and_does_not_end_them() {
    let mut trial = busy_at_boot();
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    let mut request = trial.request(3, &two);
    request.deadline = trial.now();
    let state = trial.pass(request, &two.proof, &two.module);
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::DeadlinePassed))));
    trial.kernel.pass(Duration::from_secs(5));
    trial.loader.tick();
    let state = trial.ask();
    assert_eq!((state.level, state.reason), (Level(1), Some(fault(Fault::DeadlinePassed))));
}

#[test]
fn another_kernel_stays_unpatched_says_so_and_the_first_one_gets_its_level_back() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &bundle);
    trial.kernel.0.borrow_mut().running.kernel.build_id = build_id(0xcd);
    trial.reboot("boot-2");
    let state = trial.ask();
    assert_eq!((state.state, state.reason), (NodeState::Idle, Some(refusal(Refusal::WrongKernel))));
    assert_eq!((state.level, trial.kernel.loads()), (UNPATCHED, 0));
    trial.kernel.0.borrow_mut().running.kernel.build_id = build_id(0xab);
    trial.reboot("boot-3");
    let state = trial.ask();
    assert_eq!((state.state, state.level, state.reason), (NodeState::Settled, Level(1), None));
}

#[test]
fn a_stored_module_that_was_changed_is_not_loaded() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &bundle);
    let path = trial.state.path().join(format!("levels/{}.ko", invivo_feed::digest(&bundle.module)));
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    trial.reboot("boot-2");
    let state = trial.ask();
    assert_eq!((state.state, state.reason), (NodeState::Refused, Some(refusal(Refusal::ArbitrarySoftware))));
    assert_eq!((state.level, trial.kernel.loads()), (UNPATCHED, 0));
}

#[test]
fn a_root_that_people_no_longer_pin_brings_nothing_back() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &bundle);
    trial.author = author("example");
    trial.reboot("boot-2");
    let state = trial.ask();
    assert_eq!((state.state, state.reason), (NodeState::Refused, Some(refusal(Refusal::WrongRoot))));
    assert_eq!(trial.kernel.loads(), 0);
}

#[test]
fn floors_outlive_a_boot() {
    let mut trial = Trial::new();
    let old = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    let new = trial.author.renew(&old);
    trial.settle(2, &new);
    trial.reboot("boot-2");
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    let request = trial.request(3, &two);
    let state = trial.pass(request, &old.proof, &two.module);
    assert_eq!(state.reason, Some(refusal(Refusal::Rollback)));
}
