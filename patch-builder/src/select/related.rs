//! What a function of a fixed file needs that also differs there: where the functions of a fix alone do
//! not compile, they were changed together with their macros, types and callers.

use std::collections::BTreeSet;

use super::split::{self, Part, Piece, identifiers};

/// `functions` of the file that was `original` and is now `fixed`, with functions that changed together
/// with them, and the texts of other pieces that changed and that they name. As given if a file is not
/// in the kernel's style.
pub fn related(original: &str, fixed: &str, functions: &[String]) -> (Vec<String>, Vec<String>) {
    let (Ok(old), Ok(new)) = (split::parts(original), split::parts(fixed)) else {
        return (functions.to_vec(), Vec::new());
    };
    let changed: Vec<&Part> = new.iter().filter(|part| differs(&old, part)).collect();
    let mut taken: BTreeSet<usize> = (0..changed.len())
        .filter(|n| {
            let name = changed.get(*n).and_then(|part| part.function());
            name.is_some_and(|name| functions.iter().any(|f| f == name))
        })
        .collect();
    loop {
        let chosen: Vec<&Part> = taken.iter().filter_map(|n| changed.get(*n)).copied().collect();
        let words: BTreeSet<&str> = chosen.iter().flat_map(|part| identifiers(part.text)).collect();
        // Whoever uses what has another form now must be taken along.
        let reshaped: BTreeSet<&str> =
            chosen.iter().filter(|part| is_reshaped(&old, part)).flat_map(|part| part.defines()).collect();
        let more: Vec<usize> = changed
            .iter()
            .enumerate()
            .filter(|(n, part)| {
                !taken.contains(n)
                    && ((is_reshaped(&old, part) && part.defines().any(|name| words.contains(name)))
                        || (part.function().is_some()
                            && identifiers(part.text).any(|word| reshaped.contains(word))))
            })
            .map(|(n, _)| n)
            .collect();
        if more.is_empty() {
            break;
        }
        taken.extend(more);
    }
    let (mut names, mut also) = (functions.to_vec(), Vec::new());
    for part in taken.iter().filter_map(|n| changed.get(*n)) {
        match part.function() {
            Some(name) if !names.iter().any(|n| n == name) => names.push(name.to_owned()),
            Some(_) => {}
            None => also.push(part.text.to_owned()),
        }
    }
    (names, also)
}

/// What differs outside of functions: pieces of the fixed file that the original does not have as they
/// are.
pub fn outside(original: &str, fixed: &str) -> Vec<String> {
    let (Ok(old), Ok(new)) = (split::parts(original), split::parts(fixed)) else { return Vec::new() };
    let is_other = |part: &&Part| {
        part.piece != Piece::Comment && part.function().is_none() && !old.iter().any(|o| o.text == part.text)
    };
    new.iter().filter(is_other).map(|part| part.text.to_owned()).collect()
}

/// The functions that only the fixed file has, and that other files can call.
pub fn new_functions(original: &str, fixed: &str) -> Vec<String> {
    let (Ok(old), Ok(new)) = (split::parts(original), split::parts(fixed)) else { return Vec::new() };
    let is_known = |name: &str| old.iter().any(|part| part.function() == Some(name));
    let is_open = |part: &&Part| match &part.piece {
        Piece::Function(function) => {
            // One that a macro makes has no name that is seen here.
            let is_named = function.name.contains(|c: char| c.is_ascii_lowercase());
            is_named && !is_known(function.name) && !identifiers(function.head()).any(|word| word == "static")
        }
        _ => false,
    };
    new.iter().filter(is_open).filter_map(Part::function).map(str::to_owned).collect()
}

/// The names of all functions of a file.
pub fn functions(text: &str) -> BTreeSet<String> {
    let parts = split::parts(text).unwrap_or_default();
    parts.iter().filter_map(Part::function).map(str::to_owned).collect()
}

/// Whether a function of the file names `function`.
pub fn is_called(text: &str, function: &str) -> bool {
    let parts = split::parts(text).unwrap_or_default();
    let mut bodies = parts.iter().filter_map(|part| match &part.piece {
        Piece::Function(other) if other.name != function => Some(other.body()),
        _ => None,
    });
    bodies.any(|body| identifiers(body).any(|word| word == function))
}

/// What the fixed file has no longer, or not as often, outside of functions: it stays where it is. By its
/// name, or by its first line if it has none.
pub fn removed(original: &str, fixed: &str) -> Vec<String> {
    let (Ok(old), Ok(new)) = (split::parts(original), split::parts(fixed)) else { return Vec::new() };
    let often = |parts: &[Part], text: &str| parts.iter().filter(|part| part.text == text).count();
    let defined: BTreeSet<&str> = new.iter().flat_map(Part::defines).collect();
    let mut gone = BTreeSet::new();
    for part in old.iter().filter(|part| part.function().is_none() && part.piece != Piece::Comment) {
        if often(&new, part.text) >= often(&old, part.text) {
            continue;
        }
        let names: Vec<&str> = part.defines().collect();
        let first = part.text.lines().next().unwrap_or_default().trim();
        if names.is_empty() {
            gone.insert(first.to_owned());
        }
        gone.extend(names.into_iter().filter(|name| !defined.contains(name)).map(str::to_owned));
    }
    gone.into_iter().collect()
}

/// The macros that stand for another text in the fixed file.
pub fn redefined(original: &str, fixed: &str) -> Vec<String> {
    let (Ok(old), Ok(new)) = (split::parts(original), split::parts(fixed)) else { return Vec::new() };
    let is_macro = |part: &&Part| matches!(part.piece, Piece::Preprocessor { .. });
    let changed = new.iter().filter(is_macro).filter(|part| differs(&old, part));
    changed.flat_map(Part::defines).map(str::to_owned).collect()
}

/// Functions of both files that are among `names`, or whose fixed text names one of them or a new
/// function that does.
pub fn in_need_of(original: &str, fixed: &str, names: &[String]) -> Vec<String> {
    let (Ok(old), Ok(new)) = (split::parts(original), split::parts(fixed)) else {
        return names.to_vec();
    };
    let is_old = |name: &str| old.iter().any(|part| part.function() == Some(name));
    let mut needed: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    loop {
        let needs = |part: &&Part| {
            part.function().is_some_and(|name| !needed.contains(name))
                // What a function of both files is to its callers did not change.
                && identifiers(part.text).any(|word| needed.contains(word) && !is_old(word))
        };
        let more: Vec<&str> = new.iter().filter(needs).filter_map(Part::function).collect();
        if more.is_empty() {
            break;
        }
        needed.extend(more);
    }
    needed.into_iter().filter(|name| is_old(name)).map(str::to_owned).collect()
}

/// Whether the original file has something of this name and kind, with another text.
fn differs(old: &[Part], part: &Part) -> bool {
    if part.piece == Piece::Comment || old.iter().any(|o| o.text == part.text) {
        return false;
    }
    old.iter().any(|o| o.stands_for(part))
}

/// Whether others see that it changed: everything but the body of a function.
fn is_reshaped(old: &[Part], part: &Part) -> bool {
    match &part.piece {
        Piece::Function(function) => {
            let heads = old.iter().filter_map(|o| match &o.piece {
                Piece::Function(other) if other.name == function.name => Some(other.head()),
                _ => None,
            });
            !heads.into_iter().any(|head| head.split_whitespace().eq(function.head().split_whitespace()))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "#define LIMIT 1\nstatic int low(int n)\n{\n\treturn n;\n}\nint high(void)\n{\n\treturn low(1);\n}\nint other(void)\n{\n\treturn low(2);\n}\nint far(void)\n{\n\treturn 0;\n}\n";
    const NEW: &str = "#define LIMIT 2\nstatic int low(int n, int m)\n{\n\treturn n < LIMIT;\n}\nint high(void)\n{\n\treturn low(1, 3);\n}\nint other(void)\n{\n\treturn low(2, 4);\n}\nint far(void)\n{\n\treturn 1;\n}\n";

    fn of(function: &str) -> (Vec<String>, Vec<String>) {
        related(OLD, NEW, &[function.to_owned()])
    }

    #[test]
    fn callers_of_a_function_with_other_arguments_and_macros_that_changed_come_along() {
        let (functions, also) = of("high");
        assert_eq!(functions, ["high", "low", "other"]);
        assert_eq!(also, ["#define LIMIT 2\n"]);
    }

    #[test]
    fn who_calls_a_new_function_needs_what_it_needs() {
        let new = format!("static int news(void)\n{{\n\treturn 1;\n}}\nstatic int more(void)\n{{\n\treturn news();\n}}\n{OLD}")
            .replace("return 0;", "return more();");
        let need = |name: &str| in_need_of(OLD, &new, &[name.to_owned()]);
        assert_eq!(need("news"), ["far"]);
        assert_eq!(need("low"), ["low"], "its callers need it as it was");
    }

    #[test]
    fn what_differs_outside_of_functions_is_taken_as_it_is_and_macros_are_told() {
        let new = format!("static const int table[] = {{ 1 }};\n{NEW}");
        assert_eq!(outside(OLD, &new), ["static const int table[] = { 1 };\n", "#define LIMIT 2\n"]);
        assert_eq!(redefined(OLD, &new), ["LIMIT"]);
        assert!(outside(OLD, OLD).is_empty() && redefined(OLD, OLD).is_empty());
        assert_eq!(removed(&new, NEW), ["table"]);
        assert!(removed(OLD, NEW).is_empty());
    }

    #[test]
    fn what_is_gone_is_told_also_if_it_has_no_name_and_not_if_it_is_only_elsewhere() {
        let old = format!(
            "int far(void);\n#ifdef CONFIG_X\nint x;\n#endif\n{OLD}#ifdef CONFIG_X\nint y;\n#endif\ncore_initcall(far);\n"
        );
        let new = format!("int x;\n{OLD}#ifdef CONFIG_X\nint y;\n#endif\n");
        assert_eq!(removed(&old, &new), ["#endif", "#ifdef CONFIG_X", "core_initcall(far);"]);
    }

    #[test]
    fn new_functions_that_others_can_call_are_told_and_who_calls_them() {
        let new =
            format!("int fresh(void)\n{{\n\treturn 1;\n}}\nstatic int own(void)\n{{\n\treturn 1;\n}}\n{OLD}");
        assert_eq!(new_functions(OLD, &new), ["fresh"]);
        let prototype = "int fresh(void);\n";
        assert!(!is_called(prototype, "fresh") && !is_called(&new, "fresh"));
        assert!(is_called(&OLD.replace("return 0;", "return fresh();"), "fresh"));
    }

    #[test]
    fn what_has_nothing_to_do_with_it_stays() {
        assert_eq!(of("far"), (vec!["far".to_owned()], Vec::new()));
    }
}
