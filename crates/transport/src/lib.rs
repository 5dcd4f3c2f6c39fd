//! Fetching within limits: caps, minimum rate, deadline, resume by Range, conditional requests.

use invivo_feed::{Catalogue, Floors, Rejection, Signed};
use invivo_feed::document::LevelEntry;
use invivo_terms::{BuildId, Digest};
use jiff::Timestamp;

/// Where a repository is fetched from, and how patiently.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes per second below which a transfer counts as stalled, judged over ten seconds.
    pub minimum_rate: u64,
    /// One file, from request to last byte.
    pub deadline: std::time::Duration,
    /// Certificates to trust besides the usual ones, PEM.
    pub extra_ca: Option<Vec<u8>>,
}

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

/// A repository at a URL.
#[derive(Debug, Clone)]
pub struct Repository {}

/// A verified look at a repository.
#[derive(Debug, Clone)]
pub struct Look {
    /// What it offers.
    pub catalogue: Catalogue,
    /// The trust chain as it came.
    pub trust: Vec<Signed>,
    /// The timestamp as it came.
    pub timestamp: Signed,
    /// The index as it came.
    pub index: Signed,
    /// The server's `Date`.
    pub server_date: Option<Timestamp>,
}

impl Repository {
    /// A repository whose files are below `base`.
    ///
    /// # Errors
    ///
    /// `Unreachable` if `base` is not an http or https URL.
    pub fn new(_base: &str, _options: Options) -> Result<Self, Error> {
        todo!()
    }

    /// Walks trust chain, timestamp and index.
    ///
    /// # Errors
    ///
    /// `Unreachable`, or the first refusal met.
    pub async fn look(&self, _root: &Digest, _floors: &Floors, _now: Timestamp) -> Result<Look, Error> {
        todo!()
    }

    /// Fetches and checks the kernel document of `build`.
    ///
    /// # Errors
    ///
    /// `Unreachable`, or the refusal.
    pub async fn kernel(&self, _look: &Look, _build: &BuildId) -> Result<Vec<u8>, Error> {
        todo!()
    }

    /// Fetches the bundle of one level and checks its length and digest.
    ///
    /// # Errors
    ///
    /// `Unreachable`, `ArbitrarySoftware`, `EndlessData`, `SlowRetrieval`.
    pub async fn bundle(&self, _level: &LevelEntry) -> Result<Vec<u8>, Error> {
        todo!()
    }
}
