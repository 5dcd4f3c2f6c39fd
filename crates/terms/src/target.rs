//! How a kernel module stands that a patch changes.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A target of the patch that is on. How the kernel shows each is told in `kmod/README.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TargetState {
    /// Not loaded; the patch waits for it.
    Absent,
    /// Loaded and patched.
    Patched,
    /// Patched, and cannot be unloaded while it is.
    Pinned,
    /// Left out of the patch when that was loaded.
    Skipped,
    /// The kernel refused it, and would refuse the right build too until the patch is told to heal.
    NeedsHeal,
    /// The kernel refused it again after it was healed.
    Refused,
    /// Loaded, or on disk for the next load, is another build than the patch was made for.
    ForeignBuild,
    /// Which build it is cannot be known.
    UnknownBuild,
}

impl TargetState {
    /// Every state, in the order of the list above.
    pub const ALL: [Self; 8] = [
        Self::Absent,
        Self::Patched,
        Self::Pinned,
        Self::Skipped,
        Self::NeedsHeal,
        Self::Refused,
        Self::ForeignBuild,
        Self::UnknownBuild,
    ];

    /// Everything that can be done for it is done, and it has the fixes whenever it runs.
    pub const fn is_well(self) -> bool {
        match self {
            Self::Absent | Self::Patched | Self::Pinned => true,
            Self::Skipped | Self::NeedsHeal | Self::Refused | Self::ForeignBuild | Self::UnknownBuild => {
                false
            }
        }
    }

    /// The name as it stands in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "Absent",
            Self::Patched => "Patched",
            Self::Pinned => "Pinned",
            Self::Skipped => "Skipped",
            Self::NeedsHeal => "NeedsHeal",
            Self::Refused => "Refused",
            Self::ForeignBuild => "ForeignBuild",
            Self::UnknownBuild => "UnknownBuild",
        }
    }
}

impl fmt::Display for TargetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
