//! What the policy's wish means today: one level for each kernel build.
//!
//! A build that the chosen set does not touch has the highest level of the eligible sets before
//! it: what was withdrawn, rejected or is still withheld is not offered by way of a later set
//! either. A set that a person names may be young, of the test channel, or later than a sticky date;
//! what other people decided and what speaks against it counts for it too. The agent resolves sets alike.

use std::collections::{BTreeMap, BTreeSet};

use invivo_terms::{Block, BuildId, Digest, Hold, Level, SetName};

use crate::{Held, Memory, Offer, OnWithdrawn, Report, Set, SetKernel, Wish, World};

/// What to aim at.
#[derive(Debug)]
pub(crate) enum Target<'a> {
    /// No patch.
    Unpatched,
    /// This set.
    Set(Chosen<'a>),
    /// Nothing can be aimed at now, and why.
    Nothing(Held),
}

/// The set that was chosen.
#[derive(Debug)]
pub(crate) struct Chosen<'a> {
    /// Its name.
    pub(crate) name: &'a SetName,
    /// Its digest.
    pub(crate) digest: &'a Digest,
    /// It was named by a person, who may also mean to go down.
    pub(crate) named: bool,
    /// One level for each kernel build.
    pub(crate) aims: BTreeMap<&'a BuildId, Aim<'a>>,
    /// The builds for which only sets that are withheld bring something, and what these wait for.
    pub(crate) withheld: BTreeMap<&'a BuildId, Held>,
}

/// The level to aim at for one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aim<'a> {
    /// The level.
    pub(crate) level: Level,
    /// The set that brought it.
    pub(crate) origin: &'a SetName,
    /// The set to name in the instruction: the one that a person named, which is what agents
    /// check, else the origin, so that a later set's withdrawal does not touch an earlier level.
    pub(crate) set: &'a SetName,
    /// That set's digest.
    pub(crate) digest: &'a Digest,
    /// The level's manifest.
    pub(crate) manifest: &'a Digest,
    /// The highest level published up to the chosen set, withdrawn ones included. A node above it
    /// got its level from a later set; a node at or below it lost its level to a withdrawal only.
    pub(crate) ceiling: Level,
}

/// A target as the rollout's memory has it: a set and its digest, or none for "no patch".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) Option<(SetName, Digest)>);

impl<'a> Target<'a> {
    /// The target as the rollout's key carries it; `None` where there is nothing to aim at.
    pub(crate) fn key(&self) -> Option<Key> {
        match self {
            Self::Unpatched => Some(Key(None)),
            Self::Set(chosen) => Some(Key(Some((chosen.name.clone(), chosen.digest.clone())))),
            Self::Nothing(_) => None,
        }
    }

    /// What this build shall run; `None` where the target has nothing for it.
    pub(crate) fn aim(&self, build: &BuildId) -> Option<&Aim<'a>> {
        match self {
            Self::Set(chosen) => chosen.aims.get(build),
            Self::Unpatched | Self::Nothing(_) => None,
        }
    }

    /// Why the target has nothing for this build.
    pub(crate) fn lack(&self, build: &BuildId) -> Held {
        let nothing = Held { hold: Hold::UnsupportedKernel, until: None };
        match self {
            Self::Set(chosen) => chosen.withheld.get(build).copied().unwrap_or(nothing),
            Self::Nothing(held) => *held,
            Self::Unpatched => nothing,
        }
    }

    /// The target is "no patch".
    pub(crate) const fn is_unpatched(&self) -> bool {
        match self {
            Self::Unpatched => true,
            Self::Set(_) | Self::Nothing(_) => false,
        }
    }

    /// A person named the set.
    pub(crate) fn is_named(&self) -> bool {
        match self {
            Self::Set(chosen) => chosen.named,
            Self::Unpatched | Self::Nothing(_) => false,
        }
    }
}

/// What the policy's wish means today; `Latest` up to the set `pinned`, where one is. That one is taken
/// whether or not it may still be chosen.
pub(crate) fn resolve<'a>(world: &'a World, pinned: Option<&SetName>) -> Target<'a> {
    let sets = match (&world.policy.target, &world.offer) {
        (Wish::None, Offer::Unknown | Offer::Suspended | Offer::Sets(_)) => return Target::Unpatched,
        (Wish::Latest | Wish::Named(_), Offer::Unknown) => return nothing(Hold::FeedStalled),
        (Wish::Latest | Wish::Named(_), Offer::Suspended) => return nothing(Hold::FeedSuspended),
        (Wish::Latest | Wish::Named(_), Offer::Sets(sets)) => sets,
    };
    let (position, named) = match &world.policy.target {
        Wish::Named(name) => {
            let chosen = |set: &Set| set.name == *name && (pinned == Some(name) || set.may_be_named());
            (sets.iter().position(chosen), true)
        }
        Wish::Latest | Wish::None => {
            let chosen = |set: &Set| pinned.map_or_else(|| set.is_eligible(), |pinned| set.name == *pinned);
            (sets.iter().rposition(chosen), false)
        }
    };
    let until = position.map_or(0, |index| index + 1);
    let Some((upto, chosen)) = sets.get(..until).and_then(|upto| Some((upto, upto.last()?))) else {
        return leaving(world, sets).map_or_else(|| Target::Nothing(waited_for(world, sets)), Target::Set);
    };
    let aims = aims(upto, named.then_some(chosen), pinned);
    let withheld = if named { BTreeMap::new() } else { withheld(sets, &aims) };
    Target::Set(Chosen { name: &chosen.name, digest: &chosen.digest, named, aims, withheld })
}

/// Why nothing may be chosen.
fn waited_for(world: &World, sets: &[Set]) -> Held {
    let wanted = |set: &&Set| match &world.policy.target {
        Wish::Named(name) => set.name == *name,
        Wish::Latest | Wish::None => true,
    };
    let missing = Held { hold: Hold::TargetMissing, until: None };
    most_telling(sets.iter().filter(wanted)).unwrap_or(missing)
}

/// Nothing may be chosen, and what was withdrawn is to be taken off: aims at nothing, in the name of
/// the newest set that was withdrawn.
fn leaving<'a>(world: &World, sets: &'a [Set]) -> Option<Chosen<'a>> {
    let asked = world.policy.on_withdrawn == OnWithdrawn::RollBack && world.policy.target == Wish::Latest;
    let withdrawn = sets.iter().rfind(|set| asked && !set.is_active())?;
    Some(Chosen {
        name: &withdrawn.name,
        digest: &withdrawn.digest,
        named: false,
        aims: BTreeMap::new(),
        withheld: BTreeMap::new(),
    })
}

/// The aim for this level of this build as this set has it; none where the feed offers it no more.
pub(crate) fn aim_of<'a>(offer: &'a Offer, build: &BuildId, level: Level, set: &SetName) -> Option<Aim<'a>> {
    let Offer::Sets(sets) = offer else { return None };
    let position = sets.iter().position(|offered| offered.name == *set && offered.is_active())?;
    let upto = sets.get(..=position)?;
    aims(upto, upto.last(), None).remove(build).filter(|aim| aim.level == level)
}

/// Whether `Latest` may choose this set now.
pub(crate) fn is_eligible(offer: &Offer, name: &SetName) -> bool {
    match offer {
        Offer::Unknown | Offer::Suspended => false,
        Offer::Sets(sets) => sets.iter().any(|set| set.name == *name && set.is_eligible()),
    }
}

/// What was withdrawn: sets, and the levels that they brought, which a later set may have carried
/// to nodes under its own name.
#[derive(Debug)]
pub(crate) struct Withdrawn<'a> {
    sets: BTreeSet<&'a SetName>,
    levels: BTreeSet<(&'a BuildId, Level)>,
}

impl<'a> Withdrawn<'a> {
    pub(crate) fn of(offer: &'a Offer) -> Self {
        let sets: &[Set] = match offer {
            Offer::Unknown | Offer::Suspended => &[],
            Offer::Sets(sets) => sets,
        };
        let gone = || sets.iter().filter(|set| !set.is_active());
        let levels = gone().flat_map(|set| set.kernels.iter().map(|(build, kernel)| (build, kernel.level)));
        Self { sets: gone().map(|set| &set.name).collect(), levels: levels.collect() }
    }

    /// Whether what this node runs was withdrawn.
    pub(crate) fn has(&self, report: &Report) -> bool {
        report.set.as_ref().is_some_and(|set| self.sets.contains(set))
            || self.levels.contains(&(&report.build_id, report.level))
    }
}

const fn nothing<'a>(hold: Hold) -> Target<'a> {
    Target::Nothing(Held { hold, until: None })
}

/// The hold by which a set that is withheld is waited for; none where waiting does not help.
const fn hold_of(block: Block) -> Option<Hold> {
    match block {
        Block::Delayed => Some(Hold::Delayed),
        Block::AwaitingApproval => Some(Hold::AwaitingApproval),
        Block::Quarantined => Some(Hold::SetQuarantined),
        Block::TestOnly | Block::AfterDate | Block::Rejected | Block::Withdrawn => None,
    }
}

/// What the newest of these sets that is worth waiting for waits for. The first of several delays
/// to end is the one that counts.
fn most_telling<'a>(sets: impl DoubleEndedIterator<Item = &'a Set> + Clone) -> Option<Held> {
    let held = |set: &Set| {
        let blocked = set.blocked?;
        Some(Held { hold: hold_of(blocked.reason)?, until: blocked.until })
    };
    let newest = sets.clone().rev().find_map(held)?;
    let until = sets.filter_map(held).filter(|held| held.hold == newest.hold).filter_map(|held| held.until);
    Some(Held { until: until.min(), ..newest })
}

/// The builds without an aim for which a set that is withheld would bring one.
fn withheld<'a>(sets: &'a [Set], aims: &BTreeMap<&'a BuildId, Aim<'a>>) -> BTreeMap<&'a BuildId, Held> {
    let touched = sets.iter().filter(|set| !set.is_eligible()).flat_map(|set| set.kernels.keys());
    let builds: BTreeSet<&BuildId> = touched.filter(|build| !aims.contains_key(build)).collect();
    let held = |build| {
        let touching = sets.iter().filter(|set| set.kernels.contains_key(build));
        most_telling(touching).map(|held| (build, held))
    };
    builds.into_iter().filter_map(held).collect()
}

/// The memory without what quarantined sets proved: nothing new is led there any more.
pub(crate) fn still_proven(mut memory: Memory, offer: &Offer) -> Memory {
    if let Offer::Sets(sets) = offer {
        let quarantined = |name: &SetName| {
            sets.iter().any(|set| set.name == *name && set.is_blocked_by(Block::Quarantined))
        };
        memory.proven.retain(|_, (_, set)| !quarantined(set));
    }
    memory
}

fn aims<'a>(
    sets: &'a [Set],
    named: Option<&'a Set>,
    pinned: Option<&SetName>,
) -> BTreeMap<&'a BuildId, Aim<'a>> {
    let counts = |set: &Set| {
        set.is_eligible() || named.is_some_and(|named| named.name == set.name) || pinned == Some(&set.name)
    };
    let mut ceilings: BTreeMap<&BuildId, Level> = BTreeMap::new();
    let mut best: BTreeMap<&BuildId, (&Set, &SetKernel)> = BTreeMap::new();
    for set in sets {
        for (build, kernel) in &set.kernels {
            let ceiling = ceilings.entry(build).or_default();
            *ceiling = (*ceiling).max(kernel.level);
            let higher = best.get(build).is_none_or(|(_, known)| known.level < kernel.level);
            if counts(set) && higher && kernel.level > Level::UNPATCHED {
                best.insert(build, (set, kernel));
            }
        }
    }
    best.into_iter()
        .map(|(build, (set, kernel))| {
            let ceiling = ceilings.get(build).copied().unwrap_or(kernel.level);
            let aim = Aim {
                level: kernel.level,
                origin: &set.name,
                set: &named.unwrap_or(set).name,
                digest: &named.unwrap_or(set).digest,
                manifest: &kernel.manifest,
                ceiling,
            };
            (build, aim)
        })
        .collect()
}
