//! What may be asked for: the layout of a repository as a pattern. Nothing a client sends ever
//! becomes part of a path on disk unless it has been read into one of these and written out again.

use std::fmt;
use std::str::FromStr;

use invivo_terms::Digest;

/// A feed's name: a DNS subdomain, as the API server has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedName(String);

/// A text that names no feed or no file of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a name that can stand here")]
pub struct NotAName;

impl FeedName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FeedName {
    type Err = NotAName;
    fn from_str(text: &str) -> Result<Self, NotAName> {
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        if text.len() <= 253 && text.split('.').all(label) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAName)
        }
    }
}

impl fmt::Display for FeedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One file of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MirrorPath {
    /// `trust/N.json`
    Trust(u64),
    /// `trust/N.json.sig`
    TrustSignatures(u64),
    /// `timestamp.json`
    Timestamp,
    /// `timestamp.json.sig`
    TimestampSignatures,
    /// `index/N.json`
    Index(u64),
    /// `index/N.json.sig`
    IndexSignatures(u64),
    /// `kernels/<sha256>.json`
    Kernel(Digest),
    /// `bundles/<sha256>`
    Bundle(Digest),
}

impl MirrorPath {
    /// Whether the name alone says what the bytes are.
    pub const fn is_immutable(&self) -> bool {
        match self {
            Self::Kernel(_) | Self::Bundle(_) => true,
            Self::Trust(_)
            | Self::TrustSignatures(_)
            | Self::Timestamp
            | Self::TimestampSignatures
            | Self::Index(_)
            | Self::IndexSignatures(_) => false,
        }
    }

    /// The media type to serve it with.
    pub const fn media_type(&self) -> &'static str {
        match self {
            Self::Trust(_) | Self::Timestamp | Self::Index(_) | Self::Kernel(_) => "application/json",
            Self::TrustSignatures(_) | Self::TimestampSignatures | Self::IndexSignatures(_) => {
                "application/pgp-signature"
            }
            Self::Bundle(_) => "application/zstd",
        }
    }
}

impl FromStr for MirrorPath {
    type Err = NotAName;
    fn from_str(text: &str) -> Result<Self, NotAName> {
        let number = |t: &str| t.parse::<u64>().map_err(|_| NotAName);
        let digest = |t: &str| t.parse::<Digest>().map_err(|_| NotAName);
        let path = match text.split_once('/') {
            None if text == "timestamp.json" => Self::Timestamp,
            None if text == "timestamp.json.sig" => Self::TimestampSignatures,
            Some(("trust", file)) => match (file.strip_suffix(".json"), file.strip_suffix(".json.sig")) {
                (Some(n), _) => Self::Trust(number(n)?),
                (None, Some(n)) => Self::TrustSignatures(number(n)?),
                (None, None) => return Err(NotAName),
            },
            Some(("index", file)) => match (file.strip_suffix(".json"), file.strip_suffix(".json.sig")) {
                (Some(n), _) => Self::Index(number(n)?),
                (None, Some(n)) => Self::IndexSignatures(number(n)?),
                (None, None) => return Err(NotAName),
            },
            Some(("kernels", file)) => Self::Kernel(digest(file.strip_suffix(".json").ok_or(NotAName)?)?),
            Some(("bundles", file)) => Self::Bundle(digest(file)?),
            _ => return Err(NotAName),
        };
        // One spelling only: `trust/01.json` and `trust/+1.json` parse as numbers, but are no names.
        if path.to_string() == text { Ok(path) } else { Err(NotAName) }
    }
}

impl fmt::Display for MirrorPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trust(n) => write!(f, "trust/{n}.json"),
            Self::TrustSignatures(n) => write!(f, "trust/{n}.json.sig"),
            Self::Timestamp => f.write_str("timestamp.json"),
            Self::TimestampSignatures => f.write_str("timestamp.json.sig"),
            Self::Index(n) => write!(f, "index/{n}.json"),
            Self::IndexSignatures(n) => write!(f, "index/{n}.json.sig"),
            Self::Kernel(d) => write!(f, "kernels/{d}.json"),
            Self::Bundle(d) => write!(f, "bundles/{d}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_a_repository_has_one_spelling() {
        let digest = "a".repeat(64);
        for text in [
            "trust/1.json".to_owned(),
            "trust/12.json.sig".to_owned(),
            "timestamp.json".to_owned(),
            "timestamp.json.sig".to_owned(),
            "index/7.json".to_owned(),
            "index/7.json.sig".to_owned(),
            format!("kernels/{digest}.json"),
            format!("bundles/{digest}"),
        ] {
            assert_eq!(text.parse::<MirrorPath>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn nothing_outside_of_the_layout_can_be_asked_for() {
        let digest = "a".repeat(64);
        for bad in [
            "",
            "/",
            "trust/",
            "trust/01.json",
            "trust/+1.json",
            "trust/-1.json",
            "trust/1.json/",
            "trust/../trust/1.json",
            "../timestamp.json",
            "bundles/../../../etc/passwd",
            "bundles/%2e%2e",
            "index/99999999999999999999.json",
            "kernels/x.json",
            "timestamp.json.tmp",
            &format!("bundles/{digest}/"),
            &format!("bundles/{}", digest.to_uppercase()),
            &format!("kernels/{digest}"),
        ] {
            assert_eq!(bad.parse::<MirrorPath>(), Err(NotAName), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_feed_name_cannot_leave_its_folder() {
        for good in ["production", "a.b-c.d1"] {
            assert_eq!(good.parse::<FeedName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a..b", "a/b", "A", "-a", "a-", "a_b", "%2e%2e", "a b", "é"] {
            assert_eq!(bad.parse::<FeedName>(), Err(NotAName), "{bad:?} was accepted");
        }
    }
}
