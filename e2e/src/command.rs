//! Other programs, run to their end.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a program did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be started.
    #[error("start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("{program} ended with {status}: {said}")]
    Ended {
        /// The program.
        program: String,
        /// Its exit status.
        status: String,
        /// The end of what it said.
        said: String,
    },
    /// Its log cannot be made.
    #[error("open the log {path}: {source}")]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Runs `command` and returns its standard output.
///
/// # Errors
/// When it cannot be started or does not end with status 0; the error holds the end of what it
/// said.
pub fn output(command: &mut Command) -> Result<String, Error> {
    let program = name(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    Err(Error::Ended { program, status: output.status.to_string(), said: tail(&said) })
}

/// Runs `command` for its effect, what it says in the file `log`.
///
/// # Errors
/// As [`output`].
pub fn logged(command: &mut Command, log: &Path) -> Result<(), Error> {
    let program = name(command);
    let open = |source| Error::Log { path: log.to_owned(), source };
    let file = File::options().create(true).append(true).open(log).map_err(open)?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone().map_err(open)?)
        .stderr(file)
        .status()
        .map_err(|source| Error::Start { program: program.clone(), source })?;
    if status.success() {
        return Ok(());
    }
    let said = std::fs::read(log).unwrap_or_default();
    Err(Error::Ended { program, status: status.to_string(), said: tail(&String::from_utf8_lossy(&said)) })
}

/// Where `program` is, if it is installed. System administrators' folders count.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

fn name(command: &Command) -> String {
    let mut name = command.get_program().to_string_lossy().into_owned();
    if let Some(first) = command.get_args().next() {
        name.push(' ');
        name.push_str(&first.to_string_lossy());
    }
    name
}

fn tail(said: &str) -> String {
    let lines: Vec<&str> = said.trim().lines().collect();
    let from = lines.len().saturating_sub(15);
    lines.get(from..).unwrap_or_default().join("\n")
}
