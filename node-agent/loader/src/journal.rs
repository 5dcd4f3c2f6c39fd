//! What the loader must not forget: instructions, floors, what is on, what comes back after a boot.
//!
//! Loaders of other versions read it too. Fields that a later one adds are let be, in whatever is kept
//! here, and those that an earlier one did not know are as in an empty journal. What must not be
//! ignored needs another format word in `slots`.

use std::collections::{BTreeMap, BTreeSet};

use invivo_feed::Floors;
use invivo_terms::{BuildId, Digest, Level, ModuleName, NodeState, SetName};
use invivo_wire::{Blocker, Evidence, Order, Reason};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::health::Health;
use crate::targets::Changes;
use crate::verdict::Verdicts;

/// The journal, one file in the state folder. Written before and after everything that is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Journal {
    /// The boot in which a loader last came up: what that boot took off is back, or will not come
    /// back in it.
    pub boot_id: Option<String>,
    /// The highest instruction known.
    pub order: Option<Order>,
    /// What is being done; stays behind if the loader is killed at it.
    pub task: Option<Task>,
    /// What became of the last instruction.
    #[serde(deserialize_with = "understood")]
    pub outcome: Option<Outcome>,
    /// What is on, in the boot that it names.
    pub active: Option<Active>,
    /// What may come on sooner or later, in the boot that it names.
    pub stray: Option<Stray>,
    /// What the loader is taking off because it did harm, in the boot that it names: it goes later than
    /// was waited for, and is never put on again meanwhile.
    pub leaving: Option<Stray>,
    /// The boot in which the last instruction was to roll back, and ended before its transition: if
    /// nothing is on in the end, it was carried out.
    pub rolls_back_late: Option<String>,
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
    /// Records of panics that loaders have seen, the latest last: they are evidence of nothing that
    /// happened since.
    pub records: Vec<Digest>,
}

/// A reason that only a later version knows is for people, and they were told.
fn understood<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Outcome>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(source)?;
    Ok(value.and_then(|value| serde_json::from_value(value).ok()))
}

/// What is being done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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
#[serde(rename_all = "camelCase")]
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
    /// What it changes.
    #[serde(default)]
    pub changes: Changes,
    /// Targets may be left out of it.
    #[serde(default)]
    pub allow_partial: bool,
}

/// What is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Active {
    /// In which boot.
    pub boot_id: String,
    /// The level.
    pub loaded: Loaded,
    /// Seconds from boot to the end of the transition, suspend counted.
    pub since_boot_seconds: u64,
    /// It has been quiet for its settling time.
    pub settled: bool,
    /// It never settles: the kernel oopsed or was stuck since and it could not be taken off, or nobody
    /// wanted it any more when it came.
    #[serde(default)]
    pub harmed: bool,
    /// The kernel's health before it came, where that could be read.
    pub health: Option<Health>,
}

impl Active {
    /// The kernel's troubles are thought to be its doing.
    pub const fn is_minded(&self) -> bool {
        !self.settled && !self.harmed
    }
}

/// A level whose transition has not ended although nobody waits for it any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stray {
    /// In which boot.
    pub boot_id: String,
    /// The level.
    pub loaded: Loaded,
}

/// What became of an instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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
#[serde(rename_all = "camelCase")]
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
    /// What followed from it. Where there is no room for both, that is told whole.
    pub(crate) fn add(&mut self, text: &str) {
        let room = MESSAGE.saturating_sub(text.len() + JOINED.len());
        let before = self.message.take().map(|message| cut_to(message, room) + JOINED);
        self.message = Some(cut(before.unwrap_or_default() + text));
    }

    /// Both in one: the graver, and of two alike the first, with what the other says. What went well
    /// before is not worth a word.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        if self.gravity() == 0 {
            return other;
        }
        let (mut told, added) = if other.gravity() > self.gravity() { (other, self) } else { (self, other) };
        told.message = match (told.message, added.message) {
            (Some(first), Some(second)) => Some(cut(first + JOINED + &second)),
            (one, other) => one.or(other),
        };
        told
    }

    /// A verdict tells of more than one instruction.
    const fn gravity(&self) -> u8 {
        match self.state {
            NodeState::Idle
            | NodeState::Working
            | NodeState::Applied
            | NodeState::Settled
            | NodeState::RolledBack => 0,
            NodeState::Blocked | NodeState::Refused => 1,
            NodeState::Failed => 2,
            NodeState::Suspected => 3,
            NodeState::Convicted => 4,
        }
    }
}

/// Longest message, in bytes.
const MESSAGE: usize = 256;
/// Between what is told and what is added.
const JOINED: &str = "; ";

fn cut(message: String) -> String {
    cut_to(message, MESSAGE)
}

fn cut_to(mut message: String, bytes: usize) -> String {
    message.truncate(message.floor_char_boundary(bytes));
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

    /// What could neither end nor be reversed in this boot.
    pub fn stray_in(&self, boot_id: &str) -> Option<&Loaded> {
        self.stray.as_ref().filter(|stray| stray.boot_id == boot_id).map(|stray| &stray.loaded)
    }

    /// What the loader is taking off in this boot.
    pub fn leaving_in(&self, boot_id: &str) -> Option<&Loaded> {
        self.leaving.as_ref().filter(|leaving| leaving.boot_id == boot_id).map(|leaving| &leaving.loaded)
    }

    /// What is not put on again in this boot: it did harm, or nobody ever wanted it wholly on.
    pub fn barred_in(&self, boot_id: &str) -> BTreeSet<ModuleName> {
        let active = self.active_in(boot_id).filter(|active| active.harmed).map(|active| &active.loaded);
        let others = [active, self.stray_in(boot_id), self.leaving_in(boot_id)];
        others.into_iter().flatten().map(|loaded| loaded.module.clone()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(state: NodeState, message: &str) -> Outcome {
        let since = Timestamp::UNIX_EPOCH;
        Outcome { message: Some(message.to_owned()), ..Outcome::reached(state, since) }
    }

    #[test]
    fn of_two_outcomes_the_graver_is_told_and_the_other_is_mentioned() {
        let told = |first: NodeState, second: NodeState| {
            let both = outcome(first, "first").and(outcome(second, "second"));
            (both.state, both.message.unwrap())
        };
        assert_eq!(
            told(NodeState::Blocked, NodeState::Convicted),
            (NodeState::Convicted, "second; first".to_owned())
        );
        assert_eq!(
            told(NodeState::Convicted, NodeState::Suspected),
            (NodeState::Convicted, "first; second".to_owned())
        );
        assert_eq!(
            told(NodeState::Failed, NodeState::Failed),
            (NodeState::Failed, "first; second".to_owned())
        );
        assert_eq!(told(NodeState::Settled, NodeState::Idle), (NodeState::Idle, "second".to_owned()));
    }

    #[test]
    fn what_followed_is_told_however_long_the_message_was() {
        let mut long = outcome(NodeState::Failed, &"ä".repeat(127));
        long.add("it was taken off");
        let message = long.message.unwrap();
        assert!(message.starts_with('ä') && message.ends_with("ä; it was taken off"), "{message}");
        assert!(message.len() <= 256);
    }

    #[test]
    fn a_journal_of_another_version_is_read_as_far_as_it_is_understood() {
        let earlier: Journal = serde_json::from_str(r#"{"bootId":"one"}"#).unwrap();
        assert_eq!(earlier, Journal { boot_id: Some("one".to_owned()), ..Journal::default() });
        let later = r#"{"bootId":"one","freezes":3,"outcome":{"state":"failed","reason":{"fault":"fromTheFuture"},
            "message":null,"since":"2026-11-21T12:00:00Z","evidence":null,"switchMillis":null}}"#;
        assert_eq!(serde_json::from_str::<Journal>(later).unwrap(), earlier);
    }
}
