//! What a command reads from a cluster. Reading only, with the caller's own rights.

use clap::Args;
use invivo_api::{NodePatch, PatchFeed, PatchPolicy};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::config::KubeConfigOptions;
use kube::{Api, Client, Config, ResourceExt};
use serde::de::DeserializeOwned;

use super::why::{Asked, Plan};
use crate::exit::{Failure, chain};

/// Which cluster, and where Invivo is in it.
#[derive(Debug, Clone, Args)]
pub struct ClusterArguments {
    /// Context of the kubeconfig; the current one where it is left out.
    #[arg(long)]
    context: Option<String>,
    /// Namespace that Invivo is installed in.
    #[arg(long, env = "INVIVO_NAMESPACE", default_value = "invivo-system")]
    invivo_namespace: String,
}

/// The kinds of a cluster, as they were read.
#[derive(Debug, Default)]
pub struct Cluster {
    /// All policies.
    pub policies: Vec<PatchPolicy>,
    /// All feeds.
    pub feeds: Vec<PatchFeed>,
    /// All nodes' instructions and answers.
    pub nodes: Vec<NodePatch>,
}

/// A way to a cluster.
pub struct Connection {
    client: Client,
    namespace: String,
}

impl Connection {
    /// Opens the way that the kubeconfig (or the pod's own account) describes.
    ///
    /// # Errors
    ///
    /// There is none.
    pub async fn open(arguments: &ClusterArguments) -> Result<Self, Failure> {
        let config = match &arguments.context {
            Some(context) => {
                let options =
                    KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
                Config::from_kubeconfig(&options).await.map_err(|e| Failure::of(&e))
            }
            None => Config::infer().await.map_err(|e| Failure::of(&e)),
        };
        let config = config
            .map_err(|f| f.while_doing("no kubeconfig that can be used; set KUBECONFIG or --context"))?;
        let client = Client::try_from(config).map_err(|e| Failure::of(&e))?;
        Ok(Self { client, namespace: arguments.invivo_namespace.clone() })
    }

    /// Reads policies, feeds and node patches.
    ///
    /// # Errors
    ///
    /// The API server does not answer or does not allow it.
    pub async fn read(&self) -> Result<Cluster, Failure> {
        Ok(Cluster {
            policies: self.list("PatchPolicies").await?,
            feeds: self.list("PatchFeeds").await?,
            nodes: self.list("NodePatches").await?,
        })
    }

    async fn list<K>(&self, what: &str) -> Result<Vec<K>, Failure>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let mut all = Vec::new();
        let mut page = ListParams::default().limit(500);
        loop {
            let list = Api::<K>::all(self.client.clone()).list(&page).await.map_err(|e| failure(&e, what))?;
            let more = list.metadata.continue_.clone().filter(|token| !token.is_empty());
            all.extend(list.items);
            match more {
                Some(token) => page.continue_token = Some(token),
                None => break,
            }
        }
        all.sort_by_key(|item: &K| item.meta().name.clone());
        Ok(all)
    }

    /// Reads what concerns one node.
    ///
    /// # Errors
    ///
    /// The API server does not answer, or there is no such node.
    pub async fn ask(&self, node: &str) -> Result<Asked, Failure> {
        let patch = Api::<NodePatch>::all(self.client.clone())
            .get_opt(node)
            .await
            .map_err(|e| failure(&e, "its NodePatch"))?;
        if patch.is_none() {
            let known = Api::<Node>::all(self.client.clone())
                .get_opt(node)
                .await
                .map_err(|e| failure(&e, "nodes"))?;
            if known.is_none() {
                return Err(Failure::error(format!("there is no node {node}; see `kubectl get nodes`")));
            }
        }
        let name = patch.as_ref().and_then(|patch| patch.spec.policy.clone());
        let mut policy = None;
        let mut feed = None;
        let mut plan = Err("no policy governs the node".to_owned());
        if let Some(name) = name {
            policy = Api::<PatchPolicy>::all(self.client.clone())
                .get_opt(&name)
                .await
                .map_err(|e| failure(&e, "its policy"))?;
            if let Some(policy) = &policy {
                feed = Api::<PatchFeed>::all(self.client.clone())
                    .get_opt(&policy.spec.feed)
                    .await
                    .map_err(|e| failure(&e, "its feed"))?;
                plan = self.plan(&policy.name_any()).await;
            }
        }
        Ok(Asked { node: node.to_owned(), patch, policy, feed, plan })
    }

    /// The operator's plan for a policy, through the API server's service proxy.
    async fn plan(&self, policy: &str) -> Result<Plan, String> {
        let path = format!(
            "/api/v1/namespaces/{}/services/invivo-operator:metrics/proxy/plan/{policy}",
            self.namespace
        );
        let request = http::Request::get(path).body(Vec::new()).map_err(|e| e.to_string())?;
        self.client.request::<Plan>(request).await.map_err(|e| chain(&e))
    }
}

fn failure(error: &kube::Error, what: &str) -> Failure {
    match error {
        kube::Error::Api(status) if status.code == 404 => Failure::error(format!(
            "reading {what}: this cluster does not know the kind; install the chart invivo-crds"
        )),
        kube::Error::Api(status) if status.code == 401 || status.code == 403 => {
            Failure::error(format!("reading {what}: {}; ask for the right to read it", status.message))
        }
        other => Failure::unreachable(format!(
            "reading {what}: {}\n  check the kubeconfig and the way to the API server",
            chain(other)
        )),
    }
}
