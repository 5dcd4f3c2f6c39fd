//! One feed: its conditions, its floors, its sets.

use invivo_api::{
    ConditionType, CoveredKernel, PatchFeedStatus, RepositoryStatus, condition, set_conditions,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Resource;

use crate::context::{Context, Done};
use crate::error::Error;
use crate::event;
use crate::observe::Stores;
use crate::set;
use crate::sight::{Server, Sight, Verdict, Verified};
use crate::write;

/// Writes down what is known of one feed at `now`.
///
/// # Errors
///
/// The write that did not happen.
pub async fn reconcile(context: &Context, name: &str, now: Timestamp) -> Result<Done, Error> {
    let stores = &context.stores;
    let Some(feed) = stores.feeds.get(name) else {
        context.metrics.forget_feed(name);
        return Ok(Done::default());
    };
    let sight = context.sights.get(name);
    if sight.server == Server::NotAsked || sight.is_of_another_root(&feed.value.spec.trust.root_sha256) {
        // What was known before stands until something is known of this root.
        return Ok(Done::default());
    }
    let verdict = sight.verdict(now);
    let old = feed.value.status.clone().unwrap_or_default();
    let generation = feed.value.metadata.generation;
    let wanted = PatchFeedStatus {
        observed_generation: generation,
        conditions: conditions(&old.conditions, &verdict, generation, now),
        ..knowledge(stores, &sight, old.clone())
    };
    context.metrics.feed(name, verdict.reason(), verdict.allows());
    if feed.value.status.as_ref() != Some(&wanted) {
        write::feed_status(&context.client, stores, &feed, &wanted).await?;
        let notes = event::of_feed(&old.conditions, &wanted.conditions);
        event::publish(&context.recorder, &feed.value.object_ref(&()), &notes).await;
    }
    let mut done = Done::default();
    if let Some(verified) = &sight.verified {
        let fresh = !sight.stored.as_ref().is_some_and(|stored| stored == verified);
        context.sights.stored(name, verified);
        set::reconcile_all(context, name, verified, now).await?;
        done = Done::wake_at(Some(verified.expires).filter(|expires| *expires > now), now);
        done.policies = fresh;
    }
    let was = event_reason(&old.conditions);
    done.policies |= was != event_reason(&wanted.conditions);
    Ok(done)
}

fn event_reason(conditions: &[Condition]) -> Option<&str> {
    conditions.first().map(|condition| condition.reason.as_str())
}

/// `Ready`, `Reconciling`, `Stalled`, with the verdict's name as reason of all three.
pub fn conditions(
    old: &[Condition],
    verdict: &Verdict,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let (true_one, message) = match verdict {
        Verdict::Verified => (ConditionType::Ready, "the mirror is what the repository's owner signed"),
        Verdict::Pending { message } => (ConditionType::Reconciling, message.as_str()),
        Verdict::Unreachable { message, .. } | Verdict::Refused { message, .. } => {
            (ConditionType::Stalled, message.as_str())
        }
    };
    let new = [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled]
        .into_iter()
        .map(|kind| condition(kind, kind == true_one, verdict.reason(), message, generation, Time(now)))
        .collect();
    set_conditions(old, new)
}

/// Floors, newest set and kernels, where a catalogue is at hand; else what was known before.
fn knowledge(stores: &Stores, sight: &Sight, old: PatchFeedStatus) -> PatchFeedStatus {
    let Some(verified) = &sight.verified else { return old };
    PatchFeedStatus {
        repository: verified.floors.repository.clone().map(|name| RepositoryStatus {
            root_sha256: Some(verified.root.clone()),
            name,
            trust_version: verified.floors.trust,
            index_version: verified.floors.index,
            timestamp_version: verified.floors.timestamp,
            expires: Time(crate::context::whole_seconds(verified.expires)),
        }),
        latest_set: verified.latest().map(|set| set.name.clone()),
        kernels: kernels(stores, verified),
        ..old
    }
}

/// The kernel builds of this fleet, those of most nodes first.
fn kernels(stores: &Stores, verified: &Verified) -> Vec<CoveredKernel> {
    let mut kernels: Vec<CoveredKernel> = stores
        .builds()
        .into_iter()
        .map(|(build_id, (release, nodes))| CoveredKernel {
            covered: verified.index.kernels.contains_key(&build_id),
            level: verified.level(&build_id),
            build_id,
            release,
            nodes,
        })
        .collect();
    kernels.sort_by(|a, b| b.nodes.cmp(&a.nodes).then_with(|| a.build_id.cmp(&b.build_id)));
    kernels.truncate(64);
    kernels
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fake::Fake;
    use crate::observe::FeedView;
    use crate::sight::{Own, tests::verified};
    use invivo_terms::Refusal;
    use serde_json::json;

    #[tokio::test]
    async fn floors_stand_beside_the_root_that_they_were_seen_from() {
        let fake = Fake::default();
        let path = "/apis/invivo.dev/v1alpha1/patchfeeds/production";
        let feed = |root: &str| {
            json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "PatchFeed", "metadata": {},
                "spec": {"source": {"repository": {"url": "https://patches.example.com"}},
                    "trust": {"rootSha256": root.repeat(64)}}})
        };
        fake.put(path, feed("a"));
        let context = fake.operator();
        let catalogue = Arc::new(verified(&[("2026-11-21.1", "stable", "active")], &"b".repeat(40)));
        let state = json!({"attempt": "2026-11-22T12:00:00Z", "verified": "2026-11-22T12:00:00Z",
            "reason": "Verified"});
        let server = Server::Says(serde_json::from_value(state).unwrap());
        context.sights.put("production", server, Own::Held, Some(catalogue));
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        reconcile(&context, "production", now).await.unwrap();
        assert_eq!(fake.get(path)["status"]["repository"]["rootSha256"], "a".repeat(64));

        // People pin another root: what was seen from the former one is not written as this one's.
        let mut other = feed("b");
        other["status"] = fake.get(path)["status"].clone();
        fake.put(path, other);
        fake.refresh(&context.stores);
        let before = fake.changes();
        reconcile(&context, "production", now).await.unwrap();
        assert_eq!(fake.changes(), before);
        assert!(matches!(
            FeedView::of(&context.stores, &context.sights, "production", now),
            FeedView::Unseen
        ));
    }

    #[test]
    fn one_condition_is_true_and_all_carry_the_reason() {
        let now = Timestamp::UNIX_EPOCH;
        let verdict = Verdict::Refused { refusal: Refusal::Expired, message: "past its date".into() };
        let conditions = conditions(&[], &verdict, Some(1), now);
        let truths: Vec<_> = conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
        assert_eq!(truths, [("Ready", "False"), ("Reconciling", "False"), ("Stalled", "True")]);
        assert!(conditions.iter().all(|c| c.reason == "Expired"));
    }

    #[test]
    fn a_condition_keeps_its_instant_while_its_status_stays() {
        let later = Timestamp::from_second(60).unwrap();
        let first = conditions(&[], &Verdict::Verified, Some(1), Timestamp::UNIX_EPOCH);
        assert_eq!(conditions(&first, &Verdict::Verified, Some(1), later), first);
    }
}
