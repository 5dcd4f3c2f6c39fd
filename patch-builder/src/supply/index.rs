//! Which functions of which source files a kernel build has, and in which object: what is not in it
//! is not affected.

use std::collections::{BTreeSet, HashMap};

use crate::debug::{self, Debug};
use crate::object::{Malformed, Object};

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

    fn add(&mut self, object: &Object) {
        for symbol in object.functions() {
            // What is left of a name when the compiler's additions are taken away.
            let name = symbol.name.split('.').next().unwrap_or(symbol.name);
            match symbol.file {
                Some(file) => {
                    self.files.insert(file.to_owned());
                    self.local.entry(file.to_owned()).or_default().insert(name.to_owned());
                }
                None => {
                    self.global.insert(name.to_owned());
                }
            }
        }
    }

    /// Whether the function `name` of the source file `path` is in the kernel build under its name.
    pub fn has(&self, path: &str, name: &str) -> bool {
        let file = path.rsplit('/').next().unwrap_or(path);
        self.local.get(file).is_some_and(|names| names.contains(name)) || self.global.contains(name)
    }

    /// Whether a source file of this last name has left anything in the kernel build.
    pub fn has_file(&self, path: &str) -> bool {
        self.files.contains(path.rsplit('/').next().unwrap_or(path))
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
