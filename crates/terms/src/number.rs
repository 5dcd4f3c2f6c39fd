//! Counters that must not be mixed up.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(transparent)]
        #[schemars(inline)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// Rises for one kernel build with each set that touches it. Level 0 is unpatched.
    Level(u32)
);
counter!(
    /// Rises with every change of one NodePatch's instruction, within one uid of that object.
    Revision(i64)
);

impl Level {
    /// The kernel as it booted.
    pub const UNPATCHED: Self = Self(0);
}

impl Revision {
    /// The revision after this one. Saturates; 2^63 instructions for one node will not be reached.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}
