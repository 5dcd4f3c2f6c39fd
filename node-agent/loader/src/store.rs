//! The state folder on the host: root's alone, written so that a power cut leaves the old or the
//! new content and never half of one.
//!
//! ```text
//! journal.json               see `journal`
//! levels/<digest>.ko         a module, named by its bytes
//! levels/<digest>.proof      what vouches for it
//! ```

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use invivo_feed::document::cap;
use invivo_feed::store::{StoreError, read, read_json, replace, write_json};
use invivo_terms::Digest;

use crate::journal::Journal;

/// The state folder.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// Longest journal that is read back.
const MOST_JOURNAL: u64 = 4 << 20;
/// Longest proof that is read back; what the socket takes.
const MOST_PROOF: u64 = invivo_wire::frame::MAX_BLOB as u64;
/// The files are root's alone, like the folder.
const MODE: u32 = 0o600;

impl Store {
    /// The state folder at this path. Nothing is done yet.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Makes the folder if it is not there, and makes it root's alone.
    ///
    /// # Errors
    ///
    /// `Full`, `Io`. Nothing is loaded then, but the loader goes on answering.
    pub fn prepare(&self) -> Result<(), StoreError> {
        let levels = self.folder.join("levels");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&levels).map_err(at(&levels))?;
        for path in [&self.folder, &levels] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(at(path))?;
        }
        Ok(())
    }

    /// Prepares the folder and reads the journal; an empty one if there is none.
    ///
    /// # Errors
    ///
    /// `Parse`, `TooLong`: a damaged journal, or one of a later version. It stays where it is: to
    /// begin with an empty one is to forget the floors and which instructions were heard. Whoever
    /// accepts that removes the file. `Io`, `Full`: it is not known whether there is one.
    pub fn open(&self) -> Result<Journal, StoreError> {
        let prepared = self.prepare();
        match (read_json(&self.folder.join("journal.json"), MOST_JOURNAL)?, prepared) {
            (Some(journal), Ok(())) => Ok(journal),
            (Some(journal), Err(error)) => {
                tracing::error!(error = %error, "state folder; nothing will be loaded");
                Ok(journal)
            }
            (None, prepared) => prepared.map(|()| Journal::default()),
        }
    }

    /// Writes the journal.
    ///
    /// # Errors
    ///
    /// `Full`, `Io`; the journal of before is then still there.
    pub fn save(&self, journal: &Journal) -> Result<(), StoreError> {
        write_json(&self.folder.join("journal.json"), journal)
    }

    /// Keeps a module and its proof.
    ///
    /// # Errors
    ///
    /// `Full`, `Io`.
    pub fn keep(&self, digest: &Digest, module: &[u8], proof: &[u8]) -> Result<(), StoreError> {
        self.prepare()?;
        replace(&self.level(digest, "ko"), module, MODE)?;
        replace(&self.level(digest, "proof"), proof, MODE)
    }

    /// A kept module and its proof. Nothing about them is believed.
    ///
    /// # Errors
    ///
    /// `Io`, `TooLong`.
    pub fn kept(&self, digest: &Digest) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let one = |extension, limit| {
            let path = self.level(digest, extension);
            read(&path, limit)?.ok_or_else(|| at(&path)(io::ErrorKind::NotFound.into()))
        };
        Ok((one("ko", cap::MODULE)?, one("proof", MOST_PROOF)?))
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
    |source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path, source },
            _ => StoreError::Io { path, source },
        }
    }
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
        let store = Store::new(&folder);
        store.prepare().unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        let journal = Journal {
            order: Some(Order { object: "u".to_owned(), revision: invivo_terms::Revision(4) }),
            ..Journal::default()
        };
        store.save(&journal).unwrap();
        assert_eq!(Store::new(&folder).open().unwrap(), journal);
        assert_eq!(fs::metadata(folder.join("journal.json")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_journal_stays_where_it_is_and_never_becomes_an_empty_one() {
        let root = tempfile::tempdir().unwrap();
        let (store, path) = (Store::new(root.path()), root.path().join("journal.json"));
        assert_eq!(store.open().unwrap(), Journal::default());
        fs::write(&path, "{\"order\":").unwrap();
        for _ in 0..2 {
            assert!(matches!(store.open(), Err(StoreError::Parse { .. })));
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"order\":");
    }

    #[test]
    fn a_state_folder_that_cannot_be_made_is_not_an_empty_one() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("file/state");
        fs::write(root.path().join("file"), "").unwrap();
        assert!(matches!(Store::new(&folder).open(), Err(StoreError::Io { .. })));
    }

    #[test]
    fn a_write_cut_short_leaves_the_old_content_and_is_swept() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path());
        let (kept, dropped) = (invivo_feed::digest(b"kept"), invivo_feed::digest(b"dropped"));
        store.keep(&kept, b"kept", b"proof").unwrap();
        store.keep(&dropped, b"dropped", b"proof").unwrap();
        fs::write(root.path().join(format!("levels/{kept}.ko.new")), "half").unwrap();
        store.sweep(&[&kept]).unwrap();
        assert_eq!(store.kept(&kept).unwrap(), (b"kept".to_vec(), b"proof".to_vec()));
        assert_eq!(fs::read_dir(root.path().join("levels")).unwrap().count(), 2);
    }
}
