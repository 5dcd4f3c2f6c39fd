//! Why nothing was got.

use invivo_feed::Rejection;

/// Why nothing was got.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer, or not one that a repository gives.
    #[error("{url}: {detail}")]
    Unreachable {
        /// What was asked for, without credentials.
        url: String,
        /// What went wrong.
        detail: String,
    },
    /// An answer that is not believed.
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

impl Error {
    /// Condition reason, Event reason and metric label: the refusal's name, or `Unreachable`.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "Unreachable",
            Self::Rejected(rejection) => rejection.refusal.as_str(),
        }
    }
}
