//! SHA-256 digests.

use crate::name::InvalidName;
use crate::name::checked_name;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

checked_name!(
    /// A SHA-256 digest as 64 lower-case hex digits.
    Digest,
    r"^[0-9a-f]{64}$",
    "64 lower-case hex digits",
    |t| t.len() == 64 && t.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
);

impl Digest {
    /// The digest that these 32 bytes are.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(hex::encode(bytes))
    }
}
