//! What people and evidence decide about an offer.

use super::*;
use crate::fake::Fake;
use crate::sight::{Own, tests::verified};
use serde_json::{Value, json};

const CRD: &str = "/apis/invivo.dev/v1alpha1";
const SET: &str = "2026-11-21.1";

fn put(fake: &Fake, plural: &str, name: &str, object: &Value) {
    let kind = if plural == "patchfeeds" { "PatchFeed" } else { "PatchSet" };
    let mut object = object.clone();
    object["apiVersion"] = json!("invivo.dev/v1alpha1");
    object["kind"] = json!(kind);
    object["metadata"] = json!({});
    fake.put(&format!("{CRD}/{plural}/{name}"), object);
}

fn approval(user: &str, decision: &str, digest: &str) -> Value {
    json!({"user": user, "decision": decision, "digest": digest.repeat(64), "reason": "tried"})
}

fn put_set(fake: &Fake, feed: &str, approvals: &[Value], status: &Value) {
    let spec = json!({"feed": feed, "repository": "patches", "set": SET, "digest": "e".repeat(64),
        "approvals": approvals});
    put(fake, "patchsets", &format!("{feed}.{SET}"), &json!({"spec": spec, "status": status}));
}

/// Why a feed withholds the only set; `production` has the repository and asks for two approvals,
/// `over` takes from it and asks for none.
fn why(fake: &Fake, feed: &str) -> Option<Ineligible> {
    let repository = json!({"source": {"repository": {"url": "https://patches.example.com"}},
        "trust": {"rootSha256": "a".repeat(64)}, "approval": {"mode": "Manual", "required": 2}});
    put(fake, "patchfeeds", "production", &json!({"spec": repository}));
    put(fake, "patchfeeds", "over", &json!({"spec": {"source": {"feed": "production"}}}));
    let context = fake.operator();
    let catalogue = Arc::new(verified(&[(SET, "stable", "active")], &"b".repeat(40)));
    let state = json!({"attempt": "2026-11-22T12:00:00Z", "verified": "2026-11-22T12:00:00Z",
        "reason": "Verified"});
    let server = Server::Says(serde_json::from_value(state).unwrap());
    context.sights.put("production", server, Own::Held, Some(Arc::clone(&catalogue)));
    context.sights.stored("production", &catalogue);
    let now = "2026-11-22T12:00:00Z".parse().unwrap();
    match FeedView::of(&context.stores, &context.sights, feed, now) {
        FeedView::Known { blocks, verified: Some(_), .. } => blocks.get(&SET.parse().unwrap()).copied(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn as_many_people_as_the_feed_asks_for_must_approve_this_very_set() {
    let fake = Fake::default();
    assert_eq!(why(&fake, "production"), Some(Ineligible::AwaitingApproval));
    let (ada, bob) = (approval("ada", "Approve", "e"), approval("bob", "Approve", "e"));
    for (approvals, expected) in [
        (vec![ada.clone()], Some(Ineligible::AwaitingApproval)),
        (vec![ada.clone(), approval("bob", "Approve", "f")], Some(Ineligible::AwaitingApproval)),
        (vec![ada.clone(), bob.clone()], None),
        (vec![ada, bob, approval("eve", "Reject", "e")], Some(Ineligible::Rejected)),
    ] {
        put_set(&fake, "production", &approvals, &json!({}));
        assert_eq!(why(&fake, "production"), expected);
    }
}

#[tokio::test]
async fn what_one_feed_decided_counts_for_those_over_it_and_not_the_other_way() {
    let fake = Fake::default();
    assert_eq!(why(&fake, "over"), Some(Ineligible::AwaitingApproval));
    put_set(
        &fake,
        "production",
        &[approval("ada", "Approve", "e"), approval("bob", "Approve", "e")],
        &json!({}),
    );
    assert_eq!(why(&fake, "over"), None);
    put_set(&fake, "over", &[approval("eve", "Reject", "e")], &json!({}));
    assert_eq!(why(&fake, "over"), Some(Ineligible::Rejected));
    assert_eq!(why(&fake, "production"), None);
}

#[tokio::test]
async fn a_quarantine_counts_for_every_feed_until_each_has_overruled_it() {
    let fake = Fake::default();
    let both = [approval("ada", "Approve", "e"), approval("bob", "Approve", "e")];
    let quarantine = json!({"quarantine": {"since": "2026-11-22T12:00:00Z"}});
    put_set(&fake, "production", &both, &json!({}));
    put_set(&fake, "elsewhere", &[], &quarantine);
    assert_eq!(why(&fake, "production"), None, "the object here says that it was looked at");
    put_set(&fake, "production", &both, &Value::Null);
    assert_eq!(why(&fake, "production"), Some(Ineligible::Quarantined), "nothing is written down here yet");
    put_set(&fake, "production", &both, &quarantine);
    assert_eq!(why(&fake, "production"), Some(Ineligible::Quarantined));
    put_set(&fake, "over", &[], &json!({}));
    assert_eq!(why(&fake, "over"), Some(Ineligible::Quarantined), "the one below still has it");
}
