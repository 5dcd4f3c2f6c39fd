//! Kernel modules that a patch changes: whether it may be loaded over them, how they stand while it
//! is on, and which of them to heal. Pure.
//!
//! The kernel does not compare builds. It patches whatever has all the names, and where one is
//! missing it refuses the *target*, or, if that is loaded already, the whole patch. So the build ids
//! are compared before anything is loaded; what cannot be known is no better than what is wrong.

use std::collections::{BTreeMap, BTreeSet};

use invivo_terms::{BuildId, ModuleName, TargetName, TargetState};
use serde::{Deserialize, Serialize};

/// A kernel module that a patch changes, as the manifest has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Its name.
    pub name: TargetName,
    /// The only build that the patch was made for.
    pub build_id: BuildId,
}

/// What a patch changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// Something in the kernel itself.
    pub kernel: bool,
    /// These modules.
    pub targets: Vec<Target>,
}

/// Which build of a module is at some place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Build {
    /// There is none.
    None,
    /// This one.
    Is(BuildId),
    /// There is one, or there may be, and it does not tell.
    Unknown,
}

/// The builds of one module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builds {
    /// Of the file that `modprobe` would take.
    pub file: Build,
    /// Of what is loaded.
    pub loaded: Build,
}

/// What speaks against patching a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// It is another build.
    Foreign,
    /// Its build is not known.
    Unknown,
}

/// What to do with a patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Load it, without these targets.
    Load {
        /// They are another build, or not known to be the right one.
        skip: Vec<TargetName>,
    },
    /// Do not.
    Held(Held, Vec<(TargetName, Wrong)>),
}

/// Why it is held and not loaded without the wrong targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The policy does not allow it.
    NotAllowed,
    /// The patch cannot leave a target out.
    CannotSkip,
    /// It changes nothing else.
    NothingLeft,
}

/// What else decides about a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The policy allows to leave targets out.
    pub allow_partial: bool,
    /// The patch can leave targets out.
    pub can_skip: bool,
}

impl Build {
    fn wrong(&self, wanted: &BuildId) -> Option<Wrong> {
        match self {
            Self::None => None,
            Self::Is(found) => (found != wanted).then_some(Wrong::Foreign),
            Self::Unknown => Some(Wrong::Unknown),
        }
    }
}

impl Builds {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self { file: Build::Unknown, loaded: Build::Unknown };

    fn wrong(&self, wanted: &BuildId) -> Option<Wrong> {
        match (self.loaded.wrong(wanted), self.file.wrong(wanted)) {
            (Some(Wrong::Foreign), _) | (_, Some(Wrong::Foreign)) => Some(Wrong::Foreign),
            (Some(Wrong::Unknown), _) | (_, Some(Wrong::Unknown)) => Some(Wrong::Unknown),
            (None, None) => None,
        }
    }
}

/// Whether and how to load a patch that changes these.
pub fn plan(changes: &Changes, builds: &BTreeMap<TargetName, Builds>, terms: Terms) -> Plan {
    let judged =
        |target: &Target| builds.get(&target.name).unwrap_or(&Builds::UNKNOWN).wrong(&target.build_id);
    let wrong: Vec<(TargetName, Wrong)> =
        changes.targets.iter().filter_map(|target| Some((target.name.clone(), judged(target)?))).collect();
    let nothing_left = !changes.kernel && wrong.len() == changes.targets.len();
    match (wrong.is_empty(), terms) {
        (true, _) => Plan::Load { skip: Vec::new() },
        (false, Terms { allow_partial: false, .. }) => Plan::Held(Held::NotAllowed, wrong),
        (false, Terms { can_skip: false, .. }) => Plan::Held(Held::CannotSkip, wrong),
        (false, _) if nothing_left => Plan::Held(Held::NothingLeft, wrong),
        (false, _) => Plan::Load { skip: wrong.into_iter().map(|(name, _)| name).collect() },
    }
}

/// The parameters of the load.
pub fn parameters(skip: &[TargetName]) -> String {
    if skip.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = skip.iter().map(TargetName::as_str).collect();
    format!("skip={}", names.join(","))
}

impl Held {
    /// For people; `wrong` are the targets that hold it.
    pub fn message(self, wrong: &[(TargetName, Wrong)]) -> String {
        /// As many as fit into a status beside the rest.
        const SHOWN: usize = 3;
        let mut names: Vec<String> = wrong
            .iter()
            .take(SHOWN)
            .map(|(name, wrong)| match wrong {
                Wrong::Foreign => format!("{name} is another build"),
                Wrong::Unknown => format!("the build of {name} is not known"),
            })
            .collect();
        if wrong.len() > SHOWN {
            names.push(format!("{} more", wrong.len() - SHOWN));
        }
        let why = match self {
            Self::NotAllowed => "the policy does not allow to leave modules out",
            Self::CannotSkip => "the patch cannot leave modules out",
            Self::NothingLeft => "the patch changes nothing else",
        };
        format!("{}; {why}", names.join(", "))
    }
}

/// What the kernel shows of a target, while the patch is on.
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own that the kernel shows")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shown {
    /// It is patched.
    pub patched: bool,
    /// The patch was loaded without it.
    pub skipped: bool,
    /// The patch holds what it has patched.
    pub pinned: bool,
    /// It was refused, and what that left in the patch would have it refused again.
    pub needs_heal: bool,
}

/// What a loader remembers of one patch's targets: how often each was healed since it was last seen
/// loaded. Not for the journal: to heal once more is harmless.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    patch: Option<ModuleName>,
    healed: BTreeMap<TargetName, u32>,
    /// It has been told that these cannot be healed.
    told: BTreeSet<TargetName>,
}

/// One target with everything that tells how it stands.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The target.
    pub target: &'a Target,
    /// Its builds.
    pub builds: &'a Builds,
    /// What the kernel shows.
    pub shown: Shown,
}

impl Memory {
    /// Another patch has nothing left of what this one was healed of.
    pub fn of(&mut self, patch: &ModuleName) -> &mut Self {
        if self.patch.as_ref() != Some(patch) {
            *self = Self { patch: Some(patch.clone()), ..Self::default() };
        }
        self
    }

    /// How it stands.
    pub fn state(&self, facts: &Facts<'_>) -> TargetState {
        let wanted = &facts.target.build_id;
        if facts.shown.skipped {
            return TargetState::Skipped;
        }
        match (facts.builds.loaded.wrong(wanted), facts.shown.patched) {
            (Some(Wrong::Foreign), _) => return TargetState::ForeignBuild,
            (Some(Wrong::Unknown), _) => return TargetState::UnknownBuild,
            (None, true) if facts.shown.pinned => return TargetState::Pinned,
            (None, true) => return TargetState::Patched,
            (None, false) => {}
        }
        match facts.builds.file.wrong(wanted) {
            Some(Wrong::Foreign) => return TargetState::ForeignBuild,
            Some(Wrong::Unknown) => return TargetState::UnknownBuild,
            None => {}
        }
        match (facts.shown.needs_heal, self.times(&facts.target.name)) {
            (true, 0) => TargetState::NeedsHeal,
            (true, _) | (false, 2..) => TargetState::Refused,
            (false, 0 | 1) => TargetState::Absent,
        }
    }

    /// Whether to heal it now: the kernel refused it, it is not there, and what would be taken next is
    /// the right build. A wrong one would only be refused again.
    pub fn is_to_heal(&self, facts: &Facts<'_>) -> bool {
        facts.shown.needs_heal
            && match self.state(facts) {
                TargetState::NeedsHeal | TargetState::Refused => true,
                TargetState::Absent
                | TargetState::Patched
                | TargetState::Pinned
                | TargetState::Skipped
                | TargetState::ForeignBuild
                | TargetState::UnknownBuild => false,
            }
    }

    /// It was healed.
    pub fn healed(&mut self, target: &TargetName) {
        let times = self.healed.entry(target.clone()).or_default();
        *times = times.saturating_add(1);
        self.told.remove(target);
    }

    /// It could not be healed; false if that was told before.
    pub fn is_news(&mut self, target: &TargetName) -> bool {
        self.told.insert(target.clone())
    }

    /// It was seen loaded and patched: whatever was, is over.
    pub fn loaded(&mut self, target: &TargetName) {
        self.healed.remove(target);
    }

    fn times(&self, target: &TargetName) -> u32 {
        self.healed.get(target).copied().unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "tests/plan.rs"]
mod tests;
