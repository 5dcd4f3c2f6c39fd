//! Which nodes a stage takes that takes a share.
//!
//! All nodes of a rollout stand in one order, the same for every operator: by a hash of the
//! rollout's number and the node's name. When the stage begins, the place of the last node that it
//! takes is written down for each kernel build, and stays. So a node that comes later belongs to the
//! stage or not by its place alone, one that goes changes nothing for the others, and the next
//! rollout takes other nodes.

use std::collections::BTreeMap;

use invivo_terms::BuildId;

use crate::standing::{Judged, Standing};
use crate::{Cut, RolloutMemory};

/// The stage that a node is in: the first one that has taken it, or the one that its labels say.
pub(crate) fn stage_of(
    name: &str,
    labelled: usize,
    build: Option<&BuildId>,
    rollout: &RolloutMemory,
) -> usize {
    if rollout.cuts.is_empty() {
        return labelled;
    }
    let place = place(rollout.number, name);
    let last = |cut: &Cut| build.and_then(|build| cut.kernels.get(build)).copied();
    let takes = |cut: &&Cut| last(cut).is_some_and(|last| place <= last);
    rollout.cuts.iter().filter(takes).map(|cut| cut.stage).fold(labelled, usize::min)
}

/// Makes the cut for the stage that begins: of the policy's nodes of each kernel build this share,
/// rounded up, at least one while there is one left.
pub(crate) fn make(rollout: &mut RolloutMemory, judged: &mut [Judged<'_>], share: u8) {
    let stage = rollout.stage;
    let mut totals: BTreeMap<&BuildId, u64> = BTreeMap::new();
    let mut places: BTreeMap<&BuildId, Vec<u64>> = BTreeMap::new();
    for node in judged.iter().filter(|node| node.standing != Standing::Claimed) {
        let Some(build) = node.build else { continue };
        *totals.entry(build).or_default() += 1;
        if node.stage > stage {
            places.entry(build).or_default().push(place(rollout.number, node.name));
        }
    }
    let kernels = places
        .into_iter()
        .filter_map(|(build, mut places)| {
            let total = totals.get(build).copied().unwrap_or_default();
            let wanted = (total * u64::from(share.min(100))).div_ceil(100).max(1);
            places.sort_unstable();
            let last = usize::try_from(wanted).unwrap_or(usize::MAX).min(places.len());
            places.get(last.checked_sub(1)?).map(|place| (build.clone(), *place))
        })
        .collect();
    rollout.cuts.push(Cut { stage, kernels });
    for node in judged {
        node.stage = stage_of(node.name, node.node.stage, node.build, rollout);
    }
}

/// A node's place in a rollout's order: FNV-1a over number and name, kept within 63 bits so that
/// every client reads it as a number.
fn place(number: u64, name: &str) -> u64 {
    let bytes = number.to_le_bytes().into_iter().chain(name.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // The last bytes alone move the low bits only; fold the halves so that similar names spread.
    (hash ^ (hash >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_spread_evenly_and_each_rollout_has_its_own_order() {
        let below = |number: u64| {
            (0..10_000).filter(|n| place(number, &format!("node-{n:05}")) < u64::MAX / 20).count()
        };
        for number in 1..6 {
            let count = below(number);
            assert!((850..1150).contains(&count), "{count} of 10,000 stand in the first tenth");
        }
        let order = |number: u64| {
            let mut names: Vec<String> = (0..9).map(|n| format!("node-{n}")).collect();
            names.sort_by_key(|name| place(number, name));
            names
        };
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn a_nodes_place_is_the_same_in_every_version_for_cuts_are_remembered() {
        assert_eq!(place(1, "node-1"), 5_998_523_257_801_179_490);
        assert_eq!(place(7, "a"), 9_202_221_125_316_751_933);
    }
}
