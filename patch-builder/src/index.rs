//! Which functions of which source files a kernel build has, and in which object: what is not in it
//! is not affected.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::{fs, io};

use crate::debug::{self, Debug};
use crate::object::{Kind, Malformed, Object};
use crate::recipe::extension;

/// The kernel build cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A module is not there or cannot be read.
    #[error(transparent)]
    Debug(#[from] debug::Error),
    /// One of them is not an object.
    #[error(transparent)]
    Object(#[from] Malformed),
}

/// All functions of a kernel build: of local ones the file is known, by its last name.
#[derive(Debug, Default)]
pub struct Index {
    local: HashMap<String, BTreeSet<String>>,
    global: BTreeSet<String>,
    files: BTreeSet<String>,
    /// Paths of C files that are compiled as a part of another one.
    included: BTreeSet<String>,
}

impl Index {
    /// Reads the kernel and all its modules.
    ///
    /// # Errors
    ///
    /// One of them cannot be read.
    pub fn of(debug: &Debug, vmlinux: &[u8]) -> Result<Self, Error> {
        let mut index = Self::default();
        index.add(&Object::parse(vmlinux)?);
        for name in debug.modules()? {
            if let Some(module) = debug.module(&name)? {
                index.add(&Object::parse(&module.debug)?);
            }
        }
        Ok(index)
    }

    /// Finds out which of `paths` another C file of their folder in `source` includes: such a file leaves no
    /// name of its own.
    ///
    /// # Errors
    ///
    /// A folder or a file cannot be read.
    pub fn add_included<'p>(
        &mut self,
        source: &Path,
        paths: impl IntoIterator<Item = &'p String>,
    ) -> io::Result<()> {
        let mut folders: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for path in paths.into_iter().filter(|path| extension(path) == "c") {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            folders.entry(folder).or_default().push(name);
        }
        for (folder, names) in folders {
            let place = source.join(folder);
            if !place.is_dir() {
                continue;
            }
            for entry in fs::read_dir(place)? {
                let path = entry?.path();
                if path.extension().is_none_or(|extension| extension != "c") || !path.is_file() {
                    continue;
                }
                let text = fs::read(&path)?;
                let text = String::from_utf8_lossy(&text);
                let included = text.lines().filter_map(|line| {
                    line.trim_start().strip_prefix("#include \"")?.split_once('"').map(|(name, _)| name)
                });
                let found = included.filter(|included| names.contains(included));
                self.included.extend(found.map(|name| format!("{folder}/{name}")));
            }
        }
        Ok(())
    }

    /// Whether the source file `path` is compiled as a part of another one.
    pub fn is_part_of_another(&self, path: &str) -> bool {
        self.included.contains(path)
    }

    fn add(&mut self, object: &Object) {
        // One that has only functions for others has no local symbol.
        let files = object.symbols.iter().filter(|symbol| symbol.kind == Kind::File);
        self.files.extend(files.map(|symbol| symbol.name.to_owned()));
        for symbol in object.functions() {
            // What is left of a name when the compiler's additions are taken away.
            let name = symbol.name.split('.').next().unwrap_or(symbol.name);
            match symbol.file {
                Some(file) => {
                    self.local.entry(file.to_owned()).or_default().insert(name.to_owned());
                }
                None => {
                    self.global.insert(name.to_owned());
                }
            }
        }
    }

    /// Whether the source file `path` with these functions has left anything in the kernel build: a file
    /// of its last name, and one of its functions under its name.
    pub fn has(&self, path: &str, functions: &BTreeSet<String>) -> bool {
        let file = path.rsplit('/').next().unwrap_or(path);
        let local = self.local.get(file);
        let is_there =
            |name: &String| local.is_some_and(|names| names.contains(name)) || self.global.contains(name);
        self.files.contains(file) && (functions.is_empty() || functions.iter().any(is_there))
    }

    /// Whether the C file `path` with these functions is in the kernel build, by itself or as a part of another.
    pub fn is_built(&self, path: &str, functions: &BTreeSet<String>) -> bool {
        self.has(path, functions) || self.is_part_of_another(path)
    }

    /// Whether a source file of the last name of `path` has left anything in the kernel build.
    pub fn has_file(&self, path: &str) -> bool {
        self.files.contains(path.rsplit('/').next().unwrap_or(path))
    }

    /// The last names of the files that have a function of this name for themselves.
    pub fn files_with<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        self.local.iter().filter(move |(_, names)| names.contains(name)).map(|(file, _)| file.as_str())
    }

    /// An index that a test writes: local functions of files.
    #[cfg(test)]
    pub(crate) fn sample(files: &[(&str, &[&str])]) -> Self {
        let mut index = Self::default();
        for (file, functions) in files {
            index.files.insert((*file).to_owned());
            let names = functions.iter().map(|f| (*f).to_owned()).collect();
            index.local.insert((*file).to_owned(), names);
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_another_includes_is_a_part_of_it() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("kernel/sched");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("build_policy.c"), "#include <a.h>\n#include \"rt.c\"\n").unwrap();
        fs::write(folder.join("rt.c"), "int rt;\n").unwrap();
        let mut index = Index::default();
        let paths = ["kernel/sched/rt.c", "kernel/sched/core.c", "net/rt.c"].map(str::to_owned);
        index.add_included(root.path(), &paths).unwrap();
        assert!(index.is_part_of_another("kernel/sched/rt.c"));
        assert!(!index.is_part_of_another("kernel/sched/core.c") && !index.is_part_of_another("net/rt.c"));
    }
}
