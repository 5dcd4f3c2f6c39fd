//! Why something was not reached, in the words of the wire.

use std::time::Duration;

use invivo_feed::store::StoreError;
use invivo_terms::{ModuleName, NodeState, Refusal};
use invivo_wire::{Blocker, Fault, Reason, Signing};
use rustix::io::Errno;

use crate::errno;
use crate::health::Harm;
use crate::step::End;
use crate::verify::Refused;

/// Why something was not reached; ends up in the outcome.
#[derive(Debug)]
pub(crate) struct Missed {
    pub(crate) state: NodeState,
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) remedy: Remedy,
    /// Who kept a transition from ending.
    pub(crate) blockers: Vec<Blocker>,
}

/// What the loader does about it by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Nothing: it is reported.
    Nothing,
    /// It may pass. What the loader does by its own will it tries again; an instruction has ended.
    TryAgain,
    /// Puts back the patch that its own undoing took off.
    PutBack(ModuleName),
    /// Sees to the end of this one, which the kernel goes on taking off.
    SeeOff(ModuleName),
}

/// How a drive ended well.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) millis: Option<u32>,
}

impl Missed {
    pub(crate) fn fault(fault: Fault, message: impl Into<String>) -> Self {
        let (state, remedy) = match fault {
            Fault::TransitionStuck => (NodeState::Blocked, Remedy::Nothing),
            Fault::StaleInstruction
            | Fault::ForeignLivepatch
            | Fault::ModuleSigningKeyMissing
            | Fault::Lockdown
            | Fault::NoLivepatch
            | Fault::LowerLevel => (NodeState::Refused, Remedy::Nothing),
            // A file on disk or a module that is loaded; both may change.
            Fault::ForeignTarget => (NodeState::Refused, Remedy::TryAgain),
            Fault::NodeIo | Fault::JournalUnreadable => (NodeState::Failed, Remedy::TryAgain),
            Fault::RebootedUnsettled | Fault::RebootedBringingBack => (NodeState::Suspected, Remedy::Nothing),
            Fault::RebootedAgain | Fault::PanicNamesPatch | Fault::ConvictedHere => {
                (NodeState::Convicted, Remedy::Nothing)
            }
            Fault::CannotReverse
            | Fault::DeadlinePassed
            | Fault::KernelOops
            | Fault::KernelLockup
            | Fault::WarningNamesPatch
            | Fault::Vanished => (NodeState::Failed, Remedy::Nothing),
            // It stays on.
            Fault::KernelWarning => (NodeState::Applied, Remedy::Nothing),
        };
        Self { state, reason: Reason::Fault(fault), message: message.into(), remedy, blockers: Vec::new() }
    }

    /// The kernel suffered.
    pub(crate) fn is_harm(&self) -> bool {
        Harm::ALL.map(|harm| Reason::Fault(harm.fault())).contains(&self.reason)
    }

    /// With the names of those who hold a function, where the kernel refused what it may take later.
    pub(crate) fn held_by(self, holders: impl FnOnce() -> Vec<String>) -> Self {
        if self.reason != Reason::Refusal(Refusal::LoadRefused) || self.remedy != Remedy::TryAgain {
            return self;
        }
        let message = [vec![self.message], holders()].concat().join("; ");
        Self { message, ..self }
    }

    /// There is no room to keep or to remember it.
    pub(crate) fn no_room(message: impl Into<String>) -> Self {
        Self {
            state: NodeState::Refused,
            reason: Reason::Refusal(Refusal::StorageFull),
            message: message.into(),
            remedy: Remedy::TryAgain,
            blockers: Vec::new(),
        }
    }

    pub(crate) fn journal(error: &StoreError) -> Self {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        let message = format!("nothing is done until the journal can be read: {error}{source}");
        Self::fault(Fault::JournalUnreadable, message)
    }

    /// The kernel did not take a module. A key that is missing is the node's state, and no fault of the
    /// patch; so is whatever forbids it to load any. Not every lockdown can be seen beforehand: that of
    /// secure boot is told of in securityfs alone, which a container does not have.
    pub(crate) fn load(errno: Errno, signing: Signing) -> Self {
        let (name, meaning) = errno::of_load(errno);
        match (signing, errno) {
            (Signing::Enforced | Signing::Lockdown, Errno::KEYREJECTED | Errno::NOKEY) => {
                return Self::fault(Fault::ModuleSigningKeyMissing, format!("{name}: {meaning}"));
            }
            (Signing::Off | Signing::Enforced | Signing::Lockdown, Errno::PERM) => {
                return Self::fault(Fault::Lockdown, format!("{name}: {meaning}"));
            }
            (Signing::Off | Signing::Enforced | Signing::Lockdown, _) => {}
        }
        Self {
            state: NodeState::Failed,
            reason: Reason::Refusal(Refusal::LoadRefused),
            message: format!("{name}: {meaning}"),
            remedy: if errno::passes(errno) { Remedy::TryAgain } else { Remedy::Nothing },
            blockers: Vec::new(),
        }
    }
}

impl From<Refused> for Missed {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Rejected(rejection) => Self {
                state: NodeState::Refused,
                reason: Reason::Refusal(rejection.refusal),
                message: rejection.to_string(),
                remedy: Remedy::Nothing,
                blockers: Vec::new(),
            },
            Refused::Fault(fault, message) => Self::fault(fault, message),
        }
    }
}

impl From<StoreError> for Missed {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { .. } => Self::no_room(error.to_string()),
            StoreError::Io { .. }
            | StoreError::TooLong { .. }
            | StoreError::Parse { .. }
            | StoreError::Damaged { .. }
            | StoreError::LaterFormat { .. } => Self::fault(Fault::NodeIo, error.to_string()),
        }
    }
}

impl From<std::io::Error> for Missed {
    fn from(error: std::io::Error) -> Self {
        Self::fault(Fault::NodeIo, format!("kernel files: {error}"))
    }
}

/// How a drive ended. What the kernel suffered meanwhile is the reason, and the rest follows from it.
pub(crate) fn ended(
    end: End,
    took: Option<Duration>,
    blockers: Vec<Blocker>,
    harm: Option<Harm>,
) -> Result<Reached, Missed> {
    let ended = without_harm(end, took, blockers);
    match (ended, harm) {
        (Err(missed), Some(harm)) => {
            let message = format!("{} while tasks moved; {}", harm.words(), missed.message);
            let reason = Reason::Fault(harm.fault());
            Err(Missed { state: NodeState::Failed, reason, message, ..missed })
        }
        (ended, _) => ended,
    }
}

fn without_harm(end: End, took: Option<Duration>, blockers: Vec<Blocker>) -> Result<Reached, Missed> {
    let names = named(&blockers);
    let missed = |missed: Missed| Err(Missed { blockers, ..missed });
    match end {
        End::Reached => {
            Ok(Reached { millis: took.map(|took| u32::try_from(took.as_millis()).unwrap_or(u32::MAX)) })
        }
        End::DeadlinePassed => {
            missed(Missed::fault(Fault::DeadlinePassed, "the deadline had passed before it began"))
        }
        End::Foreign(name) => missed(Missed::fault(
            Fault::ForeignLivepatch,
            format!("live patch {name} is on; ours would replace it"),
        )),
        End::Lower(level) => missed(Missed::fault(
            Fault::LowerLevel,
            format!("level {level} is on; take every patch off first"),
        )),
        End::Half => missed(Missed::fault(
            Fault::KernelOops,
            "a load of this module never ended; the kernel keeps half of it until the next boot",
        )),
        End::Stuck => missed(Missed::fault(
            Fault::TransitionStuck,
            format!("the transition did not end in time and was reversed{names}"),
        )),
        End::Overshot(under) => {
            let message = format!(
                "the transition ended in the moment before it was reversed; {under}, which it had replaced, was gone by then{names}"
            );
            let stuck = Missed::fault(Fault::TransitionStuck, message);
            missed(Missed { remedy: Remedy::PutBack(under), ..stuck })
        }
        End::CannotReverse => missed(Missed::fault(
            Fault::CannotReverse,
            format!("the transition did not end in time and cannot be reversed{names}"),
        )),
        End::Pending(name) => {
            let message = format!(
                "the transition did not end in time; {name} is not put on again and may still come off{names}"
            );
            let pending = Missed::fault(Fault::CannotReverse, message);
            missed(Missed { remedy: Remedy::SeeOff(name), ..pending })
        }
    }
}

fn named(blockers: &[Blocker]) -> String {
    let names: Vec<String> =
        blockers.iter().map(|blocker| format!("{} ({})", blocker.comm, blocker.tid)).collect();
    if names.is_empty() {
        String::new()
    } else {
        format!("; threads that had not moved: {}", names.join(", "))
    }
}
