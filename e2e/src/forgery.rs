//! What an attacker on the way could make of a repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use invivo_feed::document::TimestampDocument;
use invivo_terms::Refusal;

use crate::command;
use crate::repository::Repository;

/// What an attacker on the way did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgery {
    /// One byte of the bundle differs.
    ChangedBundle,
    /// The index has one signature where two are needed.
    OneSignature,
    /// One byte of the module differs, after the bundle was unpacked.
    ChangedModule,
}

impl Forgery {
    /// A name for feeds and files.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ChangedBundle => "changed-bundle",
            Self::OneSignature => "one-signature",
            Self::ChangedModule => "changed-module",
        }
    }

    /// What it must be refused as.
    pub(crate) const fn refusal(self) -> Refusal {
        match self {
            Self::ChangedBundle | Self::ChangedModule => Refusal::ArbitrarySoftware,
            Self::OneSignature => Refusal::BelowThreshold,
        }
    }
}

/// A repository that somebody changed: a folder of plain files.
#[derive(Debug, Clone)]
pub(crate) struct Forged {
    folder: PathBuf,
}

impl Forged {
    /// A copy of `repository` with this done to it.
    ///
    /// # Errors
    /// When it has not the files that a repository has.
    pub(crate) fn make(repository: &Repository, forgery: Forgery) -> anyhow::Result<Self> {
        let forged = Self::copy(repository, forgery.name())?;
        let folder = &forged.folder;
        match forgery {
            Forgery::ChangedModule => {}
            Forgery::ChangedBundle => {
                for path in files(&folder.join("bundles"))? {
                    let mut bytes = std::fs::read(&path)?;
                    let middle = bytes.len() / 2;
                    *bytes.get_mut(middle).context("an empty bundle")? ^= 1;
                    std::fs::write(&path, bytes)?;
                }
            }
            Forgery::OneSignature => {
                let path = folder.join(format!("{}.sig", current_index(folder)?));
                let bytes = std::fs::read(&path)?;
                let first = bytes.get(..packet_length(&bytes)?).context("a packet cut short")?;
                if first.len() == bytes.len() {
                    bail!("{} has one signature only", path.display());
                }
                std::fs::write(&path, first)?;
            }
        }
        Ok(forged)
    }

    /// The trust documents of `repository`, and under them all that `other`, signed by the same
    /// people for another name, has published.
    ///
    /// # Errors
    /// When they have not the files that a repository has.
    pub(crate) fn swapped(repository: &Repository, other: &Repository) -> anyhow::Result<Self> {
        let forged = Self::copy(other, "swapped")?;
        let trust = forged.folder.join("trust");
        std::fs::remove_dir_all(&trust)?;
        command::output(Command::new("cp").arg("-a").arg(repository.folder().join("trust")).arg(&trust))?;
        Ok(forged)
    }

    /// Its files.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn copy(repository: &Repository, name: &str) -> anyhow::Result<Self> {
        let folder = repository.work().join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        command::output(Command::new("cp").arg("-a").arg(repository.folder()).arg(&folder))?;
        Ok(Self { folder })
    }

    /// A folder that a static server shows like the patch server would: this repository as `feed`, all well.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn as_patch_server(&self, feed: &str) -> anyhow::Result<PathBuf> {
        let root = self.folder.with_extension("served");
        if root.exists() {
            std::fs::remove_dir_all(&root)?;
        }
        std::fs::create_dir_all(root.join("feeds"))?;
        let place = root.join("feeds").join(feed);
        command::output(Command::new("cp").arg("-a").arg(&self.folder).arg(&place))?;
        let now = jiff::Timestamp::now();
        let state = serde_json::json!({
            "attempt": now, "verified": now, "reason": "Verified", "document": null, "message": "all is well",
        });
        std::fs::write(place.join("state"), state.to_string())?;
        let name = self.folder.file_name().context("a folder has a name")?;
        std::fs::write(root.join("feeds/liar"), name.as_encoded_bytes())?;
        Ok(root)
    }
}

/// Path of the index that the timestamp names.
fn current_index(folder: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(folder.join("timestamp.json")).context("read timestamp.json")?;
    let timestamp: TimestampDocument = serde_json::from_slice(&bytes).context("read timestamp.json")?;
    Ok(format!("index/{}.json", timestamp.index.version))
}

/// Every file of a folder; at least one.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let files = std::fs::read_dir(folder)
        .with_context(|| format!("read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<Vec<PathBuf>>>()?;
    if files.is_empty() {
        bail!("no file in {}", folder.display());
    }
    Ok(files)
}

/// Length of the first OpenPGP packet with its header (RFC 9580, section 4.2).
fn packet_length(bytes: &[u8]) -> anyhow::Result<usize> {
    let octet = |at: usize| bytes.get(at).copied().map(usize::from).context("a packet cut short");
    let tag = octet(0)?;
    if tag & 0x40 != 0 {
        return Ok(match octet(1)? {
            short @ 0..192 => short + 2,
            two @ 192..224 => ((two - 192) << 8) + octet(2)? + 192 + 3,
            _ => bail!("a signature of an unexpected length"),
        });
    }
    Ok(match tag & 3 {
        0 => octet(1)? + 2,
        1 => (octet(1)? << 8) + octet(2)? + 3,
        _ => bail!("a signature of an unexpected length"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_packet_ends_where_its_header_says() {
        assert_eq!(packet_length(&[0xC2, 3, 1, 2, 3, 0xC2]).unwrap(), 5);
        assert_eq!(packet_length(&[0xC2, 192, 8, 0]).unwrap(), 200 + 3);
        assert_eq!(packet_length(&[0x88, 3, 1, 2, 3]).unwrap(), 5);
        assert!(packet_length(&[0xC2]).is_err());
    }
}
