//! What the lab takes from Debian: programs for this machine, and packages whose files it only
//! unpacks.
//!
//! A configuration of apt's own, below the cache, adds the backports (QEMU 10) and leaves the
//! machine's lists and sources alone. The mirror is the one that the machine itself uses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::cache::{self, Cache, Key};
use crate::command;
use crate::progress;

/// The release that hosts and guests run.
pub const RELEASE: &str = "bookworm";

/// Programs and the packages that bring them.
const PROGRAMS: &[(&str, &str)] = &[
    ("curl", "curl"),
    ("debootstrap", "debootstrap"),
    ("depmod", "kmod"),
    ("gcc", "gcc"),
    ("gcc-12", "gcc-12"),
    ("ip", "iproute2"),
    ("lz4", "lz4"),
    ("make", "make"),
    ("mke2fs", "e2fsprogs"),
    ("nft", "nftables"),
    ("openssl", "openssl"),
    ("qemu-img", "qemu-utils"),
    ("xz", "xz-utils"),
];

/// The oldest QEMU that the lab was made with.
const QEMU: u32 = 10;

/// Why a package is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// apt or dpkg.
    #[error(transparent)]
    Command(#[from] command::Error),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// apt knows no Debian archive.
    #[error("apt has no source for Debian {RELEASE}")]
    NoMirror,
    /// apt did not leave a file of that package.
    #[error("no package {0} after its download")]
    NoFile(String),
}

/// Debian's packages.
#[derive(Debug, Clone)]
pub struct Packages<'a> {
    cache: &'a Cache,
}

impl<'a> Packages<'a> {
    /// The packages, kept in `cache`.
    pub fn new(cache: &'a Cache) -> Self {
        Self { cache }
    }

    /// Installs what is missing on this machine. Does not touch apt when nothing is.
    ///
    /// # Errors
    /// When apt fails.
    pub fn install(&self) -> Result<(), Error> {
        let mut missing: Vec<&str> = PROGRAMS
            .iter()
            .filter(|(program, _)| command::find(program).is_none())
            .map(|(_, package)| *package)
            .collect();
        let old = qemu_version().is_none_or(|version| version < QEMU);
        if missing.is_empty() && !old {
            return Ok(());
        }
        let configuration = self.configuration()?;
        if old {
            let step = progress::begin("install QEMU from the backports");
            let target = format!("{RELEASE}-backports");
            command::output(
                apt(&configuration, "apt-get")
                    .args(["install", "-y", "-q", "-t", &target])
                    .args(["qemu-system-x86", "qemu-utils"]),
            )?;
            missing.retain(|package| *package != "qemu-utils");
            step.done();
        }
        if !missing.is_empty() {
            let step = progress::begin(format!("install {}", missing.join(" ")));
            command::output(apt(&configuration, "apt-get").args(["install", "-y", "-q"]).args(&missing))?;
            step.done();
        }
        Ok(())
    }

    /// The file of a package, from the cache or else from the archive. Files stay in the cache:
    /// the archive drops old kernels.
    ///
    /// # Errors
    /// When it is in neither.
    pub fn file(&self, package: &str) -> Result<PathBuf, Error> {
        let folder = self.cache.folder("packages/files")?;
        if let Some(file) = find_file(&folder, package) {
            return Ok(file);
        }
        let step = progress::begin(format!("download the package {package}"));
        let configuration = self.configuration()?;
        command::output(
            apt(&configuration, "apt-get").args(["download", "-q", package]).current_dir(&folder),
        )?;
        step.done();
        find_file(&folder, package).ok_or_else(|| Error::NoFile(package.to_owned()))
    }

    /// A folder with the files of a package, not installed.
    ///
    /// # Errors
    /// When it cannot be had or unpacked.
    pub fn unpacked(&self, package: &str) -> Result<PathBuf, Error> {
        let file = self.file(package)?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let key = Key::new(package).with("file", name.as_bytes());
        self.cache.make("packages/unpacked", &key, |folder| {
            command::output(Command::new("dpkg-deb").arg("-x").arg(&file).arg(folder))?;
            Ok(())
        })
    }

    /// Where this machine has its Debian packages from, without a slash at the end.
    ///
    /// # Errors
    /// When apt has no source for the release.
    pub fn mirror(&self) -> Result<String, Error> {
        let text = command::output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(CODENAME) $(REPO_URI)",
            "Created-By: Packages",
            "Origin: Debian",
        ]))?;
        text.lines()
            .find_map(|line| line.strip_prefix(RELEASE)?.strip_prefix(' '))
            .map(|address| address.trim_end_matches('/').to_owned())
            .ok_or(Error::NoMirror)
    }

    /// apt's configuration, its lists not older than a day.
    fn configuration(&self) -> Result<PathBuf, Error> {
        let folder = self.cache.folder("apt")?;
        for part in ["lists/partial", "cache/archives/partial", "parts"] {
            self.cache.folder(&format!("apt/{part}"))?;
        }
        let main = self.mirror()?;
        let security = format!("{main}-security");
        let sources = [
            (&main, RELEASE.to_owned()),
            (&main, format!("{RELEASE}-updates")),
            (&main, format!("{RELEASE}-backports")),
            (&security, format!("{RELEASE}-security")),
        ]
        .iter()
        .map(|(address, suite)| {
            format!("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {address} {suite} main\n")
        })
        .collect::<Vec<String>>()
        .concat();
        let place = folder.display();
        let settings = format!(
            "Dir::Etc::SourceList \"{place}/sources.list\";\n\
             Dir::Etc::SourceParts \"{place}/parts\";\n\
             Dir::State::Lists \"{place}/lists\";\n\
             Dir::Cache \"{place}/cache\";\n\
             APT::Install-Recommends \"false\";\n\
             APT::Sandbox::User \"root\";\n"
        );
        let configuration = folder.join("apt.conf");
        write(&folder.join("sources.list"), &sources)?;
        write(&configuration, &settings)?;
        let stamp = folder.join("updated");
        let fresh = fs::metadata(&stamp).and_then(|metadata| metadata.modified()).is_ok_and(|at| {
            SystemTime::now().duration_since(at).is_ok_and(|age| age < Duration::from_hours(24))
        });
        if !fresh {
            let step = progress::begin("update the lists of packages");
            command::output(apt(&configuration, "apt-get").args(["update", "-q"]))?;
            write(&stamp, "")?;
            step.done();
        }
        Ok(configuration)
    }
}

fn apt(configuration: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("APT_CONFIG", configuration).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// The package's file in `folder`: `NAME_VERSION_ARCH.deb`.
fn find_file(folder: &Path, package: &str) -> Option<PathBuf> {
    let prefix = format!("{package}_");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension().is_some_and(|end| end == "deb")
                && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        })
        .collect();
    files.sort();
    files.pop()
}

fn qemu_version() -> Option<u32> {
    let text = command::output(Command::new("qemu-system-x86_64").arg("--version")).ok()?;
    parse_qemu_version(&text)
}

/// `QEMU emulator version 10.0.2 (Debian ...)` -> 10
fn parse_qemu_version(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("version ")?;
    rest.split('.').next()?.parse().ok()
}

fn write(path: &Path, text: &str) -> Result<(), cache::Error> {
    fs::write(path, text).map_err(|source| cache::Error::Io { what: "write", path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_qemu_is_read_from_what_it_says() {
        let said = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright";
        assert_eq!(parse_qemu_version(said), Some(10));
    }

    #[test]
    fn a_package_is_not_mistaken_for_one_with_a_longer_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("prometheus-alertmanager_1_amd64.deb"), "").unwrap();
        assert_eq!(find_file(dir.path(), "prometheus"), None);
    }
}
