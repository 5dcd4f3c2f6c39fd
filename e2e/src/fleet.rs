//! The cluster as a person sees it: Invivo's objects, asked for again until they say what is waited for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use invivo_api::{CANARY_PATCH, NodePatch, PatchFeed, PatchPolicy, PatchSet};
use invivo_terms::NodeState;
use k8s_openapi::api::core::v1::Node as KubeNode;
use kube::Client;
use kube::api::{Api, ListParams};

use crate::Lab;

/// How often a question is repeated while its answer is waited for.
const LOOK: Duration = Duration::from_millis(250);

/// The cluster's objects, asked for from ordinary code.
pub struct Fleet {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Fleet {
    /// As the cluster's administrator. The calling thread must be in the lab's network.
    ///
    /// # Errors
    /// When the cluster's kubeconfig is not there.
    pub fn open(lab: &Lab) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the runtime")?;
        let client = runtime.block_on(lab.client())?;
        Ok(Self { runtime, client })
    }

    /// The client, for what is not here.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Runs a future to its end.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Every node's NodePatch, by the node's name. The one made for the agents' own check is left out.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub fn patches(&self) -> anyhow::Result<BTreeMap<String, NodePatch>> {
        let api: Api<NodePatch> = Api::all(self.client());
        let list = self.block_on(api.list(&ListParams::default())).context("list NodePatches")?;
        Ok(list
            .into_iter()
            .filter_map(|patch| Some((patch.metadata.name.clone()?, patch)))
            .filter(|(name, _)| name != CANARY_PATCH)
            .collect())
    }

    /// One PatchPolicy.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn policy(&self, name: &str) -> anyhow::Result<PatchPolicy> {
        self.block_on(Api::all(self.client()).get(name)).with_context(|| format!("get PatchPolicy {name}"))
    }

    /// One PatchFeed.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn feed(&self, name: &str) -> anyhow::Result<PatchFeed> {
        self.block_on(Api::all(self.client()).get(name)).with_context(|| format!("get PatchFeed {name}"))
    }

    /// Every PatchSet.
    ///
    /// # Errors
    /// When the API server cannot be asked.
    pub fn sets(&self) -> anyhow::Result<Vec<PatchSet>> {
        let api: Api<PatchSet> = Api::all(self.client());
        Ok(self.block_on(api.list(&ListParams::default())).context("list PatchSets")?.items)
    }

    /// One Node.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn node(&self, name: &str) -> anyhow::Result<KubeNode> {
        self.block_on(Api::all(self.client()).get(name)).with_context(|| format!("get Node {name}"))
    }

    /// Asks until there is an answer; says what was seen last if there is none in time.
    ///
    /// # Errors
    /// When the time is over, with the last thing seen.
    pub fn wait<T>(
        &self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut() -> anyhow::Result<Seen<T>>,
    ) -> anyhow::Result<T> {
        let start = Instant::now();
        loop {
            // An API server that starts, or an object that is not there yet, is no answer either.
            let last = match look() {
                Ok(Seen::Answer(answer)) => return Ok(answer),
                Ok(Seen::NotYet(last)) => last,
                Err(error) => format!("{error:#}"),
            };
            if start.elapsed() >= patience {
                bail!("waited {} s for {what}; last seen: {last}", patience.as_secs());
            }
            self.block_on(async { tokio::time::sleep(LOOK).await });
        }
    }

    /// Waits until each of these nodes reports one of `states`.
    ///
    /// # Errors
    /// When the time is over.
    pub fn wait_states(
        &self,
        nodes: &[&str],
        states: &[NodeState],
        patience: Duration,
    ) -> anyhow::Result<()> {
        let wanted = states.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(" or ");
        self.wait(&format!("{} {wanted}", nodes.join(", ")), patience, || {
            let patches = self.patches()?;
            let there = nodes.iter().all(|node| {
                patches
                    .get(*node)
                    .and_then(|patch| patch.status.as_ref())
                    .is_some_and(|status| states.contains(&status.state))
            });
            Ok(if there { Seen::Answer(()) } else { Seen::NotYet(describe(&patches)) })
        })
    }

    /// Waits until the policy says that all its nodes are at this target.
    ///
    /// # Errors
    /// When the time is over.
    pub fn wait_at_target(&self, name: &str, target: &str, patience: Duration) -> anyhow::Result<()> {
        self.wait(&format!("PatchPolicy {name} at {target}"), patience, || {
            let policy = self.policy(name)?;
            let status = policy.status.unwrap_or_default();
            let current = status.observed_generation == policy.metadata.generation;
            let aims = status.rollout.as_ref().is_some_and(|rollout| rollout.key.target == target);
            let ready = status
                .conditions
                .iter()
                .any(|c| c.type_ == "Ready" && c.status == "True" && c.reason == "AtTarget");
            Ok(if current && aims && ready {
                Seen::Answer(())
            } else {
                Seen::NotYet(format!(
                    "{}; {}",
                    status
                        .conditions
                        .first()
                        .map_or_else(String::new, |c| format!("{}: {}", c.reason, c.message)),
                    describe(&self.patches()?)
                ))
            })
        })
    }

    /// Waits until a condition of the feed has this status and reason.
    ///
    /// # Errors
    /// When the time is over.
    pub fn wait_feed(
        &self,
        name: &str,
        status: &str,
        reason: &str,
        patience: Duration,
    ) -> anyhow::Result<String> {
        self.wait(&format!("PatchFeed {name} Ready={status} {reason}"), patience, || {
            let feed = self.feed(name)?;
            let conditions = feed.status.map(|status| status.conditions).unwrap_or_default();
            let Some(ready) = conditions.iter().find(|condition| condition.type_ == "Ready") else {
                return Ok(Seen::NotYet("no condition Ready".to_owned()));
            };
            Ok(if ready.status == status && ready.reason == reason {
                Seen::Answer(ready.message.clone())
            } else {
                Seen::NotYet(format!("Ready={} {}: {}", ready.status, ready.reason, ready.message))
            })
        })
    }
}

/// What a look brought.
pub enum Seen<T> {
    /// What was waited for.
    Answer(T),
    /// Something else, in words.
    NotYet(String),
}

/// Every node's state in one line.
pub fn describe(patches: &BTreeMap<String, NodePatch>) -> String {
    patches
        .iter()
        .map(|(name, patch)| match &patch.status {
            None => format!("{name}: no report"),
            Some(status) => format!(
                "{name}: {} level {} revision {}/{}{}{}",
                status.state,
                status.level,
                status.observed_revision,
                patch.spec.revision,
                status.reason.as_ref().map_or_else(String::new, |reason| format!(" {reason}")),
                status.message.as_ref().map_or_else(String::new, |message| format!(" ({message})")),
            ),
        })
        .collect::<Vec<_>>()
        .join("; ")
}
