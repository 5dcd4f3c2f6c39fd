//! What a feed withholds is not loaded, whatever the operator says.

use super::*;

/// A node with one set to apply, as this feed and these decisions have it.
async fn told(prepare: impl FnOnce(&FakeApi, &Bundle)) -> (Trial, Bundle) {
    let trial = Trial::new().await;
    let bundle = trial.author.publish(&node::build_id(), 1, "2026-11-21.1");
    prepare(&trial.api, &bundle);
    let mut what = apply(&bundle);
    what["apply"]["deadline"] = json!(Timestamp::now() + SignedDuration::from_secs(4));
    trial.instruct(1, &what);
    (trial, bundle)
}

/// It ends at the deadline, nothing is loaded, and it counts nothing against the patch.
async fn withheld(prepare: impl FnOnce(&FakeApi, &Bundle), why: &str) {
    let (trial, _) = told(prepare).await;
    let status = trial.observed(1).await;
    assert_eq!((status.state, status.reason.as_deref()), (NodeState::Failed, Some("Withheld")));
    assert!(status.message.as_ref().unwrap().contains(why), "{:?}", status.message);
    assert!(trial.loader.applied().is_empty());
    assert!(invivo_terms::Excuse::of(status.state, status.reason.as_deref()).is_some());
}

fn approval(user: &str, decision: &str, bundle: &Bundle) -> Value {
    json!({"user": user, "decision": decision, "digest": bundle.set_digest, "reason": "tried"})
}

#[tokio::test]
async fn a_set_that_is_too_young_is_not_loaded() {
    withheld(|api, _| api.feed("production", &json!({"delay": "30d"})), "Delayed until").await;
}

#[tokio::test]
async fn a_set_after_the_sticky_date_is_not_loaded() {
    withheld(|api, _| api.feed("production", &json!({"asOf": "2020-01-01"})), "AfterDate").await;
}

#[tokio::test]
async fn a_suspended_feed_loads_nothing() {
    withheld(|api, _| api.feed("production", &json!({"suspend": true})), "is suspended").await;
}

#[tokio::test]
async fn in_manual_mode_a_set_without_enough_approvals_is_not_loaded() {
    let manual = json!({"approval": {"mode": "Manual", "required": 2}});
    withheld(
        |api, bundle| {
            api.feed("production", &manual);
            api.set("production", bundle, &json!([approval("ada", "Approve", bundle)]), &json!({}));
        },
        "AwaitingApproval",
    )
    .await;
}

#[tokio::test]
async fn an_approval_that_comes_before_the_deadline_is_enough() {
    let (trial, bundle) =
        told(|api, _| api.feed("production", &json!({"approval": {"mode": "Manual"}}))).await;
    let deadline = Instant::now() + Duration::from_secs(3);
    while trial.api.reads() < 2 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    trial.api.set("production", &bundle, &json!([approval("ada", "Approve", &bundle)]), &json!({}));
    assert_eq!(trial.observed(1).await.state, NodeState::Applied);
}

#[tokio::test]
async fn a_rejection_stops_it_in_every_mode() {
    withheld(
        |api, bundle| {
            let both = json!([approval("ada", "Approve", bundle), approval("bob", "Reject", bundle)]);
            api.set("production", bundle, &both, &json!({}));
        },
        "Rejected",
    )
    .await;
}

#[tokio::test]
async fn a_quarantined_set_is_not_loaded() {
    withheld(
        |api, bundle| {
            let status = json!({"quarantine": {"since": "2026-11-22T12:00:00Z"}});
            api.set("production", bundle, &json!([]), &status);
        },
        "Quarantined",
    )
    .await;
}

#[tokio::test]
async fn a_feed_over_another_takes_its_mirror_and_what_that_one_decided() {
    let over = json!({"source": {"feed": "production"}});
    let trial = Trial::new().await;
    let bundle = trial.author.publish(&node::build_id(), 1, "2026-11-21.1");
    trial.api.feed("custom", &over);
    trial.api.policy_takes_from("custom");
    let mut what = apply(&bundle);
    what["feed"] = json!("custom");
    trial.instruct(1, &what);
    assert_eq!(trial.observed(1).await.state, NodeState::Applied);

    trial.api.feed("production", &json!({"delay": "30d"}));
    what["apply"]["deadline"] = json!(Timestamp::now() + SignedDuration::from_secs(4));
    trial.instruct(2, &what);
    let status = trial.observed(2).await;
    assert_eq!((status.state, status.reason.as_deref()), (NodeState::Failed, Some("Withheld")));
    assert_eq!(trial.loader.applied().len(), 1);
}

#[tokio::test]
async fn feeds_that_take_from_one_another_are_not_allowed() {
    let (trial, _) = told(|api, _| {
        api.feed("production", &json!({"source": {"feed": "other"}, "trust": null}));
        api.feed("other", &json!({"source": {"feed": "production"}}));
    })
    .await;
    let status = trial.observed(1).await;
    assert_eq!((status.state, status.reason.as_deref()), (NodeState::Refused, Some("NotAllowed")));
    assert!(status.message.unwrap().contains("takes from itself"));
}
