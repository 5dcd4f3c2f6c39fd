//! The order of writes, against an API server that keeps state.

use std::sync::Arc;
use std::time::Duration;

use invivo_rollout::GateVerdict;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{GATHER, reconcile};
use crate::context::Context;
use crate::error::Category;
use crate::fake::Fake;
use crate::gate::Question;
use crate::observe::view;
use crate::report::Report;
use crate::sight::{Own, Server, tests::verified};

pub(crate) const POLICY: &str = "/apis/invivo.dev/v1alpha1/patchpolicies/workers";

pub(crate) fn node_patch(node: &str) -> String {
    format!("/apis/invivo.dev/v1alpha1/nodepatches/{node}")
}

pub(crate) fn build() -> String {
    "b".repeat(40)
}

pub(crate) fn at(time: &str) -> Timestamp {
    format!("2026-11-22T{time}Z").parse().unwrap()
}

pub(crate) fn report(state: &str, level: u32, revision: i64, since: &str) -> Value {
    json!({"observedRevision": revision, "bootId": "boot", "level": level, "state": state, "since": since,
        "kernel": {"buildId": build(), "release": "6.1.0-47", "supports": ["Livepatch"], "signing": "Off"}})
}

pub(crate) fn add_node(fake: &Fake, name: &str) {
    fake.put(
        &format!("/api/v1/nodes/{name}"),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
    );
    fake.put(
        &node_patch(name),
        json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "NodePatch",
            "metadata": {"uid": format!("patch-of-{name}"), "ownerReferences":
                [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": format!("uid-of-{name}")}]},
            "spec": {"revision": 1, "policy": "workers", "feed": "production", "hold": {}},
            "status": report("Idle", 0, 1, "2026-11-22T11:00:00Z")}),
    );
}

/// Two nodes, one policy that moves one at a time, one feed.
pub(crate) fn fleet() -> Fake {
    let fake = Fake::default();
    fake.put(
        "/apis/invivo.dev/v1alpha1/patchfeeds/production",
        json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "PatchFeed", "metadata": {},
            "spec": {"source": {"repository": {"url": "https://patches.example.com"}},
                "trust": {"rootSha256": "a".repeat(64)}}}),
    );
    fake.put(
        POLICY,
        json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "PatchPolicy",
            "metadata": {"generation": 1, "creationTimestamp": "2026-11-22T10:00:00Z"},
            "spec": {"feed": "production"}}),
    );
    add_node(&fake, "a");
    add_node(&fake, "b");
    fake
}

/// An operator that has just read everything and verified the feed.
pub(crate) fn operator(fake: &Fake) -> Context {
    let context = fake.operator();
    let state =
        json!({"attempt": "2026-11-22T12:00:00Z", "verified": "2026-11-22T12:00:00Z", "reason": "Verified"});
    let catalogue = Arc::new(verified(&[("2026-11-21.1", "stable", "active")], &build()));
    let server = Server::Says(serde_json::from_value(state).unwrap());
    context.sights.put("production", server, Own::Held, Some(Arc::clone(&catalogue)));
    context.sights.stored("production", &catalogue);
    context
}

/// The node's agent answers the instruction that the node has.
pub(crate) fn answer(fake: &Fake, node: &str, words: &Value) {
    let mut patch = fake.node_patch(node);
    patch["status"]["observedRevision"] = patch["spec"]["revision"].clone();
    for (field, value) in words.as_object().unwrap() {
        patch["status"][field] = value.clone();
    }
    fake.put(&node_patch(node), patch);
}

pub(crate) fn instructed(fake: &Fake) -> Vec<&'static str> {
    ["a", "b"].into_iter().filter(|node| fake.node_patch(node)["spec"]["apply"].is_object()).collect()
}

#[tokio::test]
async fn the_count_is_raised_and_one_node_instructed() {
    let fake = fleet();
    reconcile(&operator(&fake), "workers", at("12:00:00")).await.unwrap();
    assert_eq!(instructed(&fake), ["a"]);
    let spec = fake.node_patch("a")["spec"].clone();
    assert_eq!((spec["revision"].as_i64(), spec["apply"]["level"].as_i64()), (Some(2), Some(1)));
    assert!(spec.get("hold").is_none());
    let status = fake.policy("workers")["status"].clone();
    assert_eq!(status["rollout"]["started"], 1);
    let nodes =
        ["total", "current", "inFlight", "held", "pending"].map(|field| status["nodes"][field].as_u64());
    assert_eq!(nodes, [2, 0, 1, 1, 1].map(Some), "at the target, instructed and held are all there are");
    assert_eq!(status["conditions"][1]["reason"], "RolloutInProgress");
}

#[tokio::test]
async fn no_instruction_is_written_when_the_status_write_conflicts() {
    let fake = fleet();
    let context = operator(&fake);
    fake.touch(POLICY);
    let before = fake.changes();
    let error = reconcile(&context, "workers", at("12:00:00")).await.unwrap_err();
    assert_eq!(error.category(), Category::Conflict);
    assert_eq!(instructed(&fake), [] as [&str; 0]);
    assert_eq!(fake.changes(), before);
    fake.refresh(&context.stores);
    reconcile(&context, "workers", at("12:00:01")).await.unwrap();
    assert_eq!(instructed(&fake), ["a"]);
}

#[tokio::test]
async fn of_two_operators_that_see_the_same_one_starts_a_node() {
    let fake = fleet();
    let (one, other) = (operator(&fake), operator(&fake));
    reconcile(&one, "workers", at("12:00:00")).await.unwrap();
    reconcile(&other, "workers", at("12:00:00")).await.unwrap_err();
    fake.refresh(&other.stores);
    reconcile(&other, "workers", at("12:00:01")).await.unwrap();
    assert_eq!(instructed(&fake), ["a"]);
    assert_eq!(fake.node_patch("a")["spec"]["revision"], 2);
    assert_eq!(fake.policy("workers")["status"]["rollout"]["started"], 1);
}

#[tokio::test]
async fn an_operator_killed_between_status_and_instructions_does_not_start_a_node_twice() {
    let fake = fleet();
    fake.break_down(Some("nodepatches"));
    reconcile(&operator(&fake), "workers", at("12:00:00")).await.unwrap_err();
    assert_eq!(fake.policy("workers")["status"]["rollout"]["started"], 1);
    assert_eq!(instructed(&fake), [] as [&str; 0]);
    fake.break_down(None);
    // The next one counts what it does not see as under way, until nobody can have moved any more.
    for second in 1..4 {
        reconcile(&operator(&fake), "workers", at(&format!("12:00:0{second}"))).await.unwrap();
        assert!(instructed(&fake).len() <= 1);
        assert!(fake.policy("workers")["status"]["rollout"]["started"].as_u64().unwrap() <= 2);
    }
    // Past the deadline of that wave the rollout goes on, still one node at a time.
    for minute in 11..14 {
        reconcile(&operator(&fake), "workers", at(&format!("12:{minute}:00"))).await.unwrap();
    }
    assert_eq!(instructed(&fake), ["a"]);
    assert_eq!(fake.node_patch("a")["spec"]["revision"], 2);
}

#[tokio::test]
async fn a_report_that_changes_nothing_does_not_cost_the_node_its_turn() {
    let fake = fleet();
    let context = operator(&fake);
    fake.touch(&node_patch("a"));
    reconcile(&context, "workers", at("12:00:00")).await.unwrap();
    assert_eq!(instructed(&fake), ["a"]);
}

#[tokio::test]
async fn a_node_that_booted_meanwhile_is_not_instructed_from_an_old_view() {
    let fake = fleet();
    let context = operator(&fake);
    let mut patch = fake.node_patch("a");
    patch["status"]["bootId"] = json!("another");
    fake.put(&node_patch("a"), patch);
    let error = reconcile(&context, "workers", at("12:00:00")).await.unwrap_err();
    assert_eq!(error.category(), Category::Conflict);
    assert_eq!(instructed(&fake), [] as [&str; 0]);
}

#[tokio::test]
async fn a_write_that_happened_though_its_answer_was_lost_counts() {
    for lost in ["patchpolicies", "nodepatches"] {
        let fake = fleet();
        let context = operator(&fake);
        fake.lose_answers(Some(lost));
        reconcile(&context, "workers", at("12:00:00")).await.unwrap();
        assert_eq!(instructed(&fake), ["a"], "{lost}");
        assert_eq!(fake.node_patch("a")["spec"]["revision"], 2, "{lost}");
        assert_eq!(fake.policy("workers")["status"]["rollout"]["started"], 1, "{lost}");
    }
}

#[tokio::test]
async fn a_write_that_failed_is_made_again_as_soon_as_the_api_server_answers() {
    for code in [429, 500, 503, 504, 403] {
        let fake = fleet();
        let context = operator(&fake);
        fake.refuse("nodepatches", code);
        reconcile(&context, "workers", at("12:00:00")).await.unwrap_err();
        reconcile(&context, "workers", at("12:00:01")).await.unwrap_err();
        fake.break_down(None);
        let done = reconcile(&context, "workers", at("12:00:02")).await.unwrap();
        assert_eq!(instructed(&fake), ["a"], "{code}");
        assert_eq!(fake.policy("workers")["status"]["rollout"]["started"], 1, "{code}");
        assert_eq!(done.wake, Some(super::GATHER), "the status does not say yet that it moves");
        reconcile(&context, "workers", at("12:00:03")).await.unwrap();
        assert_eq!(fake.policy("workers")["status"]["nodes"]["inFlight"], 1, "{code}");
        let before = fake.changes();
        reconcile(&context, "workers", at("12:00:04")).await.unwrap();
        assert_eq!(fake.changes(), before, "{code}");
    }
}

#[tokio::test]
async fn a_node_that_is_another_by_now_gives_its_slot_back_at_once() {
    let fake = fleet();
    let context = operator(&fake);
    let mut patch = fake.node_patch("a");
    patch["status"]["bootId"] = json!("another");
    fake.put(&node_patch("a"), patch);
    let error = reconcile(&context, "workers", at("12:00:00")).await.unwrap_err();
    assert_eq!(error.category(), Category::Conflict);
    assert_eq!(fake.policy("workers")["status"]["rollout"]["started"], 0);
    reconcile(&context, "workers", at("12:00:01")).await.unwrap();
    assert_eq!(instructed(&fake), ["a"]);
    assert_eq!(fake.policy("workers")["status"]["rollout"]["started"], 1);
}

#[tokio::test]
async fn a_slot_that_could_not_be_given_back_is_given_back_later() {
    let fake = fleet();
    let context = operator(&fake);
    let mut patch = fake.node_patch("a");
    patch["status"]["bootId"] = json!("another");
    fake.put(&node_patch("a"), patch);
    // The status is counted up; by the time that it is to be counted down the API server is in trouble.
    let one = view(&context.stores, &context.sights, &context.gates, "workers", at("12:00:00")).unwrap();
    let wanted = crate::status::of(&one, at("12:00:00"));
    crate::write::policy_status(&context.client, &context.stores, &one.policy, &wanted).await.unwrap();
    let mut wave = crate::wave::Wave::default();
    wave.add(&one.policy, &wanted, one.decision.as_ref().ok().unwrap());
    fake.refuse("patchpolicies", 429);
    wave.write(&context, &one.policy).await.unwrap_err();
    context.waves.keep("workers", wave);
    assert_eq!(fake.policy("workers")["status"]["rollout"]["started"], 1);
    fake.break_down(None);
    let done = reconcile(&context, "workers", at("12:00:01")).await.unwrap();
    assert_eq!(fake.policy("workers")["status"]["rollout"]["started"], 0);
    assert_eq!(done.wake, Some(super::GATHER), "the slot is free: it is planned again");
}

#[tokio::test]
async fn what_another_operator_has_counted_off_is_neither_written_nor_taken_back() {
    let fake = fleet();
    let (one, other) = (operator(&fake), operator(&fake));
    fake.break_down(Some("nodepatches"));
    reconcile(&one, "workers", at("12:00:00")).await.unwrap_err();
    fake.break_down(None);
    fake.refresh(&other.stores);
    reconcile(&other, "workers", at("12:11:00")).await.unwrap();
    let (policy, patch) = (fake.policy("workers"), fake.node_patch("a"));
    assert_eq!(
        (policy["status"]["rollout"]["started"].as_i64(), &patch["spec"]["revision"]),
        (Some(2), &json!(2))
    );
    fake.refresh(&one.stores);
    reconcile(&one, "workers", at("12:00:02")).await.unwrap();
    assert_eq!((fake.policy("workers"), fake.node_patch("a")), (policy, patch));
}

#[tokio::test]
async fn what_was_not_written_before_a_person_paused_is_not_written_after() {
    let fake = fleet();
    let context = operator(&fake);
    fake.break_down(Some("nodepatches"));
    reconcile(&context, "workers", at("12:00:00")).await.unwrap_err();
    fake.break_down(None);
    let mut policy = fake.policy("workers");
    policy["spec"]["paused"] = json!(true);
    policy["metadata"]["generation"] = json!(2);
    fake.put(POLICY, policy);
    fake.refresh(&context.stores);
    reconcile(&context, "workers", at("12:00:01")).await.unwrap();
    assert_eq!(instructed(&fake), [] as [&str; 0]);
}

#[tokio::test]
async fn what_only_people_read_waits_some_seconds_and_what_is_decided_does_not() {
    let fake = fleet();
    let context = operator(&fake);
    reconcile(&context, "workers", at("12:00:00")).await.unwrap();
    let node = "/api/v1/nodes/b";
    let mut cordoned = fake.get(node);
    cordoned["spec"]["unschedulable"] = json!(true);
    fake.put(node, cordoned);
    fake.refresh(&context.stores);
    let before = fake.changes();
    let done = reconcile(&context, "workers", at("12:00:01")).await.unwrap();
    assert_eq!((fake.changes(), done.wake), (before, Some(std::time::Duration::from_secs(2))));
    reconcile(&context, "workers", at("12:00:03")).await.unwrap();
    assert_eq!(fake.policy("workers")["status"]["holds"][0]["reason"], "NodeCordoned");
    let mut back = fake.get(node);
    back["spec"]["unschedulable"] = json!(false);
    fake.put(node, back);
    answer(&fake, "a", &json!({"state": "Applied", "level": 1, "set": "2026-11-21.1"}));
    fake.refresh(&context.stores);
    reconcile(&context, "workers", at("12:00:03")).await.unwrap();
    assert_eq!(instructed(&fake), ["a", "b"]);
    let status = fake.policy("workers")["status"].clone();
    assert_eq!(
        (status["rollout"]["started"].as_i64(), status["rollout"]["finished"].as_i64()),
        (Some(2), Some(1))
    );
}

#[tokio::test]
async fn a_write_that_is_to_be_made_again_is_not_forgotten_while_what_only_shows_waits() {
    let fake = fleet();
    let context = operator(&fake);
    fake.refuse("nodepatches", 503);
    reconcile(&context, "workers", at("12:00:00")).await.unwrap_err();
    let mut cordoned = fake.get("/api/v1/nodes/b");
    cordoned["spec"]["unschedulable"] = json!(true);
    fake.put("/api/v1/nodes/b", cordoned);
    fake.refresh(&context.stores);
    reconcile(&context, "workers", at("12:00:01")).await.unwrap_err();
    fake.break_down(None);
    reconcile(&context, "workers", at("12:00:02")).await.unwrap();
    assert_eq!(instructed(&fake), ["a"]);
}

#[tokio::test]
async fn a_policy_made_anew_is_not_charged_with_nodes_that_its_namesake_lost() {
    let fake = fleet();
    let context = operator(&fake);
    reconcile(&context, "workers", at("12:00:00")).await.unwrap();
    let (stores, status) = (&context.stores, fake.policy("workers")["status"].clone());
    let status = serde_json::from_value(status).unwrap();
    stores.losses.gone("a", &stores.patches.get("a").unwrap().value, |_| true);
    assert_eq!(stores.losses.of("workers", Some(&status)).len(), 1);
    let uid = stores.policies.get("workers").unwrap().uid;
    stores.policies.deleted("workers", &uid);
    reconcile(&context, "workers", at("12:00:01")).await.unwrap();
    assert!(stores.losses.of("workers", Some(&status)).is_empty());
}

#[tokio::test]
async fn at_rest_nothing_is_written() {
    let fake = fleet();
    let context = operator(&fake);
    reconcile(&context, "workers", at("12:00:00")).await.unwrap();
    let before = fake.changes();
    for second in 1..9 {
        reconcile(&context, "workers", at(&format!("12:00:0{second}"))).await.unwrap();
    }
    fake.refresh(&context.stores);
    reconcile(&context, "workers", at("12:00:10")).await.unwrap();
    assert_eq!(fake.changes(), before);
}

#[tokio::test]
async fn a_fleet_at_rest_costs_no_write_however_often_its_feed_is_looked_at() {
    let fake = fleet();
    let context = operator(&fake);
    for (node, minute) in [("a", 0), ("b", 5)] {
        reconcile(&context, "workers", at(&format!("12:{minute:02}:00"))).await.unwrap();
        answer(&fake, node, &json!({"state": "Settled", "level": 1, "set": "2026-11-21.1"}));
        fake.refresh(&context.stores);
    }
    crate::feed::reconcile(&context, "production", at("12:10:00")).await.unwrap();
    reconcile(&context, "workers", at("12:10:00")).await.unwrap();
    assert_eq!(fake.policy("workers")["status"]["conditions"][0]["reason"], "AtTarget");
    // Ten minutes with an attempt every ten seconds; then another ten with a catalogue past its date.
    for (day, reason, message) in [(22, "Verified", "timestamp 9 is mirrored"), (23, "Expired", "it is ")] {
        let mut before = None;
        for second in 0..60 {
            let now: Timestamp =
                format!("2026-11-{day}T12:{:02}:{:02}Z", 11 + second / 6, second % 6 * 10).parse().unwrap();
            let state = json!({"attempt": now, "verified": "2026-11-22T12:00:00Z", "reason": reason,
                "document": null, "message": format!("{message}{now}")});
            let sight = context.sights.get("production");
            let server: Server =
                serde_json::from_value::<crate::sight::ServerState>(state).map(Server::Says).unwrap();
            context.sights.put("production", server.after(&sight.server).0, Own::Held, sight.verified);
            crate::feed::reconcile(&context, "production", now).await.unwrap();
            reconcile(&context, "workers", now).await.unwrap();
            // The first one may say that something has changed.
            assert_eq!(*before.get_or_insert(fake.changes()), fake.changes(), "{reason} at {now}");
        }
    }
}

#[tokio::test]
async fn a_stage_that_begins_behind_a_gate_is_looked_at_again_although_nothing_else_happens() {
    let fake = fleet();
    let gate = json!({"address": "http://p", "query": "errors", "for": "1s"});
    let mut policy = fake.policy("workers");
    policy["spec"]["gates"] = json!([{"prometheus": gate}]);
    policy["spec"]["rollout"]["stages"] =
        json!([{"name": "half", "share": "50%", "soak": "5s"}, {"name": "rest"}]);
    fake.put(POLICY, policy);
    let context = operator(&fake);
    let question = Question::Prometheus(serde_json::from_value(gate).unwrap());
    reconcile(&context, "workers", at("12:00:00")).await.unwrap();
    assert!(context.gates.answer("workers", &question, GateVerdict::Passed));
    reconcile(&context, "workers", at("12:00:01")).await.unwrap();
    let first = instructed(&fake);
    assert_eq!(first.len(), 1);
    answer(&fake, first[0], &report("Settled", 1, 2, "2026-11-22T12:00:10Z"));
    fake.refresh(&context.stores);
    let soaking = reconcile(&context, "workers", at("12:00:10")).await.unwrap();
    assert_eq!(soaking.wake, Some(Duration::from_secs(6)));
    // The stage is through, and from here on nobody says anything.
    let begun = reconcile(&context, "workers", at("12:00:16")).await.unwrap();
    assert_eq!((instructed(&fake).len(), begun.wake), (1, Some(GATHER)));
    reconcile(&context, "workers", at("12:00:17")).await.unwrap();
    assert_eq!(instructed(&fake), ["a", "b"]);
}

#[tokio::test]
async fn a_policy_says_what_holds_its_stage_and_not_that_others_wait_for_it() {
    let fake = fleet();
    let mut policy = fake.policy("workers");
    policy["spec"]["windows"] = json!([{"days": ["Mon"], "start": "02:00", "duration": "1h"}]);
    policy["spec"]["rollout"]["stages"] = json!([{"name": "half", "share": "50%"}, {"name": "rest"}]);
    fake.put(POLICY, policy);
    reconcile(&operator(&fake), "workers", at("12:00:00")).await.unwrap();
    let status = fake.policy("workers")["status"].clone();
    let held: Vec<_> =
        status["holds"].as_array().unwrap().iter().map(|hold| hold["reason"].clone()).collect();
    assert_eq!(held.len(), 2, "{held:?}");
    assert_eq!(status["conditions"][0]["reason"], "OutsideWindow");
    let next = status["nextAction"].as_str().unwrap();
    assert!(next.contains("2026-11-23T02:00:00Z"), "{next}");
}

#[tokio::test]
async fn a_refused_feed_stops_what_has_not_started_and_says_why() {
    let fake = fleet();
    let context = operator(&fake);
    let state = json!({"attempt": "2026-11-22T12:00:00Z", "verified": null, "reason": "BelowThreshold",
        "document": "index", "message": "1 of 2 certificates"});
    let kept = context.sights.get("production").verified;
    context.sights.put("production", Server::Says(serde_json::from_value(state).unwrap()), Own::Held, kept);
    reconcile(&context, "workers", at("12:00:00")).await.unwrap();
    assert_eq!(instructed(&fake), [] as [&str; 0]);
    let stalled = fake.policy("workers")["status"]["conditions"][2].clone();
    assert_eq!((stalled["type"].as_str(), stalled["status"].as_str()), (Some("Stalled"), Some("True")));
    assert_eq!(stalled["reason"], "FeedStalled");
    assert!(stalled["message"].as_str().unwrap().contains("BelowThreshold"));
}

#[tokio::test]
async fn an_operator_that_has_not_looked_at_the_feed_yet_changes_nothing() {
    let fake = fleet();
    reconcile(&operator(&fake), "workers", at("12:00:00")).await.unwrap();
    let before = fake.changes();
    reconcile(&fake.operator(), "workers", at("12:00:01")).await.unwrap();
    assert_eq!(fake.changes(), before);
}

#[tokio::test]
async fn a_policy_without_a_feed_says_so() {
    let fake = fleet();
    let mut policy = fake.policy("workers");
    policy["spec"]["feed"] = json!("nowhere");
    fake.put(POLICY, policy);
    reconcile(&operator(&fake), "workers", at("12:00:00")).await.unwrap();
    let stalled = fake.policy("workers")["status"]["conditions"][2].clone();
    assert_eq!(stalled["reason"], "FeedNotFound");
    assert!(stalled["message"].as_str().unwrap().contains("nowhere"));
}

#[tokio::test]
async fn a_slip_in_the_spec_forgets_nothing() {
    let fake = fleet();
    reconcile(&operator(&fake), "workers", at("12:00:00")).await.unwrap();
    let mut policy = fake.policy("workers");
    policy["spec"]["nodeSelector"] = json!({"matchExpressions": [{"key": "k", "operator": "Like"}]});
    fake.put(POLICY, policy);
    reconcile(&operator(&fake), "workers", at("12:00:01")).await.unwrap();
    let status = fake.policy("workers")["status"].clone();
    assert_eq!(status["conditions"][2]["reason"], "InvalidSelector");
    assert_eq!(status["rollout"]["started"], 1);
}

#[tokio::test]
async fn a_node_that_could_not_reach_the_patch_server_does_not_stop_the_rollout() {
    let fake = fleet();
    reconcile(&operator(&fake), "workers", at("12:00:00")).await.unwrap();
    answer(&fake, "a", &json!({"state": "Failed", "reason": "Unreachable"}));
    reconcile(&operator(&fake), "workers", at("12:10:00")).await.unwrap();
    assert_eq!(instructed(&fake), ["a", "b"]);
    let status = fake.policy("workers")["status"].clone();
    assert_eq!((status["nodes"]["failed"].as_i64(), status["nodes"]["pending"].as_i64()), (Some(0), Some(1)));
    assert_eq!(status["holds"][0]["reason"], "NotTried");
    answer(&fake, "b", &json!({"state": "Applied", "level": 1, "set": "2026-11-21.1"}));
    reconcile(&operator(&fake), "workers", at("12:20:00")).await.unwrap();
    assert_eq!(fake.node_patch("a")["spec"]["apply"]["attempt"], 2);
}

#[tokio::test]
async fn the_whole_plan_names_every_node() {
    let fake = fleet();
    let context = operator(&fake);
    let view = view(&context.stores, &context.sights, &context.gates, "workers", at("12:00:00")).unwrap();
    let report = serde_json::to_value(Report::of(&context.stores, &view, at("12:00:00"))).unwrap();
    let nodes: Vec<_> = report["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            (
                node["name"].as_str().unwrap(),
                node["decision"].as_str().unwrap(),
                node["stage"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(nodes, [("a", "Apply", "rest"), ("b", "Hold", "rest")]);
    assert!(report["nodes"][1]["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()));
}
