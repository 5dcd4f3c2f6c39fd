//! What is committed under `manifests/` is what the charts give, and an API server takes it.

use std::process::Command;

use crate::server::{ApiServer, get, render, root, tool};

#[test]
fn the_plain_yaml_is_what_the_charts_render() {
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new(root().join("manifests/render.sh"))
        .arg(folder.path())
        .env("HELM", tool("helm"))
        .status()
        .unwrap();
    assert!(status.success());
    for file in ["crds.yaml", "invivo.yaml"] {
        let committed = std::fs::read_to_string(root().join("manifests").join(file)).unwrap();
        let rendered = std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(committed == rendered, "manifests/{file} is stale: make generate");
    }
}

#[test]
fn without_a_trust_root_the_chart_is_not_rendered() {
    let refused = |set: &[&str]| {
        let output = Command::new(tool("helm"))
            .args(["template", "invivo", "--kube-version", "1.34.4"])
            .arg(root().join("charts/invivo"))
            .args(set)
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&[]).contains("trust.roots is empty"));
    let wrong = refused(&["--set", "trust.roots[0]=abc"]);
    assert!(wrong.contains("trust") && wrong.contains("roots"), "{wrong}");
}

#[test]
fn only_the_loader_has_privilege_and_only_the_agent_a_token() {
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&render("invivo")).unwrap();
    let agent = documents.iter().find(|document| document["kind"] == "DaemonSet").unwrap();
    let pod = &agent["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["containers"][0]["name"], "loader");
    let mounts = |index: usize| -> Vec<&str> {
        pod["containers"][index]["volumeMounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["name"].as_str().unwrap())
            .collect()
    };
    let wanted = ["run", "state", "livepatch", "proc", "modules", "pstore", "pstore-archive", "security"];
    assert_eq!(mounts(0), wanted);
    let writable = |mount: &&serde_json::Value| mount["readOnly"] != true;
    let loaders = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    assert_eq!(loaders.iter().filter(writable).count(), 3, "run, state, livepatch");
    assert_eq!(mounts(1), ["run", "account"]);
    let mut pods = vec![pod];
    pods.extend(
        documents.iter().filter(|d| d["kind"] == "Deployment").map(|d| &d["spec"]["template"]["spec"]),
    );
    assert_eq!(pods.len(), 3);
    for pod in pods {
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert!(pod["hostNetwork"].is_null() && pod["hostPID"].is_null());
        for container in pod["containers"].as_array().unwrap() {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["readOnlyRootFilesystem"], true);
            assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
            if container["name"] == "loader" {
                assert_eq!(
                    security["capabilities"]["add"],
                    serde_json::json!(["SYS_MODULE", "DAC_READ_SEARCH"])
                );
            } else {
                assert!(security["capabilities"]["add"].is_null());
                assert_eq!(security["runAsNonRoot"], true);
            }
        }
    }
}

#[tokio::test]
async fn an_api_server_takes_the_plain_yaml_and_the_samples() {
    let server = ApiServer::start().await;
    let read = |file: &str| std::fs::read_to_string(root().join("manifests").join(file)).unwrap();
    for file in
        ["namespace.yaml", "crds.yaml", "invivo.yaml", "samples/patchfeed.yaml", "samples/patchpolicy.yaml"]
    {
        server.apply(&read(file)).await;
    }
    let admin = server.client(&[]);
    for path in ["patchfeeds/production", "patchpolicies/workers", "nodepatches/invivo-canary"] {
        assert_eq!(get(&admin, &format!("/apis/invivo.dev/v1alpha1/{path}")).await.code, 200, "{path}");
    }
}
