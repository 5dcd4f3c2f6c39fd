//! The texts of a kernel's source that may have become part of a kernel build.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::Error;
use crate::index::Index;
use crate::recipe::{extension, is_header};
use crate::select::split;
use crate::unpack::is_elsewhere;

/// C files whose code is in an image of its own, or which make numbers for assembly.
const APART: [&str; 6] = [
    "arch/x86/entry/vdso/",
    "lib/vdso/",
    "arch/x86/purgatory/",
    "arch/x86/realmode/",
    "arch/x86/kernel/asm-offsets",
    "kernel/bounds.c",
];

/// Whether a file's code is not in the kernel that livepatch knows.
pub(super) fn is_apart(path: &str) -> bool {
    APART.iter().any(|start| path.starts_with(start))
}

/// The files of a source tree that matter to one kernel build.
#[derive(Debug)]
pub struct Sources<'i> {
    root: PathBuf,
    index: &'i Index,
    /// Headers, assembly, rules of the linker, and C files that are, or may be, a part of the build.
    paths: Vec<String>,
    /// By the last name of what is included: who includes it, and as what.
    included: HashMap<String, Vec<(String, String)>>,
}

impl<'i> Sources<'i> {
    /// Of the tree in `root`, for the kernel build that `index` knows.
    ///
    /// # Errors
    ///
    /// A folder or a file cannot be read.
    pub fn of(root: &Path, index: &'i Index) -> Result<Self, Error> {
        let mut sources = Self { root: root.to_owned(), index, paths: Vec::new(), included: HashMap::new() };
        // C files that are not built by themselves are parts of others or nothing.
        let all = sources.list()?;
        let is_there: HashSet<String> = all.iter().cloned().collect();
        let (code, mut todo): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|path| extension(path) == "c" && !is_apart(path));
        let mut others: BTreeSet<String> = BTreeSet::new();
        for path in code {
            if index.has_file(&path) {
                todo.push(path);
            } else {
                others.insert(path);
            }
        }
        while let Some(path) = todo.pop() {
            let text = sources.read(&path)?;
            for (target, is_quoted) in included(&text) {
                // What is in quotes is looked for beside the file first.
                let beside = beside(&path, target).filter(|beside| is_quoted && is_there.contains(beside));
                let target = beside.as_deref().unwrap_or(target);
                if extension(target) == "c" {
                    let parts: Vec<String> =
                        others.iter().filter(|other| is_at(other, target)).cloned().collect();
                    others.retain(|other| !parts.contains(other));
                    todo.extend(parts);
                }
                let last = target.rsplit('/').next().unwrap_or(target);
                let edges = sources.included.entry(last.to_owned()).or_default();
                edges.push((path.clone(), target.to_owned()));
            }
            sources.paths.push(path);
        }
        sources.paths.sort_unstable();
        Ok(sources)
    }

    /// The paths of all files that could matter.
    fn list(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        let mut open = vec![PathBuf::new()];
        while let Some(folder) = open.pop() {
            let place = self.root.join(&folder);
            let failed = |source| Error::Read { path: place.clone(), source };
            for entry in fs::read_dir(&place).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let path = folder.join(entry.file_name());
                let name = path.to_string_lossy().into_owned();
                if is_elsewhere(&name) {
                    continue;
                }
                if entry.file_type().map_err(failed)?.is_dir() {
                    open.push(path);
                } else if ["c", "h", "S", "lds"].contains(&extension(&name)) {
                    found.push(name);
                }
            }
        }
        Ok(found)
    }

    fn read(&self, path: &str) -> Result<String, Error> {
        let path = self.root.join(path);
        let bytes = fs::read(&path).map_err(|source| Error::Read { path, source })?;
        Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    /// The files that have one of these names, with their texts.
    pub(super) fn naming(&self, names: &BTreeSet<&str>) -> Result<Vec<(String, String)>, Error> {
        let names: HashSet<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        let mut found = Vec::new();
        for path in &self.paths {
            let text = self.read(path)?;
            let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
            if text.as_bytes().split(|byte| !is_word(byte)).any(|word| names.contains(word)) {
                found.push((path.clone(), text));
            }
        }
        Ok(found)
    }

    /// Whether another file of the build includes the C file `path`.
    pub(super) fn is_included(&self, path: &str) -> bool {
        self.includers(path).next().is_some()
    }

    /// Whether anything of the build may include the header `path`. A header for all is taken to be included:
    /// the compiler is told some of them by its command line.
    pub(super) fn is_reached(&self, path: &str) -> bool {
        ["include/", "arch/x86/include/"].iter().any(|folder| path.starts_with(folder))
            || self.all_including(path).iter().any(|file| extension(file) == "c")
    }

    fn all_including<'s>(&'s self, path: &'s str) -> BTreeSet<&'s str> {
        let mut known: BTreeSet<&str> = BTreeSet::from([path]);
        let mut todo = vec![path];
        while let Some(file) = todo.pop() {
            todo.extend(self.includers(file).filter(|includer| known.insert(includer)));
        }
        known
    }

    /// The C files of the build that include `path`, directly or through others.
    pub(super) fn including(&self, path: &str) -> Result<BTreeSet<String>, Error> {
        let known = self.all_including(path);
        let mut built = BTreeSet::new();
        for file in known.into_iter().filter(|file| *file != path && !is_header(file)) {
            if self.is_built(file)? {
                built.insert(file.to_owned());
            }
        }
        Ok(built)
    }

    fn includers<'s>(&'s self, path: &'s str) -> impl Iterator<Item = &'s str> {
        let last = path.rsplit('/').next().unwrap_or(path);
        let edges = self.included.get(last).into_iter().flatten();
        edges.filter(|(_, target)| is_at(path, target)).map(|(includer, _)| includer.as_str())
    }

    /// Whether the C file `path` is compiled by itself into the build.
    pub(super) fn is_built(&self, path: &str) -> Result<bool, Error> {
        if !self.index.has_file(path) {
            return Ok(false);
        }
        let text = self.read(path)?;
        let parts = split::parts(&text).unwrap_or_default();
        let functions = parts.iter().filter_map(|part| part.function().map(str::to_owned)).collect();
        Ok(self.index.has(path, &functions))
    }

    /// The last names of the files that have a function of this name for themselves.
    pub(super) fn files_with<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        self.index.files_with(name)
    }
}

/// What a text includes, and whether it says so in quotes.
fn included(text: &str) -> impl Iterator<Item = (&str, bool)> {
    text.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?.trim_start();
        let target = rest.split(['"', '<', '>']).nth(1).filter(|target| !target.is_empty())?;
        Some((target, rest.starts_with('"')))
    })
}

/// The path of `target`, seen from the folder of `path`.
fn beside(path: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()?),
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Whether the file at `path` may be what is included as `target`: folders may be looked for anywhere.
fn is_at(path: &str, target: &str) -> bool {
    let mut parts = target.rsplit('/').take_while(|part| ![".", ".."].contains(part));
    let mut own = path.rsplit('/');
    parts.all(|part| own.next() == Some(part))
}
