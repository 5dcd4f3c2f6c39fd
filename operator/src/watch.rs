//! Follows one kind and keeps its store.

use std::sync::Arc;

use futures::StreamExt;
use kube::core::DeserializeGuard;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};

use crate::metrics::{Metrics, WatchFault};
use crate::seen::Seen;
use crate::store::{Change, Entry, Store, Told, Unreadable};

/// Follows the kind for ever. `tell` hears of every change that counts, after it is stored.
///
/// An object that does not deserialise is left as it was last seen, and named as one that cannot be
/// read: absence is never an instruction, and neither is damage.
pub async fn follow<T: Seen>(
    client: Client,
    store: Arc<Store<T>>,
    metrics: Arc<Metrics>,
    tell: impl Fn(&Change<T>) + Send,
) {
    let api: Api<DeserializeGuard<T::Object>> = Api::all(client);
    let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                let ends = matches!(event, watcher::Event::InitDone);
                for change in &heed(&store, event) {
                    if let Some(unreadable) = store.unreadable_of(&change.name) {
                        metrics.watch_fault(T::KIND, WatchFault::Unreadable);
                        tracing::error!(
                            kind = T::KIND,
                            name = change.name,
                            error = unreadable.why,
                            "cannot be read"
                        );
                    }
                    tell(change);
                }
                metrics.unreadable(T::KIND, store.unreadable().len());
                if ends {
                    tracing::info!(kind = T::KIND, objects = store.len(), "store complete");
                }
            }
            Err(error) => {
                metrics.watch_fault(T::KIND, WatchFault::Interrupted);
                tracing::warn!(kind = T::KIND, error = &error as &dyn std::error::Error, "watch interrupted");
            }
        }
    }
}

/// Stores what the watch tells; what has changed by that.
pub fn heed<T: Seen>(store: &Store<T>, event: watcher::Event<DeserializeGuard<T::Object>>) -> Vec<Change<T>> {
    match event {
        watcher::Event::Init => store.list_begins(),
        watcher::Event::InitApply(object) => store.listed(told(object)),
        watcher::Event::InitDone => return store.list_ends(),
        watcher::Event::Apply(object) => return store.watched(told(object)).into_iter().collect(),
        watcher::Event::Delete(object) => {
            let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
            return store.deleted(&name, &uid).into_iter().collect();
        }
    }
    Vec::new()
}

fn told<T: Seen>(object: DeserializeGuard<T::Object>) -> Told<T> {
    match object.0 {
        Ok(object) => Ok(Entry::of(object)),
        Err(invalid) => Err(Unreadable::of::<T>(invalid.metadata, &invalid.error)),
    }
}
