//! Packages by exact version: from the cache, else through the machine's own apt, which checks the
//! archive's signatures. Either way the file must be the one that the lock names.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use invivo_terms::Digest;
use sha2::{Digest as _, Sha256};

use crate::cache::{self, Cache};
use crate::command::{self, clean};
use crate::lock::Package;
use crate::progress::{Progress, Step};

/// A package cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// apt does not give it. An archive keeps few old versions: a copy from elsewhere may be put at
    /// the path named, its digest is what counts.
    #[error("download {package}; if the archive no longer has it, put a copy at {path}")]
    Download {
        /// Name and version.
        package: String,
        /// Where the file is looked for.
        path: PathBuf,
        /// What apt says.
        source: command::Error,
    },
    /// The file is not the one that the lock names.
    #[error("{path}: sha256 is {found}, the lock says {wanted}")]
    Digest {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: Digest,
        /// The digest in the lock.
        wanted: Digest,
    },
    /// The file cannot be read or moved.
    #[error("package file {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The file of `package`, downloaded if the cache does not have it.
///
/// # Errors
///
/// It cannot be downloaded, or is not the one that the lock names.
pub fn package(cache: &Cache, package: &Package, progress: Progress) -> Result<PathBuf, Error> {
    let path = cache.debs().join(package.file_name());
    if !path.is_file() {
        progress(Step::Fetch, &format!("downloading {} {}", package.name, package.version));
        download(cache, package, &path)?;
    }
    let found = digest(&path)?;
    if found == package.sha256 {
        return Ok(path);
    }
    Err(Error::Digest { path, found, wanted: package.sha256.clone() })
}

/// A package of which only name and version are known: pinned to what the cache has, or to what the
/// archive gives, whose signatures apt checks.
///
/// # Errors
///
/// It cannot be downloaded.
pub fn pin(
    cache: &Cache,
    name: &str,
    version: &str,
    architecture: &str,
    progress: Progress,
) -> Result<Package, Error> {
    let unknown = Digest::from_bytes(&[0; 32]);
    let (name, version, architecture) = (name.to_owned(), version.to_owned(), architecture.to_owned());
    let package = Package { name, version, architecture, sha256: unknown };
    let path = cache.debs().join(package.file_name());
    if !path.is_file() {
        progress(Step::Fetch, &format!("downloading {} {}", package.name, package.version));
        download(cache, &package, &path)?;
    }
    Ok(Package { sha256: digest(&path)?, ..package })
}

/// Downloads beside the final place, so that a broken download never has the package's name.
fn download(cache: &Cache, package: &Package, path: &Path) -> Result<(), Error> {
    let scratch = cache.scratch()?;
    let wanted = format!("{}:{}={}", package.name, package.architecture, package.version);
    let wanted = wanted.replacen(":all=", "=", 1);
    let failed = |source| Error::Download { package: wanted.clone(), path: path.to_owned(), source };

    let with_machines_lists = command::run(apt(scratch.path(), None).args(["download", &wanted]));
    if with_machines_lists.is_err() {
        // The machine's lists may be missing or old, and are not ours to refresh. That some source
        // of the machine is unreachable does not matter if the package is found.
        let lists = cache.apt();
        let unusable = |source| Error::File { path: lists.clone(), source };
        fs::create_dir_all(lists.join("lists/partial")).map_err(unusable)?;
        fs::create_dir_all(lists.join("cache/archives/partial")).map_err(unusable)?;
        let refreshed = command::run(apt(scratch.path(), Some(&lists)).arg("update"));
        command::run(apt(scratch.path(), Some(&lists)).args(["download", &wanted]))
            .map_err(|e| failed(refreshed.err().unwrap_or(e)))?;
    }

    let downloaded = scratch.path().join(package.file_name());
    fs::create_dir_all(cache.debs())
        .and_then(|()| fs::rename(&downloaded, path))
        .map_err(|source| Error::File { path: path.to_owned(), source })
}

fn apt(folder: &Path, state: Option<&Path>) -> Command {
    let mut command = clean("apt-get");
    command.current_dir(folder).args(["--quiet", "--option", "APT::Sandbox::User=root"]);
    // The environment's proxies are the person's way to the archive.
    for name in ["http_proxy", "https_proxy", "no_proxy", "APT_CONFIG"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    if let Some(state) = state {
        command.arg("--option").arg(option("Dir::State::Lists=", &state.join("lists")));
        command.arg("--option").arg(option("Dir::Cache=", &state.join("cache")));
    }
    command
}

fn option(name: &str, path: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(name);
    option.push(path);
    option
}

/// SHA-256 of a file.
pub(crate) fn digest(path: &Path) -> Result<Digest, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(failed)?;
        if n == 0 {
            return Ok(Digest::from_bytes(&hash.finalize().into()));
        }
        hash.update(buffer.get(..n).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_package_with_other_bytes_is_refused_and_left_where_it_is() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        let wanted = Package {
            name: "linux-image".to_owned(),
            version: "1:2".to_owned(),
            architecture: "amd64".to_owned(),
            sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".parse().unwrap(),
        };
        let path = cache.debs().join("linux-image_1%3a2_amd64.deb");
        fs::create_dir_all(cache.debs()).unwrap();

        fs::write(&path, "abc").unwrap();
        assert_eq!(package(&cache, &wanted, &mut |_, _| ()).unwrap(), path);

        fs::write(&path, "abd").unwrap();
        let error = package(&cache, &wanted, &mut |_, _| ()).unwrap_err();
        assert!(matches!(error, Error::Digest { .. }), "{error}");
        assert!(path.exists());
    }
}
