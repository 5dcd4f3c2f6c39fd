//! Which sets a feed offers, and what a set means for one kernel build. Operator and agent both ask here.

use std::collections::BTreeMap;
use std::fmt;

use invivo_terms::{BuildId, Digest, Level, SetName};
use serde::Serialize;

use crate::document::{Channel, Index, KernelDocument, LevelEntry, SetEntry, SetKernel, SetStatus};

/// Why a set is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ineligible {
    /// Its author took it back.
    Withdrawn,
    /// Its tests are not finished, and the feed takes only stable sets.
    TestOnly,
}

impl Ineligible {
    /// The name as it stands in statuses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Withdrawn => "Withdrawn",
            Self::TestOnly => "TestOnly",
        }
    }
}

impl fmt::Display for Ineligible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a set may be rolled out: active, and of the stable channel.
///
/// # Errors
///
/// Why not.
pub fn eligible(set: &SetEntry) -> Result<(), Ineligible> {
    match (set.status, set.channel) {
        (SetStatus::Withdrawn, _) => Err(Ineligible::Withdrawn),
        (SetStatus::Active, Channel::Test) => Err(Ineligible::TestOnly),
        (SetStatus::Active, Channel::Stable) => Ok(()),
    }
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

    /// The last eligible set.
    pub fn latest(&self) -> Option<&SetEntry> {
        self.sets.iter().rev().find(|set| eligible(set).is_ok())
    }

    /// What `set` means for `build`: the level it brings, or, where it does not touch the build,
    /// the highest level of an eligible set before it. `None` where there is no such set or level.
    ///
    /// A set that was itself withdrawn or is only in test still says what it would bring; whether
    /// it may be rolled out is [`eligible`]'s word.
    pub fn level_at<'a>(&'a self, set: &SetName, build: &BuildId) -> Option<Offer<'a>> {
        let at = self.sets.iter().position(|entry| entry.name == *set)?;
        self.sets
            .iter()
            .take(at.saturating_add(1))
            .rev()
            .filter(|entry| entry.name == *set || eligible(entry).is_ok())
            .find_map(|entry| entry.kernels.get(build).map(|kernel| Offer { set: entry, kernel }))
    }

    /// What the last eligible set means for `build`.
    pub fn latest_level(&self, build: &BuildId) -> Option<Offer<'_>> {
        self.latest().and_then(|set| self.level_at(&set.name, build))
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
    released: jiff::Timestamp,
}

impl SetEntry {
    /// The digest by which people approve this set: over name, release date, and level and
    /// manifest for each kernel build. Status, channel and summary may change under it.
    pub fn digest(&self) -> Digest {
        let canonical = Canonical { kernels: &self.kernels, name: &self.name, released: self.released };
        crate::digest(&serde_json::to_vec(&canonical).unwrap_or_default())
    }
}
