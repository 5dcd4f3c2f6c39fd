//! Boots that ended badly.

use std::fs;

use invivo_wire::{Answer, Evidence, Judgement};

use super::*;
use crate::fake::build_id;

/// What a kernel that died in this module's code leaves behind.
fn panic_in(module: &str) -> String {
    format!(
        "Panic#1 Part1\n<4>[ 61.3] RIP: 0010:ip_options_get+0x12/0x260 [{module}]\n<0>[ 61.4] Kernel panic - not syncing: Fatal exception\n"
    )
}

fn leave(trial: &Trial, record: String) {
    trial.kernel.0.borrow_mut().records.push(record);
}

fn module(trial: &Trial) -> String {
    trial.kernel.0.borrow().modules.last().unwrap().to_string()
}

fn first() -> (Trial, Bundle) {
    let trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    (trial, bundle)
}

#[test]
fn a_panic_that_names_an_unsettled_bundle_convicts_it_and_it_is_never_loaded_again() {
    let (mut trial, bundle) = first();
    trial.apply(2, &bundle);
    let record = panic_in(&module(&trial));
    leave(&trial, record.clone());
    trial.reboot("boot-2");
    let state = trial.ask();
    assert_eq!((state.state, state.reason), (NodeState::Convicted, Some(fault(Fault::PanicNamesPatch))));
    let Evidence { digest, excerpt } = state.evidence.unwrap();
    assert!(excerpt.contains("RIP: 0010:ip_options_get"), "{excerpt}");
    let kept = trial.state.path().join("evidence").join(digest.as_str());
    assert_eq!(fs::read_to_string(kept).unwrap(), record);
    for revision in [3, 4] {
        let state = trial.apply(revision, &bundle);
        assert_eq!((state.state, state.reason), (NodeState::Convicted, Some(fault(Fault::ConvictedHere))));
        trial.restart();
    }
    assert_eq!((trial.ask().level, trial.kernel.loads()), (UNPATCHED, 0));
    // Another bundle is not to blame.
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    assert_eq!(trial.apply(5, &two).state, NodeState::Applied);
}

#[test]
fn a_panic_that_names_a_settled_bundle_ends_its_coming_back() {
    let (mut trial, bundle) = first();
    trial.settle(2, &bundle);
    let record = panic_in(&module(&trial));
    leave(&trial, record);
    for boot in ["boot-2", "boot-3"] {
        trial.reboot(boot);
        let state = trial.ask();
        assert_eq!((state.state, state.reason), (NodeState::Convicted, Some(fault(Fault::PanicNamesPatch))));
        assert_eq!((state.level, trial.kernel.loads()), (UNPATCHED, 0));
    }
}

#[test]
fn a_panic_of_something_else_and_one_from_before_do_not_keep_a_settled_bundle_away() {
    let (mut trial, bundle) = first();
    trial.apply(2, &bundle);
    let old = panic_in(&module(&trial));
    trial.roll_back(3);
    leave(&trial, old);
    trial.restart();
    trial.settle(4, &bundle);
    leave(&trial, panic_in("ext4"));
    trial.reboot("boot-2");
    assert_eq!((trial.ask().state, trial.kernel.loads()), (NodeState::Settled, 1));
}

#[test]
fn a_second_boot_before_it_had_settled_convicts_without_any_record() {
    let (mut trial, bundle) = first();
    trial.apply(2, &bundle);
    trial.reboot("boot-2");
    assert_eq!(trial.ask().reason, Some(fault(Fault::RebootedUnsettled)));
    assert_eq!(trial.apply(3, &bundle).state, NodeState::Applied);
    trial.reboot("boot-3");
    let state = trial.ask();
    assert_eq!((state.state, state.reason), (NodeState::Convicted, Some(fault(Fault::RebootedAgain))));
    assert_eq!(trial.apply(4, &bundle).reason, Some(fault(Fault::ConvictedHere)));
    assert_eq!(trial.kernel.loads(), 0);
}

#[test]
fn a_suspicion_ends_when_the_bundle_settles_after_all() {
    let (mut trial, bundle) = first();
    trial.apply(2, &bundle);
    trial.reboot("boot-2");
    trial.settle(3, &bundle);
    trial.roll_back(4);
    trial.apply(5, &bundle);
    trial.reboot("boot-3");
    assert_eq!(trial.ask().state, NodeState::Suspected);
}

#[test]
fn only_a_person_on_the_node_clears_a_conviction() {
    let (mut trial, bundle) = first();
    trial.apply(2, &bundle);
    leave(&trial, panic_in(&module(&trial)));
    trial.reboot("boot-2");
    assert_eq!(trial.apply(3, &bundle).state, NodeState::Convicted);
    let Answer::Cleared { verdicts } = trial.loader.handle(Request::ClearVerdicts, &[]) else {
        panic!("not cleared")
    };
    assert_eq!((verdicts.len(), verdicts[0].judgement), (1, Judgement::Convicted));
    assert_eq!(trial.ask().state, NodeState::Idle);
    trial.restart();
    assert_eq!(trial.apply(4, &bundle).state, NodeState::Applied);
    assert_eq!(fs::read_dir(trial.state.path().join("evidence")).unwrap().count(), 0);
}

#[test]
fn a_verdict_is_written_down_before_anything_is_loaded_after_the_boot() {
    let (mut trial, one) = first();
    trial.settle(2, &one);
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    trial.apply(3, &two);
    leave(&trial, panic_in(&module(&trial)));
    // The node goes down again while the level below comes back.
    trial.kernel.0.borrow_mut().killed = Some(crate::fake::Killed::BeforeLoad);
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| trial.reboot("boot-2")));
    assert!(died.is_err());
    trial.kernel.0.borrow_mut().killed = None;
    trial.kernel.0.borrow_mut().records.clear();
    trial.restart();
    assert_eq!(trial.ask().level, Level(1));
    assert_eq!(trial.apply(4, &two).reason, Some(fault(Fault::ConvictedHere)));
}

#[test]
fn a_bundle_undone_for_an_oops_is_convicted_by_a_later_record_that_names_it() {
    let (mut trial, bundle) = first();
    trial.apply(2, &bundle);
    let record = panic_in(&module(&trial));
    trial.kernel.0.borrow_mut().health.oopses = Some(1);
    trial.loader.tick();
    assert_eq!(trial.ask().reason, Some(fault(Fault::KernelOops)));
    leave(&trial, record);
    trial.reboot("boot-2");
    let state = trial.ask();
    assert_eq!((state.state, state.reason), (NodeState::Convicted, Some(fault(Fault::PanicNamesPatch))));
    assert!(state.evidence.is_some());
    assert_eq!(trial.apply(3, &bundle).reason, Some(fault(Fault::ConvictedHere)));
}

#[test]
fn a_conviction_is_told_even_if_what_was_below_cannot_come_back() {
    let (mut trial, one) = first();
    trial.settle(2, &one);
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    trial.apply(3, &two);
    leave(&trial, panic_in(&module(&trial)));
    trial.kernel.0.borrow_mut().load_error = Some(rustix::io::Errno::INVAL);
    trial.reboot("boot-2");
    let state = trial.ask();
    assert_eq!((state.state, state.reason), (NodeState::Convicted, Some(fault(Fault::PanicNamesPatch))));
    assert!(state.message.unwrap().contains("EINVAL"));
}
