//! What the steps of `invivo repo` answer.

use std::fmt;

use invivo_feed::document::{Channel, SetEntry, SetStatus};
use invivo_feed::publish::{Progress, Published};
use invivo_terms::{BuildId, Digest, Fingerprint, Level, RepositoryName, SetName};
use jiff::Timestamp;
use serde::Serialize;

use crate::table::Table;

/// What a step did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "step")]
pub enum Made {
    /// `keygen`
    #[serde(rename_all = "camelCase")]
    Key {
        /// The certificate's fingerprint.
        fingerprint: Fingerprint,
        /// Where the secret key is.
        key: String,
        /// Where the certificate is.
        certificate: String,
    },
    /// `create`, `rotate`
    #[serde(rename_all = "camelCase")]
    Trust {
        /// What people pin.
        root: Digest,
        /// How far the signing is.
        signing: Vec<Signing>,
    },
    /// `add`
    #[serde(rename_all = "camelCase")]
    Added {
        /// The set.
        set: SetName,
        /// The kernel build.
        build_id: BuildId,
        /// Its release.
        release: String,
        /// The level.
        level: Level,
    },
    /// `stage`
    #[serde(rename_all = "camelCase")]
    Staged {
        /// The index's version.
        index: u64,
        /// When it expires.
        expires: Timestamp,
        /// How far the signing is.
        signing: Vec<Signing>,
    },
    /// `sign`, `import`
    #[serde(rename_all = "camelCase")]
    Signed {
        /// How far the signing is.
        signing: Vec<Signing>,
    },
    /// `publish`, `refresh`
    #[serde(rename_all = "camelCase")]
    Published {
        /// The folder to serve.
        folder: String,
        /// What people pin.
        root: Digest,
        /// Version of the trust document.
        trust: u64,
        /// Version of the index.
        index: u64,
        /// Version of the timestamp.
        timestamp: u64,
        /// When the first of them expires.
        expires: Timestamp,
    },
    /// `withdraw`, `promote`
    #[serde(rename_all = "camelCase")]
    Changed {
        /// The set.
        set: SetName,
        /// Its channel.
        channel: Channel,
        /// Its status.
        status: SetStatus,
    },
}

/// How far the signing of one document is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Signing {
    /// `trust` or `index`.
    pub document: &'static str,
    /// Whether it can be published.
    pub complete: bool,
    /// Whose signatures are needed; two entries for a rotation of the trust document.
    pub needs: Vec<Needed>,
}

/// So many of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Needed {
    /// How many must sign.
    pub threshold: usize,
    /// Who has.
    pub signed: Vec<Fingerprint>,
    /// Who may still.
    pub open: Vec<Fingerprint>,
}

impl From<Progress> for Signing {
    fn from(progress: Progress) -> Self {
        Self {
            document: progress.role.as_str(),
            complete: progress.is_complete(),
            needs: progress
                .needs
                .into_iter()
                .map(|need| Needed { threshold: need.threshold, signed: need.signed, open: need.open })
                .collect(),
        }
    }
}

impl Made {
    pub(super) fn published(folder: String, root: Digest, published: &Published) -> Self {
        Self::Published {
            folder,
            root,
            trust: published.trust,
            index: published.index,
            timestamp: published.timestamp,
            expires: published.expires,
        }
    }
}

fn write_signing(f: &mut fmt::Formatter<'_>, signing: &[Signing]) -> fmt::Result {
    for document in signing {
        for need in &document.needs {
            writeln!(f, "{}: {} of {} signatures", document.document, need.signed.len(), need.threshold)?;
            if need.signed.len() < need.threshold {
                for open in &need.open {
                    writeln!(f, "  may still sign: {open}")?;
                }
            }
        }
    }
    Ok(())
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { fingerprint, key, certificate } => {
                writeln!(f, "key {fingerprint}: secret half in {key}, certificate in {certificate}")
            }
            Self::Trust { root, signing } => {
                writeln!(f, "trust document staged; root {root}")?;
                write_signing(f, signing)
            }
            Self::Added { set, build_id, release, level } => {
                writeln!(f, "set {set} brings level {level} to {release} ({build_id})")
            }
            Self::Staged { index, expires, signing } => {
                writeln!(f, "index {index} staged, expires {expires}")?;
                write_signing(f, signing)
            }
            Self::Signed { signing } => write_signing(f, signing),
            Self::Published { folder, root, trust, index, timestamp, expires } => {
                writeln!(f, "published in {folder}: trust {trust}, index {index}, timestamp {timestamp}")?;
                writeln!(f, "root {root}")?;
                writeln!(f, "expires {expires}; refresh it before that")
            }
            Self::Changed { set, channel, status } => {
                let channel = channel_name(*channel);
                writeln!(
                    f,
                    "set {set} is {} in the {channel} channel of the draft; now stage, sign, publish",
                    status_name(*status)
                )
            }
        }
    }
}

pub(crate) const fn channel_name(channel: Channel) -> &'static str {
    match channel {
        Channel::Stable => "stable",
        Channel::Test => "test",
    }
}

pub(crate) const fn status_name(status: SetStatus) -> &'static str {
    match status {
        SetStatus::Active => "active",
        SetStatus::Withdrawn => "withdrawn",
    }
}

/// A desk, as `show` tells it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Desk {
    /// The repository's name.
    pub name: RepositoryName,
    /// What people pin.
    pub root: Digest,
    /// The folder to serve.
    pub folder: String,
    /// What is published; none before the first publication.
    pub published: Option<Shown>,
    /// Why a client would refuse what is published.
    pub trouble: Option<String>,
    /// The sets of the next index.
    pub sets: Vec<SetEntry>,
    /// What is staged.
    pub signing: Vec<Signing>,
}

/// What is published.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// Version of the trust document.
    pub trust: u64,
    /// Version of the index.
    pub index: u64,
    /// Version of the timestamp.
    pub timestamp: u64,
    /// When the first of them expires.
    pub expires: Timestamp,
}

impl fmt::Display for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "repository {}, served from {}", self.name, self.folder)?;
        writeln!(f, "root {}", self.root)?;
        match (&self.published, &self.trouble) {
            (Some(p), _) => writeln!(
                f,
                "published: trust {}, index {}, timestamp {}, expires {}",
                p.trust, p.index, p.timestamp, p.expires
            )?,
            (None, Some(trouble)) => writeln!(f, "published, but a client would refuse it: {trouble}")?,
            (None, None) => writeln!(f, "nothing is published yet")?,
        }
        write_signing(f, &self.signing)?;
        let mut table = Table::new(&["SET", "CHANNEL", "STATUS", "RELEASED", "KERNELS", "SUMMARY"]);
        for set in &self.sets {
            table.row([
                set.name.to_string(),
                channel_name(set.channel).to_owned(),
                status_name(set.status).to_owned(),
                set.released.to_string(),
                set.kernels.len().to_string(),
                set.summary.clone(),
            ]);
        }
        write!(f, "{table}")
    }
}
