//! Which feeds there are: the cluster's `PatchFeed`s, as they come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt};
use invivo_api::PatchFeed;
use invivo_terms::{Digest, Refusal};
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch as channel;
use tokio::task::JoinSet;

use crate::FeedName;
use crate::poll::Mirroring;
use crate::state::{AttemptState, Reason};

/// What a feed asks the patch server to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedFeed {
    /// Its name.
    pub name: FeedName,
    /// Where the repository is.
    pub url: String,
    /// The digest that people pinned for its first trust document.
    pub root: Digest,
    /// How often to look.
    pub poll_interval: Duration,
    /// What is mirrored is served, and nothing is looked for.
    pub suspended: bool,
}

/// What `feed` asks for; none if it takes from another feed, whose mirror is then the one, or if its
/// name is none (the API server does not admit such).
pub fn wanted(feed: &PatchFeed) -> Option<WantedFeed> {
    Some(WantedFeed {
        name: feed.name_any().parse().ok()?,
        url: feed.spec.source.repository.as_ref()?.url.clone(),
        root: feed.root()?.clone(),
        poll_interval: feed.poll_interval().get().max(Duration::from_secs(10)),
        suspended: feed.spec.suspend,
    })
}

/// Runs one mirroring task per feed.
#[derive(Debug)]
pub struct Supervisor {
    mirroring: Mirroring,
    max_feeds: usize,
    feeds: BTreeMap<FeedName, channel::Sender<WantedFeed>>,
    // Dropping the set ends every task.
    tasks: JoinSet<()>,
}

impl Supervisor {
    /// A supervisor of at most `max_feeds` feeds.
    pub fn new(mirroring: Mirroring, max_feeds: usize) -> Self {
        Self { mirroring, max_feeds, feeds: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Begins to mirror a feed, or follows its change.
    pub fn apply(&mut self, feed: WantedFeed) {
        while self.tasks.try_join_next().is_some() {}
        if let Some(sender) = self.feeds.get(&feed.name) {
            sender.send_if_modified(|current| {
                let changed = *current != feed;
                *current = feed;
                changed
            });
            return;
        }
        if self.feeds.len() >= self.max_feeds {
            let message = format!(
                "this patch server mirrors at most {} feeds; raise its --max-feeds or remove a PatchFeed",
                self.max_feeds
            );
            tracing::warn!(feed = feed.name.as_str(), message, "not mirrored");
            self.mirroring.library.open(&feed.name).change(|served| {
                served.state = Some(std::sync::Arc::new(AttemptState {
                    attempt: Timestamp::now(),
                    verified: None,
                    reason: Reason::Refused(Refusal::StorageFull),
                    document: None,
                    message,
                }));
            });
            return;
        }
        let (sender, receiver) = channel::channel(feed.clone());
        let place = self.mirroring.library.open(&feed.name);
        self.feeds.insert(feed.name, sender);
        self.tasks.spawn(self.mirroring.clone().run(place, receiver));
    }

    /// Stops mirroring a feed that takes from another one now.
    fn drop_mirror(&mut self, feed: &FeedName) {
        if self.feeds.contains_key(feed) {
            self.delete(feed);
        }
    }

    /// Stops serving a feed and removes its mirror.
    pub fn delete(&mut self, feed: &FeedName) {
        self.feeds.remove(feed);
        self.mirroring.library.close(feed);
        self.mirroring.metrics.forget(feed);
        self.mirroring.disk.remove(feed);
        tracing::info!(feed = feed.as_str(), "feed is gone, its mirror removed");
    }

    /// Removes every feed that a whole list did not have.
    pub fn keep_only(&mut self, listed: &BTreeSet<FeedName>) {
        let gone: Vec<_> = self.feeds.keys().filter(|name| !listed.contains(*name)).cloned().collect();
        for name in gone {
            self.delete(&name);
        }
        // Also those that were too many to be mirrored.
        self.mirroring.library.keep_only(listed);
    }
}

/// Follows the cluster's feeds for ever; `ready` is told once the first list is complete.
pub async fn watch_feeds(client: Client, mut supervisor: Supervisor, ready: channel::Sender<bool>) {
    let api: Api<DeserializeGuard<PatchFeed>> = Api::all(client);
    let events = watch(api, watcher::Config::default()).default_backoff();
    follow(events, &mut supervisor, &ready).await;
}

async fn follow(
    events: impl Stream<Item = watcher::Result<Event<DeserializeGuard<PatchFeed>>>>,
    supervisor: &mut Supervisor,
    ready: &channel::Sender<bool>,
) {
    let mut events = pin!(events);
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(feed)) => {
                // One that cannot be read is still there: what is served of it stays.
                listed.extend(feed.name_any().parse::<FeedName>());
                take(supervisor, feed);
            }
            Ok(Event::InitDone) => {
                supervisor.keep_only(&listed);
                ready.send_replace(true);
            }
            Ok(Event::Apply(feed)) => take(supervisor, feed),
            Ok(Event::Delete(feed)) => {
                if let Ok(name) = feed.name_any().parse() {
                    supervisor.delete(&name);
                }
            }
            Err(error) => tracing::warn!(%error, "watching PatchFeeds was interrupted; what is served stays"),
        }
    }
}

fn take(supervisor: &mut Supervisor, feed: DeserializeGuard<PatchFeed>) {
    let name = feed.name_any();
    match feed.0 {
        Ok(feed) => {
            if let Some(wanted) = wanted(&feed) {
                supervisor.apply(wanted);
            } else if let Ok(name) = name.parse() {
                // It had a repository before.
                supervisor.drop_mirror(&name);
            } else {
                tracing::warn!(feed = name, "not a name that a feed can have");
            }
        }
        Err(error) => tracing::warn!(
            feed = name,
            error = error.error,
            "this PatchFeed cannot be read; what is served of it stays"
        ),
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use serde_json::json;

    use super::*;
    use crate::{Disk, Library, Metrics};

    fn object(name: &str, interval: &str) -> DeserializeGuard<PatchFeed> {
        serde_json::from_value(json!({
            "apiVersion": "invivo.dev/v1alpha1", "kind": "PatchFeed", "metadata": {"name": name},
            "spec": {
                // Nothing listens there.
                "source": {"repository": {"url": "http://127.0.0.1:1/"}},
                "trust": {"rootSha256": "a".repeat(64)},
                "pollInterval": interval
            }
        }))
        .unwrap()
    }

    fn supervisor(folder: &std::path::Path) -> Supervisor {
        let mirroring = Mirroring {
            disk: Disk::new(folder),
            library: Library::default(),
            metrics: Metrics::default(),
            options: invivo_transport::Options::default(),
            max_feed_bytes: 1,
        };
        Supervisor::new(mirroring, 8)
    }

    fn names(supervisor: &Supervisor) -> Vec<&str> {
        supervisor.feeds.keys().map(FeedName::as_str).collect()
    }

    #[tokio::test]
    async fn feeds_come_and_go_with_their_objects() {
        let folder = tempfile::tempdir().unwrap();
        let mut supervisor = supervisor(folder.path());
        let (ready, is_ready) = channel::channel(false);
        let first = [
            Ok(Event::Init),
            Ok(Event::InitApply(object("a", "1h"))),
            Ok(Event::InitApply(object("b", "1h"))),
            Ok(Event::InitApply(object("c", "1h"))),
        ];
        follow(stream::iter(first), &mut supervisor, &ready).await;
        assert!(!*is_ready.borrow(), "the list is not complete yet");
        assert_eq!(names(&supervisor), ["a", "b", "c"]);
        // The watch was interrupted in the list and begins anew; by now `a` is gone.
        let rest = [
            Ok(Event::Init),
            Ok(Event::InitApply(object("b", "1h"))),
            Ok(Event::InitApply(object("c", "1h"))),
            Ok(Event::InitDone),
            Ok(Event::Delete(object("b", "1h"))),
        ];
        follow(stream::iter(rest), &mut supervisor, &ready).await;
        assert!(*is_ready.borrow());
        assert_eq!(names(&supervisor), ["c"], "a was not in the list, b was deleted");
    }

    #[tokio::test]
    async fn a_feed_that_cannot_be_read_and_a_broken_watch_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut supervisor = supervisor(folder.path());
        let (ready, _) = channel::channel(false);
        let events = [
            Ok(Event::Init),
            Ok(Event::InitApply(object("a", "1h"))),
            Ok(Event::InitDone),
            Ok(Event::Apply(object("a", "sometimes"))),
            Err(watcher::Error::NoResourceVersion),
            Ok(Event::Init),
            Ok(Event::InitApply(object("a", "sometimes"))),
            Ok(Event::InitDone),
        ];
        follow(stream::iter(events), &mut supervisor, &ready).await;
        assert_eq!(names(&supervisor), ["a"]);
        assert_eq!(
            supervisor.feeds.get(&"a".parse().unwrap()).unwrap().borrow().poll_interval.as_secs(),
            3600
        );
    }

    #[tokio::test]
    async fn a_feed_over_another_one_has_no_mirror_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let mut supervisor = supervisor(folder.path());
        let (ready, _) = channel::channel(false);
        let over: DeserializeGuard<PatchFeed> = serde_json::from_value(json!({
            "apiVersion": "invivo.dev/v1alpha1", "kind": "PatchFeed", "metadata": {"name": "b"},
            "spec": {"source": {"feed": "a"}, "delay": "24h"}
        }))
        .unwrap();
        let events = [Ok(Event::Apply(object("a", "1h"))), Ok(Event::Apply(object("b", "1h")))];
        follow(stream::iter(events), &mut supervisor, &ready).await;
        assert_eq!(names(&supervisor), ["a", "b"]);
        follow(stream::iter([Ok(Event::Apply(over))]), &mut supervisor, &ready).await;
        assert_eq!(names(&supervisor), ["a"]);
    }

    #[test]
    fn the_interval_that_the_schema_forbids_is_not_followed_either() {
        let feed = object("a", "1s").0.unwrap();
        assert_eq!(wanted(&feed).unwrap().poll_interval, Duration::from_secs(10));
    }
}
