//! Nodes that are shut down in order, and what is no such thing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::fake::{Killed, build_id};

impl Trial {
    fn shut_down(&mut self, next: &str) -> State {
        self.told_to_end();
        self.reboot(next);
        self.ask()
    }

    fn nothing_is_held(&self) {
        assert_eq!(self.loader.journal.verdicts, crate::verdict::Verdicts::default());
    }
}

fn applied() -> (Trial, Bundle) {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    assert_eq!(trial.apply(2, &bundle).state, NodeState::Applied);
    (trial, bundle)
}

#[test]
fn a_shutdown_in_order_before_a_level_has_settled_is_held_against_nothing_however_often() {
    let (mut trial, bundle) = applied();
    for (revision, boot) in [(3, "boot-2"), (4, "boot-3"), (5, "boot-4")] {
        let state = trial.shut_down(boot);
        assert_eq!((state.state, state.reason, state.level), (NodeState::Idle, None, UNPATCHED));
        assert!(state.message.unwrap().contains("shut down in order before level 1 had settled"));
        assert_eq!((trial.kernel.loads(), state.order.unwrap().revision.0), (0, revision - 1));
        trial.nothing_is_held();
        assert_eq!(trial.apply(revision, &bundle).state, NodeState::Applied);
    }
    trial.kernel.pass(Duration::from_mins(30));
    assert_eq!(trial.ask().state, NodeState::Settled);
}

#[test]
fn the_settled_level_below_comes_back_after_it() {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &one);
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    trial.apply(3, &two);
    let state = trial.shut_down("boot-2");
    assert_eq!((state.state, state.level), (NodeState::Settled, Level(1)));
    trial.nothing_is_held();
}

#[test]
fn a_shutdown_in_order_in_the_middle_of_a_load_is_held_against_nothing() {
    for moment in [Killed::BeforeLoad, Killed::Waiting] {
        let mut trial = Trial::new();
        let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
        trial.kernel.0.borrow_mut().killed = Some(moment);
        assert!(catch_unwind(AssertUnwindSafe(|| trial.apply(2, &bundle))).is_err());
        trial.kernel.0.borrow_mut().killed = None;
        let state = trial.shut_down("boot-2");
        assert_eq!((state.state, state.level, trial.kernel.loads()), (NodeState::Idle, UNPATCHED, 0));
        trial.nothing_is_held();
    }
}

#[test]
fn a_settled_level_that_was_on_its_way_back_comes_back_in_the_next_boot() {
    for moment in [Killed::BeforeLoad, Killed::Waiting] {
        let mut trial = Trial::new();
        let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
        trial.settle(2, &bundle);
        trial.kernel.0.borrow_mut().killed = Some(moment);
        assert!(catch_unwind(AssertUnwindSafe(|| trial.reboot("boot-2"))).is_err());
        trial.kernel.0.borrow_mut().killed = None;
        let state = trial.shut_down("boot-3");
        assert_eq!((state.state, state.level), (NodeState::Settled, Level(1)));
        trial.nothing_is_held();
    }
}

#[test]
fn a_container_that_ended_in_order_excuses_nothing_that_comes_after_the_next_one() {
    let (mut trial, _) = applied();
    trial.told_to_end();
    trial.restart();
    trial.reboot("boot-2");
    assert_eq!(trial.ask().reason, Some(fault(Fault::RebootedUnsettled)));
}

#[test]
fn the_mark_of_one_boot_excuses_no_other() {
    let (mut trial, bundle) = applied();
    trial.shut_down("boot-2");
    trial.apply(3, &bundle);
    // Nobody was told to end in this one.
    trial.reboot("boot-3");
    assert_eq!(trial.ask().reason, Some(fault(Fault::RebootedUnsettled)));
    // What is suspected stays so, and is not convicted by a shutdown in order.
    trial.apply(4, &bundle);
    assert_eq!(trial.shut_down("boot-4").state, NodeState::Idle);
    trial.apply(5, &bundle);
    trial.reboot("boot-5");
    assert_eq!(trial.ask().reason, Some(fault(Fault::RebootedAgain)));
}

#[test]
fn a_panic_after_the_loader_had_ended_is_no_shutdown_in_order() {
    for (code, reason) in [("invivo", Fault::PanicNamesPatch), ("ext4", Fault::RebootedUnsettled)] {
        let (mut trial, _) = applied();
        let module = trial.kernel.0.borrow().modules.last().unwrap().to_string();
        let module = if code == "invivo" { module } else { code.to_owned() };
        trial.kernel.0.borrow_mut().records.push(format!("<4>[ 9.0] RIP: 0010:f+0x1/0x2 [{module}]"));
        assert_eq!(trial.shut_down("boot-2").reason, Some(fault(reason)));
    }
}

#[test]
fn what_did_harm_before_stays_told_and_is_not_convicted_for_it_a_second_time() {
    let (mut trial, bundle) = applied();
    trial.kernel.0.borrow_mut().transition = None;
    trial.kernel.0.borrow_mut().health.oopses = Some(1);
    trial.loader.tick();
    let state = trial.shut_down("boot-2");
    assert_eq!((state.state, state.reason), (NodeState::Failed, Some(fault(Fault::KernelOops))));
    assert_eq!((state.level, trial.kernel.loads()), (UNPATCHED, 0));
    let module = invivo_feed::digest(&bundle.module);
    assert!(trial.loader.journal.verdicts.of(&module).is_some());
    assert!(trial.loader.journal.verdicts.convicted(&module).is_none());
}

#[test]
fn a_loader_that_cannot_take_back_the_mark_does_nothing_until_it_can() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &bundle);
    trial.kernel.reboot("boot-2", Duration::from_secs(9));
    // A mark of this boot in a folder that is none.
    let (folder, away) = (trial.state.path().to_owned(), trial.state.path().with_extension("away"));
    std::fs::rename(&folder, &away).unwrap();
    std::fs::write(&folder, "").unwrap();
    trial.restart();
    let state = trial.ask();
    assert_eq!(
        (state.state, state.reason, state.level),
        (NodeState::Failed, Some(fault(Fault::JournalUnreadable)), UNPATCHED)
    );
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&away, &folder).unwrap();
    trial.told_to_end();
    trial.kernel.pass(Duration::from_secs(10));
    trial.loader.tick();
    assert_eq!((trial.ask().state, trial.ask().level), (NodeState::Settled, Level(1)));
    assert_eq!(Store::new(&folder).boot_that_ended().unwrap(), None);
}

#[test]
fn where_it_cannot_be_known_how_the_boot_ended_it_is_judged() {
    let (mut trial, _) = applied();
    std::fs::create_dir(trial.state.path().join("ended")).unwrap();
    trial.reboot("boot-2");
    assert_eq!(trial.ask().reason, Some(fault(Fault::RebootedUnsettled)));
}
