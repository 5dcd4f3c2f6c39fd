//! What differs between two versions of a source tree, function by function.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::select::split::{self, Part, identifiers};
use crate::tree;
use crate::unpack::is_elsewhere;

/// What differs in one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Functions that are in both and differ: the words of the lines that differ.
    pub changed: BTreeMap<String, BTreeSet<String>>,
    /// Functions that only the newer version has: their words.
    pub new: BTreeMap<String, BTreeSet<String>>,
    /// The words of everything else that differs: declarations, data, macros.
    pub other: BTreeSet<String>,
    /// All functions of the newer version; of a file that it does not have, the kernel's own.
    pub functions: BTreeSet<String>,
    /// The older version does not have the file.
    pub added: bool,
    /// The newer version does not have the file.
    pub removed: bool,
}

/// Two versions of a source, kept as what differs in them from the kernel's own.
#[derive(Debug, Clone, Copy)]
pub struct Versions<'v> {
    /// The kernel's own source.
    pub own: &'v Path,
    /// The files of the older version that are not the kernel's own; none if the older is that.
    pub older: Option<&'v Path>,
    /// The files of the newer version that are not the kernel's own.
    pub newer: &'v Path,
}

impl Versions<'_> {
    /// The C files and headers that differ or are new, by their paths; of other machines' only ours.
    ///
    /// # Errors
    ///
    /// A file or a folder cannot be read.
    pub fn changes(&self) -> io::Result<BTreeMap<String, Changes>> {
        let mut paths = BTreeSet::new();
        for tree in self.older.into_iter().chain([self.newer]) {
            collect(tree, &mut paths)?;
        }
        // What is not kept of a version is as in the kernel's own source, or is gone.
        let gone = |tree: Option<&Path>| tree.map_or_else(|| Ok(BTreeSet::new()), tree::gone);
        let (gone_before, gone) = (gone(self.older)?, gone(Some(self.newer))?);
        paths.extend(gone.difference(&gone_before).cloned());
        let mut all = BTreeMap::new();
        for path in paths {
            if gone.contains(&path) {
                let text = fs::read_to_string(self.own.join(&path)).unwrap_or_default();
                let removed = Changes { removed: true, ..of_file(&text, &text) };
                all.insert(path.to_string_lossy().into_owned(), removed);
                continue;
            }
            let older = self.older.map(|tree| tree.join(&path)).filter(|file| file.is_file());
            let newer = Some(self.newer.join(&path)).filter(|file| file.is_file());
            let own = || self.own.join(&path);
            let (older, newer) = (older.unwrap_or_else(own), newer.unwrap_or_else(own));
            if !newer.is_file() {
                continue;
            }
            if gone_before.contains(&path) || !older.is_file() {
                let added = Changes { added: true, ..Changes::default() };
                all.insert(path.to_string_lossy().into_owned(), added);
                continue;
            }
            let (before, after) = (fs::read(older)?, fs::read(newer)?);
            if before == after {
                continue;
            }
            let (Ok(before), Ok(after)) = (String::from_utf8(before), String::from_utf8(after)) else {
                continue;
            };
            all.insert(path.to_string_lossy().into_owned(), of_file(&before, &after));
        }
        Ok(all)
    }
}

/// The C files and headers below `tree`, by their paths in it.
///
/// # Errors
///
/// A folder cannot be read.
pub fn files(tree: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut paths = BTreeSet::new();
    collect(tree, &mut paths)?;
    Ok(paths)
}

fn collect(tree: &Path, paths: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(tree.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                if !is_elsewhere(&path.to_string_lossy()) {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "c" || extension == "h") {
                paths.insert(path);
            }
        }
    }
    Ok(())
}

/// What differs between two texts of a file. What is not in the kernel's style differs as a whole.
pub fn of_file(before: &str, after: &str) -> Changes {
    let (Ok(old), Ok(new)) = (split::parts(before), split::parts(after)) else {
        return Changes { other: differing(before, after), ..Changes::default() };
    };
    let functions = |parts: &[Part]| -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for part in parts {
            if let Some(name) = part.function() {
                all.entry(name.to_owned())
                    .and_modify(|t: &mut String| t.push_str(part.text))
                    .or_insert(part.text.to_owned());
            }
        }
        all
    };
    let (ours, theirs) = (functions(&old), functions(&new));
    let rest = |parts: &[Part]| -> String {
        let kept = parts.iter().filter(|p| p.function().is_none() && p.piece != split::Piece::Comment);
        kept.map(|p| p.text).collect()
    };
    let mut changes = Changes {
        other: differing(&rest(&old), &rest(&new)),
        functions: theirs.keys().cloned().collect(),
        ..Changes::default()
    };
    for (name, text) in theirs {
        match ours.get(&name) {
            None => {
                let words = words(&text);
                changes.new.insert(name, words);
            }
            Some(other) if *other != text => {
                let words = differing(other, &text);
                changes.changed.insert(name, words);
            }
            Some(_) => {}
        }
    }
    changes
}

/// The words of the lines that only one of two texts has.
fn differing(before: &str, after: &str) -> BTreeSet<String> {
    let lines = |text: &'_ str| text.lines().map(|l| l.trim().to_owned()).collect::<BTreeSet<_>>();
    let (old, new) = (lines(before), lines(after));
    old.symmetric_difference(&new).flat_map(|line| words(line)).collect()
}

/// The words of a text, as titles and code have them in common: names, and their parts.
pub fn words(text: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for name in identifiers(text) {
        let name = name.to_lowercase();
        let is_word = |part: &&str| part.len() > 2 && !part.starts_with(|c: char| c.is_ascii_digit());
        words.extend(name.split('_').filter(is_word).map(str::to_owned));
        if name.len() > 2 {
            words.insert(name);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "#define A 1\nint f(int n)\n{\n\treturn n;\n}\nint g(void)\n{\n\treturn 0;\n}\n";
    const AFTER: &str = "#define A 1\nint h(void)\n{\n\treturn 1;\n}\nint f(int n)\n{\n\treturn limit(n);\n}\nint g(void)\n{\n\treturn 0;\n}\n";

    #[test]
    fn what_differs_is_told_function_by_function() {
        let found = of_file(BEFORE, AFTER);
        assert_eq!(found.changed.keys().collect::<Vec<_>>(), ["f"]);
        assert!(found.changed["f"].contains("limit"));
        assert_eq!(found.new.keys().collect::<Vec<_>>(), ["h"]);
        assert!(found.other.is_empty());
        assert!(of_file(BEFORE, &AFTER.replace("#define A 1", "#define LIMIT 2")).other.contains("limit"));
    }

    #[test]
    fn a_file_that_is_not_kept_of_a_version_is_the_kernels_own() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("own/a.c", BEFORE);
        put("own/b.c", BEFORE);
        put("one/a.c", AFTER);
        put("two/a.c", AFTER);
        put("two/b.c", AFTER);
        put("two/only.c", AFTER);
        put("own/went.c", BEFORE);
        put("one/gone", "");
        put("two/gone", "went.c\n");
        let at = |name: &str| root.path().join(name);
        let (own, one, two) = (at("own"), at("one"), at("two"));
        let found = |older, newer| {
            let changes = Versions { own: &own, older, newer }.changes().unwrap();
            let told = |(path, changes): (String, Changes)| (changes.removed, path);
            changes.into_iter().map(told).collect::<Vec<_>>()
        };
        let there = |path: &str| (false, path.to_owned());
        assert_eq!(found(None, one.as_path()), [there("a.c")]);
        let all = [there("b.c"), there("only.c"), (true, "went.c".to_owned())];
        assert_eq!(found(Some(one.as_path()), &two), all);
    }
}
