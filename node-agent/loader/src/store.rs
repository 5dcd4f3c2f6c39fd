//! The state folder on the host: root's alone, written so that a power cut leaves the old or the
//! new content and never half of one.
//!
//! ```text
//! journal.json               see `journal`
//! levels/<digest>.ko         a module, named by its bytes
//! levels/<digest>.proof      what vouches for it
//! ```

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use invivo_terms::Digest;

use crate::journal::Journal;

/// Why the state folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room.
    #[error("no space left in the state folder, at {path}")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Anything else.
    #[error("state folder: {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The journal does not parse.
    #[error("the journal is damaged; it was put aside as {aside}")]
    Damaged {
        /// Where it is now.
        aside: PathBuf,
    },
}

/// The state folder.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// Largest journal and proof that are read back.
const MOST: u64 = 64 << 20;

impl Store {
    /// Opens the folder, made if it is not there, and makes it root's alone.
    ///
    /// # Errors
    ///
    /// `Io`, `Full`.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let store = Self { folder: folder.to_owned() };
        let levels = store.folder.join("levels");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&levels).map_err(at(&levels))?;
        for path in [&store.folder, &levels] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(at(path))?;
        }
        Ok(store)
    }

    /// The journal; an empty one if there is none.
    ///
    /// # Errors
    ///
    /// `Damaged` once: the broken file is put aside and the next call finds none. `Io`.
    pub fn journal(&self) -> Result<Journal, StoreError> {
        let path = self.folder.join("journal.json");
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Journal::default());
            }
            Err(error) => return Err(error),
        };
        match serde_json::from_slice(&bytes) {
            Ok(journal) => Ok(journal),
            Err(_) => {
                let aside = self.folder.join("journal.damaged");
                fs::rename(&path, &aside).map_err(at(&aside))?;
                Err(StoreError::Damaged { aside })
            }
        }
    }

    /// Writes the journal.
    ///
    /// # Errors
    ///
    /// `Full`, `Io`; the journal of before is then still there.
    pub fn save(&self, journal: &Journal) -> Result<(), StoreError> {
        let path = self.folder.join("journal.json");
        let bytes = serde_json::to_vec(journal).map_err(|e| at(&path)(io::Error::other(e)))?;
        write(&path, &bytes)
    }

    /// Keeps a module and its proof.
    ///
    /// # Errors
    ///
    /// `Full`, `Io`.
    pub fn keep(&self, digest: &Digest, module: &[u8], proof: &[u8]) -> Result<(), StoreError> {
        write(&self.level(digest, "ko"), module)?;
        write(&self.level(digest, "proof"), proof)
    }

    /// A kept module and its proof. Nothing about them is believed.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn kept(&self, digest: &Digest) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        Ok((read(&self.level(digest, "ko"))?, read(&self.level(digest, "proof"))?))
    }

    /// Removes every kept level but these, and what an interrupted write left behind.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn sweep(&self, needed: &[&Digest]) -> Result<(), StoreError> {
        let levels = self.folder.join("levels");
        for entry in fs::read_dir(&levels).map_err(at(&levels))? {
            let path = entry.map_err(at(&levels))?.path();
            let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
            let wanted = needed.iter().any(|digest| digest.as_str() == stem)
                && path.extension().is_some_and(|extension| extension == "ko" || extension == "proof");
            if !wanted {
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
        Ok(())
    }

    fn level(&self, digest: &Digest, extension: &str) -> PathBuf {
        self.folder.join("levels").join(format!("{digest}.{extension}"))
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> StoreError + '_ {
    |source| match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::Full { path: path.to_owned() }
        }
        _ => StoreError::Io { path: path.to_owned(), source },
    }
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes)).map_err(at(path))?;
    Ok(bytes)
}

/// Temporary file, fsync, rename, fsync of the folder.
fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    })();
    written.map_err(|error| {
        // The half-written file takes room that others may need; that it may be gone already is fine.
        let _ = fs::remove_file(&temporary);
        at(path)(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use invivo_wire::Order;

    #[test]
    fn the_state_folder_is_roots_alone_and_the_journal_comes_back() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("state");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let store = Store::open(&folder).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        let journal = Journal {
            order: Some(Order { object: "u".to_owned(), revision: invivo_terms::Revision(4) }),
            ..Journal::default()
        };
        store.save(&journal).unwrap();
        assert_eq!(Store::open(&folder).unwrap().journal().unwrap(), journal);
        assert_eq!(fs::metadata(folder.join("journal.json")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_journal_is_put_aside_and_not_lost() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        fs::write(root.path().join("journal.json"), "{\"order\":").unwrap();
        assert!(matches!(store.journal(), Err(StoreError::Damaged { .. })));
        assert_eq!(store.journal().unwrap(), Journal::default());
        assert_eq!(fs::read_to_string(root.path().join("journal.damaged")).unwrap(), "{\"order\":");
    }

    #[test]
    fn a_write_cut_short_leaves_the_old_content_and_is_swept() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let (kept, dropped) = (invivo_feed::digest(b"kept"), invivo_feed::digest(b"dropped"));
        store.keep(&kept, b"kept", b"proof").unwrap();
        store.keep(&dropped, b"dropped", b"proof").unwrap();
        fs::write(root.path().join(format!("levels/{kept}.ko.new")), "half").unwrap();
        store.sweep(&[&kept]).unwrap();
        assert_eq!(store.kept(&kept).unwrap(), (b"kept".to_vec(), b"proof".to_vec()));
        assert_eq!(fs::read_dir(root.path().join("levels")).unwrap().count(), 2);
    }
}
