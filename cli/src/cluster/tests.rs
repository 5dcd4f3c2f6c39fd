//! What people see, word for word.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::object::{Kind, Object};
use super::{Asked, Cluster, Plan, Status, Why};

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn policy() -> Value {
    json!({
        "apiVersion": "invivo.dev/v1alpha1", "kind": "PatchPolicy", "metadata": {"name": "workers"},
        "spec": {"feed": "production", "target": {"set": "Latest"}},
        "status": {
            "conditions": [{"type": "Ready", "status": "False", "reason": "StageSoaking", "message": "soaking",
                            "lastTransitionTime": "2026-11-21T11:50:00Z"}],
            "rollout": {"key": {"number": 1, "target": "2026-11-21.1", "mechanism": "Livepatch"},
                        "started": 1, "finished": 1, "failed": 0},
            "stage": {"name": "canary", "index": 0, "since": "2026-11-21T11:40:00Z",
                      "nodes": {"total": 1, "done": 1, "inFlight": 0, "failed": 0, "excused": 0}},
            "nodes": {"total": 3, "current": 1, "pending": 2, "inFlight": 0, "held": 2, "failed": 0,
                      "unsupported": 0},
            "holds": [{"reason": "StageSoaking", "nodes": 2, "examples": ["node-2", "node-3"],
                       "until": "2026-11-21T12:20:00Z"}],
            "nextAction": "2026-11-21T12:20:00Z: stage rest begins"
        }
    })
}

fn feed(ready: bool) -> Value {
    let condition = if ready {
        json!({"type": "Ready", "status": "True", "reason": "Verified", "message": "index 1",
               "lastTransitionTime": "2026-11-21T11:00:00Z"})
    } else {
        json!({"type": "Ready", "status": "False", "reason": "BelowThreshold", "message": "index: 1 of 2 signatures",
               "lastTransitionTime": "2026-11-21T11:00:00Z"})
    };
    json!({
        "apiVersion": "invivo.dev/v1alpha1", "kind": "PatchFeed", "metadata": {"name": "production"},
        "spec": {"source": {"repository": {"url": "https://patches.example.com/"}},
                 "trust": {"rootSha256": "a".repeat(64)}},
        "status": {
            "conditions": [condition], "latestSet": "2026-11-21.1",
            "repository": {"name": "acme", "trustVersion": 1, "indexVersion": 1, "timestampVersion": 1,
                           "expires": "2026-11-28T12:00:00Z"}
        }
    })
}

fn patch(name: &str, instruction: &Value, status: &Value) -> Value {
    let mut spec = json!({"revision": 2, "policy": "workers", "feed": "production"});
    spec.as_object_mut().unwrap().extend(instruction.as_object().unwrap().clone());
    let mut patch = json!({
        "apiVersion": "invivo.dev/v1alpha1", "kind": "NodePatch", "metadata": {"name": name}, "spec": spec
    });
    if !status.is_null() {
        patch["status"] = status.clone();
    }
    patch
}

fn apply() -> Value {
    json!({"apply": {
        "buildId": "b".repeat(40), "level": 1, "set": "2026-11-21.1", "digest": "c".repeat(64),
        "manifest": "d".repeat(64), "mechanism": "Livepatch", "deadline": "2026-11-21T12:05:00Z", "settleAfter": "30m"
    }})
}

fn applied() -> Value {
    json!({
        "observedRevision": 2, "level": 1, "set": "2026-11-21.1", "effective": "6.1.170-3+invivo1", "state": "Applied",
        "since": "2026-11-21T11:45:00Z", "mechanism": "Livepatch",
        "kernel": {"buildId": "b".repeat(40), "release": "6.1.0-47-cloud-amd64", "supports": ["Livepatch"], "signing": "Off"}
    })
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn asked(patch: Option<Value>, plan: Result<Value, &str>) -> Asked {
    Asked {
        node: "node-2".to_owned(),
        patch: patch.map(read),
        policy: Some(read(policy())),
        feed: Some(read(feed(true))),
        plan: plan.map(read::<Plan>).map_err(str::to_owned),
        about: None,
        stop: None,
        pods: Vec::new(),
    }
}

fn plan(hold: &Value) -> Value {
    let mut node = json!({"name": "node-2", "stage": "rest", "decision": "Hold"});
    node.as_object_mut().unwrap().extend(hold.as_object().unwrap().clone());
    json!({"policy": "workers", "reason": "StageSoaking", "message": "soaking", "nodes": [node], "more": "ignored"})
}

#[test]
fn status_tells_policies_feeds_and_nodes() {
    let cluster = Cluster {
        policies: vec![read(policy())],
        feeds: vec![read(feed(true))],
        nodes: vec![
            read(patch("node-1", &apply(), &applied())),
            read(patch("node-2", &json!({"hold": {}}), &Value::Null)),
        ],
        stop: None,
    };
    let status = Status::of(&cluster, now());
    let expected = "\
POLICY    TARGET   SET            NODES    HELD   FAILED   STAGE    READY   WHY
workers   Latest   2026-11-21.1   1 of 3   2      0        canary   False   StageSoaking
  workers: 2 nodes StageSoaking, in 20m (node-2, node-3): wait; status.stage.soakUntil says how long
  workers: next: 2026-11-21T12:20:00Z: stage rest begins

FEED         REPOSITORY   READY   REASON     LATEST         EXPIRES
production   acme         True    Verified   2026-11-21.1   in 7d

NODE     STATE         LEVEL   EFFECTIVE           KERNEL                 POLICY    SINCE     REASON
node-1   Applied       1       6.1.170-3+invivo1   6.1.0-47-cloud-amd64   workers   15m ago   -
node-2   NotReported   0       -                   -                      workers   -         -
";
    assert_eq!(status.to_string(), expected);
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["policies"][0]["current"], 1);
    assert_eq!(json["policies"][0]["holds"][0]["reason"], "StageSoaking");
    assert_eq!(json["feeds"][0]["expires"], "2026-11-28T12:00:00Z");
    assert_eq!(json["nodes"][1]["state"], Value::Null);
}

#[test]
fn an_empty_cluster_says_how_to_begin() {
    assert!(Status::of(&Cluster::default(), now()).to_string().contains("docs/quickstart.md"));
}

#[test]
fn an_emergency_stop_is_the_first_thing_said() {
    let data = json!({"user": "bob", "since": "2026-11-21T11:00:00Z", "reason": "nodes panic"});
    let stop = Some(Object::new(Kind::ConfigMap, json!({"data": data})));
    let status = Status::of(&Cluster { stop, ..Cluster::default() }, now());
    let first = "Everything is stopped by bob since 2026-11-21T11:00:00Z because: nodes panic.";
    assert!(status.to_string().starts_with(first), "{status}");
    assert_eq!(serde_json::to_value(&status).unwrap()["emergencyStop"]["user"], "bob");
}

#[test]
fn a_feed_in_trouble_says_why() {
    let cluster = Cluster { feeds: vec![read(feed(false))], ..Cluster::default() };
    let shown = Status::of(&cluster, now()).to_string();
    assert!(shown.contains("BelowThreshold"), "{shown}");
    assert!(shown.contains("  production: index: 1 of 2 signatures\n"), "{shown}");
}

#[test]
fn why_tells_the_hold_of_the_plan_and_what_to_do() {
    let hold = json!({"hold": "StageSoaking", "remedy": "wait", "until": "2026-11-21T12:20:00Z"});
    let why =
        Why::of(&asked(Some(patch("node-2", &json!({"hold": {}}), &Value::Null)), Ok(plan(&hold))), now());
    let expected = "\
Node:        node-2
Policy:      workers (feed production)
Instruction: Hold, revision 2
Report:      none yet
Plan:        Hold, stage rest
Why:         StageSoaking, until 2026-11-21T12:20:00Z (in 20m)
What to do:  wait; status.stage.soakUntil says how long
";
    assert_eq!(why.to_string(), expected);
    let json = serde_json::to_value(&why).unwrap();
    assert_eq!((&json["cause"], &json["source"]), (&json!("StageSoaking"), &json!("plan")));
}

#[test]
fn why_works_from_statuses_alone_and_says_so() {
    let asked =
        asked(Some(patch("node-2", &json!({"hold": {}}), &Value::Null)), Err("the service does not answer"));
    let why = Why::of(&asked, now());
    assert_eq!(why.cause.as_deref(), Some("StageSoaking"));
    assert_eq!(why.source, "statuses");
    let shown = why.to_string();
    assert!(shown.contains("the operator's plan was not to be had: the service does not answer"), "{shown}");
}

#[test]
fn a_refusal_on_the_node_comes_before_every_hold() {
    let mut status = applied();
    status["state"] = json!("Refused");
    status["reason"] = json!("ArbitrarySoftware");
    status["message"] = json!("module: digest differs");
    let hold = json!({"hold": "AttemptEnded"});
    let why = Why::of(&asked(Some(patch("node-2", &apply(), &status)), Ok(plan(&hold))), now());
    assert_eq!(why.cause.as_deref(), Some("ArbitrarySoftware"));
    assert_eq!(why.check.as_deref(), Some("module: digest differs"));
    assert!(why.remedy.unwrap().contains("refresh the mirror"));
}

#[test]
fn a_stalled_feed_is_named_with_its_reason() {
    let mut asked = asked(
        Some(patch("node-2", &json!({"hold": {}}), &Value::Null)),
        Ok(plan(&json!({"hold": "FeedStalled"}))),
    );
    asked.feed = Some(read(feed(false)));
    let why = Why::of(&asked, now());
    assert_eq!(why.check.as_deref(), Some("feed production: BelowThreshold: index: 1 of 2 signatures"));
}

#[test]
fn a_node_without_a_policy_says_how_it_gets_one() {
    let mut asked = asked(None, Err("no policy governs the node"));
    asked.policy = None;
    asked.feed = None;
    let why = Why::of(&asked, now());
    assert_eq!(why.cause.as_deref(), Some("NoPolicy"));
    assert!(why.to_string().contains("nodeSelector"));
}

#[test]
fn a_node_that_does_not_answer_points_to_its_agent() {
    let mut asked = asked(Some(patch("node-2", &apply(), &Value::Null)), Err("forbidden"));
    asked.policy.as_mut().unwrap().status = None;
    let why = Why::of(&asked, now());
    assert_eq!(why.cause.as_deref(), Some("AgentMissing"));
    let mut status = applied();
    status["observedRevision"] = json!(1);
    asked.patch = Some(read(patch("node-2", &apply(), &status)));
    assert_eq!(Why::of(&asked, now()).cause.as_deref(), Some("StatusStale"));
}

#[test]
fn a_node_at_its_target_is_held_by_nothing() {
    let mut done = plan(&json!({}));
    done["nodes"][0]["decision"] = json!("Done");
    let why = Why::of(&asked(Some(patch("node-2", &apply(), &applied())), Ok(done)), now());
    assert_eq!(why.cause, None);
    let shown = why.to_string();
    assert!(
        shown.contains("Report:      Applied, level 1 (6.1.170-3+invivo1), revision 2, 15m ago"),
        "{shown}"
    );
    assert!(
        shown.contains("Instruction: Apply level 1 (2026-11-21.1), revision 2, deadline in 5m"),
        "{shown}"
    );
    assert!(shown.contains("Why:         nothing holds it"), "{shown}");
}

#[test]
fn a_person_who_holds_a_node_is_heard() {
    let waiting = || Some(patch("node-2", &json!({"hold": {}}), &Value::Null));
    let mut held = asked(waiting(), Ok(plan(&json!({"hold": "HeldByPerson", "remedy": "unhold it"}))));
    let annotation = json!({"reason": "a long run", "until": "2026-11-22T00:00:00Z"}).to_string();
    held.about = Some(Object::new(
        Kind::Node,
        json!({"metadata": {"name": "node-2", "annotations": {"invivo.dev/hold": annotation}}}),
    ));
    assert_eq!(Why::of(&held, now()).check.as_deref(), Some("annotation invivo.dev/hold: a long run"));

    let mut stopped = asked(waiting(), Ok(plan(&json!({"hold": "EmergencyStop", "remedy": "start"}))));
    let data = json!({"user": "bob", "reason": "nodes panic"});
    stopped.stop = Some(Object::new(Kind::ConfigMap, json!({"data": data})));
    let why = Why::of(&stopped, now());
    assert_eq!(why.check.as_deref(), Some("everything is stopped by bob because: nodes panic"));
}

#[test]
fn a_node_at_its_target_that_a_person_holds_says_so_until_the_hold_has_ended() {
    let mut done = plan(&json!({}));
    done["nodes"][0]["decision"] = json!("Done");
    let mut held = asked(Some(patch("node-2", &apply(), &applied())), Ok(done));
    let mut cause = |annotation: &str| {
        let annotations = json!({"invivo.dev/hold": annotation});
        held.about = Some(Object::new(
            Kind::Node,
            json!({"metadata": {"name": "node-2", "annotations": annotations}}),
        ));
        Why::of(&held, now()).cause
    };
    let person = Some("HeldByPerson".to_owned());
    assert_eq!(cause(r#"{"reason": "a long run"}"#), person);
    assert_eq!(cause(r#"{"reason": "a long run", "until": "2026-11-21T12:00:01Z"}"#), person);
    assert_eq!(cause("not to be read"), person);
    assert_eq!(cause(r#"{"reason": "a long run", "until": "2026-11-21T12:00:00Z"}"#), None);
}

#[test]
fn a_hold_that_this_program_does_not_know_is_told_in_the_operators_words() {
    let hold = json!({"hold": "MoonPhase", "remedy": "wait for the moon", "until": "2026-11-21T13:00:00Z"});
    let why =
        Why::of(&asked(Some(patch("node-2", &json!({"hold": {}}), &Value::Null)), Ok(plan(&hold))), now());
    assert_eq!((why.cause.as_deref(), why.remedy.as_deref()), (Some("MoonPhase"), Some("wait for the moon")));
    assert!(why.to_string().contains("until 2026-11-21T13:00:00Z (in 60m)"), "{why}");
}

#[test]
fn a_blocking_thread_is_named_with_its_pod_where_that_can_be_read() {
    let mut status = applied();
    status["state"] = json!("Blocked");
    status["blockers"] = json!([
        {"tid": 4711, "comm": "java", "podUid": "u-1"}, {"tid": 4712, "comm": "dd", "podUid": "u-2"},
        {"tid": 12, "comm": "kworker"},
    ]);
    let hold = json!({"hold": "BlockedByThreads"});
    let mut asked = asked(Some(patch("node-2", &apply(), &status)), Ok(plan(&hold)));
    asked.pods = vec![("u-1".to_owned(), "shop/till-0".to_owned())];
    let shown = Why::of(&asked, now()).to_string();
    assert!(shown.contains("Blocked by:  java (thread 4711) in pod shop/till-0\n"), "{shown}");
    assert!(shown.contains("Blocked by:  dd (thread 4712) in the pod with uid u-2\n"), "{shown}");
    assert!(shown.contains("Blocked by:  kworker (thread 12)\n"), "{shown}");
}
