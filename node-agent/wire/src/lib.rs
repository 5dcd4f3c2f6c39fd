//! What agent and loader say to each other over their Unix socket.
//!
//! The agent asks, the loader answers; the loader believes nothing but what it can verify itself.
//! A message is a [`frame`]: a length, a JSON head, and raw bytes behind it where the head says so.

mod ask;
pub mod frame;

pub use ask::{AskError, Patient, ask};

use invivo_feed::Floors;
use invivo_terms::{
    Arch, BuildId, Digest, Level, Mechanism, ModuleName, NodeState, Refusal, Revision, SetName, TargetName,
    TargetState, words,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a node keeps what the loader must not forget, unless its chart says otherwise.
pub const STATE_FOLDER: &str = "/var/lib/invivo";
/// The socket for root on the node, in that folder: nobody else can enter it.
pub const ROOT_SOCKET: &str = "root.sock";

/// What the agent asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// How do things stand?
    State,
    /// Something came or went among the kernel's modules: look, see to it, and say how things stand.
    /// Where to look and what to do about it the loader decides by itself.
    Look,
    /// Take room on the disk for a level that is to be fetched, until it is passed or something else is
    /// asked. The answer's reason is about that alone: none, or `StorageFull`.
    Reserve {
        /// Of its module and proof.
        bytes: u64,
    },
    /// Bring the kernel to a level. Two blobs follow the head: the proof (JSON), the module's bytes.
    Apply(ApplyRequest),
    /// Take every patch off.
    RollBack(RollBackRequest),
    /// Nothing is to be done for this revision; remember it.
    Hold {
        /// The instruction's place in the order of instructions.
        order: Order,
    },
    /// Forget every verdict. Root's alone, on the node itself: nothing that comes over the network
    /// may put a convicted bundle on again.
    ClearVerdicts,
}

/// The place of an instruction in the order of instructions for this node. The loader's journal keeps it
/// too, which an earlier loader must be able to read: fields that it does not know are let be. What a
/// loader must not overlook belongs into the request, which is strict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Uid of the NodePatch object; revisions are compared within one uid.
    pub object: String,
    /// The revision.
    pub revision: Revision,
}

/// Bring the kernel to a level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplyRequest {
    /// The instruction's place.
    pub order: Order,
    /// The kernel build that it is for.
    pub build_id: BuildId,
    /// The level.
    pub level: Level,
    /// The set it comes with.
    pub set: SetName,
    /// The set's digest.
    pub digest: Digest,
    /// The manifest's digest.
    pub manifest: Digest,
    /// How it takes effect.
    pub mechanism: Mechanism,
    /// The transition is undone if it has not ended by then, or within the longest time that the
    /// loader waits for any.
    pub deadline: Timestamp,
    /// Seconds of quiet after which the level counts as settled.
    pub settle_after_seconds: u64,
    /// Kernel modules that are another build here than the patch is for may be left out of it.
    #[serde(default)]
    pub allow_partial: bool,
    /// Highest floors that the agent knows from the cluster; they only raise the loader's own.
    pub floors: Floors,
    /// The patch server's `Date` at the fetch.
    pub server_date: Option<Timestamp>,
}

/// Take every patch off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RollBackRequest {
    /// The instruction's place.
    pub order: Order,
    /// The transition is given up if it has not ended by then, or within the longest time that the
    /// loader waits for any.
    pub deadline: Timestamp,
}

/// What the loader answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Answer {
    /// How things stand, after whatever was asked.
    State(Box<State>),
    /// The verdicts that are no more.
    Cleared {
        /// They may have been none.
        verdicts: Vec<Verdict>,
    },
    /// The request itself was not understood or may not come from this peer; nothing was done.
    Refused {
        /// For the agent's log.
        detail: String,
    },
}

/// How things stand on the node, read from the kernel and the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    /// `/proc/sys/kernel/random/boot_id`
    pub boot_id: String,
    /// The running kernel.
    pub kernel: Kernel,
    /// The highest instruction known, of the object last heard of.
    pub order: Option<Order>,
    /// What the kernel says is active; 0 is unpatched.
    pub level: Level,
    /// The set it came with.
    pub set: Option<SetName>,
    /// Digest of its manifest.
    pub manifest: Option<Digest>,
    /// What a scanner may believe.
    pub effective: String,
    /// What became of the instruction.
    pub state: NodeState,
    /// Since when.
    pub since: Timestamp,
    /// Seconds until an applied level counts as settled.
    pub settles_in_seconds: Option<u64>,
    /// Seconds that the node ran without its settled level after the last boot.
    pub unpatched_seconds: Option<u32>,
    /// Why, where the state is not what was asked for.
    pub reason: Option<Reason>,
    /// The same for people, at most 256 bytes.
    pub message: Option<String>,
    /// What was found, where the state is a verdict.
    pub evidence: Option<Evidence>,
    /// Threads that kept the transition from ending, at most five.
    pub blockers: Vec<Blocker>,
    /// Milliseconds from the module's load to the end of the last transition.
    pub switch_millis: Option<u32>,
    /// The versions below which the loader believes nothing, of the repository last heard of.
    pub floors: Floors,
    /// The kernel modules that the patch changes, while it is on.
    #[serde(default)]
    pub targets: Vec<Target>,
    /// Bytes for which the state folder has room, where that is known.
    #[serde(default)]
    pub room: Option<u64>,
}

/// A kernel module that the patch changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// Its name.
    pub name: TargetName,
    /// How it stands.
    pub state: TargetState,
}

/// What is held against one bundle on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// How sure.
    pub judgement: Judgement,
    /// The bundle's module, by which records of panics name it.
    pub module: ModuleName,
    /// The bundle's level.
    pub level: Level,
    /// The set it came with.
    pub set: SetName,
    /// Since when.
    pub since: Timestamp,
    /// What was found.
    pub evidence: Option<Evidence>,
}

/// How sure a verdict is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Judgement {
    /// Not loaded again by itself; one new instruction may try again.
    Suspected,
    /// Never loaded again on this node.
    Convicted,
}

impl Judgement {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Suspected => "suspected",
            Self::Convicted => "convicted",
        }
    }
}

/// What was found of a kernel's end. The whole record stays in the node's state folder, named by
/// its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Digest of the record.
    pub digest: Digest,
    /// The line that tells, at most 200 bytes.
    pub excerpt: String,
}

/// A thread that keeps a transition from ending. Kept in the journal, like an [`Order`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocker {
    /// Thread id on the host.
    pub tid: u32,
    /// Its short name, at most 15 bytes of the kernel's.
    pub comm: String,
    /// Uid of the pod that it belongs to, if it does.
    pub pod_uid: Option<String>,
    /// The container's id, if it is in one.
    pub container: Option<String>,
}

/// The running kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kernel {
    /// Its GNU build id.
    pub build_id: BuildId,
    /// `uname -r`
    pub release: String,
    /// The distribution's version, read from `uname -v` where it stands there.
    pub version: Option<String>,
    /// `uname -m`
    pub arch: Arch,
    /// The mechanisms that it has.
    pub supports: Vec<Mechanism>,
    /// What it demands of modules.
    pub signing: Signing,
}

/// What a kernel demands of modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Signing {
    /// Unsigned modules load.
    Off,
    /// Modules must be signed by a key the kernel trusts.
    Enforced,
    /// The kernel is locked down.
    Lockdown,
}

/// Why the state is not what was asked for: a named refusal, or something that went wrong doing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reason {
    /// Verification said no.
    Refusal(Refusal),
    /// The doing went wrong.
    Fault(Fault),
}

words! {
    /// What can go wrong on the node besides a refusal.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub enum Fault {
        /// The instruction is older than one already known.
        StaleInstruction,
        /// The deadline passed before the transition ended; it was reversed.
        TransitionStuck,
        /// It could not even be reversed; left alone.
        CannotReverse,
        /// A livepatch that is not ours is active; ours would replace it.
        ForeignLivepatch,
        /// The kernel takes only modules signed by a key that it trusts, and this one is not.
        ModuleSigningKeyMissing,
        /// The kernel is locked down, and does not take this module.
        Lockdown,
        /// The kernel has no livepatch.
        NoLivepatch,
        /// The deadline had passed before anything began.
        DeadlinePassed,
        /// The level is lower than the one on the node; a lower one needs every patch taken off first.
        LowerLevel,
        /// The node's state folder or kernel files could not be read or written.
        NodeIo,
        /// The loader's journal cannot be read or does not parse. Neither instructions nor floors are
        /// known; nothing is done until they are.
        JournalUnreadable,
        /// The node booted anew before the level had settled; it is not applied again by itself.
        RebootedUnsettled,
        /// The node went down while its settled level was being brought back after a boot; it is not
        /// brought back again by itself.
        RebootedBringingBack,
        /// The bundle was suspected before, and a boot ended anew before it had settled.
        RebootedAgain,
        /// The record of a panic names the bundle's module.
        PanicNamesPatch,
        /// The bundle was convicted on this node before; it is not loaded.
        ConvictedHere,
        /// The kernel oopsed before the level had settled; it was taken off again.
        KernelOops,
        /// A processor was stuck before the level had settled; it was taken off again.
        KernelLockup,
        /// The kernel warned of something before the level had settled; it stays on.
        KernelWarning,
        /// The kernel warned in the level's own code before it had settled; it was taken off again.
        WarningNamesPatch,
        /// The patch was active and is gone, by nobody's instruction.
        Vanished,
        /// A kernel module that the patch changes is another build here, or its build cannot be known;
        /// the whole patch is held.
        ForeignTarget,
    }
}

impl Reason {
    /// The name as it stands in statuses, Events and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refusal(refusal) => refusal.as_str(),
            Self::Fault(fault) => fault.as_str(),
        }
    }
}
