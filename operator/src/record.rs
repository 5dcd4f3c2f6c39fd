//! Writes down what speaks against sets, and quarantines them, before anything is done about a node.

use std::collections::{BTreeMap, BTreeSet};

use invivo_api::{PatchSet, PatchSetStatus};
use invivo_terms::Digest;
use jiff::Timestamp;
use kube::Resource;

use crate::context::Context;
use crate::error::Error;
use crate::event;
use crate::evidence::{Presence, Witness, gather, join};
use crate::observe::Stores;
use crate::quarantine::{Verdict, judge};
use crate::set;
use crate::store::Entry;
use crate::write;

/// Brings the evidence on every set up to what is seen now, and the quarantine to what follows. As
/// long as this does not succeed, nothing is planned.
///
/// # Errors
///
/// The first write that did not happen.
pub async fn evidence(context: &Context, now: Timestamp) -> Result<(), Error> {
    // One at a time: two would write the same and one of them in vain.
    let _one = context.recording.lock().await;
    let stores = &context.stores;
    let departed = stores.departed.all();
    let mut ended = Ok(());
    for (set, verdict) in changed(stores, now) {
        let old = set.value.status.clone().unwrap_or_default();
        let wanted = set::with_verdict(&old, verdict, set.value.metadata.generation, now);
        let written = write::set_status(&context.client, stores, &set, &wanted).await;
        if written.is_ok() {
            let notes = event::of_set(&old, &wanted);
            event::publish(&context.recorder, &set.value.object_ref(&()), &notes).await;
        }
        ended = ended.and(written);
    }
    // Against a set that cannot be read nothing was written down.
    if ended.is_ok() && stores.sets.unreadable().is_empty() {
        stores.departed.forget(&departed);
    }
    ended
}

/// The sets whose verdict is another than the one on their object.
fn changed(stores: &Stores, now: Timestamp) -> Vec<(Entry<PatchSet>, Verdict)> {
    let sets = stores.sets.all();
    let witnesses = witnesses(stores);
    let status = |set: &Entry<PatchSet>| set.value.status.clone().unwrap_or_default();
    let known: BTreeSet<&Digest> = sets
        .iter()
        .filter(|set| {
            set.value.status.as_ref().is_some_and(|s| !s.evidence.is_empty() || s.quarantine.is_some())
        })
        .map(|set| &set.value.spec.digest)
        .collect();
    if witnesses.is_empty() && known.is_empty() {
        return Vec::new();
    }
    let (nodes, unreadable) = (stores.nodes.all(), stores.nodes.unreadable());
    // A node that cannot be read is there, and no more is known of it.
    let unknown = unreadable.iter().map(|node| (node.uid.as_str(), Presence { ready: false, boot_id: None }));
    let seen = nodes.iter().map(|node| (node.value.uid.as_str(), Presence::of(&node.value)));
    let nodes: BTreeMap<&str, Presence<'_>> = unknown.chain(seen).collect();
    let here = |uid: &str| nodes.get(uid).copied();
    let mut changed = Vec::new();
    for set in sets.iter().filter(|set| stores.sets.unreadable_of(&set.name).is_none()) {
        let digest = &set.value.spec.digest;
        let witnesses = witnesses.get(digest).map(Vec::as_slice).unwrap_or_default();
        if witnesses.is_empty() && !known.contains(digest) {
            continue;
        }
        let PatchSetStatus { evidence, quarantine, .. } = status(set);
        let old = Verdict { evidence, quarantine };
        let others = sets.iter().filter(|other| other.name != set.name && other.value.spec.digest == *digest);
        let others = others.filter_map(|other| other.value.status.as_ref()).flat_map(|s| &s.evidence);
        let evidence = join(gather(&old.evidence, witnesses, here, now), others);
        let verdict = judge(&old, &set.value.spec, evidence, now);
        if verdict != old {
            changed.push((set.clone(), verdict));
        }
    }
    changed
}

/// The nodes that bear on each set, those that have just gone among them.
fn witnesses(stores: &Stores) -> BTreeMap<Digest, Vec<Witness>> {
    let mut witnesses: BTreeMap<Digest, Vec<Witness>> = BTreeMap::new();
    let present = stores.patches.all();
    for patch in present.iter().map(|patch| &patch.value).chain(&stores.departed.all()) {
        if let (Some(witness), Some(apply)) = (Witness::of(patch), &patch.spec.apply) {
            witnesses.entry(apply.digest.clone()).or_default().push(witness);
        }
    }
    witnesses
}

#[cfg(test)]
mod tests;
