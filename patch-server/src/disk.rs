//! The mirrors on disk. Below `feeds/<feed>/` each has the repository's own layout; beside them
//! lie what was verified last (`records/`) and the versions seen (`floors/`).
//!
//! Every file is written beside its place, synced and renamed, so that a power cut leaves the old
//! file or the new one. Content-addressed files come first, the timestamp last.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use invivo_feed::{Floors, Signed, digest};
use invivo_terms::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::stock::{Stock, Verified};
use crate::{FeedName, MirrorPath};

/// A file cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Writing it.
    #[error("write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Reading it.
    #[error("read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What it holds is not what was written there.
    #[error("{path} is damaged: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In which way.
        detail: String,
    },
}

/// What was verified last, written after everything that it names.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// The root it was verified from.
    pub root: Digest,
    /// When: the time by which it is judged again after a restart.
    pub verified: Timestamp,
    /// How many trust documents there are.
    pub trust: u64,
    /// The timestamp with its signatures, which must change together.
    pub timestamp: Signed,
}

/// The longest record that is read: a timestamp and its signatures as JSON numbers, four characters a byte.
const RECORD_CAP: u64 = 4 << 20;
/// The longest floors file.
const FLOORS_CAP: u64 = 4 << 10;

/// The folder with all mirrors.
#[derive(Debug, Clone)]
pub struct Disk {
    root: PathBuf,
}

impl Disk {
    /// The mirrors below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where a file of a mirror lies.
    pub(crate) fn place(&self, feed: &FeedName, path: &MirrorPath) -> PathBuf {
        self.mirror(feed).join(path.to_string())
    }

    fn mirror(&self, feed: &FeedName) -> PathBuf {
        self.root.join("feeds").join(feed.as_str())
    }

    fn record_place(&self, feed: &FeedName) -> PathBuf {
        self.root.join("records").join(format!("{feed}.json"))
    }

    fn floors_place(&self, feed: &FeedName, root: &Digest) -> PathBuf {
        self.root.join("floors").join(feed.as_str()).join(format!("{root}.json"))
    }

    /// The bytes of a mirrored file of at most `cap` bytes.
    pub(crate) fn read(&self, feed: &FeedName, path: &MirrorPath, cap: u64) -> Result<Vec<u8>, Error> {
        read(&self.place(feed, path), cap)
    }

    /// Keeps a file that its name identifies.
    pub(crate) fn keep(&self, feed: &FeedName, path: &MirrorPath, bytes: &[u8]) -> Result<(), Error> {
        write(&self.place(feed, path), bytes)
    }

    /// Whether a content-addressed file lies there whole.
    pub(crate) fn holds(&self, feed: &FeedName, path: &MirrorPath, length: u64, sha256: &Digest) -> bool {
        self.read(feed, path, length)
            .is_ok_and(|bytes| bytes.len() as u64 == length && digest(&bytes) == *sha256)
    }

    /// Makes `verified` the mirror: trust and index, then the record, then the timestamp.
    pub(crate) fn commit(
        &self,
        feed: &FeedName,
        root: &Digest,
        at: Timestamp,
        verified: &Verified,
    ) -> Result<(), Error> {
        // Signatures first: who finds the document finds them too.
        let pair = |document: MirrorPath, signatures: MirrorPath, signed: &Signed| {
            self.keep_changed(feed, &signatures, &signed.signatures)?;
            self.keep_changed(feed, &document, &signed.document)
        };
        for (n, signed) in (1..).zip(&verified.trust) {
            pair(MirrorPath::Trust(n), MirrorPath::TrustSignatures(n), signed)?;
        }
        let version = verified.index_version;
        pair(MirrorPath::Index(version), MirrorPath::IndexSignatures(version), &verified.index)?;
        let record = Record {
            root: root.clone(),
            verified: at,
            trust: verified.trust.len() as u64,
            timestamp: verified.timestamp.clone(),
        };
        let place = self.record_place(feed);
        let text = serde_json::to_vec(&record)
            .map_err(|e| Error::Write { path: place.clone(), source: io::Error::other(e) })?;
        write(&place, &text)?;
        pair(MirrorPath::Timestamp, MirrorPath::TimestampSignatures, &verified.timestamp)
    }

    /// Writes only what differs, so that a poll that brings nothing new writes nothing but the record.
    fn keep_changed(&self, feed: &FeedName, path: &MirrorPath, bytes: &[u8]) -> Result<(), Error> {
        match self.read(feed, path, bytes.len() as u64) {
            Ok(there) if there == bytes => Ok(()),
            Ok(_) | Err(_) => self.keep(feed, path, bytes),
        }
    }

    /// What was verified last; none if nothing was.
    pub(crate) fn record(&self, feed: &FeedName) -> Result<Option<Record>, Error> {
        read_json(&self.record_place(feed), RECORD_CAP)
    }

    /// The versions seen from `root`; the lowest if none were.
    pub(crate) fn floors(&self, feed: &FeedName, root: &Digest) -> Result<Floors, Error> {
        Ok(read_json(&self.floors_place(feed, root), FLOORS_CAP)?.unwrap_or_default())
    }

    /// Keeps the versions seen from `root`.
    pub(crate) fn raise(&self, feed: &FeedName, root: &Digest, floors: &Floors) -> Result<(), Error> {
        let place = self.floors_place(feed, root);
        if self.floors(feed, root).is_ok_and(|there| there == *floors) {
            return Ok(());
        }
        let text = serde_json::to_vec(floors)
            .map_err(|e| Error::Write { path: place.clone(), source: io::Error::other(e) })?;
        write(&place, &text)
    }

    /// Removes what `stock` does not name. Best effort: what stays is removed the next time.
    pub(crate) fn prune(&self, feed: &FeedName, stock: &Stock) {
        let mirror = self.mirror(feed);
        for folder in ["", "trust", "index", "kernels", "bundles"] {
            let Ok(entries) = fs::read_dir(mirror.join(folder)) else { continue };
            for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_file())) {
                let name = entry.file_name();
                let path = Path::new(folder).join(&name);
                let kept = path.to_str().and_then(|p| p.parse().ok()).is_some_and(|p| stock.names(&p));
                if !kept && let Err(error) = fs::remove_file(entry.path()) {
                    tracing::warn!(feed = feed.as_str(), path = %path.display(), %error, "old file stays");
                }
            }
        }
    }

    /// Removes the mirror of a feed that is no more. The versions seen stay: should the feed come
    /// back, nothing older is believed.
    pub(crate) fn remove(&self, feed: &FeedName) {
        let _ = fs::remove_file(self.record_place(feed));
        let _ = fs::remove_dir_all(self.mirror(feed));
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let wrong = |source| Error::Write { path: path.to_owned(), source };
    let folder = path.parent().ok_or_else(|| wrong(io::ErrorKind::InvalidInput.into()))?;
    fs::create_dir_all(folder).map_err(wrong)?;
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("file");
    let beside = folder.join(format!(".{name}.new"));
    let written = (|| {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // A full disk must not be kept full by what did not fit.
        let _ = fs::remove_file(&beside);
    }
    written.map_err(wrong)
}

fn read(path: &Path, cap: u64) -> Result<Vec<u8>, Error> {
    let wrong = |source| Error::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(wrong)?;
    let length = file.metadata().map_err(wrong)?.len();
    if length > cap {
        let detail = format!("{length} bytes, {cap} expected at most");
        return Err(Error::Damaged { path: path.to_owned(), detail });
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(|e| wrong(io::Error::other(e)))?];
    file.read_exact_at(&mut bytes, 0).map_err(wrong)?;
    Ok(bytes)
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path, cap: u64) -> Result<Option<T>, Error> {
    match read(path, cap) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| Error::Damaged { path: path.to_owned(), detail: e.to_string() }),
        Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> FeedName {
        "production".parse().unwrap()
    }

    #[test]
    fn floors_are_kept_for_each_root_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path());
        let (one, other) = (digest(b"1"), digest(b"2"));
        let floors = Floors { repository: Some("lab".parse().unwrap()), trust: 1, index: 2, timestamp: 3 };
        disk.raise(&name(), &one, &floors).unwrap();
        assert_eq!(disk.floors(&name(), &one).unwrap(), floors);
        assert_eq!(disk.floors(&name(), &other).unwrap(), Floors::default());
    }

    #[test]
    fn damaged_floors_are_an_error_and_never_the_lowest() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path());
        let root = digest(b"1");
        disk.raise(&name(), &root, &Floors { trust: 1, ..Floors::default() }).unwrap();
        fs::write(disk.floors_place(&name(), &root), b"{").unwrap();
        assert!(matches!(disk.floors(&name(), &root), Err(Error::Damaged { .. })));
    }

    #[test]
    fn a_file_that_was_changed_or_cut_on_disk_is_not_held() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path());
        let bytes = b"bundle".to_vec();
        let sha256 = digest(&bytes);
        let path = MirrorPath::Bundle(sha256.clone());
        disk.keep(&name(), &path, &bytes).unwrap();
        assert!(disk.holds(&name(), &path, 6, &sha256));
        fs::write(disk.place(&name(), &path), b"bundel").unwrap();
        assert!(!disk.holds(&name(), &path, 6, &sha256));
        fs::write(disk.place(&name(), &path), b"bun").unwrap();
        assert!(!disk.holds(&name(), &path, 6, &sha256));
    }
}
