//! Where each file of a repository is, below its base.

use invivo_terms::Digest;

/// The timestamp.
pub const TIMESTAMP: &str = "timestamp.json";

/// `trust/N.json`
pub fn trust(version: u64) -> String {
    format!("trust/{version}.json")
}

/// `index/N.json`
pub fn index(version: u64) -> String {
    format!("index/{version}.json")
}

/// `kernels/<sha256>.json`
pub fn kernel(sha256: &Digest) -> String {
    format!("kernels/{sha256}.json")
}

/// `bundles/<sha256>`
pub fn bundle(sha256: &Digest) -> String {
    format!("bundles/{sha256}")
}

/// The signatures beside a signed document.
pub fn signatures(document: &str) -> String {
    format!("{document}.sig")
}
