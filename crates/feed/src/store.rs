//! Small state that must survive a power cut: written beside, synced, renamed, folder synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use invivo_terms::Refusal;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why state was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No room, or over the quota.
    #[error("no room to write {path}")]
    Full {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The file system said no.
    #[error("{path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The file is over the length that its reader allows.
    #[error("{path} is longer than {limit} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// The file does not hold what it should.
    #[error("{path} does not parse")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        source: serde_json::Error,
    },
    /// The file's own checks fail.
    #[error("{path} is damaged: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        detail: String,
    },
    /// A later version wrote it.
    #[error("{path} was written by a later version")]
    LaterFormat {
        /// The file.
        path: PathBuf,
    },
}

impl StoreError {
    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path, source },
            _ => Self::Io { path, source },
        }
    }

    /// Condition reason, Event reason and metric label.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Full { .. } => Refusal::StorageFull.as_str(),
            Self::Io { .. } => "NodeIo",
            Self::TooLong { .. } | Self::Parse { .. } | Self::Damaged { .. } | Self::LaterFormat { .. } => {
                Refusal::Malformed.as_str()
            }
        }
    }
}

/// Replaces the file at `path`: after a power cut it holds the old bytes or the new, never a part.
/// The folder must exist. One writer at a time.
///
/// # Errors
///
/// `Full`, `Io`; the old file is then still there.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let Some(name) = path.file_name() else {
        return Err(StoreError::io(path, io::ErrorKind::InvalidInput.into()));
    };
    let folder = folder_of(path);
    let mut beside = name.to_owned();
    beside.push(".new");
    let beside = folder.join(beside);
    let write = || -> io::Result<()> {
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| {
        // Best effort: a full disk should not stay full of halves.
        let _ = fs::remove_file(&beside);
        StoreError::io(path, error)
    })
}

/// Whether the file at `path` holds these bytes already, for good: then nothing need be replaced, which
/// takes room for a second copy. One that cannot be read or synced does not.
pub fn holds(path: &Path, bytes: &[u8]) -> bool {
    let compare = || -> io::Result<bool> {
        let mut file = File::open(path)?;
        if file.metadata()?.len() != bytes.len() as u64 {
            return Ok(false);
        }
        // Piece by piece: a module in memory twice is what a small node has no room for.
        let mut piece = [0; 4096];
        for expected in bytes.chunks(piece.len()) {
            let Some(found) = piece.get_mut(..expected.len()) else { return Ok(false) };
            file.read_exact(found)?;
            if found != expected {
                return Ok(false);
            }
        }
        // Whoever wrote it may have been stopped after the rename.
        file.sync_all()?;
        File::open(folder_of(path))?.sync_all()?;
        Ok(true)
    };
    compare().unwrap_or(false)
}

/// Reads the file at `path`; `None` where there is none.
///
/// # Errors
///
/// `TooLong` before more than `limit` bytes are taken; `Io`.
pub fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io(path, error)),
    };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| StoreError::io(path, error))?;
    if bytes.len() as u64 > limit {
        return Err(StoreError::TooLong { path: path.to_owned(), limit });
    }
    Ok(Some(bytes))
}

/// Removes the file at `path` for good; it need not be there.
///
/// # Errors
///
/// `Io`.
pub fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => File::open(folder_of(path))
            .and_then(|folder| folder.sync_all())
            .map_err(|error| StoreError::io(path, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io(path, error)),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a folder and those above it, readable by everybody.
///
/// # Errors
///
/// `Full`, `Io`.
pub fn make_folder(path: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(path).map_err(|error| StoreError::io(path, error))
}

/// [`replace`] with a value as JSON, mode 0600.
///
/// # Errors
///
/// As `replace`; `Parse` for a value that JSON cannot hold.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let bytes =
        serde_json::to_vec(value).map_err(|source| StoreError::Parse { path: path.to_owned(), source })?;
    replace(path, &bytes, 0o600)
}

/// [`read`] of what [`write_json`] wrote.
///
/// # Errors
///
/// As `read`; `Parse`.
pub fn read_json<T: DeserializeOwned>(path: &Path, limit: u64) -> Result<Option<T>, StoreError> {
    read(path, limit)?
        .map(|bytes| serde_json::from_slice(&bytes))
        .transpose()
        .map_err(|source| StoreError::Parse { path: path.to_owned(), source })
}
