//! Which sets a feed offers, and what a set means for one kernel build. Operator and agent both ask here.

use std::collections::BTreeMap;
use std::fmt;

use invivo_terms::{Block, BuildId, Decisions, Digest, FeedChannel, FeedRules, Level, SetName};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::document::{Channel, Index, KernelDocument, LevelEntry, SetEntry, SetKernel, SetStatus};

/// Why a set may not be rolled out through a feed, in rising gravity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ineligible {
    /// It was released less than the feed's delay ago; until then.
    Delayed(Timestamp),
    /// Its tests are not finished, and the feed takes only stable sets.
    TestOnly,
    /// It was released after the feed's sticky date.
    AfterDate,
    /// Not enough people have approved it.
    AwaitingApproval,
    /// A person rejected it.
    Rejected,
    /// There is evidence of several nodes against it.
    Quarantined,
    /// Its author took it back.
    Withdrawn,
}

impl Ineligible {
    /// The reason without its particulars.
    pub const fn block(self) -> Block {
        match self {
            Self::Delayed(_) => Block::Delayed,
            Self::TestOnly => Block::TestOnly,
            Self::AfterDate => Block::AfterDate,
            Self::AwaitingApproval => Block::AwaitingApproval,
            Self::Rejected => Block::Rejected,
            Self::Quarantined => Block::Quarantined,
            Self::Withdrawn => Block::Withdrawn,
        }
    }

    /// When it ends by itself.
    pub const fn until(self) -> Option<Timestamp> {
        match self {
            Self::Delayed(until) => Some(until),
            Self::TestOnly
            | Self::AfterDate
            | Self::AwaitingApproval
            | Self::Rejected
            | Self::Quarantined
            | Self::Withdrawn => None,
        }
    }
}

impl fmt::Display for Ineligible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delayed(until) => write!(f, "{} until {until}", self.block()),
            Self::TestOnly
            | Self::AfterDate
            | Self::AwaitingApproval
            | Self::Rejected
            | Self::Quarantined
            | Self::Withdrawn => self.block().fmt(f),
        }
    }
}

/// What one feed has to say about one set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Say {
    /// What it asks of every set.
    pub rules: FeedRules,
    /// What people decided about this one.
    pub decisions: Decisions,
    /// There is evidence of several nodes against this one, and nobody has overruled it.
    pub quarantined: bool,
}

impl Say {
    fn blocks(&self, set: &SetEntry, now: Timestamp) -> [Option<Ineligible>; 6] {
        let Self { rules, decisions, quarantined } = self;
        let ends = set.released.checked_add(rules.delay.get()).unwrap_or(Timestamp::MAX);
        let test = match (set.channel, rules.channel) {
            (Channel::Test, FeedChannel::Stable) => true,
            (Channel::Test, FeedChannel::Test) | (Channel::Stable, _) => false,
        };
        // Days of four-digit years compare as text.
        let day = || set.released.to_zoned(TimeZone::UTC).date().to_string();
        let late = rules.as_of.as_ref().is_some_and(|as_of| day().as_str() > as_of.as_str());
        [
            (ends > now).then_some(Ineligible::Delayed(ends)),
            test.then_some(Ineligible::TestOnly),
            late.then_some(Ineligible::AfterDate),
            (decisions.approvals < rules.required).then_some(Ineligible::AwaitingApproval),
            decisions.rejected.then_some(Ineligible::Rejected),
            quarantined.then_some(Ineligible::Quarantined),
        ]
    }
}

/// Whether a set may be rolled out, at `now` by the earlier of two clocks ([`crate::Clocks::earlier`]):
/// every feed on the way, from the policy's own down to the one with the repository, has its say.
///
/// # Errors
///
/// Why not: the gravest reason, and the longest delay.
pub fn eligible<'a>(
    set: &SetEntry,
    says: impl IntoIterator<Item = &'a Say>,
    now: Timestamp,
) -> Result<(), Ineligible> {
    let withdrawn = match set.status {
        SetStatus::Withdrawn => Some(Ineligible::Withdrawn),
        SetStatus::Active => None,
    };
    let blocks = says.into_iter().flat_map(|say| say.blocks(set, now)).chain([withdrawn]);
    blocks.flatten().max().map_or(Ok(()), Err)
}

/// What a set comes down to for one kernel build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer<'a> {
    /// The set that brought the level: the one asked for, or an earlier one.
    pub set: &'a SetEntry,
    /// Level and manifest.
    pub kernel: &'a SetKernel,
}

impl Index {
    /// The set of that name.
    pub fn set(&self, name: &SetName) -> Option<&SetEntry> {
        self.sets.iter().find(|set| set.name == *name)
    }

    /// The last set that `eligible` accepts.
    pub fn latest(&self, eligible: impl Fn(&SetEntry) -> bool) -> Option<&SetEntry> {
        self.sets.iter().rev().find(|set| eligible(set))
    }

    /// The sets that bring something to `build`, from `set` back to the first. Nothing where there is
    /// no such set.
    pub fn origins<'a>(&'a self, set: &SetName, build: &'a BuildId) -> impl Iterator<Item = Offer<'a>> {
        let upto = self.sets.iter().position(|entry| entry.name == *set).map_or(0, |at| at.saturating_add(1));
        let sets = self.sets.iter().take(upto).rev();
        sets.filter_map(move |entry| entry.kernels.get(build).map(|kernel| Offer { set: entry, kernel }))
    }

    /// What `set` means for `build`: the level it brings, or, where it does not touch the build, the
    /// level of the last set before it that does and that `eligible` accepts.
    ///
    /// Whether `set` itself may be rolled out is not asked here.
    pub fn level_at<'a>(
        &'a self,
        set: &SetName,
        build: &'a BuildId,
        eligible: impl Fn(&SetEntry) -> bool,
    ) -> Option<Offer<'a>> {
        self.origins(set, build).find(|offer| offer.set.name == *set || eligible(offer.set))
    }
}

impl KernelDocument {
    /// The entry of a level.
    pub fn level(&self, level: Level) -> Option<&LevelEntry> {
        self.levels.iter().find(|entry| entry.level == level)
    }
}

/// A set's entry as its digest covers it: what may change later is left out. Keys in alphabetical
/// order, no white space.
#[derive(Serialize)]
struct Canonical<'a> {
    kernels: &'a BTreeMap<BuildId, SetKernel>,
    name: &'a SetName,
    released: Timestamp,
}

impl SetEntry {
    /// The digest by which people approve this set: over name, release date, and level and
    /// manifest for each kernel build. Status, channel and summary may change under it.
    pub fn digest(&self) -> Digest {
        let canonical = Canonical { kernels: &self.kernels, name: &self.name, released: self.released };
        crate::digest(&serde_json::to_vec(&canonical).unwrap_or_default())
    }
}
