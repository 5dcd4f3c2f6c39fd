//! One short-lived pod a node, with no right at all, that prints what every process may read.

use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::super::connect::failure;
use super::facts::{Facts, SCRIPT};
use crate::exit::{Failure, chain};

/// How many pods there are at once.
const AT_ONCE: usize = 16;
/// A pod that has not ended by then is given up.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often a pod is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Marks the pods of one run.
const RUN: &str = "invivo.dev/preflight";

/// Where and with what to probe.
#[derive(Debug, Clone)]
pub(super) struct Probing {
    pub namespace: String,
    pub image: String,
    pub run: String,
}

impl Probing {
    pub(super) fn new(namespace: &str, image: &str) -> Self {
        let run = format!("{:x}-{:x}", Timestamp::now().as_second(), std::process::id());
        Self { namespace: namespace.to_owned(), image: image.to_owned(), run }
    }

    /// The pod for a node: admitted even where the namespace demands the standard `restricted`.
    fn pod(&self, node: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "generateName": "invivo-preflight-", "namespace": self.namespace,
                "labels": {"app.kubernetes.io/name": "invivo-preflight", RUN: self.run},
            },
            "spec": {
                "nodeName": node,
                "restartPolicy": "Never",
                "activeDeadlineSeconds": PATIENCE.as_secs(),
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "tolerations": [{"operator": "Exists"}],
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65534, "runAsGroup": 65534,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "probe", "image": self.image, "command": ["sh", "-c", SCRIPT],
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "resources": {
                        "requests": {"cpu": "1m", "memory": "8Mi"}, "limits": {"cpu": "100m", "memory": "32Mi"},
                    },
                }],
            },
        })
    }
}

/// Probes the nodes; leaves no pod behind, also when it is interrupted.
///
/// # Errors
///
/// It was interrupted, or the pods could not be taken away again.
pub(super) async fn probe(
    client: &Client,
    probing: &Probing,
    nodes: Vec<String>,
) -> Result<Vec<(String, Result<Facts, String>)>, Failure> {
    let pods = Api::<Pod>::namespaced(client.clone(), &probing.namespace);
    let all = stream::iter(nodes)
        .map(async |node| {
            let facts = one(&pods, &probing.pod(&node)).await;
            (node, facts)
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>();
    let facts = tokio::select! {
        facts = all => Ok(facts),
        _ = tokio::signal::ctrl_c() => Err(Failure::error("interrupted")),
    };
    let ours = ListParams::default().labels(&format!("{RUN}={}", probing.run));
    let what = format!("deleting the pods with label {RUN}={} in {}", probing.run, probing.namespace);
    pods.delete_collection(&DeleteParams::default(), &ours).await.map_err(|e| failure(&e, &what))?;
    facts
}

async fn one(pods: &Api<Pod>, pod: &Value) -> Result<Facts, String> {
    let pod = serde_json::from_value(pod.clone()).map_err(|e| e.to_string())?;
    let pod = pods.create(&PostParams::default(), &pod).await.map_err(|e| chain(&e))?;
    let name = pod.name_any();
    tokio::time::timeout(PATIENCE, ended(pods, &name))
        .await
        .unwrap_or_else(|_| Err(format!("the probe did not end within {} s", PATIENCE.as_secs())))?;
    let printed = pods.logs(&name, &LogParams::default()).await.map_err(|e| chain(&e))?;
    Facts::read(&printed)
}

/// Waits until the pod has ended well.
async fn ended(pods: &Api<Pod>, name: &str) -> Result<(), String> {
    loop {
        let pod = pods.get(name).await.map_err(|e| chain(&e))?;
        let status = pod.status.unwrap_or_default();
        match status.phase.as_deref() {
            Some("Succeeded") => return Ok(()),
            Some("Failed") => {
                let why = status.message.or(status.reason).unwrap_or_else(|| "without a word".to_owned());
                return Err(format!("the probe failed: {why}"));
            }
            Some(_) | None => {
                if let Some(trouble) = waiting(&status) {
                    return Err(trouble);
                }
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// Why its container will not start, where the kubelet says so.
fn waiting(status: &k8s_openapi::api::core::v1::PodStatus) -> Option<String> {
    let containers = status.container_statuses.iter().flatten();
    let mut waiting = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref());
    let stuck = waiting.find(|waiting| {
        matches!(
            waiting.reason.as_deref(),
            Some("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "CreateContainerConfigError")
        )
    })?;
    let reason = stuck.reason.as_deref().unwrap_or_default();
    Some(format!("{reason}: {}", stuck.message.as_deref().unwrap_or_default()))
}
