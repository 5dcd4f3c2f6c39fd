//! The agent between an API server, a patch server and a loader that hold state but are not real.
//! The repository behind the patch server is real, signatures and all.

mod api;
mod diagram;
mod killed;
mod node;
#[path = "../../../fixtures/repository.rs"]
#[allow(dead_code, reason = "the loader's tests need more of it")]
mod repository;
mod withheld;

use std::time::{Duration, Instant};

use futures::channel::mpsc;
use invivo_api::{NodePatch, NodePatchStatus};
use invivo_terms::{Level, NodeState, Revision};
use jiff::{SignedDuration, Timestamp};
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::cluster::Cluster;
use crate::health;
use crate::loader::Loader;
use crate::metrics::Metrics;
use crate::uevents::{Uevents, announce, apart};
use api::FakeApi;
use killed::Reaper;
use node::FakeLoader;
use repository::{Author, Bundle};

type Events = mpsc::UnboundedSender<watcher::Result<Event<DeserializeGuard<NodePatch>>>>;

/// One node with its agent running.
struct Trial {
    author: Author,
    api: FakeApi,
    loader: FakeLoader,
    events: Events,
    agent: tokio::task::JoinHandle<()>,
    patch_server: String,
}

impl Trial {
    async fn new() -> Self {
        let author = Author::new("example", Timestamp::now() - SignedDuration::from_hours(1));
        let api = FakeApi::new(&author.root(), Reaper::default());
        let loader = FakeLoader::new(Reaper::default());
        let patch_server = api::serve(author.tree()).await;
        let (agent, events) = start(&api, &loader, &patch_server);
        Self { author, api, loader, events, agent, patch_server }
    }

    /// The agent's container starts again; the watch lists what there is.
    fn restart(&mut self) {
        self.agent.abort();
        (self.agent, self.events) = start(&self.api, &self.loader, &self.patch_server);
        self.list();
    }

    fn list(&self) {
        let object = self.api.object();
        for event in [Event::Init, Event::InitApply(DeserializeGuard(Ok(object))), Event::InitDone] {
            self.events.unbounded_send(Ok(event)).unwrap();
        }
    }

    /// The operator writes an instruction.
    fn instruct(&self, revision: i64, what: &Value) {
        let mut spec = json!({"revision": revision, "policy": "workers", "feed": "production"});
        for (key, value) in what.as_object().unwrap() {
            spec[key] = value.clone();
        }
        self.api.set_spec(spec);
        if revision == 1 {
            self.list();
        } else {
            self.events.unbounded_send(Ok(Event::Apply(DeserializeGuard(Ok(self.api.object()))))).unwrap();
        }
    }

    /// The status once it is as wanted; polled, with a deadline.
    async fn until(&self, wanted: impl Fn(&NodePatchStatus) -> bool) -> NodePatchStatus {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.api.object().status.filter(&wanted) {
                return status;
            }
            assert!(Instant::now() < deadline, "still {:?}", self.api.object().status);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn observed(&self, revision: i64) -> NodePatchStatus {
        self.until(|status| status.observed_revision == Revision(revision)).await
    }
}

fn start(api: &FakeApi, loader: &FakeLoader, patch_server: &str) -> (tokio::task::JoinHandle<()>, Events) {
    start_hearing(Uevents::default(), api, loader, patch_server)
}

fn start_hearing(
    uevents: Uevents,
    api: &FakeApi,
    loader: &FakeLoader,
    patch_server: &str,
) -> (tokio::task::JoinHandle<()>, Events) {
    let (events, stream) = mpsc::unbounded();
    let metrics = Metrics::register(&mut Registry::default());
    let cluster = Cluster::new(api.client(), "node1".to_owned());
    let loader = Loader::new(loader.socket());
    let trouble = health::Trouble::default();
    let agent = Agent::new(cluster, loader, patch_server.to_owned(), metrics, trouble).hearing(uevents);
    let running = tokio::spawn(async move {
        agent.wait_for_fence().await;
        Box::pin(agent.run(stream)).await;
    });
    (running, events)
}

fn apply(bundle: &Bundle) -> Value {
    json!({"apply": {
        "buildId": bundle.build_id, "level": bundle.level, "set": bundle.set, "digest": bundle.set_digest,
        "manifest": bundle.manifest_digest(), "mechanism": "Livepatch",
        "deadline": Timestamp::now() + SignedDuration::from_mins(10), "settleAfter": "30m",
    }})
}

#[tokio::test]
async fn the_first_status_names_the_kernel_in_one_write() {
    let trial = Trial::new().await;
    trial.instruct(1, &json!({"hold": {}}));
    let status = trial.observed(1).await;
    assert_eq!(status.kernel.unwrap().build_id, node::build_id());
    assert_eq!((status.state, status.level, trial.api.writes()), (NodeState::Idle, Level(0), 1));
}

#[tokio::test]
async fn a_patch_goes_to_the_loader_whole_and_takes_two_writes_applied_and_settled() {
    let trial = Trial::new().await;
    let bundle = trial.author.publish(&node::build_id(), 1, "2026-11-21.1");
    trial.loader.settles_in(1);
    trial.instruct(1, &json!({"hold": {}}));
    trial.observed(1).await;
    trial.instruct(2, &apply(&bundle));
    let status = trial.observed(2).await;
    assert_eq!(
        (status.state, status.level, status.set),
        (NodeState::Applied, Level(1), Some(bundle.set.clone()))
    );
    assert_eq!(trial.loader.applied(), [(bundle.proof.clone(), bundle.module.clone())]);
    trial.until(|status| status.state == NodeState::Settled).await;
    assert_eq!(trial.api.writes(), 3, "one at the first sight, two for the patch");
}

#[tokio::test]
async fn an_agent_that_starts_again_writes_and_does_nothing_when_nothing_is_new() {
    let mut trial = Trial::new().await;
    let bundle = trial.author.publish(&node::build_id(), 1, "2026-11-21.1");
    trial.instruct(1, &apply(&bundle));
    trial.observed(1).await;
    let (writes, asked) = (trial.api.writes(), trial.loader.asked());
    trial.restart();
    let deadline = Instant::now() + Duration::from_secs(10);
    while trial.loader.asked() == asked {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::task::yield_now().await;
    assert_eq!((trial.api.writes(), trial.loader.applied().len()), (writes, 1));
}

#[tokio::test]
async fn a_feed_that_the_policy_does_not_name_is_not_allowed() {
    let trial = Trial::new().await;
    let bundle = trial.author.publish(&node::build_id(), 1, "2026-11-21.1");
    trial.api.policy_takes_from("other");
    trial.instruct(1, &apply(&bundle));
    let status = trial.observed(1).await;
    assert_eq!((status.state, status.reason.as_deref()), (NodeState::Refused, Some("NotAllowed")));
    assert!(trial.loader.applied().is_empty());
}

#[tokio::test]
async fn a_mirror_that_lies_is_refused_by_name_and_never_reaches_the_loader() {
    let mut trial = Trial::new().await;
    let bundle = trial.author.publish(&node::build_id(), 1, "2026-11-21.1");
    for entry in std::fs::read_dir(trial.author.tree().join("bundles")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    trial.instruct(1, &apply(&bundle));
    let status = trial.observed(1).await;
    assert_eq!((status.state, status.reason.as_deref()), (NodeState::Refused, Some("ArbitrarySoftware")));
    assert!(trial.loader.applied().is_empty());
    let writes = trial.api.writes();
    trial.restart();
    let asked = trial.loader.asked();
    trial.until(|_| trial.loader.asked() > asked).await;
    assert_eq!(trial.api.writes(), writes, "what was refused once is not tried again");
}

/// The first of the OpenPGP packets in a file of signatures. Their lengths differ by a byte now and
/// then. The header is a tag and a length of one byte, or of two from 192 on.
fn first_packet(bytes: &[u8]) -> &[u8] {
    let end = match bytes[1] {
        short @ ..192 => 2 + usize::from(short),
        long => 3 + 192 + (usize::from(long - 192) << 8) + usize::from(bytes[2]),
    };
    &bytes[..end]
}

#[tokio::test]
async fn an_index_with_too_few_signatures_is_below_threshold() {
    let trial = Trial::new().await;
    let bundle = trial.author.publish(&node::build_id(), 1, "2026-11-21.1");
    for entry in std::fs::read_dir(trial.author.tree().join("index")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sig") {
            let bytes = std::fs::read(&path).unwrap();
            let first = first_packet(&bytes);
            assert!(first.len() < bytes.len(), "signed once only");
            std::fs::write(&path, first).unwrap();
        }
    }
    trial.instruct(1, &apply(&bundle));
    let status = trial.observed(1).await;
    assert_eq!((status.state, status.reason.as_deref()), (NodeState::Refused, Some("BelowThreshold")));
    assert!(trial.loader.applied().is_empty());
}

/// What the loader keeps.
fn kept(bundle: &Bundle) -> u64 {
    (bundle.module.len() + bundle.proof.len()) as u64
}

#[tokio::test]
async fn a_node_without_room_for_module_and_proof_is_told_so_before_the_bundle_is_fetched() {
    let trial = Trial::new().await;
    let bundle = trial.author.publish(&node::build_id(), 1, "2026-11-21.1");
    // Whoever asks for it is told that it is not there.
    std::fs::remove_dir_all(trial.author.tree().join("bundles")).unwrap();
    trial.loader.has_room(kept(&bundle) - 1);
    trial.instruct(1, &apply(&bundle));
    let status = trial.observed(1).await;
    assert_eq!((status.state, status.reason.as_deref()), (NodeState::Refused, Some("StorageFull")));
}

#[tokio::test]
async fn a_node_with_just_the_room_for_both_takes_them() {
    let trial = Trial::new().await;
    let bundle = trial.author.publish(&node::build_id(), 1, "2026-11-21.1");
    trial.loader.has_room(kept(&bundle));
    trial.instruct(1, &apply(&bundle));
    assert_eq!(trial.observed(1).await.state, NodeState::Applied);
    assert_eq!(trial.loader.reserved(), [kept(&bundle)]);
}

#[tokio::test]
async fn a_loader_that_does_not_know_how_to_take_room_ahead_is_passed_the_level_all_the_same() {
    let trial = Trial::new().await;
    let bundle = trial.author.publish(&node::build_id(), 1, "2026-11-21.1");
    trial.loader.is_of_before();
    trial.instruct(1, &apply(&bundle));
    assert_eq!(trial.observed(1).await.state, NodeState::Applied);
}

#[tokio::test]
async fn a_patch_server_that_comes_back_before_the_deadline_is_enough() {
    let trial = Trial::new().await;
    let bundle = trial.author.publish(&node::build_id(), 1, "2026-11-21.1");
    let (tree, away) = (trial.author.tree(), trial.author.tree().with_extension("away"));
    std::fs::rename(&tree, &away).unwrap();
    trial.instruct(1, &apply(&bundle));
    let deadline = Instant::now() + Duration::from_secs(10);
    while trial.api.reads() < 2 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    std::fs::rename(&away, &tree).unwrap();
    assert_eq!(trial.observed(1).await.state, NodeState::Applied);
}

#[tokio::test]
async fn a_patch_server_that_stays_away_until_the_deadline_is_unreachable() {
    let trial = Trial::new().await;
    let bundle = trial.author.publish(&node::build_id(), 1, "2026-11-21.1");
    std::fs::rename(trial.author.tree(), trial.author.tree().with_extension("away")).unwrap();
    let mut what = apply(&bundle);
    what["apply"]["deadline"] = json!(Timestamp::now() + SignedDuration::from_secs(5));
    trial.instruct(1, &what);
    let status = trial.observed(1).await;
    assert_eq!((status.state, status.reason.as_deref()), (NodeState::Failed, Some("Unreachable")));
}

#[tokio::test]
async fn the_kernel_that_says_otherwise_is_reported_without_an_instruction() {
    let mut trial = Trial::new().await;
    trial.instruct(1, &json!({"hold": {}}));
    trial.observed(1).await;
    trial.loader.change(|state| {
        state.boot_id = "boot-2".to_owned();
        (state.level, state.state) = (Level(1), NodeState::Settled);
    });
    trial.restart();
    let status = trial.until(|status| status.boot_id.as_deref() == Some("boot-2")).await;
    assert_eq!((status.state, status.level, trial.api.writes()), (NodeState::Settled, Level(1), 2));
}

#[tokio::test]
async fn a_roll_back_goes_to_the_loader() {
    let trial = Trial::new().await;
    let bundle = trial.author.publish(&node::build_id(), 1, "2026-11-21.1");
    trial.instruct(1, &apply(&bundle));
    trial.observed(1).await;
    trial.instruct(2, &json!({"rollBack": {"deadline": Timestamp::now() + SignedDuration::from_mins(10)}}));
    let status = trial.observed(2).await;
    assert_eq!((status.state, status.level), (NodeState::RolledBack, Level(0)));
}

#[tokio::test]
async fn an_agent_that_could_write_for_others_does_nothing() {
    let mut trial = Trial::new().await;
    trial.api.fence_is_down(true);
    trial.agent.abort();
    (trial.agent, trial.events) = start(&trial.api, &trial.loader, &trial.patch_server);
    trial.instruct(1, &json!({"hold": {}}));
    let deadline = Instant::now() + Duration::from_secs(10);
    while trial.api.fence_tries() < 2 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((trial.api.writes(), trial.loader.asked()), (0, 0));
    trial.api.fence_is_down(false);
    trial.observed(1).await;
}

#[tokio::test]
async fn modules_that_come_wake_the_loader_once_for_all_of_them() {
    let mut trial = Trial::new().await;
    trial.agent.abort();
    let Some((uevents, socket)) = apart() else { return };
    (trial.agent, trial.events) = start_hearing(uevents, &trial.api, &trial.loader, &trial.patch_server);
    trial.instruct(1, &json!({"hold": {}}));
    trial.observed(1).await;
    assert_eq!(trial.loader.looks(), 0);
    for name in ["exfat", "nf_tables", "pktgen"] {
        let message = format!("add@/module/{name}\0ACTION=add\0DEVPATH=/module/{name}\0SUBSYSTEM=module\0");
        announce(&socket, message.as_bytes());
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while trial.loader.looks() == 0 {
        assert!(Instant::now() < deadline, "the loader was not woken");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The next round asks as usual: nothing is left to look for.
    trial.instruct(2, &json!({"hold": {}}));
    trial.observed(2).await;
    assert_eq!((trial.loader.looks(), trial.api.writes()), (1, 2));
}
