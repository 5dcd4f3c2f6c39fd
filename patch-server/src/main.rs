//! `invivo-patch-server`: mirrors the repositories of a cluster's feeds and serves them in it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use invivo_patch_server::{Disk, Library, Metrics, Mirroring, Supervisor, health, router, watch_feeds};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// Mirrors the repository of each PatchFeed after verifying it, and serves it in the cluster.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where to serve the feeds.
    #[arg(long, env = "INVIVO_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Where to serve /metrics, /livez and /readyz.
    #[arg(long, env = "INVIVO_METRICS", default_value = "0.0.0.0:9464")]
    metrics: SocketAddr,
    /// Folder for the mirrors.
    #[arg(long, env = "INVIVO_DATA", default_value = "/data")]
    data: PathBuf,
    /// PEM file with certificates to trust besides the usual ones when fetching over https.
    #[arg(long, env = "INVIVO_EXTRA_CA")]
    extra_ca: Option<PathBuf>,
    /// How many feeds are mirrored at most.
    #[arg(long, env = "INVIVO_MAX_FEEDS", default_value_t = 64)]
    max_feeds: usize,
    /// Bytes that one feed's kernel documents and bundles may take.
    #[arg(long, env = "INVIVO_MAX_FEED_BYTES", default_value_t = 4 << 30)]
    max_feed_bytes: u64,
    /// Bytes per second below which a repository counts as stalled.
    #[arg(long, env = "INVIVO_MINIMUM_RATE", default_value_t = 1024)]
    minimum_rate: u64,
    /// Seconds that one file may take.
    #[arg(long, env = "INVIVO_FETCH_DEADLINE_SECONDS", default_value_t = 300)]
    fetch_deadline_seconds: u64,
    /// What to log, as tracing-subscriber's EnvFilter reads it.
    #[arg(long, env = "INVIVO_LOG", default_value = "info")]
    log: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_new(&arguments.log).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).init();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %error, "patch server ends");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let extra_ca = match &arguments.extra_ca {
        Some(path) => {
            Some(std::fs::read(path).map_err(|e| format!("read --extra-ca {}: {e}", path.display()))?)
        }
        None => None,
    };
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let library = Library::default();
    let mirroring = Mirroring {
        disk: Disk::new(&arguments.data),
        library: library.clone(),
        metrics: metrics.clone(),
        options: invivo_transport::Options {
            minimum_rate: arguments.minimum_rate,
            deadline: Duration::from_secs(arguments.fetch_deadline_seconds),
            extra_ca,
        },
        max_feed_bytes: arguments.max_feed_bytes,
    };
    let (ready, is_ready) = watch::channel(false);
    let listener = listen(arguments.listen).await?;
    let health_listener = listen(arguments.metrics).await?;
    let client = kube::Client::try_default().await.map_err(|e| format!("no way to the API server: {e}"))?;
    tracing::info!(listen = %arguments.listen, metrics = %arguments.metrics, data = %arguments.data.display(), "serving");

    let feeds = watch_feeds(client, Supervisor::new(mirroring, arguments.max_feeds), ready);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        served = axum::serve(listener, router(library, metrics)).into_future() => served?,
        served = axum::serve(health_listener, health(registry, is_ready)).into_future() => served?,
        () = feeds => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|e| format!("listen on {address}: {e}"))
}
