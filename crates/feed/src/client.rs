//! The workflow: fix the start time; walk the trust chain; timestamp; index; kernel document;
//! manifest; modules. Each step takes bytes and gives the next step or a named rejection.

use invivo_terms::{BuildId, Digest, Level};

use crate::document::{Index, KernelDocument, LevelEntry, Manifest, Trust};
use crate::{Clocks, Floors, Proof, Rejection, Signed};

/// The current trust document, reached from the pinned root.
#[derive(Debug, Clone)]
pub struct Client {
    trust: Trust,
}

/// A client that also knows the current timestamp.
#[derive(Debug, Clone)]
pub struct Timestamped {
    client: Client,
}

/// A verified index: what the repository offers now.
#[derive(Debug, Clone)]
pub struct Catalogue {
    timestamped: Timestamped,
}

/// A whole proof that held.
#[derive(Debug, Clone)]
pub struct Proven {
    /// What the repository offers, and the new floors.
    pub catalogue: Catalogue,
    /// The kernel build's document.
    pub kernel: KernelDocument,
    /// The level that the manifest is of.
    pub level: LevelEntry,
    /// The manifest.
    pub manifest: Manifest,
}

impl Client {
    /// Begins with `trust/1.json` and the digest that people pinned for it.
    ///
    /// # Errors
    ///
    /// `WrongRoot`, and every refusal of a signed document.
    pub fn begin(_root: &Digest, _floors: &Floors, _clocks: Clocks, _first: &Signed) -> Result<Self, Rejection> {
        todo!()
    }

    /// The version of the trust document to ask for next; absence of that file ends the walk.
    pub fn next_trust(&self) -> u64 {
        self.trust.version + 1
    }

    /// Follows one rotation.
    ///
    /// # Errors
    ///
    /// Every refusal of a signed document.
    pub fn rotate(self, _next: &Signed) -> Result<Self, Rejection> {
        todo!()
    }

    /// Ends the walk and takes the timestamp.
    ///
    /// # Errors
    ///
    /// Every refusal of a signed document; `Expired` also where the trust document is past its date.
    pub fn timestamp(self, _timestamp: &Signed) -> Result<Timestamped, Rejection> {
        todo!()
    }
}

impl Timestamped {
    /// Version and length of the index to fetch next.
    pub fn wanted_index(&self) -> &crate::document::IndexReference {
        let _ = &self.client;
        todo!()
    }

    /// Takes the index.
    ///
    /// # Errors
    ///
    /// `MixAndMatch`, and every refusal of a signed document.
    pub fn index(self, _index: &Signed) -> Result<Catalogue, Rejection> {
        todo!()
    }
}

impl Catalogue {
    /// The index.
    pub fn index(&self) -> &Index {
        let _ = &self.timestamped;
        todo!()
    }

    /// The floors as they are now; to be stored before anything is done with the catalogue.
    pub fn floors(&self) -> &Floors {
        todo!()
    }

    /// When the first of trust document, timestamp and index expires.
    pub fn expires(&self) -> jiff::Timestamp {
        todo!()
    }

    /// The digest of a set's entry (canonical, without status, channel, summary).
    pub fn set_digest(&self, _set: &invivo_terms::SetName) -> Option<Digest> {
        todo!()
    }

    /// Checks a kernel document against the index.
    ///
    /// # Errors
    ///
    /// `WrongKernel` if the index does not know the build, `MixAndMatch`, `Malformed`.
    pub fn kernel(&self, _build: &BuildId, _bytes: &[u8]) -> Result<KernelDocument, Rejection> {
        todo!()
    }

    /// Checks a manifest against its kernel document.
    ///
    /// # Errors
    ///
    /// `MixAndMatch`, `Malformed`, `Withdrawn`.
    pub fn manifest(&self, _kernel: &KernelDocument, _level: Level, _bytes: &[u8]) -> Result<Manifest, Rejection> {
        todo!()
    }
}

/// The whole workflow over a stored or passed proof.
///
/// # Errors
///
/// The first refusal met.
pub fn verify_proof(_proof: &Proof, _root: &Digest, _floors: &Floors, _clocks: Clocks) -> Result<Proven, Rejection> {
    todo!()
}
