//! The one place outside the tree for what is downloaded or built, keyed by what it is made from.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::progress;

/// What can go wrong with the cache itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither `INVIVO_CACHE` nor `HOME` says where it is.
    #[error("where is the cache? set INVIVO_CACHE")]
    Nowhere,
    /// A file or folder of it.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was done with it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
}

/// The cache.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache at `INVIVO_CACHE`, or `invivo` in the user's cache folder.
    ///
    /// # Errors
    /// When there is no such place or it cannot be made.
    pub fn open() -> Result<Self, Error> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let root = set("INVIVO_CACHE")
            .map(PathBuf::from)
            .or_else(|| set("XDG_CACHE_HOME").map(|dir| Path::new(&dir).join("invivo")))
            .or_else(|| set("HOME").map(|dir| Path::new(&dir).join(".cache/invivo")))
            .ok_or(Error::Nowhere)?;
        let cache = Self { root };
        cache.folder("tmp")?;
        Ok(cache)
    }

    /// A path in the cache, which may not exist.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// A folder in the cache, made if need be.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, relative: &str) -> Result<PathBuf, Error> {
        let path = self.path(relative);
        fs::create_dir_all(&path).map_err(|source| Error::Io {
            what: "make the folder",
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }

    /// The folder `kind/key`. If it does not exist, `build` fills a new folder which then takes its
    /// place: what is in the cache is whole. Two programs that want the same wait for each other.
    ///
    /// # Errors
    /// When `build` fails, or the folder cannot be put in its place.
    pub fn make<E: From<Error>>(
        &self,
        kind: &str,
        key: &Key,
        build: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let parent = self.folder(kind)?;
        let name = key.name();
        let finished = parent.join(&name);
        if finished.is_dir() {
            return Ok(finished);
        }
        let short = kind.replace('/', "-");
        let lock = self.path(&format!("tmp/{short}.lock"));
        let io = |what, path: &Path, source| Error::Io { what, path: path.to_owned(), source };
        let file = File::create(&lock).map_err(|source| io("open the lock", &lock, source))?;
        file.lock().map_err(|source| io("take the lock", &lock, source))?;
        if finished.is_dir() {
            return Ok(finished);
        }
        let step = progress::begin(format!("make {kind} {name}"));
        let unfinished = self.path(&format!("tmp/{short}-{name}"));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(|source| io("remove", &unfinished, source))?;
        }
        fs::create_dir_all(&unfinished).map_err(|source| io("make the folder", &unfinished, source))?;
        build(&unfinished)?;
        fs::rename(&unfinished, &finished).map_err(|source| io("put in its place", &finished, source))?;
        step.done();
        Ok(finished)
    }
}

/// What a thing is made from.
#[derive(Debug, Clone, Default)]
pub struct Key {
    label: String,
    hash: Sha256,
}

impl Key {
    /// A key; `label` is what people read in the folder's name.
    pub fn new(label: &str) -> Self {
        Self { label: label.to_owned(), hash: Sha256::new() }
    }

    /// Adds one thing that it is made from.
    #[must_use]
    pub fn with(mut self, name: &str, content: impl AsRef<[u8]>) -> Self {
        for part in [name.as_bytes(), content.as_ref()] {
            self.hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            self.hash.update(part);
        }
        self
    }

    /// The folder's name.
    pub fn name(&self) -> String {
        let mut name = self.label.clone();
        name.push('-');
        for byte in self.hash.clone().finalize().iter().take(6) {
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(dir: &Path) -> Cache {
        let cache = Cache { root: dir.to_owned() };
        cache.folder("tmp").unwrap();
        cache
    }

    #[test]
    fn what_is_there_is_not_built_again() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let key = Key::new("a").with("file", "content");
        let mut built = 0;
        for _ in 0..2 {
            cache
                .make::<Error>("things", &key, |_| {
                    built += 1;
                    Ok(())
                })
                .unwrap();
        }
        assert_eq!(built, 1);
    }

    #[test]
    fn a_build_that_broke_off_leaves_nothing_that_counts() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let key = Key::new("a");
        let broken = cache.make("things", &key, |folder| {
            fs::write(folder.join("half"), "").unwrap();
            Err(Error::Nowhere)
        });
        assert!(broken.is_err());
        let made = cache.make::<Error>("things", &key, |_| Ok(())).unwrap();
        assert!(!made.join("half").exists());
    }

    #[test]
    fn moving_a_byte_from_one_part_to_the_next_gives_another_key() {
        let one = Key::new("k").with("ab", "c");
        let other = Key::new("k").with("a", "bc");
        assert_ne!(one.name(), other.name());
    }
}
