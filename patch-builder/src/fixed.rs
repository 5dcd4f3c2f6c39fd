//! The fixed text of a file: from the source package that a recipe names, or by its patch.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::cache::{self, Cache};
use crate::lock::Package;
use crate::progress::{Progress, Step};
use crate::{fetch, tree, unpack};

/// A fixed file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source package cannot be had.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// The source package does not have the file.
    #[error(transparent)]
    Unpack(#[from] unpack::Error),
    /// The source package cannot be unpacked.
    #[error(transparent)]
    Tree(#[from] Box<tree::Error>),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// What differs in a source package cannot be read.
    #[error("read {path}")]
    Read {
        /// The folder with it.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// An unpacked file cannot be kept.
    #[error("write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file is not text.
    #[error("{0}: not text")]
    NotText(String),
}

/// One file of the source in a package, kept in the cache. `own` is the kernel's own source.
///
/// # Errors
///
/// The package cannot be had, or does not have the file.
pub fn of_package(
    cache: &Cache,
    package: &Package,
    own: &Path,
    file: &str,
    progress: Progress,
) -> Result<String, Error> {
    // A source package is unpacked as a whole or not at all.
    let kept = if package.is_source() {
        Some(tree::differing(cache, package, own, progress).map_err(Box::new)?)
    } else {
        tree::found_differing(cache, package, own)
    };
    if let Some(kept) = kept {
        // What is the same in the kernel's own is not kept.
        let gone = tree::gone(&kept).map_err(|source| Error::Read { path: kept.clone(), source })?;
        if gone.contains(Path::new(file)) {
            return Err(unpack::Error::NoFile { package: kept, file: file.to_owned() }.into());
        }
        let kept = kept.join(file);
        let path = if kept.is_file() { kept } else { own.join(file) };
        return text(&path, file);
    }
    let key = format!("{}-{}", package.sha256, hex::encode(Sha256::digest(file)));
    let folder = cache.folder("sources", &key, |folder| {
        let deb = fetch::package(cache, package, progress)?;
        progress(Step::Select, &format!("unpacking {file} of {}", package.version));
        let bytes = unpack::source_file(&deb, &package.name, file)?;
        let path = folder.join("file.c");
        std::fs::write(&path, bytes).map_err(|source| Error::Write { path, source })
    })?;
    text(&folder.join("file.c"), file)
}

/// A file that is there.
///
/// # Errors
///
/// It cannot be read, or is not text.
pub fn text(path: &Path, name: &str) -> Result<String, Error> {
    String::from_utf8(unpack::read(path)?).map_err(|_| Error::NotText(name.to_owned()))
}
