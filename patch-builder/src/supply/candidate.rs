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
/// The least that words must weigh where the title names the file, or only its folder.
const LEAST: [f64; 2] = [3.0, 8.0];

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
            [(path, functions)] => Some(Found::Here(Candidate {
                path: (**path).to_owned(),
                functions: functions.iter().map(|n| (*n).to_owned()).collect(),
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
        let places: Vec<String> =
            prefix.split([':', '/', ',', ' ']).filter(|w| !w.is_empty()).map(plain).collect();
        let nearest = self.changes.keys().map(|path| near(path, &places)).max().unwrap_or_default();
        if nearest == Near::Nowhere {
            return Found::Unclear("no file fits the title".to_owned());
        }
        let there: Vec<_> = self.changes.iter().filter(|(path, _)| near(path, &places) == nearest).collect();
        let built: Vec<_> = there.iter().filter(|(path, _)| self.index.has_file(path)).collect();
        if built.is_empty() {
            let paths: Vec<_> = there.iter().map(|(path, _)| path.as_str()).take(3).collect();
            return Found::NotBuilt(paths.join(" "));
        }
        let mut best: Vec<(f64, &str, &str)> = Vec::new();
        for (path, changes) in &built {
            for (name, differing) in &changes.changed {
                let in_name: f64 =
                    name.split('_').filter(|p| p.len() > 3 && words.contains(p)).map(|_| 1.5).sum();
                let in_lines: f64 = words
                    .iter()
                    .filter(|word| differing.contains(**word))
                    .map(|word| self.weight(word))
                    .sum();
                best.push((in_name + in_lines, path, name));
            }
        }
        best.sort_by(|a, b| b.0.total_cmp(&a.0));
        let here = |path: &str, name: &str| {
            Found::Here(Candidate {
                path: path.to_owned(),
                functions: vec![name.to_owned()],
                how: How::ByWords,
            })
        };
        match best.as_slice() {
            [] => Found::Unclear("no function of the file differs".to_owned()),
            // The title names the file, and only this function of it differs.
            [(_, path, name)] if nearest == Near::File => here(path, name),
            [(score, path, name), rest @ ..] => {
                let next = rest.first().map_or(0.0, |(score, ..)| *score);
                let least = if nearest == Near::Folder { LEAST[1] } else { LEAST[0] };
                if *score < least || *score < next * CLEARLY {
                    return Found::Unclear(format!("perhaps {path}: {name}"));
                }
                here(path, name)
            }
        }
    }

    /// The rarer a word, the more it says.
    fn weight(&self, word: &str) -> f64 {
        let spread = self.spread.get(word).copied().unwrap_or(1).max(1);
        let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        (count(self.functions) / count(spread)).ln().max(0.0)
    }
}

/// How near a file is to what the beginning of a title names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Near {
    #[default]
    Nowhere,
    /// One of its folders is named.
    Folder,
    /// Part of its name is named.
    Part,
    /// It is named.
    File,
}

/// Of the places that a title begins with, the last is the narrowest: only that can name a file.
fn near(path: &str, places: &[String]) -> Near {
    let path = plain(path.trim_end_matches(".c"));
    let (folders, stem) = path.rsplit_once('/').unwrap_or(("", &path));
    let is_folder = |name: &str| folders.split('/').any(|folder| folder == name);
    let last = places.last().map_or("", String::as_str);
    if last == stem && !is_folder(stem) {
        Near::File
    } else if last.len() > 3 && stem.split('_').any(|part| part == last) {
        Near::Part
    } else if places.iter().any(|place| is_folder(place)) {
        Near::Folder
    } else {
        Near::Nowhere
    }
}

/// A name as titles and files have it in common.
fn plain(name: impl AsRef<str>) -> String {
    name.as_ref().to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Functions<'a> = &'a [(&'a str, &'a [&'a str])];

    fn changes(list: &[(&str, Functions)]) -> BTreeMap<String, Changes> {
        let of = |functions: Functions| Changes {
            changed: functions
                .iter()
                .map(|(name, words)| ((*name).to_owned(), words.iter().map(|w| (*w).to_owned()).collect()))
                .collect(),
            ..Changes::default()
        };
        list.iter().map(|(path, functions)| ((*path).to_owned(), of(functions))).collect()
    }

    fn found(title: &str) -> Found {
        let changes = changes(&[
            ("net/unix/af_unix.c", &[("unix_ioctl", &["SIOCATMARK", "err"]), ("unix_bind", &["err"])]),
            ("block/blk-iocost.c", &[("ioc_pd_free", &["iocg"])]),
            ("drivers/gpu/drm/panel/panel-edp.c", &[("panel_edp_probe", &["err"])]),
            ("net/ipv4/ip_options.c", &[("ip_options_get", &["IPOPT_SSRR", "ns_capable"])]),
            ("net/ipv4/tcp.c", &[("tcp_close", &["sk"])]),
        ]);
        let index = Index::sample(&[
            ("af_unix.c", &["unix_ioctl", "unix_bind"]),
            ("blk-iocost.c", &["ioc_pd_free"]),
            ("ip_options.c", &["ip_options_get"]),
            ("tcp.c", &["tcp_close"]),
        ]);
        Finder::new(&changes, &index).find(title)
    }

    fn here(title: &str) -> (String, How) {
        match found(title) {
            Found::Here(candidate) => (candidate.functions.join(" "), candidate.how),
            other => panic!("{title}: {other:?}"),
        }
    }

    #[test]
    fn a_title_that_names_a_function_is_where_it_is() {
        assert_eq!(here("af_unix: fix leak in unix_bind()"), ("unix_bind".to_owned(), How::ByName));
    }

    #[test]
    fn a_title_that_names_a_file_in_which_one_function_differs_is_there() {
        assert_eq!(here("blk-iocost: clear delay state"), ("ioc_pd_free".to_owned(), How::ByWords));
    }

    #[test]
    fn rare_words_decide_between_functions() {
        let title = "af_unix: Reject SIOCATMARK on non-stream sockets";
        // Five functions differ: a word of one of them weighs ln 6.
        assert!(matches!(found(title), Found::Unclear(why) if why.contains("unix_ioctl")));
    }

    #[test]
    fn a_file_that_is_not_built_does_not_affect_and_an_unknown_one_needs_a_person() {
        assert!(matches!(found("drm/panel-edp: fix i2c adapter leak"), Found::NotBuilt(_)));
        assert!(matches!(found("what: is this"), Found::Unclear(_)));
    }
}
