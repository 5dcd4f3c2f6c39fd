//! Running the few programs that a build needs, with a clean environment and their words kept.

use std::ffi::OsStr;
use std::io;
use std::process::{Command, Output, Stdio};

/// A program could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program is not installed.
    #[error("{program} is not installed (Debian package {package})")]
    Missing {
        /// The program's name.
        program: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The program could not be started or waited for.
    #[error("run {program}")]
    Run {
        /// The program's name.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// The program says that it failed.
    #[error("{program}: {status}: {words}")]
    Failed {
        /// The program's name.
        program: String,
        /// Its exit status.
        status: String,
        /// The end of what it wrote to standard error.
        words: String,
    },
}

/// The most of a failed program's words that an error carries, in bytes.
const WORDS: usize = 4000;

/// A command for `program` that sees `PATH` and nothing else of the caller's environment: locale,
/// make flags and compiler settings of a person must not change what is built.
pub(crate) fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Runs `command` to its end and returns what it wrote.
///
/// # Errors
///
/// The program is missing, cannot be run, or ends with another status than 0.
pub(crate) fn run(command: &mut Command) -> Result<Output, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|source| not_run(&program, source))?;
    if output.status.success() {
        return Ok(output);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let from = words.char_indices().map(|(at, _)| at).find(|at| words.len() - at <= WORDS).unwrap_or(0);
    Err(Error::Failed {
        program,
        status: output.status.to_string(),
        words: words.get(from..).unwrap_or_default().trim().to_owned(),
    })
}

/// The error for a program that did not start.
pub(crate) fn not_run(program: &str, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::NotFound {
        Error::Missing { program: program.to_owned(), package: package_of(program) }
    } else {
        Error::Run { program: program.to_owned(), source }
    }
}

fn package_of(program: &str) -> &'static str {
    match program {
        "apt-get" => "apt",
        "dpkg-deb" => "dpkg",
        "dpkg-source" => "dpkg-dev",
        "tar" => "tar",
        "xz" => "xz-utils",
        "lz4" => "lz4",
        "zstd" => "zstd",
        "make" => "make",
        "gcc" | "gcc-12" | "x86_64-linux-gnu-gcc-12" => "gcc-12 and libc6-dev",
        _ => "of the same name",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let error = run(&mut clean("no-such-program-of-ours")).unwrap_err();
        assert!(matches!(error, Error::Missing { .. }), "{error}");
    }

    #[test]
    fn a_failed_program_keeps_the_end_of_its_words() {
        let error = run(clean("sh").args(["-c", "yes word | head -c 100000 >&2; echo the end >&2; exit 3"]))
            .unwrap_err();
        let Error::Failed { status, words, .. } = error else { panic!("{error}") };
        assert!(status.contains('3') && words.ends_with("the end") && words.len() <= WORDS);
    }
}
