//! Patches that do harm, on a real kernel whose last words survive it; and a loader that the kernel
//! kills.

use invivo_terms::{Level, NodeState, Revision};
use invivo_wire::{Fault, Reason, State};

use crate::boot::Rig;
use crate::bundles::{DIES, DIES_AT_LOAD, DIES_LATER, SPINS, WARNS};
use crate::disk::Disk;
use crate::plan::{Deed, End, Look, Plan, Said, Step};
use crate::{PATIENCE, apply, looks, new_disk, plan, rig, there_is_time};

/// What is told of a node: state, level, why.
fn told(state: &State) -> (NodeState, u32, Option<Reason>) {
    (state.state, state.level.0, state.reason)
}

fn failed(fault: Fault) -> (NodeState, u32, Option<Reason>) {
    (NodeState::Failed, 0, Some(Reason::Fault(fault)))
}

fn convicted(fault: Fault) -> (NodeState, u32, Option<Reason>) {
    (NodeState::Convicted, 0, Some(Reason::Fault(fault)))
}

/// The code that is patched is called from before the patch on.
fn called(rig: &Rig, panic_on_oops: bool, steps: Vec<Step>) -> Plan {
    let before = vec![Deed::PanicOnOops(panic_on_oops), Deed::Read];
    Plan { settle_after_seconds: 3600, before, ..plan(rig, steps) }
}

/// What a guest said that lives to its end, whatever its kernel complains of.
fn lives(rig: &Rig, disk: &Disk, plan: &Plan) -> Vec<Look> {
    disk.power_on(None);
    let guest = rig.boot("life", disk, plan, "").unwrap();
    let said = guest.ends(PATIENCE).unwrap();
    assert!(matches!(said.last(), Some(Said::Done(_))), "{}", guest.console());
    looks(said)
}

/// The same of one whose kernel panics.
fn dies(rig: &Rig, disk: &Disk, steps: Vec<Step>) -> Vec<Look> {
    disk.power_on(None);
    let plan = Plan { end: End::Cut, ..called(rig, true, steps) };
    let guest = rig.boot("death", disk, &plan, "").unwrap();
    let said = guest.ends(PATIENCE).unwrap();
    assert!(guest.console().contains("Kernel panic"), "{}", guest.console());
    looks(said)
}

/// The node says what it rests on, and has the whole record.
fn has_evidence(look: &Look, level: u32) {
    let evidence = look.state.evidence.as_ref().unwrap();
    let module = format!("[invivo_l{level}_{level:016x}");
    assert!(evidence.excerpt.len() <= 200 && evidence.excerpt.contains(&module), "{evidence:?}");
    let record = &look.evidence[evidence.digest.as_str()];
    assert!(record.contains(&module) && record.len() > evidence.excerpt.len(), "{record}");
}

/// After the panic: convicted, with evidence, and not loaded again, in this boot and the next.
fn stays_convicted(rig: &Rig, disk: &Disk, level: u32) {
    let after = lives(rig, disk, &plan(rig, vec![apply(level, 2)]));
    assert_eq!(told(&after[0].state), convicted(Fault::PanicNamesPatch), "{after:?}");
    has_evidence(&after[0], level);
    assert_eq!(told(&after[1].state), convicted(Fault::ConvictedHere), "{after:?}");
    let next = lives(rig, disk, &plan(rig, vec![apply(level, 3), apply(1, 4)]));
    assert_eq!(told(&next[1].state), convicted(Fault::ConvictedHere), "{next:?}");
    assert_eq!(told(&next[2].state), (NodeState::Applied, 1, None), "{next:?}");
    let modules = after.iter().chain(&next[..2]).all(|look| look.kernel.modules.is_empty());
    assert!(modules, "{after:?} {next:?}");
}

#[test]
fn a_patch_that_panics_as_it_comes_is_convicted_by_the_kernels_last_words() {
    let Some(rig) = there_is_time().then(rig).flatten() else { return };
    let disk = new_disk(&rig);
    dies(&rig, &disk, vec![apply(DIES, 1)]);
    stays_convicted(&rig, &disk, DIES);
}

#[test]
fn a_patch_that_panics_before_it_is_on_is_convicted_by_the_kernels_last_words() {
    let Some(rig) = there_is_time().then(rig).flatten() else { return };
    let disk = new_disk(&rig);
    dies(&rig, &disk, vec![apply(DIES_AT_LOAD, 1)]);
    stays_convicted(&rig, &disk, DIES_AT_LOAD);
}

#[test]
fn a_patch_that_panics_half_a_minute_later_is_convicted_by_the_kernels_last_words() {
    let Some(rig) = there_is_time().then(rig).flatten() else { return };
    let disk = new_disk(&rig);
    let before = dies(&rig, &disk, vec![apply(DIES_LATER, 1)]);
    assert_eq!(told(&before[1].state), (NodeState::Applied, DIES_LATER, None), "{before:?}");
    stays_convicted(&rig, &disk, DIES_LATER);
}

#[test]
fn a_patch_that_oopses_on_a_kernel_that_survives_it_is_taken_off_and_the_second_time_convicted() {
    let Some(rig) = there_is_time().then(rig).flatten() else { return };
    for level in [DIES, DIES_LATER] {
        let disk = new_disk(&rig);
        let steps = vec![
            apply(1, 1),
            apply(level, 2),
            Step::Trouble,
            Step::Meanwhile(Deed::Read),
            apply(level, 3),
            Step::Trouble,
            apply(level, 4),
        ];
        let looks = lives(&rig, &disk, &called(&rig, false, steps));
        assert_eq!(told(&looks[1].state), (NodeState::Applied, 1, None), "{looks:?}");
        for undone in [3, 6] {
            assert_eq!(told(&looks[undone].state), failed(Fault::KernelOops), "{looks:?}");
            assert!(looks[undone].kernel.on.is_empty(), "{looks:?}");
        }
        assert_eq!(told(&looks[7].state), convicted(Fault::ConvictedHere), "{looks:?}");
    }
}

#[test]
fn a_patch_that_keeps_a_processor_to_itself_is_taken_off_before_it_has_settled() {
    let Some(rig) = rig() else { return };
    let steps = vec![Step::Meanwhile(Deed::Impatient), apply(SPINS, 1), Step::Trouble];
    let looks = lives(&rig, &new_disk(&rig), &called(&rig, false, steps));
    let undone = looks.last().unwrap();
    assert_eq!(told(&undone.state), failed(Fault::KernelLockup), "{looks:?}");
    let message = undone.state.message.as_deref().unwrap_or_default();
    assert!(message.contains("a processor was stuck"), "{message}");
    assert!(undone.kernel.on.is_empty() && undone.kernel.modules.is_empty(), "{looks:?}");
}

#[test]
fn a_patch_that_the_kernel_warns_of_stays_where_the_log_may_not_be_read() {
    let Some(rig) = there_is_time().then(rig).flatten() else { return };
    let steps = vec![apply(WARNS, 1), Step::Trouble];
    let looks = lives(&rig, &new_disk(&rig), &called(&rig, true, steps));
    let warned = (NodeState::Applied, WARNS, Some(Reason::Fault(Fault::KernelWarning)));
    assert_eq!(told(&looks[2].state), warned, "{looks:?}");
}

#[test]
fn a_patch_that_the_kernel_warns_of_is_taken_off_by_its_log_and_the_second_time_convicted() {
    let Some(rig) = there_is_time().then(rig).flatten() else { return };
    let steps = vec![apply(WARNS, 1), Step::Trouble, apply(WARNS, 2), Step::Trouble, apply(WARNS, 3)];
    let plan = Plan { kernel_log: true, ..called(&rig, true, steps) };
    let looks = lives(&rig, &new_disk(&rig), &plan);
    for undone in [2, 4] {
        assert_eq!(told(&looks[undone].state), failed(Fault::WarningNamesPatch), "{looks:?}");
        has_evidence(&looks[undone], WARNS);
        assert!(looks[undone].kernel.on.is_empty(), "{looks:?}");
    }
    assert_eq!(told(&looks[5].state), convicted(Fault::ConvictedHere), "{looks:?}");
}

#[test]
fn a_loader_that_the_kernel_kills_for_memory_between_load_and_answer_is_as_if_it_had_not_been() {
    let Some(rig) = rig() else { return };
    let run_out = Step::RunOut { level: Level(1), revision: Revision(1) };
    let steps = vec![run_out, apply(1, 1), Step::Settle];
    // The kernel shows a trace of whom it kills. Time to be looked at before it has settled.
    let plan = Plan { settle_after_seconds: 15, ..plan(&rig, steps) };
    let looks = lives(&rig, &new_disk(&rig), &plan);
    let (applied, settled) = ((NodeState::Applied, 1, None), (NodeState::Settled, 1, None));
    let all: Vec<_> = looks.iter().map(|look| told(&look.state)).collect();
    assert_eq!(all, [(NodeState::Idle, 0, None), applied, applied, settled], "{looks:?}");
    assert!(looks.iter().skip(1).all(|look| look.kernel.cmdline == Some(Level(1))), "{looks:?}");
}
