//! Small functions and macros of a newer header that a fix uses and the original headers do not have. Put
//! into the fixed file they change nothing for any other.

use std::collections::BTreeMap;

use super::split::{self, Part, Piece};

/// The functions and macros of a header, by their names; none of one that is not in the kernel's style.
pub fn pieces(header: &str) -> BTreeMap<&str, &str> {
    let parts = split::parts(header).unwrap_or_default();
    let is_code = |part: &&Part| matches!(part.piece, Piece::Function(_) | Piece::Preprocessor { .. });
    let named = parts.iter().filter(is_code).filter_map(|part| Some((part.defines().next()?, part.text)));
    named.collect()
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
    fn pieces_of_a_header_go_behind_what_is_included() {
        let header = "#ifndef H\n#define LIMIT(n) \\\n\t((n) + 1)\nstruct a;\nstatic inline int twice(int n)\n{\n\treturn 2 * n;\n}\n#endif\n";
        let found = pieces(header);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), ["LIMIT", "twice"]);
        let fixed = "#include <a.h>\n#include <b.h>\n\nint f(void)\n{\n\treturn twice(LIMIT(1));\n}\n#include \"c.c\"\n";
        let text = put_in(&put_in(fixed, found["twice"]), found["LIMIT"]);
        assert_eq!(text.matches("static inline int twice").count(), 1);
        assert!(text.starts_with("#include <a.h>\n#include <b.h>\n#define LIMIT"), "{text}");
    }
}
