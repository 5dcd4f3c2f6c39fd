//! The agents of nodes that are not there: they hear each instruction and write what a real agent
//! writes about it, with the words and the identity that a real one has.
//!
//! Unlike real agents they share one watch, and no more than [`AT_ONCE`] of them write at once.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use http::Request;
use invivo_api::{LastSwitch, NodeKernel, NodePatch, NodePatchSpec, NodePatchStatus, Signing};
use invivo_terms::{Level, Mechanism, NodeState, Revision, SetName, effective_version};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::nodes::Node;
use super::stand::{NAMESPACE, Stand};

/// So many status writes of all agents are under way at once.
pub(super) const AT_ONCE: usize = 64;
/// How often a write is tried.
const TRIES: u32 = 5;

/// How fast nodes do what they are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// From the instruction to Applied.
    pub(super) apply: Duration,
    /// The longest from Applied to Settled, whatever the instruction says.
    pub(super) settle: Duration,
}

/// What a node makes of an instruction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Manner {
    /// It does what it is told.
    #[default]
    Obeys,
    /// It reports that the kernel brought the node down and named the patch.
    Convicts,
    /// It reports that the kernel refused the patch.
    Refuses,
    /// It hears nothing and says nothing.
    Dead,
}

/// All agents, and the runtime that they live on.
pub(super) struct Swarm {
    shared: Arc<Shared>,
    runtime: Runtime,
}

struct Shared {
    client: Client,
    agents: Mutex<BTreeMap<String, Agent>>,
    pace: Mutex<Pace>,
    writes: Semaphore,
    trouble: Mutex<Option<String>>,
}

/// What one agent knows.
struct Agent {
    node: Node,
    manner: Manner,
    heard: Revision,
    level: Level,
    set: Option<SetName>,
}

impl Swarm {
    /// Nobody yet.
    ///
    /// # Errors
    /// When the runtime does not start.
    pub(super) fn begin(stand: &Stand) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("start the agents' runtime")?;
        let client = runtime.block_on(stand.client())?;
        let shared = Arc::new(Shared {
            client,
            agents: Mutex::default(),
            pace: Mutex::new(Pace { apply: Duration::ZERO, settle: Duration::ZERO }),
            writes: Semaphore::new(AT_ONCE),
            trouble: Mutex::default(),
        });
        runtime.spawn(follow(Arc::clone(&shared)));
        Ok(Self { shared, runtime })
    }

    /// The administrator's client on the agents' runtime.
    pub(super) fn client(&self) -> Client {
        self.shared.client.clone()
    }

    /// Runs a future to its end on the agents' runtime.
    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// These nodes have an agent each. They must come before anything is said to them.
    pub(super) fn join(&self, nodes: &[Node]) {
        let agents = nodes.iter().map(|node| {
            let agent = Agent {
                node: node.clone(),
                manner: Manner::Obeys,
                heard: Revision(0),
                level: Level::UNPATCHED,
                set: None,
            };
            (node.name.clone(), agent)
        });
        lock(&self.shared.agents).extend(agents);
    }

    /// One node has an agent from now on, which hears what was said to it before.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub(super) fn join_late(&self, node: &Node) -> anyhow::Result<()> {
        self.join(std::slice::from_ref(node));
        let patches: Api<NodePatch> = Api::all(self.client());
        let said = self.block_on(patches.get_opt(&node.name)).context("look for what was said before")?;
        // What it says from here on is heard by the watch.
        if let Some(patch) = said {
            let _runtime = self.runtime.enter();
            hear(&self.shared, patch);
        }
        Ok(())
    }

    /// No node has one any more.
    pub(super) fn leave(&self) {
        lock(&self.shared.agents).clear();
    }

    /// How fast from the next instruction on.
    pub(super) fn set_pace(&self, pace: Pace) {
        *lock(&self.shared.pace) = pace;
    }

    /// What this node makes of the next instruction.
    pub(super) fn set_manner(&self, name: &str, manner: Manner) {
        if let Some(agent) = lock(&self.shared.agents).get_mut(name) {
            agent.manner = manner;
        }
    }

    /// # Errors
    /// The first write of an agent that the API server did not take.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        match lock(&self.shared.trouble).clone() {
            None => Ok(()),
            Some(trouble) => bail!(trouble),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn follow(shared: Arc<Shared>) {
    let patches: Api<NodePatch> = Api::all(shared.client.clone());
    let mut events = pin!(watcher(patches, watcher::Config::default()).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(patch) | Event::InitApply(patch)) => hear(&shared, patch),
            Ok(Event::Init | Event::InitDone | Event::Delete(_)) => {}
            Err(error) => tracing::warn!(%error, "agents' watch"),
        }
    }
}

/// An instruction that the node's agent has not heard yet is carried out.
fn hear(shared: &Arc<Shared>, patch: NodePatch) {
    let (name, uid) = (patch.name_any(), patch.uid().unwrap_or_default());
    let mut agents = lock(&shared.agents);
    let Some(agent) = agents.get_mut(&name) else { return };
    let owned = patch.owner_references().iter().any(|owner| owner.uid == agent.node.uid);
    if owned && patch.spec.revision > agent.heard {
        agent.heard = patch.spec.revision;
        tokio::spawn(carry_out(Arc::clone(shared), name, uid, patch.spec));
    }
}

async fn carry_out(shared: Arc<Shared>, name: String, uid: String, spec: NodePatchSpec) {
    let pace = *lock(&shared.pace);
    let revision = spec.revision;
    let manner = lock(&shared.agents).get(&name).map(|agent| agent.manner).unwrap_or_default();
    if manner == Manner::Dead {
        return;
    }
    let tell = async |state| tell(&shared, &name, &uid, revision, state).await;
    match (&spec.apply, &spec.roll_back) {
        (Some(apply), _) => {
            tokio::time::sleep(pace.apply).await;
            match manner {
                Manner::Convicts => return tell(NodeState::Convicted).await,
                Manner::Refuses => return tell(NodeState::Failed).await,
                Manner::Obeys | Manner::Dead => {}
            }
            move_to(&shared, &name, apply.level, Some(apply.set.clone()));
            tell(NodeState::Applied).await;
            tokio::time::sleep(apply.settle_after.get().min(pace.settle)).await;
            tell(NodeState::Settled).await;
        }
        (None, Some(_)) => {
            tokio::time::sleep(pace.apply).await;
            move_to(&shared, &name, Level::UNPATCHED, None);
            tell(NodeState::RolledBack).await;
        }
        (None, None) => tell(NodeState::Idle).await,
    }
}

fn move_to(shared: &Shared, name: &str, level: Level, set: Option<SetName>) {
    if let Some(agent) = lock(&shared.agents).get_mut(name) {
        (agent.level, agent.set) = (level, set);
    }
}

/// Writes how the node stands, unless it was told something else by now.
async fn tell(shared: &Shared, name: &str, uid: &str, revision: Revision, state: NodeState) {
    for attempt in 1..=TRIES {
        let Ok(_turn) = shared.writes.acquire().await else { return };
        let (node, status) = {
            let agents = lock(&shared.agents);
            let Some(agent) = agents.get(name).filter(|agent| agent.heard == revision) else { return };
            let status = status(&agent.node, revision, agent.level, agent.set.clone(), state);
            (agent.node.clone(), status)
        };
        match report(&shared.client, &node, uid, &status).await {
            Ok(()) => return,
            Err(error) if attempt == TRIES => {
                // A fleet that is being removed takes its NodePatches with it.
                if lock(&shared.agents).contains_key(name) {
                    lock(&shared.trouble).get_or_insert(format!("the agent of {name}: {error}"));
                }
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The word that a real agent gives with a state in which it did not do as told.
fn reason(state: NodeState) -> Option<(String, String)> {
    let words = match state {
        NodeState::Convicted => ("PanicNamesPatch", "a record of a panic names the patch"),
        NodeState::Failed => ("LoadRefused", "the kernel refused the patch: EINVAL"),
        NodeState::Idle
        | NodeState::Working
        | NodeState::Applied
        | NodeState::Settled
        | NodeState::RolledBack
        | NodeState::Blocked
        | NodeState::Refused
        | NodeState::Suspected => return None,
    };
    Some((words.0.to_owned(), words.1.to_owned()))
}

/// The status that a real agent writes.
pub(super) fn status(
    node: &Node,
    observed: Revision,
    level: Level,
    set: Option<SetName>,
    state: NodeState,
) -> NodePatchStatus {
    let patched = level > Level::UNPATCHED;
    let (reason, message) = reason(state).unzip();
    NodePatchStatus {
        reason,
        message,
        observed_revision: observed,
        boot_id: Some(node.boot.clone()),
        kernel: Some(NodeKernel {
            build_id: node.build.clone(),
            release: node.release.clone(),
            version: Some(node.version.clone()),
            supports: vec![Mechanism::Livepatch],
            signing: Signing::Off,
        }),
        level,
        set,
        effective: Some(effective_version(&node.version, level, None)),
        mechanism: patched.then_some(Mechanism::Livepatch),
        state,
        since: Some(Time(Timestamp::now())),
        last_switch: patched.then_some(LastSwitch { millis: 40 }),
        ..NodePatchStatus::default()
    }
}

/// Writes a status as the agent of this node: the administrator in its name, with its token's claims.
///
/// # Errors
/// Whatever the API server says.
pub(super) async fn report(
    client: &Client,
    node: &Node,
    uid: &str,
    status: &NodePatchStatus,
) -> anyhow::Result<()> {
    let body = json!({
        "apiVersion": "invivo.dev/v1alpha1", "kind": "NodePatch",
        "metadata": {"name": node.name, "uid": uid}, "status": status,
    });
    let path = format!(
        "/apis/invivo.dev/v1alpha1/nodepatches/{}/status?fieldManager=invivo-agent&force=true",
        node.name
    );
    let mut request = Request::patch(path)
        .header("Content-Type", "application/apply-patch+yaml")
        .header("Impersonate-User", format!("system:serviceaccount:{NAMESPACE}:invivo-agent"));
    let groups = ["system:authenticated", "system:serviceaccounts"].map(str::to_owned);
    for group in groups.into_iter().chain([format!("system:serviceaccounts:{NAMESPACE}")]) {
        request = request.header("Impersonate-Group", group);
    }
    for (claim, value) in
        [("node-name", node.name.as_str()), ("node-uid", &node.uid), ("pod-name", "invivo-agent-abcde")]
    {
        let name = format!("Impersonate-Extra-authentication.kubernetes.io%2f{claim}");
        request = request.header(name, value);
    }
    client.request_text(request.body(serde_json::to_vec(&body)?)?).await?;
    Ok(())
}
