//! A repository made with `invivo repo`, and forgeries of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use invivo_terms::Refusal;

use crate::command;
use crate::product::{FEED, Product, SET};

/// A published repository: a folder of plain files.
#[derive(Debug, Clone)]
pub struct Repository {
    folder: PathBuf,
    forgeries: PathBuf,
}

/// What an attacker on the way did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgery {
    /// One byte of the bundle differs.
    ChangedBundle,
    /// The index has one signature where two are needed.
    OneSignature,
    /// One byte of the module differs, after the bundle was unpacked.
    ChangedModule,
}

impl Forgery {
    /// A name for feeds and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChangedBundle => "changed-bundle",
            Self::OneSignature => "one-signature",
            Self::ChangedModule => "changed-module",
        }
    }

    /// What it must be refused as.
    pub const fn refusal(self) -> Refusal {
        match self {
            Self::ChangedBundle | Self::ChangedModule => Refusal::ArbitrarySoftware,
            Self::OneSignature => Refusal::BelowThreshold,
        }
    }
}

impl Repository {
    /// Keys, repository, bundle, two signatures of three, published.
    pub(crate) fn publish(product: &Product<'_>, work: &Path, bundle: &Path) -> anyhow::Result<Self> {
        let desk = work.join("desk");
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let key = |name: &str| text(work.join(format!("{name}.key")));
        let certificate = |name: &str| text(work.join(format!("{name}.cert")));
        let holders = ["ada", "bob", "eve"];
        for name in holders.iter().chain(&["clock"]) {
            product.invivo(&[
                "repo",
                "keygen",
                "--name",
                name,
                "--key",
                &key(name),
                "--cert",
                &certificate(name),
            ])?;
        }
        let place = text(desk.clone());
        let mut create = vec![
            "repo".to_owned(),
            "create".into(),
            place.clone(),
            "--name".into(),
            FEED.into(),
            "--threshold".into(),
            "2".into(),
        ];
        for name in holders {
            create.extend(["--trust".into(), certificate(name), "--index".into(), certificate(name)]);
        }
        create.extend(["--timestamp".into(), certificate("clock")]);
        product.invivo(&create.iter().map(String::as_str).collect::<Vec<_>>())?;
        for name in ["ada", "bob"] {
            product.invivo(&["repo", "sign", &place, "--key", &key(name)])?;
        }
        product.invivo(&["repo", "add", &place, &bundle.to_string_lossy(), "--set", SET])?;
        product.invivo(&["repo", "stage", &place])?;
        for name in ["ada", "bob"] {
            product.invivo(&["repo", "sign", &place, "--key", &key(name)])?;
        }
        product.invivo(&["repo", "publish", &place, "--timestamp-key", &key("clock")])?;
        Ok(Self { folder: desk.join("repository"), forgeries: work.to_owned() })
    }

    /// One that was published before.
    pub(crate) fn open(work: &Path) -> anyhow::Result<Self> {
        let folder = work.join("desk/repository");
        if !folder.is_dir() {
            bail!("no repository in {}", work.display());
        }
        Ok(Self { folder, forgeries: work.to_owned() })
    }

    /// Its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The digest that people pin.
    ///
    /// # Errors
    /// When `trust/1.json` is not there.
    pub fn root(&self) -> anyhow::Result<String> {
        use sha2::{Digest, Sha256};
        let bytes = std::fs::read(self.folder.join("trust/1.json")).context("read trust/1.json")?;
        Ok(hex::encode(Sha256::digest(bytes)))
    }

    /// A copy with this done to it.
    ///
    /// # Errors
    /// When it has not the files that a repository has.
    pub fn forge(&self, forgery: Forgery) -> anyhow::Result<Self> {
        let folder = self.forgeries.join(forgery.name());
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        command::output(Command::new("cp").arg("-a").arg(&self.folder).arg(&folder))?;
        match forgery {
            Forgery::ChangedModule => {}
            Forgery::ChangedBundle => {
                let path = only_file(&folder.join("bundles"), "")?;
                let mut bytes = std::fs::read(&path)?;
                let middle = bytes.len() / 2;
                *bytes.get_mut(middle).context("an empty bundle")? ^= 1;
                std::fs::write(&path, bytes)?;
            }
            Forgery::OneSignature => {
                let path = only_file(&folder.join("index"), ".sig")?;
                let bytes = std::fs::read(&path)?;
                let first = bytes.get(..packet_length(&bytes)?).context("a packet cut short")?;
                if first.len() == bytes.len() {
                    bail!("{} has one signature only", path.display());
                }
                std::fs::write(&path, first)?;
            }
        }
        Ok(Self { folder, forgeries: self.forgeries.clone() })
    }

    /// A folder that a static server shows like the patch server would: this repository as `feed`, all well.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn as_patch_server(&self, feed: &str) -> anyhow::Result<PathBuf> {
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

/// The one file in a folder whose name ends so.
fn only_file(folder: &Path, ending: &str) -> anyhow::Result<PathBuf> {
    let mut files = std::fs::read_dir(folder)
        .with_context(|| format!("read {}", folder.display()))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(ending));
    match (files.next(), files.next()) {
        (Some(file), None) => Ok(file),
        _ => bail!("not exactly one file *{ending} in {}", folder.display()),
    }
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
