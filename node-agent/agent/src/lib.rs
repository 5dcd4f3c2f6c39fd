//! The unprivileged half of a node: watches its own NodePatch, checks that policy and feed allow
//! what it says, fetches, verifies, passes the whole proof to the loader, reports.
//!
//! The shape is `observe -> step::next (pure) -> carry out one step -> report`.

pub mod agent;
pub mod alarm;
pub mod allow;
pub mod cluster;
pub mod fetch;
#[cfg(test)]
mod fixtures;
pub mod health;
pub mod instruction;
pub mod loader;
pub mod metrics;
pub mod pace;
pub mod status;
pub mod step;
#[cfg(test)]
mod tests;
pub mod uevents;
pub mod verdict;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config};
use prometheus_client::registry::Registry;

use crate::agent::Agent;
use crate::cluster::Cluster;
use crate::loader::Loader;
use crate::metrics::Metrics;
use crate::uevents::Uevents;

/// How an agent is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the loader listens.
    pub socket: PathBuf,
    /// The node's name.
    pub node: String,
    /// Where the patch server is: scheme, host, port.
    pub patch_server: String,
    /// Where health and metrics are served.
    pub listen: SocketAddr,
}

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not in a pod.
    #[error("reading the pod's account")]
    Account(#[from] kube::config::InClusterError),
    /// No client can be made of it.
    #[error("making a client for the API server")]
    Client(#[from] kube::Error),
    /// The address for health and metrics cannot be had.
    #[error("serving health and metrics")]
    Health(#[from] std::io::Error),
}

/// Runs until killed, which is safe at any moment.
///
/// # Errors
///
/// See [`Error`].
pub async fn run(settings: Settings) -> Result<(), Error> {
    let mut config = Config::incluster()?;
    config.connect_timeout = Some(Duration::from_secs(10));
    let client = Client::try_from(config)?;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let trouble = health::Trouble::default();
    let served = health::serve(settings.listen, trouble.clone(), registry);
    tokio::select! {
        ended = served => Ok(ended?),
        () = work(settings, client, metrics, trouble) => Ok(()),
        () = terminated() => Ok(()),
    }
}

async fn work(settings: Settings, client: Client, metrics: Metrics, trouble: health::Trouble) {
    let cluster = Cluster::new(client, settings.node);
    let loader = Loader::new(settings.socket);
    let agent = Agent::new(cluster.clone(), loader, settings.patch_server, metrics, trouble)
        .hearing(Uevents::listen());
    agent.wait_for_fence().await;
    let only_ours = watcher::Config::default().fields(&format!("metadata.name={}", cluster.node()));
    let events = watcher(cluster.node_patches(), only_ours).default_backoff();
    Box::pin(agent.run(events.boxed())).await;
}

/// A process that is the first of its container hears only the signals that it asks for.
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(error) => {
            tracing::warn!(error = %error, "signal not handled");
            std::future::pending::<()>().await;
        }
    }
}
