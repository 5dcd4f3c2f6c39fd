//! A transition that cannot end, because somebody of the node sleeps in what is patched.

use invivo_terms::{Level, NodeState};
use invivo_wire::{Blocker, Fault, Reason};

use crate::bundles::FORKS;
use crate::plan::{CONTAINER, Deed, POD, Plan, Said, Step};
use crate::{apply, looks, new_disk, plan, rig, to_its_end};

#[test]
fn whoever_waits_in_vfork_blocks_a_patch_of_it_and_is_named_with_its_pod_and_loses_nothing() {
    let Some(rig) = rig() else { return };
    let steps = vec![
        Step::Meanwhile(Deed::Fork),
        apply(FORKS, 1),
        Step::Meanwhile(Deed::GoOn),
        apply(FORKS, 1),
        apply(FORKS, 2),
        Step::Meanwhile(Deed::Fork),
        Step::Meanwhile(Deed::GoOn),
    ];
    let plan = Plan { settle_after_seconds: 3600, deadline_seconds: 10, ..plan(&rig, steps) };
    let said = to_its_end(&rig, &new_disk(&rig), &plan, "");
    let sleeper =
        said.iter().find_map(|said| if let Said::Sleeps(thread) = said { Some(*thread) } else { None });
    let looks = looks(said);
    let blocked = (NodeState::Blocked, Level(0), Some(Reason::Fault(Fault::TransitionStuck)));
    let applied = (NodeState::Applied, Level(FORKS), None);
    let told: Vec<_> =
        looks.iter().map(|look| (look.state.state, look.state.level, look.state.reason)).collect();
    let idle = (NodeState::Idle, Level(0), None);
    // With nobody in the way the same instruction does nothing more, and a new one is carried out.
    assert_eq!(told, [idle, idle, blocked, blocked, blocked, applied, applied, applied], "{looks:?}");
    let parent = Blocker {
        tid: sleeper.unwrap(),
        comm: "parent".to_owned(),
        pod_uid: Some(POD.to_owned()),
        container: Some(CONTAINER.to_owned()),
    };
    for look in &looks[2..5] {
        assert_eq!(look.state.blockers, std::slice::from_ref(&parent), "{look:?}");
        assert!(look.kernel.on.is_empty() && look.kernel.modules.is_empty(), "{look:?}");
    }
    let message = looks[2].state.message.as_deref().unwrap_or_default();
    assert!(message.contains("was reversed") && message.contains("parent"), "{message}");
}
