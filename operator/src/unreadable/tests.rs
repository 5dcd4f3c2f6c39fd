//! Objects that a newer version wrote, met at a start, in a list and by the watch.

use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::UNREADABLE;
use crate::context::Context;
use crate::fake::Fake;
use crate::policy::reconcile;
use crate::policy::tests::{POLICY, add_node, answer, at, fleet, instructed, node_patch, operator};
use crate::watch::heed;

const CRD: &str = "/apis/invivo.dev/v1alpha1";

/// How an operator comes to meet an object.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Start,
    List,
    Watch,
}

/// The operator of this fleet after somebody has made the object at `path` one that it cannot read.
fn meets(way: Way, fake: &Fake, path: &str, spoil: impl Fn(&mut Value)) -> Context {
    let before = operator(fake);
    let mut object = fake.get(path);
    spoil(&mut object);
    fake.put(path, object);
    match way {
        Way::Start => return operator(fake),
        Way::List => fake.refresh(&before.stores),
        Way::Watch => {
            /// Delivers the object as the watch of its kind would.
            macro_rules! deliver {
                ($store:ident) => {
                    drop(heed(
                        &before.stores.$store,
                        Event::Apply(serde_json::from_value::<DeserializeGuard<_>>(fake.get(path)).unwrap()),
                    ))
                };
            }
            match path.rsplit('/').nth(1).unwrap() {
                "patchfeeds" => deliver!(feeds),
                "patchpolicies" => deliver!(policies),
                "patchsets" => deliver!(sets),
                _ => deliver!(patches),
            }
        }
    }
    before
}

const WAYS: [Way; 3] = [Way::Start, Way::List, Way::Watch];

/// The condition that is true on an object, with its message.
fn standing(object: &Value) -> (String, String, String) {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let one = conditions.into_iter().find(|condition| condition["status"] == "True").unwrap_or_default();
    let text = |field: &str| one[field].as_str().unwrap_or_default().to_owned();
    (text("type"), text("reason"), text("message"))
}

fn assert_told(object: &Value, who: &str, way: Way) {
    let (condition, reason, message) = standing(object);
    assert_eq!((condition.as_str(), reason.as_str()), ("Stalled", UNREADABLE), "{way:?}: {object}");
    for part in [who, "upgrade the operator"] {
        assert!(message.contains(part), "{way:?}: {message}");
    }
}

fn put_set(fake: &Fake, approvals: &Value) -> String {
    let path = format!("{CRD}/patchsets/production.2026-11-21.1");
    fake.put(
        &path,
        json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "PatchSet", "metadata": {}, "spec": {
            "feed": "production", "repository": "patches", "set": "2026-11-21.1", "digest": "e".repeat(64),
            "approvals": approvals}, "status": {}}),
    );
    path
}

#[tokio::test]
async fn a_set_that_cannot_be_read_may_be_rejected_and_holds_every_feed() {
    for way in WAYS {
        let fake = fleet();
        let rejected = json!([{"user": "ada", "decision": "Reject", "digest": "e".repeat(64), "reason": "broke staging"}]);
        let path = put_set(&fake, &rejected);
        let context = meets(way, &fake, &path, |set| set["spec"]["approvals"][0]["decision"] = json!("Veto"));
        let set = fake.get(&path);
        reconcile(&context, "workers", at("12:00:00")).await.unwrap();
        assert_eq!(instructed(&fake), [] as [&str; 0], "{way:?}");
        assert_told(&fake.policy("workers"), "PatchSet production.2026-11-21.1", way);
        let holds = fake.policy("workers")["status"]["holds"].clone();
        assert_eq!((&holds[0]["reason"], &holds[0]["nodes"]), (&json!("FeedStalled"), &json!(2)), "{way:?}");
        crate::feed::reconcile(&context, "production", at("12:00:00")).await.unwrap();
        assert_told(
            &fake.get(&format!("{CRD}/patchfeeds/production")),
            "PatchSet production.2026-11-21.1",
            way,
        );
        assert_eq!(fake.get(&path), set, "{way:?}: nothing is written over it");
        // It can be read again.
        put_set(&fake, &json!([]));
        fake.refresh(&context.stores);
        reconcile(&context, "workers", at("12:00:03")).await.unwrap();
        assert_eq!(instructed(&fake), ["a"], "{way:?}");
    }
}

#[tokio::test]
async fn evidence_against_a_set_that_cannot_be_read_waits_until_it_can() {
    for way in WAYS {
        let fake = fleet();
        let path = put_set(&fake, &json!([]));
        reconcile(&operator(&fake), "workers", at("12:00:00")).await.unwrap();
        let context = meets(way, &fake, &path, |set| set["status"]["evidence"] = json!("elsewhere"));
        let patch = context.stores.patches.get("a").unwrap();
        context.stores.nodes.deleted("a", "uid-of-a");
        context.stores.patches.deleted("a", "patch-of-a");
        context.stores.departed.add(patch.value);
        let digest = context.stores.departed.all()[0].spec.apply.as_ref().unwrap().digest.clone();
        crate::record::evidence(&context, at("12:00:01")).await.unwrap();
        assert_eq!(fake.get(&path)["status"]["evidence"], "elsewhere", "{way:?}");
        assert_eq!(context.stores.departed.all().len(), 1, "{way:?}");
        let mut readable = fake.get(&path);
        readable["status"] = json!({});
        readable["spec"]["digest"] = json!(digest);
        fake.put(&path, readable);
        let told = serde_json::from_value(fake.get(&path)).unwrap();
        heed(&context.stores.sets, Event::Apply(told));
        crate::record::evidence(&context, at("12:00:02")).await.unwrap();
        assert_eq!(fake.get(&path)["status"]["evidence"][0]["verdict"], "Lost", "{way:?}");
        assert!(context.stores.departed.all().is_empty(), "{way:?}");
    }
}

#[tokio::test]
async fn a_feed_that_cannot_be_read_gives_nothing_and_takes_nothing() {
    for way in WAYS {
        let fake = fleet();
        let set = put_set(&fake, &json!([]));
        let path = format!("{CRD}/patchfeeds/production");
        let context = meets(way, &fake, &path, |feed| feed["spec"]["channel"] = json!("Nightly"));
        reconcile(&context, "workers", at("12:00:00")).await.unwrap();
        assert_eq!(instructed(&fake), [] as [&str; 0], "{way:?}");
        assert_told(&fake.policy("workers"), "PatchFeed production", way);
        crate::feed::reconcile(&context, "production", at("12:00:00")).await.unwrap();
        assert_told(&fake.get(&path), "PatchFeed production", way);
        assert_eq!(fake.get(&path)["spec"]["channel"], "Nightly", "{way:?}");
        assert!(!fake.get(&set).is_null(), "{way:?}: its sets are not those of a feed that is gone");
        let before = fake.changes();
        crate::feed::reconcile(&context, "production", at("12:00:05")).await.unwrap();
        assert_eq!(fake.changes(), before, "{way:?}: it is said once");
    }
}

/// A fleet at level 1 under policy `workers`, and another policy that would take every patch off.
fn two_policies() -> Fake {
    let fake = fleet();
    for node in ["a", "b"] {
        answer(&fake, node, &json!({"state": "Settled", "level": 1, "set": "2026-11-21.1"}));
    }
    let mut workers = fake.policy("workers");
    workers["spec"]["priority"] = json!(1);
    workers["status"] = json!({"proven": [{"buildId": "b".repeat(40), "level": 1, "set": "2026-11-21.1"}]});
    fake.put(POLICY, workers);
    fake.put(
        &format!("{CRD}/patchpolicies/bare"),
        json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "PatchPolicy",
            "metadata": {"generation": 1, "creationTimestamp": "2026-11-22T09:00:00Z"},
            "spec": {"feed": "production", "target": {"set": "None"}}}),
    );
    fake
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_still_claims_its_nodes() {
    for way in WAYS {
        let fake = two_policies();
        let context =
            meets(way, &fake, POLICY, |policy| policy["spec"]["rollout"]["onFailure"] = json!("Mend"));
        let patches = ["a", "b"].map(|node| fake.node_patch(node));
        reconcile(&context, "bare", at("12:00:00")).await.unwrap();
        assert_eq!(["a", "b"].map(|node| fake.node_patch(node)), patches, "{way:?}: nothing is taken off");
        assert_told(&fake.policy("bare"), "PatchPolicy workers", way);

        reconcile(&context, "workers", at("12:00:00")).await.unwrap();
        let workers = fake.policy("workers");
        assert_told(&workers, "PatchPolicy workers", way);
        assert_eq!(workers["status"]["proven"][0]["level"], 1, "{way:?}: what it remembers stays");
        assert_eq!(workers["spec"]["rollout"]["onFailure"], "Mend", "{way:?}");
        let before = fake.changes();
        reconcile(&context, "workers", at("12:00:05")).await.unwrap();
        assert_eq!(fake.changes(), before, "{way:?}: it is said once");

        // Whose a new node is cannot be told.
        fake.put("/api/v1/nodes/c", json!({"apiVersion": "v1", "kind": "Node", "metadata": {}}));
        fake.refresh(&context.stores);
        crate::node::reconcile(&context, "c").await.unwrap();
        assert!(fake.node_patch("c").is_null(), "{way:?}");

        let mut readable = fake.policy("workers");
        readable["spec"]["rollout"] = json!({});
        fake.put(POLICY, readable);
        fake.refresh(&context.stores);
        for policy in ["bare", "workers"] {
            reconcile(&context, policy, at("12:00:10")).await.unwrap();
            assert_ne!(standing(&fake.policy(policy)).1, UNREADABLE, "{way:?}: {policy}");
        }
    }
}

#[tokio::test]
async fn a_node_whose_node_patch_cannot_be_read_is_accounted_for_and_left_alone() {
    for way in WAYS {
        let fake = fleet();
        let context = meets(way, &fake, &node_patch("a"), |patch| patch["status"]["state"] = json!("Frozen"));
        let before = fake.node_patch("a");
        for second in 0..3 {
            reconcile(&context, "workers", at(&format!("12:00:0{}", 3 * second))).await.unwrap();
            crate::node::reconcile(&context, "a").await.unwrap();
        }
        assert_eq!(fake.node_patch("a"), before, "{way:?}");
        let status = fake.policy("workers")["status"].clone();
        assert_told(&json!({"status": status}), "NodePatch a", way);
        assert_eq!(
            (&status["nodes"]["total"], &status["nodes"]["failed"]),
            (&json!(2), &json!(0)),
            "{way:?}"
        );
        let hold = &status["holds"][0];
        assert_eq!((&hold["reason"], &hold["examples"]), (&json!("StatusStale"), &json!(["a"])), "{way:?}");
    }
}

#[tokio::test]
async fn of_a_node_that_was_told_to_move_and_cannot_be_read_it_is_not_known_whether_it_is_well() {
    for way in WAYS {
        let fake = fleet();
        reconcile(&operator(&fake), "workers", at("12:00:00")).await.unwrap();
        let context = meets(way, &fake, &node_patch("a"), |patch| patch["status"]["state"] = json!("Frozen"));
        let before = fake.node_patch("a");
        for minute in [1, 11, 21] {
            reconcile(&context, "workers", at(&format!("12:{minute:02}:00"))).await.unwrap();
            assert_eq!(instructed(&fake), ["a"], "{way:?}: no other starts");
        }
        let status = fake.policy("workers")["status"].clone();
        assert_eq!(status["gates"][1]["verdict"], "Unknown", "{way:?}");
        assert_eq!(status["rollout"]["failed"], 0, "{way:?}: nor is it lost");
        context.stores.stop.set(true);
        reconcile(&context, "workers", at("12:22:00")).await.unwrap();
        assert_eq!(fake.node_patch("a"), before, "{way:?}: it cannot be told to stop");
    }
}

#[tokio::test]
async fn a_node_that_came_after_the_operator_keeps_the_node_patch_that_cannot_be_read() {
    let fake = fleet();
    add_node(&fake, "c");
    let mut patch = fake.node_patch("c");
    patch["status"]["state"] = json!("Frozen");
    fake.put(&node_patch("c"), patch.clone());
    let context = operator(&fake);
    crate::node::reconcile(&context, "c").await.unwrap();
    assert_eq!(fake.node_patch("c")["status"], patch["status"]);
}
