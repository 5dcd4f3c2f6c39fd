//! Which C files of a kernel build use what a fix changes in a header, or in a C file that others include: the
//! fix is whole only if all of them are compiled with it.
//!
//! Names decide, not the compiler: a file that has the name of something that changed uses it, directly or
//! through what other headers make of it. That finds too many rather than too few, and a file in which nothing
//! differs is simply no part of the patch.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::index::Index;
use crate::recipe::{extension, is_header};
use crate::refusal::{Gate, Refusal};
use crate::select::split::{self, Part, identifiers};

mod change;
mod sources;
pub use change::Change;
pub use sources::Sources;

use change::{Kind, body, directive, inner, kind, names};

/// Users cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are some that cannot be compiled with the fix, or too many.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A file or a folder of the source cannot be read.
    #[error("{path}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The most C files that one edited file may be compiled in.
pub const MOST: usize = 32;

/// The C files of the kernel build that use what changes in `path`, sorted.
///
/// # Errors
///
/// What changes is used where nothing is compared, types are laid out by it, there are more than [`MOST`], or a
/// file cannot be read.
pub fn users(path: &str, change: &Change, sources: &Sources) -> Result<BTreeSet<String>, Error> {
    let mut found = Found { sources, toggled: &change.toggled, users: BTreeSet::new() };
    // What is in a C file that is included is of the files that include it.
    if change.is_code || !is_header(path) {
        found.everywhere(path)?;
    }
    if is_header(path) {
        let mut open = Names { functions: change.functions.clone(), values: change.values.clone() };
        let mut known = Names::default();
        while !open.is_empty() {
            let mut next = Names::default();
            for (file, text) in sources.naming(&open.all())? {
                found.look(&file, &text, &open, &mut next)?;
            }
            known.extend(std::mem::take(&mut open));
            next.remove(&known);
            open = next;
        }
        found.copies(&known)?;
    }
    match found.users.len() {
        number if number > MOST => {
            let what = format!("what changes in {path} is used in {number} files, more than {MOST}");
            Err(Refusal::new(Gate::Users, what).into())
        }
        _ => Ok(found.users),
    }
}

/// Whether all `users` of what changes in `path` are among the `units` that it is compiled in.
///
/// # Errors
///
/// The first that is not.
pub fn are_units(path: &str, users: &BTreeSet<String>, units: &BTreeSet<&str>) -> Result<(), Refusal> {
    match users.iter().find(|user| !units.contains(user.as_str())) {
        None => Ok(()),
        Some(user) => {
            let what = format!("{user} uses what changes in {path}, and is not compiled with it");
            Err(Refusal::new(Gate::Users, what))
        }
    }
}

/// The users that were asked for, of one kernel build. Its sources are read when they are first needed, and
/// everything is asked once.
#[derive(Debug)]
pub struct Known<'k> {
    root: &'k Path,
    index: &'k Index,
    seen: Mutex<Seen<'k>>,
}

#[derive(Debug, Default)]
struct Seen<'k> {
    sources: Option<Sources<'k>>,
    users: HashMap<(String, Change), Result<BTreeSet<String>, Refusal>>,
}

impl<'k> Known<'k> {
    /// Of the tree in `root`, for the kernel build that `index` knows.
    pub fn new(root: &'k Path, index: &'k Index) -> Self {
        Self { root, index, seen: Mutex::default() }
    }

    /// The [`users`] of what changes in `path`.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn users(&self, path: &str, change: &Change) -> Result<BTreeSet<String>, Error> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (path.to_owned(), change.clone());
        if let Some(found) = seen.users.get(&key) {
            return Ok(found.clone()?);
        }
        let sources = match seen.sources.take() {
            Some(sources) => sources,
            None => Sources::of(self.root, self.index)?,
        };
        let found = match users(path, change, seen.sources.insert(sources)) {
            Err(Error::Refused(refusal)) => Err(refusal),
            other => Ok(other?),
        };
        seen.users.insert(key, found.clone());
        Ok(found?)
    }
}

/// Names of what is another.
#[derive(Debug, Clone, Default)]
struct Names {
    functions: BTreeSet<String>,
    values: BTreeSet<String>,
}

impl Names {
    fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.values.is_empty()
    }

    fn all(&self) -> BTreeSet<&str> {
        self.functions.iter().chain(&self.values).map(String::as_str).collect()
    }

    fn extend(&mut self, other: Self) {
        self.functions.extend(other.functions);
        self.values.extend(other.values);
    }

    fn remove(&mut self, known: &Self) {
        self.functions.retain(|name| !known.functions.contains(name));
        self.values.retain(|name| !known.values.contains(name));
    }

    /// The first of these that a text names.
    fn named_in<'t>(&self, text: &'t str) -> Option<&'t str> {
        identifiers(text).find(|word| self.functions.contains(*word) || self.values.contains(*word))
    }
}

struct Found<'f> {
    sources: &'f Sources<'f>,
    toggled: &'f BTreeSet<String>,
    users: BTreeSet<String>,
}

impl Found<'_> {
    /// Looks at a file that has one of the names in `open`; what it makes of them goes to `next`.
    fn look(&mut self, file: &str, text: &str, open: &Names, next: &mut Names) -> Result<(), Error> {
        let refuse = |gate, what| Err(Refusal::new(gate, what).into());
        let name = open.named_in(text).unwrap_or_default();
        if sources::is_apart(file) || !["c", "h"].contains(&extension(file)) {
            return refuse(Gate::Users, format!("{name} is used in {file}, which no patch changes"));
        }
        if !is_header(file) {
            return self.everywhere(file);
        }
        if !self.sources.is_reached(file) {
            return Ok(());
        }
        // What is in a header that cannot be taken apart is of those that include it.
        let Ok(parts) = split::parts(text) else { return self.everywhere(file) };
        let macros = parts.iter().flat_map(inner).filter(|(_, text)| open.named_in(text).is_some());
        next.values.extend(macros.map(|(name, _)| name));
        let naming = parts.iter().filter_map(|part| Some((part, open.named_in(&body(part))?.to_owned())));
        let mut is_code = false;
        for (part, name) in naming {
            let Some(kind) = kind(part) else { continue };
            let is_toggled = identifiers(part.text).any(|word| self.toggled.contains(word));
            match (kind, directive(part)) {
                (_, Some("ifdef" | "ifndef")) if !is_toggled => {}
                (_, Some("if" | "elif" | "ifdef" | "ifndef")) => {
                    // All that is in the file may be under it.
                    for part in &parts {
                        next.take(part);
                        is_code |= change::kind(part) == Some(Kind::Code);
                    }
                }
                (_, Some("define")) | (Kind::Function, _) | (Kind::Value, None) => next.take(part),
                (_, Some(_)) => {}
                // A function may share its name with a member.
                (Kind::Type, _) if open.values.contains(&name) => {
                    let of = part.defines().next().unwrap_or_default();
                    return refuse(Gate::Layout, format!("{name} is in the layout of {of} ({file})"));
                }
                (Kind::Declaration, _) if open.values.contains(&name) => next.take(part),
                (Kind::Code, _) => is_code = true,
                (Kind::Type | Kind::Declaration, _) => {}
            }
        }
        if is_code { self.everywhere(file) } else { Ok(()) }
    }

    /// Whoever includes `file`, and the file itself if it is a C file, that is in the kernel build.
    fn everywhere(&mut self, file: &str) -> Result<(), Error> {
        if !is_header(file) && self.sources.is_built(file)? {
            self.users.insert(file.to_owned());
        }
        if is_header(file) || self.sources.is_included(file) {
            for includer in self.sources.including(file)? {
                self.users.insert(includer);
            }
        }
        Ok(())
    }

    /// A copy of its own that a file has of a function must be among those of the users.
    fn copies(&self, known: &Names) -> Result<(), Refusal> {
        let last = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        let files: BTreeSet<String> = self.users.iter().map(|user| last(user)).collect();
        for name in &known.functions {
            if let Some(other) = self.sources.files_with(name).find(|file| !files.contains(*file)) {
                let what = format!("{other} has {name}, and is none of the files that name it");
                return Err(Refusal::new(Gate::Users, what));
            }
        }
        Ok(())
    }
}

impl Names {
    /// Adds what a piece defines.
    fn take(&mut self, part: &Part) {
        let list = match kind(part) {
            Some(Kind::Value) if matches!(directive(part), Some("define" | "undef") | None) => {
                &mut self.values
            }
            Some(Kind::Function | Kind::Declaration) => &mut self.functions,
            _ => return,
        };
        list.extend(names(part));
    }
}

#[cfg(test)]
mod tests;
