//! What became of the last attempt at a feed: `/feeds/<feed>/state`.

use invivo_terms::Refusal;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// Why the last attempt ended as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The mirror is what the repository has.
    Verified,
    /// The repository did not answer as one does.
    Unreachable,
    /// It did, and was not believed (or could not be stored).
    Refused(Refusal),
}

impl Reason {
    /// The name as it stands in conditions, Events and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "Verified",
            Self::Unreachable => "Unreachable",
            Self::Refused(refusal) => refusal.as_str(),
        }
    }

    /// Every reason there is.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Verified, Self::Unreachable].into_iter().chain(Refusal::ALL.iter().copied().map(Self::Refused))
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// The last attempt at a feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptState {
    /// When it was made.
    pub attempt: Timestamp,
    /// When what is served now was verified; none where nothing is served.
    pub verified: Option<Timestamp>,
    /// How it ended.
    pub reason: Reason,
    /// Which document was refused.
    pub document: Option<String>,
    /// The same for people, with what to do.
    pub message: String,
}

impl AttemptState {
    /// An entity tag over what matters: it stays the same while attempt after attempt ends alike
    /// and the same timestamp document (`version`) is served.
    pub(crate) fn tag(&self, version: Option<u64>) -> String {
        let served = version.map_or_else(|| "-".to_owned(), |v| v.to_string());
        let text = format!(
            "{}\n{}\n{}\n{served}",
            self.reason.as_str(),
            self.document.as_deref().unwrap_or_default(),
            self.message
        );
        let digest = invivo_feed::digest(text.as_bytes());
        format!("W/\"{}\"", digest.as_str().get(..32).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(attempt: &str) -> AttemptState {
        AttemptState {
            attempt: attempt.parse().unwrap(),
            verified: None,
            reason: Reason::Refused(Refusal::BelowThreshold),
            document: Some("index".to_owned()),
            message: "1 of 2 signatures".to_owned(),
        }
    }

    #[test]
    fn the_state_reads_as_readers_expect_it() {
        assert_eq!(
            serde_json::to_value(state("2026-11-21T00:00:00Z")).unwrap(),
            serde_json::json!({
                "attempt": "2026-11-21T00:00:00Z",
                "verified": null,
                "reason": "BelowThreshold",
                "document": "index",
                "message": "1 of 2 signatures"
            })
        );
    }

    #[test]
    fn the_tag_changes_with_the_outcome_and_not_with_time() {
        let (first, second) = (state("2026-11-21T00:00:00Z"), state("2026-11-21T01:00:00Z"));
        assert_eq!(first.tag(Some(3)), second.tag(Some(3)));
        assert_ne!(first.tag(Some(3)), first.tag(Some(4)));
        let other = AttemptState { reason: Reason::Refused(Refusal::Expired), ..first.clone() };
        assert_ne!(first.tag(None), other.tag(None));
    }
}
