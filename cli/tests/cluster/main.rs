//! The commands for a cluster, with the program as people run it, against a small API server.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod answers;
mod fake;
mod reasons;

use std::net::SocketAddr;

use fake::{Answer, CRD, Fake, invivo};
use serde_json::{Value, json};

struct Cluster {
    fake: Fake,
    server: SocketAddr,
    folder: tempfile::TempDir,
}

const SET: &str = "2026-11-21.1";
const STOP: &str = "/api/v1/namespaces/invivo-system/configmaps/invivo-emergency-stop";

impl Cluster {
    fn new() -> Self {
        let fake = Fake::default();
        let kind = |kind: &str| json!({"apiVersion": "invivo.dev/v1alpha1", "kind": kind, "metadata": {}});
        let with = |mut object: Value, fields: Value| {
            object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            object
        };
        fake.put(
            &format!("{CRD}/patchfeeds/production"),
            with(kind("PatchFeed"), json!({"spec": {"approval": {"mode": "Manual", "required": 2}}})),
        );
        for set in [SET, "2026-11-20.1"] {
            let spec =
                json!({"feed": "production", "repository": "acme", "set": set, "digest": "c".repeat(64)});
            fake.put(
                &format!("{CRD}/patchsets/production.{set}"),
                with(kind("PatchSet"), json!({"spec": spec})),
            );
        }
        fake.put(
            &format!("{CRD}/patchpolicies/workers"),
            with(
                kind("PatchPolicy"),
                json!({
                    "spec": {"feed": "production", "target": {"set": "Latest"}, "rollout": {"stages": []}},
                    "status": {
                        "rollout": {"key": {"number": 2, "target": SET}, "from": "2026-11-20.1"},
                        "history": [{"number": 1, "from": "None", "to": "2026-11-20.1", "outcome": "Complete",
                            "started": 3, "failed": 0, "since": "2026-11-20T10:00:00Z",
                            "ended": "2026-11-20T11:00:00Z"}],
                    },
                }),
            ),
        );
        fake.put(
            "/api/v1/nodes/node-1",
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"annotations": {"other": "stays"}}}),
        );
        let server = fake.serve();
        Self { fake, server, folder: tempfile::tempdir().unwrap() }
    }

    fn try_as(&self, user: &str, line: &[&str]) -> Answer {
        invivo(self.folder.path(), self.server, user, line)
    }

    fn run(&self, line: &[&str]) -> Answer {
        let answer = self.try_as("ada", line);
        assert_eq!(answer.code, 0, "{line:?}: {}{}", answer.out, answer.err);
        answer
    }

    fn policy(&self) -> Value {
        self.fake.get(&format!("{CRD}/patchpolicies/workers"))
    }
}

#[test]
fn colleagues_decisions_stand_beside_each_other() {
    let cluster = Cluster::new();
    let set = || cluster.fake.get(&format!("{CRD}/patchsets/production.{SET}"));
    let answer = cluster.run(&["approve", SET, "--reason", "ran a week on staging"]);
    assert!(answer.out.contains("1 of 2 approvals; it waits for 1 more"), "{}", answer.out);
    let answer = cluster.try_as("bob@example.com", &["approve", SET, "--reason", "me too"]);
    assert!(answer.out.contains("2 of 2 approvals"), "{}{}", answer.out, answer.err);
    let users = |set: &Value| {
        let entries = set["spec"]["approvals"].as_array().unwrap();
        entries.iter().map(|e| format!("{} {}", e["user"], e["decision"])).collect::<Vec<_>>()
    };
    assert_eq!(users(&set()), [r#""ada" "Approve""#, r#""bob@example.com" "Approve""#]);
    cluster.run(&["reject", &format!("production.{SET}"), "--reason", "it oopses"]);
    assert_eq!(users(&set()), [r#""bob@example.com" "Approve""#, r#""ada" "Reject""#]);
    assert_eq!(cluster.fake.managers(), ["invivo-ada", "invivo-bob@example.com", "invivo-ada"]);
}

#[test]
fn a_decision_about_another_content_than_was_tested_is_refused_and_writes_nothing() {
    let cluster = Cluster::new();
    let other = "d".repeat(64);
    let answer = cluster.try_as("ada", &["approve", SET, "--reason", "tested", "--digest", &other]);
    assert_eq!(answer.code, 3, "{}", answer.err);
    assert_eq!(cluster.fake.managers(), Vec::<String>::new());
}

#[test]
fn each_brake_changes_its_one_field_and_is_let_go_again() {
    let cluster = Cluster::new();
    let before = cluster.policy();
    let answer = cluster.run(&["pause", "workers", "-o", "json"]).json();
    assert_eq!(
        (&answer["changed"], &answer["field"], &answer["by"]),
        (&json!(true), &json!("/spec/paused"), &json!("ada"))
    );
    assert_eq!(cluster.policy()["spec"]["paused"], true);
    let answer = cluster.run(&["pause", "workers"]);
    assert!(answer.out.contains("already"), "{}", answer.out);
    cluster.run(&["resume", "workers"]);
    let mut after = cluster.policy();
    after["spec"].as_object_mut().unwrap().remove("paused");
    assert_eq!(after, before, "no other field was touched");

    let node = || cluster.fake.get("/api/v1/nodes/node-1")["metadata"]["annotations"].clone();
    cluster.run(&["hold", "node-1", "--reason", "a long run", "--for", "12h"]);
    let hold: Value = serde_json::from_str(node()["invivo.dev/hold"].as_str().unwrap()).unwrap();
    assert_eq!(hold["reason"], "a long run");
    assert!(hold["until"].as_str().unwrap().ends_with('Z'));
    cluster.run(&["unhold", "node-1"]);
    assert_eq!(node(), json!({"other": "stays"}));

    cluster.run(&["stop", "--reason", "nodes panic"]);
    assert_eq!(cluster.fake.get(STOP)["data"]["user"], "ada");
    let again = cluster.try_as("bob", &["stop"]);
    assert!(again.out.contains("stopped already by ada since "), "{}{}", again.out, again.err);
    let answer = cluster.run(&["start", "-o", "yaml"]);
    assert!(answer.out.contains("command: start\n"), "{}", answer.out);
    assert_eq!(cluster.fake.get(STOP), Value::Null);
    assert!(cluster.run(&["start"]).out.contains("Nothing was stopped"));
}

#[test]
fn an_emergency_and_a_way_back_are_written_where_the_operator_reads_them() {
    let cluster = Cluster::new();
    cluster.run(&["expedite", "workers", "--set", SET, "--reason", "exploited", "--for", "2h"]);
    let expedite = cluster.policy()["spec"]["rollout"]["expedite"].clone();
    assert_eq!((&expedite["set"], &expedite["user"]), (&json!(SET), &json!("ada")));
    assert_eq!(expedite["reason"], "exploited");
    assert_eq!(cluster.policy()["spec"]["rollout"]["stages"], json!([]), "the rest of the rollout stays");

    let answer = cluster.run(&["rollback", "workers"]);
    assert!(answer.out.contains("aims at 2026-11-20.1; it aimed at Latest"), "{}", answer.out);
    assert_eq!(cluster.policy()["spec"]["target"], json!({"set": "2026-11-20.1"}));
    cluster.fake.forbid("ada", "patchsets");
    cluster.run(&["rollback", "workers", "--to", "None"]);
    assert_eq!(cluster.policy()["spec"]["target"], json!({"set": "None"}));
}

#[test]
fn the_rollouts_that_are_over_are_told() {
    let json = Cluster::new().run(&["history", "workers", "-o", "json"]).json();
    assert_eq!(
        (&json["rollouts"][0]["outcome"], &json["rollouts"][0]["started"]),
        (&json!("Complete"), &json!(3))
    );
}

#[test]
fn a_dry_run_keeps_nothing() {
    let cluster = Cluster::new();
    let before = cluster.policy();
    for line in [
        &["pause", "workers", "--dry-run"][..],
        &["rollback", "workers", "--to", "None", "--dry-run"],
        &["stop", "--dry-run"],
    ] {
        assert!(cluster.run(line).out.starts_with("dry run, nothing is kept: "));
    }
    assert_eq!(cluster.policy(), before);
    assert_eq!(cluster.fake.get(STOP), Value::Null);
}

#[test]
fn what_is_not_there_or_not_allowed_ends_with_its_own_number() {
    let cluster = Cluster::new();
    for line in [
        &["pause", "wokers"][..],
        &["hold", "node-9", "--reason", "x"],
        &["approve", "2026-01-01.1", "--reason", "x"],
        &["expedite", "workers", "--set", "2026-01-01.1", "--reason", "x", "--for", "2h"],
        &["rollback", "workers", "--to", "2026-01-01.1"],
        &["history", "wokers"],
        &["plan", "wokers"],
        &["watch", "wokers"],
        &["why", "node-9"],
    ] {
        let answer = cluster.try_as("ada", line);
        assert_eq!(answer.code, 5, "{line:?}: {}{}", answer.out, answer.err);
        assert!(!answer.err.is_empty() && answer.out.is_empty(), "{line:?}");
    }
    cluster.fake.forbid("eve", "patchpolicies/workers");
    let answer = cluster.try_as("eve", &["pause", "workers"]);
    assert_eq!(answer.code, 6, "{}", answer.err);
    assert!(answer.err.contains("ask for the right"), "{}", answer.err);
    assert_eq!(cluster.fake.managers(), Vec::<String>::new(), "nothing was written");
}

#[test]
fn the_operators_plan_is_shown_node_by_node_and_passed_on_whole() {
    let cluster = Cluster::new();
    let path = "/api/v1/namespaces/invivo-system/services/invivo-operator:metrics/proxy/plan/workers";
    assert_eq!(cluster.try_as("ada", &["plan", "workers"]).code, 5, "no operator there");
    let plan = json!({
        "policy": "workers", "now": "2026-11-21T12:00:00Z", "feed": "production", "feedReason": "Verified",
        "reason": "StageSoaking", "message": "soaking", "wake": "2026-11-21T12:20:00Z", "novelty": {"a": 1},
        "nodes": [
            {"name": "node-1", "stage": "canary", "decision": "Done", "level": 4, "state": "Settled"},
            {"name": "node-2", "stage": "rest", "decision": "Hold", "hold": "StageSoaking", "remedy": "wait",
             "until": "2026-11-21T12:20:00Z", "level": 3, "state": "Settled"},
            {"name": "node-3", "stage": "rest", "decision": "Apply", "toLevel": 4, "toSet": SET, "odd": true},
        ],
    });
    cluster.fake.put(path, plan);
    let expected = "\
Policy:      workers
Feed:        production (Verified)
Standing:    StageSoaking: soaking
Looks again: in 20m at the latest

NODE     STAGE    DECISION   TO                       RUNS   STATE     WHY            UNTIL
node-1   canary   Done       -                        4      Settled   -              -
node-2   rest     Hold       -                        3      Settled   StageSoaking   in 20m
node-3   rest     Apply      level 4 (2026-11-21.1)   -      -         -              -
";
    assert_eq!(cluster.run(&["plan", "workers"]).out, expected);
    let json = cluster.run(&["plan", "workers", "-o", "json"]).json();
    assert_eq!((&json["novelty"]["a"], &json["nodes"][2]["odd"]), (&json!(1), &json!(true)));
}
