//! Packages by exact version: from the cache, else through the machine's own apt, which checks the
//! archive's signatures. Either way the file must be the one that the lock names.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use invivo_terms::Digest;
use sha2::{Digest as _, Sha256};

use crate::cache::{self, Cache};
use crate::command;
use crate::lock::{Package, SOURCE};
use crate::progress::{Progress, Step};

mod apt;
mod description;

pub(crate) use description::Listed;

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
    #[error("{path}: sha256 is {found}, and should be {wanted}")]
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
    /// A source package's description is not one.
    #[error("{path}: not the description of a source package")]
    Description {
        /// The file.
        path: PathBuf,
    },
}

/// The file of `package`, downloaded if the cache does not have it. Of a source package that is its
/// description; the files that it names are beside it.
///
/// # Errors
///
/// It cannot be downloaded, or is not the one that the lock names.
pub fn package(cache: &Cache, package: &Package, progress: Progress) -> Result<PathBuf, Error> {
    let path = there(cache, package, progress)?;
    checked(&path, &package.sha256)?;
    if package.is_source() {
        for Listed { name, sha256 } in listed(&path)? {
            checked(&path.with_file_name(name), &sha256)?;
        }
    }
    Ok(path)
}

fn there(cache: &Cache, package: &Package, progress: Progress) -> Result<PathBuf, Error> {
    let path = cache.debs().join(package.file_name());
    // Of a source package the large files may have been removed.
    let is_whole = path.is_file()
        && (!package.is_source()
            || listed(&path)?.iter().all(|file| path.with_file_name(&file.name).is_file()));
    if !is_whole {
        progress(Step::Fetch, &format!("downloading {} {}", package.name, package.version));
        apt::download(cache, package, &path)?;
    }
    Ok(path)
}

fn checked(path: &Path, wanted: &Digest) -> Result<(), Error> {
    let found = digest(path)?;
    if found == *wanted {
        return Ok(());
    }
    Err(Error::Digest { path: path.to_owned(), found, wanted: wanted.clone() })
}

/// The files that the description `path` of a source package names.
///
/// # Errors
///
/// It cannot be read, or is none.
pub(crate) fn listed(path: &Path) -> Result<Vec<Listed>, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    description::listed(&text).ok_or_else(|| Error::Description { path: path.to_owned() })
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
    let path = there(cache, &package, progress)?;
    Ok(Package { sha256: digest(&path)?, ..package })
}

/// The source of one version of a kernel whose newest source is in the package `name`, such as
/// `linux-source-6.1`: that package, or the source package that it is made of, which archives keep
/// longer.
///
/// # Errors
///
/// The archive has none of them.
pub fn pin_source(cache: &Cache, name: &str, version: &str, progress: Progress) -> Result<Package, Error> {
    let of_kernel = name.strip_prefix("linux-source-").map(|kernel| format!("linux-{kernel}"));
    let sources: Vec<String> = ["linux".to_owned()].into_iter().chain(of_kernel).collect();
    let is_cached = |file: String| cache.debs().join(file).is_file();
    let described = |source: &&String| is_cached(format!("{source}_{version}.dsc"));
    if let Some(source) = sources.iter().find(described)
        && !is_cached(format!("{name}_{version}_all.deb"))
    {
        return pin(cache, source, version, SOURCE, progress);
    }
    let mut absent = match pin(cache, name, version, "all", progress) {
        Err(absent @ Error::Download { .. }) => absent,
        other => return other,
    };
    for source in &sources {
        match pin(cache, source, version, SOURCE, progress) {
            // Whoever asks knows the package, not what it is made of.
            Err(Error::Download { .. }) => {}
            Err(other) => absent = other,
            found => return found,
        }
    }
    Err(absent)
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

    #[test]
    fn of_a_source_package_every_file_must_be_the_one_that_its_description_names() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path());
        fs::create_dir_all(cache.debs()).unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let text = format!("Source: linux\nChecksums-Sha256:\n {abc} 3 linux_2.orig.tar.xz\nFiles:\n");
        let path = cache.debs().join("linux_2-1.dsc");
        fs::write(&path, &text).unwrap();
        let archive = cache.debs().join("linux_2.orig.tar.xz");
        let wanted = Package {
            name: "linux".to_owned(),
            version: "2-1".to_owned(),
            architecture: SOURCE.to_owned(),
            sha256: digest(&path).unwrap(),
        };

        fs::write(&archive, "abc").unwrap();
        assert_eq!(package(&cache, &wanted, &mut |_, _| ()).unwrap(), path);

        fs::write(&archive, "abd").unwrap();
        let error = package(&cache, &wanted, &mut |_, _| ()).unwrap_err();
        assert!(matches!(&error, Error::Digest { path, .. } if *path == archive), "{error}");
    }
}
