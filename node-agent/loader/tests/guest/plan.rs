//! What host and guest say to each other: what is to be done in a boot, and what was seen.

use std::collections::{BTreeMap, BTreeSet};

use invivo_feed::Floors;
use invivo_loader::journal::Journal;
use invivo_terms::{BuildId, Digest, Level, Revision, SetName};
use invivo_wire::{Answer, State};
use serde::{Deserialize, Serialize};

use crate::file_system::FileSystem;

/// What is done in one boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) facts: Facts,
    pub(crate) settle_after_seconds: u64,
    /// What an instruction has until it is late.
    pub(crate) deadline_seconds: u32,
    /// The loader may read the kernel's log.
    pub(crate) kernel_log: bool,
    /// Done before the loader is started.
    pub(crate) before: Vec<Deed>,
    pub(crate) steps: Vec<Step>,
    pub(crate) end: End,
}

/// How a boot ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// The guest stops by itself, its disk in order.
    PowerOff,
    /// It goes on looking until its power is cut.
    Cut,
}

/// What a guest knows of its bundles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) root: Digest,
    pub(crate) offers: Vec<Offer>,
    pub(crate) file_system: FileSystem,
}

/// A bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offer {
    pub(crate) build_id: BuildId,
    pub(crate) level: Level,
    pub(crate) set: SetName,
    pub(crate) set_digest: Digest,
    pub(crate) manifest: Digest,
    pub(crate) module: Digest,
    /// The module's own build id, as the kernel shows it of a loaded one.
    pub(crate) note: Vec<u8>,
    /// Its proofs, the oldest first.
    pub(crate) generations: Vec<Generation>,
}

/// The documents of one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Generation {
    pub(crate) floors: Floors,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    Apply {
        level: Level,
        generation: u32,
        revision: Revision,
        bytes: Bytes,
    },
    RollBack {
        revision: Revision,
    },
    Hold {
        revision: Revision,
    },
    /// Until nothing is unsettled.
    Settle,
    /// Until something is reported.
    Trouble,
    /// The loader's memory runs out when the level is in the kernel and before it has answered: the
    /// kernel kills it. It is started again.
    RunOut {
        level: Level,
        revision: Revision,
    },
    ClearVerdicts,
    /// Done behind the loader's back.
    Meanwhile(Deed),
    /// The loader is killed, this is done, and it is started again.
    Restart(Vec<Deed>),
    /// Level 1, level 2 in its place, both off again, so many times, while the guest has other work.
    Cycles {
        count: u32,
        revision: Revision,
    },
    /// Level 1 on and off again, by the loader and by the kernel alone, so many times.
    Compare {
        count: u32,
        revision: Revision,
    },
}

impl Step {
    /// The place of the first instruction.
    pub(crate) fn revision(&self) -> Option<Revision> {
        match self {
            Self::Apply { revision, .. }
            | Self::RollBack { revision }
            | Self::Hold { revision }
            | Self::RunOut { revision, .. }
            | Self::Cycles { revision, .. }
            | Self::Compare { revision, .. } => Some(*revision),
            Self::Settle | Self::Trouble | Self::ClearVerdicts | Self::Meanwhile(_) | Self::Restart(_) => {
                None
            }
        }
    }
}

/// What befalls a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Deed {
    /// The state folder's file system is filled to its last block.
    Fill,
    /// And has room again.
    Free,
    ReadOnly,
    Writable,
    /// In every file of the state folder.
    Garbage,
    /// In every file of it but the journal's.
    GarbageInLevels,
    /// The journal is one that a later version wrote.
    LaterFormat,
    /// The wall clock is set, by so many seconds.
    Clock(i64),
    /// As firmware does that checks signatures: nothing on the command line tells of it.
    LockDown,
    /// Whether the kernel panics when it oopses.
    PanicOnOops(bool),
    /// A program begins to call what harmful levels redirect, many times a second.
    Read,
    /// The kernel takes a processor for stuck after four seconds.
    Impatient,
    /// A program of [`POD`] forks by `vfork(2)`, and waits for a child that does not go on.
    Fork,
    /// It goes on, and its parent finds what it forked for.
    GoOn,
    /// The loader's program and the one of another version change places.
    Exchange,
}

/// The uid of a pod in the guest.
pub(crate) const POD: &str = "17bc4457-ed03-4733-b60b-5c9b6d21e5b7";
/// The id of its container.
pub(crate) const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// What is passed with a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Bytes {
    /// The module's.
    Good,
    /// One byte is another.
    Changed,
}

/// One line of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Said {
    /// Milliseconds from a loader's start to its first answer, its level brought back before.
    Began(u64),
    /// The loader has come up.
    Up(Box<Look>),
    /// About to ask.
    Asks(Step),
    /// The answer, and how things stand after it.
    Answered(Box<Answer>, Box<Look>),
    /// How things stand, where that is news.
    Looks(Box<Look>),
    /// The thread that sleeps where it does not move to new code.
    Sleeps(u32),
    /// The loader has ended.
    LoaderEnded(String),
    /// What came of a case with kernel modules.
    Case(String),
    /// What came of the cycles.
    Cycled(Vec<Cycle>),
    /// What came of the comparison.
    Compared(Vec<Comparison>),
    /// Everything was done; lines of the kernel's log in which it complains.
    Done(Vec<String>),
}

/// One cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cycle {
    pub(crate) millis: u64,
    /// The loader's own memory after it, in KiB.
    pub(crate) memory: u64,
}

/// One comparison, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// From the load to the end of the transition, without the loader.
    pub(crate) kernel: u64,
    /// From the question to the loader to its answer.
    pub(crate) loader: u64,
    /// What the loader says of the kernel's part in that.
    pub(crate) switch: u64,
}

/// How things stand in the guest, by the loader's word and by others'.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Look {
    /// Milliseconds since the kernel began.
    pub(crate) at: u64,
    pub(crate) state: State,
    pub(crate) journal: Journal,
    /// What is kept of records that verdicts rest on.
    pub(crate) evidence: BTreeMap<String, String>,
    pub(crate) kernel: Kernel,
}

/// What the kernel shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kernel {
    /// Patches that are on and not in transition.
    pub(crate) on: BTreeSet<String>,
    /// Build ids of all modules of ours, loaded from whatever.
    pub(crate) modules: BTreeSet<Vec<u8>>,
    /// What the patched functions say: the levels whose code runs.
    pub(crate) cmdline: Option<Level>,
    pub(crate) version: Option<Level>,
}
