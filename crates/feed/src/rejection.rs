//! Why a document or file was not believed.

use std::fmt;

use invivo_terms::Refusal;

/// Which file of a repository is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Document {
    /// `trust/N.json`
    Trust,
    /// `timestamp.json`
    Timestamp,
    /// `index/N.json`
    Index,
    /// `kernels/<sha256>.json`
    Kernel,
    /// A bundle's `manifest.json`.
    Manifest,
    /// A bundle's `modules/*.ko`.
    Module,
    /// `bundles/<sha256>`
    Bundle,
}

impl Document {
    /// The name for messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trust => "trust document",
            Self::Timestamp => "timestamp",
            Self::Index => "index",
            Self::Kernel => "kernel document",
            Self::Manifest => "manifest",
            Self::Module => "module",
            Self::Bundle => "bundle",
        }
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A named refusal, and what exactly was wrong, for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{document}: {refusal}: {detail}")]
pub struct Rejection {
    /// The name.
    pub refusal: Refusal,
    /// The file.
    pub document: Document,
    /// What exactly was wrong; at most 200 characters, no secrets.
    pub detail: String,
}

impl Rejection {
    /// A rejection of `document`.
    pub fn new(refusal: Refusal, document: Document, detail: impl Into<String>) -> Self {
        let mut detail: String = detail.into();
        if let Some((end, _)) = detail.char_indices().nth(200) {
            detail.truncate(end);
        }
        Self { refusal, document, detail }
    }
}
