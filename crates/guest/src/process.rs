//! Processes that outlive the program that started them.
//!
//! A pid alone is not a name: the kernel gives it away again. A process is therefore remembered by
//! its pid *and* the moment it started, and nothing is ever signalled unless both still agree.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// What can go wrong with a process.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its log file cannot be made.
    #[error("open the log {path}: {source}")]
    Log {
        /// The log file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program cannot be started.
    #[error("start {program}: {source}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ended at once.
    #[error("{program} ended right after its start; see {log}")]
    Ended {
        /// The program.
        program: String,
        /// Where its last words are.
        log: PathBuf,
    },
    /// The pid file cannot be written or removed.
    #[error("pid file {path}: {source}")]
    PidFile {
        /// The pid file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The signal was refused.
    #[error("signal process {pid}: {source}")]
    Signal {
        /// The process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// The process is still there after it was killed.
    #[error("process {pid} does not end")]
    Stuck {
        /// The process.
        pid: u32,
    },
}

/// One process, by pid and start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pid: u32,
    /// In clock ticks since boot: field 22 of `/proc/PID/stat`.
    started: u64,
}

impl Process {
    /// The process that has this pid now, if there is one that still runs.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, started) = parse_stat(&stat)?;
        // A zombie has ended; only its parent has not looked yet.
        (state != 'Z' && state != 'X').then_some(Self { pid, started })
    }

    /// Starts `command` in a process group of its own, its output in `log`, and does not wait.
    ///
    /// # Errors
    /// When the log cannot be made or the program cannot be started.
    pub fn spawn(command: &mut Command, log: &Path) -> Result<Self, Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        let open = |source| Error::Log { path: log.to_owned(), source };
        let out = File::create(log).map_err(open)?;
        let err = out.try_clone().map_err(open)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn { program: program.clone(), source })?;
        Self::of(child.id()).ok_or(Error::Ended { program, log: log.to_owned() })
    }

    /// The pid.
    pub fn pid(self) -> u32 {
        self.pid
    }

    /// Whether this very process still runs.
    pub fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Resident memory in KiB, 0 once it has ended.
    pub fn resident_kib(self) -> u64 {
        fs::read_to_string(format!("/proc/{}/status", self.pid))
            .ok()
            .and_then(|status| {
                status
                    .lines()
                    .find_map(|line| line.strip_prefix("VmRSS:"))
                    .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            })
            .unwrap_or(0)
    }

    /// Asks it to end, and ends it after `patience`.
    ///
    /// # Errors
    /// When a signal is refused, or the process is still there 10 s after SIGKILL.
    pub fn stop(self, patience: Duration) -> Result<(), Error> {
        self.signal(Signal::TERM)?;
        if self.wait(patience) {
            return Ok(());
        }
        self.kill()
    }

    /// Ends it at once, as a power cut would.
    ///
    /// # Errors
    /// When the signal is refused, or the process is still there 10 s later.
    pub fn kill(self) -> Result<(), Error> {
        self.signal(Signal::KILL)?;
        if self.wait(Duration::from_secs(10)) { Ok(()) } else { Err(Error::Stuck { pid: self.pid }) }
    }

    /// Waits until it has ended; false if it has not within `patience`.
    pub fn wait(self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.alive() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(20));
        }
        true
    }

    fn signal(self, signal: Signal) -> Result<(), Error> {
        if !self.alive() {
            return Ok(());
        }
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(());
        };
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(Error::Signal { pid: self.pid, source: errno.into() }),
        }
    }
}

/// State and start time from a line of `/proc/PID/stat`. The name may hold spaces and brackets.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // The state is field 3, the start time field 22.
    let started = fields.nth(18)?.parse().ok()?;
    Some((state, started))
}

/// A file that remembers one process.
#[derive(Debug, Clone)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// The pid file at `path`, whether it exists or not.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The process that the file names, if it still runs.
    pub fn process(&self) -> Option<Process> {
        let text = fs::read_to_string(&self.path).ok()?;
        let mut words = text.split_whitespace();
        let process = Process { pid: words.next()?.parse().ok()?, started: words.next()?.parse().ok()? };
        process.alive().then_some(process)
    }

    /// Starts `command` as [`Process::spawn`] does and remembers it; does nothing if the process
    /// of the file still runs.
    ///
    /// # Errors
    /// When it cannot be started or remembered.
    pub fn spawn(&self, command: &mut Command, log: &Path) -> Result<Process, Error> {
        if let Some(process) = self.process() {
            return Ok(process);
        }
        let process = Process::spawn(command, log)?;
        fs::write(&self.path, format!("{} {}\n", process.pid, process.started))
            .map_err(|source| Error::PidFile { path: self.path.clone(), source })?;
        Ok(process)
    }

    /// Ends the process, if it still runs, and forgets it.
    ///
    /// # Errors
    /// As [`Process::stop`].
    pub fn stop(&self, patience: Duration) -> Result<(), Error> {
        if let Some(process) = self.process() {
            process.stop(patience)?;
        }
        self.forget()
    }

    /// Ends the process at once, if it still runs, and forgets it.
    ///
    /// # Errors
    /// As [`Process::kill`].
    pub fn kill(&self) -> Result<(), Error> {
        if let Some(process) = self.process() {
            process.kill()?;
        }
        self.forget()
    }

    fn forget(&self) -> Result<(), Error> {
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::PidFile { path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_move_the_fields() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 2 3";
        assert_eq!(parse_stat(stat), Some(('S', 777)));
    }

    #[test]
    fn a_process_is_stopped_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let file = PidFile::new(dir.path().join("sleep.pid"));
        let process = file.spawn(Command::new("sleep").arg("60"), &dir.path().join("log")).unwrap();
        assert_eq!(file.process(), Some(process));
        file.stop(Duration::from_secs(5)).unwrap();
        assert!(!process.alive());
        assert_eq!(file.process(), None);
    }

    #[test]
    fn a_pid_that_was_given_away_again_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.pid");
        fs::write(&path, format!("{} 1\n", std::process::id())).unwrap();
        assert_eq!(PidFile::new(&path).process(), None);
    }
}
