//! The kernel and its modules with all their symbols, as the distribution keeps them for debuggers,
//! and the modules as it ships them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{fs, io};

use invivo_terms::BuildId;
use object::ReadCache;
use sha2::{Digest as _, Sha256};

use crate::cache::{self, Cache};
use crate::command::{self, clean, not_run};
use crate::lock::KernelLock;
use crate::modinfo::{self, Modinfo};
use crate::object::{Malformed, Object, slim};
use crate::progress::{Progress, Step};
use crate::{fetch, unpack};

/// The debug package does not give what it should.
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
    /// A program that unpacks fails.
    #[error(transparent)]
    Command(#[from] command::Error),
    /// A file cannot be read or kept.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not an object.
    #[error("{path}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it is not.
        source: Malformed,
    },
    /// The package for debuggers is of another kernel than the image.
    #[error("{object}: its build id in the debug package is not the one in the image package")]
    OtherBuild {
        /// `vmlinux`, or the module.
        object: String,
    },
}

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Debug {
    folder: PathBuf,
}

impl Debug {
    /// Those of the kernel build that `lock` pins; unpacked once, which takes a minute.
    ///
    /// # Errors
    ///
    /// A package cannot be had, or does not hold what it should.
    pub fn of(cache: &Cache, lock: &KernelLock, progress: Progress) -> Result<Self, Error> {
        let (debug, image) = (&lock.packages.debug, &lock.packages.image);
        let mut key = Sha256::new();
        key.update(debug.sha256.as_str());
        key.update(image.sha256.as_str());
        let folder = cache.folder("debug", &hex::encode(key.finalize()), |folder| {
            let (debug, image) =
                (fetch::package(cache, debug, progress)?, fetch::package(cache, image, progress)?);
            progress(Step::Debug, &format!("unpacking all symbols of {}", lock.release));
            let unpacked = cache.scratch()?;
            let vmlinux = format!("./usr/lib/debug/boot/vmlinux-{}", lock.release);
            let modules = format!("./usr/lib/debug/lib/modules/{}/kernel/*", lock.release);
            unpack::files(&debug, &[&vmlinux, &modules], unpacked.path())?;
            keep(&unpacked.path().join(&vmlinux), &folder.join("vmlinux"))?;
            keep_all(&unpacked.path().join("usr/lib/debug/lib/modules"), &folder.join("modules"))?;
            let shipped = cache.scratch()?;
            unpack::files(&image, &[&format!("./lib/modules/{}/kernel/*", lock.release)], shipped.path())?;
            keep_all(&shipped.path().join("lib/modules"), &folder.join("shipped"))
        })?;
        Ok(Self { folder })
    }

    /// The kernel.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn vmlinux(&self) -> Result<Vec<u8>, Error> {
        Ok(unpack::read(&self.folder.join("vmlinux"))?)
    }

    /// The module `name` for debuggers, and as it is shipped; `None` if the kernel build has no such
    /// module.
    ///
    /// # Errors
    ///
    /// One of them cannot be read, or they are of different builds.
    pub fn module(&self, name: &str) -> Result<Option<Module>, Error> {
        let file = |kind: &str| self.folder.join(kind).join(format!("{name}.ko"));
        if !file("modules").is_file() {
            return Ok(None);
        }
        let (debug, shipped) = (unpack::read(&file("modules"))?, unpack::read(&file("shipped"))?);
        let object = |bytes: &[u8], kind: &str| {
            build_id(bytes).map_err(|source| Error::Malformed { path: file(kind), source })
        };
        let (one, other) = (object(&debug, "modules")?, object(&shipped, "shipped")?);
        match (one, other) {
            (Some(one), Some(other)) if one == other => Ok(Some(Module { debug, shipped, build_id: one })),
            _ => Err(Error::OtherBuild { object: name.to_owned() }),
        }
    }

    /// The modules that the module `name` keeps loaded: those that it needs, and what they need.
    ///
    /// # Errors
    ///
    /// One of them cannot be read.
    pub fn held_by(&self, name: &str) -> Result<BTreeSet<String>, Error> {
        let (mut held, mut open) = (BTreeSet::new(), vec![name.to_owned()]);
        while let Some(name) = open.pop() {
            let Some(module) = self.module(&name)? else { continue };
            let needs = module.needs().map_err(|_| Error::Malformed {
                path: self.folder.join("shipped").join(format!("{name}.ko")),
                source: Malformed("what it says of itself"),
            })?;
            open.extend(needs.into_iter().filter(|needed| held.insert(needed.clone())));
        }
        Ok(held)
    }

    /// The names of all modules of the kernel build.
    ///
    /// # Errors
    ///
    /// Their folder cannot be read.
    pub fn modules(&self) -> Result<Vec<String>, Error> {
        let path = self.folder.join("modules");
        let failed = |source| Error::File { path: path.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            names.extend(name.to_string_lossy().strip_suffix(".ko").map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }
}

/// A module of the kernel.
#[derive(Debug, Clone)]
pub struct Module {
    /// With all its symbols.
    pub debug: Vec<u8>,
    /// As it is loaded.
    pub shipped: Vec<u8>,
    /// Its own build id.
    pub build_id: BuildId,
}

impl Module {
    /// The modules that it cannot be loaded without.
    ///
    /// # Errors
    ///
    /// It does not say.
    pub fn needs(&self) -> Result<Vec<String>, modinfo::Error> {
        let info = Modinfo::of(&self.shipped)?;
        let needed = info.get("depends").unwrap_or_default().replace('-', "_");
        Ok(needed.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }
}

/// How a note with a build id begins: lengths of name and id, its type, its name.
const HEAD: [u8; 16] = [4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, b'G', b'N', b'U', 0];

/// The build id of a module or a kernel, from its sections.
///
/// # Errors
///
/// It is not an object.
pub fn build_id(file: &[u8]) -> Result<Option<BuildId>, Malformed> {
    let object = Object::parse(file)?;
    let note = [".note.gnu.build-id", ".notes"].iter().find_map(|name| object.section(name));
    let Some(data) = note.map(|section| section.data) else { return Ok(None) };
    let at = data.windows(HEAD.len()).position(|window| window == HEAD);
    let id = at.and_then(|at| data.get(at + HEAD.len()..at + HEAD.len() + 20));
    Ok(id.and_then(|id| hex::encode(id).parse().ok()))
}

/// A module's name in the kernel, from its file's.
fn module_name(file: &str) -> Option<(String, bool)> {
    let (stem, compressed) = match file.strip_suffix(".ko.xz") {
        Some(stem) => (stem, true),
        None => (file.strip_suffix(".ko")?, false),
    };
    Some((stem.replace('-', "_"), compressed))
}

/// Keeps every module below `from` in `to`, by its name in the kernel.
fn keep_all(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(|source| Error::File { path: to.to_owned(), source })?;
    let mut open = vec![from.to_owned()];
    while let Some(folder) = open.pop() {
        let failed = |source| Error::File { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            if entry.file_type().map_err(failed)?.is_dir() {
                open.push(path);
            } else if let Some((name, compressed)) = module_name(&entry.file_name().to_string_lossy()) {
                let target = to.join(format!("{name}.ko"));
                if compressed { decompress(&path, &target)? } else { keep(&path, &target)? }
            }
        }
    }
    Ok(())
}

fn decompress(from: &Path, to: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { path: to.to_owned(), source };
    let out = fs::File::create(to).map_err(failed)?;
    let mut xz = clean("xz");
    xz.args(["--decompress", "--stdout"]).arg(from).stdout(out).stderr(Stdio::null());
    let status = xz.status().map_err(|e| not_run("xz", e))?;
    if status.success() { Ok(()) } else { Err(failed(io::Error::other("xz cannot decompress it"))) }
}

fn keep(from: &Path, to: &Path) -> Result<(), Error> {
    // Of the kernel's 600 MB only what is kept is ever in memory.
    let file = fs::File::open(from).map_err(|source| Error::File { path: from.to_owned(), source })?;
    let slimmed = slim::slim(&ReadCache::new(file))
        .map_err(|source| Error::Malformed { path: from.to_owned(), source })?;
    fs::write(to, slimmed).map_err(|source| Error::File { path: to.to_owned(), source })?;
    fs::remove_file(from).map_err(|source| Error::File { path: from.to_owned(), source })
}
