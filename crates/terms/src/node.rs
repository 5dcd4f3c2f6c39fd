//! What became of a node's instruction.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `NodePatch.status.state`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum NodeState {
    /// No patch, nothing asked for.
    #[default]
    Idle,
    /// A step is taking longer than 10 s.
    Working,
    /// The kernel says that the patch is active: enabled, no transition.
    Applied,
    /// Applied for its settling time without trouble; comes back after a boot.
    Settled,
    /// Taken off as instructed.
    RolledBack,
    /// The transition did not end before the deadline and was reversed.
    Blocked,
    /// Verification said no; nothing was loaded.
    Refused,
    /// It was tried and did not work.
    Failed,
    /// A boot ended before the patch had settled. It is not put on again by itself; one new
    /// instruction may try.
    Suspected,
    /// There is evidence against the patch: it is never loaded on this node again, unless a person
    /// clears the verdict there.
    Convicted,
}

impl NodeState {
    /// Every state, in the order of the list above.
    pub const ALL: [Self; 10] = [
        Self::Idle,
        Self::Working,
        Self::Applied,
        Self::Settled,
        Self::RolledBack,
        Self::Blocked,
        Self::Refused,
        Self::Failed,
        Self::Suspected,
        Self::Convicted,
    ];

    /// Whether the instruction has ended without the result it asked for.
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Blocked | Self::Refused | Self::Failed | Self::Suspected | Self::Convicted => true,
            Self::Idle | Self::Working | Self::Applied | Self::Settled | Self::RolledBack => false,
        }
    }

    /// The name as it stands in statuses and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "Idle",
            Self::Working => "Working",
            Self::Applied => "Applied",
            Self::Settled => "Settled",
            Self::RolledBack => "RolledBack",
            Self::Blocked => "Blocked",
            Self::Refused => "Refused",
            Self::Failed => "Failed",
            Self::Suspected => "Suspected",
            Self::Convicted => "Convicted",
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
