//! Where everybody is once nothing happens any more and one operator sees it all.

use invivo_terms::{BuildId, Hold, Level};

use super::cluster::Part;
use crate::{Node, Offer, Plan, Set, Wish, World};

/// Everybody is where the policy wants it, or held by what only a person or a newer set can lift.
///
/// What is final: another policy's node; no set to aim at, or none for this build; a level above the
/// target's; an attempt that failed by the node's own word; a rollout of which too many failed. What
/// waits for a slot, a soak, a zone, a rest, a proof or the fleet's limit is not: that ends by itself.
pub(super) fn all(part: &Part, world: &World, made: &Plan) {
    assert!(made.actions.is_empty() && made.in_flight.is_empty() && made.wake.is_none(), "{made:#?}");
    let governed = world.nodes.values().filter(|node| !node.claimed_by_other).count();
    let spent = part.rollout().is_some_and(|rollout| {
        rollout.returning || rollout.failed > crate::rollout::budget(&world.policy, governed)
    });
    for (name, held) in &made.holds {
        let node = &world.nodes[name];
        let is_final = is_final(world, node, held.hold, spent);
        assert!(is_final, "{name} is held: {held:?} {node:#?} {:#?}", world.memory);
    }
    for name in made.done.iter().filter(|_| !spent) {
        let report = world.nodes[name].report.as_ref().unwrap();
        let wanted = wanted(world, &report.build_id);
        assert!(
            wanted.is_none_or(|wanted| wanted == report.level),
            "{name} is not at {wanted:?}: {report:?}"
        );
    }
}

fn is_final(world: &World, node: &Node, hold: Hold, spent: bool) -> bool {
    let Some(report) = &node.report else { return false };
    let wanted = || wanted(world, &report.build_id);
    match hold {
        Hold::ClaimedByOther => node.claimed_by_other,
        Hold::TargetMissing => chosen(world).is_none(),
        Hold::UnsupportedKernel => wanted().is_none() && report.level == Level(0),
        Hold::AheadOfTarget => wanted().is_none_or(|wanted| wanted < report.level),
        Hold::AttemptEnded | Hold::Convicted | Hold::Suspected => {
            let answered = node.spec.as_ref().is_some_and(|spec| report.observed >= spec.revision);
            report.state.is_failure() && answered
        }
        Hold::FailureBudgetSpent => spent,
        _ => false,
    }
}

/// The sets up to the one that the policy means, told without the planner's help.
fn chosen(world: &World) -> Option<&[Set]> {
    let Offer::Sets(sets) = &world.offer else { return None };
    let last = sets.iter().rposition(|set| match &world.policy.target {
        Wish::Latest => set.is_eligible(),
        Wish::None => true,
        Wish::Named(name) => set.name == *name && set.may_be_named(),
    });
    last.map(|last| &sets[..=last])
}

/// The level that the policy wants for a build; none where it has none for it.
fn wanted(world: &World, build: &BuildId) -> Option<Level> {
    if world.policy.target == Wish::None {
        return Some(Level(0));
    }
    let named = |set: &Set| world.policy.target == Wish::Named(set.name.clone());
    let counts = chosen(world)?.iter().filter(|set| set.is_eligible() || named(set));
    counts.filter_map(|set| set.kernels.get(build)).map(|kernel| kernel.level).max()
}
