//! What one running lab keeps: certificates, pid files, logs, disks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use invivo_guest::{PidFile, Process, process};

use crate::cache::{self, Cache};

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// A process.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// A file or folder.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was done with it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
    /// A service ended instead of getting ready.
    #[error("{name} ended: {said}")]
    Ended {
        /// The service.
        name: String,
        /// The end of its log.
        said: String,
    },
    /// A service did not get ready in time.
    #[error("{name} is not ready after {waited:?}: {said}")]
    NotReady {
        /// The service.
        name: String,
        /// How long was waited.
        waited: Duration,
        /// The end of its log.
        said: String,
    },
}

/// The folder of one lab.
#[derive(Debug, Clone)]
pub struct State {
    root: PathBuf,
}

impl State {
    /// The state at `INVIVO_LAB_STATE`, or `lab/default` in the cache.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(cache: &Cache) -> Result<Self, Error> {
        let root = match std::env::var_os("INVIVO_LAB_STATE") {
            Some(root) if !root.is_empty() => PathBuf::from(root),
            _ => cache.path("lab/default"),
        };
        Self::at(root)
    }

    /// The state of another lab, `lab/NAME` in the cache.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn named(cache: &Cache, name: &str) -> Result<Self, Error> {
        Self::at(cache.path(&format!("lab/{name}")))
    }

    fn at(root: PathBuf) -> Result<Self, Error> {
        let state = Self { root };
        for folder in ["run", "log", "pki", "nodes", "registry", "files"] {
            state.folder(folder)?;
        }
        Ok(state)
    }

    /// A path below it, which may not exist.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// A folder below it, made if need be.
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

    /// Removes a file or folder below it, if it is there.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, relative: &str) -> Result<(), Error> {
        let path = self.path(relative);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        match removed {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Io { what: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// Writes a file below it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) -> Result<PathBuf, Error> {
        let path = self.path(relative);
        fs::write(&path, content).map_err(|source| Error::Io {
            what: "write",
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }

    /// The log of a service or guest.
    pub fn log(&self, name: &str) -> PathBuf {
        self.root.join("log").join(format!("{name}.log"))
    }

    /// The pid file of a service or guest.
    pub fn pid_file(&self, name: &str) -> PidFile {
        PidFile::new(self.root.join("run").join(format!("{name}.pid")))
    }

    /// Everything that has a pid file, by name, with the process if it still runs.
    pub fn processes(&self) -> Vec<(String, Option<Process>)> {
        let mut names: Vec<String> = fs::read_dir(self.path("run"))
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                name.strip_suffix(".pid").map(ToOwned::to_owned)
            })
            .collect();
        names.sort();
        names
            .into_iter()
            .map(|name| {
                let process = self.pid_file(&name).process();
                (name, process)
            })
            .collect()
    }

    /// Starts a service, unless it runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn service(&self, name: &str, command: &mut Command) -> Result<Process, Error> {
        Ok(self.pid_file(name).spawn(command, &self.log(name))?)
    }

    /// Waits until `ready` says so, as long as the service runs.
    ///
    /// # Errors
    /// When the service ends, or is not ready within `patience`.
    pub fn wait_ready(
        &self,
        name: &str,
        patience: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), Error> {
        let start = Instant::now();
        let pid_file = self.pid_file(name);
        while !ready() {
            if pid_file.process().is_none() {
                return Err(Error::Ended { name: name.to_owned(), said: self.last_words(name) });
            }
            if start.elapsed() >= patience {
                return Err(Error::NotReady {
                    name: name.to_owned(),
                    waited: patience,
                    said: self.last_words(name),
                });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn last_words(&self, name: &str) -> String {
        let bytes = fs::read(self.log(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(5);
        lines.get(from..).unwrap_or_default().join("\n")
    }

    /// The root of it.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// Whether something listens there.
pub fn listens(address: &str) -> bool {
    address.parse().is_ok_and(|address| {
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
    })
}
