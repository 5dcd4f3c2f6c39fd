//! Container images from files: no daemon, no base image, the same bytes from the same files.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Why an image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `SRC:DEST[:MODE]` was expected.
    #[error("{0:?} is not SRC:DEST or SRC:DEST:MODE")]
    Item(String),
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A file of an image, or an empty folder of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where it comes from; `None` makes an empty folder.
    pub source: Option<PathBuf>,
    /// Where it is in the image, without a slash at the start.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
}

impl std::str::FromStr for Item {
    type Err = Error;

    /// `SRC:DEST[:MODE]`; an empty SRC makes a folder, MODE is octal and 755 if left out.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::Item(text.to_owned());
        let mut parts = text.split(':');
        let source = parts.next().ok_or_else(bad)?;
        let path = parts.next().ok_or_else(bad)?.trim_matches('/');
        let mode = parts.next().unwrap_or("755");
        if path.is_empty() || parts.next().is_some() {
            return Err(bad());
        }
        Ok(Self {
            source: (!source.is_empty()).then(|| PathBuf::from(source)),
            path: path.to_owned(),
            mode: u32::from_str_radix(mode, 8).map_err(|_| bad())?,
        })
    }
}

/// An image in the making.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// `UID` or `UID:GID`; root if empty.
    pub user: String,
    /// What is in it.
    pub items: Vec<Item>,
}

impl Image {
    /// Writes it as an OCI layout into the empty folder `out`; returns its digest.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn write(&self, out: &Path) -> Result<String, Error> {
        let layer = self.layer()?;
        let blobs = out.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|source| Error::File { path: blobs.clone(), source })?;
        let put = |bytes: &[u8], media_type: &str| -> Result<Value, Error> {
            let digest = hex::encode(Sha256::digest(bytes));
            write(&blobs.join(&digest), bytes)?;
            Ok(json!({
                "mediaType": media_type,
                "digest": format!("sha256:{digest}"),
                "size": bytes.len(),
            }))
        };
        let layer = put(&layer, "application/vnd.oci.image.layer.v1.tar")?;
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Env": ["PATH=/"], "User": self.user},
            "rootfs": {"type": "layers", "diff_ids": [layer.get("digest")]},
        });
        let config = put(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json")?;
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config,
            "layers": [layer],
        });
        let manifest = put(manifest.to_string().as_bytes(), media_type)?;
        let digest = manifest.get("digest").and_then(Value::as_str).unwrap_or_default().to_owned();
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        write(&out.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        write(&out.join("index.json"), index.to_string().as_bytes())?;
        Ok(digest)
    }

    /// The one layer, uncompressed: everything is root's and dated 0.
    fn layer(&self) -> Result<Vec<u8>, Error> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut folders = BTreeSet::new();
        let mut entry = |path: &str, folder: bool, mode: u32, content: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(if folder { tar::EntryType::Directory } else { tar::EntryType::Regular });
            header.set_mode(mode);
            header.set_size(u64::try_from(content.len()).unwrap_or(u64::MAX));
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            archive.append_data(&mut header, path, content)
        };
        for item in &self.items {
            let at = |source| Error::File { path: PathBuf::from(&item.path), source };
            let parents: Vec<&Path> = Path::new(&item.path).ancestors().skip(1).collect();
            for parent in parents.into_iter().rev() {
                let parent = parent.to_string_lossy().into_owned();
                if !parent.is_empty() && folders.insert(parent.clone()) {
                    entry(&parent, true, 0o755, &[]).map_err(at)?;
                }
            }
            if let Some(source) = &item.source {
                let content =
                    fs::read(source).map_err(|error| Error::File { path: source.clone(), source: error })?;
                entry(&item.path, false, item.mode, &content).map_err(at)?;
            } else if folders.insert(item.path.clone()) {
                entry(&item.path, true, item.mode, &[]).map_err(at)?;
            }
        }
        archive.into_inner().map_err(|source| Error::File { path: PathBuf::from("layer"), source })
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(|source| Error::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_give_the_same_image() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("program");
        fs::write(&file, "x").unwrap();
        let image = Image {
            entrypoint: vec!["/bin/program".into()],
            user: "65532".into(),
            items: vec![format!("{}:/bin/program", file.display()).parse().unwrap()],
        };
        let digest = |name: &str| image.write(&dir.path().join(name)).unwrap();
        assert_eq!(digest("a"), digest("b"));
    }

    #[test]
    fn an_item_says_where_from_where_to_and_how() {
        let item: Item = "/a/b:/c/d:644".parse().unwrap();
        assert_eq!(item.source, Some("/a/b".into()));
        assert_eq!((item.path.as_str(), item.mode), ("c/d", 0o644));
        assert!("/a/b".parse::<Item>().is_err());
        assert!(":/tmp:1777".parse::<Item>().unwrap().source.is_none());
    }
}
