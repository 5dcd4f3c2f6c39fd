//! The reasons of conditions that are neither a hold nor a refusal nor a block. `docs/reasons.md`
//! has each of them.

use invivo_terms::{Hold, words};

words! {
    /// The reason of a policy's conditions.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Policy {
        /// A label selector cannot be read.
        InvalidSelector,
        /// A pace is neither a number nor a share.
        InvalidMaxParallel,
        /// A share is none.
        InvalidShare,
        /// A budget is neither a number nor a share.
        InvalidFailureBudget,
        /// A stage in the middle takes every node.
        InvalidStages,
        /// A time zone is not known.
        InvalidTimeZone,
        /// A time of day is none.
        InvalidWindow,
        /// There is no such feed, or none where it takes from.
        FeedNotFound,
        /// The feed takes from itself by way of others.
        FeedCycle,
        /// It, or what it rests on, is an object that this version cannot read.
        Unreadable,
        /// Nothing is known of the feed yet.
        FeedPending,
        /// The policy has no node.
        NoNodes,
        /// Nodes are under way or wait for their turn.
        RolloutInProgress,
        /// More nodes failed than may.
        NodeFailed,
        /// What was moved goes back.
        RollingBack,
        /// What was moved is back.
        RolledBack,
        /// The feed has nothing for these nodes.
        NothingToApply,
        /// Every node that can be is at the target.
        AtTarget,
    }
}

words! {
    /// The reason of a feed's conditions.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Feed {
        /// The mirror is what the owner signed.
        Verified,
        /// It is, and one of its documents expires soon.
        ExpiresSoon,
        /// Nothing is known yet.
        Pending,
        /// The patch server or the repository does not answer.
        Unreachable,
        /// A person suspended it, or one that it takes from.
        Suspended,
        /// It takes from a feed that there is not.
        FeedNotFound,
        /// It takes from itself by way of others.
        FeedCycle,
        /// It, or one that it takes from, is an object that this version cannot read.
        Unreadable,
    }
}

words! {
    /// The reason of a set's condition `Quarantined`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Quarantine {
        /// Nothing was found against it.
        NoEvidence,
        /// What was found is one node's word or less.
        NotEnoughEvidence,
        /// Several nodes speak against it.
        SeveralNodes,
        /// One node speaks against it, and the control plane saw another go down with it.
        NodeAndControlPlane,
        /// A person approved it after the evidence was known.
        Overruled,
    }
}

/// How a policy stands, in one word: its own, or that of the hold which most nodes are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its own.
    Own(Policy),
    /// The hold's.
    Held(Hold),
}

impl Standing {
    /// The name as it stands in statuses, Events and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Own(reason) => reason.as_str(),
            Self::Held(hold) => hold.as_str(),
        }
    }
}

impl From<Policy> for Standing {
    fn from(reason: Policy) -> Self {
        Self::Own(reason)
    }
}

impl From<Hold> for Standing {
    fn from(hold: Hold) -> Self {
        Self::Held(hold)
    }
}
