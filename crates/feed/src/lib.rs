//! A repository's documents, who may sign them, and the workflow that turns bytes into trust.
//!
//! Bytes in, verdict out: nothing here talks to a network. Patch server, operator, agent, loader
//! and command line all go through [`Client`].

mod agree;
mod client;
mod clock;
pub mod document;
mod eligible;
mod floors;
mod folder;
mod keyring;
mod modinfo;
pub mod paths;
mod proof;
pub mod publish;
mod read;
mod rejection;
#[cfg(any(test, feature = "sample"))]
pub mod sample;
mod signature;
pub mod store;

pub use client::{
    Catalogue, Client, MAX_JUMP, Proven, Timestamped, check_module, verify_proof, verify_settled,
};
pub use clock::Clocks;
pub use eligible::{Ineligible, Offer, Say, eligible};
pub use floors::Floors;
pub use folder::{Folder, FolderError, FolderLook};
pub use keyring::{MAX_CERTIFICATE, MAX_KEYS};
pub use modinfo::{ModInfo, RunningKernel, check_running};
pub use proof::{Proof, Signed};
pub use read::{MAX_LEVELS, MAX_MODULES, MAX_OBJECTS, MAX_SETS, MAX_SUMMARY, MAX_VERSION};
pub use rejection::{Document, Rejection};
pub use signature::{MAX_SIGNATURES, ROLE_NOTATION};

use invivo_terms::Digest;
use sha2::{Digest as _, Sha256};

/// The SHA-256 of these bytes.
pub fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(&Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests;
