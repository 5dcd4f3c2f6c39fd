//! A repository's documents, who may sign them, and the workflow that turns bytes into trust.
//!
//! Bytes in, verdict out: nothing here talks to a network. Patch server, operator, agent, loader
//! and command line all go through [`Client`].

mod client;
mod clock;
pub mod document;
mod floors;
mod proof;
mod rejection;

pub use client::{Catalogue, Client, Proven, Timestamped, verify_proof};
pub use clock::Clocks;
pub use floors::Floors;
pub use proof::{Proof, Signed};
pub use rejection::{Document, Rejection};

use invivo_terms::Digest;
use sha2::{Digest as _, Sha256};

/// The SHA-256 of these bytes.
pub fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(&Sha256::digest(bytes).into())
}
