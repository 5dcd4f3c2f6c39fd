//! What Invivo's accounts may do, by RBAC and by the admission policies.

use std::collections::BTreeMap;

use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::server::{Answer, ApiServer, get, render, send, wait_for};

const NAMESPACE: &str = "invivo-system";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    who: String,
    does: String,
    request: Request,
    /// The answer under the chart's RBAC.
    own: String,
    /// The answer with cluster-admin; none for reads.
    #[serde(default)]
    admin: Option<String>,
    /// The answer with cluster-admin where the chart was installed without the fence.
    #[serde(default)]
    unfenced: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    method: String,
    path: String,
    #[serde(default)]
    body: Option<Value>,
}

/// The headers by which the administrator speaks for one of Invivo's accounts.
pub fn identity(who: &str, uids: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let account = match who {
        "operator" => "invivo-operator",
        "patch-server" => "invivo-patch-server",
        "another account" => "default",
        "administrator" => return Vec::new(),
        "ada" | "bob" | "carol" | "eve" => {
            return vec![
                ("Impersonate-User".to_owned(), format!("{who}@example.com")),
                ("Impersonate-Group".to_owned(), "system:authenticated".to_owned()),
            ];
        }
        agent if agent.starts_with("agent") => "invivo-agent",
        other => panic!("nobody is called {other}"),
    };
    let mut headers = vec![
        ("Impersonate-User".to_owned(), format!("system:serviceaccount:{NAMESPACE}:{account}")),
        ("Impersonate-Group".to_owned(), "system:authenticated".to_owned()),
        ("Impersonate-Group".to_owned(), "system:serviceaccounts".to_owned()),
        ("Impersonate-Group".to_owned(), format!("system:serviceaccounts:{NAMESPACE}")),
    ];
    let mut claim = |name: &str, value: &str| {
        headers.push((format!("Impersonate-Extra-authentication.kubernetes.io%2f{name}"), value.to_owned()));
    };
    let mut on = |node: &str, uid: &str| {
        claim("node-name", node);
        claim("node-uid", uid);
        claim("pod-name", "invivo-agent-abcde");
    };
    match who {
        "agent of node-a" => on("node-a", &uids["node-a"]),
        "agent of node-b" => on("node-b", &uids["node-b"]),
        "agent of an older node-a" => on("node-a", "00000000-0000-0000-0000-000000000000"),
        "agent with two nodes" => {
            on("node-a", &uids["node-a"]);
            claim("node-name", "node-b");
        }
        _ => {}
    }
    headers
}

async fn perform(client: &Client, request: &Request) -> Answer {
    let separator = if request.path.contains('?') { '&' } else { '?' };
    let (method, query, content_type) = match request.method.as_str() {
        "GET" => ("GET", String::new(), ""),
        "APPLY" => (
            "PATCH",
            format!("{separator}dryRun=All&fieldManager=test&force=true"),
            "application/apply-patch+yaml",
        ),
        "PATCH" => ("PATCH", format!("{separator}dryRun=All"), "application/merge-patch+json"),
        other => (other, format!("{separator}dryRun=All"), "application/json"),
    };
    send(client, method, &format!("{}{query}", request.path), request.body.as_ref(), content_type).await
}

/// The chart installed, two nodes with their objects, a feed, a policy, a set. Returns the nodes' uids.
pub async fn installed() -> (ApiServer, BTreeMap<String, String>) {
    let server = ApiServer::with_kinds().await;
    let admin = server.client(&[]);
    server.apply("{apiVersion: v1, kind: Namespace, metadata: {name: invivo-system}}").await;
    server.apply(&render("invivo")).await;
    server.apply(include_str!("../cluster-objects.yaml")).await;
    let mut uids = BTreeMap::new();
    for node in ["node-a", "node-b"] {
        let uid = get(&admin, &format!("/api/v1/nodes/{node}")).await.json()["metadata"]["uid"]
            .as_str()
            .unwrap()
            .to_owned();
        let patch = json!({
            "apiVersion": "invivo.dev/v1alpha1", "kind": "NodePatch",
            "metadata": {"name": node, "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}]},
            "spec": {"revision": 1, "hold": {}},
        });
        let made =
            send(&admin, "POST", "/apis/invivo.dev/v1alpha1/nodepatches", Some(&patch), "application/json")
                .await;
        assert_eq!(made.code, 200, "{}", made.text);
        uids.insert(node.to_owned(), uid);
    }
    let digest = "0123456789abcdef".repeat(4);
    for (who, decision) in [("ada", "Approve"), ("bob", "Reject")] {
        let user = format!("{who}@example.com");
        let entry = json!({"user": user, "decision": decision, "digest": digest, "reason": "r"});
        let body = json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "PatchSet",
            "metadata": {"name": "production.2026-11-20.1"}, "spec": {"approvals": [entry]}});
        // One field manager for each person: with a shared one the second would take the first's entry away.
        let path = format!("/apis/invivo.dev/v1alpha1/patchsets/production.2026-11-20.1?fieldManager={who}");
        let person = server.client(&identity(who, &uids));
        wait_for("the approvers' rights", async || {
            send(&person, "PATCH", &path, Some(&body), "application/apply-patch+yaml").await.code == 200
        })
        .await;
    }
    let ada = server.client(&identity("ada", &uids));
    let urgent = json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "PatchPolicy", "metadata": {"name": "urgent"},
        "spec": {"feed": "production", "nodeSelector": {"matchLabels": {"team": "nobody"}}, "rollout": {"expedite":
            {"set": "2026-11-21.1", "reason": "exploited", "user": "ada@example.com", "until": "2030-01-01T00:00:00Z"}}}});
    wait_for("the rights of who runs policies", async || {
        let path = "/apis/invivo.dev/v1alpha1/patchpolicies";
        send(&ada, "POST", path, Some(&urgent), "application/json").await.code == 200
    })
    .await;
    for (set, status) in [
        ("2026-11-19.1", json!({"quarantine": {"since": "2026-11-22T12:00:00Z"}})),
        ("2026-11-18.1", json!({"nodes": {"applied": 1, "settled": 1, "failed": 0}})),
    ] {
        let path = format!("/apis/invivo.dev/v1alpha1/patchsets/production.{set}/status");
        let body = json!({"status": status});
        let wrote = send(&admin, "PATCH", &path, Some(&body), "application/merge-patch+json").await;
        assert_eq!(wrote.code, 200, "{}", wrote.text);
    }
    // The policies are in force once the API server has read them.
    let operator = server.client(&identity("operator", &uids));
    let agent = server.client(&identity("agent of node-b", &uids));
    let label = json!({"metadata": {"labels": {"invivo.dev/canary-denial": "x"}}});
    let merge = "application/merge-patch+json";
    wait_for("invivo-operator-nodes", async || {
        let path = "/api/v1/nodes/node-a?dryRun=All";
        send(&operator, "PATCH", path, Some(&label), merge).await.text.contains("invivo-operator-nodes")
    })
    .await;
    wait_for("invivo-operator-policies", async || {
        let path = "/apis/invivo.dev/v1alpha1/patchpolicies/workers?dryRun=All";
        let spec = json!({"spec": {"paused": true}});
        send(&operator, "PATCH", path, Some(&spec), merge).await.text.contains("'invivo-operator-policies'")
    })
    .await;
    wait_for("invivo-agent", async || {
        let path = "/apis/invivo.dev/v1alpha1/nodepatches/node-a/status?dryRun=All";
        let status = json!({"status": {"observedRevision": 1}});
        send(&agent, "PATCH", path, Some(&status), merge).await.text.contains("'invivo-agent'")
    })
    .await;
    wait_for("invivo-approvals", async || {
        let path = "/apis/invivo.dev/v1alpha1/patchsets/production.2026-11-20.1?dryRun=All";
        let bob = server.client(&identity("bob", &uids));
        send(&bob, "DELETE", path, None, "").await.text.contains("'invivo-approvals'")
    })
    .await;
    wait_for("invivo-expedite", async || {
        let path = "/apis/invivo.dev/v1alpha1/patchpolicies/urgent?dryRun=All";
        let longer = json!({"spec": {"rollout": {"expedite": {"until": "2031-01-01T00:00:00Z"}}}});
        let bob = server.client(&identity("bob", &uids));
        send(&bob, "PATCH", path, Some(&longer), merge).await.text.contains("'invivo-expedite'")
    })
    .await;
    wait_for("invivo-fence", async || {
        let path = "/apis/invivo.dev/v1alpha1/patchsets/production.2026-11-21.1?dryRun=All";
        let labels = json!({"metadata": {"labels": {"a": "b"}}});
        send(&operator, "PATCH", path, Some(&labels), merge).await.text.contains("'invivo-fence'")
    })
    .await;
    (server, uids)
}

fn expect(unexpected: &mut Vec<String>, case: &Case, rights: &str, wanted: &str, answer: &Answer) {
    let fits = match wanted {
        "allow" => answer.code == 200,
        "refused" => answer.code == 403 && answer.text.contains("ValidatingAdmissionPolicy 'invivo-"),
        part => answer.code == 403 && answer.text.contains(part),
    };
    if !fits {
        unexpected.push(format!(
            "{} {} ({rights}): wanted {wanted:?}, got {} {}",
            case.who,
            case.does,
            answer.code,
            answer.text.chars().take(400).collect::<String>()
        ));
    }
}

#[tokio::test]
async fn invivos_accounts_do_what_they_need_and_nothing_else_even_with_cluster_admin() {
    let (server, uids) = installed().await;
    let mut text = include_str!("../requests.yaml").to_owned();
    for (node, uid) in &uids {
        text = text.replace(&format!("${{{node}}}"), uid);
    }
    let cases: Vec<Case> = serde_saphyr::from_str(&text).unwrap();
    let mut unexpected = Vec::new();
    for case in &cases {
        let client = server.client(&identity(&case.who, &uids));
        expect(&mut unexpected, case, "own rights", &case.own, &perform(&client, &case.request).await);
    }
    server
        .apply(
            "apiVersion: rbac.authorization.k8s.io/v1\n\
             kind: ClusterRoleBinding\n\
             metadata: {name: by-mistake}\n\
             roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}\n\
             subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'system:serviceaccounts:invivo-system'}]\n",
        )
        .await;
    let operator = server.client(&identity("operator", &uids));
    wait_for("cluster-admin", async || get(&operator, "/api/v1/secrets").await.code == 200).await;
    for case in &cases {
        if let Some(wanted) = &case.admin {
            let client = server.client(&identity(&case.who, &uids));
            expect(&mut unexpected, case, "cluster-admin", wanted, &perform(&client, &case.request).await);
        }
    }
    let binding = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/invivo-fence";
    send(&server.client(&[]), "DELETE", binding, None, "").await;
    let pod = cases.iter().find(|case| case.does == "makes a pod" && case.who == "another account").unwrap();
    let other = server.client(&identity(&pod.who, &uids));
    wait_for("the fence to be gone", async || perform(&other, &pod.request).await.code == 200).await;
    for case in &cases {
        if let Some(wanted) = &case.unfenced {
            let client = server.client(&identity(&case.who, &uids));
            expect(
                &mut unexpected,
                case,
                "cluster-admin, no fence",
                wanted,
                &perform(&client, &case.request).await,
            );
        }
    }
    assert!(
        unexpected.is_empty(),
        "{} of {} requests:\n{}",
        unexpected.len(),
        cases.len(),
        unexpected.join("\n")
    );
}

#[tokio::test]
async fn the_token_of_a_pod_opens_the_object_of_its_own_node_only() {
    let (server, _) = installed().await;
    let admin = server.client(&[]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "invivo-agent-abcde", "namespace": NAMESPACE},
        "spec": {"nodeName": "node-a", "serviceAccountName": "invivo-agent", "containers": [{"name": "c", "image": "x"}]},
    });
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let made = send(&admin, "POST", &pods, Some(&pod), "application/json").await;
    let uid = made.json()["metadata"]["uid"].clone();
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "invivo-agent-abcde", "uid": uid}},
    });
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/invivo-agent/token");
    let answer = send(&admin, "POST", &path, Some(&request), "application/json").await;
    let token = answer.json()["status"]["token"].as_str().unwrap().to_owned();
    let agent = server.client_with(&token, &[]);
    let status = json!({"status": {"observedRevision": 1, "state": "Applied", "level": 1}});
    let report = async |node: &str| {
        let path = format!("/apis/invivo.dev/v1alpha1/nodepatches/{node}/status");
        send(&agent, "PATCH", &path, Some(&status), "application/merge-patch+json").await
    };
    let own = report("node-a").await;
    assert_eq!(own.code, 200, "{}", own.text);
    let other = report("node-b").await;
    assert_eq!(other.code, 403, "{}", other.text);
    assert!(other.text.contains("the invivo agent of node \"node-a\" may not write"), "{}", other.text);
    for path in ["/api/v1/nodes/node-a", "/api/v1/secrets", "/api/v1/pods"] {
        assert_eq!(get(&agent, path).await.code, 403, "{path}");
    }
}
