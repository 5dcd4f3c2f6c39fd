//! From what people and nodes do to what is written: whole ways through the operator, against an API
//! server that keeps state.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::reconcile;
use super::tests::{POLICY, add_node, answer, at, build, fleet, instructed, node_patch, operator, report};
use crate::admission::Admission;
use crate::context::{Context, Done};
use crate::engine::Leave;
use crate::error::Error;
use crate::fake::Fake;
use crate::gate::Keeper;
use crate::record;
use crate::sight::{Own, Server, Verified, tests::verified};

const CRD: &str = "/apis/invivo.dev/v1alpha1";
const OLD: &str = "2026-11-20.1";
const NEW: &str = "2026-11-21.1";

/// A catalogue in which each set has a digest of its own: level 1 comes with `OLD`, level 2 with `NEW`.
fn catalogue(sets: &[(&str, &str)]) -> Verified {
    let sets: Vec<_> = sets.iter().map(|(name, status)| (*name, "stable", *status)).collect();
    let mut verified = verified(&sets, &build());
    for (digest, letter) in verified.digests.values_mut().zip(["e", "f"]) {
        *digest = letter.repeat(64).parse().unwrap();
    }
    verified
}

/// The operator sees these sets in the repository.
fn offer(context: &Context, sets: &[(&str, &str)]) {
    let catalogue = Arc::new(catalogue(sets));
    let state =
        json!({"attempt": "2026-11-22T12:00:00Z", "verified": "2026-11-22T12:00:00Z", "reason": "Verified"});
    let server = Server::Says(serde_json::from_value(state).unwrap());
    context.sights.put("production", server, Own::Held, Some(Arc::clone(&catalogue)));
    context.sights.stored("production", &catalogue);
}

fn with_policy(fake: &Fake, change: impl FnOnce(&mut Value)) {
    let mut policy = fake.policy("workers");
    change(&mut policy);
    fake.put(POLICY, policy);
}

/// A node whose level 1 has settled.
fn settle(fake: &Fake, node: &str) {
    let mut patch = fake.node_patch(node);
    patch["status"] = report("Settled", 1, 1, "2026-11-22T11:00:00Z");
    patch["status"]["set"] = json!(OLD);
    fake.put(&node_patch(node), patch);
}

fn unready(fake: &Fake, node: &str, since: Timestamp) {
    let path = format!("/api/v1/nodes/{node}");
    let mut object = fake.get(&path);
    object["status"]["conditions"] =
        json!([{"type": "Ready", "status": "Unknown", "lastTransitionTime": since}]);
    fake.put(&path, object);
}

/// What the engine does about a policy: first what speaks against sets, then the policy.
async fn turn(fake: &Fake, context: &Context, time: &str) -> Result<Done, Error> {
    fake.refresh(&context.stores);
    record::evidence(context, at(time)).await?;
    reconcile(context, "workers", at(time)).await
}

/// What a node is told: the level that it is to have, where it is to have one.
fn told(fake: &Fake, node: &str) -> (&'static str, u64) {
    let spec = fake.node_patch(node)["spec"].clone();
    if let Some(level) = spec["apply"]["level"].as_u64() {
        return ("apply", level);
    }
    if spec["rollBack"].is_object() {
        return ("rollBack", spec["rollBack"]["to"]["level"].as_u64().unwrap_or_default());
    }
    ("hold", 0)
}

fn standing(fake: &Fake) -> (String, String) {
    let conditions = fake.policy("workers")["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let one = conditions.into_iter().find(|one| one["status"] == "True").unwrap_or_default();
    (
        one["reason"].as_str().unwrap_or_default().to_owned(),
        one["message"].as_str().unwrap_or_default().to_owned(),
    )
}

fn hold_of(fake: &Fake, node: &str) -> String {
    let holds = fake.policy("workers")["status"]["holds"].as_array().cloned().unwrap_or_default();
    let of = holds.into_iter().find(|hold| hold["examples"].as_array().unwrap().contains(&json!(node)));
    of.map(|hold| hold["reason"].as_str().unwrap().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn what_a_failed_rollout_moved_goes_back_two_at_a_time_after_the_evidence_is_written_down() {
    let fake = fleet();
    for node in ["c", "d", "e", "f"] {
        add_node(&fake, node);
    }
    for node in ["a", "b", "c", "d", "e", "f"] {
        settle(&fake, node);
    }
    with_policy(&fake, |policy| {
        policy["spec"]["rollout"] =
            json!({"onFailure": "RollBack", "stages": [{"name": "all", "maxParallel": 2, "soak": "10m"}]});
    });
    let set = format!("{CRD}/patchsets/production.{NEW}");
    fake.put(
        &set,
        json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "PatchSet", "metadata": {}, "spec": {
            "feed": "production", "repository": "patches", "set": NEW, "digest": "f".repeat(64)}, "status": {}}),
    );
    let context = operator(&fake);
    offer(&context, &[(OLD, "active"), (NEW, "active")]);
    let well = json!({"state": "Settled", "level": 2, "set": NEW});
    turn(&fake, &context, "12:00:00").await.unwrap();
    assert_eq!(told(&fake, "a"), ("apply", 2), "the first of its build goes alone");
    answer(&fake, "a", &well);
    turn(&fake, &context, "12:20:00").await.unwrap();
    assert_eq!(["b", "c", "d"].map(|node| told(&fake, node).0), ["apply", "apply", "hold"]);
    for node in ["b", "c"] {
        answer(&fake, node, &well);
    }
    turn(&fake, &context, "12:20:30").await.unwrap();
    assert_eq!(["d", "e", "f"].map(|node| told(&fake, node).0), ["apply", "apply", "hold"]);

    let excerpt = "RIP: 0010:ip_options_get+0x5/0x260 [invivo_l2_0123456789abcdef]";
    let evidence = json!({"digest": "a".repeat(64), "excerpt": excerpt});
    let bad = json!({"state": "Convicted", "reason": "PanicNamesPatch", "message": "it went down",
        "level": 0, "set": null, "evidence": evidence});
    for node in ["d", "e"] {
        answer(&fake, node, &bad);
    }
    fake.break_down(Some("patchsets"));
    turn(&fake, &context, "12:21:00").await.unwrap_err();
    assert_eq!(["a", "b", "c"].map(|node| told(&fake, node).0), ["apply"; 3], "nothing before it is written");
    fake.break_down(None);
    turn(&fake, &context, "12:21:01").await.unwrap();
    let verdicts: Vec<_> = fake.get(&set)["status"]["evidence"].as_array().unwrap().clone();
    assert_eq!(verdicts.iter().filter(|piece| piece["verdict"] == "Convicted").count(), 2);
    let rollout = fake.policy("workers")["status"]["rollout"].clone();
    assert_eq!(rollout["returning"], true);
    for (piece, node) in rollout["evidence"].as_array().unwrap().iter().zip(["d", "e"]) {
        let what = format!("Convicted: PanicNamesPatch: it went down: {excerpt}");
        assert_eq!((&piece["who"], &piece["what"]), (&json!(node), &json!(what)));
    }
    let back = ["a", "b", "c"].map(|node| told(&fake, node));
    assert_eq!(back, [("rollBack", 1), ("rollBack", 1), ("apply", 2)], "only what it moved, two at a time");
    assert_eq!(told(&fake, "f").0, "hold", "what it did not move is left alone");
    assert!(
        fake.events("workers").iter().any(|(reason, note)| reason == "RollingBack" && note.contains("d:"))
    );
    let about_d = |(reason, note): &(String, String)| reason == "NodeFailed" && note.ends_with(excerpt);
    assert!(fake.events("workers").iter().any(about_d), "{:?}", fake.events("workers"));

    let (off, on) = (
        json!({"state": "RolledBack", "level": 0, "set": null}),
        json!({"state": "Settled", "level": 1, "set": OLD}),
    );
    let mut second = 10;
    for pair in [&["a", "b"][..], &["c"]] {
        for words in [&off, &on] {
            for node in pair {
                answer(&fake, node, words);
            }
            turn(&fake, &context, &format!("12:21:{second}")).await.unwrap();
            second += 10;
        }
    }
    assert_eq!(["a", "b", "c"].map(|node| told(&fake, node)), [("apply", 1); 3]);
    turn(&fake, &context, "12:22:00").await.unwrap();
    let finished = fake.policy("workers")["status"]["history"][0].clone();
    assert_eq!((&finished["to"], &finished["outcome"]), (&json!(NEW), &json!("RolledBack")), "{finished}");
    assert!(finished["evidence"][0]["what"].as_str().unwrap().ends_with(excerpt), "{finished}");
    assert_eq!(told(&fake, "f").0, "hold");
}

#[tokio::test]
async fn a_number_of_nodes_may_fail_and_not_one_more() {
    for (budget, expected) in [(0, vec!["a"]), (1, vec!["a", "b"])] {
        let fake = fleet();
        with_policy(&fake, |policy| policy["spec"]["rollout"] = json!({"failureBudget": budget}));
        let context = operator(&fake);
        turn(&fake, &context, "12:00:00").await.unwrap();
        answer(&fake, "a", &json!({"state": "Failed", "reason": "LoadRefused"}));
        turn(&fake, &context, "12:01:00").await.unwrap();
        assert_eq!(instructed(&fake), expected, "{budget}");
    }
}

#[tokio::test]
async fn a_newer_set_waits_for_the_rollout_or_takes_its_place() {
    for (supersede, level) in [("Finish", 1), ("Restart", 2)] {
        let fake = fleet();
        with_policy(&fake, |policy| policy["spec"]["rollout"] = json!({"supersede": supersede}));
        let context = operator(&fake);
        offer(&context, &[(OLD, "active")]);
        turn(&fake, &context, "12:00:00").await.unwrap();
        assert_eq!(told(&fake, "a"), ("apply", 1));
        answer(&fake, "a", &json!({"state": "Settled", "level": 1, "set": OLD}));
        offer(&context, &[(OLD, "active"), (NEW, "active")]);
        // The first node of the build for the newer set may be either.
        turn(&fake, &context, "12:20:00").await.unwrap();
        let levels = ["a", "b"].map(|node| told(&fake, node));
        let expected = if level == 1 { [("apply", 1), ("apply", 1)] } else { [("apply", 2), ("hold", 0)] };
        assert_eq!(levels, expected, "{supersede}");
    }
}

#[tokio::test]
async fn a_withdrawn_set_stays_where_it_is_or_comes_off_as_the_policy_says() {
    for (on_withdrawn, expected) in [("Keep", "hold"), ("RollBack", "rollBack")] {
        let fake = fleet();
        with_policy(&fake, |policy| policy["spec"]["rollout"] = json!({"onWithdrawn": on_withdrawn}));
        for node in ["a", "b"] {
            settle(&fake, node);
        }
        let mut patch = fake.node_patch("a");
        (patch["status"]["level"], patch["status"]["set"]) = (json!(2), json!(NEW));
        fake.put(&node_patch("a"), patch);
        let context = operator(&fake);
        offer(&context, &[(OLD, "active"), (NEW, "withdrawn")]);
        turn(&fake, &context, "12:00:00").await.unwrap();
        assert_eq!(told(&fake, "a").0, expected, "{on_withdrawn}");
        assert_eq!(told(&fake, "b").0, "hold", "{on_withdrawn}");
    }
}

#[tokio::test]
async fn a_node_that_comes_late_gets_what_is_proven_or_waits_for_its_stage() {
    for (new_nodes, expected) in [("Proven", ("apply", 1)), ("Staged", ("hold", 0))] {
        let fake = fleet();
        with_policy(&fake, |policy| {
            policy["spec"]["newNodes"] = json!(new_nodes);
            policy["spec"]["rollout"] = json!({"stages": [
                {"name": "canary", "soak": "30m", "nodeSelector": {"matchLabels": {"canary": "true"}}}]});
            policy["status"] = json!({"proven": [{"buildId": build(), "level": 1, "set": OLD}]});
        });
        let mut canary = fake.get("/api/v1/nodes/a");
        canary["metadata"]["labels"] = json!({"canary": "true"});
        fake.put("/api/v1/nodes/a", canary);
        for node in ["a", "b"] {
            settle(&fake, node);
        }
        let context = operator(&fake);
        offer(&context, &[(OLD, "active"), (NEW, "active")]);
        turn(&fake, &context, "12:00:00").await.unwrap();
        answer(&fake, "a", &json!({"state": "Applied", "level": 2, "set": NEW, "since": at("12:00:05")}));
        add_node(&fake, "c");
        turn(&fake, &context, "12:01:00").await.unwrap();
        assert_eq!(told(&fake, "c"), expected, "{new_nodes}");
        assert_eq!(
            (told(&fake, "b").0, hold_of(&fake, "b").as_str()),
            ("hold", "StageSoaking"),
            "{new_nodes}"
        );
    }
}

#[tokio::test]
async fn the_fleets_limit_counts_the_nodes_of_every_policy() {
    let fake = fleet();
    for (node, team) in [("a", "one"), ("b", "two")] {
        let mut object = fake.get(&format!("/api/v1/nodes/{node}"));
        object["metadata"]["labels"] = json!({"team": team});
        fake.put(&format!("/api/v1/nodes/{node}"), object);
    }
    with_policy(&fake, |policy| policy["spec"]["nodeSelector"] = json!({"matchLabels": {"team": "one"}}));
    let mut others = fake.policy("workers");
    others["metadata"] = json!({"creationTimestamp": "2026-11-22T10:00:01Z"});
    others["spec"]["nodeSelector"] = json!({"matchLabels": {"team": "two"}});
    fake.put(&format!("{CRD}/patchpolicies/others"), others);
    let mut context = operator(&fake);
    Arc::get_mut(&mut context.stores).unwrap().fleet_limit = Some(1);
    for policy in ["workers", "others"] {
        reconcile(&context, policy, at("12:00:00")).await.unwrap();
    }
    assert_eq!(instructed(&fake), ["a"]);
    assert_eq!(fake.policy("others")["status"]["holds"][0]["reason"], "FleetLimit");
    answer(&fake, "a", &json!({"state": "Applied", "level": 1, "set": NEW}));
    fake.refresh(&context.stores);
    reconcile(&context, "workers", at("12:00:10")).await.unwrap();
    reconcile(&context, "others", at("12:00:10")).await.unwrap();
    assert_eq!(instructed(&fake), ["a", "b"]);
}

#[tokio::test]
async fn a_policy_deleted_in_the_middle_goes_when_its_patches_are_off_or_nobody_answers_any_more() {
    let fake = fleet();
    with_policy(&fake, |policy| policy["spec"]["onDelete"] = json!("RollBack"));
    let context = operator(&fake);
    turn(&fake, &context, "12:00:00").await.unwrap();
    let finalizers = fake.policy("workers")["metadata"]["finalizers"].clone();
    assert_eq!(finalizers, json!([crate::deletion::FINALIZER]));
    answer(&fake, "a", &json!({"state": "Applied", "level": 1, "set": NEW, "since": at("12:00:05")}));
    turn(&fake, &context, "12:01:00").await.unwrap();
    answer(&fake, "a", &json!({"state": "Settled", "level": 1, "set": NEW, "since": at("12:40:00")}));
    turn(&fake, &context, "12:40:00").await.unwrap();
    assert_eq!(told(&fake, "b"), ("apply", 1));
    // One node is under way and goes away, and then the policy is deleted.
    unready(&fake, "b", at("12:41:00"));
    with_policy(&fake, |policy| policy["metadata"]["deletionTimestamp"] = json!(at("12:42:00")));
    turn(&fake, &context, "12:42:00").await.unwrap();
    assert_eq!(told(&fake, "a").0, "rollBack");
    answer(&fake, "a", &json!({"state": "RolledBack", "level": 0, "set": null}));
    let done = turn(&fake, &context, "12:45:00").await.unwrap();
    let (reason, message) = standing(&fake);
    assert_eq!(reason, "RollingBack", "{message}");
    assert!(message.contains("1 node to go down: b"), "{message}");
    assert!(done.wake.is_some_and(|wake| wake <= Duration::from_mins(7)), "{done:?}");
    turn(&fake, &context, "12:52:00").await.unwrap();
    assert!(fake.policy("workers").is_null(), "it waits for nobody for ever");
    assert_eq!(told(&fake, "b"), ("apply", 1), "who cannot be reached keeps what it was told");
    fake.refresh(&context.stores);
    assert_eq!(reconcile(&context, "workers", at("12:53:00")).await.unwrap(), Done::default());
}

#[tokio::test]
async fn a_policy_that_keeps_its_patches_goes_at_once_and_starts_nothing_more() {
    let fake = fleet();
    let context = operator(&fake);
    turn(&fake, &context, "12:00:00").await.unwrap();
    answer(&fake, "a", &json!({"state": "Settled", "level": 1, "set": NEW}));
    with_policy(&fake, |policy| {
        policy["metadata"]["deletionTimestamp"] = json!(at("12:00:30"));
        policy["metadata"]["finalizers"] = json!(["somebody.else/waits"]);
    });
    turn(&fake, &context, "12:20:00").await.unwrap();
    assert_eq!((told(&fake, "a"), told(&fake, "b")), (("apply", 1), ("hold", 0)));
    assert_eq!(fake.policy("workers")["metadata"]["finalizers"], json!(["somebody.else/waits"]));
}

#[tokio::test]
async fn a_feed_deleted_in_the_middle_stops_what_has_not_started_and_takes_nothing_off() {
    let fake = fleet();
    let context = operator(&fake);
    crate::feed::reconcile(&context, "production", at("12:00:00")).await.unwrap();
    turn(&fake, &context, "12:00:00").await.unwrap();
    answer(&fake, "a", &json!({"state": "Applied", "level": 1, "set": NEW}));
    context.stores.feeds.deleted("production", "uid-of-production");
    context
        .stores
        .patches
        .wrote(crate::store::Entry::of(serde_json::from_value(fake.node_patch("a")).unwrap()));
    crate::feed::reconcile(&context, "production", at("12:01:00")).await.unwrap();
    reconcile(&context, "workers", at("12:01:00")).await.unwrap();
    assert_eq!((told(&fake, "a"), told(&fake, "b")), (("apply", 1), ("hold", 0)));
    assert_eq!(standing(&fake).0, "FeedNotFound");
    assert!(!fake.get(&format!("{CRD}/patchsets/production.{NEW}")).is_null(), "a node has it");
}

fn put_feed(fake: &Fake, name: &str, spec: &Value) {
    let feed =
        json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "PatchFeed", "metadata": {}, "spec": spec});
    fake.put(&format!("{CRD}/patchfeeds/{name}"), feed);
}

#[tokio::test]
async fn a_policy_takes_what_a_feed_over_another_lets_through() {
    let fake = fleet();
    put_feed(&fake, "careful", &json!({"source": {"feed": "production"}, "approval": {"mode": "Manual"}}));
    with_policy(&fake, |policy| policy["spec"]["feed"] = json!("careful"));
    let context = operator(&fake);
    crate::feed::reconcile(&context, "careful", at("12:00:00")).await.unwrap();
    turn(&fake, &context, "12:00:00").await.unwrap();
    assert_eq!(instructed(&fake), [] as [&str; 0]);
    assert_eq!(hold_of(&fake, "a"), "AwaitingApproval");
    let set = format!("{CRD}/patchsets/careful.{NEW}");
    let mut object = fake.get(&set);
    object["spec"]["approvals"] =
        json!([{"user": "ada", "decision": "Approve", "digest": "e".repeat(64), "reason": "ran on staging"}]);
    fake.put(&set, object);
    turn(&fake, &context, "12:00:10").await.unwrap();
    assert_eq!(instructed(&fake), ["a"]);
    assert_eq!(fake.node_patch("a")["spec"]["feed"], "careful", "the agent looks for the decisions there");
}

#[tokio::test]
async fn what_is_wrong_with_a_policy_or_its_feed_stands_in_its_status_with_what_to_do() {
    let cycle = |fake: &Fake| {
        put_feed(fake, "x", &json!({"source": {"feed": "y"}}));
        put_feed(fake, "y", &json!({"source": {"feed": "x"}}));
    };
    let window = json!([{"days": ["Sat"], "start": "02:00", "duration": "4h", "timeZone": "Mars/Olympus"}]);
    for (field, value, reason, words) in [
        ("target", json!({"set": "2026-11-30.1"}), "TargetMissing", "name another set"),
        ("windows", window, "InvalidTimeZone", "Mars/Olympus"),
        ("feed", json!("x"), "FeedCycle", "x, y, x"),
        ("nodeSelector", json!({"matchLabels": {"no": "such"}}), "NoNodes", "label nodes or widen it"),
    ] {
        let fake = fleet();
        cycle(&fake);
        with_policy(&fake, |policy| policy["spec"][field] = value);
        let context = operator(&fake);
        turn(&fake, &context, "12:00:00").await.unwrap();
        assert_eq!(instructed(&fake), [] as [&str; 0], "{reason}");
        let (told, message) = standing(&fake);
        assert_eq!(told, reason, "{message}");
        assert!(message.contains(words), "{message}");
    }
}

/// A policy with a Prometheus at this address, and what its status says once that was asked.
async fn with_prometheus(address: &str, patience: Duration) -> Value {
    let fake = fleet();
    with_policy(&fake, |policy| {
        policy["spec"]["gates"] =
            json!([{"prometheus": {"address": address, "query": "rate(errors[5m]) > 0", "for": "5m"}}]);
    });
    let context = operator(&fake);
    let (_leader, leader) = watch::channel(true);
    let (_admission, admission) = watch::channel(Admission::InForce);
    let keeper = Keeper {
        client: context.client.clone(),
        namespace: "invivo-system".to_owned(),
        patience,
        sights: Arc::clone(&context.gates),
        signals: Arc::default(),
    };
    let signals = Arc::clone(&keeper.signals);
    let keeper = tokio::spawn(Arc::new(keeper).run(Leave { leader, admission }));
    reconcile(&context, "workers", at("12:00:00")).await.unwrap();
    signals.heard().await;
    reconcile(&context, "workers", at("12:00:05")).await.unwrap();
    keeper.abort();
    assert_eq!(instructed(&fake), [] as [&str; 0], "unknown is not healthy");
    assert_eq!(hold_of(&fake, "a"), "GateUnknown");
    let (reason, message) = standing(&fake);
    assert_eq!(reason, "GateUnknown", "{message}");
    let gate = fake.policy("workers")["status"]["gates"][2].clone();
    assert_eq!((&gate["name"], &gate["verdict"]), (&json!("prometheus"), &json!("Unknown")));
    assert!(message.contains(gate["message"].as_str().unwrap()), "{message}");
    gate["message"].clone()
}

#[tokio::test]
async fn a_prometheus_that_answers_nonsense_holds_everything_and_the_status_says_so() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(|| async { "hello" });
    tokio::spawn(async move { axum::serve(listener, router).await });
    let message = with_prometheus(&address, crate::gate::ANSWER_WITHIN).await;
    assert!(message.as_str().unwrap().contains("no reply to a query"), "{message}");
}

#[tokio::test]
async fn a_prometheus_that_is_slow_holds_everything_and_the_status_says_so() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (_stream, _) = listener.accept().await.unwrap();
        std::future::pending::<()>().await;
    });
    let message = with_prometheus(&address, Duration::from_millis(200)).await;
    assert!(message.as_str().unwrap().contains("it took more than 200ms"), "{message}");
}

#[tokio::test]
async fn a_conviction_is_told_by_the_operator_that_comes_after_and_by_no_third() {
    let fake = fleet();
    turn(&fake, &operator(&fake), "12:00:00").await.unwrap();
    answer(&fake, "a", &json!({"state": "Convicted", "reason": "RebootedAgain", "since": Timestamp::now()}));
    for _ in 0..2 {
        crate::engine::catch_up(&operator(&fake), Timestamp::now()).await;
        let told = fake.events("a");
        assert_eq!(told.iter().map(|(reason, _)| reason.as_str()).collect::<Vec<_>>(), ["RebootedAgain"]);
    }
}
