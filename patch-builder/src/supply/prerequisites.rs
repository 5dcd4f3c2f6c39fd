//! What a fix does not compile without, in files that are not its own: a neighbour's change of the same step gave
//! a function other arguments, or declared what the fix's lines use.

use std::collections::{BTreeMap, BTreeSet};

use super::changes::Changes;
use crate::recipe::{extension, is_header};
use crate::select::{self, split};

/// What of one file is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needed {
    pub path: String,
    /// Functions that have other arguments, and those that call them.
    pub functions: Vec<String>,
    /// Prototypes, by their texts.
    pub pieces: Vec<String>,
    /// All that differs in it: no half of a neighbour's change is taken, and what says what a value means goes with the types that hold it, which [`Layout`] has
    /// to see.
    ///
    /// [`Layout`]: crate::refusal::Gate::Layout
    pub is_whole: bool,
}

/// What the compiler does not find or finds otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wanted<'w> {
    /// Names that nothing declares.
    pub missing: &'w [String],
    /// Functions that are called with arguments that they do not have.
    pub reshaped: &'w [String],
}

/// Where the step's `changes` have what is `wanted`. `texts` has a file as it is in the kernel's own source and
/// after the step.
pub(super) fn needed(
    changes: &BTreeMap<String, Changes>,
    wanted: &Wanted,
    is_built: impl Fn(&str, &Changes) -> bool,
    texts: impl Fn(&str) -> Option<[String; 2]>,
) -> Vec<Needed> {
    let there = || changes.iter().filter(|(_, changes)| !changes.added && !changes.removed);
    let code = || there().filter(|(path, changes)| extension(path) == "c" && is_built(path, changes));
    // Nothing else may have been of this name, or what calls it would go on to that.
    let is_new = |name: &str| {
        let is_open = |path: &str| {
            let [own, newer] = texts(path)?;
            Some(select::new_functions(&own, &newer).iter().any(|new| new == name))
        };
        let has = |(path, changes): (&String, &Changes)| {
            changes.new.contains_key(name) && is_open(path).unwrap_or_default()
        };
        code().any(has) && !there().any(|(_, changes)| changes.changed.contains_key(name))
    };
    let (headers, declared) = headers(there().filter(|(path, _)| is_header(path)), wanted, is_new, &texts);
    // Functions that a header declares with other arguments: their own file, and whoever calls them.
    let reshaped: BTreeSet<&str> =
        wanted.reshaped.iter().map(String::as_str).filter(|name| declared.contains(*name)).collect();
    let words: BTreeSet<String> = reshaped.iter().map(|name| name.to_lowercase()).collect();
    let mut all = headers;
    for (path, changes) in code() {
        let may = |(name, lines): (&String, &BTreeSet<String>)| {
            reshaped.contains(name.as_str()) || !lines.is_disjoint(&words)
        };
        let fresh: Vec<String> = changes
            .new
            .keys()
            .filter(|name| wanted.missing.contains(name) && declared.contains(*name))
            .cloned()
            .collect();
        if !fresh.is_empty() {
            let functions = changes.changed.keys().cloned().chain(fresh).collect();
            all.push(Needed { path: path.clone(), functions, pieces: Vec::new(), is_whole: true });
            continue;
        }
        if !changes.changed.iter().any(may) {
            continue;
        }
        let Some([_, newer]) = texts(path) else { continue };
        let parts = split::parts(&newer).unwrap_or_default();
        let is_it = |part: &split::Part| {
            let is_changed = part.function().is_some_and(|name| changes.changed.contains_key(name));
            is_changed && split::identifiers(part.text).any(|word| reshaped.contains(word))
        };
        if parts.iter().any(is_it) {
            let functions = changes.changed.keys().cloned().collect();
            all.push(Needed { path: path.clone(), functions, pieces: Vec::new(), is_whole: true });
        }
    }
    all
}

/// What of the `changed` headers is wanted, and the names that they bring.
fn headers<'c>(
    changed: impl Iterator<Item = (&'c String, &'c Changes)>,
    wanted: &Wanted,
    is_new: impl Fn(&str) -> bool,
    texts: impl Fn(&str) -> Option<[String; 2]>,
) -> (Vec<Needed>, BTreeSet<String>) {
    let names: BTreeSet<&str> = wanted.missing.iter().chain(wanted.reshaped).map(String::as_str).collect();
    let words: BTreeSet<String> = names.iter().map(|name| name.to_lowercase()).collect();
    let (mut all, mut declared) = (Vec::new(), BTreeSet::new());
    for (path, changes) in changed {
        let own = || changes.changed.keys().chain(changes.new.keys());
        let functions: Vec<String> = own().filter(|name| names.contains(name.as_str())).cloned().collect();
        let mut needed = Needed { path: path.clone(), functions, pieces: Vec::new(), is_whole: false };
        if !changes.other.is_disjoint(&words)
            && let Some([old, newer]) = texts(path)
        {
            let found = declaring(&old, &newer, &names);
            // Whether the kernel has such a function, and of which form, is not looked at: a new one comes along.
            let is_other =
                |name: &&str| wanted.reshaped.iter().any(|reshaped| reshaped == name) || is_new(name);
            needed.pieces = found
                .prototypes
                .iter()
                .filter(|(name, _)| is_other(name))
                .map(|(_, text)| (*text).to_owned())
                .collect();
            declared.extend(
                found.prototypes.iter().map(|(name, _)| *name).filter(|n| is_other(n)).map(str::to_owned),
            );
            needed.is_whole = found.is_more;
        }
        if needed.is_whole {
            needed.functions = own().cloned().collect();
        }
        declared.extend(needed.functions.iter().cloned());
        if !needed.functions.is_empty() || !needed.pieces.is_empty() || needed.is_whole {
            all.push(needed);
        }
    }
    (all, declared)
}

/// What of a header brings names.
#[derive(Default)]
struct Declaring<'t> {
    /// Prototypes that are new or others, by their names.
    prototypes: Vec<(&'t str, &'t str)>,
    /// There is something else as well that is no function.
    is_more: bool,
}

/// What is new or other in `newer`, and brings one of `names`.
fn declaring<'t>(own: &str, newer: &'t str, names: &BTreeSet<&str>) -> Declaring<'t> {
    let (Ok(old), Ok(new)) = (split::parts(own), split::parts(newer)) else { return Declaring::default() };
    let brings = |part: &&split::Part| {
        part.function().is_none()
            && !old.iter().any(|other| other.text == part.text)
            && part.defines().any(|name| names.contains(name))
    };
    let mut found = Declaring::default();
    for part in new.iter().filter(brings) {
        match part.piece {
            split::Piece::Prototype { name, .. } => found.prototypes.push((name, part.text)),
            _ => found.is_more = true,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supply::changes;

    const HEADER: [&str; 2] =
        ["int low(int n);\nint far(void);\n", "int low(int n, int m);\nint far(long n);\n#define ODD 1\n"];
    const CODE: [&str; 2] = [
        "int low(int n)\n{\n\treturn n;\n}\nint high(void)\n{\n\treturn low(1);\n}\nint other(void)\n{\n\treturn 1;\n}\n",
        "int low(int n, int m)\n{\n\treturn n + m;\n}\nint high(void)\n{\n\treturn low(1, 2);\n}\nint other(void)\n{\n\treturn 2;\n}\n",
    ];

    fn of(
        missing: &[&str],
        reshaped: &[&str],
        with_header: bool,
    ) -> Vec<(String, Vec<String>, Vec<String>, bool)> {
        let mut all = BTreeMap::from([("net/low.c".to_owned(), changes::of_file(CODE[0], CODE[1]))]);
        if with_header {
            all.insert("net/low.h".to_owned(), changes::of_file(HEADER[0], HEADER[1]));
        }
        let [missing, reshaped] =
            [missing, reshaped].map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let wanted = Wanted { missing: &missing, reshaped: &reshaped };
        let texts = |path: &str| Some((if is_header(path) { HEADER } else { CODE }).map(str::to_owned));
        needed(&all, &wanted, |_, _| true, texts)
            .into_iter()
            .map(|n| (n.path, n.functions, n.pieces, n.is_whole))
            .collect()
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_function_with_other_arguments_comes_with_its_declaration_and_its_callers() {
        let found = of(&[], &["low"], true);
        let code = ("net/low.c".to_owned(), texts(&["high", "low", "other"]), Vec::new(), true);
        let header = ("net/low.h".to_owned(), Vec::new(), texts(&["int low(int n, int m);\n"]), false);
        assert_eq!(found, [header, code]);
        assert!(of(&[], &["low"], false).is_empty(), "nobody else can call it otherwise");
        assert!(of(&["low"], &[], true).is_empty(), "whether the kernel has it so is not known");
    }

    #[test]
    fn a_value_comes_with_all_that_changed_in_its_header() {
        let header = ("net/low.h".to_owned(), Vec::new(), Vec::new(), true);
        assert_eq!(of(&["ODD"], &[], true), [header]);
        assert!(of(&["NONE"], &["none"], true).is_empty());
    }
}
