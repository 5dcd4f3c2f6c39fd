//! What is written down about a feed.

use std::sync::Arc;

use super::*;
use crate::fake::Fake;
use crate::offer::FeedView;
use crate::sight::{Own, Server, tests::verified};
use invivo_terms::Refusal;
use serde_json::{Value, json};

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
    assert!(matches!(FeedView::of(&context.stores, &context.sights, "production", now), FeedView::Unseen));
}

#[test]
fn one_condition_is_true_and_all_carry_the_reason() {
    let now = Timestamp::UNIX_EPOCH;
    let verdict = Verdict::Refused { refusal: Refusal::Expired, message: "past its date".into() };
    let conditions = conditions(&[], &Standing::judged(&verdict), Some(1), now);
    let truths: Vec<_> = conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect();
    assert_eq!(truths, [("Ready", "False"), ("Reconciling", "False"), ("Stalled", "True")]);
    assert!(conditions.iter().all(|c| c.reason == "Expired"));
}

#[test]
fn a_condition_keeps_its_instant_while_its_status_stays() {
    let later = Timestamp::from_second(60).unwrap();
    let standing = Standing::judged(&Verdict::Verified);
    let first = conditions(&[], &standing, Some(1), Timestamp::UNIX_EPOCH);
    assert_eq!(conditions(&first, &standing, Some(1), later), first);
}

const CRD: &str = "/apis/invivo.dev/v1alpha1";

fn put_feed(fake: &Fake, name: &str, spec: &Value) {
    let feed =
        json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "PatchFeed", "metadata": {}, "spec": spec});
    fake.put(&format!("{CRD}/patchfeeds/{name}"), feed);
}

fn status(fake: &Fake, name: &str) -> Value {
    fake.get(&format!("{CRD}/patchfeeds/{name}"))["status"].clone()
}

fn repository(change: &Value) -> Value {
    let mut spec = json!({"source": {"repository": {"url": "https://patches.example.com"}},
        "trust": {"rootSha256": "a".repeat(64)}});
    for (key, value) in change.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

/// An operator that sees the mirror of `production` with two sets, released on 2026-11-21 at midnight.
fn operator(fake: &Fake) -> Context {
    let context = fake.operator();
    let sets = [("2026-11-20.1", "stable", "active"), ("2026-11-21.1", "test", "active")];
    let catalogue = Arc::new(verified(&sets, &"b".repeat(40)));
    let state = json!({"attempt": "2026-11-21T12:00:00Z", "verified": "2026-11-21T12:00:00Z",
        "reason": "Verified"});
    let server = Server::Says(serde_json::from_value(state).unwrap());
    context.sights.put("production", server, Own::Held, Some(catalogue));
    context
}

fn noon() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

#[tokio::test]
async fn what_a_feed_withholds_is_told_with_its_end_and_looked_at_again_then() {
    let fake = Fake::default();
    put_feed(&fake, "production", &repository(&json!({"delay": "24h"})));
    let context = operator(&fake);
    let done = reconcile(&context, "production", noon()).await.unwrap();
    let told = status(&fake, "production");
    assert_eq!(
        told["blocked"],
        json!([{"set": "2026-11-21.1", "reason": "TestOnly"},
            {"set": "2026-11-20.1", "reason": "Delayed", "until": "2026-11-22T00:00:00Z"}])
    );
    assert!(told["latestSet"].is_null());
    assert_eq!(done.wake, Some(std::time::Duration::from_hours(12)));
    // A patch server whose clock is an hour behind keeps it an hour longer.
    context.sights.set_behind("production", std::time::Duration::from_hours(1));
    let done = reconcile(&context, "production", noon()).await.unwrap();
    assert_eq!(done.wake, Some(std::time::Duration::from_hours(13)));
    context.sights.set_behind("production", std::time::Duration::ZERO);
    let done = reconcile(&context, "production", "2026-11-22T00:00:00Z".parse().unwrap()).await.unwrap();
    assert!(done.policies, "policies look at the set that has come free");
    assert_eq!(status(&fake, "production")["latestSet"], "2026-11-20.1");
}

#[tokio::test]
async fn a_feed_over_another_withholds_what_that_one_does_and_more() {
    let fake = Fake::default();
    put_feed(&fake, "production", &repository(&json!({"channel": "Test"})));
    put_feed(&fake, "late", &json!({"source": {"feed": "production"}, "asOf": "2026-11-20"}));
    put_feed(&fake, "stable", &json!({"source": {"feed": "production"}}));
    let context = operator(&fake);
    for feed in ["production", "late", "stable"] {
        reconcile(&context, feed, noon()).await.unwrap();
    }
    assert_eq!(status(&fake, "production")["latestSet"], "2026-11-21.1");
    assert_eq!(status(&fake, "stable")["latestSet"], "2026-11-20.1");
    assert_eq!(status(&fake, "late")["blocked"].as_array().unwrap().len(), 2);
    assert!(status(&fake, "late")["repository"].is_null(), "the floors stand in one place");
    assert_eq!(status(&fake, "stable")["conditions"][0]["reason"], "Verified");
    assert!(!fake.get(&format!("{CRD}/patchsets/stable.2026-11-20.1")).is_null());
    assert!(fake.get(&format!("{CRD}/patchsets/stable.2026-11-21.1")).is_null());
}

#[tokio::test]
async fn a_cycle_of_feeds_a_missing_one_and_a_suspended_one_are_told_by_name() {
    let fake = Fake::default();
    put_feed(&fake, "production", &repository(&json!({"suspend": true})));
    put_feed(&fake, "over", &json!({"source": {"feed": "production"}}));
    put_feed(&fake, "a", &json!({"source": {"feed": "b"}}));
    put_feed(&fake, "b", &json!({"source": {"feed": "a"}}));
    put_feed(&fake, "c", &json!({"source": {"feed": "nowhere"}}));
    let context = operator(&fake);
    for (feed, reason, part) in [
        ("production", "Suspended", "PatchFeed production is suspended"),
        ("over", "Suspended", "PatchFeed production is suspended"),
        ("a", "FeedCycle", "a, b, a"),
        ("c", "FeedNotFound", "PatchFeed nowhere"),
    ] {
        reconcile(&context, feed, noon()).await.unwrap();
        let condition = &status(&fake, feed)["conditions"][2];
        assert_eq!(condition["type"], "Stalled");
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!(reason)));
        assert!(condition["message"].as_str().unwrap().contains(part), "{condition}");
        fake.refresh(&context.stores);
        let offer = FeedView::of(&context.stores, &context.sights, feed, noon()).offer();
        let suspended = offer == invivo_rollout::Offer::Suspended;
        assert_eq!(suspended, reason == "Suspended");
        assert!(suspended || offer == invivo_rollout::Offer::Unknown);
    }
}

#[tokio::test]
async fn coverage_says_what_a_scanner_may_believe() {
    let fake = Fake::default();
    put_feed(&fake, "production", &repository(&json!({})));
    fake.put(
        &format!("{CRD}/nodepatches/a"),
        json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "NodePatch", "metadata": {},
            "spec": {"revision": 1, "hold": {}}, "status": {"kernel": {"buildId": "b".repeat(40),
            "release": "6.1.0-47", "supports": [], "signing": "Off"}}}),
    );
    let context = operator(&fake);
    let mut catalogue = (*context.sights.get("production").verified.unwrap()).clone();
    let document = json!({
        "kernel": {"buildId": "b".repeat(40), "release": "6.1.0-47", "version": "6.1.170-3", "arch": "x86_64",
            "distribution": "debian"},
        "levels": [{"level": 1, "set": "2026-11-20.1", "released": "2026-11-21T00:00:00Z",
            "mechanisms": ["livepatch"], "complete": null, "manifest": {"length": 1, "sha256": "c".repeat(64)},
            "modules": [], "bundle": {"length": 1, "sha256": "d".repeat(64)}, "fixes": []}]});
    catalogue.kernels.insert("b".repeat(40).parse().unwrap(), serde_json::from_value(document).unwrap());
    let server = context.sights.get("production").server;
    context.sights.put("production", server, Own::Held, Some(Arc::new(catalogue)));
    reconcile(&context, "production", noon()).await.unwrap();
    let kernel = &status(&fake, "production")["kernels"][0];
    assert_eq!((&kernel["level"], &kernel["effective"]), (&json!(1), &json!("6.1.170-3+invivo1")));
}

#[tokio::test]
async fn a_feed_that_is_gone_takes_the_objects_that_nobody_needs() {
    let fake = Fake::default();
    put_feed(&fake, "production", &repository(&json!({})));
    let context = operator(&fake);
    reconcile(&context, "production", noon()).await.unwrap();
    assert_eq!(context.stores.sets.len(), 1);
    context.stores.feeds.deleted("production", "uid-of-production");
    reconcile(&context, "production", noon()).await.unwrap();
    assert!(context.stores.sets.is_empty());
}
