//! The versions seen, below which nothing is accepted any more.

use std::cmp::Ordering;

use invivo_terms::{Refusal, RepositoryName};
use serde::{Deserialize, Serialize};

use crate::{Document, Rejection};

/// The versions seen of one repository. They only rise, except that a rotation of the index or
/// timestamp keys by a higher trust version starts those two anew.
///
/// Kept on disk and read by earlier versions too: fields that one does not know are let be. Floors of a
/// document that an earlier version does not know are floors of nothing that it believes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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

impl Floors {
    /// The higher of the two: those under the later trust version as they are, which may have
    /// started the others anew, and version by version under the same one. Floors of another
    /// repository change nothing.
    ///
    /// For remembering, not for verifying: verify against one's own floors, which alone tell
    /// whether a rotation is news, then ask [`Floors::not_below`] with what others have seen.
    #[must_use]
    pub fn raise(&self, other: &Self) -> Self {
        if self.repository.is_none() {
            return other.clone();
        }
        if other.repository != self.repository {
            return self.clone();
        }
        match self.trust.cmp(&other.trust) {
            Ordering::Less => other.clone(),
            Ordering::Greater => self.clone(),
            Ordering::Equal => Self {
                repository: self.repository.clone(),
                trust: self.trust,
                index: self.index.max(other.index),
                timestamp: self.timestamp.max(other.timestamp),
            },
        }
    }

    /// Refuses what was just verified (`self`) where somebody else has seen newer. Versions that a
    /// later trust document started anew are not compared with those from before it.
    ///
    /// # Errors
    ///
    /// `Rollback`.
    pub fn not_below(&self, seen: &Self) -> Result<(), Rejection> {
        if seen.repository.is_none() || seen.repository != self.repository || self.trust > seen.trust {
            return Ok(());
        }
        let pairs = [
            (Document::Trust, self.trust, seen.trust),
            (Document::Index, self.index, seen.index),
            (Document::Timestamp, self.timestamp, seen.timestamp),
        ];
        match pairs.into_iter().find(|(_, found, seen)| found < seen) {
            Some((document, found, seen)) => {
                let detail = format!("version {found}, {seen} was seen in this fleet");
                Err(Rejection::new(Refusal::Rollback, document, detail))
            }
            None => Ok(()),
        }
    }
}
