//! Tells Prometheus what to scrape: every container port named `metrics` of every running pod.

use std::path::PathBuf;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Where the list is, in the lab's network.
pub const ADDRESS: &str = "10.77.0.1:9091";

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file that says how to reach the API server.
    #[error("read the kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The API server.
    #[error("make a client: {0}")]
    Client(#[from] kube::Error),
    /// The port.
    #[error("listen on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The server.
    #[error("serve: {0}")]
    Serve(std::io::Error),
}

/// Serves the list on `address` until the process ends.
///
/// # Errors
/// When the API server cannot be spoken to or the port is taken.
pub async fn serve(kubeconfig: PathBuf, address: &str) -> Result<(), Error> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(file, &options).await?;
    let client = kube::Client::try_from(config)?;
    let router = Router::new().route("/targets", get(targets)).with_state(client);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address: address.to_owned(), source })?;
    axum::serve(listener, router).await.map_err(Error::Serve)
}

async fn targets(State(client): State<kube::Client>) -> Result<impl IntoResponse, StatusCode> {
    let pods: Api<Pod> = Api::all(client);
    let pods = pods.list(&ListParams::default()).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let list: Value = pods.iter().flat_map(of_pod).collect();
    Ok(([(CONTENT_TYPE, "application/json")], list.to_string()))
}

/// The targets of one pod, in the form that Prometheus asks for.
fn of_pod(pod: &Pod) -> Vec<Value> {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else {
        return Vec::new();
    };
    let Some(address) = &status.pod_ip else {
        return Vec::new();
    };
    if status.phase.as_deref() != Some("Running") {
        return Vec::new();
    }
    let component = pod.metadata.labels.as_ref().and_then(|labels| labels.get("app.kubernetes.io/component"));
    let mut targets = Vec::new();
    for container in &spec.containers {
        for port in container.ports.iter().flatten() {
            if port.name.as_deref() == Some("metrics") {
                targets.push(json!({
                    "targets": [format!("{address}:{}", port.container_port)],
                    "labels": {
                        "namespace": pod.metadata.namespace,
                        "pod": pod.metadata.name,
                        "container": container.name,
                        "node": spec.node_name,
                        "component": component.map_or("", String::as_str),
                    },
                }));
            }
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(phase: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": "agent-x", "namespace": "invivo-system",
                "labels": {"app.kubernetes.io/component": "agent"},
            },
            "spec": {"nodeName": "node1", "containers": [
                {"name": "loader"},
                {"name": "agent", "ports": [
                    {"name": "probes", "containerPort": 1},
                    {"name": "metrics", "containerPort": 9100},
                ]},
            ]},
            "status": {"phase": phase, "podIP": "10.78.1.2"},
        }))
        .unwrap()
    }

    #[test]
    fn only_the_port_named_metrics_is_scraped() {
        let targets = of_pod(&pod("Running"));
        assert_eq!(targets.len(), 1);
        assert_eq!(targets[0]["targets"], json!(["10.78.1.2:9100"]));
        assert_eq!(targets[0]["labels"]["node"], "node1");
        assert_eq!(targets[0]["labels"]["component"], "agent");
    }

    #[test]
    fn a_pod_that_does_not_run_is_left_alone() {
        assert!(of_pod(&pod("Pending")).is_empty());
    }
}
