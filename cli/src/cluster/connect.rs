//! The way to a cluster: what the commands read there and what they write, with the caller's own rights.

use clap::Args;
use futures::Stream;
use invivo_api::{NodePatch, PatchFeed, PatchPolicy};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::config::KubeConfigOptions;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::change::{Change, Changed, Write};
use super::object::{Kind, Object};
use super::person::Person;
use super::plan::Plan;
use super::stop::EMERGENCY_STOP;
use crate::exit::{Exit, Failure, chain};

/// Which cluster, and where Invivo is in it.
#[derive(Debug, Clone, Default, Args)]
pub struct ClusterArguments {
    /// Context of the kubeconfig; the current one where it is left out.
    #[arg(long)]
    pub(super) context: Option<String>,
    /// Namespace that Invivo is installed in.
    #[arg(long, env = "INVIVO_NAMESPACE", default_value = "invivo-system")]
    pub(super) invivo_namespace: String,
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
    /// The emergency stop that is in force, where the caller may read it.
    pub stop: Option<Object>,
}

/// A way to a cluster.
pub struct Connection {
    pub(super) client: Client,
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
        Ok(Self::with(client, &arguments.invivo_namespace))
    }

    /// A way that somebody else has opened, to an Invivo in `namespace`.
    pub fn with(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    /// The namespace that Invivo is installed in.
    pub fn namespace(&self) -> &str {
        &self.namespace
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
            stop: self.stop().await?,
        })
    }

    /// The emergency stop that is in force. Without the right to read it there is none to tell of.
    ///
    /// # Errors
    ///
    /// The API server does not answer.
    pub(super) async fn stop(&self) -> Result<Option<Object>, Failure> {
        match self.find(Kind::ConfigMap, EMERGENCY_STOP).await {
            Err(failure) if failure.exit == Exit::Denied => Ok(None),
            found => found,
        }
    }

    /// Every object of a kind, by name.
    ///
    /// # Errors
    ///
    /// The API server does not answer or does not allow it.
    pub async fn list<K>(&self, what: &str) -> Result<Vec<K>, Failure>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let what = format!("reading {what}");
        let mut all = everything(&Api::<K>::all(self.client.clone()), &what).await?;
        all.sort_by_key(|item: &K| item.meta().name.clone());
        Ok(all)
    }

    /// Every PatchSet.
    ///
    /// # Errors
    ///
    /// The API server does not answer or does not allow it.
    pub async fn sets(&self) -> Result<Vec<Object>, Failure> {
        let sets = everything(&self.api(Kind::Set), "reading PatchSets").await?;
        sets.into_iter().map(|set| taken(Kind::Set, set)).collect()
    }

    /// The object of this name.
    ///
    /// # Errors
    ///
    /// It is not there; the API server does not answer or does not allow it.
    pub async fn object(&self, kind: Kind, name: &str) -> Result<Object, Failure> {
        self.find(kind, name).await?.ok_or_else(|| {
            let kind = kind.as_str();
            Failure::missing(format!("there is no {kind} {name}; see `kubectl get {}`", kind.to_lowercase()))
        })
    }

    /// The object of this name, if it is there.
    ///
    /// # Errors
    ///
    /// The API server does not answer, does not know the kind or does not allow it.
    pub async fn find(&self, kind: Kind, name: &str) -> Result<Option<Object>, Failure> {
        let what = format!("reading {} {name}", kind.as_str());
        match self.api(kind).get(name).await {
            Ok(object) => taken(kind, object).map(Some),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(failure(&error, &what)),
        }
    }

    /// Who the API server takes the caller for.
    ///
    /// # Errors
    ///
    /// It does not say.
    pub async fn caller(&self) -> Result<Person, Failure> {
        let api = Api::<SelfSubjectReview>::all(self.client.clone());
        let review = api
            .create(&PostParams::default(), &SelfSubjectReview::default())
            .await
            .map_err(|e| failure(&e, "asking the API server who you are (SelfSubjectReview)"))?;
        let user = review.status.and_then(|status| status.user_info).and_then(|info| info.username);
        user.map(Person::new).ok_or_else(|| Failure::error("the API server does not say who you are"))
    }

    /// Writes what a change needs, and answers what was done.
    ///
    /// # Errors
    ///
    /// The API server does not answer, does not allow it, or the object is another one meanwhile.
    pub async fn carry_out(&self, change: Change, manager: &str, dry_run: bool) -> Result<Changed, Failure> {
        let Change { kind, write, mut answer } = change;
        let api = self.api(kind);
        let name = &answer.name;
        let manager = Some(manager.to_owned());
        let patching = |force: bool| PatchParams {
            dry_run,
            force,
            field_manager: manager.clone(),
            ..PatchParams::default()
        };
        let result = match write {
            Write::Nothing => Ok(()),
            Write::Merge(body) => api.patch(name, &patching(false), &Patch::Merge(body)).await.map(drop),
            Write::Apply(body) => api.patch(name, &patching(true), &Patch::Apply(body)).await.map(drop),
            Write::Create(body) => {
                let object = serde_json::from_value(body).map_err(|e| Failure::of(&e))?;
                let creating = PostParams { dry_run, field_manager: manager };
                api.create(&creating, &object).await.map(drop)
            }
            Write::Delete(uid) => {
                let preconditions = Some(Preconditions { uid: Some(uid), resource_version: None });
                let deleting = DeleteParams { dry_run, preconditions, ..DeleteParams::default() };
                api.delete(name, &deleting).await.map(drop)
            }
        };
        result.map_err(|error| {
            failure(&error, &format!("{} of {} {name}: nothing was changed", answer.command, kind.as_str()))
        })?;
        answer.dry_run = dry_run;
        Ok(answer)
    }

    /// What happens to one policy, or to all.
    pub fn policies(
        &self,
        name: Option<&str>,
    ) -> impl Stream<Item = watcher::Result<Event<DynamicObject>>> + use<> {
        let config = watcher::Config::default();
        let config = match name {
            Some(name) => config.fields(&format!("metadata.name={name}")),
            None => config,
        };
        watcher::watcher(self.api(Kind::Policy), config).default_backoff()
    }

    /// The operator's plan for a policy, through the API server's service proxy.
    ///
    /// # Errors
    ///
    /// There is no operator, it does not answer, or the caller may not ask it.
    pub async fn plan(&self, policy: &str) -> Result<Plan, Failure> {
        let path = format!(
            "/api/v1/namespaces/{}/services/invivo-operator:metrics/proxy/plan/{policy}",
            self.namespace
        );
        let request = http::Request::get(path).body(Vec::new()).map_err(|e| Failure::of(&e))?;
        self.client.request::<Plan>(request).await.map_err(|error| match &error {
            kube::Error::Api(status) if status.code == 404 => Failure::missing(format!(
                "no operator in namespace {} has a plan for it: {}\n  \
                 say with --invivo-namespace where Invivo is installed",
                self.namespace,
                status.message.trim()
            )),
            kube::Error::Api(status) if status.code == 403 => Failure::denied(format!(
                "{}\n  ask for the right to get services/proxy of invivo-operator",
                status.message
            )),
            other => Failure::unreachable(format!("the operator does not answer: {}", chain(other))),
        })
    }

    fn api(&self, kind: Kind) -> Api<DynamicObject> {
        match kind {
            Kind::ConfigMap => Api::namespaced_with(self.client.clone(), &self.namespace, &kind.resource()),
            Kind::Policy | Kind::Feed | Kind::Set | Kind::Node => {
                Api::all_with(self.client.clone(), &kind.resource())
            }
        }
    }
}

/// Everything behind `api`, page by page.
async fn everything<K>(api: &Api<K>, what: &str) -> Result<Vec<K>, Failure>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut all = Vec::new();
    let mut page = ListParams::default().limit(500);
    loop {
        let list = api.list(&page).await.map_err(|e| failure(&e, what))?;
        let more = list.metadata.continue_.clone().filter(|token| !token.is_empty());
        all.extend(list.items);
        match more {
            Some(token) => page.continue_token = Some(token),
            None => return Ok(all),
        }
    }
}

fn taken(kind: Kind, object: DynamicObject) -> Result<Object, Failure> {
    serde_json::to_value(object).map(|value: Value| Object::new(kind, value)).map_err(|e| Failure::of(&e))
}

/// An object that is not there is named in the answer; a kind that is not there is not.
pub(super) fn is_absent(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => {
            status.code == 404 && status.details.as_ref().is_some_and(|details| !details.name.is_empty())
        }
        _ => false,
    }
}

/// How a request of ours ends that the API server did not grant.
pub(super) fn failure(error: &kube::Error, what: &str) -> Failure {
    match error {
        kube::Error::Api(status) => match status.code {
            404 if is_absent(error) => Failure::missing(format!("{what}: {}", status.message)),
            404 => Failure::missing(format!(
                "{what}: this cluster does not know the kind; install the chart invivo-crds"
            )),
            401 | 403 => Failure::denied(format!(
                "{what}: {}\n  ask for the right, or for the admission policy that refuses it",
                status.message
            )),
            409 => Failure::error(format!(
                "{what}: {}\n  somebody else changed it at the same time; look and try again",
                status.message
            )),
            400..500 => Failure::denied(format!("{what}: {}", status.message)),
            _ => Failure::unreachable(format!("{what}: {}", status.message)),
        },
        other => Failure::unreachable(format!(
            "{what}: {}\n  check the kubeconfig and the way to the API server",
            chain(other)
        )),
    }
}
