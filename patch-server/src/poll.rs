//! The life of one feed's mirror: what is on disk, then attempt after attempt.

use std::sync::Arc;
use std::time::Instant;

use invivo_transport::{Options, Repository};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::disk::Disk;
use crate::library::{Library, Served};
use crate::metrics::Metrics;
use crate::mirror::{self, Error};
use crate::schedule;
use crate::shelf::Shelf;
use crate::state::{AttemptState, Reason};
use crate::{WantedFeed, stored};

/// What every feed's task needs.
#[derive(Debug, Clone)]
pub struct Mirroring {
    /// Where mirrors are kept.
    pub disk: Disk,
    /// Where they are served from.
    pub library: Library,
    /// What is counted.
    pub metrics: Metrics,
    /// How repositories are fetched.
    pub options: Options,
    /// Bytes that one feed may take.
    pub max_feed_bytes: u64,
}

impl Mirroring {
    /// Mirrors one feed until its sender is dropped.
    pub(crate) async fn run(self, mut wanted: watch::Receiver<WantedFeed>) {
        let mut failures = 0u32;
        let mut before: Option<WantedFeed> = None;
        // Kept from attempt to attempt: it remembers what it saw, which saves most transfers.
        let mut repository: Option<Repository> = None;
        loop {
            let feed = wanted.borrow_and_update().clone();
            if before.as_ref().is_none_or(|b| b.root != feed.root) {
                self.take_stored(&feed).await;
            }
            if before.as_ref() != Some(&feed) {
                failures = 0;
                repository = None;
            }
            before = Some(feed.clone());
            let outcome = tokio::select! {
                outcome = self.attempt(&feed, &mut repository) => outcome,
                changed = wanted.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            };
            failures = if outcome == Reason::Verified { 0 } else { failures.saturating_add(1) };
            let wait = schedule::wait(feed.poll_interval, failures, schedule::noise());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = wanted.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Serves what an earlier run verified from this root, and nothing from any other.
    async fn take_stored(&self, feed: &WantedFeed) {
        self.library.change(&feed.name, |served| *served = Served::default());
        let loaded =
            mirror::blocking(&self.disk, feed, |disk, feed| stored::load(disk, &feed.name, &feed.root)).await;
        match loaded {
            Ok(Ok(Some(shelf))) => {
                tracing::info!(feed = feed.name.as_str(), verified = %shelf.verified, "serving the stored mirror");
                self.metrics.shelf(&feed.name, &shelf);
                self.library.change(&feed.name, |served| served.shelf = Some(Arc::new(shelf)));
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::warn!(feed = feed.name.as_str(), %error, "the stored mirror is not served; it is fetched anew");
            }
            Err(error) => tracing::warn!(feed = feed.name.as_str(), %error, "the stored mirror was not read"),
        }
    }

    async fn attempt(&self, feed: &WantedFeed, repository: &mut Option<Repository>) -> Reason {
        let (started, clock) = (Timestamp::now(), Instant::now());
        let result = self.mirror(feed, repository, started).await;
        let (reason, document, message) = match &result {
            Ok(shelf) => {
                (Reason::Verified, None, format!("timestamp {} is mirrored", shelf.timestamp_version))
            }
            Err(error) => (error.reason(), error.document(), error.message()),
        };
        self.metrics.attempt(&feed.name, reason);
        let millis = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &result {
            Ok(shelf) => {
                self.metrics.shelf(&feed.name, shelf);
                tracing::info!(
                    feed = feed.name.as_str(),
                    timestamp = shelf.timestamp_version,
                    millis,
                    "mirrored"
                );
            }
            Err(_) => {
                tracing::warn!(
                    feed = feed.name.as_str(),
                    reason = reason.as_str(),
                    document,
                    message,
                    millis,
                    "not mirrored"
                );
            }
        }
        self.library.change(&feed.name, |served| {
            if let Ok(shelf) = result {
                served.shelf = Some(shelf);
            }
            served.state = Some(Arc::new(AttemptState {
                attempt: started,
                verified: served.shelf.as_ref().map(|shelf| shelf.verified),
                reason,
                document: document.map(str::to_owned),
                message,
            }));
        });
        reason
    }

    async fn mirror(
        &self,
        feed: &WantedFeed,
        repository: &mut Option<Repository>,
        now: Timestamp,
    ) -> Result<Arc<Shelf>, Error> {
        let repository = match repository {
            Some(repository) => repository,
            None => repository.insert(Repository::new(&feed.url, self.options.clone())?),
        };
        let verified = mirror::fetch(repository, &self.disk, feed, self.max_feed_bytes, now).await?;
        let before = self.library.feed(feed.name.as_str()).and_then(|served| served.shelf);
        let shelf = mirror::blocking(&self.disk, feed, move |disk, feed| {
            disk.commit(&feed.name, &feed.root, now, &verified)?;
            let place = |path: &_| disk.place(&feed.name, path);
            let shelf = Shelf::new(feed.root.clone(), now, &verified, before.as_deref(), place);
            disk.prune(&feed.name, &shelf);
            Ok::<_, crate::disk::Error>(shelf)
        });
        Ok(Arc::new(shelf.await??))
    }
}
