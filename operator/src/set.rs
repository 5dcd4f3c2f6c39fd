//! The PatchSets of one feed: one for each publication, and what is known of it.

use std::collections::BTreeMap;

use invivo_api::{ConditionType, Fix, PatchSetSpec, PatchSetStatus, SetNodes, condition, set_conditions};
use invivo_feed::document::{Channel, SetEntry};
use invivo_feed::{Ineligible, eligible};
use invivo_terms::{Excuse, Level, NodeState, SetName};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::context::Context;
use crate::error::Error;
use crate::observe::Stores;
use crate::sight::Verified;
use crate::write;

/// How many publications have an object; older ones stay where they were made, unattended.
const ATTENDED: usize = 200;

/// How many fixes a status names.
const FIXES: usize = 200;

/// Creates the sets that are missing and brings their statuses up to date.
///
/// # Errors
///
/// The first write that did not happen. One set that cannot be written does not keep the others
/// from it.
pub async fn reconcile_all(
    context: &Context,
    feed: &str,
    verified: &Verified,
    now: Timestamp,
) -> Result<(), Error> {
    let nodes = nodes(&context.stores, feed);
    let mut ended = Ok(());
    for entry in verified.index.sets.iter().rev().take(ATTENDED) {
        let counts = nodes.get(&entry.name).cloned().unwrap_or_default();
        ended = ended.and(reconcile(context, feed, verified, entry, counts, now).await);
    }
    ended
}

async fn reconcile(
    context: &Context,
    feed: &str,
    verified: &Verified,
    entry: &SetEntry,
    counts: SetNodes,
    now: Timestamp,
) -> Result<(), Error> {
    let (Some(repository), Some(digest)) = (&verified.floors.repository, verified.digests.get(&entry.name))
    else {
        return Ok(());
    };
    let name = format!("{feed}.{}", entry.name);
    if context.stores.sets.get(&name).is_none() {
        let spec = PatchSetSpec {
            feed: feed.to_owned(),
            repository: repository.clone(),
            set: entry.name.clone(),
            digest: digest.clone(),
        };
        write::create_set(&context.client, &context.stores, &name, &spec).await?;
    }
    let Some(set) = context.stores.sets.get(&name) else { return Ok(()) };
    let old = set.value.status.clone().unwrap_or_default();
    let wanted = status(entry, verified, counts, &old, set.value.metadata.generation, now);
    if set.value.status.as_ref() != Some(&wanted) {
        write::set_status(&context.client, &context.stores, &set, &wanted).await?;
    }
    Ok(())
}

fn status(
    entry: &SetEntry,
    verified: &Verified,
    nodes: SetNodes,
    old: &PatchSetStatus,
    generation: Option<i64>,
    now: Timestamp,
) -> PatchSetStatus {
    let (eligible, reason, message) = match eligible(entry) {
        Ok(()) => (true, "Eligible", "Latest may choose it"),
        Err(why @ Ineligible::Withdrawn) => {
            (false, why.as_str(), "its author withdrew it: choose another set")
        }
        Err(why @ Ineligible::TestOnly) => {
            (false, why.as_str(), "its tests are not finished: wait for the author to release it as stable")
        }
    };
    let new = vec![condition(ConditionType::Eligible, eligible, reason, message, generation, Time(now))];
    PatchSetStatus {
        conditions: set_conditions(&old.conditions, new),
        released: Some(Time(crate::context::whole_seconds(entry.released))),
        channel: Some(
            match entry.channel {
                Channel::Stable => "stable",
                Channel::Test => "test",
            }
            .to_owned(),
        ),
        summary: Some(entry.summary.chars().take(1024).collect()),
        fixes: fixes(entry, verified),
        nodes: Some(nodes),
    }
}

/// What the set closes in the kernels of this fleet.
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
    fixes.into_values().take(FIXES).collect()
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
        if let Some(apply) = patch.value.spec.apply.as_ref().filter(|_| failed) {
            counts.entry(apply.set.clone()).or_default().failed += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sight::tests::verified;

    #[tokio::test]
    async fn a_set_that_cannot_be_made_does_not_keep_the_others_from_it() {
        let fake = crate::fake::Fake::default();
        fake.refuse("production.2026-11-20.1", 422);
        let sets = [
            ("2026-11-19.1", "stable", "active"),
            ("2026-11-20.1", "stable", "active"),
            ("2026-11-21.1", "stable", "active"),
        ];
        let catalogue = verified(&sets, &"b".repeat(40));
        let context = fake.operator();
        let error =
            reconcile_all(&context, "production", &catalogue, Timestamp::UNIX_EPOCH).await.unwrap_err();
        assert!(error.to_string().contains("2026-11-20.1"), "{error}");
        for (set, made) in [("2026-11-19.1", true), ("2026-11-20.1", false), ("2026-11-21.1", true)] {
            let object = fake.get(&format!("/apis/invivo.dev/v1alpha1/patchsets/production.{set}"));
            assert_eq!(object["status"]["conditions"][0]["reason"] == "Eligible", made, "{set}");
        }
    }

    #[test]
    fn an_attempt_that_says_nothing_counts_nothing_against_the_set() {
        let stores = Stores::default();
        for (node, state, reason) in [
            ("a", "Failed", "LoadRefused"),
            ("b", "Failed", "Unreachable"),
            ("c", "Suspected", "RebootedUnsettled"),
            ("d", "Blocked", "TransitionStuck"),
        ] {
            let patch = serde_json::from_value(serde_json::json!({
                "apiVersion": "invivo.dev/v1alpha1", "kind": "NodePatch", "metadata": {"name": node},
                "spec": {"revision": 2, "policy": "workers", "feed": "production", "apply": {
                    "buildId": "b".repeat(40), "level": 1, "set": "2026-11-21.1", "digest": "e".repeat(64),
                    "manifest": "c".repeat(64), "mechanism": "Livepatch", "deadline": "2026-11-22T12:10:00Z",
                    "settleAfter": "30m"}},
                "status": {"observedRevision": 2, "state": state, "reason": reason},
            }));
            stores.patches.wrote(crate::store::Entry::of(patch.unwrap()));
        }
        let counts = nodes(&stores, "production");
        assert_eq!(counts[&"2026-11-21.1".parse().unwrap()].failed, 1);
    }

    #[test]
    fn a_set_says_why_latest_may_not_choose_it() {
        let build = "b".repeat(40);
        let catalogue = verified(
            &[
                ("2026-11-19.1", "stable", "active"),
                ("2026-11-20.1", "stable", "withdrawn"),
                ("2026-11-21.1", "test", "active"),
            ],
            &build,
        );
        let reasons: Vec<_> = catalogue
            .index
            .sets
            .iter()
            .map(|entry| {
                let status = status(
                    entry,
                    &catalogue,
                    SetNodes::default(),
                    &PatchSetStatus::default(),
                    Some(1),
                    Timestamp::UNIX_EPOCH,
                );
                (status.conditions[0].status.clone(), status.conditions[0].reason.clone())
            })
            .collect();
        let expected = [("True", "Eligible"), ("False", "Withdrawn"), ("False", "TestOnly")];
        assert_eq!(reasons, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }
}
