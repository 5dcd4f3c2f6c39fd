//! Which functions of which source file a change is in, by its title alone: distributions ship two
//! trees and a list of titles, and no commits.
//!
//! A title names a function, a file or a folder, and its words, weighed by how rare they are, fit the
//! lines that differ in some functions better than in others. All titles of a step from one version to
//! the next compete: a function belongs to the titles that fit it best, and a change is where the
//! functions are that belong to its title, if that is clearly one file. Everything else needs a person.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::changes::{Changes, words};
use super::index::Index;
use super::near::{Path, Places};

/// How a candidate was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum How {
    /// The title names a function.
    ByName,
    /// The title names the file.
    ByFile,
    /// The title's words fit.
    ByWords,
}

/// Where a change is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The file.
    pub path: String,
    /// The functions.
    pub functions: Vec<String>,
    /// All that differs in the file, of which most is outside of functions.
    pub whole: bool,
    /// How it was found.
    pub how: How,
}

/// What is known of a title.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Here it is.
    Here(Candidate),
    /// What fits is not in the kernel build.
    NotBuilt(String),
    /// What fits is in a header.
    Header(String),
    /// A person must look.
    Unclear(String),
}

/// A function that differs, or, under the name [`OUTSIDE`], the rest of a file.
struct Unit<'f> {
    path: &'f str,
    name: &'f str,
    /// How well the title fits that fits it best.
    best: f64,
}

/// A title, and the units that it fits.
struct Title<'f> {
    text: &'f str,
    /// By how well it fits, best first.
    fits: Vec<(f64, usize)>,
    /// Units whose functions it names.
    named: BTreeSet<usize>,
    /// The file that it fits best.
    home: Option<&'f str>,
}

/// All that differs between two versions, shared out among the titles of the changes between them.
pub struct Finder<'f> {
    changes: &'f BTreeMap<String, Changes>,
    index: &'f Index,
    units: Vec<Unit<'f>>,
    by_path: HashMap<&'f str, Vec<usize>>,
    titles: Vec<Title<'f>>,
    by_text: HashMap<&'f str, usize>,
}

/// The least that a title must fit the place where its change is.
const LEAST: f64 = 12.0;
/// How much better the best file must be than the next.
const CLEARLY: f64 = 1.5;
/// The same two where the title names the file.
const NAMED_FILE: (f64, f64) = (4.5, 1.3);
/// What a function's name in a title weighs: more than any words.
const NAMED: f64 = 40.0;
/// A title that fits a unit nearly as well as the best has it too.
const NEARLY: f64 = 0.85;
/// The places kept for each title.
const KEPT: usize = 64;
/// The name under which what is outside of all functions of a file competes.
const OUTSIDE: &str = "";

impl<'f> Finder<'f> {
    /// For the `titles` of all changes between two versions, in a kernel build.
    pub fn new(
        changes: &'f BTreeMap<String, Changes>,
        titles: impl IntoIterator<Item = &'f str>,
        index: &'f Index,
    ) -> Self {
        let texts: Vec<&str> = titles.into_iter().collect();
        let table = Table::new(changes, &texts);
        let mut units: Vec<Unit> =
            table.units.iter().map(|(path, name)| Unit { path, name, best: 0.0 }).collect();
        let titles: Vec<Title> = texts.iter().map(|text| table.title(text)).collect();
        for (score, number) in titles.iter().flat_map(|title| &title.fits) {
            if let Some(unit) = units.get_mut(*number) {
                unit.best = unit.best.max(*score);
            }
        }
        let mut by_path: HashMap<&str, Vec<usize>> = HashMap::new();
        for (number, unit) in units.iter().enumerate() {
            by_path.entry(unit.path).or_default().push(number);
        }
        let by_text: HashMap<_, _> = texts.iter().enumerate().map(|(n, text)| (*text, n)).collect();
        let mut finder = Self { changes, index, units, by_path, titles, by_text };
        let homes: Vec<_> =
            finder.titles.iter().map(|title| finder.files(title).first().map(|(_, path)| *path)).collect();
        for (title, home) in finder.titles.iter_mut().zip(homes) {
            title.home = home;
        }
        finder
    }

    /// Where the change with this title is.
    pub fn find(&self, text: &str) -> Found {
        let title = self.by_text.get(text).and_then(|n| self.titles.get(*n));
        let Some(title) = title else { return Found::Unclear("not one of the changes".to_owned()) };
        let files = self.files(title);
        let Some((score, path)) = files.first() else {
            return Found::Unclear("nothing that differs fits the title".to_owned());
        };
        let next = files.get(1).map_or(0.0, |(score, _)| *score);
        let (least, clearly) =
            if Places::of(text).names(&Path::of(path)) { NAMED_FILE } else { (LEAST, CLEARLY) };
        if *score >= least && *score >= next * clearly {
            return self.here(title, path);
        }
        let perhaps: Vec<_> =
            files.iter().filter(|(s, _)| s * CLEARLY >= *score).map(|(_, path)| *path).collect();
        let some = perhaps.iter().copied().take(3).collect::<Vec<_>>().join(" ");
        // None of those that it could be is built.
        if *score >= LEAST && !perhaps.iter().any(|path| self.is_built(path)) {
            return Found::NotBuilt(some);
        }
        Found::Unclear(format!("perhaps {some}"))
    }

    /// The files that a title may be about, the best first: how well it fits what belongs to it there.
    fn files(&self, title: &Title) -> Vec<(f64, &'f str)> {
        let mut files: Vec<(f64, &str)> = Vec::new();
        for (score, number) in &title.fits {
            let Some(unit) = self.units.get(*number).filter(|unit| *score >= unit.best * NEARLY) else {
                continue;
            };
            if !files.iter().any(|(_, path)| *path == unit.path) {
                files.push((*score, unit.path));
            }
        }
        files
    }

    /// The change is in the file `path`: its functions there.
    fn here(&self, title: &Title, path: &str) -> Found {
        if !self.is_built(path) {
            return Found::NotBuilt(path.to_owned());
        }
        if is_header(path) {
            return Found::Header(path.to_owned());
        }
        let units = self.by_path.get(path).map_or(&[][..], Vec::as_slice);
        let functions = self.functions(title, path, units);
        let how = if units.iter().any(|number| title.named.contains(number)) {
            How::ByName
        } else if Places::of(title.text).names(&Path::of(path)) {
            How::ByFile
        } else {
            How::ByWords
        };
        let whole = functions.is_empty();
        Found::Here(Candidate { path: path.to_owned(), functions, whole, how })
    }

    /// Which functions of a file that the change is in belong to it; none if what does is outside of
    /// them all.
    fn functions(&self, title: &Title, path: &str, units: &[usize]) -> Vec<String> {
        let score = |number: usize| {
            let score = title.fits.iter().find(|(_, n)| *n == number).map_or(0.0, |(score, _)| *score);
            let unit = self.units.get(number);
            if unit.is_none_or(|unit| score < unit.best * NEARLY) {
                0.0
            } else if title.named.contains(&number) {
                score - NAMED
            } else {
                score
            }
        };
        let best = units.iter().map(|number| score(*number)).fold(0.0, f64::max);
        // Nobody else is about this file.
        let is_rival = |other: &Title| other.text != title.text && other.home == Some(path);
        let alone = !self.titles.iter().any(is_rival);
        let Some(changed) = self.changes.get(path).map(|changes| &changes.changed) else {
            return Vec::new();
        };
        let is_its_own = |number: usize| {
            title.named.contains(&number) || (score(number) > 0.0 && score(number) * 1.6 >= best)
        };
        let names = |fits: &dyn Fn(usize) -> bool| -> BTreeSet<&str> {
            let units = units.iter().filter(|n| fits(**n)).filter_map(|n| self.units.get(*n));
            units.map(|unit| unit.name).filter(|name| changed.contains_key(*name)).collect()
        };
        let mut own = names(&is_its_own);
        if alone && own.is_empty() {
            own = names(&|_| true);
        } else if alone {
            own.extend(self.connected(path, changed, &own));
        }
        own.into_iter().map(str::to_owned).collect()
    }

    /// Functions of a file in whose lines something differs that differs in those of `own`, and in no
    /// other file.
    fn connected<'a>(
        &self,
        path: &str,
        changed: &'a BTreeMap<String, BTreeSet<String>>,
        own: &BTreeSet<&str>,
    ) -> Vec<&'a str> {
        let words: BTreeSet<&String> = own
            .iter()
            .filter_map(|name| changed.get(*name))
            .flatten()
            .filter(|word| word.contains('_'))
            .collect();
        let elsewhere = |word: &String| {
            let others = self.changes.iter().filter(|(other, _)| *other != path);
            others
                .flat_map(|(_, c)| c.changed.values().chain(c.new.values()))
                .any(|lines| lines.contains(word))
        };
        let confined: BTreeSet<&String> = words.into_iter().filter(|word| !elsewhere(word)).collect();
        let shares = |lines: &BTreeSet<String>| lines.iter().any(|word| confined.contains(word));
        changed.iter().filter(|(_, lines)| shares(lines)).map(|(name, _)| name.as_str()).collect()
    }

    fn is_built(&self, path: &str) -> bool {
        if !is_header(path) {
            return self.changes.get(path).is_some_and(|changes| self.index.has(path, &changes.functions));
        }
        // Who includes it is not known: a folder's own headers are built with its files.
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let beside = |other: &&&str| {
            !is_header(other) && other.rsplit_once('/').is_some_and(|(other, _)| other == folder)
        };
        path.starts_with("include/")
            || path.starts_with("arch/x86/include/")
            || self.by_path.keys().filter(beside).any(|other| self.is_built(other))
    }
}

fn is_header(path: &str) -> bool {
    path.rsplit_once('.').is_some_and(|(_, extension)| extension == "h")
}

/// What says how well a title fits a unit.
struct Table<'f> {
    /// Path and name.
    units: Vec<(&'f str, &'f str)>,
    /// By a word: the units whose lines have it, and those whose name has it.
    lines: HashMap<String, Vec<usize>>,
    names: HashMap<String, Vec<usize>>,
    /// By a function's whole name.
    whole: HashMap<&'f str, Vec<usize>>,
    /// By a path: its parts, and the number of its first unit.
    paths: Vec<(&'f str, Path, usize)>,
    /// By a word: the titles that have it.
    spread: HashMap<String, usize>,
    titles: usize,
}

impl<'f> Table<'f> {
    fn new(changes: &'f BTreeMap<String, Changes>, titles: &[&str]) -> Self {
        let mut table = Self {
            units: Vec::new(),
            lines: HashMap::new(),
            names: HashMap::new(),
            whole: HashMap::new(),
            paths: Vec::new(),
            spread: HashMap::new(),
            titles: titles.len(),
        };
        for (path, changes) in changes {
            table.paths.push((path, Path::of(path), table.units.len()));
            let functions = changes.changed.iter().chain(&changes.new);
            let functions = functions.map(|(name, words)| (name.as_str(), words));
            for (name, lines) in functions.chain([(OUTSIDE, &changes.other)]) {
                let number = table.units.len();
                table.units.push((path, name));
                for word in lines {
                    table.lines.entry(word.clone()).or_default().push(number);
                }
                for word in words(name) {
                    table.names.entry(word).or_default().push(number);
                }
                table.whole.entry(name).or_default().push(number);
            }
        }
        for word in titles.iter().flat_map(|title| words(title)) {
            *table.spread.entry(word).or_default() += 1;
        }
        table
    }

    fn title(&self, text: &'f str) -> Title<'f> {
        let said = words(text);
        let mut scores: HashMap<usize, f64> = HashMap::new();
        for (part, share) in [(&self.lines, 1.0), (&self.names, 0.8)] {
            for word in &said {
                for number in part.get(word).into_iter().flatten() {
                    let weight = self.weight(word, part.get(word).map_or(1, Vec::len)) * share;
                    *scores.entry(*number).or_default() += weight;
                }
            }
        }
        let called = |name: &str| text.contains(&format!("{name}()"));
        let mut named = BTreeSet::new();
        for name in crate::select::split::identifiers(text) {
            // A word without an underscore may be just a word.
            if name.contains('_') || called(name) {
                named.extend(self.whole.get(name).into_iter().flatten().copied());
            }
        }
        for number in &named {
            *scores.entry(*number).or_default() += NAMED;
        }
        let places = Places::of(text);
        // What no word fits counts only where the file itself is named.
        let mut nearness: HashMap<&str, f64> = HashMap::new();
        for (path, parts, first) in &self.paths {
            nearness.insert(path, places.near(parts));
            if places.names(parts) {
                let units = self.units.iter().enumerate().skip(*first);
                for (number, _) in units.take_while(|(_, (of, _))| of == path) {
                    scores.entry(number).or_default();
                }
            }
        }
        let near = |number: usize| {
            self.units.get(number).and_then(|(path, _)| nearness.get(path)).copied().unwrap_or_default()
        };
        let mut fits: Vec<(f64, usize)> = scores.into_iter().map(|(n, score)| (score + near(n), n)).collect();
        fits.retain(|(score, _)| *score > 0.0);
        fits.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        fits.truncate(KEPT);
        Title { text, fits, named, home: None }
    }

    /// The rarer a word, in what differs and in titles, the more it says.
    fn weight(&self, word: &str, spread: usize) -> f64 {
        let count = |n: usize| f64::from(u32::try_from(n.max(1)).unwrap_or(u32::MAX));
        let titles = self.spread.get(word).copied().unwrap_or_default();
        let rare = 1.0 - count(titles).ln() / count(self.titles + 1).ln();
        (count(self.units.len()) / count(spread)).ln() * rare
    }
}

#[cfg(test)]
mod tests;
