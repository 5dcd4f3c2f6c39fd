//! How an instruction ended before it reached the loader.

use invivo_api::NodePatchStatus;
use invivo_feed::Rejection;
use invivo_terms::{NodeState, Refusal, words};
use invivo_wire::{Fault, Order};

words! {
    /// What the agent itself can find wrong, besides the named refusals.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum Trouble {
        /// Policy or feed do not allow this instruction.
        NotAllowed,
        /// Patch server or API server did not answer until the deadline.
        Unreachable,
        /// The feed withheld the set until the deadline: it was suspended, the set too young by one of
        /// the two clocks, not approved, rejected or quarantined.
        Withheld,
        /// The loader did not answer until the deadline.
        LoaderSilent,
    }
}

/// Why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A named refusal.
    Refusal(Refusal),
    /// Something about the node, in the loader's words.
    Fault(Fault),
    /// Something that only the agent sees.
    Trouble(Trouble),
    /// As an earlier agent wrote it into the status.
    Written(String),
}

impl Cause {
    /// The name as it stands in statuses, Events and metrics.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Refusal(refusal) => refusal.as_str(),
            Self::Fault(fault) => fault.as_str(),
            Self::Trouble(trouble) => trouble.as_str(),
            Self::Written(reason) => reason,
        }
    }
}

/// How an instruction ended before it reached the loader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The instruction.
    pub order: Order,
    /// Refused or failed.
    pub state: NodeState,
    /// Why.
    pub cause: Cause,
    /// For people.
    pub message: String,
}

impl Verdict {
    /// Verification or a rule said no.
    pub fn refused(order: &Order, cause: Cause, message: impl Into<String>) -> Self {
        Self { order: order.clone(), state: NodeState::Refused, cause, message: message.into() }
    }

    /// It was tried for as long as there was time.
    pub fn failed(order: &Order, cause: Cause, message: impl Into<String>) -> Self {
        Self { order: order.clone(), state: NodeState::Failed, cause, message: message.into() }
    }

    /// A named refusal.
    pub fn rejected(order: &Order, rejection: &Rejection) -> Self {
        Self::refused(order, Cause::Refusal(rejection.refusal), rejection.to_string())
    }

    /// What an earlier agent of this node found, read back from the status it wrote: the loader
    /// never heard of that instruction, so the status is the only memory.
    pub fn written(order: &Order, status: &NodePatchStatus) -> Option<Self> {
        let ended = status.observed_revision == order.revision && status.state.is_failure();
        ended.then(|| Self {
            order: order.clone(),
            state: status.state,
            cause: Cause::Written(status.reason.clone().unwrap_or_default()),
            message: status.message.clone().unwrap_or_default(),
        })
    }
}
