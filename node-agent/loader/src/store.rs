//! The state folder on the host: root's alone, written so that a power cut leaves the old or the
//! new content and never half of one.
//!
//! ```text
//! journal.a, journal.b       the journal, see `slots`
//! levels/<digest>.ko         a module, named by its bytes
//! levels/<digest>.proof      what vouches for it
//! evidence/<digest>          the record of a panic that a verdict rests on
//! spare                      room for a level that is being fetched
//! ended                      the boot in which a loader was told to end, until another one begins in it
//! ```

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use invivo_feed::document::cap;
use invivo_feed::store::{StoreError, holds, read, remove, replace};
use invivo_terms::Digest;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::journal::Journal;
use crate::slots::Slots;
use crate::verdict::Record;

/// The state folder.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
    /// None until they have been read: to write before that is to forget.
    slots: Option<Slots>,
}

/// Longest proof that is read back; what the socket takes.
const MOST_PROOF: u64 = invivo_wire::frame::MAX_BLOB as u64;
/// The files are root's alone, like the folder.
const MODE: u32 = 0o600;
/// Longest name of a boot that is read back; the kernel's have 36 bytes.
const MOST_BOOT: u64 = 256;

impl Store {
    /// The state folder at this path. Nothing is done yet.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), slots: None }
    }

    /// Makes the folder if it is not there, and makes it root's alone.
    ///
    /// # Errors
    ///
    /// `Full`, `Io`. Nothing is loaded then, but the loader goes on answering.
    pub fn prepare(&self) -> Result<(), StoreError> {
        for path in [self.folder.clone(), self.folder.join("levels"), self.folder.join("evidence")] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(at(&path))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(at(&path))?;
        }
        Ok(())
    }

    /// Prepares the folder and reads the journal; an empty one if there is none.
    ///
    /// # Errors
    ///
    /// `Damaged`, `LaterFormat`, `Parse`: no journal that this version can read. Its files stay
    /// where they are: to begin with an empty one is to forget the floors and which instructions
    /// were heard. Whoever accepts that removes them. `Io`, `Full`: it is not known whether there
    /// is one.
    pub fn open(&mut self) -> Result<Journal, StoreError> {
        let prepared = self.prepare();
        let (slots, value) = Slots::open(&self.folder)?;
        let journal = match (value, prepared) {
            (None, prepared) => prepared.map(|()| Journal::default())?,
            (Some(value), prepared) => {
                if let Err(error) = prepared {
                    tracing::error!(error = %error, "state folder; nothing will be loaded");
                }
                serde_json::from_slice(&value)
                    .map_err(|source| StoreError::Parse { path: self.folder.join("journal"), source })?
            }
        };
        self.slots = Some(slots);
        Ok(journal)
    }

    /// Writes the journal.
    ///
    /// # Errors
    ///
    /// `Full`, `Io`; the journal of before is then still there. So it is for a journal that was not
    /// opened.
    pub fn save(&mut self, journal: &Journal) -> Result<(), StoreError> {
        #[cfg(test)]
        full::check(&self.folder)?;
        let path = || self.folder.join("journal");
        let value =
            serde_json::to_vec(journal).map_err(|source| StoreError::Parse { path: path(), source })?;
        match &mut self.slots {
            Some(slots) => slots.write(&value),
            None => Err(at(&path())(io::ErrorKind::NotFound.into())),
        }
    }

    /// Writes down that a loader was told to end in this boot.
    ///
    /// # Errors
    ///
    /// `Full`, `Io`: then a boot that ends now ends like any other.
    pub fn mark_end(&self, boot_id: &str) -> Result<(), StoreError> {
        replace(&self.ended(), boot_id.as_bytes(), MODE)
    }

    /// Another loader has begun in this boot: what happens from now on is not in order. A mark that
    /// cannot be read may be of this boot.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn unmark_end(&self, boot_id: &str) -> Result<(), StoreError> {
        match self.boot_that_ended() {
            Ok(None) => return Ok(()),
            Ok(Some(boot)) if boot != boot_id => return Ok(()),
            Ok(Some(_)) | Err(_) => {}
        }
        match remove(&self.ended()) {
            // No loader has made that.
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::IsADirectory => Ok(()),
            removed => removed,
        }
    }

    /// The last boot in which a loader was told to end and none began again.
    ///
    /// # Errors
    ///
    /// `Io`, `TooLong`.
    pub fn boot_that_ended(&self) -> Result<Option<String>, StoreError> {
        let found = read(&self.ended(), MOST_BOOT)?;
        Ok(found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn ended(&self) -> PathBuf {
        self.folder.join("ended")
    }

    /// Bytes for which there is room; none where that cannot be known. Root's own reserve counts: the
    /// file system gives it to the loader. What a file system keeps for its own work counts as well, since it
    /// does not say: whether a level has room is found out by taking it.
    pub fn room(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(&self.folder).ok()?;
        found.f_bfree.checked_mul(found.f_frsize)
    }

    /// Takes room for a level that is to be kept, until it is or [`Self::release`] gives it back. Room
    /// taken before is given back. A file system that cannot take room ahead promises nothing.
    ///
    /// # Errors
    ///
    /// `Full`, `Io`; nothing is taken then.
    pub fn reserve(&self, bytes: u64) -> Result<(), StoreError> {
        self.release()?;
        self.prepare()?;
        let path = self.spare();
        let take = || -> io::Result<()> {
            let file = fs::OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path)?;
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes.max(1)) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
                Err(error) => Err(error.into()),
            }
        };
        take().map_err(|error| {
            // Best effort: what was taken of it helps nobody.
            let _ = self.release();
            at(&path)(error)
        })
    }

    /// Gives back room that was taken.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn release(&self) -> Result<(), StoreError> {
        let path = self.spare();
        match path.try_exists() {
            // A disk that takes nothing does not even take that nothing is removed.
            Ok(false) => Ok(()),
            Ok(true) | Err(_) => remove(&path),
        }
    }

    fn spare(&self) -> PathBuf {
        self.folder.join("spare")
    }

    /// Keeps a module and its proof, in the room that was taken. What is kept already takes no room a
    /// second time.
    ///
    /// # Errors
    ///
    /// `Full`, `Io`.
    pub fn keep(&self, digest: &Digest, module: &[u8], proof: &[u8]) -> Result<(), StoreError> {
        self.prepare()?;
        self.release()?;
        for (extension, bytes) in [("ko", module), ("proof", proof)] {
            let path = self.level(digest, extension);
            if !holds(&path, bytes) {
                #[cfg(test)]
                full::check(&self.folder)?;
                replace(&path, bytes, MODE)?;
            }
        }
        Ok(())
    }

    /// Keeps a record that a verdict rests on.
    ///
    /// # Errors
    ///
    /// `Full`, `Io`.
    pub fn keep_evidence(&self, record: &Record) -> Result<(), StoreError> {
        self.prepare()?;
        replace(&self.folder.join("evidence").join(record.digest().as_str()), record.text().as_bytes(), MODE)
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

    /// Removes every kept level and record but these, and what an interrupted write left behind.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn sweep(&self, levels: &[&Digest], evidence: &[&Digest]) -> Result<(), StoreError> {
        let levels = levels.iter().flat_map(|digest| [format!("{digest}.ko"), format!("{digest}.proof")]);
        let evidence = evidence.iter().map(ToString::to_string);
        sweep(&self.folder.join("levels"), &levels.collect())?;
        sweep(&self.folder.join("evidence"), &evidence.collect())
    }

    fn level(&self, digest: &Digest, extension: &str) -> PathBuf {
        self.folder.join("levels").join(format!("{digest}.{extension}"))
    }
}

/// A disk that takes nothing any more, for tests: each has its own thread.
#[cfg(test)]
pub(crate) mod full {
    use std::cell::Cell;

    use super::{Path, StoreError, at, io};

    thread_local! {
        pub(crate) static FULL: Cell<bool> = const { Cell::new(false) };
    }

    pub(crate) fn check(folder: &Path) -> Result<(), StoreError> {
        if FULL.get() { Err(at(folder)(io::ErrorKind::StorageFull.into())) } else { Ok(()) }
    }
}

/// Removes every file of a folder but these.
fn sweep(folder: &Path, needed: &BTreeSet<String>) -> Result<(), StoreError> {
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        if !path.file_name().and_then(OsStr::to_str).is_some_and(|name| needed.contains(name)) {
            fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

pub(crate) fn at(path: &Path) -> impl Fn(io::Error) -> StoreError + '_ {
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
        let mut store = Store::new(&folder);
        assert!(store.save(&Journal::default()).is_err(), "before it was read");
        assert_eq!(store.open().unwrap(), Journal::default());
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        let journal = Journal {
            order: Some(Order { object: "u".to_owned(), revision: invivo_terms::Revision(4) }),
            ..Journal::default()
        };
        store.save(&journal).unwrap();
        assert_eq!(Store::new(&folder).open().unwrap(), journal);
        assert_eq!(fs::metadata(folder.join("journal.a")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn room_is_taken_from_the_disk_until_a_level_is_kept_in_it_or_it_is_given_back() {
        use std::os::unix::fs::MetadataExt as _;
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path());
        let spare = || fs::metadata(root.path().join("spare")).ok().map(|file| file.blocks() * 512);
        store.release().unwrap();
        for bytes in [1 << 20, 1 << 16] {
            store.reserve(bytes).unwrap();
            assert_eq!(spare(), Some(bytes), "taken anew, and not only promised");
        }
        store.keep(&invivo_feed::digest(b"module"), b"module", b"proof").unwrap();
        assert_eq!(spare(), None);
        store.reserve(1 << 16).unwrap();
        store.release().unwrap();
        assert_eq!(spare(), None);
        // More than any disk has.
        assert!(matches!(store.reserve(1 << 55), Err(StoreError::Full { .. } | StoreError::Io { .. })));
        assert_eq!(spare(), None);
    }

    #[test]
    fn the_mark_of_a_boot_that_ended_lasts_until_a_loader_begins_in_that_boot() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path());
        assert_eq!(store.boot_that_ended().unwrap(), None);
        store.unmark_end("boot-1").unwrap();
        store.mark_end("boot-1").unwrap();
        store.unmark_end("boot-2").unwrap();
        assert_eq!(store.boot_that_ended().unwrap().as_deref(), Some("boot-1"));
        store.unmark_end("boot-1").unwrap();
        assert_eq!(store.boot_that_ended().unwrap(), None);
        // Whatever lies there may be of this boot, or of none.
        fs::write(root.path().join("ended"), [0xff; 300]).unwrap();
        assert!(store.boot_that_ended().is_err());
        store.unmark_end("boot-1").unwrap();
        assert_eq!(store.boot_that_ended().unwrap(), None);
        fs::create_dir(root.path().join("ended")).unwrap();
        store.unmark_end("boot-1").unwrap();
        assert!(store.boot_that_ended().is_err() && store.mark_end("boot-1").is_err());
    }

    #[test]
    fn a_damaged_journal_stays_where_it_is_and_never_becomes_an_empty_one() {
        let root = tempfile::tempdir().unwrap();
        let mut store = Store::new(root.path());
        let (mut slots, _) = Slots::open(root.path()).unwrap();
        slots.write(b"{\"order\":").unwrap();
        for _ in 0..2 {
            assert!(matches!(store.open(), Err(StoreError::Parse { .. })));
            assert!(store.save(&Journal::default()).is_err());
        }
        assert_eq!(Slots::open(root.path()).unwrap().1.unwrap(), b"{\"order\":");
    }

    #[test]
    fn a_state_folder_that_cannot_be_made_is_not_an_empty_one() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("file/state");
        fs::write(root.path().join("file"), "").unwrap();
        assert!(matches!(Store::new(&folder).open(), Err(StoreError::Io { .. })));
    }

    #[test]
    fn what_is_kept_already_needs_no_room_for_a_second_copy() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path());
        let digest = invivo_feed::digest(b"module");
        store.keep(&digest, b"module", b"proof").unwrap();
        // A folder where the new file would be stands for a disk that takes nothing.
        for extension in ["ko", "proof"] {
            fs::create_dir(root.path().join(format!("levels/{digest}.{extension}.new"))).unwrap();
        }
        store.keep(&digest, b"module", b"proof").unwrap();
        assert!(store.keep(&digest, b"module", b"another").is_err());
        assert_eq!(store.kept(&digest).unwrap(), (b"module".to_vec(), b"proof".to_vec()));
    }

    #[test]
    fn a_write_cut_short_leaves_the_old_content_and_is_swept() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path());
        let (kept, dropped) = (invivo_feed::digest(b"kept"), invivo_feed::digest(b"dropped"));
        store.keep(&kept, b"kept", b"proof").unwrap();
        store.keep(&dropped, b"dropped", b"proof").unwrap();
        fs::write(root.path().join(format!("levels/{kept}.ko.new")), "half").unwrap();
        let [needed, other] = ["needed", "other"].map(|text| Record::new(text.as_bytes()));
        store.keep_evidence(&needed).unwrap();
        store.keep_evidence(&other).unwrap();
        store.sweep(&[&kept], &[needed.digest()]).unwrap();
        assert_eq!(store.kept(&kept).unwrap(), (b"kept".to_vec(), b"proof".to_vec()));
        assert_eq!(fs::read_dir(root.path().join("levels")).unwrap().count(), 2);
        assert_eq!(fs::read_dir(root.path().join("evidence")).unwrap().count(), 1);
    }
}
