//! The proof of a bundle: every document from the pinned root to the manifest.

use serde::{Deserialize, Serialize};

/// A document as it came, with its detached signatures (binary OpenPGP signature packets, one after the other).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The exact bytes that were signed.
    pub document: Vec<u8>,
    /// The signatures.
    pub signatures: Vec<u8>,
}

/// Everything that vouches for one module, but the module itself. Tens of KiB; stored beside a
/// settled level it is enough to apply that level again without a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// `trust/1.json` up to the current one.
    pub trust: Vec<Signed>,
    /// `timestamp.json`
    pub timestamp: Signed,
    /// `index/N.json`
    pub index: Signed,
    /// `kernels/<sha256>.json`
    pub kernel: Vec<u8>,
    /// The bundle's `manifest.json`.
    pub manifest: Vec<u8>,
}
