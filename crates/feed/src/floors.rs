//! The versions seen, below which nothing is accepted any more.

use invivo_terms::RepositoryName;
use serde::{Deserialize, Serialize};

/// The versions seen of one repository. They only rise, except that a rotation of the index or
/// timestamp keys by a higher trust version starts those two anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Floors {
    /// The repository that these are of; none before the first document was believed.
    pub repository: Option<RepositoryName>,
    /// Version of the trust document.
    pub trust: u64,
    /// Version of the index.
    pub index: u64,
    /// Version of the timestamp.
    pub timestamp: u64,
}
