//! Cuts the functions to replace out of the fixed source, with what they need and nothing more.
//!
//! What is compiled is the fixed file's preprocessor lines and types, the functions that the recipe
//! names, and copies of the static functions that those call. Everything that would make such a cut
//! something else than the fix is refused: a function that did not change, changed its parameters,
//! or keeps state of its own; a helper that changed too and is not named; a type that changed; data
//! of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cache::{self, Cache};
use crate::lock::{KernelLock, Package};
use crate::progress::{Progress, Step};
use crate::recipe::{Recipe, SourceFile};
use crate::{fetch, unpack};

pub mod split;

use split::{Function, Piece};

/// The fix cannot be cut out of the source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A source package cannot be had.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// A source package does not have the file.
    #[error(transparent)]
    Unpack(#[from] unpack::Error),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// An unpacked file cannot be kept.
    #[error("write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A source file is not text that we can take apart.
    #[error("{file}: {source}")]
    Split {
        /// The file within the source.
        file: String,
        /// What is unexpected about it.
        source: split::Error,
    },
    /// The fix cannot be made from this file.
    #[error("{file}: {function}: {refusal}")]
    Refused {
        /// The file within the source.
        file: String,
        /// The function or type that stands in the way.
        function: String,
        /// Why.
        refusal: Refusal,
    },
}

/// Why a function cannot be cut out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The recipe names a function that one of the two sources does not have.
    #[error("not defined exactly once in the {0} source")]
    NotDefined(&'static str),
    /// The recipe names a function that is the same in both sources.
    #[error("is the same in the fixed source")]
    Unchanged,
    /// Its callers would have to change too.
    #[error("its declaration changed")]
    Declaration,
    /// It runs once at boot, or has no address of its own.
    #[error("is marked {0}: it cannot be replaced at run time")]
    Marked(&'static str),
    /// A static variable would begin anew in the copy.
    #[error("keeps a static variable")]
    StaticVariable,
    /// A helper changed with it.
    #[error("is called by a replaced function and changed too: name it in the recipe")]
    HelperChanged,
    /// It is data, of which the copy would get its own.
    #[error("is data of the file, used by a replaced function")]
    Data,
    /// Its layout may have changed under code that is not replaced.
    #[error("this type changed")]
    Type,
}

/// What was taken from one source file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selection {
    /// The file within the source.
    pub path: String,
    /// The functions that are replaced.
    pub functions: Vec<String>,
    /// Static functions copied along.
    pub helpers: Vec<String>,
    /// Other functions that differ between the two sources and are *not* replaced: for the person
    /// who approves the patch.
    pub left_out: Vec<String>,
    /// What is compiled. Not part of any report: it is the kernel's code, not ours.
    #[serde(skip)]
    pub text: String,
}

/// Cuts everything that `recipe` names.
///
/// # Errors
///
/// A source package cannot be had, or a function cannot be cut out.
pub fn all(
    cache: &Cache,
    lock: &KernelLock,
    recipe: &Recipe,
    progress: Progress,
) -> Result<Vec<Selection>, Error> {
    let mut selections = Vec::new();
    for file in &recipe.files {
        let original = source(cache, &lock.packages.source, &file.path, progress)?;
        let fixed = source(cache, &recipe.source, &file.path, progress)?;
        let selection = cut(file, &original, &fixed)?;
        progress(
            Step::Select,
            &format!("{} from {} {}", file.functions.join(", "), file.path, recipe.source.version),
        );
        selections.push(selection);
    }
    Ok(selections)
}

/// One file of a source package, kept in the cache.
fn source(cache: &Cache, package: &Package, file: &str, progress: Progress) -> Result<String, Error> {
    let key = format!("{}-{}", package.sha256, file.replace('/', "-"));
    let folder = cache.folder("sources", &key, |folder| {
        let deb = fetch::package(cache, package, progress)?;
        progress(Step::Select, &format!("unpacking {file} of {}", package.version));
        let bytes = unpack::source_file(&deb, &package.name, file)?;
        let path = folder.join("file.c");
        std::fs::write(&path, bytes).map_err(|source| Error::Write { path, source })
    })?;
    let bytes = unpack::read(&folder.join("file.c"))?;
    String::from_utf8(bytes)
        .map_err(|_| Error::Split { file: file.to_owned(), source: split::Error::NotText })
}

/// The part of a module made of `file`, whose text was `original` and is `fixed` with the fix.
fn cut(file: &SourceFile, original: &str, fixed: &str) -> Result<Selection, Error> {
    let split = |text| split::split(text).map_err(|source| Error::Split { file: file.path.clone(), source });
    Cut { original: split(original)?, fixed: split(fixed)? }
        .select(file)
        .map_err(|(function, refusal)| Error::Refused { file: file.path.clone(), function, refusal })
}

struct Cut<'a> {
    original: Vec<Piece<'a>>,
    fixed: Vec<Piece<'a>>,
}

type Refused = (String, Refusal);

impl Cut<'_> {
    fn select(&self, file: &SourceFile) -> Result<Selection, Refused> {
        let before = functions(&self.original);
        let after = functions(&self.fixed);
        let wanted: BTreeSet<&str> = file.functions.iter().map(String::as_str).collect();
        for name in &wanted {
            replaceable(before.get(name), after.get(name)).map_err(|r| ((*name).to_owned(), r))?;
        }
        let helpers = helpers(&wanted, &before, &after)?;
        let taken: BTreeSet<&str> = wanted.union(&helpers).copied().collect();
        self.no_data(&taken, &after)?;
        self.same_types()?;
        let left_out = before
            .iter()
            .filter(|(name, old)| {
                !wanted.contains(*name)
                    && !matches!((old.as_slice(), after.get(*name).map(Vec::as_slice)),
                        ([a], Some([b])) if a.text == b.text)
            })
            .map(|(name, _)| (*name).to_owned())
            .collect();
        Ok(Selection {
            path: file.path.clone(),
            functions: file.functions.clone(),
            helpers: helpers.iter().map(|h| (*h).to_owned()).collect(),
            left_out,
            text: self.text(&file.path, &wanted, &taken),
        })
    }

    /// What is taken must not use data of the file: it would get data of its own.
    fn no_data(&self, taken: &BTreeSet<&str>, after: &Functions) -> Result<(), Refused> {
        let used: BTreeSet<&str> = taken
            .iter()
            .filter_map(|name| after.get(name)?.first())
            .flat_map(|f| split::identifiers(f.body()))
            .collect();
        let data = self.fixed.iter().filter_map(|p| match p {
            Piece::Data { name, .. } => Some(*name),
            _ => None,
        });
        data.into_iter()
            .find(|name| used.contains(name))
            .map_or(Ok(()), |name| Err((name.to_owned(), Refusal::Data)))
    }

    /// The rest of the kernel goes on with the types it was compiled with.
    fn same_types(&self) -> Result<(), Refused> {
        let types = |pieces: &[Piece]| -> BTreeSet<String> {
            pieces
                .iter()
                .filter_map(|p| match p {
                    Piece::Type { text, .. } => Some((*text).to_owned()),
                    _ => None,
                })
                .collect()
        };
        let (before, after) = (types(&self.original), types(&self.fixed));
        match before.difference(&after).next() {
            None => Ok(()),
            Some(text) => Err((text.lines().next().unwrap_or_default().to_owned(), Refusal::Type)),
        }
    }

    /// The taken pieces in their order. `#line` keeps file and line of every warning and of every
    /// `__LINE__` what they are in the fixed source.
    fn text(&self, path: &str, wanted: &BTreeSet<&str>, taken: &BTreeSet<&str>) -> String {
        let mut out = String::new();
        for piece in &self.fixed {
            let (line, text) = match piece {
                Piece::Preprocessor { line, text } | Piece::Type { line, text } => (line, text),
                Piece::Function(f) if taken.contains(f.name) => (&f.line, &f.text),
                Piece::Prototype { line, text, name } if taken.contains(name) => (line, text),
                _ => continue,
            };
            let _ = write!(out, "#line {line} \"{path}\"\n{text}");
        }
        out.push_str("#line 1 \"aliases\"\n");
        for name in wanted {
            let _ = writeln!(out, "extern typeof({name}) invivo_new_{name} __alias({name});");
        }
        out
    }
}

type Functions<'a> = BTreeMap<&'a str, Vec<&'a Function<'a>>>;

fn functions<'a>(pieces: &'a [Piece<'a>]) -> Functions<'a> {
    let mut all = Functions::new();
    for piece in pieces {
        if let Piece::Function(function) = piece {
            all.entry(function.name).or_default().push(function);
        }
    }
    all
}

/// Whether a function may be replaced, by its definitions before and after.
fn replaceable(before: Option<&Vec<&Function>>, after: Option<&Vec<&Function>>) -> Result<(), Refusal> {
    let Some([before]) = before.map(Vec::as_slice) else { return Err(Refusal::NotDefined("original")) };
    let Some([after]) = after.map(Vec::as_slice) else { return Err(Refusal::NotDefined("fixed")) };
    let words = |f: &Function| f.head().split_whitespace().collect::<Vec<_>>().join(" ");
    if before.text == after.text {
        return Err(Refusal::Unchanged);
    }
    if words(before) != words(after) {
        return Err(Refusal::Declaration);
    }
    for mark in ["__init", "__exit", "inline", "__always_inline", "noinstr", "notrace", "__weak"] {
        if split::identifiers(after.head()).any(|word| word == mark) {
            return Err(Refusal::Marked(mark));
        }
    }
    no_state(after)
}

/// A copy of a function would have static variables of its own; constants may be copied.
fn no_state(function: &Function) -> Result<(), Refusal> {
    let keeps = function.body().lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("static") && words.next() != Some("const")
    });
    if keeps { Err(Refusal::StaticVariable) } else { Ok(()) }
}

/// The static functions of the file that `wanted` needs, found through each other.
fn helpers<'a>(
    wanted: &BTreeSet<&'a str>,
    before: &Functions<'a>,
    after: &Functions<'a>,
) -> Result<BTreeSet<&'a str>, Refused> {
    let mut helpers = BTreeSet::new();
    let mut open: Vec<&str> = wanted.iter().copied().collect();
    while let Some(name) = open.pop() {
        let bodies = after.get(name).into_iter().flatten();
        for word in bodies.flat_map(|f| split::identifiers(f.body())) {
            let Some((helper, found)) = after.get_key_value(word) else { continue };
            let is_static = found.iter().any(|f| split::identifiers(f.head()).any(|w| w == "static"));
            if wanted.contains(helper) || helpers.contains(helper) || !is_static {
                continue;
            }
            let refuse = |r| ((*helper).to_owned(), r);
            let [function] = found.as_slice() else { return Err(refuse(Refusal::NotDefined("fixed"))) };
            match before.get(helper).map(Vec::as_slice) {
                Some([same]) if same.text == function.text => {}
                // New with the fix: nobody else can call it.
                None => {}
                Some(_) => return Err(refuse(Refusal::HelperChanged)),
            }
            no_state(function).map_err(refuse)?;
            helpers.insert(*helper);
            open.push(helper);
        }
    }
    Ok(helpers)
}

#[cfg(test)]
mod tests;
