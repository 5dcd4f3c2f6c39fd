//! Fetching within limits: caps, minimum rate, deadline, resume by Range, conditional requests.

mod error;
mod fetch;
mod repository;
#[cfg(test)]
mod server;
mod tls;

use std::time::Duration;

pub use error::Error;
use invivo_feed::{Catalogue, Signed};
use jiff::Timestamp;
pub use repository::Repository;
pub use tls::config as tls_config;

/// Where a repository is fetched from, and how patiently.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes per second below which a transfer counts as stalled, judged over ten seconds.
    pub minimum_rate: u64,
    /// One file, from request to last byte.
    pub deadline: Duration,
    /// Certificates to trust besides the usual ones, PEM.
    pub extra_ca: Option<Vec<u8>>,
}

impl Default for Options {
    /// 1 KiB/s, ten minutes, the system's certificates.
    fn default() -> Self {
        Self { minimum_rate: 1 << 10, deadline: Duration::from_mins(10), extra_ca: None }
    }
}

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
    /// It is the last look again: the same bytes against the same floors, and nothing has expired
    /// since. No signature was checked anew.
    pub unchanged: bool,
}
