//! What a feed offers to a policy: the feeds on the way down to the repository, what is known of
//! that, and what each of them withholds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use invivo_api::{PatchFeed, PatchSet};
use invivo_feed::{Ineligible, Say, eligible};
use invivo_rollout as rollout;
use invivo_terms::{Digest, FeedRules, SetName};
use jiff::Timestamp;

use crate::observe::{Sights, Stores};
use crate::reason;
use crate::sight::{Server, Sight, Verdict, Verified};
use crate::store::{Entry, Unreadable};

/// Why nothing comes in through a feed, whatever its repository has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// A person suspended it, or one that it takes from.
    #[error("PatchFeed {feed} is suspended: set its spec.suspend to false")]
    Suspended {
        /// Which.
        feed: String,
    },
    /// One that it takes from does not exist.
    #[error(
        "PatchFeed {by} takes from PatchFeed {feed}, which does not exist: create it, or correct spec.source.feed"
    )]
    NotFound {
        /// Which.
        feed: String,
        /// Who names it.
        by: String,
    },
    /// It takes from itself by way of others.
    #[error("these PatchFeeds take from one another: {}: let one of them take from a repository", .0.join(", "))]
    Cycle(Vec<String>),
    /// One that it takes from, or what was decided about a set, cannot be read.
    #[error("{0}")]
    Unreadable(Unreadable),
}

impl Halt {
    /// Condition reason, Event reason and metric label.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Suspended { .. } => reason::Feed::Suspended.as_str(),
            Self::NotFound { .. } => reason::Feed::FeedNotFound.as_str(),
            Self::Cycle(_) => reason::Feed::FeedCycle.as_str(),
            Self::Unreadable(_) => reason::Feed::Unreadable.as_str(),
        }
    }

    const fn offer(&self) -> rollout::Offer {
        match self {
            Self::Suspended { .. } => rollout::Offer::Suspended,
            Self::NotFound { .. } | Self::Cycle(_) | Self::Unreadable(_) => rollout::Offer::Unknown,
        }
    }
}

/// The sets that are withheld, and why.
pub type Blocks = BTreeMap<SetName, Ineligible>;

/// What stands behind a feed.
#[derive(Debug, Clone)]
pub struct Source {
    /// The feed itself.
    pub feed: Entry<PatchFeed>,
    /// The feeds that it takes from, the next one first; none where it has the repository.
    over: Vec<Entry<PatchFeed>>,
    /// What is known of the repository.
    pub sight: Sight,
}

impl Source {
    /// Follows a feed down to its repository. A set of any feed that cannot be read halts every feed: it
    /// may be rejected, or quarantined for all of them.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Cycle`, `Unreadable`.
    pub fn of(stores: &Stores, sights: &Sights, feed: Entry<PatchFeed>) -> Result<Self, Halt> {
        if let Some(set) = stores.sets.unreadable().into_iter().next() {
            return Err(Halt::Unreadable(set));
        }
        if let Some(unreadable) = stores.feeds.unreadable_of(&feed.name) {
            return Err(Halt::Unreadable(unreadable));
        }
        let mut source = Self { feed, over: Vec::new(), sight: Sight::default() };
        while let Some(next) = source.root().value.spec.source.feed.clone() {
            let by = source.root().name.clone();
            let mut path: Vec<String> = source.feeds().map(|feed| feed.name.clone()).collect();
            if path.contains(&next) {
                path.push(next);
                return Err(Halt::Cycle(path));
            }
            if let Some(unreadable) = stores.feeds.unreadable_of(&next) {
                return Err(Halt::Unreadable(unreadable));
            }
            match stores.feeds.get(&next) {
                Some(feed) => source.over.push(feed),
                None => return Err(Halt::NotFound { feed: next, by }),
            }
        }
        source.sight = sights.get(&source.root().name);
        Ok(source)
    }

    /// The feed with the repository.
    pub fn root(&self) -> &Entry<PatchFeed> {
        self.over.last().unwrap_or(&self.feed)
    }

    /// Whether the feed itself has the repository.
    pub const fn is_root(&self) -> bool {
        self.over.is_empty()
    }

    fn feeds(&self) -> impl Iterator<Item = &Entry<PatchFeed>> {
        std::iter::once(&self.feed).chain(&self.over)
    }

    /// Who suspended it, if anybody did.
    pub fn suspended(&self) -> Option<Halt> {
        let feed = self.feeds().find(|feed| feed.value.spec.suspend)?;
        Some(Halt::Suspended { feed: feed.name.clone() })
    }

    /// Nothing is known of the repository since this process began, or only of another root.
    pub fn is_unseen(&self) -> bool {
        let another = self.root().value.root().is_none_or(|root| self.sight.is_of_another_root(root));
        self.sight.server == Server::NotAsked || another
    }

    /// The catalogue that may be planned with: its floors stand in the status, so that no later
    /// reader accepts anything older.
    pub fn stored(&self) -> Option<Arc<Verified>> {
        let status = self.root().value.floors();
        let held = |verified: &Arc<Verified>| {
            status.is_some_and(|status| {
                verified.floors.repository.as_ref() == Some(&status.name)
                    && verified.floors.trust == status.trust_version
                    && verified.floors.index == status.index_version
            })
        };
        self.sight.stored.clone().or_else(|| self.sight.verified.clone().filter(held))
    }

    /// What the feeds on the way withhold of a catalogue, at `now` by the earlier of two clocks.
    pub fn blocks(&self, stores: &Stores, verified: &Verified, now: Timestamp) -> Blocks {
        let now = now.checked_sub(self.sight.behind).unwrap_or(Timestamp::MIN);
        let objects = stores.sets.all();
        let links: Vec<Link<'_>> = self.feeds().map(|feed| Link::of(feed, &objects)).collect();
        let nowhere = quarantined_somewhere(&objects);
        let sets = verified.index.sets.iter().filter_map(|entry| {
            let digest = verified.digests.get(&entry.name)?;
            let says = links.iter().map(|link| link.say(&entry.name, digest, &nowhere));
            let says: Vec<Say> = says.collect();
            Some((entry.name.clone(), eligible(entry, &says, now).err()?))
        });
        sets.collect()
    }
}

/// One feed with its PatchSets.
struct Link<'a> {
    rules: FeedRules,
    sets: BTreeMap<&'a SetName, &'a PatchSet>,
}

impl<'a> Link<'a> {
    fn of(feed: &Entry<PatchFeed>, objects: &'a [Entry<PatchSet>]) -> Self {
        let own = objects.iter().filter(|set| set.value.spec.feed == feed.name);
        let sets = own.map(|set| (&set.value.spec.set, set.value.as_ref())).collect();
        Self { rules: feed.value.rules(), sets }
    }

    /// An object about another set of this name says nothing. One that is not there, or of which
    /// nothing is written down yet, is as bad as those of other feeds.
    fn say(&self, set: &SetName, digest: &Digest, elsewhere: &BTreeSet<&Digest>) -> Say {
        let object = self.sets.get(set).filter(|object| object.spec.digest == *digest);
        let status = object.and_then(|object| object.status.as_ref());
        Say {
            rules: self.rules.clone(),
            decisions: object.map(|object| object.spec.decisions(digest)).unwrap_or_default(),
            quarantined: status.map_or(elsewhere.contains(digest), |status| status.quarantine.is_some()),
        }
    }
}

fn quarantined_somewhere(objects: &[Entry<PatchSet>]) -> BTreeSet<&Digest> {
    let bad =
        |set: &&Entry<PatchSet>| set.value.status.as_ref().is_some_and(|status| status.quarantine.is_some());
    objects.iter().filter(bad).map(|set| &set.value.spec.digest).collect()
}

/// A policy's feed as a decision sees it.
#[derive(Debug, Clone)]
pub enum FeedView {
    /// There is no such PatchFeed.
    Missing,
    /// It is there, and nothing comes in through it.
    Halted(Halt),
    /// It is there, and nothing is known of it since this process began. Nothing is decided yet.
    Unseen,
    /// It is there, and this may be done with it.
    Known {
        /// The judgement.
        verdict: Verdict,
        /// What its repository has, once the floors are stored.
        verified: Option<Arc<Verified>>,
        /// What is withheld of it.
        blocks: Blocks,
    },
}

impl FeedView {
    /// Looks at a feed at `now`.
    pub fn of(stores: &Stores, sights: &Sights, name: &str, now: Timestamp) -> Self {
        if let Some(unreadable) = stores.feeds.unreadable_of(name) {
            return Self::Halted(Halt::Unreadable(unreadable));
        }
        let Some(feed) = stores.feeds.get(name) else { return Self::Missing };
        let source = match Source::of(stores, sights, feed) {
            Ok(source) => source,
            Err(halt) => return Self::Halted(halt),
        };
        if let Some(halt) = source.suspended() {
            return Self::Halted(halt);
        }
        if source.is_unseen() {
            return Self::Unseen;
        }
        let verified = source.stored();
        let blocks = verified.as_ref().map(|verified| source.blocks(stores, verified, now));
        Self::Known { verdict: source.sight.verdict(now), verified, blocks: blocks.unwrap_or_default() }
    }

    /// What the planner may choose from.
    pub fn offer(&self) -> rollout::Offer {
        match self {
            Self::Known { verdict, verified: Some(verified), blocks } if verdict.allows() => {
                rollout::Offer::Sets(verified.sets(blocks))
            }
            Self::Halted(halt) => halt.offer(),
            Self::Known { .. } | Self::Unseen | Self::Missing => rollout::Offer::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
