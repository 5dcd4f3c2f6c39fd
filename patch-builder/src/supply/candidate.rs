//! Which functions of which source files a change is in. Distributions ship two trees and a list of
//! titles, and no commits.
//!
//! Where the flaw's record says which files the fix is in, it is there. Without a record there is the
//! title alone. It names a function, a file or a folder, and its words fit the lines that differ in some
//! functions better than in others. All changes of a step from one version to the next compete: a
//! function belongs to those that fit it best, and a change is where its functions are, if that is
//! clearly one file and the title names the file or a function of it. Everything else needs a person.
//!
//! All that differs in its files within the step is taken for the change: rather a neighbour's fix too
//! than half of this one. What clearly belongs to a neighbour is told apart, for where it is refused.

use std::collections::{BTreeMap, HashMap};

use super::changes::Changes;
pub use super::fit::Told;
use super::fit::{OUTSIDE, Table, Title, Unit};
use super::near::{Path, Places};
use super::records::Record;
use crate::index::Index;
use crate::recipe::{extension, is_header};
use crate::unpack::is_elsewhere;

/// How a candidate was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum How {
    /// Its commit is there, and fits to the letter.
    ByCommit,
    /// Its commit is there, and was put between lines that other commits changed before it.
    ByMerge,
    /// The flaw's record names the files.
    ByRecord,
    /// The title names a function.
    ByName,
    /// The title names the file.
    ByFile,
}

impl How {
    /// Whether something names all of its files.
    #[must_use]
    pub const fn knows_all_files(self) -> bool {
        match self {
            Self::ByCommit | Self::ByMerge | Self::ByRecord => true,
            Self::ByName | Self::ByFile => false,
        }
    }

    /// Whether what is taken is one change alone, to which nothing of another is added.
    #[must_use]
    pub const fn is_exact(self) -> bool {
        match self {
            Self::ByCommit | Self::ByMerge => true,
            Self::ByRecord | Self::ByName | Self::ByFile => false,
        }
    }
}

/// What of one file belongs to a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: String,
    /// The functions that differ; if none, what differs is outside of functions.
    pub functions: Vec<String>,
    /// Those of them that clearly belong to other changes of the same step.
    pub of_others: Vec<String>,
    /// What differs outside of functions clearly belongs to other changes.
    pub outside_of_others: bool,
    /// Those of them that the title names, or else the one that it fits best: without them it is not this
    /// change.
    pub surely: Vec<String>,
}

impl Place {
    /// A file of which all that `changes` is the change's.
    pub(super) fn all(path: &str, changes: Changes) -> Self {
        let mut functions: Vec<String> = changes.changed.into_keys().collect();
        if is_header(path) {
            functions.extend(changes.new.into_keys());
        }
        Self {
            path: path.to_owned(),
            surely: functions.clone(),
            functions,
            of_others: Vec::new(),
            outside_of_others: false,
        }
    }
}

/// Where a change is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its files.
    pub places: Vec<Place>,
    /// How they were found.
    pub how: How,
}

/// What is known of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Here it is.
    Here(Candidate),
    /// What fits is not in the kernel build.
    NotBuilt(String),
    /// It is in assembly, or in that too.
    NotCode(String),
    /// A person must look.
    Unclear(String),
}

/// All that differs between two versions, shared out among the changes between them.
pub struct Finder<'f> {
    changes: &'f BTreeMap<String, Changes>,
    index: &'f Index,
    /// Whether the kernel's own source has a file of this path.
    is_own: &'f (dyn Fn(&str) -> bool + Sync),
    units: Vec<Unit<'f>>,
    by_path: HashMap<&'f str, Vec<usize>>,
    titles: Vec<Title<'f>>,
    /// By a file: the changes that are in it, as far as is known.
    at_home: HashMap<&'f str, Vec<usize>>,
}

/// The least that a title must fit the place where its change is.
const LEAST: f64 = 12.0;
/// How much better the best must be than the next.
const CLEARLY: f64 = 1.5;
/// The same two where the title names the file.
const NAMED_FILE: (f64, f64) = (4.5, 1.3);
/// A title that fits a unit nearly as well as the best has it too.
const NEARLY: f64 = 0.85;

impl<'f> Finder<'f> {
    /// For `all` changes between two versions, in a kernel build whose source has the files that `is_own` tells.
    pub fn new(
        changes: &'f BTreeMap<String, Changes>,
        all: impl IntoIterator<Item = Told<'f>>,
        index: &'f Index,
        is_own: &'f (dyn Fn(&str) -> bool + Sync),
    ) -> Self {
        // A record that names no file of this source, under whatever path, leaves the title.
        let is_ours = |path: &String| {
            is_elsewhere(path) || is_own(path) || counterpart(changes, is_own, path).is_some()
        };
        let all: Vec<Told> = all
            .into_iter()
            .map(|told| Told {
                record: told.record.filter(|record| record.files.iter().any(is_ours)),
                ..told
            })
            .collect();
        let table = Table::new(changes, &all);
        let mut units = table.units();
        let titles: Vec<Title> = all.iter().map(|told| table.title(*told)).collect();
        for title in &titles {
            for number in &title.order {
                if let Some(unit) = units.get_mut(*number) {
                    unit.best = unit.best.max(title.fit(*number));
                }
            }
        }
        let mut by_path: HashMap<&str, Vec<usize>> = HashMap::new();
        for (number, unit) in units.iter().enumerate() {
            by_path.entry(unit.path).or_default().push(number);
        }
        let mut finder = Self { changes, index, is_own, units, by_path, titles, at_home: HashMap::new() };
        for (n, title) in finder.titles.iter().enumerate() {
            let homes = match title.told.record {
                Some(record) => finder.differing(record),
                None => finder.files(title).first().map(|(_, path)| *path).into_iter().collect(),
            };
            for path in homes {
                finder.at_home.entry(path).or_default().push(n);
            }
        }
        finder
    }

    /// Where a change is, by its number among all.
    pub fn find(&self, number: usize) -> Found {
        let title = self.titles.get(number);
        match title.map(|title| (title, title.told.record)) {
            Some((title, Some(record))) => self.by_record(title, record),
            Some((title, None)) => self.by_title(title),
            None => Found::Unclear("not one of the changes".to_owned()),
        }
    }

    fn by_record(&self, title: &Title, record: &Record) -> Found {
        let list = |files: &[&str]| files.join(" ");
        let named: Vec<&str> = record.files.iter().map(String::as_str).collect();
        let ours: Vec<&str> = named.iter().copied().filter(|path| !is_elsewhere(path)).collect();
        if ours.is_empty() {
            return Found::NotBuilt(list(&named));
        }
        if let Some(assembly) = ours.iter().find(|path| extension(path) == "S") {
            return Found::NotCode((*assembly).to_owned());
        }
        let differing = self.differing(record);
        if differing.is_empty() {
            return Found::Unclear(format!("nothing differs in {}", list(&named)));
        }
        let built = self.built(record);
        if built.is_empty() {
            return Found::NotBuilt(list(&differing));
        }
        let is_gone = |path: &&&str| self.changes.get(**path).is_some_and(|changes| changes.removed);
        if let Some(gone) = built.iter().find(is_gone) {
            return Found::Unclear(format!("{gone} is not in that version"));
        }
        if let Some(added) = built.iter().find(|path| self.is_added(path)) {
            return Found::Unclear(format!("{added} is new"));
        }
        if let Some(rules) = ours.iter().find(|path| extension(path) != "c" && !is_header(path)) {
            return Found::Unclear(format!("it is in {rules} too"));
        }
        self.in_files(title, &built, How::ByRecord)
    }

    /// The change is in these files, and what differs in them is its.
    fn in_files(&self, title: &Title, paths: &[&str], how: How) -> Found {
        let mut places = Vec::new();
        for path in paths {
            let Some(place) = self.place(title, path) else {
                return Found::Unclear(format!("all that differs in {path} belongs to other changes"));
            };
            places.push(place);
        }
        Found::Here(Candidate { places, how })
    }

    /// The files of a record that differ and are, or may be, in the kernel build. Who includes a header is
    /// not known: it is, unless no C file of the record is.
    pub fn built(&self, record: &Record) -> Vec<&'f str> {
        let (headers, code): (Vec<&str>, Vec<&str>) =
            self.differing(record).into_iter().partition(|path| is_header(path));
        let built: Vec<&str> =
            code.iter().copied().filter(|path| self.is_added(path) || self.is_built(path)).collect();
        if built.is_empty() && !code.is_empty() {
            return Vec::new();
        }
        built.into_iter().chain(headers).collect()
    }

    fn is_added(&self, path: &str) -> bool {
        self.changes.get(path).is_some_and(|changes| changes.added)
    }

    /// The files of a record that differ.
    fn differing(&self, record: &Record) -> Vec<&'f str> {
        let all = record.files.iter();
        all.filter_map(|path| counterpart(self.changes, self.is_own, path)).collect()
    }

    /// What differs in the file `path`; none if all of it clearly belongs to others and no record says
    /// otherwise.
    fn place(&self, title: &Title, path: &str) -> Option<Place> {
        let others = self.at_home.get(path).into_iter().flatten().filter_map(|n| self.titles.get(*n));
        let others: Vec<&Title> = others.filter(|other| other.told.title != title.told.title).collect();
        let is_others = |number: usize| {
            let names = |other: &&Title| other.named.contains(&number);
            let fits = |other: &&Title| other.fit(number) > title.fit(number) * CLEARLY;
            !title.named.contains(&number) && others.iter().any(|other| names(other) || fits(other))
        };
        let functions = self.changed(path);
        let names = |wanted: &dyn Fn(usize) -> bool| -> Vec<String> {
            functions.iter().filter(|(n, _)| wanted(*n)).map(|(_, name)| (*name).to_owned()).collect()
        };
        let best = functions.iter().map(|(n, _)| title.fit(*n)).fold(0.0, f64::max);
        let mut surely = names(&|n| title.named.contains(&n));
        if surely.is_empty() {
            surely = names(&|n| title.fit(n) >= best);
        }
        let mut place = Place {
            path: path.to_owned(),
            of_others: names(&is_others),
            outside_of_others: self.outside(path).is_some_and(is_others),
            functions: names(&|_| true),
            surely,
        };
        if !place.functions.is_empty() && place.of_others.len() == place.functions.len() {
            // A record is right even if its words fit nothing.
            title.told.record?;
            place.of_others.clear();
        }
        Some(place)
    }

    /// The unit of what differs outside of the functions of a file.
    fn outside(&self, path: &str) -> Option<usize> {
        let mut units = self.by_path.get(path)?.iter().copied();
        units.find(|number| self.units.get(*number).is_some_and(|unit| unit.name == OUTSIDE))
    }

    /// The functions of a file that are in both versions and differ, by their units' numbers. Those that are
    /// new in a header, which others may use, too.
    fn changed(&self, path: &str) -> Vec<(usize, &'f str)> {
        let Some(changes) = self.changes.get(path) else { return Vec::new() };
        let is_new = |name: &str| is_header(path) && changes.new.contains_key(name);
        let units = self.by_path.get(path).into_iter().flatten();
        let named = units.filter_map(|number| self.units.get(*number).map(|unit| (*number, unit.name)));
        named.filter(|(_, name)| changes.changed.contains_key(*name) || is_new(name)).collect()
    }

    fn by_title(&self, title: &Title) -> Found {
        let files = self.files(title);
        let Some((score, path)) = files.first() else {
            return Found::Unclear("nothing that differs fits the title".to_owned());
        };
        let next = files.get(1).map_or(0.0, |(score, _)| *score);
        let names_file = Places::of(title.told.title).names(&Path::of(path));
        let (least, clearly) = if names_file { NAMED_FILE } else { (LEAST, CLEARLY) };
        if *score >= least && *score >= next * clearly {
            return self.here(title, path, names_file);
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
        for number in &title.order {
            let fit = title.fit(*number);
            let Some(unit) = self.units.get(*number).filter(|unit| fit >= unit.best * NEARLY) else {
                continue;
            };
            if !files.iter().any(|(_, path)| *path == unit.path) {
                files.push((fit, unit.path));
            }
        }
        files
    }

    /// The change is in the file `path`, as far as its title tells.
    fn here(&self, title: &Title, path: &str, names_file: bool) -> Found {
        if !self.is_built(path) {
            return Found::NotBuilt(path.to_owned());
        }
        if is_header(path) || self.is_added(path) {
            return Found::Unclear(format!("perhaps {path}, and not in it alone"));
        }
        let units = self.by_path.get(path).map_or(&[][..], Vec::as_slice);
        let how = if units.iter().any(|number| title.named.contains(number)) {
            How::ByName
        } else if names_file {
            How::ByFile
        } else {
            // Words alone are wrong too often.
            return Found::Unclear(format!("perhaps {path}"));
        };
        self.in_files(title, &[path], how)
    }

    /// Whether a file that differs is in the kernel build; a header, as far as can be told.
    pub fn is_built(&self, path: &str) -> bool {
        if !is_header(path) {
            let is_there = |changes: &Changes| {
                // Of a function made by a macro the name is not known.
                let is_made = |name: &String| !name.contains(|c: char| c.is_ascii_lowercase());
                self.index.is_built(path, &changes.functions)
                    || (changes.removed
                        && self.index.has_file(path)
                        && (changes.functions.is_empty() || changes.functions.iter().any(is_made)))
            };
            return self.changes.get(path).is_some_and(is_there);
        }
        // A folder's own headers are built with its files.
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let beside = |other: &&&str| {
            !is_header(other) && other.rsplit_once('/').is_some_and(|(other, _)| other == folder)
        };
        path.starts_with("include/")
            || path.starts_with("arch/x86/include/")
            || self.by_path.keys().filter(beside).any(|other| self.is_built(other))
    }
}

/// Which of the files that differ a record means by `path`. One that the kernel's source has elsewhere is known
/// by its last name, if that is of one that differs alone; what the source has where the record says is not
/// looked for.
fn counterpart<'f>(
    changes: &'f BTreeMap<String, Changes>,
    is_own: &(dyn Fn(&str) -> bool + Sync),
    path: &str,
) -> Option<&'f str> {
    if let Some((path, _)) = changes.get_key_value(path) {
        return Some(path.as_str());
    }
    if is_own(path) {
        return None;
    }
    let name = path.rsplit('/').next()?;
    let mut moved = changes.keys().filter(|other| other.rsplit('/').next() == Some(name));
    moved.next().filter(|_| moved.next().is_none()).map(String::as_str)
}

#[cfg(test)]
mod tests;
