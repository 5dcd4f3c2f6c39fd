//! Evidence goes onto the objects before anything else, and onto those of every feed.

use super::*;
use crate::fake::Fake;
use serde_json::{Value, json};

const CRD: &str = "/apis/invivo.dev/v1alpha1";

fn put_set(fake: &Fake, feed: &str) {
    fake.put(
        &format!("{CRD}/patchsets/{feed}.2026-11-21.1"),
        json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "PatchSet", "metadata": {}, "spec": {"feed": feed,
            "repository": "patches", "set": "2026-11-21.1", "digest": "e".repeat(64)}, "status": {}}),
    );
}

fn put_node(fake: &Fake, node: &str, ready: &str, boot: &str) {
    fake.put(
        &format!("/api/v1/nodes/{node}"),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {}, "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "nodeInfo": {"bootID": boot, "architecture": "", "containerRuntimeVersion": "", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
                "systemUUID": ""}}}),
    );
}

fn put_patch(fake: &Fake, node: &str, state: &str, reason: &str, boot: &str) {
    let uid = fake.get(&format!("/api/v1/nodes/{node}"))["metadata"]["uid"].clone();
    fake.put(
        &format!("{CRD}/nodepatches/{node}"),
        json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "NodePatch",
            "metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}]},
            "spec": {"revision": 2, "policy": "workers", "feed": "production", "apply": {
                "buildId": "b".repeat(40), "level": 1, "set": "2026-11-21.1", "digest": "e".repeat(64),
                "manifest": "c".repeat(64), "mechanism": "Livepatch", "deadline": "2026-11-22T12:10:00Z",
                "settleAfter": "30m"}},
            "status": {"observedRevision": 2, "state": state, "reason": reason, "bootId": boot}}),
    );
}

fn set(fake: &Fake, feed: &str) -> Value {
    fake.get(&format!("{CRD}/patchsets/{feed}.2026-11-21.1"))["status"].clone()
}

fn verdicts(status: &Value) -> Vec<&str> {
    let evidence = status["evidence"].as_array().map(Vec::as_slice).unwrap_or_default();
    evidence.iter().map(|piece| piece["verdict"].as_str().unwrap()).collect()
}

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

/// Two nodes with the set, and the set as two feeds have it.
fn fleet() -> Fake {
    let fake = Fake::default();
    put_set(&fake, "production");
    put_set(&fake, "staging");
    for node in ["a", "b"] {
        put_node(&fake, node, "True", "boot-1");
        put_patch(&fake, node, "Applied", "", "boot-1");
    }
    fake
}

#[tokio::test]
async fn a_fleet_that_is_well_is_not_written_about() {
    let fake = fleet();
    let context = fake.operator();
    let before = fake.changes();
    evidence(&context, now()).await.unwrap();
    assert_eq!(fake.changes(), before);
}

#[tokio::test]
async fn two_nodes_quarantine_a_set_for_every_feed_and_a_later_approval_lifts_it_for_one() {
    let fake = fleet();
    put_patch(&fake, "a", "Failed", "KernelOops", "boot-1");
    let context = fake.operator();
    evidence(&context, now()).await.unwrap();
    assert_eq!(verdicts(&set(&fake, "production")), ["Harmed"]);
    assert!(set(&fake, "production")["quarantine"].is_null(), "one node's word moves one node");
    put_patch(&fake, "b", "Convicted", "RebootedAgain", "boot-2");
    fake.refresh(&context.stores);
    evidence(&context, now()).await.unwrap();
    for feed in ["production", "staging"] {
        let status = set(&fake, feed);
        assert_eq!(verdicts(&status), ["Harmed", "Convicted"]);
        let condition = &status["conditions"][0];
        assert_eq!((&condition["type"], &condition["status"]), (&json!("Quarantined"), &json!("True")));
        assert_eq!(status["nodes"]["convicted"], 2);
    }
    // It is written once, and a replica that takes over writes nothing either.
    let before = fake.changes();
    evidence(&fake.operator(), now()).await.unwrap();
    assert_eq!(fake.changes(), before);

    let path = format!("{CRD}/patchsets/production.2026-11-21.1");
    let mut object = fake.get(&path);
    object["spec"]["approvals"] = json!([
        {"user": "ada", "decision": "Approve", "digest": "e".repeat(64), "reason": "both had bad memory"}]);
    fake.put(&path, object);
    fake.refresh(&context.stores);
    evidence(&context, now()).await.unwrap();
    let lifted = set(&fake, "production");
    assert!(lifted["quarantine"].is_null());
    assert_eq!(lifted["conditions"][0]["reason"], "Overruled");
    assert_eq!(lifted["evidence"][0]["overruledBy"], "ada");
    assert!(!set(&fake, "staging")["quarantine"].is_null());
}

#[tokio::test]
async fn a_node_that_dies_and_is_deleted_leaves_its_evidence() {
    let fake = fleet();
    put_node(&fake, "a", "Unknown", "boot-1");
    let context = fake.operator();
    evidence(&context, now()).await.unwrap();
    assert_eq!(verdicts(&set(&fake, "production")), ["NotReady"]);
    context.stores.nodes.deleted("a", "uid-of-a");
    context.stores.patches.deleted("a", "uid-of-a");
    evidence(&context, now()).await.unwrap();
    assert_eq!(verdicts(&set(&fake, "production")), ["Lost"]);
}

#[tokio::test]
async fn a_node_that_was_gone_before_anybody_looked_leaves_its_evidence_too() {
    let fake = fleet();
    let context = fake.operator();
    let patch = context.stores.patches.get("a").unwrap();
    context.stores.nodes.deleted("a", "uid-of-a");
    context.stores.patches.deleted("a", "uid-of-a");
    context.stores.departed.add(patch.value);
    fake.break_down(Some("staging"));
    evidence(&context, now()).await.unwrap_err();
    assert_eq!(context.stores.departed.all().len(), 1, "kept until it is written down everywhere");
    fake.break_down(None);
    evidence(&context, now()).await.unwrap();
    assert!(context.stores.departed.all().is_empty());
    for feed in ["production", "staging"] {
        assert_eq!(verdicts(&set(&fake, feed)), ["Lost"]);
    }
}

#[tokio::test]
async fn a_node_that_comes_back_in_another_boot_and_convicts_the_set_is_enough() {
    let fake = fleet();
    put_node(&fake, "a", "Unknown", "boot-1");
    let context = fake.operator();
    evidence(&context, now()).await.unwrap();
    put_node(&fake, "a", "True", "boot-2");
    put_patch(&fake, "a", "Convicted", "PanicNamesPatch", "boot-2");
    fake.refresh(&context.stores);
    evidence(&context, now()).await.unwrap();
    let status = set(&fake, "production");
    assert_eq!(verdicts(&status), ["Rebooted", "Convicted"]);
    assert_eq!(status["conditions"][0]["reason"], "NodeAndControlPlane");
}
