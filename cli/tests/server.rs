//! What the commands write, on a real API server with the real kinds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

#[path = "../../crds/tests/cluster/server.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is written for the tests of the kinds")]
mod server;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use server::{ApiServer, get, send};

const SET: &str = "/apis/invivo.dev/v1alpha1/patchsets/production.2026-11-21.1";
const POLICY: &str = "/apis/invivo.dev/v1alpha1/patchpolicies/workers";

/// As the documentation of the quickstart would have them.
const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: invivo-system}
---
apiVersion: v1
kind: Node
metadata: {name: node-1, annotations: {other: stays}}
---
apiVersion: invivo.dev/v1alpha1
kind: PatchFeed
metadata: {name: production}
spec:
  source: {repository: {url: https://patches.example.com/}}
  trust: {rootSha256: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}
  approval: {mode: Manual, required: 2}
---
apiVersion: invivo.dev/v1alpha1
kind: PatchSet
metadata: {name: production.2026-11-21.1}
spec:
  feed: production
  repository: acme
  set: 2026-11-21.1
  digest: cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc
---
apiVersion: invivo.dev/v1alpha1
kind: PatchPolicy
metadata: {name: workers}
spec: {feed: production}
";

struct Cluster {
    server: ApiServer,
    folder: tempfile::TempDir,
}

impl Cluster {
    async fn new() -> Self {
        let server = ApiServer::with_kinds().await;
        server.apply(OBJECTS).await;
        Self { server, folder: tempfile::tempdir().unwrap() }
    }

    fn try_as(&self, user: &str, line: &[&str]) -> (i32, String) {
        let config = self.folder.path().join("kubeconfig");
        std::fs::write(&config, self.server.kubeconfig(user, &["system:masters"]).to_string()).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_invivo"))
            .env("KUBECONFIG", &config)
            .args(line)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    fn run_as(&self, user: &str, line: &[&str]) -> String {
        let (code, text) = self.try_as(user, line);
        assert_eq!(code, 0, "{user} {line:?}: {text}");
        text
    }

    async fn get(&self, path: &str) -> Value {
        get(&self.server.client(&[]), path).await.json()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_colleagues_decision_is_never_deleted_by_anothers() {
    let cluster = Cluster::new().await;
    let account = "system:serviceaccount:ci:approver";
    let people = ["ada@example.com", "a/b c", account];
    for user in people {
        cluster.run_as(user, &["approve", "2026-11-21.1", "--reason", "ran a week on staging"]);
    }
    let told = cluster.run_as("a/b c", &["reject", "production.2026-11-21.1", "--reason", "it oopses"]);
    assert!(told.contains("whatever others approve"), "{told}");
    let set = cluster.get(SET).await;
    let mut decisions: Vec<_> = set["spec"]["approvals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["user"].as_str().unwrap(), entry["decision"].as_str().unwrap()))
        .collect();
    decisions.sort_unstable();
    let wanted = [("a/b c", "Reject"), ("ada@example.com", "Approve"), (account, "Approve")];
    assert_eq!(decisions, wanted);
    let managers = set["metadata"]["managedFields"].as_array().unwrap().iter();
    let ours = managers.filter(|m| m["manager"].as_str().unwrap().starts_with("invivo-")).count();
    assert_eq!(ours, people.len(), "{}", set["metadata"]["managedFields"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_taken_by_the_api_server_and_changes_one_field() {
    let cluster = Cluster::new().await;
    let spec = |object: Value| object["spec"].clone();
    let before = spec(cluster.get(POLICY).await);

    cluster.run_as("ada", &["pause", "workers", "--dry-run"]);
    assert_eq!(spec(cluster.get(POLICY).await), before);
    cluster.run_as("ada", &["pause", "workers"]);
    assert_eq!(cluster.get(POLICY).await["spec"]["paused"], true);
    cluster.run_as("ada", &["resume", "workers"]);
    assert_eq!(spec(cluster.get(POLICY).await), before);

    let emergency = ["--set", "2026-11-21.1", "--reason", "exploited", "--for", "2h"];
    cluster.run_as("ada", &[&["expedite", "workers"][..], &emergency].concat());
    let mut after = spec(cluster.get(POLICY).await);
    let expedite = after["rollout"].as_object_mut().unwrap().remove("expedite").unwrap();
    assert_eq!((&expedite["user"], &expedite["set"]), (&json!("ada"), &json!("2026-11-21.1")));
    assert_eq!(after, before);

    cluster.run_as("ada", &["rollback", "workers", "--to", "2026-11-21.1"]);
    assert_eq!(cluster.get(POLICY).await["spec"]["target"], json!({"set": "2026-11-21.1"}));
    cluster.run_as("ada", &["rollback", "workers", "--to", "None"]);
    assert_eq!(cluster.get(POLICY).await["spec"]["target"], json!({"set": "None"}));

    cluster.run_as("ada", &["hold", "node-1", "--reason", "a long run", "--for", "12h"]);
    let node = cluster.get("/api/v1/nodes/node-1").await;
    let hold: Value =
        serde_json::from_str(node["metadata"]["annotations"]["invivo.dev/hold"].as_str().unwrap()).unwrap();
    assert_eq!(hold["reason"], "a long run");
    cluster.run_as("ada", &["unhold", "node-1"]);
    let node = cluster.get("/api/v1/nodes/node-1").await;
    let annotations = &node["metadata"]["annotations"];
    assert_eq!((&annotations["other"], &annotations["invivo.dev/hold"]), (&json!("stays"), &Value::Null));

    cluster.run_as("ada", &["stop", "--reason", "nodes panic"]);
    assert!(cluster.run_as("bob", &["status"]).starts_with("Everything is stopped by ada since "));
    cluster.run_as("bob", &["start"]);
    assert!(cluster.run_as("ada", &["start"]).contains("Nothing was stopped"));
    for missing in [&["pause", "wokers"][..], &["unhold", "node-9"], &["plan", "workers"], &["why", "node-9"]]
    {
        let (code, text) = cluster.try_as("ada", missing);
        assert_eq!(code, 5, "{missing:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_watched_until_it_is_through() {
    let cluster = Cluster::new().await;
    let client = cluster.server.client(&[]);
    let config = cluster.folder.path().join("watcher");
    std::fs::write(&config, cluster.server.kubeconfig("ada", &["system:masters"]).to_string()).unwrap();
    // It ends by itself after a minute, so a line that does not come does not hang the test.
    let mut watching = Command::new(env!("CARGO_BIN_EXE_invivo"))
        .env("KUBECONFIG", &config)
        .args(["watch", "workers", "--wait", "--timeout", "60s"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut line = || lines.next().expect("the watch ended").unwrap();
    assert!(line().contains("NotObserved"));
    for (ready, reason) in [("False", "StageSoaking"), ("True", "Current")] {
        let condition = json!({"type": "Ready", "status": ready, "reason": reason, "message": "",
            "lastTransitionTime": "2026-11-21T12:00:00Z"});
        let status = json!({"status": {"observedGeneration": 1, "conditions": [condition]}});
        let path = format!("{POLICY}/status");
        let answer = send(&client, "PATCH", &path, Some(&status), "application/merge-patch+json").await;
        assert_eq!(answer.code, 200, "{}", answer.text);
        let told = line();
        assert!(told.contains(reason), "{told}");
    }
    assert!(watching.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_the_kinds_says_what_to_install() {
    let cluster = Cluster { server: ApiServer::start().await, folder: tempfile::tempdir().unwrap() };
    for line in [&["status"][..], &["pause", "workers"], &["watch"]] {
        let (code, text) = cluster.try_as("ada", line);
        assert_eq!(code, 5, "{line:?}: {text}");
        assert!(text.contains("install the chart invivo-crds"), "{line:?}: {text}");
    }
    assert_eq!(cluster.try_as("ada", &["preflight"]).0, 0, "it is for clusters like this");
}
