//! What many instructions cost: memory, and time beside the kernel's own.

use invivo_terms::Revision;

use crate::boot::Rig;
use crate::plan::{Comparison, Cycle, Plan, Said, Step};
use crate::{new_disk, number, plan, there_is_time, to_its_end, whole_rig};

const CYCLES: u64 = 200;
const COMPARISONS: u64 = 30;
/// Cycles after which the loader's memory has to stay as it is.
const WARM: usize = 20;
/// What may come and go with the moment at which it is looked at, in KiB.
const ALLOWED: u64 = 256;

fn count(name: &str, usual: u64) -> u32 {
    u32::try_from(number(name).unwrap_or(usual)).unwrap()
}

fn middle(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Nothing settles meanwhile.
fn busy(rig: &Rig, step: Step) -> Plan {
    Plan { settle_after_seconds: 3600, ..plan(rig, vec![step]) }
}

/// `INVIVO_CYCLES` says how many.
#[test]
fn the_loaders_memory_stays_as_it_is_however_often_levels_come_and_go() {
    let Some(rig) = there_is_time().then(whole_rig).flatten() else { return };
    let count = count("INVIVO_CYCLES", CYCLES);
    let step = Step::Cycles { count, revision: Revision(1) };
    let said = to_its_end(&rig, &new_disk(&rig), &busy(&rig, step), "");
    let cycles: Vec<Cycle> = said
        .iter()
        .filter_map(|said| if let Said::Cycled(cycles) = said { Some(cycles.clone()) } else { None })
        .flatten()
        .collect();
    assert_eq!(cycles.len(), count as usize);
    let memory: Vec<_> = cycles.iter().map(|cycle| cycle.memory).collect();
    let (warm, late) = memory.split_at(WARM.min(memory.len() / 2));
    let (before, after) = (warm.iter().max(), late.iter().max());
    eprintln!(
        "{count} cycles, {} ms each; memory {:?} KiB at first, {before:?} when warm, {after:?} afterwards",
        middle(cycles.iter().map(|cycle| cycle.millis).collect()),
        memory.first(),
    );
    assert!(after.unwrap() <= &(before.unwrap() + ALLOWED), "{memory:?}");
}

/// `INVIVO_COMPARISONS` says how many.
#[test]
fn the_time_of_a_load_through_the_loader_is_told_beside_the_kernels_own() {
    let Some(rig) = there_is_time().then(whole_rig).flatten() else { return };
    let count = count("INVIVO_COMPARISONS", COMPARISONS);
    let step = Step::Compare { count, revision: Revision(1) };
    let said = to_its_end(&rig, &new_disk(&rig), &busy(&rig, step), "");
    let compared: Vec<Comparison> = said
        .iter()
        .filter_map(|said| if let Said::Compared(compared) = said { Some(compared.clone()) } else { None })
        .flatten()
        .collect();
    assert_eq!(compared.len(), count as usize);
    let of = |what: fn(&Comparison) -> u64| middle(compared.iter().map(what).collect());
    eprintln!(
        "{count} loads: {} ms by the kernel alone, {} ms from question to answer, of which {} ms from load to complete; beside the switch {} ms",
        of(|one| one.kernel),
        of(|one| one.loader),
        of(|one| one.switch),
        of(|one| one.loader.saturating_sub(one.switch)),
    );
    eprintln!("{compared:?}");
}
