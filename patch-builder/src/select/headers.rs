//! Small functions and macros of a newer header that a fix uses and the original headers do not have. Put
//! into the fixed file they change nothing for any other.

use std::collections::BTreeMap;

use super::split::{self, Part, Piece};

/// The functions and macros of a header that are the same in every configuration, by their names: what is
/// defined under a condition, the header's own guard aside, may be the stub of another kernel. None of a
/// header that is not in the kernel's style.
pub fn pieces(header: &str) -> BTreeMap<&str, &str> {
    let parts = split::parts(header).unwrap_or_default();
    let is_guard = |word: &str| {
        let named = format!("#define {word}");
        !word.is_empty() && parts.iter().any(|part| part.text.trim() == named)
    };
    let mut guarded = false;
    let mut depth = 0_usize;
    let mut found: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for part in &parts {
        match directive(part) {
            Some(("ifndef", word)) if depth == 0 && !guarded && is_guard(word) => guarded = true,
            Some(("if" | "ifdef" | "ifndef", _)) => depth += 1,
            // The last one closes the guard.
            Some(("endif", _)) => depth = depth.saturating_sub(1),
            _ => {
                let is_code = matches!(part.piece, Piece::Function(_) | Piece::Preprocessor { .. });
                for name in part.defines().take(1) {
                    let text = Some(part.text).filter(|_| is_code && depth == 0);
                    // Twice, in whatever form, is not the same for all.
                    found.entry(name).and_modify(|found| *found = None).or_insert(text);
                }
            }
        }
    }
    found.into_iter().filter_map(|(name, text)| Some((name, text?))).collect()
}

/// What a line for the preprocessor begins with, and its first word.
fn directive<'a>(part: &Part<'a>) -> Option<(&'a str, &'a str)> {
    let rest = part.text.trim_start().strip_prefix('#')?;
    let mut words = rest.split_whitespace();
    Some((words.next()?, words.next().unwrap_or_default()))
}

/// `fixed` with `piece` behind what it includes at its beginning, and so before what was put there earlier.
pub fn put_in(fixed: &str, piece: &str) -> String {
    let parts = split::parts(fixed).unwrap_or_default();
    let head = parts.iter().take_while(|part| part.function().is_none());
    let mut place = 0;
    let mut at = 0;
    for part in head {
        at += part.text.len();
        if part.text.trim_start().starts_with("#include") {
            place = at;
        }
    }
    let (before, after) = fixed.split_at_checked(place).unwrap_or(("", fixed));
    [before, piece, after].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_header_has_for_some_configurations_only_is_left_out() {
        let header = "#ifndef H\n#define H\n#ifdef CONFIG_A\nvoid real(int n);\nstatic inline void both(void)\n{\n}\n#else\n\
            static inline void real(int n)\n{\n}\n#define both() do { } while (0)\n#endif\n\
            #define LIMIT 1\nint twice(int n);\n#define twice twice\n#endif\n";
        assert_eq!(pieces(header).keys().copied().collect::<Vec<_>>(), ["H", "LIMIT"]);
    }

    #[test]
    fn pieces_of_a_header_go_behind_what_is_included() {
        let header = "#ifndef H\n#define H\n#define LIMIT(n) \\\n\t((n) + 1)\nstruct a;\nstatic inline int twice(int n)\n{\n\treturn 2 * n;\n}\n#endif\n";
        let found = pieces(header);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), ["H", "LIMIT", "twice"]);
        let fixed = "#include <a.h>\n#include <b.h>\n\nint f(void)\n{\n\treturn twice(LIMIT(1));\n}\n#include \"c.c\"\n";
        let text = put_in(&put_in(fixed, found["twice"]), found["LIMIT"]);
        assert_eq!(text.matches("static inline int twice").count(), 1);
        assert!(text.starts_with("#include <a.h>\n#include <b.h>\n#define LIMIT"), "{text}");
    }
}
