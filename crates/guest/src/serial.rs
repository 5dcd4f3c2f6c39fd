//! A guest's first serial port: what its kernel and its programs have said, in a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::Process;

/// Why something did not appear on the serial port.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The deadline has passed.
    #[error("{pattern:?} did not appear on {log} within {waited:?}; last line: {last:?}")]
    Deadline {
        /// What was waited for.
        pattern: String,
        /// The log.
        log: PathBuf,
        /// For how long.
        waited: Duration,
        /// The last thing that was said.
        last: String,
    },
    /// The guest has ended without saying it.
    #[error("the guest ended before {pattern:?} appeared on {log}; last line: {last:?}")]
    Ended {
        /// What was waited for.
        pattern: String,
        /// The log.
        log: PathBuf,
        /// The last thing that was said.
        last: String,
    },
}

/// The log of a serial port.
#[derive(Debug, Clone)]
pub struct Serial {
    log: PathBuf,
}

impl Serial {
    /// The serial port that logs to `log`.
    pub fn new(log: impl Into<PathBuf>) -> Self {
        Self { log: log.into() }
    }

    /// The log file.
    pub fn path(&self) -> &Path {
        &self.log
    }

    /// All that was said so far, carriage returns removed.
    pub fn text(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    /// Waits for a line that contains `pattern` and returns it.
    ///
    /// # Errors
    /// When the guest ends first, or nothing came within `patience`.
    pub fn wait_for(&self, guest: Process, pattern: &str, patience: Duration) -> Result<String, Error> {
        let start = Instant::now();
        loop {
            // Asked before the log is read, so that a guest's last words are not missed.
            let alive = guest.alive();
            let text = self.text();
            if let Some(line) = text.lines().find(|line| line.contains(pattern)) {
                return Ok(line.to_owned());
            }
            let last = text.lines().last().unwrap_or_default().to_owned();
            let pattern = pattern.to_owned();
            let log = self.log.clone();
            if !alive {
                return Err(Error::Ended { pattern, log, last });
            }
            if start.elapsed() >= patience {
                let waited = patience;
                return Err(Error::Deadline { pattern, log, waited, last });
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}
