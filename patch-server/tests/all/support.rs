//! A repository made for the test, a static server for it, and a patch server in front.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use invivo_feed::document::Channel;
use invivo_feed::publish::{Addition, Desk, SmallHouse};
use invivo_feed::sample;
use invivo_patch_server::{AttemptState, Disk, Library, Metrics, Mirroring, Supervisor, WantedFeed, router};
use invivo_terms::{Digest, Level, RepositoryName, SetName};
use invivo_transport::Options;
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// Attempts come this often in tests.
pub(crate) const POLL: Duration = Duration::from_millis(100);
/// Nothing may take longer than this.
const DEADLINE: Duration = Duration::from_mins(1);

/// An author with a desk and all the keys.
pub(crate) struct Author {
    pub(crate) keys: SmallHouse,
    pub(crate) desk: Desk,
    pub(crate) name: RepositoryName,
    folder: tempfile::TempDir,
}

impl Author {
    pub(crate) fn new(name: &str) -> Self {
        let name: RepositoryName = name.parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let keys = SmallHouse::generate(&name, now).unwrap();
        let desk = keys.found(&folder.path().join("desk"), &name, now).unwrap();
        Self { keys, desk, name, folder }
    }

    /// Publishes a set whose only bundle brings this level to build `a`.
    pub(crate) fn publish(&self, level: u32) -> Vec<u8> {
        let set: SetName = format!("2026-11-21.{level}").parse().unwrap();
        let kernel = sample::kernel('a').unwrap();
        let sample = sample::sample(&self.name, &kernel, &set, Level(level)).unwrap();
        // The patch server does not unpack bundles: their digest is what it knows them by.
        let bundle: Vec<u8> = (0..600_000u32).map(|n| n.wrapping_mul(31 + level).to_le_bytes()[1]).collect();
        let addition = Addition {
            channel: Channel::Stable,
            summary: "",
            manifest: &sample.manifest_bytes,
            bundle: &bundle,
        };
        self.keys.publish(&self.desk, &[addition], Timestamp::now()).unwrap();
        bundle
    }

    pub(crate) fn root(&self) -> Digest {
        self.desk.root().unwrap()
    }

    /// A copy of what is published, to be done harm to.
    pub(crate) fn copy(&self, name: &str) -> PathBuf {
        let to = self.folder.path().join(name);
        copy(&self.desk.tree(), &to);
        to
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// The only file of a folder whose name ends so.
pub(crate) fn only(folder: &Path, suffix: &str) -> PathBuf {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.to_str().unwrap().ends_with(suffix))
        .collect();
    assert_eq!(found.len(), 1, "{} {suffix}", folder.display());
    found.remove(0)
}

/// A static server of plain files, whose folder can be exchanged and which can go silent.
#[derive(Clone)]
pub(crate) struct Static {
    pub(crate) url: String,
    folder: Arc<Mutex<Option<PathBuf>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Static {
    pub(crate) async fn new(folder: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = Self { url, folder: Arc::new(Mutex::new(Some(folder))), requests: Arc::default() };
        let app = Router::new().fallback(file).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        server
    }

    pub(crate) fn show(&self, folder: Option<PathBuf>) {
        *self.folder.lock().unwrap() = folder;
    }

    /// How often a path that contains `part` was asked for.
    pub(crate) fn asked(&self, part: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|path| path.contains(part)).count()
    }
}

async fn file(State(server): State<Static>, request: Request) -> impl IntoResponse {
    let path = request.uri().path().to_owned();
    server.requests.lock().unwrap().push(path.clone());
    let Some(folder) = server.folder.lock().unwrap().clone() else {
        return (StatusCode::BAD_GATEWAY, Vec::new());
    };
    match std::fs::read(folder.join(path.trim_start_matches('/'))) {
        Ok(bytes) => (StatusCode::OK, bytes),
        Err(_) => (StatusCode::NOT_FOUND, Vec::new()),
    }
}

/// A patch server with its own disk.
pub(crate) struct Mirror {
    pub(crate) url: String,
    pub(crate) library: Library,
    pub(crate) supervisor: Supervisor,
    pub(crate) registry: Registry,
    server: AbortHandle,
}

impl Mirror {
    pub(crate) async fn new(data: &Path) -> Self {
        Self::with(data, 2, 1 << 30).await
    }

    pub(crate) async fn with(data: &Path, max_feeds: usize, max_feed_bytes: u64) -> Self {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let library = Library::default();
        let options = Options { minimum_rate: 1024, deadline: Duration::from_secs(10), extra_ca: None };
        let mirroring = Mirroring {
            disk: Disk::new(data),
            library: library.clone(),
            metrics: metrics.clone(),
            options,
            max_feed_bytes,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = router(library.clone(), metrics);
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }).abort_handle();
        Self { url, library, supervisor: Supervisor::new(mirroring, max_feeds), registry, server }
    }

    pub(crate) fn follow(&mut self, feed: &str, url: &str, root: &Digest) {
        self.want(feed, url, root, false);
    }

    /// A person suspended the feed.
    pub(crate) fn suspend(&mut self, feed: &str, url: &str, root: &Digest) {
        self.want(feed, url, root, true);
    }

    fn want(&mut self, feed: &str, url: &str, root: &Digest, suspended: bool) {
        self.supervisor.apply(WantedFeed {
            name: feed.parse().unwrap(),
            url: url.to_owned(),
            root: root.clone(),
            poll_interval: POLL,
            suspended,
        });
    }

    /// Waits until an attempt ends for this reason.
    pub(crate) async fn until(&self, feed: &str, reason: &str) -> AttemptState {
        self.wait(feed, |state| state.reason.as_str() == reason, reason).await
    }

    /// Waits until an attempt begun from now on has ended.
    pub(crate) async fn next(&self, feed: &str) -> AttemptState {
        let from = Timestamp::now();
        self.wait(feed, |state| state.attempt > from, "any end").await
    }

    async fn wait(&self, feed: &str, good: impl Fn(&AttemptState) -> bool, what: &str) -> AttemptState {
        let start = Instant::now();
        loop {
            let state = self.library.state(feed);
            if let Some(state) = state.as_ref().filter(|state| good(state)) {
                return state.clone();
            }
            assert!(start.elapsed() < DEADLINE, "{feed}: {what} was awaited, seen is {state:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn file(&self, feed: &str, path: &str) -> String {
        format!("{}/feeds/{feed}/{path}", self.url)
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A client without opinions.
pub(crate) fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().build().unwrap()
}

pub(crate) async fn get(url: &str) -> (u16, Vec<u8>) {
    let answer = client().get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
}
