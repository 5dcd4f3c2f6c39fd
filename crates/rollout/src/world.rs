//! What the planner looks at, and what it answers.

use std::collections::{BTreeMap, BTreeSet};

use invivo_terms::{BuildId, Digest, Excuse, Hold, Level, Mechanism, NodeState, Revision, SetName};
use jiff::Timestamp;

/// Everything that one decision about one policy rests on.
#[derive(Debug, Clone)]
pub struct World {
    /// The time of the decision.
    pub now: Timestamp,
    /// What the policy asks for.
    pub policy: Policy,
    /// What the feed offers.
    pub offer: Offer,
    /// What earlier decisions left in the policy's status.
    pub memory: Memory,
    /// The nodes that the policy governs, by name.
    pub nodes: BTreeMap<String, Node>,
}

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
    /// How many may move at once.
    pub max_parallel: Parallel,
    /// How long it is watched after its last node reported.
    pub soak: std::time::Duration,
}

/// How many may move at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parallel {
    /// This many.
    Nodes(u32),
    /// This share of the stage's nodes in per cent, rounded down, at least 1.
    Percent(u8),
}

/// What the feed offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// Not known or not to be trusted now; nothing new starts, nothing is taken back.
    Unknown,
    /// These sets, in order of publication; withdrawn ones are marked.
    Sets(Vec<Set>),
}

/// One publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: SetName,
    /// Its digest.
    pub digest: Digest,
    /// Whether `Latest` may choose it.
    pub eligible: bool,
    /// Whether it may be loaded at all: withdrawn sets may not.
    pub active: bool,
    /// What it brings to the builds it touches. A build that it does not touch has the highest
    /// level of the sets before it.
    pub kernels: BTreeMap<BuildId, SetKernel>,
}

/// What a set brings for one build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetKernel {
    /// The level.
    pub level: Level,
    /// Digest of its manifest.
    pub manifest: Digest,
}

/// One node as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Index of its stage in `policy.stages`, or its length for `rest`.
    pub stage: usize,
    /// The kubelet reports Ready.
    pub ready: bool,
    /// Another policy governs it.
    pub claimed_by_other: bool,
    /// The instruction it has; none before its NodePatch exists.
    pub spec: Option<Instructed>,
    /// What its agent reported; none before the first report.
    pub report: Option<Report>,
}

/// The instruction that a node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instructed {
    /// Its revision.
    pub revision: Revision,
    /// What it says.
    pub instruction: Instruction,
}

/// What a node is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Bring the kernel to this level.
    Apply(Apply),
    /// Take every patch off.
    RollBack {
        /// No attempt starts after this.
        deadline: Timestamp,
        /// As [`Apply::attempt`].
        attempt: u32,
    },
    /// Do nothing new.
    Hold,
}

/// Bring the kernel to this level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apply {
    /// The build.
    pub build_id: BuildId,
    /// The level.
    pub level: Level,
    /// The set it came with.
    pub set: SetName,
    /// That set's digest.
    pub digest: Digest,
    /// Its manifest's digest.
    pub manifest: Digest,
    /// How it takes effect.
    pub mechanism: Mechanism,
    /// No attempt starts after this; one under way is undone.
    pub deadline: Timestamp,
    /// Applied for this long is settled.
    pub settle_after: std::time::Duration,
    /// Kernel modules that are another build on the node may be left out.
    pub allow_partial: bool,
    /// What the node ran before.
    pub from: (Level, Option<SetName>),
    /// How many times this rollout has now begun to move the node, counted from 1.
    pub attempt: u32,
}

/// What an agent reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The highest revision that it knows.
    pub observed: Revision,
    /// The running kernel.
    pub build_id: BuildId,
    /// What is active.
    pub level: Level,
    /// The set it came with.
    pub set: Option<SetName>,
    /// What became of the instruction.
    pub state: NodeState,
    /// Why that counts nothing against the patch, where it is no success.
    pub excuse: Option<Excuse>,
    /// Since when.
    pub since: Timestamp,
}

/// What earlier decisions left in the policy's status. Written by compare-and-swap *before* the
/// plan's actions are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// The rollout under way or the last one.
    pub rollout: Option<RolloutMemory>,
    /// What every stage has been through, per build.
    pub proven: BTreeMap<BuildId, (Level, SetName)>,
}

/// A rollout's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutMemory {
    /// Rises with each change of the resolved target.
    pub number: u64,
    /// The resolved target: set and digest, or none for "no patch".
    pub target: Option<(SetName, Digest)>,
    /// How patches take effect.
    pub mechanism: Mechanism,
    /// Attempts begun so far; a node that is tried again counts again.
    pub started: u32,
    /// Of these, ended.
    pub finished: u32,
    /// Nodes that failed.
    pub failed: u32,
    /// The stage under way, as an index like [`Node::stage`].
    pub stage: usize,
    /// When it began.
    pub stage_since: Timestamp,
    /// When its soak ends, once its last node has reported.
    pub soak_until: Option<Timestamp>,
    /// Every stage is through.
    pub complete: bool,
    /// The latest deadline of the rollouts before this one, or when this one began, whichever is
    /// later. An instruction with a later deadline was given in this rollout.
    pub before: Option<Timestamp>,
    /// The latest deadline given in this rollout; none before its first instruction. A node that
    /// was counted in `started` but is not seen by then has not moved and will not.
    pub deadline: Option<Timestamp>,
}

/// What to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The memory to store before anything else.
    pub memory: Memory,
    /// Nodes to instruct now.
    pub actions: BTreeMap<String, Instruction>,
    /// Of these, the ones that the memory's `started` was raised for; the others go on with what
    /// they began.
    pub starts: BTreeSet<String>,
    /// Nodes left alone, and why.
    pub holds: BTreeMap<String, Held>,
    /// Nodes where they should be.
    pub done: BTreeSet<String>,
    /// Nodes instructed that have not ended; a subset of neither `holds` nor `done`.
    pub in_flight: BTreeSet<String>,
    /// Nodes that failed at this target; each is also in `holds`.
    pub failed: BTreeSet<String>,
    /// The stage under way; none where there is nothing to aim at.
    pub stage: Option<StageView>,
    /// When to look again even if nothing changes.
    pub wake: Option<Timestamp>,
}

/// Why a node is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The reason.
    pub hold: Hold,
    /// When it may end by itself.
    pub until: Option<Timestamp>,
}

/// The stage under way, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageView {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: usize,
    /// Its nodes.
    pub total: u32,
    /// At the target.
    pub done: u32,
    /// Instructed, not yet ended.
    pub in_flight: u32,
    /// Ended without success.
    pub failed: u32,
    /// Not waited for.
    pub excused: u32,
}
