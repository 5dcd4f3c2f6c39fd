//! The finalizer of a policy, put on and taken off by the operator's own rights.

use std::collections::BTreeMap;

use invivo_api::PatchPolicy;
use invivo_operator::deletion::{Deletion, FINALIZER, Guard, decide};
use invivo_operator::error::Category;
use invivo_operator::observe::Stores;
use invivo_operator::store::Entry;
use invivo_operator::write::policy_finalizer;
use kube::Client;
use serde_json::json;

use crate::server::{get, send};
use crate::{installed, operator};

const WORKERS: &str = "/apis/invivo.dev/v1alpha1/patchpolicies/workers";

async fn read(admin: &Client) -> Entry<PatchPolicy> {
    Entry::of(serde_json::from_str(&get(admin, WORKERS).await.text).unwrap())
}

#[tokio::test]
async fn a_policy_goes_once_its_finalizer_is_off_and_others_keep_theirs() {
    let server = installed().await;
    let (admin, operator) = (server.client(&[]), operator(&server));
    let stores = Stores::default();
    server
        .apply(
            "{apiVersion: invivo.dev/v1alpha1, kind: PatchPolicy, \
             metadata: {name: workers, finalizers: [example.com/audit]}, \
             spec: {feed: production, onDelete: RollBack}}",
        )
        .await;
    let now = || jiff::Timestamp::now();
    let policy = read(&admin).await;
    let alive = decide(&policy.value, &BTreeMap::new(), |_| false, now());
    assert_eq!(alive, Deletion::Alive { guard: Guard::PutOn });
    policy_finalizer(&operator, &stores, &policy, true).await.unwrap();
    let guarded = read(&admin).await;
    assert_eq!(
        guarded.value.metadata.finalizers.as_deref().unwrap(),
        ["example.com/audit".to_owned(), FINALIZER.to_owned()]
    );
    assert_eq!(guarded.value.spec, policy.value.spec);

    // What was read before somebody else wrote is not written over.
    let late = policy_finalizer(&operator, &stores, &policy, true).await.unwrap_err();
    assert_eq!(late.category(), Category::Conflict);

    assert_eq!(send(&admin, "DELETE", WORKERS, None, "").await.code, 200);
    let dying = read(&admin).await;
    let over = decide(&dying.value, &BTreeMap::new(), |_| false, now());
    assert!(matches!(over, Deletion::Over { left } if left.is_empty()));
    policy_finalizer(&operator, &stores, &dying, false).await.unwrap();
    let left = read(&admin).await;
    assert_eq!(left.value.metadata.finalizers.as_deref().unwrap(), ["example.com/audit".to_owned()]);
    assert_eq!(decide(&left.value, &BTreeMap::new(), |_| false, now()), Deletion::Leaving);
    let none = json!({"metadata": {"finalizers": []}});
    send(&admin, "PATCH", WORKERS, Some(&none), "application/merge-patch+json").await;
    assert_eq!(get(&admin, WORKERS).await.code, 404);
}

#[tokio::test]
async fn a_policy_whose_last_finalizer_is_ours_is_gone_with_it() {
    let server = installed().await;
    let (admin, operator) = (server.client(&[]), operator(&server));
    let stores = Stores::default();
    server
        .apply(
            "{apiVersion: invivo.dev/v1alpha1, kind: PatchPolicy, metadata: {name: workers}, \
             spec: {feed: production, onDelete: RollBack}}",
        )
        .await;
    policy_finalizer(&operator, &stores, &read(&admin).await, true).await.unwrap();
    send(&admin, "DELETE", WORKERS, None, "").await;
    policy_finalizer(&operator, &stores, &read(&admin).await, false).await.unwrap();
    assert_eq!(get(&admin, WORKERS).await.code, 404);
}
