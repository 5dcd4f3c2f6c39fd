//! What a feed asks of a set, and what people have decided about one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Date, HumanDuration};

/// Which sets a feed takes.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum FeedChannel {
    /// Those whose tests are finished.
    #[default]
    Stable,
    /// Also those whose tests are not.
    Test,
}

/// Whether people must approve a set before it may be rolled out.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum ApprovalMode {
    /// They need not; a rejection counts all the same.
    #[default]
    Automatic,
    /// They must.
    Manual,
}

/// What one person decided about a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Decision {
    /// It may be rolled out, as far as this person is concerned.
    Approve,
    /// It may not, whoever else approves it.
    Reject,
}

/// What a feed asks of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedRules {
    /// Which sets it takes.
    pub channel: FeedChannel,
    /// How long after its release a set is withheld.
    pub delay: HumanDuration,
    /// Only sets released on or before this day (UTC).
    pub as_of: Option<Date>,
    /// How many people must have approved it; 0 where nobody need.
    pub required: u32,
}

/// What people decided about a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Decisions {
    /// How many approve it.
    pub approvals: u32,
    /// Somebody rejects it.
    pub rejected: bool,
}
