//! Where downloads and everything made from them live, outside of any source tree.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{env, fs, io};

use tempfile::TempDir;

/// The cache cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither `INVIVO_CACHE` nor `HOME` says where it is.
    #[error("no cache folder: set INVIVO_CACHE or HOME")]
    Nowhere,
    /// A folder of it cannot be made or filled.
    #[error("cache folder {path}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The cache: one folder, shared by all builds, also by those that run at the same time.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    archives: Vec<String>,
}

impl Cache {
    /// The cache that the environment names: `INVIVO_CACHE`, or `invivo` in the user's cache folder.
    ///
    /// # Errors
    ///
    /// Neither `INVIVO_CACHE` nor `HOME` is set.
    pub fn from_env() -> Result<Self, Error> {
        let set = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        set("INVIVO_CACHE")
            .or_else(|| Some(set("HOME")?.join(".cache/invivo")))
            .map(Self::at)
            .ok_or(Error::Nowhere)
    }

    /// A cache in `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), archives: Vec::new() }
    }

    /// The same cache, into which packages come from `archives` where those that the machine uses do not have
    /// them. Each is an address, a suite and a component.
    #[must_use]
    pub fn with_archives(&self, archives: &[String]) -> Self {
        Self { root: self.root.clone(), archives: archives.to_vec() }
    }

    /// Those archives.
    pub(crate) fn archives(&self) -> &[String] {
        &self.archives
    }

    /// Where package files are kept, under the names that apt gives them.
    pub fn debs(&self) -> PathBuf {
        self.root.join("debs")
    }

    /// Where apt keeps its own lists for us.
    pub(crate) fn apt(&self) -> PathBuf {
        self.root.join("builder/apt")
    }

    /// An empty folder on the cache's file system, gone when dropped. What a run that was interrupted left
    /// goes, too.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub(crate) fn scratch(&self) -> Result<TempDir, Error> {
        let path = self.root.join("builder/scratch");
        fs::create_dir_all(&path)
            .and_then(|()| remove_what_was_left(&path, SystemTime::now()))
            .and_then(|()| tempfile::Builder::new().prefix("b").tempdir_in(&path))
            .map_err(|source| Error::Folder { path, source })
    }

    /// The folder of `kind` made from the inputs that `key` stands for, if it is there.
    pub(crate) fn found(&self, kind: &str, key: &str) -> Option<PathBuf> {
        Some(self.root.join("builder").join(kind).join(key)).filter(|path| path.is_dir())
    }

    /// The folder of `kind` made from the inputs that `key` stands for. If it is not there, `make`
    /// fills an empty one, which then takes the name in one step: what has the name is complete.
    ///
    /// # Errors
    ///
    /// The folder cannot be made, or `make` fails.
    pub(crate) fn folder<E: From<Error>>(
        &self,
        kind: &str,
        key: &str,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        if let Some(path) = self.found(kind, key) {
            return Ok(path);
        }
        let path = self.root.join("builder").join(kind).join(key);
        let scratch = self.scratch()?;
        let filled = scratch.path().join("filled");
        fs::create_dir(&filled).map_err(|source| Error::Folder { path: filled.clone(), source })?;
        make(&filled)?;
        let parent = path.parent().unwrap_or(&self.root);
        let renamed = fs::create_dir_all(parent).and_then(|()| fs::rename(&filled, &path));
        match renamed {
            Ok(()) => Ok(path),
            // Another build was faster; its folder was made from the same inputs.
            Err(_) if path.is_dir() => Ok(path),
            Err(source) => Err(Error::Folder { path, source }.into()),
        }
    }
}

/// No step of a build takes as long as this.
const LEFT: Duration = Duration::from_hours(24);

/// Removes the folders in `scratch` of which nobody can be the owner any more.
fn remove_what_was_left(scratch: &Path, now: SystemTime) -> io::Result<()> {
    for entry in fs::read_dir(scratch)? {
        let entry = entry?;
        // Its owner may be removing it at this moment.
        let begun = entry.metadata().and_then(|metadata| metadata.modified()).unwrap_or(now);
        let is_left = now.duration_since(begun).is_ok_and(|age| age > LEFT);
        if !is_left {
            continue;
        }
        match fs::remove_dir_all(entry.path()) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interrupted_run_left_is_removed_after_a_day_and_what_is_in_use_stays() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("left/deep")).unwrap();
        let now = SystemTime::now();
        remove_what_was_left(root.path(), now).unwrap();
        assert!(root.path().join("left").is_dir());
        remove_what_was_left(root.path(), now + LEFT + Duration::from_mins(1)).unwrap();
        assert!(!root.path().join("left").exists());
    }

    #[test]
    fn a_folder_is_filled_once() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        let mut times = 0;
        for _ in 0..2 {
            let folder = cache
                .folder::<Error>("kind", "key", |path| {
                    times += 1;
                    fs::write(path.join("file"), "content").unwrap();
                    Ok(())
                })
                .unwrap();
            assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "content");
        }
        assert_eq!(times, 1);
    }

    #[test]
    fn a_folder_whose_making_failed_does_not_exist() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        cache.folder("kind", "key", |_| Err(Error::Nowhere)).unwrap_err();
        assert!(!root.path().join("builder/kind/key").exists());
    }

    #[test]
    fn the_slower_of_two_takes_what_the_faster_made() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        let folder = cache
            .folder::<Error>("kind", "key", |path| {
                fs::write(path.join("file"), "slow").unwrap();
                cache.folder::<Error>("kind", "key", |path| {
                    fs::write(path.join("file"), "fast").unwrap();
                    Ok(())
                })?;
                Ok(())
            })
            .unwrap();
        assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "fast");
    }
}
