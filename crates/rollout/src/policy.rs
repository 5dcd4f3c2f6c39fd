//! What a policy asks for, already checked.

use invivo_terms::{Mechanism, SetName};
use jiff::Timestamp;

/// A policy's wishes, already checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What to aim at.
    pub target: Wish,
    /// The stages as written; nodes in none of them follow in a last stage `rest`.
    pub stages: Vec<Stage>,
    /// The pace of the last stage where it is not written out.
    pub rest: Stage,
    /// From instruction to applied.
    pub node_deadline: std::time::Duration,
    /// A person's brake.
    pub paused: bool,
    /// How patches take effect.
    pub mechanism: Mechanism,
    /// Kernel modules that are another build on a node may be left out.
    pub allow_partial: bool,
    /// Nothing is instructed; everything else is as it would be.
    pub dry_run: bool,
    /// How many nodes may fail in one rollout.
    pub failure_budget: Budget,
    /// What follows when more fail.
    pub on_failure: OnFailure,
    /// What becomes of a rollout when `Latest` comes to be a newer set.
    pub supersede: Supersede,
    /// What becomes of a level whose set is withdrawn.
    pub on_withdrawn: OnWithdrawn,
    /// What a node gets whose stage has not begun and that has less than what is proven.
    pub new_nodes: NewNodes,
    /// When nodes may start; at any time where there is none.
    pub windows: Vec<Window>,
    /// When they may not, whatever the windows say.
    pub blackouts: Vec<Blackout>,
    /// An emergency: this set's soaks are skipped up to a moment.
    pub expedite: Option<Expedite>,
}

impl Default for Policy {
    /// The newest set, one node after the other, with every brake as people get it unasked.
    fn default() -> Self {
        Self {
            target: Wish::Latest,
            stages: Vec::new(),
            rest: Stage::new("rest"),
            node_deadline: std::time::Duration::from_mins(10),
            paused: false,
            mechanism: Mechanism::Livepatch,
            allow_partial: false,
            dry_run: false,
            failure_budget: Budget::Nodes(0),
            on_failure: OnFailure::Pause,
            supersede: Supersede::Finish,
            on_withdrawn: OnWithdrawn::Keep,
            new_nodes: NewNodes::Proven,
            windows: Vec::new(),
            blackouts: Vec::new(),
            expedite: None,
        }
    }
}

/// How many nodes may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// This many.
    Nodes(u32),
    /// This share of the policy's nodes in per cent, rounded down.
    Percent(u8),
}

/// What follows when more nodes fail than may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Nothing starts any more.
    Pause,
    /// Neither, and nodes that this rollout moved go back where they came from.
    RollBack,
}

/// What becomes of a rollout when `Latest` comes to be a newer set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supersede {
    /// It ends first.
    Finish,
    /// The newer set's begins at once.
    Restart,
}

/// What becomes of a level whose set is withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnWithdrawn {
    /// It stays where it is.
    Keep,
    /// It is taken off.
    RollBack,
}

/// What a node gets whose stage has not begun and that has less than what is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewNodes {
    /// The level that this policy has proven for its kernel build.
    Proven,
    /// Nothing until its stage begins.
    Staged,
}

/// A window in which nodes may start, once a week or more often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The days on which it opens.
    pub days: Vec<jiff::civil::Weekday>,
    /// When it opens. A time that the clocks leave out is the same time after they went forward;
    /// one that they show twice is the first of the two.
    pub start: jiff::civil::Time,
    /// How long it is open, whatever the clocks do meanwhile.
    pub duration: std::time::Duration,
    /// Whose days and clocks.
    pub zone: jiff::tz::TimeZone,
}

/// A time in which nothing starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blackout {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end; not part of it.
    pub until: Timestamp,
}

/// An emergency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expedite {
    /// The set whose soaks are skipped.
    pub set: SetName,
    /// Up to when.
    pub until: Timestamp,
}

/// What a policy aims at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The newest eligible set; never lowers a node.
    Latest,
    /// No patch.
    None,
    /// This set.
    Named(SetName),
}

/// One stage. Which nodes are in it was decided by their labels, see [`Node::stage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Goes on although no node is in it.
    pub optional: bool,
    /// Takes this share in per cent of the policy's nodes of each kernel build, rounded up, of those
    /// that no stage before it has; which ones is decided when it begins.
    pub share: Option<u8>,
    /// Nodes that differ in this label move one group after the other.
    pub spread: Option<String>,
    /// How many may move at once.
    pub max_parallel: Parallel,
    /// How long it is watched after its last node reported.
    pub soak: std::time::Duration,
}

impl Stage {
    /// A stage of this name, one node at a time, without a soak.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            optional: false,
            share: None,
            spread: None,
            max_parallel: Parallel::Nodes(1),
            soak: std::time::Duration::ZERO,
        }
    }
}

/// How many may move at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parallel {
    /// This many.
    Nodes(u32),
    /// This share of the stage's nodes in per cent, rounded down, at least 1.
    Percent(u8),
}
