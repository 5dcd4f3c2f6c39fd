//! Puts the parts together and takes them apart again.

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::events::{Recorder, Reporter};
use kube::{Client, Config};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};

use crate::admission::{self, Admission};
use crate::context::Context;
use crate::engine::{self, Leave};
use crate::event::{self, Failure};
use crate::gate::{self, GateSights, Keeper};
use crate::http::{self, Served};
use crate::lease;
use crate::lookout::Lookout;
use crate::metrics::Metrics;
use crate::observe::{Sights, Stores};
use crate::options::Options;
use crate::seen::{SeenNode, SeenPatch};
use crate::shown::Shown;
use crate::signal::{Signal, Signals};
use crate::stop;
use crate::store::Change;
use crate::watch::follow;
use crate::wave::Waves;

/// Why the operator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no way to the API server.
    #[error("find the API server")]
    FindApiServer(#[source] kube::config::InferConfigError),
    /// The client for the API server cannot be made.
    #[error("make a client for the API server")]
    MakeClient(#[source] kube::Error),
    /// The client for the patch server cannot be made.
    #[error("make a client for the patch server")]
    MakeHttpClient(#[source] reqwest::Error),
    /// The address to listen on cannot be had.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The signals that end the program cannot be caught.
    #[error("catch SIGTERM")]
    CatchSignal(#[source] std::io::Error),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
///
/// If it cannot start; once started it goes on whatever happens.
pub async fn run(options: Options) -> Result<(), StartError> {
    // Installed once for every TLS client in the process; a second time changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::infer().await.map_err(StartError::FindApiServer)?;
    // Watches last longer than any other request; dead connections are found by the watch itself.
    config.connect_timeout = Some(Duration::from_secs(10));
    config.write_timeout = Some(Duration::from_secs(30));
    let client = Client::try_from(config).map_err(StartError::MakeClient)?;
    // States come by plain HTTP inside the cluster; without TLS no file of roots is needed either.
    let http = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .build()
        .map_err(StartError::MakeHttpClient)?;
    let listener = tokio::net::TcpListener::bind(options.listen)
        .await
        .map_err(|source| StartError::Listen { address: options.listen, source })?;
    let (stopping, stop) = watch::channel(false);
    let ending = ending().map_err(StartError::CatchSignal)?;

    let metrics = Arc::new(Metrics::default());
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let reporter =
        Reporter { controller: "invivo-operator".to_owned(), instance: Some(options.identity.clone()) };
    let context = Arc::new(Context {
        client: client.clone(),
        stores: Arc::new(Stores { fleet_limit: options.fleet_max_in_flight, ..Stores::default() }),
        sights: Arc::new(Sights::default()),
        gates: Arc::new(GateSights::default()),
        waves: Waves::default(),
        shown: Shown::default(),
        fleet: tokio::sync::Mutex::default(),
        metrics: Arc::clone(&metrics),
        recording: tokio::sync::Mutex::default(),
        recorder: Recorder::new(client.clone(), reporter.clone()),
        reporter,
    });
    let signals = Arc::new(Signals::default());
    let (failures_in, failures) = mpsc::channel(1024);
    start_watches(&context, &signals, failures_in);
    watch_stop(&context, &signals, &options.namespace);

    let unknown = Admission::NotInForce("the admission policies have not been tried yet".to_owned());
    let (say_admission, admission) = watch::channel(unknown);
    let (say_leader, leader) = watch::channel(false);
    let leave = Leave { leader, admission };
    tokio::spawn(admission::keep_checking(
        client.clone(),
        Arc::clone(&context.stores),
        options.admission_policies.clone(),
        Arc::clone(&metrics),
        say_admission,
    ));
    let lookout = Lookout {
        base: options.patch_server.trim_end_matches('/').to_owned(),
        http,
        stores: Arc::clone(&context.stores),
        sights: Arc::clone(&context.sights),
        metrics: Arc::clone(&metrics),
        signals: Arc::clone(&signals),
    };
    tokio::spawn(Arc::new(lookout).run());
    let keeper = Keeper {
        client: client.clone(),
        namespace: options.namespace.clone(),
        patience: gate::ANSWER_WITHIN,
        sights: Arc::clone(&context.gates),
        signals: Arc::clone(&signals),
    };
    tokio::spawn(Arc::new(keeper).run(leave.clone()));
    let answers =
        Served { context: Arc::clone(&context), registry: Arc::new(registry), leave: leave.clone() };
    let mut stop_http = stop.clone();
    let server = axum::serve(listener, http::router(answers)).with_graceful_shutdown(async move {
        let _ = stop_http.changed().await;
    });
    tracing::info!(listen = %options.listen, patch_server = options.patch_server, "started");

    // The lease goes last: whoever takes it finds the work ended.
    let (release, released) = watch::channel(false);
    let engine = async {
        engine::run(context, signals, leave, failures, stop).await;
        release.send_replace(true);
    };
    let holding = lease::hold(client, &options, &metrics, say_leader, released);
    let waiting = async {
        ending.await;
        tracing::info!("stopping");
        let _ = stopping.send(true);
        // Connections that linger do not hold the process back.
        tokio::time::sleep(Duration::from_secs(8)).await;
    };
    tokio::select! {
        _ = async { tokio::join!(engine, holding, server.into_future()) } => {}
        () = waiting => {}
    }
    Ok(())
}

fn start_watches(context: &Context, signals: &Arc<Signals>, failures: mpsc::Sender<Failure>) {
    /// Follows one kind and tells of its changes by name.
    macro_rules! watch {
        ($store:ident, $signal:ident) => {{
            let signals = Arc::clone(signals);
            let (store, metrics) = (Arc::clone(&context.stores.$store), Arc::clone(&context.metrics));
            tokio::spawn(follow(context.client.clone(), store, metrics, move |change| {
                signals.tell(Signal::$signal(change.name.clone()));
            }));
        }};
    }
    watch!(feeds, Feed);
    watch!(policies, Policy);
    watch!(sets, Set);
    watch_nodes(context, signals);
    let signals = Arc::clone(signals);
    let (store, metrics) = (Arc::clone(&context.stores.patches), Arc::clone(&context.metrics));
    let stores = Arc::clone(&context.stores);
    tokio::spawn(follow(
        context.client.clone(),
        store,
        Arc::clone(&metrics),
        move |change: &Change<SeenPatch>| {
            if let (Some(before), None) = (&change.before, &change.after) {
                stores.departed.add(Arc::clone(before));
            }
            signals.tell(Signal::Patch(change.name.clone()));
            let Some(after) = stores.patches.get(&change.name) else { return };
            let Some(failure) = event::of_node(change.before.as_deref(), &after) else { return };
            if let Some(status) = &after.value.status {
                metrics.node_failed(status.state, status.reason.as_deref());
            }
            if failures.try_send(failure).is_err() {
                tracing::warn!(node = change.name, "event lost: too many at once");
            }
        },
    ));
}

/// Follows the nodes. What vanishes unsettled is taken down before its NodePatch goes with it.
fn watch_nodes(context: &Context, signals: &Arc<Signals>) {
    let signals = Arc::clone(signals);
    let stores = Arc::clone(&context.stores);
    let (store, metrics) = (Arc::clone(&stores.nodes), Arc::clone(&context.metrics));
    tokio::spawn(follow(context.client.clone(), store, metrics, move |change: &Change<SeenNode>| {
        if let (Some(before), None) = (&change.before, &change.after)
            && let Some(patch) = stores.patches.get(&change.name)
            && patch.value.owner.as_deref() == Some(before.uid.as_str())
            && let Some(policy) =
                stores.losses.gone(&change.name, &patch.value, |policy| stores.policies.get(policy).is_some())
        {
            tracing::warn!(node = change.name, policy, "vanished before it had settled");
            signals.tell(Signal::Policy(policy));
        }
        signals.tell(Signal::Node(change.name.clone()));
    }));
}

/// Follows the emergency stop; every policy looks again when it comes or goes.
fn watch_stop(context: &Context, signals: &Arc<Signals>, namespace: &str) {
    let (signals, stores) = (Arc::clone(signals), Arc::clone(&context.stores));
    let (client, metrics) = (context.client.clone(), Arc::clone(&context.metrics));
    let (namespace, stop) = (namespace.to_owned(), Arc::clone(&stores.stop));
    tokio::spawn(stop::follow(client, namespace, stop, metrics, move || {
        for policy in stores.policies.all() {
            signals.tell(Signal::Policy(policy.name));
        }
    }));
}

/// Ends with SIGTERM or SIGINT.
fn ending() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
