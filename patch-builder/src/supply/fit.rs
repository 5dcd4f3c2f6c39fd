//! How well what is said of a change fits what differs between two versions: by words, weighed by how
//! rare they are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::changes::{Changes, words};
use super::near::{Path, Places};
use super::records::Record;
use crate::select::split::identifiers;

/// What is said of a change.
#[derive(Debug, Clone, Copy)]
pub struct Told<'f> {
    /// Its title.
    pub title: &'f str,
    /// Its flaw's record; none for one that closes no flaw, or of whose flaw there is no record.
    pub record: Option<&'f Record>,
}

/// A function that differs, or, under the name [`OUTSIDE`], the rest of a file.
pub(super) struct Unit<'f> {
    pub path: &'f str,
    pub name: &'f str,
    /// How well it is fitted by what fits it best.
    pub best: f64,
}

/// A change, and the units that it fits.
pub(super) struct Title<'f> {
    pub told: Told<'f>,
    /// How well, by the units' numbers: all units of the files of its record, or those that fit best.
    fits: HashMap<usize, f64>,
    /// The units of `fits`, best first.
    pub order: Vec<usize>,
    /// Units whose functions are named.
    pub named: BTreeSet<usize>,
}

impl Title<'_> {
    /// How well it fits a unit; 0 if not at all.
    pub(super) fn fit(&self, unit: usize) -> f64 {
        self.fits.get(&unit).copied().unwrap_or_default()
    }
}

/// What a function's name in a title weighs: more than any words.
const NAMED: f64 = 40.0;
/// What the words of a record weigh, against those of a title: they are many, and tell a story.
const IN_TEXT: f64 = 0.4;
/// What being in a file of the record weighs.
const IN_FILE: f64 = 1.0;
/// The places kept for each title without a record.
const KEPT: usize = 64;
/// The name under which what is outside of all functions of a file competes.
pub(super) const OUTSIDE: &str = "";

/// What says how well something fits a unit.
pub(super) struct Table<'f> {
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
    pub(super) fn new(changes: &'f BTreeMap<String, Changes>, all: &[Told]) -> Self {
        let mut table = Self {
            units: Vec::new(),
            lines: HashMap::new(),
            names: HashMap::new(),
            whole: HashMap::new(),
            paths: Vec::new(),
            spread: HashMap::new(),
            titles: all.len(),
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
        for word in all.iter().flat_map(|told| words(told.title)) {
            *table.spread.entry(word).or_default() += 1;
        }
        table
    }

    /// All units, which nothing fits yet.
    pub(super) fn units(&self) -> Vec<Unit<'f>> {
        self.units.iter().map(|(path, name)| Unit { path, name, best: 0.0 }).collect()
    }

    /// How well a change fits each unit.
    pub(super) fn title(&self, told: Told<'f>) -> Title<'f> {
        match told.record {
            None => self.by_title(told),
            Some(record) => self.by_record(told, record),
        }
    }

    fn by_title(&self, told: Told<'f>) -> Title<'f> {
        let mut fits = HashMap::new();
        self.add_words(&words(told.title), 1.0, &mut fits);
        let named = self.named(told.title);
        for number in &named {
            *fits.entry(*number).or_default() += NAMED;
        }
        let places = Places::of(told.title);
        // What no word fits counts only where the file itself is named.
        let mut nearness: HashMap<&str, f64> = HashMap::new();
        for (path, parts, first) in &self.paths {
            nearness.insert(path, places.near(parts));
            if places.names(parts) {
                for number in self.units_of(path, *first) {
                    fits.entry(number).or_default();
                }
            }
        }
        for (number, fit) in &mut fits {
            let near = self.units.get(*number).and_then(|(path, _)| nearness.get(path));
            *fit += near.copied().unwrap_or_default();
        }
        sorted(told, fits, named, KEPT)
    }

    /// The record says which files; the words only share out what differs in them.
    fn by_record(&self, told: Told<'f>, record: &Record) -> Title<'f> {
        let (said, text) = (words(told.title), words(&record.text));
        let mut fits = HashMap::new();
        self.add_words(&said, 1.0, &mut fits);
        self.add_words(&text.difference(&said).cloned().collect(), IN_TEXT, &mut fits);
        let in_title = self.named(told.title);
        for number in &in_title {
            *fits.entry(*number).or_default() += NAMED;
        }
        for number in self.named(&record.text).difference(&in_title) {
            *fits.entry(*number).or_default() += NAMED * IN_TEXT;
        }
        let mut own = HashMap::new();
        for (path, _, first) in self.paths.iter().filter(|(path, ..)| record.files.contains(*path)) {
            for number in self.units_of(path, *first) {
                own.insert(number, IN_FILE + fits.get(&number).copied().unwrap_or_default());
            }
        }
        let named = in_title.into_iter().filter(|number| own.contains_key(number)).collect();
        sorted(told, own, named, usize::MAX)
    }

    /// The units of the file `path`, whose first is `first`.
    fn units_of(&self, path: &str, first: usize) -> impl Iterator<Item = usize> {
        let units = self.units.iter().enumerate().skip(first);
        units.take_while(move |(_, (of, _))| *of == path).map(|(number, _)| number)
    }

    fn add_words(&self, said: &BTreeSet<String>, share: f64, fits: &mut HashMap<usize, f64>) {
        for (part, of_it) in [(&self.lines, 1.0), (&self.names, 0.8)] {
            for word in said {
                let Some(units) = part.get(word) else { continue };
                let weight = self.weight(word, units.len()) * of_it * share;
                for number in units {
                    *fits.entry(*number).or_default() += weight;
                }
            }
        }
    }

    /// The units whose functions a text names.
    fn named(&self, text: &str) -> BTreeSet<usize> {
        let called = |name: &str| text.contains(&format!("{name}()"));
        // A word without an underscore may be just a word.
        let is_name = |name: &&str| name.contains('_') || called(name);
        identifiers(text).filter(is_name).filter_map(|name| self.whole.get(name)).flatten().copied().collect()
    }

    /// The rarer a word, in what differs and in titles, the more it says.
    fn weight(&self, word: &str, spread: usize) -> f64 {
        let count = |n: usize| f64::from(u32::try_from(n.max(1)).unwrap_or(u32::MAX));
        let titles = self.spread.get(word).copied().unwrap_or_default();
        let rare = 1.0 - count(titles).ln() / count(self.titles + 1).ln();
        (count(self.units.len()) / count(spread)).ln() * rare
    }
}

/// Of what fits, the best, in order.
fn sorted(told: Told<'_>, mut fits: HashMap<usize, f64>, named: BTreeSet<usize>, kept: usize) -> Title<'_> {
    fits.retain(|_, fit| *fit > 0.0);
    let mut order: Vec<(f64, usize)> = fits.iter().map(|(number, fit)| (*fit, *number)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    order.truncate(kept);
    let order: Vec<usize> = order.into_iter().map(|(_, number)| number).collect();
    let is_kept: BTreeSet<usize> = order.iter().copied().collect();
    fits.retain(|number, _| is_kept.contains(number));
    Title { told, fits, order, named }
}
