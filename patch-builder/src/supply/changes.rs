//! What differs between two versions of a source tree, function by function.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::select::split::{self, Part, identifiers};

/// What differs in one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Functions that are in both and differ: the words of the lines that differ.
    pub changed: BTreeMap<String, BTreeSet<String>>,
    /// Functions that only the newer version has.
    pub new: BTreeSet<String>,
    /// Whether anything else differs: declarations, data, macros.
    pub other: bool,
}

/// The C files below `old` that differ in `new`, by their paths; of other machines only ours.
///
/// # Errors
///
/// A file or a folder cannot be read.
pub fn between(old: &Path, new: &Path) -> io::Result<BTreeMap<String, Changes>> {
    let mut all = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(new.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                if !is_elsewhere(&path) {
                    open.push(path);
                }
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "c") {
                continue;
            }
            let Ok(before) = fs::read(old.join(&path)) else { continue };
            let after = fs::read(new.join(&path))?;
            if before == after {
                continue;
            }
            let (Ok(before), Ok(after)) = (String::from_utf8(before), String::from_utf8(after)) else {
                continue;
            };
            all.insert(path.to_string_lossy().into_owned(), of_file(&before, &after));
        }
    }
    Ok(all)
}

/// Folders of which nothing becomes part of our kernels.
fn is_elsewhere(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let ours = ["arch/x86"];
    ["tools", "samples", "scripts", "Documentation", "debian"].contains(&text.as_ref())
        || (text.starts_with("arch/") && !ours.iter().any(|ours| text.starts_with(ours)))
}

/// What differs between two texts of a file. What is not in the kernel's style differs as a whole.
pub fn of_file(before: &str, after: &str) -> Changes {
    let (Ok(old), Ok(new)) = (split::parts(before), split::parts(after)) else {
        return Changes { other: true, ..Changes::default() };
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
    let rest = |parts: &[Part]| -> Vec<String> {
        let kept = parts.iter().filter(|p| p.function().is_none() && p.piece != split::Piece::Comment);
        kept.map(|p| p.text.to_owned()).collect()
    };
    let mut changes = Changes { other: rest(&old) != rest(&new), ..Changes::default() };
    for (name, text) in &theirs {
        match ours.get(name) {
            None => {
                changes.new.insert(name.clone());
            }
            Some(other) if other != text => {
                changes.changed.insert(name.clone(), words(other, text));
            }
            Some(_) => {}
        }
    }
    changes
}

/// The identifiers of the lines that only one of two texts has.
fn words(before: &str, after: &str) -> BTreeSet<String> {
    let lines = |text: &'_ str| text.lines().map(|l| l.trim().to_owned()).collect::<BTreeSet<_>>();
    let (old, new) = (lines(before), lines(after));
    old.symmetric_difference(&new)
        .flat_map(|line| identifiers(line).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_told_function_by_function() {
        let before = "#define A 1\nint f(int n)\n{\n\treturn n;\n}\nint g(void)\n{\n\treturn 0;\n}\n";
        let after = "#define A 1\nint h(void)\n{\n\treturn 1;\n}\nint f(int n)\n{\n\treturn limit(n);\n}\nint g(void)\n{\n\treturn 0;\n}\n";
        let found = of_file(before, after);
        assert_eq!(found.changed.keys().collect::<Vec<_>>(), ["f"]);
        assert!(found.changed["f"].contains("limit"));
        assert_eq!(found.new.iter().collect::<Vec<_>>(), ["h"]);
        assert!(!found.other);
        assert!(of_file(before, &after.replace("A 1", "A 2")).other);
    }
}
