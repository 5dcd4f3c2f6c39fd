//! Everything that is served now, shared between the mirroring tasks and the web server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use crate::FeedName;
use crate::state::AttemptState;
use crate::stock::Stock;

/// One feed as it is served.
#[derive(Debug, Clone, Default)]
pub(crate) struct Served {
    /// The verified files; none before the first good attempt.
    pub(crate) stock: Option<Arc<Stock>>,
    /// The last attempt; none before it ended.
    pub(crate) state: Option<Arc<AttemptState>>,
}

/// The place of one feed. Whoever mirrors a feed holds its place: once that was taken from the
/// library, what a task still writes there reaches nobody.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place(Arc<RwLock<Served>>);

impl Place {
    /// What is served now.
    pub(crate) fn served(&self) -> Served {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is served, all at once.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Served)) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Everything that is served now.
#[derive(Debug, Clone, Default)]
pub struct Library {
    feeds: Arc<RwLock<BTreeMap<FeedName, Place>>>,
}

impl Library {
    /// What is served of `feed`; none if there is no such feed.
    pub(crate) fn feed(&self, feed: &str) -> Option<Served> {
        let name = feed.parse().ok()?;
        self.feeds.read().unwrap_or_else(PoisonError::into_inner).get(&name).map(Place::served)
    }

    /// Makes a new, empty place for `feed`.
    pub(crate) fn open(&self, feed: &FeedName) -> Place {
        let place = Place::default();
        self.feeds.write().unwrap_or_else(PoisonError::into_inner).insert(feed.clone(), place.clone());
        place
    }

    /// Stops serving `feed`.
    pub(crate) fn close(&self, feed: &FeedName) {
        self.feeds.write().unwrap_or_else(PoisonError::into_inner).remove(feed);
    }

    /// Stops serving every feed but these.
    pub(crate) fn keep_only(&self, feeds: &BTreeSet<FeedName>) {
        self.feeds.write().unwrap_or_else(PoisonError::into_inner).retain(|name, _| feeds.contains(name));
    }

    /// The last attempt at `feed`.
    pub fn state(&self, feed: &str) -> Option<AttemptState> {
        self.feed(feed).and_then(|served| served.state).map(|state| (*state).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_late_task_writes_for_a_feed_that_is_gone_reaches_nobody() {
        let library = Library::default();
        let name: FeedName = "production".parse().unwrap();
        let late = library.open(&name);
        library.close(&name);
        let state = AttemptState {
            attempt: jiff::Timestamp::UNIX_EPOCH,
            verified: None,
            reason: crate::Reason::Unreachable,
            document: None,
            message: String::new(),
        };
        late.change(|served| served.state = Some(Arc::new(state)));
        assert!(library.feed("production").is_none());
        library.open(&name);
        assert!(library.state("production").is_none());
    }
}
