//! A gate's Job: made, followed, run again.

use std::sync::Arc;

use invivo_api::PatchPolicy;
use invivo_operator::admission::Admission;
use invivo_operator::engine::Leave;
use invivo_operator::gate::{ANSWER_WITHIN, GateSights, Keeper, Question, Wanted, questions};
use invivo_operator::signal::{Signal, Signals};
use invivo_operator::store::Entry;
use invivo_rollout::GateVerdict;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::server::{ApiServer, get, send, wait_for};
use crate::{installed, operator};

const POLICIES: &str = "/apis/invivo.dev/v1alpha1/patchpolicies";
const JOBS: &str = "/apis/batch/v1/namespaces/invivo-gates/jobs";
const PODS: &str = "/api/v1/namespaces/invivo-gates/pods";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";

/// A keeper at work.
struct Working {
    sights: Arc<GateSights>,
    signals: Arc<Signals>,
    leader: watch::Sender<bool>,
    _admission: watch::Sender<Admission>,
}

fn keeper(client: Client) -> Working {
    let (sights, signals) = (Arc::new(GateSights::default()), Arc::new(Signals::default()));
    let (leader, is_leader) = watch::channel(true);
    let (say_admission, admission) = watch::channel(Admission::InForce);
    let keeper = Keeper {
        client,
        namespace: "invivo-system".to_owned(),
        patience: ANSWER_WITHIN,
        sights: Arc::clone(&sights),
        signals: Arc::clone(&signals),
    };
    tokio::spawn(Arc::new(keeper).run(Leave { leader: is_leader, admission }));
    Working { sights, signals, leader, _admission: say_admission }
}

/// A policy with one Job for each stage, and the question that its stage `canary` asks.
async fn policy(server: &ApiServer) -> Question {
    let policy = json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "PatchPolicy",
        "metadata": {"name": "workers"},
        "spec": {"feed": "production", "gates": [{"job": {"perStage": true, "deadline": "5m",
            "template": {"image": "registry.example.com/smoke:1", "imagePullSecrets": ["pull"],
                "command": ["/smoke"], "args": ["-v"], "nodeSelector": {"a": "b"},
                "env": [{"name": "A", "value": "b"}, {"name": "T", "secret": {"name": "s", "key": "t"}}],
                "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "memory": "64Mi"}}}}}]}});
    let made = send(&server.client(&[]), "POST", POLICIES, Some(&policy), JSON).await;
    assert_eq!(made.code, 200, "{}", made.text);
    let entry: Entry<PatchPolicy> = Entry::of(serde_json::from_str(&made.text).unwrap());
    let wanted =
        Wanted { rollout: 7, target: "2026-11-21.1".to_owned(), stage: "canary".to_owned(), about: (7, 0) };
    questions(&entry, Some(&wanted)).pop().unwrap()
}

async fn jobs(client: &Client) -> Vec<Value> {
    get(client, JOBS).await.json()["items"].as_array().unwrap().clone()
}

fn message(verdict: &GateVerdict) -> &str {
    match verdict {
        GateVerdict::Passed => "",
        GateVerdict::Failed { message } | GateVerdict::Unknown { message } => message,
    }
}

#[tokio::test]
async fn a_gates_job_is_made_by_the_operators_own_rights_and_its_end_is_told() {
    let server = installed().await;
    let admin = server.client(&[]);
    let question = policy(&server).await;
    let working = keeper(operator(&server));
    let verdict = || working.sights.verdict("workers", &question);
    working.sights.want("workers", vec![question.clone()]);
    wait_for("the Job to be seen", async || message(&verdict()).contains("has not ended")).await;
    assert!(working.signals.take().contains(&Signal::Gate("workers".to_owned())));

    let made = jobs(&admin).await;
    assert_eq!(made.len(), 1);
    let name = made[0]["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("workers-7-canary-"), "{name}");
    assert_eq!(made[0]["metadata"]["ownerReferences"][0]["kind"], "PatchPolicy");

    // Its pod passes Pod Security as the namespace has it, where one that is root does not.
    let uid = made[0]["metadata"]["uid"].as_str().unwrap().to_owned();
    let pod = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "spec": made[0]["spec"]["template"]["spec"],
            "metadata": {"name": name, "labels": {"batch.kubernetes.io/controller-uid": uid}}})
    };
    let mut root = pod("root");
    root["spec"]["securityContext"]["runAsUser"] = json!(0);
    root["spec"]["securityContext"]["runAsNonRoot"] = json!(false);
    let refused = send(&admin, "POST", PODS, Some(&root), JSON).await;
    assert!(refused.code == 403 && refused.text.contains("restricted"), "{}", refused.text);
    let taken = send(&admin, "POST", PODS, Some(&pod("p")), JSON).await;
    assert_eq!(taken.code, 200, "{}", taken.text);

    // It fails, and says why.
    let ended = json!({"status": {"phase": "Failed", "containerStatuses": [{"name": "gate", "image": "x",
        "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 3, "message": "checking api\napi answers 502\n"}}}]}});
    let written = send(&admin, "PATCH", &format!("{PODS}/p/status"), Some(&ended), MERGE).await;
    assert_eq!(written.code, 200, "{}", written.text);
    let failed = json!({"status": {"startTime": "2026-11-22T12:00:00Z", "failed": 1, "conditions": [
        condition("FailureTarget", "BackoffLimitExceeded"), condition("Failed", "BackoffLimitExceeded")]}});
    end(&admin, &name, &failed).await;
    wait_for("the failure", async || matches!(verdict(), GateVerdict::Failed { .. })).await;
    let wanted = format!(
        "Job invivo-gates/{name} failed (BackoffLimitExceeded): exit code 3:\nchecking api\napi answers 502"
    );
    assert_eq!(message(&verdict()), wanted);

    // A person deletes it: it is run again, and succeeds.
    let one = format!("{JOBS}/{name}?propagationPolicy=Background");
    assert_eq!(send(&admin, "DELETE", &one, None, "").await.code, 200);
    wait_for("another run", async || {
        jobs(&admin).await.iter().any(|job| job["metadata"]["uid"] != json!(uid))
    })
    .await;
    let complete = json!({"status": {"startTime": "2026-11-22T12:00:00Z",
        "completionTime": "2026-11-22T12:01:00Z", "succeeded": 1, "conditions": [
        condition("SuccessCriteriaMet", "CompletionsReached"), condition("Complete", "CompletionsReached")]}});
    end(&admin, &name, &complete).await;
    wait_for("success", async || verdict() == GateVerdict::Passed).await;

    // What succeeded is remembered; what is not wanted any more is not asked again.
    assert_eq!(send(&admin, "DELETE", &one, None, "").await.code, 200);
    working.sights.want("workers", Vec::new());
    working.leader.send_replace(false);
    assert!(jobs(&admin).await.is_empty());
}

fn condition(kind: &str, reason: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": reason, "message": "",
        "lastTransitionTime": "2026-11-22T12:01:00Z", "lastProbeTime": "2026-11-22T12:01:00Z"})
}

async fn end(admin: &Client, name: &str, status: &Value) {
    let written = send(admin, "PATCH", &format!("{JOBS}/{name}/status"), Some(status), MERGE).await;
    assert_eq!(written.code, 200, "{}", written.text);
}

#[tokio::test]
async fn a_job_that_cannot_be_made_is_unknown_and_is_made_once_it_can() {
    let server = ApiServer::with_kinds().await;
    let admin = server.client(&[]);
    let question = policy(&server).await;
    let working = keeper(server.client(&[]));
    working.sights.want("workers", vec![question.clone()]);
    let verdict = || working.sights.verdict("workers", &question);
    wait_for("a refusal", async || message(&verdict()).contains("cannot be created")).await;
    assert!(message(&verdict()).contains("\"invivo-gates\" not found"), "{:?}", verdict());
    server.apply("{apiVersion: v1, kind: Namespace, metadata: {name: invivo-gates}}").await;
    wait_for("the Job", async || message(&verdict()).contains("has not ended")).await;
    assert_eq!(jobs(&admin).await.len(), 1);
}

#[tokio::test]
async fn an_operator_without_the_lease_asks_nothing_and_one_without_rights_says_so() {
    let server = ApiServer::with_kinds().await;
    let question = policy(&server).await;
    let working = keeper(operator(&server));
    let verdict = || working.sights.verdict("workers", &question);
    working.sights.want("workers", vec![question.clone()]);
    wait_for("a refusal", async || message(&verdict()).contains("cannot be looked at")).await;
    assert!(message(&verdict()).contains("cannot list resource"), "{:?}", verdict());
    working.leader.send_replace(false);
    wait_for("silence", async || message(&verdict()) == "not asked yet").await;
    working.sights.want("workers", vec![question.clone()]);
    wait_for("silence again", async || message(&verdict()) == "not asked yet").await;
}
