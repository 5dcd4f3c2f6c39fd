//! The life of one feed's mirror: what is on disk, then attempt after attempt.

use std::sync::Arc;
use std::time::Instant;

use invivo_transport::{Options, Repository};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::disk::Disk;
use crate::library::{Library, Place, Served};
use crate::metrics::Metrics;
use crate::mirror::{self, Error};
use crate::schedule;
use crate::state::{AttemptState, Reason};
use crate::stock::Stock;
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
    pub(crate) async fn run(self, place: Place, mut wanted: watch::Receiver<WantedFeed>) {
        let mut failures = 0u32;
        let mut before: Option<WantedFeed> = None;
        // Kept from attempt to attempt: it remembers what it saw, which saves most transfers.
        let mut repository: Option<Repository> = None;
        loop {
            let feed = wanted.borrow_and_update().clone();
            if before.as_ref().is_none_or(|b| b.root != feed.root) {
                self.take_stored(&place, &feed).await;
            }
            if before.as_ref() != Some(&feed) {
                failures = 0;
                repository = None;
            }
            before = Some(feed.clone());
            if feed.suspended {
                match wanted.changed().await {
                    Ok(()) => continue,
                    Err(_) => return,
                }
            }
            let outcome = tokio::select! {
                outcome = self.attempt(&place, &feed, &mut repository) => outcome,
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
    async fn take_stored(&self, place: &Place, feed: &WantedFeed) {
        place.change(|served| *served = Served::default());
        let loaded =
            mirror::blocking(&self.disk, feed, |disk, feed| stored::load(disk, &feed.name, &feed.root)).await;
        match loaded {
            Ok(Ok(Some(stock))) => {
                tracing::info!(feed = feed.name.as_str(), verified = %stock.verified, "serving the stored mirror");
                self.metrics.stock(&feed.name, &stock, stock.verified);
                place.change(|served| served.stock = Some(Arc::new(stock)));
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::warn!(feed = feed.name.as_str(), %error, "the stored mirror is not served; it is fetched anew");
            }
            Err(error) => tracing::warn!(feed = feed.name.as_str(), %error, "the stored mirror was not read"),
        }
    }

    async fn attempt(&self, place: &Place, feed: &WantedFeed, repository: &mut Option<Repository>) -> Reason {
        let (started, clock) = (Timestamp::now(), Instant::now());
        let result = self.mirror(place, feed, repository, started).await;
        let (reason, document, message) = match &result {
            Ok(stock) => {
                (Reason::Verified, None, format!("timestamp {} is mirrored", stock.timestamp_version))
            }
            Err(error) => (error.reason(), error.document(), error.message()),
        };
        self.metrics.attempt(&feed.name, reason);
        let millis = u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Ok(stock) = &result {
            self.metrics.stock(&feed.name, stock, started);
        }
        // The same again is no news: the metrics count it.
        let before = place.served().state;
        let news = before.is_none_or(|before| (before.reason, &before.message) != (reason, &message));
        let (name, why) = (feed.name.as_str(), reason.as_str());
        match (news, &result) {
            (true, Ok(_)) => tracing::info!(feed = name, reason = why, message, millis, "mirrored"),
            (true, Err(_)) => {
                tracing::warn!(feed = name, reason = why, document, message, millis, "not mirrored");
            }
            (false, _) => tracing::debug!(feed = name, reason = why, document, message, millis, "as before"),
        }
        place.change(|served| {
            if let Ok(stock) = result {
                served.stock = Some(stock);
            }
            served.state = Some(Arc::new(AttemptState {
                attempt: started,
                verified: served.stock.as_ref().map(|stock| stock.verified),
                reason,
                document: document.map(str::to_owned),
                message,
            }));
        });
        reason
    }

    async fn mirror(
        &self,
        place: &Place,
        feed: &WantedFeed,
        repository: &mut Option<Repository>,
        now: Timestamp,
    ) -> Result<Arc<Stock>, Error> {
        let repository = match repository {
            Some(repository) => repository,
            None => repository.insert(Repository::new(&feed.url, self.options.clone())?),
        };
        let (verified, unchanged) =
            mirror::fetch(repository, &self.disk, feed, self.max_feed_bytes, now).await?;
        let before = place.served().stock;
        if let Some(stock) = before.as_ref().filter(|stock| unchanged && stock.serves(&verified.timestamp)) {
            // Nothing is written, and readers have nothing to verify again.
            return Ok(Arc::clone(stock));
        }
        let stock = mirror::blocking(&self.disk, feed, move |disk, feed| {
            disk.commit(&feed.name, &feed.root, now, &verified)?;
            let at = |path: &_| disk.place(&feed.name, path);
            let stock = Stock::new(feed.root.clone(), now, &verified, before.as_deref(), at);
            disk.prune(&feed.name, &stock);
            Ok::<_, crate::disk::Error>(stock)
        });
        Ok(Arc::new(stock.await??))
    }
}
