//! Compiles one file of the kernel as it was compiled for the kernel: by Kbuild, in the kernel's own
//! source tree, without building the kernel.
//!
//! The tree is shared and never written: the file is compiled in a folder that looks like the tree,
//! made of links, in which only the folders on the way to the file, and to others that are edited, are real.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::{fs, io};

use sha2::{Digest as _, Sha256};

use crate::cache::{self, Cache};
use crate::object::{Malformed, Object};
use crate::{cc, command, toolchain, unpack};

mod types;

pub use types::FLAGS;
use types::Types;

/// A file was not compiled, for reasons that are not the fix's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// The compiler refuses the file.
    #[error(transparent)]
    Command(#[from] command::Error),
    /// The types of what was compiled cannot be described: the program that does it is missing or fails, whatever
    /// the file is.
    #[error("describe the types of the object")]
    Types(#[source] command::Error),
    /// A result cannot be read.
    #[error(transparent)]
    Unpack(#[from] unpack::Error),
    /// A result is no object.
    #[error("{file}")]
    Object {
        /// What is compiled.
        file: String,
        /// What is wrong with it.
        source: Malformed,
    },
    /// A folder cannot be made or filled.
    #[error("{path}")]
    File {
        /// The folder or file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// An edited file is read in another way than through the folder of links: in the form that it has in the
    /// tree.
    #[error("{file} is compiled with {path} as it was, which it includes through a folder that is a link")]
    Beside {
        /// What is compiled.
        file: String,
        /// The edited file.
        path: String,
    },
    /// The tree has no such file, or no rule for it.
    #[error("{0} is not a file of the kernel's source")]
    NoFile(String),
}

/// A file, compiled.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The object.
    pub object: Vec<u8>,
    /// Its types (BTF); empty if nothing describes them.
    pub types: Vec<u8>,
    /// The module that Kbuild makes it a part of; `None` if it becomes part of the kernel.
    pub module: Option<String>,
    /// The checksums of what it exports.
    pub checksums: BTreeMap<String, String>,
}

/// Compiles `file` of `tree`, once: the result stays in the cache.
///
/// # Errors
///
/// The file is not there, or does not compile.
pub fn original(cache: &Cache, tree: &Path, file: &str) -> Result<Compiled, Error> {
    let way = Types::of(tree)?;
    let name = tree.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    let maker = way.maker()?;
    let mut key = Sha256::new();
    let own = way.own_flags().into_iter().chain(maker.as_deref());
    for part in [name.as_ref(), file, way.flags()].into_iter().chain(own) {
        key.update(part);
        key.update([0]);
    }
    let folder = cache.folder("objects", &hex::encode(key.finalize()), |folder| {
        let built = build(cache, tree, file, &BTreeMap::new())?;
        let put = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, bytes).map_err(|source| Error::File { path, source })
        };
        put("object.o", &built.object)?;
        if let Some(types) = &built.types {
            put("types.btf", types)?;
        }
        put("command", built.command.as_bytes())
    })?;
    let read = |name: &str| unpack::read(&folder.join(name));
    let types = way.own_flags().map(|_| read("types.btf")).transpose()?;
    let command = String::from_utf8_lossy(&read("command")?).into_owned();
    Raw { object: read("object.o")?, types, command }.read(file)
}

/// The flags with which the files of `tree` are compiled.
///
/// # Errors
///
/// The tree does not tell how the kernel is configured.
pub fn flags(tree: &Path) -> Result<&'static str, Error> {
    Ok(Types::of(tree)?.flags())
}

/// Compiles `file` of `tree` as if the files of `texts`, itself or others that it includes, had these texts.
///
/// # Errors
///
/// A file is not there, or the texts do not compile.
pub fn fixed(
    cache: &Cache,
    tree: &Path,
    file: &str,
    texts: &BTreeMap<&str, String>,
) -> Result<Compiled, Error> {
    build(cache, tree, file, texts)?.read(file)
}

/// What Kbuild leaves.
struct Raw {
    object: Vec<u8>,
    /// Its types, where they are not in the object.
    types: Option<Vec<u8>>,
    /// How it was compiled, as Kbuild notes it.
    command: String,
}

impl Raw {
    fn read(self, file: &str) -> Result<Compiled, Error> {
        let flag = |name: &str| {
            let rest = self.command.split_once(&format!("-D{name}='\""))?.1;
            Some(rest.split_once("\"'")?.0.to_owned())
        };
        let is_module = self.command.split_whitespace().any(|word| word == "-DMODULE");
        let checksums = self.command.lines().filter_map(|line| {
            let (name, sum) = line.strip_prefix("#SYMVER ")?.split_once(' ')?;
            Some((name.to_owned(), sum.trim().to_owned()))
        });
        let types = if let Some(types) = self.types {
            types
        } else {
            let object = Object::parse(&self.object)
                .map_err(|source| Error::Object { file: file.to_owned(), source })?;
            object.section(".BTF").map(|section| section.data.to_vec()).unwrap_or_default()
        };
        Ok(Compiled {
            module: if is_module { flag("KBUILD_MODNAME") } else { None },
            checksums: checksums.collect(),
            types,
            object: self.object,
        })
    }
}

fn build(cache: &Cache, tree: &Path, file: &str, texts: &BTreeMap<&str, String>) -> Result<Raw, Error> {
    let stem = file.strip_suffix(".c").ok_or_else(|| Error::NoFile(file.to_owned()))?;
    let files = || texts.keys().copied().chain([file]);
    if let Some(absent) = files().find(|file| !tree.join(file).is_file()) {
        return Err(Error::NoFile(absent.to_owned()));
    }
    let work = cache.scratch()?;
    let work = work.path();
    lay_out(tree, work, files())?;
    for (path, text) in texts {
        let path = work.join(path);
        let replaced = fs::remove_file(&path).and_then(|()| fs::write(&path, text));
        replaced.map_err(|source| Error::File { path, source })?;
    }
    // The nearest folder that Kbuild has rules for.
    let rules = Path::new(file)
        .ancestors()
        .skip(1)
        .find(|folder| ["Makefile", "Kbuild"].iter().any(|name| tree.join(folder).join(name).is_file()));
    let rules = rules.filter(|r| !r.as_os_str().is_empty()).ok_or_else(|| Error::NoFile(file.to_owned()))?;
    let rules = rules.to_string_lossy();
    let target = stem.strip_prefix(rules.as_ref()).unwrap_or(stem).trim_start_matches('/');
    let object = work.join(format!("{stem}.o"));
    let compile = |flags: &str| -> Result<(), Error> {
        let make = toolchain::command("make", tree)?
            .args(["--silent", "-C"])
            .arg(work)
            .arg(format!("M={rules}"))
            .arg(format!("KCFLAGS={flags}"))
            .arg(format!("{target}.o"))
            .output()
            .map_err(|e| command::not_run("make", e))?;
        if make.status.success() { Ok(()) } else { Err(cc::failed(&make).into()) }
    };
    let way = Types::of(tree)?;
    // First, so that what is left is the code.
    let types = match way.own_flags() {
        None => None,
        Some(flags) => {
            compile(flags)?;
            Some(types::encode(&object, work)?)
        }
    };
    compile(way.flags())?;
    let name = object.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let command = unpack::read(&object.with_file_name(format!(".{name}.cmd")))?;
    let command = String::from_utf8_lossy(&command).into_owned();
    if let Some(path) = texts.keys().find(|path| is_read_beside(&command, tree, work, path)) {
        return Err(Error::Beside { file: file.to_owned(), path: (*path).to_owned() });
    }
    Ok(Raw { object: unpack::read(&object)?, types, command })
}

/// Whether `path` was read from `tree`, by what Kbuild notes of all files that were read: `..` behind a link
/// leads there.
fn is_read_beside(command: &str, tree: &Path, work: &Path, path: &str) -> bool {
    let Ok(original) = fs::canonicalize(tree.join(path)) else { return false };
    let last = Path::new(path).file_name();
    let read = command.split_whitespace().map(Path::new).filter(|read| read.file_name() == last);
    read.into_iter().any(|read| fs::canonicalize(work.join(read)).is_ok_and(|read| read == original))
}

/// Makes the empty folder `work` look like `tree`: links, and real folders on the way to `files`.
fn lay_out<'f>(tree: &Path, work: &Path, files: impl Iterator<Item = &'f str>) -> Result<(), Error> {
    let folders = files.flat_map(|file| Path::new(file).ancestors().skip(1));
    // Each after the one that it is in.
    let real: BTreeSet<&Path> = folders.filter(|folder| !folder.as_os_str().is_empty()).collect();
    link_all(tree, work)?;
    for folder in real {
        let path = work.join(folder);
        let made = fs::remove_file(&path).and_then(|()| fs::create_dir(&path));
        made.map_err(|source| Error::File { path: path.clone(), source })?;
        link_all(&tree.join(folder), &path)?;
    }
    Ok(())
}

fn link_all(from: &Path, to: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { path: from.to_owned(), source };
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        symlink(entry.path(), to.join(entry.file_name())).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of some files, and a folder of links with real ways to some of them.
    fn laid_out(ways: &[&str]) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let (tree, work) = (root.path().join("tree"), root.path().join("work"));
        for folder in ["net/core/sub", "include/net"] {
            fs::create_dir_all(tree.join(folder)).unwrap();
        }
        fs::create_dir(&work).unwrap();
        for file in ["Makefile", "net/Makefile", "net/core/sock.c", "net/core/dev.c", "include/net/sock.h"] {
            fs::write(tree.join(file), file).unwrap();
        }
        lay_out(&tree, &work, ways.iter().copied()).unwrap();
        (root, tree, work)
    }

    #[test]
    fn a_folder_of_links_has_the_edited_files_in_a_place_of_their_own() {
        let (_root, tree, work) = laid_out(&["net/core/sock.c", "include/net/sock.h"]);
        fs::write(work.join("net/core/sock.o"), "new").unwrap();
        fs::write(work.join("include/net/other.h"), "new").unwrap();
        assert_eq!(fs::read_to_string(work.join("net/core/dev.c")).unwrap(), "net/core/dev.c");
        assert!(!tree.join("net/core/sock.o").exists() && !tree.join("include/net/other.h").exists());
        assert!(fs::symlink_metadata(work.join("Makefile")).unwrap().is_symlink());
    }

    #[test]
    fn a_file_that_is_read_around_its_edited_form_is_seen() {
        let (_root, tree, work) = laid_out(&["net/core/sock.c"]);
        fs::remove_file(work.join("net/core/sock.c")).unwrap();
        fs::write(work.join("net/core/sock.c"), "edited").unwrap();
        let is_beside = |notes: &str| is_read_beside(notes, &tree, &work, "net/core/sock.c");
        assert!(is_beside("deps := include/x.h \\\n net/core/sub/../sock.c \\\n"));
        assert!(!is_beside("deps := net/core/sock.c net/core/../core/sock.c net/core/dev.c"));
    }

    #[test]
    fn kbuilds_notes_tell_module_and_checksums() {
        let built = |flags: &str| Raw {
            object: Vec::new(),
            types: Some(b"types".to_vec()),
            command: format!(
                "cmd_x.o := gcc {flags} -DKBUILD_BASENAME='\"svm\"' -DKBUILD_MODNAME='\"kvm_amd\"' -c\n#SYMVER f 0x12\n"
            ),
        };
        let module = built("-DMODULE").read("svm.c").unwrap();
        assert_eq!(module.module.as_deref(), Some("kvm_amd"));
        assert_eq!(module.checksums["f"], "0x12");
        assert_eq!(module.types, b"types");
        assert_eq!(built("").read("svm.c").unwrap().module, None);
    }
}
