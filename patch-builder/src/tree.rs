//! The build tree: Debian's headers packages and build tools laid over each other, so that modules
//! are built from it wherever it lies and nothing needs to be installed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest as _, Sha256};

use crate::cache::{self, Cache};
use crate::lock::{KernelLock, Package};
use crate::progress::{Progress, Step};
use crate::{fetch, toolchain, unpack};

/// The tree cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A package cannot be had.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// A package does not hold what it should.
    #[error(transparent)]
    Unpack(#[from] unpack::Error),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// The packages do not have the layout that Debian gives them.
    #[error("headers of {release} in {path}")]
    Layout {
        /// The kernel's release.
        release: String,
        /// The place that is missing or in the way.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl From<toolchain::Error> for Error {
    fn from(error: toolchain::Error) -> Self {
        match error {
            toolchain::Error::Fetch(error) => Self::Fetch(error),
            toolchain::Error::Unpack(error) => Self::Unpack(error),
            toolchain::Error::Cache(error) => Self::Cache(error),
        }
    }
}

/// The tree of the kernel build that `lock` pins.
///
/// # Errors
///
/// A package cannot be had, or is not laid out as Debian's are.
pub fn make(cache: &Cache, lock: &KernelLock, progress: Progress) -> Result<PathBuf, Error> {
    let packages = [&lock.packages.headers_common, &lock.packages.headers, &lock.packages.kbuild];
    let compiler = toolchain::folder(cache, lock, progress)?;
    cache.folder("trees", &key(lock, packages), |tree| {
        let unpacked = cache.scratch()?;
        for package in packages {
            let deb = fetch::package(cache, package, progress)?;
            unpack::files(&deb, &["./usr/*"], unpacked.path())?;
        }
        progress(Step::Tree, &format!("laying out the headers of {}", lock.release));
        let usr = unpacked.path().join("usr");
        let common = usr.join("src").join(&lock.packages.headers_common.name);
        let flavour = usr.join("src").join(&lock.packages.headers.name);
        let tools = usr.join("lib").join(&lock.packages.kbuild.name);
        let links = [OsString::from("scripts"), OsString::from("tools")];
        overlay(&common, tree, &links)
            .and_then(|()| {
                // The flavour's Makefile only points to the common one at its installed place. Its
                // vmlinux (in later packages) is there for type information, which needs one more
                // program and which modules without debug information do not have.
                let skip = [links.as_slice(), &["Makefile".into(), "vmlinux".into()]].concat();
                overlay(&flavour, tree, &skip)
            })
            .and_then(|()| overlay(&tools, tree, &[]))
            .and_then(|()| compiler.map_or(Ok(()), |folder| toolchain::link(tree, &folder)))
            .map_err(|(path, source)| Error::Layout { release: lock.release.clone(), path, source })
    })
}

/// What stands for a tree of these packages and of the compiler that `lock` brings along.
fn key(lock: &KernelLock, packages: [&Package; 3]) -> String {
    let mut key = Sha256::new();
    for package in packages.into_iter().chain(&lock.packages.compiler) {
        key.update(package.sha256.as_str());
    }
    hex::encode(key.finalize())
}

/// The whole source that the kernel build `lock` was made from, with what its configuration generated
/// and the build tools laid over it: one file of it can be compiled as it was for the kernel, without
/// building the kernel. Nothing is ever written into it.
///
/// # Errors
///
/// A package cannot be had, or is not laid out as Debian's are.
pub fn source(cache: &Cache, lock: &KernelLock, progress: Progress) -> Result<PathBuf, Error> {
    let (source, headers) = (&lock.packages.source, &lock.packages.headers);
    let compiler = toolchain::folder(cache, lock, progress)?;
    cache.folder("source-trees", &key(lock, [source, headers, &lock.packages.kbuild]), |tree| {
        let unpacked = cache.scratch()?;
        let deb = fetch::package(cache, source, progress)?;
        progress(Step::Tree, &format!("unpacking the source of {}", lock.package_version));
        unpack::source_tree(&deb, &source.name, tree)?;
        for package in [headers, &lock.packages.kbuild] {
            let deb = fetch::package(cache, package, progress)?;
            unpack::files(&deb, &["./usr/*"], unpacked.path())?;
        }
        let flavour = unpacked.path().join("usr/src").join(&headers.name);
        let tools = unpacked.path().join("usr/lib").join(&lock.packages.kbuild.name);
        let skip = ["Makefile", "vmlinux", "scripts", "tools"].map(OsString::from);
        overlay(&flavour, tree, &skip)
            .and_then(|()| underlay(&tools, tree))
            .and_then(|()| compiler.map_or(Ok(()), |folder| toolchain::link(tree, &folder)))
            .map_err(|(path, source)| Error::Layout { release: lock.release.clone(), path, source })
    })
}

/// The C files and headers of a source package that are not the same in the tree `own`, which [`source`] made;
/// [`gone`] tells which it does not have.
///
/// # Errors
///
/// The package cannot be had, or is not laid out as Debian's are.
pub fn differing(cache: &Cache, package: &Package, own: &Path, progress: Progress) -> Result<PathBuf, Error> {
    cache.folder(DIFFERING, &differing_key(package, own), |kept| {
        let file = fetch::package(cache, package, progress)?;
        progress(Step::Tree, &format!("unpacking the source of {}", package.version));
        let scratch = cache.scratch()?;
        let unpacked = if package.is_source() {
            let folder = scratch.path().join("source");
            unpack::source_package(&file, &folder)?;
            folder
        } else {
            unpack::c_files(&file, &package.name, scratch.path())?;
            scratch.path().to_owned()
        };
        let failed = |(path, source)| Error::Layout { release: package.version.clone(), path, source };
        let list = kept.join(GONE);
        let missing = missing_in(&unpacked, own, Path::new("")).map_err(failed)?;
        let lines: Vec<_> = missing.iter().map(|path| path.to_string_lossy()).collect();
        fs::write(&list, lines.join("\n")).map_err(|source| failed((list.clone(), source)))?;
        differing_in(&unpacked, own, kept).map_err(failed)
    })
}

/// What [`differing`] found of a package, if it has looked.
pub fn found_differing(cache: &Cache, package: &Package, own: &Path) -> Option<PathBuf> {
    cache.found(DIFFERING, &differing_key(package, own))
}

/// The kind of the folders with what differs.
const DIFFERING: &str = "differing";

fn differing_key(package: &Package, own: &Path) -> String {
    let mut key = Sha256::new();
    key.update(package.sha256.as_str());
    key.update(own.file_name().unwrap_or_default().as_encoded_bytes());
    key.update(GONE);
    hex::encode(key.finalize())
}

/// The list of what a source has no longer, in the folder with what differs.
const GONE: &str = "gone";

/// The C files and headers that the source of which `kept` has what [`differing`] found does not have.
///
/// # Errors
///
/// The list cannot be read.
pub fn gone(kept: &Path) -> io::Result<BTreeSet<PathBuf>> {
    Ok(fs::read_to_string(kept.join(GONE))?.lines().map(PathBuf::from).collect())
}

/// The C files and headers below `folder` of the tree `own` that are not in `tree`, as far as it may have
/// such; what the configuration generated is in no source.
fn missing_in(tree: &Path, own: &Path, folder: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let place = own.join(folder);
    let at = |source| (place.clone(), source);
    let mut missing = Vec::new();
    for entry in fs::read_dir(&place).map_err(at)? {
        let entry = entry.map_err(at)?;
        let path = folder.join(entry.file_name());
        let kind = entry.file_type().map_err(at)?;
        if kind.is_dir() {
            if entry.file_name() != "generated" && !unpack::is_elsewhere(&path.to_string_lossy()) {
                missing.extend(missing_in(tree, own, &path)?);
            }
        } else if kind.is_file() && is_code(&path) && !tree.join(&path).is_file() {
            missing.push(path);
        }
    }
    Ok(missing)
}

fn is_code(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "c" || extension == "h")
}

/// Moves the C files and headers of `from` that are not the same in `own` into `to`.
fn differing_in(from: &Path, own: &Path, to: &Path) -> Result<(), (PathBuf, io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| (path, source)
    };
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (path, name) = (entry.path(), entry.file_name());
        let kind = entry.file_type().map_err(at(&path))?;
        if kind.is_dir() {
            differing_in(&path, &own.join(&name), &to.join(&name))?;
        } else if kind.is_file()
            && is_code(&path)
            && fs::read(own.join(&name)).ok() != Some(fs::read(&path).map_err(at(&path))?)
        {
            fs::create_dir_all(to).map_err(at(to))?;
            fs::rename(&path, to.join(&name)).map_err(at(&path))?;
        }
    }
    Ok(())
}

/// The changelog that a source package carries.
///
/// # Errors
///
/// The package cannot be had, or has none.
pub fn changelog(cache: &Cache, source: &Package, progress: Progress) -> Result<String, Error> {
    let deb = fetch::package(cache, source, progress)?;
    if source.is_source() {
        let files = fetch::listed(&deb)?;
        let changes = files.iter().find(|file| file.name.contains(".debian.tar."));
        let name = changes.map_or("", |file| file.name.as_str());
        let text = unpack::file_of_archive(&deb.with_file_name(name), "debian/changelog")?;
        return Ok(String::from_utf8_lossy(&text).into_owned());
    }
    let folder = cache.scratch()?;
    let inside = format!("usr/share/doc/{}/changelog.Debian.gz", source.name);
    unpack::files(&deb, &[&format!("./{inside}")], folder.path())?;
    Ok(unpack::gunzip(&folder.path().join(inside))?)
}

/// Moves what is in `from` into `to`, file by file, except what is there already.
fn underlay(from: &Path, to: &Path) -> Result<(), (PathBuf, io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| (path, source)
    };
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().map_err(at(&source))?.is_dir() {
            fs::create_dir_all(&target).map_err(at(&target))?;
            underlay(&source, &target)?;
        } else if !target.exists() {
            fs::rename(&source, &target).map_err(at(&target))?;
        }
    }
    Ok(())
}

/// Moves what is in `from` into `to`, file by file, except what is named in `skip` at the top.
fn overlay(from: &Path, to: &Path, skip: &[OsString]) -> Result<(), (PathBuf, io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| (path, source)
    };
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (name, source) = (entry.file_name(), entry.path());
        if skip.contains(&name) {
            continue;
        }
        let target = to.join(&name);
        let kind = entry.file_type().map_err(at(&source))?;
        if kind.is_dir() {
            fs::create_dir_all(&target).map_err(at(&target))?;
            overlay(&source, &target, &[])?;
        } else if kind.is_symlink() {
            let points_to = fs::read_link(&source).map_err(at(&source))?;
            let _ = fs::remove_file(&target);
            symlink(points_to, &target).map_err(at(&target))?;
        } else {
            fs::rename(&source, &target).map_err(at(&target))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_later_source_only_what_differs_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let files = [("own/a/x.c", "1"), ("own/a/y.c", "1"), ("new/a/x.c", "1"), ("new/a/y.c", "2")];
        for (path, text) in files.into_iter().chain([("new/a/Makefile", "2")]) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let at = |name: &str| root.path().join(name);
        differing_in(&at("new"), &at("own"), &at("kept")).unwrap();
        assert!(!at("kept/a/x.c").exists() && !at("kept/a/Makefile").exists());
        assert_eq!(fs::read_to_string(at("kept/a/y.c")).unwrap(), "2");
    }

    #[test]
    fn what_a_later_source_has_no_longer_is_known_but_for_what_was_generated() {
        let root = tempfile::tempdir().unwrap();
        let own = ["own/a/x.c", "own/a/y.c", "own/a/Makefile", "own/include/generated/z.h", "own/tools/t.c"];
        for path in own.into_iter().chain(["new/a/y.c"]) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "1").unwrap();
        }
        let found = missing_in(&root.path().join("new"), &root.path().join("own"), Path::new("")).unwrap();
        assert_eq!(found, [Path::new("a/x.c")]);
    }

    #[test]
    fn the_later_layer_wins_and_skipped_names_stay_out() {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        file("common/include/a.h", "common");
        file("common/include/b.h", "common");
        file("flavour/include/a.h", "flavour");
        file("flavour/Makefile", "pointer");
        let tree = root.path().join("tree");
        fs::create_dir(&tree).unwrap();
        overlay(&root.path().join("common"), &tree, &[]).unwrap();
        overlay(&root.path().join("flavour"), &tree, &["Makefile".into()]).unwrap();
        assert_eq!(fs::read_to_string(tree.join("include/a.h")).unwrap(), "flavour");
        assert_eq!(fs::read_to_string(tree.join("include/b.h")).unwrap(), "common");
        assert!(!tree.join("Makefile").exists());
    }
}
