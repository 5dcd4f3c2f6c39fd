//! What the loader must not forget: instructions, floors, what is on, what comes back after a boot.

use std::collections::{BTreeMap, BTreeSet};

use invivo_feed::Floors;
use invivo_terms::{BuildId, Digest, Level, ModuleName, NodeState, SetName};
use invivo_wire::{Blocker, Evidence, Order, Reason};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::health::Health;
use crate::verdict::Verdicts;

/// The journal, one file in the state folder. Written before and after everything that is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Journal {
    /// The boot in which a loader last came up: what that boot took off is back, or will not come
    /// back in it.
    pub boot_id: Option<String>,
    /// The highest instruction known.
    pub order: Option<Order>,
    /// What is being done; stays behind if the loader is killed at it.
    pub task: Option<Task>,
    /// What became of the last instruction.
    pub outcome: Option<Outcome>,
    /// What is on, in the boot that it names.
    pub active: Option<Active>,
    /// What comes back after a boot.
    pub settled: Option<Loaded>,
    /// How long this boot ran without it.
    pub unpatched: Option<Unpatched>,
    /// The floors, by the pinned root that they belong to.
    pub floors: BTreeMap<Digest, Floors>,
    /// The root last heard of.
    pub last_root: Option<Digest>,
    /// What is held against bundles on this node.
    pub verdicts: Verdicts,
    /// Records of panics that were there when a loader last came up: they are evidence of nothing
    /// that happened since.
    pub records: BTreeSet<Digest>,
}

/// What is being done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Task {
    /// In which boot.
    pub boot_id: String,
    /// What.
    pub what: Doing,
    /// Until when; an instruction's own deadline.
    pub deadline: Timestamp,
    /// The kernel's health before it began, where that could be read.
    pub health: Option<Health>,
}

/// What is being done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Doing {
    /// A level is being put on.
    Applying(Box<Loaded>),
    /// A level that was on before is being put on again, by nobody's instruction.
    BringingBack(Box<Loaded>),
    /// Every level is being taken off.
    RollingBack,
    /// This one is being taken off by the loader itself: it did harm.
    Undoing(Box<Loaded>),
}

/// A level as it was verified, enough to verify and load it again from the state folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Loaded {
    /// The kernel build that it is for.
    pub build_id: BuildId,
    /// The module.
    pub module: ModuleName,
    /// Digest of the module's bytes; names the stored files.
    pub module_digest: Digest,
    /// The level.
    pub level: Level,
    /// The set it came with.
    pub set: SetName,
    /// That set's digest.
    pub set_digest: Digest,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// The version up to which all fixes are in, where the author claims that.
    pub complete: Option<String>,
    /// Seconds of quiet after which it counts as settled.
    pub settle_after_seconds: u64,
    /// The pinned root that the proof begins with.
    pub root: Digest,
}

/// What is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Active {
    /// In which boot.
    pub boot_id: String,
    /// The level.
    pub loaded: Loaded,
    /// Seconds from boot to the end of the transition, suspend counted.
    pub since_boot_seconds: u64,
    /// It has been quiet for its settling time.
    pub settled: bool,
    /// The kernel oopsed or was stuck since, and it could not be taken off: it never settles.
    #[serde(default)]
    pub harmed: bool,
    /// The kernel's health before it came, where that could be read.
    pub health: Option<Health>,
}

/// What became of an instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Outcome {
    /// In one word.
    pub state: NodeState,
    /// Why, where it is not what was asked for.
    pub reason: Option<Reason>,
    /// The same for people, at most 256 bytes.
    pub message: Option<String>,
    /// Since when.
    pub since: Timestamp,
    /// What was found, where it is a verdict.
    pub evidence: Option<Evidence>,
    /// Who kept a transition from ending.
    #[serde(default)]
    pub blockers: Vec<Blocker>,
    /// From the module's load to the end of the transition.
    pub switch_millis: Option<u32>,
}

/// How long a boot ran without its settled level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Unpatched {
    /// Which boot.
    pub boot_id: String,
    /// From its start to the end of the transition.
    pub seconds: u32,
}

impl Outcome {
    /// Reached, with nothing to say.
    pub fn reached(state: NodeState, since: Timestamp) -> Self {
        Self {
            state,
            reason: None,
            message: None,
            since,
            evidence: None,
            blockers: Vec::new(),
            switch_millis: None,
        }
    }

    /// Not reached, and why. The message is cut to 256 bytes.
    pub fn missed(state: NodeState, reason: Reason, message: impl Into<String>, since: Timestamp) -> Self {
        Self {
            state,
            reason: Some(reason),
            message: Some(cut(message.into())),
            since,
            evidence: None,
            blockers: Vec::new(),
            switch_millis: None,
        }
    }
}

impl Outcome {
    /// What followed from it.
    pub(crate) fn add(&mut self, text: &str) {
        let before = self.message.take().map(|message| format!("{message}; ")).unwrap_or_default();
        self.message = Some(cut(before + text));
    }
}

fn cut(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(256));
    message
}

impl Journal {
    /// The floors below which nothing under `root` is believed.
    pub fn floors_of(&self, root: &Digest) -> Floors {
        self.floors.get(root).cloned().unwrap_or_default()
    }

    /// What was put on in this boot.
    pub fn active_in(&self, boot_id: &str) -> Option<&Active> {
        self.active.as_ref().filter(|active| active.boot_id == boot_id)
    }

    /// Digests of the stored modules that are still needed.
    pub fn needed(&self) -> Vec<&Digest> {
        let task = self.task.as_ref().and_then(|task| match &task.what {
            Doing::Applying(loaded) | Doing::BringingBack(loaded) => Some(&loaded.module_digest),
            Doing::RollingBack | Doing::Undoing(_) => None,
        });
        let active = self.active.as_ref().map(|active| &active.loaded.module_digest);
        let settled = self.settled.as_ref().map(|settled| &settled.module_digest);
        [task, active, settled].into_iter().flatten().collect()
    }
}
