//! Ten thousand labels, wherever labels can be written.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::admission::{identity, installed};
use crate::server::{ApiServer, get, send};

const MANY: usize = 10_000;
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const POLICIES: &str = "/apis/invivo.dev/v1alpha1/patchpolicies";

fn labels() -> BTreeMap<String, String> {
    (0..MANY).map(|number| (format!("example.com/label-{number}"), format!("value-{number}"))).collect()
}

#[tokio::test]
async fn a_selector_of_ten_thousand_labels_is_refused_wherever_it_stands() {
    let server = ApiServer::with_kinds().await;
    let admin = server.client(&[]);
    let names: Vec<String> = labels().into_keys().collect();
    let expressions: Vec<Value> =
        names.iter().map(|name| json!({"key": name, "operator": "Exists"})).collect();
    let values: Vec<String> = labels().into_values().collect();
    let by_labels = json!({"matchLabels": labels()});
    let job = json!([{"job": {"template": {"image": "x", "nodeSelector": labels()}}}]);
    for (field, spec, most) in [
        ("spec.nodeSelector.matchLabels", json!({"nodeSelector": by_labels}), 32),
        (
            "spec.nodeSelector.matchExpressions",
            json!({"nodeSelector": {"matchExpressions": expressions}}),
            32,
        ),
        (
            "spec.nodeSelector.matchExpressions[0].values",
            json!({"nodeSelector": {"matchExpressions": [{"key": "zone", "operator": "In", "values": values}]}}),
            64,
        ),
        (
            "spec.rollout.stages[0].nodeSelector.matchLabels",
            json!({"rollout": {"stages": [{"name": "canary", "nodeSelector": by_labels}]}}),
            32,
        ),
        ("spec.gates[0].job.template.nodeSelector", json!({"gates": job}), 32),
    ] {
        let mut policy = json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "PatchPolicy",
            "metadata": {"name": "workers"}, "spec": spec});
        policy["spec"]["feed"] = json!("production");
        let answer = send(&admin, "POST", POLICIES, Some(&policy), JSON).await;
        let told = format!("{field}: Too many: {MANY}: must have at most {most} items");
        assert!(
            answer.code == 422 && answer.text.contains(&told),
            "{field}: {} {}",
            answer.code,
            answer.text
        );
    }
}

/// Kubernetes knows no number of labels that is too many, only objects that are too large. So they
/// must be in nobody's way: not in that of the policies which compare what the operator writes.
#[tokio::test]
async fn a_node_with_ten_thousand_labels_is_labelled_by_the_operator_like_any_other() {
    let (server, uids) = installed().await;
    let admin = server.client(&[]);
    let node =
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-many", "labels": labels()}});
    let made = send(&admin, "POST", "/api/v1/nodes", Some(&node), JSON).await;
    assert_eq!(made.code, 200, "{}", made.text);
    let operator = server.client(&identity("operator", &uids));
    let path = "/api/v1/nodes/node-many";
    let own = json!({"metadata": {"labels": {"invivo.dev/agent": "", "invivo.dev/level": "1"}}});
    let labelled = send(&operator, "PATCH", path, Some(&own), MERGE).await;
    assert_eq!(labelled.code, 200, "{}", labelled.text);
    let now = get(&admin, path).await.json()["metadata"]["labels"].clone();
    assert_eq!(now.as_object().unwrap().len(), MANY + 2);
    let foreign = json!({"metadata": {"labels": {"example.com/label-7": "other"}}});
    let refused = send(&operator, "PATCH", path, Some(&foreign), MERGE).await;
    assert_eq!(refused.code, 403, "{}", refused.text);
    assert!(
        refused.text.contains("may not set or remove the Node labels example.com/label-7"),
        "{}",
        refused.text
    );
}

#[tokio::test]
async fn ten_thousand_labels_of_a_policy_keep_nobody_from_its_finalizer() {
    let (server, uids) = installed().await;
    let admin = server.client(&[]);
    let policy = json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "PatchPolicy",
        "metadata": {"name": "labelled", "labels": labels()},
        "spec": {"feed": "production", "nodeSelector": {"matchLabels": {"team": "nobody"}}}});
    let made = send(&admin, "POST", POLICIES, Some(&policy), JSON).await;
    assert_eq!(made.code, 200, "{}", made.text);
    let operator = server.client(&identity("operator", &uids));
    let path = format!("{POLICIES}/labelled");
    let finalizer = json!({"metadata": {"finalizers": ["invivo.dev/roll-back"]}});
    let kept = send(&operator, "PATCH", &path, Some(&finalizer), MERGE).await;
    assert_eq!(kept.code, 200, "{}", kept.text);
    let status = json!({"status": {"nextAction": "none"}});
    let told = send(&operator, "PATCH", &format!("{path}/status"), Some(&status), MERGE).await;
    assert_eq!(told.code, 200, "{}", told.text);
}
