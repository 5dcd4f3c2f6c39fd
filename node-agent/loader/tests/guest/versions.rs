//! A loader of another version takes over while a level is on, and this one again after it: the real
//! programs on a real kernel. What their journals may differ in is tried in `src/tests/versions.rs`.

use std::fs;

use invivo_terms::NodeState::{Applied, Idle, RolledBack, Settled};
use invivo_wire::{Answer, Fault, Reason, State};

use crate::plan::{Deed, Plan, Said, Step};
use crate::{apply, looks, new_disk, plan, rig, roll_back, to_its_end};

/// The program of another version, where there is one to try with.
pub(crate) fn other_loader() -> Option<Vec<u8>> {
    std::env::var_os("INVIVO_OTHER_LOADER").map(|path| fs::read(path).unwrap())
}

/// `INVIVO_OTHER_LOADER` names the other program.
#[test]
fn a_level_and_what_was_promised_outlive_a_loader_of_another_version() {
    if other_loader().is_none() {
        eprintln!("SKIP: INVIVO_OTHER_LOADER names no loader of another version");
        return;
    }
    let Some(rig) = rig() else { return };
    let exchange = || Step::Restart(vec![Deed::Exchange]);
    let steps = vec![
        apply(1, 1),
        Step::Settle,
        exchange(),
        apply(2, 2),
        // An instruction of before is old to it too.
        apply(1, 1),
        exchange(),
        apply(1, 1),
        Step::Settle,
        apply(3, 3),
        exchange(),
        Step::Settle,
        roll_back(4),
        exchange(),
    ];
    let plan = Plan { settle_after_seconds: 15, ..plan(&rig, steps) };
    let said = to_its_end(&rig, &new_disk(&rig), &plan, "");
    let stale = |said: &&Said| match said {
        Said::Answered(answer, _) => match &**answer {
            Answer::State(state) => state.reason == Some(Reason::Fault(Fault::StaleInstruction)),
            _ => false,
        },
        _ => false,
    };
    assert_eq!(said.iter().filter(stale).count(), 2, "{said:?}");
    let looks = looks(said);
    let seen = looks.iter().map(|look| (look.state.state, look.state.level.0, look.kernel.on.len()));
    let [one, two, three] = [1, 2, 3].map(|level| (Applied, level, 1));
    let settled = |level| (Settled, level, 1);
    let wanted = [
        (Idle, 0, 0),
        one,
        settled(1),
        settled(1),
        two,
        two,
        two,
        two,
        settled(2),
        three,
        three,
        settled(3),
        (RolledBack, 0, 0),
        (RolledBack, 0, 0),
    ];
    assert_eq!(seen.collect::<Vec<_>>(), wanted);
    let promised =
        |state: &State| (state.order.clone(), state.floors.clone(), state.settles_in_seconds.is_none());
    for (before, after) in [(2, 3), (5, 6), (9, 10), (12, 13)] {
        assert_eq!(promised(&looks[before].state), promised(&looks[after].state), "{before} {after}");
    }
}
