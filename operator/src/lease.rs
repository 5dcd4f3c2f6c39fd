//! Which replica works. It saves work and Events; nothing rests on it: every write is bound to
//! what was read.

use std::time::Duration;

use kube::Client;
use kube_lease_manager::LeaseManagerBuilder;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::options::Options;

/// How long the lease holds without renewal, in seconds.
const DURATION: u64 = 15;
/// How long before its end it is renewed, in seconds.
const GRACE: u64 = 7;
/// How soon a lease that could not be read is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Holds the lease when it can, says so through `say`, and gives it back once `stop` turns true.
pub async fn hold(
    client: Client,
    options: &Options,
    metrics: &Metrics,
    say: watch::Sender<bool>,
    mut stop: watch::Receiver<bool>,
) {
    let manager = loop {
        let builder = LeaseManagerBuilder::new(client.clone(), &options.lease_name)
            .with_namespace(&options.namespace)
            .with_identity(&options.identity)
            .with_duration(DURATION)
            .with_grace(GRACE);
        match builder.build().await {
            Ok(manager) => break manager,
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "lease not readable"),
        }
        tokio::select! {
            _ = stop.changed() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    };
    let (mut held, task) = manager.watch().await;
    loop {
        let now = *held.borrow_and_update();
        metrics.leader(now);
        say.send_replace(now);
        tokio::select! {
            _ = stop.changed() => break,
            changed = held.changed() => {
                if changed.is_err() {
                    tracing::error!("lease task ended");
                    say.send_replace(false);
                    return;
                }
            }
        }
    }
    drop(held);
    if tokio::time::timeout(Duration::from_secs(3), task).await.is_err() {
        tracing::warn!("lease not given back; it runs out by itself");
    }
}
