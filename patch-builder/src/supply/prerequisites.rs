//! What a fix does not compile without, in files that are not its own: a neighbour's change of the same step gave
//! a function other arguments, or declared what the fix's lines use.

use std::collections::{BTreeMap, BTreeSet};

use super::changes::Changes;
use crate::recipe::{extension, is_header};
use crate::select::split;

/// What of one file is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needed {
    pub path: String,
    /// Functions that have other arguments, and those that call them.
    pub functions: Vec<String>,
    /// Prototypes, by their texts.
    pub pieces: Vec<String>,
    /// All that differs in it: what says what a value means goes with the types that hold it, which [`Layout`] has
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
    texts: impl Fn(&str) -> Option<[String; 2]>,
) -> Vec<Needed> {
    let names: BTreeSet<&str> = wanted.missing.iter().chain(wanted.reshaped).map(String::as_str).collect();
    let calls: BTreeSet<String> = wanted.reshaped.iter().map(|name| name.to_lowercase()).collect();
    let words: BTreeSet<String> = names.iter().map(|name| name.to_lowercase()).collect();
    let mut all = Vec::new();
    for (path, changes) in changes.iter().filter(|(_, changes)| !changes.added && !changes.removed) {
        let mut needed =
            Needed { path: path.clone(), functions: Vec::new(), pieces: Vec::new(), is_whole: false };
        if is_header(path) {
            let own = || changes.changed.keys().chain(changes.new.keys());
            needed.functions = own().filter(|name| names.contains(name.as_str())).cloned().collect();
            if !changes.other.is_disjoint(&words)
                && let Some([old, newer]) = texts(path)
            {
                (needed.pieces, needed.is_whole) = declaring(&old, &newer, &names);
            }
            if needed.is_whole {
                needed.functions = own().cloned().collect();
            }
        } else if extension(path) == "c" {
            let is_wanted = |name: &str, lines: &BTreeSet<String>| {
                wanted.reshaped.iter().any(|wanted| wanted == name) || !lines.is_disjoint(&calls)
            };
            let functions = changes.changed.iter().filter(|(name, lines)| is_wanted(name, lines));
            needed.functions = functions.map(|(name, _)| name.clone()).collect();
        }
        if !needed.functions.is_empty() || !needed.pieces.is_empty() || needed.is_whole {
            all.push(needed);
        }
    }
    // What no header says otherwise is a file's own.
    let is_declared = |name: &str| {
        let of = |needed: &Needed| {
            is_header(&needed.path)
                && (needed.is_whole
                    || needed.functions.iter().any(|own| own == name)
                    || needed.pieces.iter().any(|piece| split::identifiers(piece).any(|word| word == name)))
        };
        all.iter().any(of)
    };
    if names.iter().any(|name| is_declared(name)) { all } else { Vec::new() }
}

/// The prototypes that are new or others in `newer`, and bring one of `names`; and whether anything else does that is
/// no function.
fn declaring(own: &str, newer: &str, names: &BTreeSet<&str>) -> (Vec<String>, bool) {
    let (Ok(old), Ok(new)) = (split::parts(own), split::parts(newer)) else { return (Vec::new(), false) };
    let brings = |part: &&split::Part| {
        part.function().is_none()
            && !old.iter().any(|other| other.text == part.text)
            && part.defines().any(|name| names.contains(name))
    };
    let is_prototype = |part: &&split::Part| matches!(part.piece, split::Piece::Prototype { .. });
    let (prototypes, others): (Vec<_>, Vec<_>) = new.iter().filter(brings).partition(is_prototype);
    (prototypes.into_iter().map(|part| part.text.to_owned()).collect(), !others.is_empty())
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
        needed(&all, &wanted, texts)
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
        let code = ("net/low.c".to_owned(), texts(&["high", "low"]), Vec::new(), false);
        let header = ("net/low.h".to_owned(), Vec::new(), texts(&["int low(int n, int m);\n"]), false);
        assert_eq!(found, [code, header]);
        assert!(of(&[], &["low"], false).is_empty(), "nobody else can call it otherwise");
    }

    #[test]
    fn a_value_comes_with_all_that_changed_in_its_header() {
        let header = ("net/low.h".to_owned(), Vec::new(), Vec::new(), true);
        assert_eq!(of(&["ODD"], &[], true), [header]);
        assert!(of(&["NONE"], &["none"], true).is_empty());
    }
}
