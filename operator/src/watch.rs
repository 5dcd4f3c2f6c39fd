//! Follows one kind and keeps its store.

use std::sync::Arc;

use futures::StreamExt;
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};

use crate::metrics::{Metrics, WatchFault};
use crate::seen::Seen;
use crate::store::{Change, Entry, Store};

/// Follows the kind for ever. `tell` hears of every change that counts, after it is stored.
///
/// An object that does not deserialise is left as it was last seen: absence is never an
/// instruction, and neither is damage.
pub async fn follow<T: Seen>(
    client: Client,
    store: Arc<Store<T>>,
    metrics: Arc<Metrics>,
    tell: impl Fn(&Change<T>) + Send,
) {
    let kind = T::Object::kind(&()).into_owned();
    let api: Api<DeserializeGuard<T::Object>> = Api::all(client);
    let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => store.list_begins(),
            Ok(watcher::Event::InitApply(object)) => {
                if let Some(object) = readable(&kind, object, &metrics) {
                    store.listed(Entry::of(object));
                }
            }
            Ok(watcher::Event::InitDone) => {
                let changes = store.list_ends();
                tracing::info!(kind, objects = store.len(), "store complete");
                changes.iter().for_each(&tell);
            }
            Ok(watcher::Event::Apply(object)) => {
                if let Some(object) = readable(&kind, object, &metrics) {
                    store.watched(Entry::of(object)).iter().for_each(&tell);
                }
            }
            Ok(watcher::Event::Delete(object)) => {
                store.deleted(&object.name_any(), &object.uid().unwrap_or_default()).iter().for_each(&tell);
            }
            Err(error) => {
                metrics.watch_fault(&kind, WatchFault::Interrupted);
                tracing::warn!(kind, error = &error as &dyn std::error::Error, "watch interrupted");
            }
        }
    }
}

fn readable<K: Resource<DynamicType = ()>>(
    kind: &str,
    object: DeserializeGuard<K>,
    metrics: &Metrics,
) -> Option<K> {
    match object.0 {
        Ok(object) => Some(object),
        Err(invalid) => {
            metrics.watch_fault(kind, WatchFault::Unreadable);
            let name = invalid.metadata.name.as_deref().unwrap_or_default();
            tracing::error!(kind, name, error = invalid.error, "object skipped: it does not deserialise");
            None
        }
    }
}
