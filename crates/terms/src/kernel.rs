//! What identifies a kernel, and how code gets into it.

use crate::name::InvalidName;
use crate::name::checked_name;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

checked_name!(
    /// The GNU build id of one exact kernel binary, as `/sys/kernel/notes` gives it (20 bytes, hex).
    BuildId,
    r"^[0-9a-f]{40}$",
    "40 lower-case hex digits",
    |t| t.len() == 40 && t.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
);

/// A machine architecture by the name that `uname -m` gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Arch {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::X86_64 => f.write_str("x86_64"),
        }
    }
}

/// How a patch takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Mechanism {
    /// Upstream livepatch: tasks move to the new code one by one.
    #[serde(alias = "livepatch")]
    Livepatch,
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Livepatch => f.write_str("Livepatch"),
        }
    }
}
