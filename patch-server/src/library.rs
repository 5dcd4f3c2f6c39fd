//! Everything that is served now, shared between the mirroring tasks and the web server.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::FeedName;
use crate::shelf::Shelf;
use crate::state::AttemptState;

/// One feed as it is served.
#[derive(Debug, Clone, Default)]
pub(crate) struct Served {
    /// The verified files; none before the first good attempt.
    pub(crate) shelf: Option<Arc<Shelf>>,
    /// The last attempt; none before it ended.
    pub(crate) state: Option<Arc<AttemptState>>,
}

/// Everything that is served now.
#[derive(Debug, Clone, Default)]
pub struct Library {
    feeds: Arc<RwLock<BTreeMap<FeedName, Served>>>,
}

impl Library {
    /// What is served of `feed`; none if there is no such feed.
    pub(crate) fn feed(&self, feed: &str) -> Option<Served> {
        let name = feed.parse().ok()?;
        self.feeds.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned()
    }

    /// Changes what is served of `feed`, all at once.
    pub(crate) fn change(&self, feed: &FeedName, change: impl FnOnce(&mut Served)) {
        let mut feeds = self.feeds.write().unwrap_or_else(PoisonError::into_inner);
        change(feeds.entry(feed.clone()).or_default());
    }

    /// Stops serving `feed`.
    pub(crate) fn remove(&self, feed: &FeedName) {
        self.feeds.write().unwrap_or_else(PoisonError::into_inner).remove(feed);
    }

    /// The last attempt at `feed`.
    pub fn state(&self, feed: &str) -> Option<AttemptState> {
        self.feed(feed).and_then(|served| served.state).map(|state| (*state).clone())
    }
}
