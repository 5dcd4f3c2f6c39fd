//! Why something was not published.

use std::path::PathBuf;

use invivo_terms::{BuildId, Level, SetName};

use crate::Rejection;
use crate::store::StoreError;

/// Why something was not published. Nothing was changed unless the operation says so.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file was not read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What would be published is not what a client would take.
    #[error("a client would refuse this")]
    Rejected(#[from] Rejection),
    /// The folder holds something already.
    #[error("{path} is not empty")]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// There is no repository here.
    #[error("{path} holds no repository; make one with `invivo repo create`")]
    NotADesk {
        /// The folder.
        path: PathBuf,
    },
    /// A key or certificate cannot be used.
    #[error("key: {detail}")]
    Key {
        /// What is wrong, without any of the key.
        detail: String,
    },
    /// A bundle does not fit what is there.
    #[error("set {set}, build {build}: {detail}")]
    Unfit {
        /// The set.
        set: SetName,
        /// The build.
        build: BuildId,
        /// Why not.
        detail: String,
    },
    /// A published set does not change, except that it is withdrawn or promoted.
    #[error("set {set} is published and cannot change; make a new one")]
    SetPublished {
        /// The set.
        set: SetName,
    },
    /// No such set.
    #[error("there is no set {set}")]
    UnknownSet {
        /// The set.
        set: SetName,
    },
    /// No such level.
    #[error("there is no level {level} for build {build}")]
    UnknownLevel {
        /// The build.
        build: BuildId,
        /// The level.
        level: Level,
    },
    /// There is nothing to sign or publish.
    #[error("no {what} is staged")]
    NothingStaged {
        /// Which document.
        what: &'static str,
    },
    /// Signatures are missing.
    #[error("the {what} lacks signatures: {detail}")]
    Unsigned {
        /// Which document.
        what: &'static str,
        /// How many of how many.
        detail: String,
    },
    /// A detached signature is not one that counts.
    #[error("the signature does not count: {detail}")]
    Signature {
        /// Why not.
        detail: String,
    },
}

impl PublishError {
    /// Label for metrics and machine-readable output.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Store(error) => error.category(),
            Self::Rejected(rejection) => rejection.refusal.as_str(),
            Self::NotEmpty { .. } => "NotEmpty",
            Self::NotADesk { .. } => "NotADesk",
            Self::Key { .. } => "Key",
            Self::Unfit { .. } => "Unfit",
            Self::SetPublished { .. } => "SetPublished",
            Self::UnknownSet { .. } => "UnknownSet",
            Self::UnknownLevel { .. } => "UnknownLevel",
            Self::NothingStaged { .. } => "NothingStaged",
            Self::Unsigned { .. } => "Unsigned",
            Self::Signature { .. } => "Signature",
        }
    }

    pub(crate) fn key(detail: impl std::fmt::Display) -> Self {
        Self::Key { detail: detail.to_string().chars().take(200).collect() }
    }
}
