//! What a stolen token is good for.

use anyhow::{Context, ensure};
use kube::Client;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};

use crate::stage::Stage;

pub(super) fn stolen_agent_token(stage: &Stage<'_>) -> anyhow::Result<()> {
    let pod = stage.agent_on("node1")?;
    let token = stage.product.kubectl(&[
        "create",
        "token",
        "-n",
        "invivo-system",
        "invivo-agent",
        "--bound-object-kind",
        "Pod",
        "--bound-object-name",
        &pod,
    ])?;
    let thief = client(stage, token.trim())?;
    let own = stage.fleet.patches()?.remove("node1").context("node1 has no NodePatch")?;
    let status = serde_json::json!({
        "apiVersion": "invivo.dev/v1alpha1", "kind": "NodePatch",
        "status": {"observedRevision": own.spec.revision, "level": 0, "state": "Idle"},
    })
    .to_string();

    let np = "/apis/invivo.dev/v1alpha1/nodepatches";
    let own_status = format!("{np}/node1/status?dryRun=All&fieldManager=thief");
    let allowed = ask(stage, &thief, "PATCH", &own_status, &status)?;
    ensure!(allowed == 200, "its own status is refused with {allowed}: the scenario proves nothing");

    for (what, verb, uri) in [
        ("another node's status", "PATCH", format!("{np}/node2/status?fieldManager=thief")),
        ("its own instruction", "PATCH", format!("{np}/node1?fieldManager=thief")),
        ("another node's instruction", "PATCH", format!("{np}/node2?fieldManager=thief")),
        ("a node", "GET", "/api/v1/nodes/node1".to_owned()),
        ("the secrets", "GET", "/api/v1/namespaces/invivo-system/secrets".to_owned()),
        ("the pods", "GET", "/api/v1/namespaces/invivo-system/pods".to_owned()),
        ("a feed", "DELETE", "/apis/invivo.dev/v1alpha1/patchfeeds/demo".to_owned()),
    ] {
        let code = ask(stage, &thief, verb, &uri, &status)?;
        println!("  {verb} {what}: {code}");
        ensure!(code == 403, "{verb} {what} was answered with {code}");
    }
    Ok(())
}

fn client(stage: &Stage<'_>, token: &str) -> anyhow::Result<Client> {
    let mut file = Kubeconfig::read_from(stage.lab.pki().path("admin.kubeconfig"))?;
    for user in &mut file.auth_infos {
        user.auth_info = Some(AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() });
    }
    stage.fleet.block_on(async {
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    })
}

/// The HTTP status of an answer.
fn ask(stage: &Stage<'_>, client: &Client, verb: &str, uri: &str, body: &str) -> anyhow::Result<u16> {
    let request = http::Request::builder()
        .method(verb)
        .uri(uri)
        .header("content-type", "application/merge-patch+json")
        .body(if verb == "PATCH" { body.as_bytes().to_vec() } else { Vec::new() })?;
    match stage.fleet.block_on(client.request_text(request)) {
        Ok(_) => Ok(200),
        Err(kube::Error::Api(status)) => Ok(status.code),
        Err(error) => Err(error).with_context(|| format!("{verb} {uri}")),
    }
}
