//! What a decision leaves for the next one, in the policy's status.

use std::collections::BTreeMap;

use invivo_terms::{BuildId, Digest, Level, Mechanism, SetName};
use jiff::Timestamp;

/// What earlier decisions left in the policy's status. Written by compare-and-swap *before* the
/// plan's actions are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// The rollout under way or the last one.
    pub rollout: Option<RolloutMemory>,
    /// What every stage has been through, per build.
    pub proven: BTreeMap<BuildId, (Level, SetName)>,
    /// The last rollouts that are over, the latest last; at most [`HISTORY`].
    pub history: Vec<Finished>,
}

/// How many rollouts that are over are remembered.
pub const HISTORY: usize = 10;
/// How many pieces of evidence a rollout keeps while it is under way: each names a node that failed,
/// so that one that leaves is still counted.
pub const EVIDENCE: usize = 20;
/// How many of these are remembered once it is over.
pub const EVIDENCE_AFTERWARDS: usize = 5;

/// How long one piece of evidence may be, in bytes.
pub const EVIDENCE_BYTES: usize = 1024;

/// A rollout that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its number.
    pub number: u64,
    /// What the policy aimed at before it.
    pub from: Option<SetName>,
    /// What it aimed at; none for "no patch".
    pub to: Option<SetName>,
    /// How it ended.
    pub outcome: Outcome,
    /// Attempts begun.
    pub started: u32,
    /// Nodes that failed.
    pub failed: u32,
    /// When it began.
    pub since: Timestamp,
    /// When it was over.
    pub ended: Timestamp,
    /// Who failed, and how.
    pub evidence: Vec<Evidence>,
}

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every stage was through.
    Complete,
    /// Another target came before it was.
    Superseded,
    /// Too many nodes failed.
    Failed,
    /// Too many nodes failed, and those that it moved went back.
    RolledBack,
}

/// One node or gate that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Its name.
    pub who: String,
    /// It is a gate.
    pub gate: bool,
    /// When that was first seen.
    pub at: Timestamp,
    /// What it said, and its log of it; at most [`EVIDENCE_BYTES`].
    pub what: String,
}

/// Which nodes a stage takes that takes a share: for each kernel build those whose place in the
/// rollout's order is not above this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Index of the stage.
    pub stage: usize,
    /// The last place that is in it.
    pub kernels: BTreeMap<BuildId, u64>,
}

/// A rollout's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutMemory {
    /// Rises with each change of the resolved target.
    pub number: u64,
    /// When it began.
    pub since: Timestamp,
    /// What the policy aimed at before it.
    pub from: Option<SetName>,
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
    /// Which nodes the stages have taken that take a share.
    pub cuts: Vec<Cut>,
    /// Every stage is through.
    pub complete: bool,
    /// It failed, and the nodes that it moved go back where they came from.
    pub returning: bool,
    /// Who failed, and how; at most [`EVIDENCE`].
    pub evidence: Vec<Evidence>,
    /// The latest deadline of the rollouts before this one, or when this one began, whichever is
    /// later. An instruction with a later deadline was given in this rollout.
    pub before: Option<Timestamp>,
    /// The latest deadline given in this rollout; none before its first instruction. A node that
    /// was counted in `started` but is not seen by then has not moved and will not.
    pub deadline: Option<Timestamp>,
}
