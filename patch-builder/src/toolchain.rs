//! The compiler that made a kernel, where the distributions that a builder runs on have it no more: its
//! packages, unpacked into the cache and used from there. Nothing is installed, and what a tree is compiled
//! with goes with the tree. The assembler and the linker, `as` and `ld`, are the machine's, unless the packages have
//! them.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

use sha2::{Digest as _, Sha256};

use crate::cache::{self, Cache};
use crate::command::{self, clean};
use crate::lock::{KernelLock, Package};
use crate::progress::{Progress, Step};
use crate::{fetch, unpack};

/// The compiler cannot be had.
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
}

/// The folder with the compiler that `lock` brings along; none if the machine's own is meant.
///
/// # Errors
///
/// A package cannot be had or unpacked.
pub fn folder(cache: &Cache, lock: &KernelLock, progress: Progress) -> Result<Option<PathBuf>, Error> {
    let packages = &lock.packages.compiler;
    if packages.is_empty() {
        return Ok(None);
    }
    let folder = cache.folder::<Error>(KIND, &key(packages), |folder| {
        for package in packages {
            let deb = fetch::package(cache, package, progress)?;
            progress(Step::Tree, &format!("unpacking {} {}", package.name, package.version));
            unpack::files(&deb, &["./usr/*"], folder)?;
        }
        Ok(())
    })?;
    Ok(Some(folder))
}

/// What stands for a compiler of these packages.
fn key(packages: &[Package]) -> String {
    let mut key = Sha256::new();
    for package in packages {
        key.update(package.sha256.as_str());
    }
    hex::encode(key.finalize())
}

/// The kind of these folders in the cache.
const KIND: &str = "toolchains";

/// The name by which a tree knows its compiler's folder.
const LINK: &str = ".toolchain";

/// Makes `tree`, which will be a folder of the cache as well, be compiled with the compiler in `folder`.
///
/// # Errors
///
/// The link cannot be made.
pub(crate) fn link(tree: &Path, folder: &Path) -> Result<(), (PathBuf, io::Error)> {
    let link = tree.join(LINK);
    // Holds also when the cache was moved.
    let folder = Path::new("../..").join(KIND).join(folder.file_name().unwrap_or_default());
    symlink(folder, &link).map_err(|source| (link, source))
}

/// A command for `program` as [`clean`] makes it, which finds the compiler that goes with `tree` before any
/// other.
///
/// # Errors
///
/// The tree goes with a compiler that is not there any more: the machine's would be found.
pub(crate) fn command(program: &str, tree: &Path) -> Result<Command, command::Error> {
    let link = tree.join(LINK);
    let there = match link.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(of_folder(program, None)),
        // Fails where the link leads nowhere.
        other => other.and_then(|_| link.read_dir()),
    };
    let failed =
        |source| command::Error::Run { program: format!("{program} with {}", link.display()), source };
    there.map_err(failed)?;
    Ok(of_folder(program, Some(&link)))
}

/// The program `program` of the compiler in `folder` itself; none if the compiler does not have it.
pub(crate) fn own(program: &str, folder: &Path) -> Option<Command> {
    folder.join("usr/bin").join(program).is_file().then(|| of_folder(program, Some(folder)))
}

/// A command for `program` as [`clean`] makes it, which finds the compiler in `folder`, if there is one, before any
/// other.
fn of_folder(program: &str, folder: Option<&Path>) -> Command {
    let Some(programs) = folder.map(|folder| folder.join("usr/bin")) else { return clean(program) };
    // What is started is looked for where this process looks, and not where it will look itself.
    let own = programs.join(program);
    let mut command = if own.is_file() { clean(own) } else { clean(program) };
    let mut path = programs.into_os_string();
    if let Some(others) = env::var_os("PATH") {
        path.push(":");
        path.push(others);
    }
    command.env("PATH", path);
    command
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::cc;

    fn says(command: &mut Command) -> String {
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn a_tree_that_brings_its_compiler_along_is_compiled_with_that_one() {
        let root = tempfile::tempdir().unwrap();
        let (tree, folder) = (root.path().join("trees/a"), root.path().join(KIND).join("b"));
        fs::create_dir_all(&tree).unwrap();
        fs::create_dir_all(folder.join("usr/bin")).unwrap();
        let program = folder.join("usr/bin/gcc-of-a-test");
        fs::write(&program, "#!/bin/sh\necho its own\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(command("gcc-of-a-test", &tree).unwrap().output().is_err());
        link(&tree, &folder).unwrap();
        assert_eq!(says(&mut command("gcc-of-a-test", &tree).unwrap()), "its own\n");
        // What is found elsewhere finds it, too.
        assert_eq!(says(command("sh", &tree).unwrap().args(["-c", "gcc-of-a-test"])), "its own\n");
        assert!(own("gcc-of-a-test", &folder).is_some());
        assert!(own("sh", &folder).is_none(), "the machine's");
    }

    #[test]
    fn a_compiler_that_its_packages_do_not_have_is_not_the_machines() {
        let root = tempfile::tempdir().unwrap();
        let lock =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/kernels/5.10.0-43-cloud-amd64.yaml");
        let mut lock = KernelLock::read(&lock).unwrap();
        lock.compiler = "sh (Debian) 10".to_owned();
        let cache = Cache::at(root.path());
        let unpacked = cache.folder::<Error>(KIND, &key(&lock.packages.compiler), |folder| {
            fs::create_dir_all(folder.join("usr/bin")).unwrap();
            Ok(())
        });
        unpacked.unwrap();
        let error = cc::check_compiler(&cache, &lock, &mut |_, _| ()).unwrap_err();
        assert!(matches!(&error, cc::Error::Lacks { program } if program == "sh"), "{error:?}");
    }

    #[test]
    fn a_tree_whose_compiler_is_gone_is_not_compiled_with_another() {
        let root = tempfile::tempdir().unwrap();
        let (tree, folder) = (root.path().join("trees/a"), root.path().join(KIND).join("b"));
        fs::create_dir_all(&tree).unwrap();
        link(&tree, &folder).unwrap();
        let error = command("sh", &tree).unwrap_err();
        assert!(error.to_string().contains(LINK), "{error}");
        fs::create_dir_all(&folder).unwrap();
        assert!(command("sh", &tree).is_ok());
    }
}
