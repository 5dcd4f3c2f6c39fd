//! Files out of packages: only those that a build needs.

use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::{fs, io};

use crate::command::{clean, not_run};

/// A package does not give what it should hold.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program that unpacks is missing or cannot be run.
    #[error(transparent)]
    Command(#[from] crate::command::Error),
    /// A program that unpacks failed.
    #[error("unpack {package}: {program} failed: {words}")]
    Failed {
        /// The package file.
        package: PathBuf,
        /// The program.
        program: &'static str,
        /// What it says.
        words: String,
    },
    /// The package does not have a file that was wanted.
    #[error("{package} has no {file}")]
    NoFile {
        /// The package file.
        package: PathBuf,
        /// The file wanted from it.
        file: String,
    },
    /// An unpacked file cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Unpacks what matches `patterns` (as tar matches them, with `*`) from `package` into `folder`.
///
/// # Errors
///
/// A program fails, or nothing matches a pattern.
pub(crate) fn files(package: &Path, patterns: &[&str], folder: &Path) -> Result<(), Error> {
    let (mut archive, stream) = data(package)?;
    let tar = clean("tar")
        .arg("--extract")
        .arg("--directory")
        .arg(folder)
        .args(["--no-same-owner", "--wildcards"])
        .args(patterns)
        .stdin(stream)
        .output()
        .map_err(|e| not_run("tar", e))?;
    let archive = archive.wait().map_err(|e| not_run("dpkg-deb", e))?;
    let failed = |program, words| Error::Failed { package: package.to_owned(), program, words };
    match (archive.success(), tar.status.success()) {
        (true, true) => Ok(()),
        (true, false) if complaint(&tar).contains("Not found in archive") => {
            Err(Error::NoFile { package: package.to_owned(), file: patterns.join(" ") })
        }
        // Without a reader it ends early.
        (_, false) => Err(failed("tar", complaint(&tar))),
        (false, true) => Err(failed("dpkg-deb", archive.to_string())),
    }
}

/// What a program says of its failure, in one line: a full disk is told file by file, and first of all
/// writes that were cut short.
fn complaint(output: &Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr);
    let full = words.lines().find(|line| line.contains("No space left on device"));
    full.or_else(|| words.lines().next()).unwrap_or_default().chars().take(300).collect()
}

/// Machines that the kernel knows besides ours; `um` shares code with it.
const OTHERS: [&str; 22] = [
    "alpha",
    "arc",
    "arm",
    "arm64",
    "csky",
    "hexagon",
    "ia64",
    "loongarch",
    "m68k",
    "microblaze",
    "mips",
    "nios2",
    "openrisc",
    "parisc",
    "powerpc",
    "riscv",
    "s390",
    "sh",
    "sparc",
    "um",
    "xtensa",
    "nds32",
];

/// The source tree that a Debian source package carries, into `folder`, without documents, tests and
/// other machines' code.
///
/// # Errors
///
/// A program fails.
pub(crate) fn source_tree(package: &Path, tree: &str, folder: &Path) -> Result<(), Error> {
    let mut excluded: Vec<String> =
        ["Documentation", "tools/testing", "tools/perf"].map(|unused| format!("{tree}/{unused}")).into();
    for machine in OTHERS {
        // What says how they are configured is read all the same.
        excluded.push(format!("{tree}/arch/{machine}/*/*.[chS]"));
        excluded.push(format!("{tree}/arch/{machine}/boot/dts"));
    }
    part_of_tree(package, tree, folder, &excluded, &[])
}

/// Only the C files and headers of that tree, without tools and other machines' code.
///
/// # Errors
///
/// A program fails.
pub(crate) fn c_files(package: &Path, tree: &str, folder: &Path) -> Result<(), Error> {
    let excluded: Vec<_> = without_code().map(|unused| format!("{tree}/{unused}")).collect();
    part_of_tree(package, tree, folder, &excluded, &["--wildcards", "*.[ch]"])
}

/// The tree that the source package with this description is of, with the distribution's changes, into
/// `folder`, which is not there yet; without tools and other machines' code.
///
/// # Errors
///
/// A program fails.
pub(crate) fn source_package(description: &Path, folder: &Path) -> Result<(), Error> {
    // Who wants the package has compared its files with their digests.
    let order = ["--extract", "--no-check", "--no-copy"];
    crate::command::run(clean("dpkg-source").args(order).arg(description).arg(folder))?;
    // What the distribution's own changes left of what was there before is no part of it.
    for unused in without_code().chain([DISTRIBUTION, ".pc"].map(str::to_owned)) {
        let path = folder.join(unused);
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Read { path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// One file of a tar archive.
///
/// # Errors
///
/// A program fails, or the archive does not have the file.
pub(crate) fn file_of_archive(archive: &Path, file: &str) -> Result<Vec<u8>, Error> {
    let order = ["--extract", "--to-stdout", "--file"];
    Ok(crate::command::run(clean("tar").args(order).arg(archive).arg(file))?.stdout)
}

/// Whether a folder of the tree, or a file in one, is one of which nothing becomes part of our kernels.
pub(crate) fn is_elsewhere(path: &str) -> bool {
    let mut parts = path.split('/');
    match (parts.next(), parts.next()) {
        (Some("arch"), Some(machine)) => OTHERS.contains(&machine),
        (Some(folder), _) => UNUSED.contains(&folder) || folder == DISTRIBUTION,
        (None, _) => false,
    }
}

/// Folders of the tree of which nothing becomes part of a kernel.
const UNUSED: [&str; 4] = ["Documentation", "tools", "samples", "scripts"];
/// What the distribution has added to the tree.
const DISTRIBUTION: &str = "debian";

fn without_code() -> impl Iterator<Item = String> {
    let unused = UNUSED.map(str::to_owned);
    unused.into_iter().chain(OTHERS.map(|machine| format!("arch/{machine}")))
}

fn part_of_tree(
    package: &Path,
    tree: &str,
    folder: &Path,
    excluded: &[String],
    wanted: &[&str],
) -> Result<(), Error> {
    let failed = |program, words| Error::Failed { package: package.to_owned(), program, words };
    let (outer, stream) = data(package)?;
    let (middle, stream) = pipe(
        clean("tar").args(["--extract", "--to-stdout"]).arg(format!("./usr/src/{tree}.tar.xz")).stdin(stream),
        "tar",
    )?;
    let (inner, stream) = pipe(clean("xz").args(["--decompress", "--stdout"]).stdin(stream), "xz")?;
    let mut tar = clean("tar");
    tar.args(["--extract", "--no-same-owner", "--strip-components=1", "--directory"]).arg(folder);
    tar.args(excluded.iter().map(|path| format!("--exclude={path}"))).args(wanted);
    let tar = tar.stdin(stream).output().map_err(|e| not_run("tar", e))?;
    let mut before = Ok(());
    for (mut child, program) in [(inner, "xz"), (middle, "tar"), (outer, "dpkg-deb")] {
        let status = child.wait().map_err(|e| not_run(program, e))?;
        if !status.success() && before.is_ok() {
            before = Err(failed(program, status.to_string()));
        }
    }
    // What comes before the one that writes ends early if that does.
    if tar.status.success() { before } else { Err(failed("tar", complaint(&tar))) }
}

/// One file of the source tree that a Debian source package (`linux-source-X.Y`) carries.
///
/// The tree is a compressed archive within the package and is read only as far as the file:
/// seconds instead of minutes, and no gigabyte on disk.
///
/// # Errors
///
/// A program fails, or the tree does not have the file.
pub(crate) fn source_file(package: &Path, tree: &str, file: &str) -> Result<Vec<u8>, Error> {
    let (outer, stream) = data(package)?;
    let (middle, stream) = pipe(
        clean("tar").args(["--extract", "--to-stdout"]).arg(format!("./usr/src/{tree}.tar.xz")).stdin(stream),
        "tar",
    )?;
    let (inner, stream) = pipe(clean("xz").args(["--decompress", "--stdout"]).stdin(stream), "xz")?;
    let found = clean("tar")
        .args(["--extract", "--to-stdout", "--occurrence=1"])
        .arg(format!("{tree}/{file}"))
        .stdin(stream)
        .stderr(Stdio::null())
        .output()
        .map_err(|e| not_run("tar", e));
    // The reader has stopped at the file; those before it end on the closed pipe, as they should.
    for mut child in [inner, middle, outer] {
        child.wait().map_err(|e| not_run("tar", e))?;
    }
    let found = found?;
    if found.status.success() && !found.stdout.is_empty() {
        return Ok(found.stdout);
    }
    Err(Error::NoFile { package: package.to_owned(), file: format!("{tree}/{file}") })
}

/// The package's files as a tar stream.
fn data(package: &Path) -> Result<(Child, ChildStdout), Error> {
    pipe(clean("dpkg-deb").arg("--fsys-tarfile").arg(package), "dpkg-deb")
}

fn pipe(command: &mut Command, program: &'static str) -> Result<(Child, ChildStdout), Error> {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(|e| not_run(program, e))?;
    let stream = child.stdout.take().ok_or_else(|| not_run(program, io::ErrorKind::BrokenPipe.into()))?;
    Ok((child, stream))
}

/// The text of a file that gzip compressed.
pub(crate) fn gunzip(path: &Path) -> Result<String, Error> {
    let output = crate::command::run(clean("gzip").args(["--decompress", "--stdout"]).arg(path))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads an unpacked file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_tools_and_other_machines_code_are_elsewhere() {
        for path in [
            "Documentation/x.rst",
            "tools/testing/a.c",
            "arch/arm64/kernel/a.c",
            "arch/arm64",
            "debian/rules",
        ] {
            assert!(is_elsewhere(path), "{path}");
        }
        for path in ["arch/x86/kernel/a.c", "arch/Kconfig", "net/tools/a.c", "arch", "MAINTAINERS"] {
            assert!(!is_elsewhere(path), "{path}");
        }
    }

    #[test]
    fn of_a_full_disk_the_reason_is_told_and_of_anything_else_the_first_line() {
        let said = |words: &str| {
            let stderr = words.as_bytes().to_vec();
            complaint(&Output { status: std::process::ExitStatus::default(), stdout: Vec::new(), stderr })
        };
        let full =
            "tar: a.c: Wrote only 512 of 10240 bytes\ntar: b.c: Cannot open: No space left on device\n";
        assert_eq!(said(full), "tar: b.c: Cannot open: No space left on device");
        assert_eq!(said("tar: one\ntar: two\n"), "tar: one");
        assert_eq!(said(""), "");
    }

    #[test]
    fn a_package_that_is_none_and_a_file_that_is_not_in_one_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let none = root.path().join("none.deb");
        fs::write(&none, "no package").unwrap();
        let error = files(&none, &["./usr/*"], root.path()).unwrap_err();
        assert!(matches!(error, Error::Failed { .. }), "{error}");
    }
}
