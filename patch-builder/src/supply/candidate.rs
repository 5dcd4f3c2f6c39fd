//! Which function of which file a change is in, by its title alone: distributions ship two trees and
//! a list of titles, and no commits.
//!
//! Two ways are known: a title that names a function that differs in exactly one file that is built;
//! and a title whose words, weighed by how rare they are, fit the lines that differ in one function
//! clearly better than in any other. Everything else needs a person.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::changes::Changes;
use super::index::Index;
use crate::select::split::identifiers;

/// How a candidate was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum How {
    /// The title names the function.
    ByName,
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
    /// A person must look.
    Unclear(String),
}

/// All that differs, ready for titles.
pub struct Finder<'f> {
    changes: &'f BTreeMap<String, Changes>,
    index: &'f Index,
    /// By a word: in how many functions its lines differ.
    spread: HashMap<&'f str, usize>,
    functions: usize,
}

/// How much better the best must be than the next.
const CLEARLY: f64 = 1.3;
/// The least that a fitting function must reach: two rare words, or one and its folder.
const LEAST: f64 = 8.0;

impl<'f> Finder<'f> {
    /// For what differs between two trees, in a kernel build.
    pub fn new(changes: &'f BTreeMap<String, Changes>, index: &'f Index) -> Self {
        let mut spread: HashMap<&str, usize> = HashMap::new();
        let mut functions = 0;
        for words in changes.values().flat_map(|c| c.changed.values()) {
            functions += 1;
            for word in words {
                *spread.entry(word).or_default() += 1;
            }
        }
        Self { changes, index, spread, functions }
    }

    /// Where the change with this title is.
    pub fn find(&self, title: &str) -> Found {
        let words: BTreeSet<&str> = identifiers(title).collect();
        self.by_name(&words).unwrap_or_else(|| self.by_words(title, &words))
    }

    fn by_name(&self, words: &BTreeSet<&str>) -> Option<Found> {
        let mut named: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (path, changes) in self.changes {
            for name in changes.changed.keys() {
                // A word without an underscore may be just a word.
                if name.contains('_') && words.contains(name.as_str()) {
                    named.entry(path).or_default().push(name);
                }
            }
        }
        if named.is_empty() {
            return None;
        }
        let built: Vec<_> = named.iter().filter(|(path, names)| self.is_built(path, names)).collect();
        match built.as_slice() {
            [] => Some(Found::NotBuilt(named.keys().copied().collect::<Vec<_>>().join(" "))),
            [(path, names)] => Some(Found::Here(Candidate {
                path: (**path).to_owned(),
                functions: names.iter().map(|n| (*n).to_owned()).collect(),
                how: How::ByName,
            })),
            several => {
                let paths: Vec<_> = several.iter().map(|(path, _)| **path).collect();
                Some(Found::Unclear(paths.join(" ")))
            }
        }
    }

    fn is_built(&self, path: &str, functions: &[&str]) -> bool {
        functions.iter().any(|name| self.index.has(path, name)) || self.index.has_file(path)
    }

    fn by_words(&self, title: &str, words: &BTreeSet<&str>) -> Found {
        let (prefix, _) = title.rsplit_once(": ").unwrap_or(("", title));
        let places: BTreeSet<String> =
            identifiers(prefix).map(|word| word.to_lowercase().replace('-', "_")).collect();
        let mut best: Vec<(f64, &str, &str)> = Vec::new();
        for (path, changes) in self.changes {
            let parts: BTreeSet<String> = path
                .trim_end_matches(".c")
                .split('/')
                .map(|part| part.to_lowercase().replace('-', "_"))
                .collect();
            let place = places.intersection(&parts).count() as f64 * 4.0;
            if place == 0.0 && !places.is_empty() && !places.iter().any(|p| path.contains(p.as_str())) {
                continue;
            }
            for (name, differing) in &changes.changed {
                let in_name: f64 = identifiers_of(name)
                    .filter(|part| words.contains(part) && part.len() > 3)
                    .map(|_| 1.5)
                    .sum();
                let in_lines: f64 = words
                    .iter()
                    .filter(|word| differing.contains(**word))
                    .map(|word| self.weight(word))
                    .sum();
                let score = place + in_name + in_lines;
                if in_name + in_lines > 0.0 {
                    best.push((score, path, name));
                }
            }
        }
        best.sort_by(|a, b| b.0.total_cmp(&a.0));
        match best.as_slice() {
            [] => Found::Unclear("no function fits the title".to_owned()),
            [(score, path, name), rest @ ..] => {
                let next = rest.first().map_or(0.0, |(score, ..)| *score);
                if *score < LEAST || *score < next * CLEARLY {
                    return Found::Unclear(format!("perhaps {path}: {name}"));
                }
                if !self.is_built(path, &[name]) {
                    return Found::NotBuilt((*path).to_owned());
                }
                Found::Here(Candidate {
                    path: (*path).to_owned(),
                    functions: vec![(*name).to_owned()],
                    how: How::ByWords,
                })
            }
        }
    }

    /// The rarer a word, the more it says.
    fn weight(&self, word: &str) -> f64 {
        let spread = self.spread.get(word).copied().unwrap_or(1).max(1);
        (self.functions as f64 / spread as f64).ln().max(0.0)
    }
}

fn identifiers_of(name: &str) -> impl Iterator<Item = &str> {
    name.split('_').filter(|part| !part.is_empty())
}
