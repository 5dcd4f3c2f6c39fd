//! The emergency stop: a ConfigMap in our namespace. While it is there nothing new is instructed,
//! and what is not applied yet is held. What it says is for people.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use futures::StreamExt;
use invivo_terms::EMERGENCY_STOP;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use crate::metrics::{Metrics, WatchFault};

const UNKNOWN: u8 = 0;
const OFF: u8 = 1;
const ON: u8 = 2;

/// Whether people stopped everything.
#[derive(Debug, Default)]
pub struct EmergencyStop(AtomicU8);

impl EmergencyStop {
    /// Whether it has been looked for at least once. Nothing is decided before.
    pub fn is_known(&self) -> bool {
        self.0.load(Ordering::Acquire) != UNKNOWN
    }

    /// Whether it is there.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Acquire) == ON
    }

    /// It was seen to be there, or not; says whether that is news.
    pub fn set(&self, on: bool) -> bool {
        let new = if on { ON } else { OFF };
        self.0.swap(new, Ordering::AcqRel) != new
    }
}

/// Follows the ConfigMap for ever; `tell` hears when it comes or goes.
pub async fn follow(
    client: Client,
    namespace: String,
    stop: Arc<EmergencyStop>,
    metrics: Arc<Metrics>,
    tell: impl Fn() + Send,
) {
    // The bare fact is enough: what it says never comes here.
    let api: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(client, &namespace);
    let only = watcher::Config::default().fields(&format!("metadata.name={EMERGENCY_STOP}"));
    let mut events = watcher(api, only).default_backoff().boxed();
    let mut listed = false;
    while let Some(event) = events.next().await {
        let on = match event {
            Ok(watcher::Event::Init) => {
                listed = false;
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed |= is_it(&object);
                continue;
            }
            Ok(watcher::Event::InitDone) => listed,
            Ok(watcher::Event::Apply(object)) if is_it(&object) => true,
            Ok(watcher::Event::Delete(object)) if is_it(&object) => false,
            Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_)) => continue,
            Err(error) => {
                metrics.watch_fault("ConfigMap", WatchFault::Interrupted);
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "watch of the emergency stop interrupted"
                );
                continue;
            }
        };
        if stop.set(on) {
            tracing::warn!(on, "emergency stop");
            tell();
        }
    }
}

fn is_it(object: &PartialObjectMeta<ConfigMap>) -> bool {
    object.metadata.name.as_deref() == Some(EMERGENCY_STOP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_off_before_it_was_looked_for() {
        let stop = EmergencyStop::default();
        assert!(!stop.is_known() && !stop.is_on());
        assert!(stop.set(false) && stop.is_known());
        assert!(stop.set(true) && stop.is_on());
        assert!(!stop.set(true), "no news");
    }
}
