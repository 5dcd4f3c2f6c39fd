//! Which C files of a kernel build use what a fix changes in a header, or in a C file that others include: the
//! fix is whole only if all of them are compiled with it.
//!
//! Names decide, not the compiler: a file that has the name of something that changed uses it, directly or
//! through what other headers make of it. That finds too many rather than too few, and a file in which nothing
//! differs is simply no part of the patch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::index::Index;
use crate::recipe::{extension, is_header};
use crate::refusal::{Gate, Refusal};
use crate::select::split::{self, Part, Piece, identifiers};

mod sources;
pub use sources::Sources;

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

/// What a fix changes in a file that others include.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Change {
    /// Inline functions, prototypes and variables of elsewhere that are others.
    pub functions: BTreeSet<String>,
    /// Macros and constants of enumerations that are others: types may be laid out by them.
    pub values: BTreeSet<String>,
    /// Types that are others: wherever they are compiled, their layout is compared.
    pub types: BTreeSet<String>,
    /// What only the fixed file declares: nothing can have used it.
    pub declared: BTreeSet<String>,
    /// Macros that only one of the two forms has.
    pub toggled: BTreeSet<String>,
    /// It has code or data of its own that is another: it is wherever the file is included.
    pub is_code: bool,
}

impl Change {
    /// What of `fixed` is not as in `original`, but for comments and blanks.
    ///
    /// # Errors
    ///
    /// A file is not in the kernel's style.
    pub fn of(path: &str, original: &str, fixed: &str) -> Result<Self, Refusal> {
        let parts =
            |text| split::parts(text).map_err(|e| Refusal::new(Gate::Applies, format!("{path}: {e}")));
        let (old, new) = (parts(original)?, parts(fixed)?);
        let (before, after) = (meanings(&old), meanings(&new));
        let mut change = Self::default();
        for ((kind, name), meaning) in &after {
            match before.get(&(*kind, name.clone())) {
                Some(other) if other == meaning => {}
                // A new name may be one that others have a meaning of their own for.
                None if matches!(kind, Kind::Declaration | Kind::Type) => {
                    change.declared.insert(name.clone());
                }
                None => change.toggle(*kind, name),
                Some(_) => change.add(*kind, name),
            }
        }
        for (kind, name) in before.keys().filter(|key| !after.contains_key(key)) {
            change.toggle(*kind, name);
        }
        Ok(change)
    }

    fn add(&mut self, kind: Kind, name: &str) {
        let list = match kind {
            Kind::Value => &mut self.values,
            Kind::Type => &mut self.types,
            Kind::Function | Kind::Declaration => &mut self.functions,
            Kind::Code => {
                self.is_code = true;
                return;
            }
        };
        list.insert(name.to_owned());
    }

    /// A name that only one of the two forms has.
    fn toggle(&mut self, kind: Kind, name: &str) {
        self.add(kind, name);
        if kind == Kind::Value {
            self.toggled.insert(name.to_owned());
        }
    }

    /// Whether nothing differs but comments and blanks.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing that is compiled differs, but for what is declared.
    pub fn is_declared_only(&self) -> bool {
        *self == Self { declared: self.declared.clone(), ..Self::default() }
    }
}

/// What others see of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// An inline function.
    Function,
    /// A macro or a constant.
    Value,
    Type,
    /// A prototype, or a variable that is elsewhere.
    Declaration,
    /// A function that is not inline, a variable, or something that a macro makes.
    Code,
}

fn kind(part: &Part) -> Option<Kind> {
    let text = part.text.trim_start();
    match &part.piece {
        Piece::Comment => None,
        Piece::Preprocessor { .. } => Some(Kind::Value),
        Piece::Type { .. } if text.starts_with("enum") && text.contains('{') => Some(Kind::Value),
        // That there is a type of this name says nothing of it.
        Piece::Type { .. } => (text.contains('{') || text.starts_with("typedef")).then_some(Kind::Type),
        Piece::Prototype { .. } => Some(Kind::Declaration),
        Piece::Data { .. } if ["extern", "DECLARE_"].iter().any(|word| text.starts_with(word)) => {
            Some(Kind::Declaration)
        }
        Piece::Function(function) => {
            let is_inline = identifiers(function.head())
                .any(|word| word.contains("inline") && !word.contains("noinline"));
            Some(if is_inline { Kind::Function } else { Kind::Code })
        }
        Piece::Other if identifiers(text).next().is_some_and(|word| word.ends_with("tatic_assert")) => None,
        Piece::Data { .. } | Piece::Other => Some(Kind::Code),
    }
}

/// What each name stands for, with the conditions under which it does.
fn meanings(parts: &[Part]) -> BTreeMap<(Kind, String), Vec<String>> {
    let mut meanings: BTreeMap<(Kind, String), Vec<String>> = BTreeMap::new();
    let mut conditions: Vec<String> = Vec::new();
    for part in parts {
        let Some(kind) = kind(part) else { continue };
        let text = plain(part.text);
        for (name, text) in inner(part) {
            let meaning = format!("{} {text}", conditions.join(" "));
            meanings.entry((Kind::Value, name)).or_default().push(meaning);
        }
        match directive(part) {
            Some("if" | "ifdef" | "ifndef") => conditions.push(text),
            Some("elif" | "else") => {
                if let Some(last) = conditions.last_mut() {
                    last.push_str(&text);
                }
            }
            Some("endif") => drop(conditions.pop()),
            // What is included more is for what else is new; `#line` only keeps the places of all else.
            Some("include" | "error" | "warning" | "line") => {}
            _ => {
                let whole = format!("{} {text}", conditions.join(" "));
                for name in names(part) {
                    let meaning = constant(part, &name).unwrap_or_else(|| whole.clone());
                    meanings.entry((kind, name)).or_default().push(meaning);
                }
            }
        }
    }
    meanings
}

/// The macros that are defined within a type or a function, where lines for the preprocessor are a part of it.
fn inner(part: &Part) -> Vec<(String, String)> {
    if matches!(part.piece, Piece::Preprocessor { .. }) || !part.text.contains("define") {
        return Vec::new();
    }
    let joined = part.text.replace("\\\n", " ");
    let lines = joined.lines().filter(|line| is_for_preprocessor(line)).map(plain);
    let defines = lines.filter(|line| identifiers(line).next() == Some("define"));
    defines.filter_map(|line| Some((identifiers(&line).nth(1)?.to_owned(), line.clone()))).collect()
}

fn is_for_preprocessor(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The text of a piece without such lines, if it is not one itself.
fn body(part: &Part) -> String {
    if matches!(part.piece, Piece::Preprocessor { .. }) {
        return plain(part.text);
    }
    let joined = part.text.replace("\\\n", " ");
    plain(&joined.lines().filter(|line| !is_for_preprocessor(line)).collect::<Vec<_>>().join("\n"))
}

/// What a line for the preprocessor does.
fn directive<'a>(part: &Part<'a>) -> Option<&'a str> {
    match part.piece {
        Piece::Preprocessor { text, .. } => identifiers(text).next(),
        _ => None,
    }
}

/// The names that a piece is about.
fn names(part: &Part) -> BTreeSet<String> {
    let text = plain(part.text);
    let body = text.split_once('{').map_or("", |(_, body)| body);
    let names: Vec<&str> = match (&part.piece, directive(part)) {
        (_, Some("define" | "undef")) => identifiers(&text).skip(1).take(1).collect(),
        (_, Some(_)) | (Piece::Other, _) => identifiers(&text).collect(),
        (Piece::Type { .. }, _) if is_enumeration(part) => identifiers(body).collect(),
        _ => part.defines().collect(),
    };
    names.into_iter().map(str::to_owned).collect()
}

fn is_enumeration(part: &Part) -> bool {
    matches!(part.piece, Piece::Type { .. }) && part.text.trim_start().starts_with("enum")
}

/// What a constant of an enumeration depends on: all that is before it, and its own value. One that comes
/// after it changes nothing.
fn constant(part: &Part, name: &str) -> Option<String> {
    if !is_enumeration(part) {
        return None;
    }
    let mut before = String::new();
    for one in plain(part.text).split(',') {
        before.push_str(one.trim_end_matches(['}', ';', ' ']));
        before.push(',');
        if identifiers(one).any(|word| word == name) {
            break;
        }
    }
    Some(before)
}

/// A text without its comments, each gap as one blank.
fn plain(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['"', '\'', '/']) {
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
        code.push_str(before);
        let length = if from.starts_with("/*") {
            code.push(' ');
            from.find("*/").map_or(from.len(), |end| end + 2)
        } else if from.starts_with("//") {
            from.find('\n').unwrap_or(from.len())
        } else {
            let length = if from.starts_with('/') { 1 } else { quoted(from) };
            code.push_str(from.get(..length).unwrap_or_default());
            length
        };
        rest = from.get(length..).unwrap_or_default();
    }
    code.push_str(rest);
    code.replace("\\\n", " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How long the text or character is that begins with the first of `from`, a quote.
fn quoted(from: &str) -> usize {
    let mut characters = from.char_indices();
    let quote = characters.next().map(|(_, quote)| quote);
    while let Some((at, c)) = characters.next() {
        if c == '\\' {
            characters.next();
        } else if Some(c) == quote || c == '\n' {
            return at + 1;
        }
    }
    from.len()
}

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
                        is_code |= self::kind(part) == Some(Kind::Code);
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
