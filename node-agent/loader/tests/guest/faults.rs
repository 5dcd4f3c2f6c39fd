//! What can befall a state folder and a clock.

use invivo_terms::{NodeState, Refusal};
use invivo_wire::{Fault, Reason};

use crate::plan::{Deed, Look, Plan, Step};
use crate::{apply, hold, looks, new_disk, plan, rig, roll_back, there_is_time, to_its_end};

const TEN_YEARS: i64 = 10 * 365 * 86_400;

/// State, level, and why: the level by the kernel's own word, and what its code says.
type Told = (NodeState, u32, Option<Reason>);

fn told(looks: &[Look]) -> Vec<Told> {
    let told = |look: &Look| {
        let runs = look.kernel.cmdline.map_or(0, |level| level.0);
        assert_eq!((look.state.level.0, look.kernel.on.len()), (runs, usize::from(runs > 0)), "{look:?}");
        (look.state.state, runs, look.state.reason)
    };
    looks.iter().map(told).collect()
}

fn revision(look: &Look) -> i64 {
    look.state.order.as_ref().map_or(0, |order| order.revision.0)
}

const APPLIED: NodeState = NodeState::Applied;
const SETTLED: NodeState = NodeState::Settled;

fn failed(fault: Fault) -> (NodeState, Option<Reason>) {
    (NodeState::Failed, Some(Reason::Fault(fault)))
}

#[test]
fn a_full_disk_takes_no_level_but_every_instruction_and_gives_back_what_is_on() {
    let Some(rig) = there_is_time().then(rig).flatten() else { return };
    let steps = vec![
        apply(1, 1),
        Step::Settle,
        Step::Meanwhile(Deed::Fill),
        apply(2, 2),
        hold(3),
        Step::Restart(Vec::new()),
        roll_back(4),
        Step::Restart(Vec::new()),
        Step::Meanwhile(Deed::Free),
        apply(2, 5),
    ];
    let looks = looks(to_its_end(&rig, &new_disk(&rig), &plan(&rig, steps), ""));
    let full = Some(Reason::Refusal(Refusal::StorageFull));
    assert_eq!(
        told(&looks),
        [
            (NodeState::Idle, 0, None),
            (APPLIED, 1, None),
            (SETTLED, 1, None),
            (SETTLED, 1, None),
            (NodeState::Refused, 1, full),
            (SETTLED, 1, None),
            (SETTLED, 1, None),
            (NodeState::RolledBack, 0, None),
            (NodeState::RolledBack, 0, None),
            (NodeState::RolledBack, 0, None),
            (APPLIED, 2, None),
        ]
    );
    // ext4 keeps a fiftieth for its own work.
    assert!(looks[3].state.room < Some(1 << 20), "{looks:?}");
    assert!(looks[10].state.room > Some(1 << 20), "{looks:?}");
    let revisions: Vec<_> = looks.iter().map(revision).collect();
    assert_eq!(revisions, [0, 1, 1, 1, 2, 3, 3, 4, 4, 4, 5]);
}

#[test]
fn a_state_folder_that_cannot_be_written_takes_no_level_and_gives_back_what_is_on() {
    let Some(rig) = there_is_time().then(rig).flatten() else { return };
    let steps = vec![
        apply(1, 1),
        Step::Settle,
        Step::Restart(vec![Deed::ReadOnly]),
        apply(2, 2),
        roll_back(3),
        Step::Restart(vec![Deed::Writable]),
        apply(2, 4),
    ];
    let told = told(&looks(to_its_end(&rig, &new_disk(&rig), &plan(&rig, steps), "")));
    let (state, io) = failed(Fault::NodeIo);
    assert_eq!(told[2..5], [(SETTLED, 1, None), (SETTLED, 1, None), (state, 1, io)]);
    assert_eq!(told[5], (NodeState::RolledBack, 0, None));
    // What was done could not be written down: to the next loader it is somebody else's doing.
    let (state, vanished) = failed(Fault::Vanished);
    assert_eq!(told[6..], [(state, 0, vanished), (APPLIED, 2, None)]);
}

/// The journal is no journal of this version: nothing is done, and nothing is forgotten.
fn unreadable(deed: Deed) {
    let Some(rig) = there_is_time().then(rig).flatten() else { return };
    let disk = new_disk(&rig);
    let steps =
        vec![apply(1, 1), Step::Settle, Step::Restart(vec![deed]), apply(2, 2), hold(3), roll_back(4)];
    let (state, why) = failed(Fault::JournalUnreadable);
    let first = told(&looks(to_its_end(&rig, &disk, &plan(&rig, steps), "")));
    assert_eq!(first[3..], [(state, 1, why); 4], "{deed:?}");
    let second = looks(to_its_end(&rig, &disk, &plan(&rig, vec![apply(2, 5)]), ""));
    assert_eq!(told(&second), [(state, 0, why); 2], "{deed:?}");
    assert!(second.iter().all(|look| look.kernel.modules.is_empty()), "{second:?}");
}

#[test]
fn garbage_in_every_file_does_nothing_and_loads_nothing() {
    unreadable(Deed::Garbage);
}

#[test]
fn a_journal_from_the_future_is_left_alone_and_nothing_is_loaded() {
    unreadable(Deed::LaterFormat);
}

#[test]
fn garbage_in_what_was_kept_of_a_level_is_not_loaded_and_the_level_can_come_again() {
    let Some(rig) = there_is_time().then(rig).flatten() else { return };
    let disk = new_disk(&rig);
    to_its_end(&rig, &disk, &plan(&rig, vec![apply(1, 1), Step::Settle]), "");
    let damaged = Plan { before: vec![Deed::GarbageInLevels], ..plan(&rig, vec![apply(1, 2), Step::Settle]) };
    let looks = looks(to_its_end(&rig, &disk, &damaged, ""));
    let [up, rest @ ..] = looks.as_slice() else { panic!("{looks:?}") };
    assert_eq!((up.state.state, up.state.level.0), (NodeState::Refused, 0));
    assert!(matches!(up.state.reason, Some(Reason::Refusal(why)) if why != Refusal::LoadRefused), "{up:?}");
    assert!(up.kernel.modules.is_empty());
    assert_eq!(told(rest), [(APPLIED, 1, None), (SETTLED, 1, None)]);
}

#[test]
fn a_clock_ten_years_off_either_way_costs_nothing_that_is_on_and_no_floor() {
    let Some(rig) = there_is_time().then(rig).flatten() else { return };
    let disk = new_disk(&rig);
    let clock = |years: i64| Step::Restart(vec![Deed::Clock(years * TEN_YEARS)]);
    let steps = vec![
        apply(1, 1),
        Step::Settle,
        clock(-1),
        apply(2, 2),
        Step::Settle,
        clock(2),
        apply(3, 3),
        clock(-1),
        apply(3, 4),
        Step::Settle,
    ];
    let told_first = told(&looks(to_its_end(&rig, &disk, &plan(&rig, steps), "")));
    // Ten years early the node goes by the patch server's clock; ten years late everything has expired.
    let late = (NodeState::Refused, 2, Some(Reason::Refusal(Refusal::Expired)));
    assert_eq!(
        told_first[3..],
        [
            (SETTLED, 1, None),
            (APPLIED, 2, None),
            (SETTLED, 2, None),
            (SETTLED, 2, None),
            late,
            late,
            (APPLIED, 3, None),
            (SETTLED, 3, None),
        ]
    );
    // What has settled is back after a boot by any clock.
    for years in [1, -1] {
        let boot = Plan { before: vec![Deed::Clock(years * TEN_YEARS)], ..plan(&rig, Vec::new()) };
        assert_eq!(told(&looks(to_its_end(&rig, &disk, &boot, ""))), [(SETTLED, 3, None)]);
    }
}
