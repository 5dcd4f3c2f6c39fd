//! What the planner looks at, and what it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use invivo_terms::{Block, BuildId, Digest, Excuse, Hold, Level, Mechanism, NodeState, Revision, SetName};
use jiff::Timestamp;

use crate::{Memory, Policy};

/// Everything that one decision about one policy rests on.
#[derive(Debug, Clone)]
pub struct World {
    /// The time of the decision, at the earliest.
    pub now: Timestamp,
    /// How much later it may be, where the caller knows whole seconds only. Soaks last that much
    /// longer.
    pub imprecision: Duration,
    /// What the policy asks for.
    pub policy: Policy,
    /// What the feed offers.
    pub offer: Offer,
    /// What earlier decisions left in the policy's status.
    pub memory: Memory,
    /// The nodes that the policy governs, by name.
    pub nodes: BTreeMap<String, Node>,
    /// What must be well for a stage to start, to go on and to end.
    pub gates: Vec<Gate>,
    /// Brakes from outside the policy.
    pub brakes: Brakes,
    /// Nodes of the rollout under way that are gone: they vanished in flight or before they had
    /// settled. They failed, and do not take that with them.
    pub vanished: BTreeSet<String>,
}

/// One thing that must be well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Its name.
    pub name: String,
    /// It looks at something else than the words of the nodes that the rollout moved, and so may
    /// decide about others of them.
    pub foreign: bool,
    /// The rollout's number and the stage that it was asked about; none if it holds for every one.
    pub about: Option<(u64, usize)>,
    /// What it says.
    pub verdict: GateVerdict,
}

/// What a gate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateVerdict {
    /// All is well.
    Passed,
    /// Something is wrong.
    Failed {
        /// What, for people.
        message: String,
    },
    /// It cannot be told, which is not well.
    Unknown {
        /// Why, for people.
        message: String,
    },
}

/// Brakes from outside the policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Brakes {
    /// People stopped everything: nothing starts, and what is not applied yet is held.
    pub emergency_stop: bool,
    /// How many more nodes may start before the whole fleet's limit is reached; none is no limit.
    pub fleet: Option<u32>,
}

/// What the feed offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// Not known or not to be trusted now; nothing new starts, nothing is taken back.
    Unknown,
    /// A person suspended it; nothing new starts, nothing is taken back.
    Suspended,
    /// These sets, in order of publication; what is withheld is marked.
    Sets(Vec<Set>),
}

/// One publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name.
    pub name: SetName,
    /// Its digest.
    pub digest: Digest,
    /// Why it is withheld, if it is.
    pub blocked: Option<Blocked>,
    /// What it brings to the builds it touches. A build that it does not touch has the highest
    /// level of the sets before it.
    pub kernels: BTreeMap<BuildId, SetKernel>,
}

/// Why a set is withheld.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocked {
    /// The reason.
    pub reason: Block,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

impl Set {
    /// Whether `Latest` may choose it.
    pub fn is_eligible(&self) -> bool {
        self.blocked.is_none()
    }

    /// Whether its author still stands by it.
    pub fn is_active(&self) -> bool {
        !self.is_blocked_by(Block::Withdrawn)
    }

    /// Whether it may be loaded where a person names it.
    pub fn may_be_named(&self) -> bool {
        self.blocked.is_none_or(|blocked| !blocked.reason.stops_named())
    }

    /// Whether it is withheld for this reason.
    pub fn is_blocked_by(&self, reason: Block) -> bool {
        self.blocked.is_some_and(|blocked| blocked.reason == reason)
    }
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
    /// Index of the first stage in `policy.stages` that its labels match, or its length for `rest`.
    /// A stage that takes a share may take it before that.
    pub stage: usize,
    /// What the kubelet reports.
    pub ready: Readiness,
    /// A person keeps new pods away from it.
    pub cordoned: bool,
    /// A person holds it.
    pub held: Option<HeldByPerson>,
    /// Its values of the labels that stages spread over.
    pub domains: BTreeMap<String, String>,
    /// Another policy governs it.
    pub claimed_by_other: bool,
    /// The instruction it has; none before its NodePatch exists.
    pub spec: Option<Instructed>,
    /// What its agent reported; none before the first report.
    pub report: Option<Report>,
}

/// Whether the kubelet reports Ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It does.
    Ready,
    /// It does not, or is not heard of, since then.
    NotReady {
        /// As the control plane tells it.
        since: Timestamp,
    },
}

impl Readiness {
    /// It reports Ready.
    pub const fn is_ready(self) -> bool {
        matches!(self, Self::Ready)
    }
}

/// A person's hold of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldByPerson {
    /// When it ends by itself.
    pub until: Option<Timestamp>,
}

/// The instruction that a node has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instructed {
    /// Its revision.
    pub revision: Revision,
    /// What it says.
    pub instruction: Instruction,
    /// Another policy gave it, which has had the node before.
    pub by_other: bool,
}

/// What a node is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Bring the kernel to this level.
    Apply(Apply),
    /// Take every patch off.
    RollBack {
        /// Where it goes next: unpatched where it stays so.
        to: (Level, Option<SetName>),
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
    /// What it says about that, where it is no success.
    pub why: Option<String>,
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
    /// The stage of each node that a share has taken before the one that its labels say.
    pub stages: BTreeMap<String, usize>,
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
