//! Gates: before a stage, during it, and throughout its soak.

use super::fleet::{Fleet, MINUTE, after};
use crate::{Gate, GateVerdict, OnFailure, Wish};
use invivo_terms::Hold;

fn gate(verdict: GateVerdict) -> Vec<Gate> {
    vec![Gate { name: "errors".to_owned(), foreign: true, about: None, verdict }]
}

fn failed() -> GateVerdict {
    GateVerdict::Failed { message: "5 % of requests fail".to_owned() }
}

fn unknown() -> GateVerdict {
    GateVerdict::Unknown { message: "no answer".to_owned() }
}

#[test]
fn nothing_starts_while_a_gate_fails_or_is_unknown() {
    for (verdict, hold) in [(failed(), Hold::GateFailing), (unknown(), Hold::GateUnknown)] {
        let mut fleet = Fleet::with(2, 1);
        fleet.world.gates = gate(verdict);
        assert!(fleet.decide().is_empty());
        assert_eq!(fleet.hold("c1"), Some(hold));
        fleet.world.gates = gate(GateVerdict::Passed);
        assert_eq!(fleet.decide(), ["c1"]);
    }
}

#[test]
fn a_soak_does_not_end_before_the_gates_are_known_to_pass() {
    let mut fleet = Fleet::with(1, 1);
    fleet.run();
    fleet.world.gates = gate(unknown());
    fleet.pass(30 * MINUTE);
    assert!(fleet.decide().is_empty());
    assert_eq!((fleet.hold("r1"), fleet.plan().wake), (Some(Hold::GateUnknown), None));
    fleet.world.gates = gate(GateVerdict::Passed);
    assert_eq!(fleet.decide(), ["r1"]);
}

#[test]
fn a_gate_that_fails_in_the_soak_pauses_and_the_stage_is_watched_anew() {
    let mut fleet = Fleet::with(1, 1);
    fleet.run();
    fleet.pass(20 * MINUTE);
    fleet.world.gates = gate(failed());
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.rollout().soak_until, None);
    assert_eq!(fleet.hold("r1"), Some(Hold::GateFailing));
    fleet.pass(20 * MINUTE);
    fleet.world.gates = gate(GateVerdict::Passed);
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.rollout().soak_until, Some(after(70 * MINUTE)));
}

#[test]
fn a_gate_that_fails_in_the_soak_takes_the_rollout_back_if_people_ask_for_that() {
    let mut fleet = Fleet::with(1, 1);
    fleet.world.policy.on_failure = OnFailure::RollBack;
    fleet.run();
    fleet.pass(20 * MINUTE);
    fleet.world.gates = gate(failed());
    assert_eq!(fleet.decide(), ["c1"]);
    assert_eq!(fleet.rollout().evidence[0].who, "errors");
    fleet.obey("c1");
    fleet.world.gates = gate(GateVerdict::Passed);
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.level("c1"), 0);
}

#[test]
fn a_gate_that_only_heard_one_nodes_word_takes_nobody_back() {
    let mut fleet = Fleet::with(1, 1);
    fleet.world.policy.on_failure = OnFailure::RollBack;
    fleet.run();
    fleet.world.gates = gate(failed());
    fleet.world.gates[0].foreign = false;
    assert!(fleet.decide().is_empty());
    assert!(!fleet.rollout().returning);
}

#[test]
fn taking_patches_off_needs_no_gate() {
    let mut fleet = Fleet::with(1, 0);
    fleet.run();
    fleet.world.gates = gate(failed());
    fleet.world.policy.target = Wish::None;
    assert_eq!(fleet.decide(), ["c1"]);
}

#[test]
fn a_rollout_that_is_through_waits_for_no_gate() {
    let mut fleet = Fleet::with(1, 1);
    fleet.run();
    fleet.pass(30 * MINUTE);
    fleet.run();
    fleet.world.gates = gate(failed());
    let plan = fleet.plan();
    assert!(plan.memory.rollout.unwrap().complete && plan.holds.is_empty());
}

#[test]
fn an_answer_about_the_stage_before_opens_no_other() {
    let mut fleet = Fleet::with(1, 1);
    fleet.world.gates = gate(GateVerdict::Passed);
    fleet.world.gates[0].about = Some((1, 0));
    assert!(fleet.decide().len() == 1, "the first rollout's first stage");
    fleet.obey("c1");
    fleet.decide();
    fleet.pass(30 * MINUTE);
    assert!(fleet.decide().is_empty());
    assert_eq!((fleet.rollout().stage, fleet.hold("r1")), (1, Some(Hold::GateUnknown)));
    fleet.world.gates[0].about = Some((1, 1));
    assert_eq!(fleet.decide(), ["r1"]);
}
