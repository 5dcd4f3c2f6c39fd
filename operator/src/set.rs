//! The PatchSets of one feed: made for what may be rolled out or decided about, kept as long as
//! anybody has a use for them, and what is known of each.

use std::collections::{BTreeMap, BTreeSet};

use invivo_api::{
    ConditionType, Fix, PatchSet, PatchSetSpec, PatchSetStatus, SetNodes, condition, set_conditions,
};
use invivo_feed::Ineligible;
use invivo_feed::document::{Channel, SetEntry};
use invivo_terms::{Block, Excuse, Level, NodeState, SetName};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::context::Context;
use crate::error::Error;
use crate::observe::Stores;
use crate::offer::Blocks;
use crate::quarantine::{Verdict, Weight};
use crate::reason;
use crate::sight::Verified;
use crate::store::Entry;
use crate::write;

/// How many publications have an object, the newest first; older ones only while there is a use for it.
const ATTENDED: usize = 200;

/// How many fixes a status names.
const FIXES: usize = 200;

/// Creates the sets that are missing, brings their statuses up to date, and removes the objects that
/// nobody has a use for.
///
/// # Errors
///
/// The first write that did not happen. One set that cannot be written does not keep the others
/// from it.
pub async fn reconcile_all(
    context: &Context,
    feed: &str,
    verified: &Verified,
    blocks: &Blocks,
    now: Timestamp,
) -> Result<(), Error> {
    let stores = &context.stores;
    let nodes = nodes(stores, feed);
    let mut kept = BTreeSet::new();
    let mut ended = Ok(());
    for (age, entry) in verified.index.sets.iter().rev().enumerate() {
        let why = blocks.get(&entry.name).copied();
        let counts = nodes.get(&entry.name).cloned().unwrap_or_default();
        let used = nodes.contains_key(&entry.name);
        let offered = age < ATTENDED && is_worth_an_object(why);
        let object = stores.sets.get(&object_name(feed, &entry.name));
        if used || offered || object.as_ref().is_some_and(|object| is_decided(&object.value)) {
            kept.insert(entry.name.clone());
            ended = ended.and(reconcile(context, feed, verified, entry, (why, counts), now).await);
        }
    }
    let needed = |set: &SetName| kept.contains(set) || nodes.contains_key(set);
    ended.and(prune(context, feed, needed).await)
}

/// Removes the objects of a feed that is gone, but for those that nodes have or people or evidence
/// decided about.
///
/// # Errors
///
/// The first write that did not happen.
pub async fn prune_all(context: &Context, feed: &str) -> Result<(), Error> {
    let nodes = nodes(&context.stores, feed);
    prune(context, feed, |set| nodes.contains_key(set)).await
}

async fn prune(context: &Context, feed: &str, needed: impl Fn(&SetName) -> bool) -> Result<(), Error> {
    // What cannot be read may be of use to somebody, or say that something is.
    if !context.stores.sets.unreadable().is_empty() || !context.stores.patches.unreadable().is_empty() {
        return Ok(());
    }
    let mut ended = Ok(());
    for set in context.stores.sets.all() {
        let spec = &set.value.spec;
        if spec.feed == feed && !needed(&spec.set) && !is_decided(&set.value) {
            ended = ended.and(write::delete_set(&context.client, &context.stores, &set).await);
        }
    }
    ended
}

fn object_name(feed: &str, set: &SetName) -> String {
    format!("{feed}.{set}")
}

/// Whether people need an object of a set that no node has: to roll it out, to decide about it, or
/// to see it coming.
const fn is_worth_an_object(why: Option<Ineligible>) -> bool {
    match why {
        None | Some(Ineligible::Delayed(_) | Ineligible::AwaitingApproval) => true,
        Some(
            Ineligible::TestOnly
            | Ineligible::AfterDate
            | Ineligible::Rejected
            | Ineligible::Quarantined
            | Ineligible::Withdrawn,
        ) => false,
    }
}

/// Whether people or evidence have decided something about it that must not be lost.
fn is_decided(set: &PatchSet) -> bool {
    let status = set.status.as_ref();
    !set.spec.approvals.is_empty()
        || status.is_some_and(|status| !status.evidence.is_empty() || status.quarantine.is_some())
}

async fn reconcile(
    context: &Context,
    feed: &str,
    verified: &Verified,
    entry: &SetEntry,
    (why, counts): (Option<Ineligible>, SetNodes),
    now: Timestamp,
) -> Result<(), Error> {
    let (Some(repository), Some(digest)) = (&verified.floors.repository, verified.digests.get(&entry.name))
    else {
        return Ok(());
    };
    let name = object_name(feed, &entry.name);
    if context.stores.sets.get(&name).is_none() {
        let spec = PatchSetSpec {
            feed: feed.to_owned(),
            repository: repository.clone(),
            set: entry.name.clone(),
            digest: digest.clone(),
            approvals: Vec::new(),
        };
        write::create_set(&context.client, &context.stores, &name, &spec).await?;
    }
    // An object about another set of this name is not this one's.
    let own = |set: &Entry<PatchSet>| set.value.spec.digest == *digest;
    let Some(set) = context.stores.sets.get(&name).filter(own) else { return Ok(()) };
    let old = set.value.status.clone().unwrap_or_default();
    let wanted = status(entry, verified, why, counts, &old, set.value.metadata.generation, now);
    if set.value.status.as_ref() != Some(&wanted) {
        write::set_status(&context.client, &context.stores, &set, &wanted).await?;
    }
    Ok(())
}

fn status(
    entry: &SetEntry,
    verified: &Verified,
    why: Option<Ineligible>,
    mut nodes: SetNodes,
    old: &PatchSetStatus,
    generation: Option<i64>,
    now: Timestamp,
) -> PatchSetStatus {
    let (reason, message) = match why {
        None => (ConditionType::Eligible.as_str(), "Latest may choose it".to_owned()),
        Some(why) => (why.block().as_str(), blocked_message(why)),
    };
    let eligible = condition(ConditionType::Eligible, why.is_none(), reason, &message, generation, Time(now));
    let conditions = vec![eligible, quarantined(&verdict_of(old), generation, now)];
    nodes.convicted = old.nodes.as_ref().map_or(0, |nodes| nodes.convicted);
    let mut fixes = fixes(entry, verified);
    let more = fixes.split_off(fixes.len().min(FIXES)).len();
    PatchSetStatus {
        conditions: set_conditions(&old.conditions, conditions),
        released: Some(Time(crate::context::whole_seconds(entry.released))),
        channel: Some(
            match entry.channel {
                Channel::Stable => "stable",
                Channel::Test => "test",
            }
            .to_owned(),
        ),
        summary: Some(entry.summary.chars().take(1024).collect()),
        fixes,
        more_fixes: u32::try_from(more).ok().filter(|more| *more > 0),
        nodes: Some(nodes),
        evidence: old.evidence.clone(),
        quarantine: old.quarantine.clone(),
    }
}

fn blocked_message(why: Ineligible) -> String {
    let remedy = why.block().remedy();
    match why.until() {
        Some(until) => format!("withheld until {until}: {remedy}"),
        None => match why.block() {
            Block::Withdrawn => format!("its author withdrew it: {remedy}"),
            Block::TestOnly => format!("its tests are not finished: {remedy}"),
            Block::AfterDate => format!("it was released after the sticky date: {remedy}"),
            Block::AwaitingApproval => format!("not enough people have approved it: {remedy}"),
            Block::Rejected => format!("a person rejected it: {remedy}"),
            Block::Quarantined => format!("several nodes speak against it: {remedy}"),
            Block::Delayed => format!("withheld: {remedy}"),
        },
    }
}

fn verdict_of(status: &PatchSetStatus) -> Verdict {
    Verdict { evidence: status.evidence.clone(), quarantine: status.quarantine.clone() }
}

/// A status with another verdict; everything else as it was.
pub fn with_verdict(
    old: &PatchSetStatus,
    verdict: Verdict,
    generation: Option<i64>,
    now: Timestamp,
) -> PatchSetStatus {
    let others = old.conditions.iter().filter(|c| c.type_ != ConditionType::Quarantined.as_str()).cloned();
    let conditions = others.chain([quarantined(&verdict, generation, now)]).collect();
    let convicting: BTreeSet<&str> = verdict
        .evidence
        .iter()
        .filter(|piece| piece.verdict.convicts())
        .map(|piece| piece.node_uid.as_str())
        .collect();
    let convicted = u32::try_from(convicting.len()).unwrap_or(u32::MAX);
    PatchSetStatus {
        conditions: set_conditions(&old.conditions, conditions),
        nodes: Some(SetNodes { convicted, ..old.nodes.clone().unwrap_or_default() }),
        evidence: verdict.evidence,
        quarantine: verdict.quarantine,
        ..old.clone()
    }
}

/// The condition that tells a verdict.
fn quarantined(verdict: &Verdict, generation: Option<i64>, now: Timestamp) -> Condition {
    let weight = Weight::of(&verdict.evidence);
    let (reason, message) = match (&verdict.quarantine, weight) {
        (Some(_), Weight::NodeAndControlPlane) => (
            reason::Quarantine::NodeAndControlPlane,
            "one node speaks against it, and the control plane saw a node die of it or with it",
        ),
        (Some(_), Weight::Nodes | Weight::Light | Weight::Nothing) => {
            (reason::Quarantine::SeveralNodes, "several nodes speak against it")
        }
        (None, Weight::Light) => {
            (reason::Quarantine::NotEnoughEvidence, "what was found against it is one node's word or less")
        }
        (None, Weight::Nodes | Weight::NodeAndControlPlane | Weight::Nothing) => {
            let overruled = verdict.evidence.iter().any(|piece| piece.overruled_by.is_some());
            if overruled {
                (reason::Quarantine::Overruled, "a person approved it after the evidence in status.evidence")
            } else {
                (reason::Quarantine::NoEvidence, "nothing was found against it")
            }
        }
    };
    let message = match &verdict.quarantine {
        Some(_) => format!("{message}; nothing rolls it out: {}", Block::Quarantined.remedy()),
        None => message.to_owned(),
    };
    let truth = verdict.quarantine.is_some();
    condition(ConditionType::Quarantined, truth, reason.as_str(), &message, generation, Time(now))
}

/// What the set closes in the kernels of this fleet, by number.
fn fixes(entry: &SetEntry, verified: &Verified) -> Vec<Fix> {
    let mut fixes: BTreeMap<String, Fix> = BTreeMap::new();
    for (build, kernel) in &entry.kernels {
        let levels =
            verified.kernels.get(build).map(|document| document.levels.as_slice()).unwrap_or_default();
        for fix in levels.iter().filter(|level| level.level == kernel.level).flat_map(|level| &level.fixes) {
            let named = Fix { cve: fix.cve.clone(), severity: fix.severity.clone(), cvss: fix.cvss.clone() };
            fixes.entry(fix.cve.clone()).or_insert(named);
        }
    }
    fixes.into_values().collect()
}

/// How many nodes have each set of this feed.
fn nodes(stores: &Stores, feed: &str) -> BTreeMap<SetName, SetNodes> {
    let mut counts: BTreeMap<SetName, SetNodes> = BTreeMap::new();
    for patch in stores.patches.all() {
        let Some(status) = &patch.value.status else { continue };
        if patch.value.spec.feed.as_deref() != Some(feed) {
            continue;
        }
        if let Some(set) = status.set.as_ref().filter(|_| status.level > Level::UNPATCHED) {
            let count = counts.entry(set.clone()).or_default();
            count.applied += 1;
            count.settled += u32::from(status.state == NodeState::Settled);
        }
        let answered = status.observed_revision >= patch.value.spec.revision;
        let excused = Excuse::of(status.state, status.reason.as_deref()).is_some();
        let failed = answered && status.state.is_failure() && !excused;
        // One that is on its way counts nothing yet, and its set is needed all the same.
        if let Some(apply) = &patch.value.spec.apply {
            counts.entry(apply.set.clone()).or_default().failed += u32::from(failed);
        }
    }
    counts
}

#[cfg(test)]
mod tests;
