//! Puts fixes into the original source of one file.
//!
//! A fix is taken from the fixed source of the distribution, function by function or as a whole, or
//! from a patch file. Lines keep their numbers: a `#line` follows everything that was put in, so that
//! nothing but the fix differs when the file is compiled.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::refusal::{Gate, Refusal};
use crate::version;

pub mod headers;
pub mod merge;
pub mod patch;
pub mod rebase;
pub mod related;
pub mod split;

use crate::recipe::SourceFile;
pub use related::{functions, in_need_of, is_called, new_functions, outside, redefined, related, removed};
use split::Part;

/// What one fix wants of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish<'a> {
    /// Who wants it, for messages.
    pub fix: &'a str,
    /// The file as it is with the fix, and with whatever else its version has.
    pub fixed: &'a str,
    /// That version of the distribution's source; none for a patch.
    pub version: Option<&'a str>,
    /// What of it.
    pub what: What<'a>,
}

impl<'a> Wish<'a> {
    /// What a recipe says of one file, as it is in a version of the source.
    pub fn of(fix: &'a str, fixed: &'a str, version: Option<&'a str>, file: &'a SourceFile) -> Self {
        let what = if file.whole {
            What::All
        } else {
            What::Functions {
                functions: file.functions.iter().map(String::as_str).collect(),
                also: file.also.iter().map(String::as_str).collect(),
            }
        };
        Self { fix, fixed, version, what }
    }

    /// The functions that it names.
    pub fn functions(&self) -> &[&'a str] {
        match &self.what {
            What::All => &[],
            What::Functions { functions, .. } => functions,
        }
    }

    fn piece(&self, text: &'a str) -> Piece<'a> {
        Piece { text, fix: self.fix, version: self.version }
    }
}

/// What of a fixed file is the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What<'a> {
    /// Everything that differs.
    All,
    /// These functions with whatever is new and named in them, and the other pieces that contain one
    /// of these texts.
    Functions {
        /// Functions, old or new.
        functions: Vec<&'a str>,
        /// Texts of declarations, macros and the like that come with them.
        also: Vec<&'a str>,
    },
}

/// How functions that are put in test static keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// As they are written: code that the kernel rewrites when a key is turned.
    AsWritten,
    /// By reading the key: slower, and right wherever the key is. For keys of a kernel module, which the
    /// kernel would look for too early.
    Plain,
}

/// Reads keys until [`AS_WRITTEN`].
const PLAIN: &str = "\
#pragma push_macro(\"static_branch_likely\")
#pragma push_macro(\"static_branch_unlikely\")
#pragma push_macro(\"static_key_true\")
#pragma push_macro(\"static_key_false\")
#undef static_branch_likely
#undef static_branch_unlikely
#undef static_key_true
#undef static_key_false
#define static_branch_likely(key) static_key_enabled(key)
#define static_branch_unlikely(key) static_key_enabled(key)
#define static_key_true(key) static_key_enabled(key)
#define static_key_false(key) static_key_enabled(key)
";
const AS_WRITTEN: &str = "\
#pragma pop_macro(\"static_branch_likely\")
#pragma pop_macro(\"static_branch_unlikely\")
#pragma pop_macro(\"static_key_true\")
#pragma pop_macro(\"static_key_false\")
";

/// The text of `path`, which was `original`, with all that `wishes` want.
///
/// # Errors
///
/// A file is not in the kernel's style, a function is not there, or two fixes contradict each other: of
/// one function they want different forms, and not two that follow each other in the distribution's
/// versions.
pub fn compose(path: &str, original: &str, wishes: &[Wish], keys: Keys) -> Result<String, Refusal> {
    let old = parts(path, original)?;
    let mut plan = Plan::default();
    for wish in &in_order(wishes) {
        let new = parts(path, wish.fixed)?;
        match &wish.what {
            // Several patches of one file, or one beside other fixes.
            What::All if wish.version.is_none() && wishes.len() > 1 => {
                let functions = differing(&old, &new);
                let outside = outside(original, wish.fixed);
                let also: Vec<&str> = outside.iter().map(String::as_str).collect();
                plan.add(path, &old, &new, wish, &functions, &also)?;
            }
            What::All => return whole(path, original, wishes),
            What::Functions { functions, also } => plan.add(path, &old, &new, wish, functions, also)?,
        }
    }
    Ok(plan.write(&old, keys))
}

/// The functions of `new` that are not in `old` as they are.
fn differing<'a>(old: &[Part], new: &[Part<'a>]) -> Vec<&'a str> {
    let is_other = |part: &&Part| !old.iter().any(|other| other.text == part.text);
    let names: BTreeSet<&str> = new.iter().filter(is_other).filter_map(Part::function).collect();
    names.into_iter().collect()
}

/// The oldest version first, patches before.
fn in_order<'w, 'a>(wishes: &'w [Wish<'a>]) -> Vec<&'w Wish<'a>> {
    let mut ordered: Vec<_> = wishes.iter().collect();
    ordered.sort_by(|a, b| match (a.version, b.version) {
        (Some(a), Some(b)) => version::compare(a, b),
        (a, b) => a.cmp(&b),
    });
    ordered
}

fn parts<'a>(path: &str, text: &'a str) -> Result<Vec<Part<'a>>, Refusal> {
    split::parts(text).map_err(|e| Refusal::new(Gate::Applies, format!("{path}: {e}")))
}

/// The whole fixed file: only one fix can want that.
fn whole(path: &str, original: &str, wishes: &[Wish]) -> Result<String, Refusal> {
    if let [wish] = wishes {
        return keep_lines(path, original, wish.fixed);
    }
    let names: Vec<_> = wishes.iter().map(|wish| wish.fix).collect();
    Err(Refusal::new(Gate::Conflict, format!("{path} as a whole: {}", names.join(", "))))
}

/// `fixed` with each function that is as in `original` on the lines that it had there.
///
/// # Errors
///
/// A file is not in the kernel's style.
pub fn keep_lines(path: &str, original: &str, fixed: &str) -> Result<String, Refusal> {
    let (old, new) = (parts(path, original)?, parts(path, fixed)?);
    let lines: BTreeMap<&str, Option<usize>> =
        old.iter().filter(|p| p.function().is_some()).fold(BTreeMap::new(), |mut lines, part| {
            // The same text twice has no one place.
            lines.entry(part.text).and_modify(|line| *line = None).or_insert(Some(part.line));
            lines
        });
    let mut out = Lines::default();
    for part in &new {
        out.put(part.text, lines.get(part.text).copied().flatten());
    }
    Ok(out.text)
}

/// A text under construction, and the number that the compiler gives its next line.
struct Lines {
    text: String,
    next: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self { text: String::new(), next: 1 }
    }
}

impl Lines {
    /// Lines that the compiler does not count.
    fn beside(&mut self, text: &str) {
        self.text.push_str(text);
        self.next = 0;
    }

    fn put(&mut self, text: &str, line: Option<usize>) {
        if let Some(line) = line.filter(|line| *line != self.next) {
            let _ = writeln!(self.text, "#line {line}");
            self.next = line;
        }
        self.text.push_str(text);
        self.next += text.matches('\n').count();
    }
}

/// What is put in where, by the numbers of the original's parts.
#[derive(Default)]
struct Plan<'a> {
    /// In place of a part.
    instead: BTreeMap<usize, Piece<'a>>,
    /// Behind a part, in order; 0 is the file's beginning, `n + 1` is behind part `n`.
    behind: BTreeMap<usize, Vec<&'a str>>,
    /// New functions by name.
    new: BTreeMap<&'a str, Piece<'a>>,
}

/// A text that a fix wants somewhere.
#[derive(Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    /// Whose fix it is.
    fix: &'a str,
    /// The version of the source that it is of.
    version: Option<&'a str>,
}

impl Piece<'_> {
    /// A later form of the same: what the distribution made of it after that.
    fn follows(&self, other: &Piece) -> bool {
        matches!((self.version, other.version),
            (Some(own), Some(other)) if version::compare(own, other) == Ordering::Greater)
    }
}

impl<'a> Plan<'a> {
    fn add(
        &mut self,
        path: &str,
        old: &[Part],
        new: &[Part<'a>],
        wish: &Wish<'a>,
        functions: &[&str],
        also: &[&str],
    ) -> Result<(), Refusal> {
        let refuse = |gate, name: &str, why: &str| Err(Refusal::new(gate, format!("{path}: {name}: {why}")));
        for name in functions {
            let theirs: Vec<_> = numbers(new, name);
            let ours: Vec<_> = numbers(old, name);
            if theirs.is_empty() {
                return refuse(Gate::Applies, name, "the fixed source does not have it");
            }
            if ours.is_empty() {
                continue;
            }
            if ours.len() != theirs.len() {
                return refuse(Gate::Applies, name, "is not defined as often as in the fixed source");
            }
            // One that is defined once for each of several configurations may change in one alone.
            let text = |parts: &[Part<'a>], n: usize| parts.get(n).map_or("", |part| part.text);
            let same = |(ours, theirs): &(usize, usize)| {
                old.get(*ours).is_some_and(|part| part.text == text(new, *theirs))
            };
            let pairs: Vec<_> = ours.into_iter().zip(theirs).collect();
            if pairs.iter().all(same) {
                return refuse(Gate::Changed, name, "is the same in the fixed source");
            }
            for (ours, theirs) in pairs.into_iter().filter(|pair| !same(pair)) {
                let text = text(new, theirs);
                self.put_instead(path, name, ours, wish.piece(text))?;
            }
        }
        for fragment in also {
            if !new.iter().any(|part| part.text.contains(fragment)) {
                return refuse(Gate::Applies, fragment, "the fixed source does not have it");
            }
        }
        let needed = needed(old, new, functions);
        let mut anchor = 0;
        for (number, part) in new.iter().enumerate() {
            if let Some(n) = old.iter().position(|o| o.text == part.text || same_function(o, part)) {
                anchor = anchor.max(n + 1);
                continue;
            }
            let is_named = part.function().is_none() && also.iter().any(|text| part.text.contains(text));
            if !needed.contains(&number) && !is_named {
                continue;
            }
            // What is there in another form makes room.
            let makes_room = |o: &Part| o.stands_for(part) && !new.iter().any(|n| n.text == o.text);
            if is_named && let Some(n) = old.iter().position(makes_room) {
                let name = part.defines().next().unwrap_or_default();
                self.put_instead(path, name, n, wish.piece(part.text))?;
                continue;
            }
            if let Some(name) = part.function() {
                self.put_new(path, name, anchor, wish.piece(part.text))?;
                continue;
            }
            let behind = self.behind.entry(anchor).or_default();
            if !behind.contains(&part.text) {
                behind.push(part.text);
            }
        }
        Ok(())
    }

    /// In place of the original's part `number`.
    fn put_instead(
        &mut self,
        path: &str,
        name: &str,
        number: usize,
        piece: Piece<'a>,
    ) -> Result<(), Refusal> {
        match self.instead.get(&number) {
            Some(other) if other.text == piece.text => {}
            Some(other) if !piece.follows(other) => return conflict(path, name, other, &piece),
            _ => {
                self.instead.insert(number, piece);
            }
        }
        Ok(())
    }

    /// A function that the original does not have.
    fn put_new(&mut self, path: &str, name: &'a str, anchor: usize, piece: Piece<'a>) -> Result<(), Refusal> {
        let is_it = |text: &&'a str, other: &Piece| *text == other.text;
        match self.new.get(name).copied() {
            Some(other) if other.text == piece.text => return Ok(()),
            Some(other) if !piece.follows(&other) => return conflict(path, name, &other, &piece),
            Some(other) => {
                let places = self.behind.values_mut().flatten();
                places.filter(|text| is_it(text, &other)).for_each(|text| *text = piece.text);
            }
            None => self.behind.entry(anchor).or_default().push(piece.text),
        }
        self.new.insert(name, piece);
        Ok(())
    }

    fn write(&self, old: &[Part], keys: Keys) -> String {
        let mut out = Lines::default();
        let put = |out: &mut Lines, text: &str, line| {
            if keys == Keys::Plain {
                out.beside(PLAIN);
            }
            out.put(text, line);
            if keys == Keys::Plain {
                out.beside(AS_WRITTEN);
            }
        };
        let early = self.used_early(old);
        let new = |out: &mut Lines, n: usize| {
            for head in early.get(&n).into_iter().flatten() {
                out.put(&format!("{head};\n"), None);
            }
            for text in self.behind.get(&n).into_iter().flatten() {
                put(out, text, None);
            }
        };
        new(&mut out, 0);
        for (n, part) in old.iter().enumerate() {
            match self.instead.get(&n) {
                Some(piece) => put(&mut out, piece.text, Some(part.line)),
                None => out.put(part.text, Some(part.line)),
            }
            new(&mut out, n + 1);
        }
        out.text
    }
}

impl Plan<'_> {
    /// The heads of functions that something which is put in before them names, by where they are to be declared:
    /// what was moved in the fixed source stays in the original's order here.
    fn used_early(&self, old: &[Part]) -> BTreeMap<usize, Vec<String>> {
        let mut early: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        let behind = |n: usize| self.behind.get(&n).map_or(&[][..], Vec::as_slice);
        let places = |text: &str| (0..=old.len()).find(|n| behind(*n).contains(&text));
        let new = self.new.iter().filter_map(|(name, piece)| Some((*name, piece.text, places(piece.text)?)));
        let own = old.iter().enumerate().filter_map(|(n, part)| {
            Some((part.function()?, self.instead.get(&n).map_or(part.text, |piece| piece.text), n))
        });
        for (name, text, place) in new.chain(own) {
            let names = |text: &str| split::identifiers(text).any(|word| word == name);
            // What the original names there it knows there.
            let is_named = |n: usize| {
                behind(n).iter().take_while(|other| **other != text).any(|other| names(other))
                    || (n < place
                        && self.instead.get(&n).is_some_and(|piece| names(piece.text))
                        && !old.get(n).is_some_and(|part| names(part.text)))
            };
            let is_declared = |n: usize| {
                let is_it = |part: &Part| matches!(part.piece, split::Piece::Prototype { name: it, .. } if it == name);
                old.iter().take(n).any(is_it)
            };
            if let Some(n) = (0..=place).find(|n| is_named(*n)).filter(|n| !is_declared(*n)) {
                // Others are declared in a header.
                let head = head(text).filter(|head| head.trim_start().starts_with("static"));
                early.entry(n).or_default().extend(head.map(str::to_owned));
            }
        }
        early
    }
}

/// A function without its body.
fn head(text: &str) -> Option<&str> {
    let parts = split::parts(text).ok()?;
    parts.iter().find_map(|part| match &part.piece {
        split::Piece::Function(function) => Some(function.head().trim_end()),
        _ => None,
    })
}

fn conflict(path: &str, name: &str, one: &Piece, other: &Piece) -> Result<(), Refusal> {
    Err(Refusal::new(Gate::Conflict, format!("{path}: {name}: {} and {}", one.fix, other.fix)))
}

/// What of `new` is neither in `old` under its name nor anything else, and is named by `functions`,
/// directly or through each other; by numbers.
fn needed(old: &[Part], new: &[Part], functions: &[&str]) -> BTreeSet<usize> {
    let known: BTreeSet<&str> = old.iter().flat_map(Part::defines).collect();
    let is_new = |part: &Part| {
        let names: Vec<_> = part.defines().collect();
        !names.is_empty() && names.iter().all(|name| !known.contains(name))
    };
    let mut taken: BTreeSet<usize> = functions.iter().flat_map(|name| numbers(new, name)).collect();
    loop {
        let words: BTreeSet<&str> =
            taken.iter().filter_map(|n| new.get(*n)).flat_map(|part| split::identifiers(part.text)).collect();
        let more: Vec<usize> = new
            .iter()
            .enumerate()
            .filter(|(n, part)| {
                !taken.contains(n) && is_new(part) && part.defines().any(|d| words.contains(d))
            })
            .map(|(n, _)| n)
            .collect();
        if more.is_empty() {
            return taken;
        }
        taken.extend(more);
    }
}

fn numbers(parts: &[Part], function: &str) -> Vec<usize> {
    parts.iter().enumerate().filter(|(_, part)| part.function() == Some(function)).map(|(n, _)| n).collect()
}

fn same_function(one: &Part, other: &Part) -> bool {
    one.function().is_some() && one.function() == other.function()
}

#[cfg(test)]
mod tests;
