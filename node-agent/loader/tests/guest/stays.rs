//! A patch whose code may still be called when it was taken off: it stays in memory until the next boot.

use invivo_terms::NodeState::{Applied, Failed, Idle, RolledBack, Settled};
use invivo_terms::Refusal;
use invivo_wire::Reason;

use crate::bundles::STAYS;
use crate::plan::{Look, Plan, Step};
use crate::{apply, looks, new_disk, plan, rig, roll_back, to_its_end};

#[test]
fn a_patch_that_stays_in_memory_is_taken_off_and_others_follow_but_not_itself() {
    let Some(rig) = rig() else { return };
    let disk = new_disk(&rig);
    let first = vec![
        apply(STAYS, 1),
        Step::Settle,
        roll_back(2),
        // The kernel enables no patch again that it has disabled.
        apply(STAYS, 3),
        apply(2, 4),
    ];
    let seen = |steps| {
        let plan = Plan { settle_after_seconds: 15, ..plan(&rig, steps) };
        let looks = looks(to_its_end(&rig, &disk, &plan, ""));
        let seen = |look: Look| {
            let runs = look.kernel.cmdline.map_or(0, |level| level.0);
            (look.state.state, runs, look.kernel.modules.len(), look.state.reason)
        };
        looks.into_iter().map(seen).collect::<Vec<_>>()
    };
    let refused = Some(Reason::Refusal(Refusal::LoadRefused));
    assert_eq!(
        seen(first),
        [
            (Idle, 0, 0, None),
            (Applied, STAYS, 1, None),
            (Settled, STAYS, 1, None),
            (RolledBack, 0, 1, None),
            (Failed, 0, 1, refused),
            (Applied, 2, 2, None),
        ]
    );
    // Another boot begins anew.
    assert_eq!(seen(vec![apply(STAYS, 5)])[1], (Applied, STAYS, 1, None));
}
