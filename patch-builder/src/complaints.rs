//! What the compiler complains of, by its own words: where, and what is missing there.

use std::collections::BTreeSet;

/// The first line that says what is wrong.
pub(crate) fn first_error(words: &str) -> &str {
    words.lines().find(|line| line.contains("error")).or_else(|| words.lines().next()).unwrap_or_default()
}

/// The compiler names a function before what it has to say of its body; of a function that a header
/// declares with other arguments it says so.
pub(crate) fn functions_with_errors(words: &str) -> Vec<String> {
    let quoted = |text: &str| text.split_once('\'').map(|(name, _)| name.to_owned());
    let mut functions = Vec::new();
    let mut body = None;
    for line in words.lines() {
        if let Some((_, rest)) = line.split_once(": In function '") {
            body = quoted(rest);
        } else if line.ends_with(": At top level:") {
            body = None;
        } else if let Some((_, error)) = line.split_once(": error: ") {
            match error.strip_prefix("conflicting types for '") {
                Some(rest) => functions.extend(quoted(rest)),
                None => functions.extend(body.clone()),
            }
        }
    }
    functions.sort_unstable();
    functions.dedup();
    functions
}

/// The names of which the compiler says that nothing declares them.
pub(crate) fn undeclared(words: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for line in words.lines() {
        let Some((_, error)) = line.split_once(": error: ") else { continue };
        let name = match error.split_once("implicit declaration of function '") {
            Some((_, rest)) => rest.split_once('\'').map(|(name, _)| name),
            None => error.strip_prefix('\'').and_then(|rest| rest.split_once("' undeclared")).map(|(n, _)| n),
        };
        names.extend(name.map(str::to_owned));
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// The functions of which the compiler says that they are called with, or declared to have, other arguments.
pub(crate) fn reshaped(words: &str) -> Vec<String> {
    let says =
        [" arguments to function '", " of '", "conflicting types for '", "incompatible type for argument "];
    let errors = words.lines().filter_map(|line| line.split_once(": error: ")).map(|(_, error)| error);
    let about = ["too few ", "too many ", "passing argument ", "conflicting types ", "incompatible type "];
    let errors = errors.filter(|error| about.iter().any(|start| error.starts_with(start)));
    let name = |error: &str| {
        let rest = says.iter().find_map(|words| error.split_once(words)).map(|(_, rest)| rest)?;
        let rest = rest.split_once(" of '").map_or(rest, |(_, rest)| rest);
        rest.split_once('\'').map(|(name, _)| name.to_owned())
    };
    let names: BTreeSet<String> = errors.filter_map(name).collect();
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_that_do_not_compile_are_named() {
        let words = "a.c: In function 'one':\na.c:3:9: warning: unused\na.c: In function 'two':\n\
            a.c:7:3: error: 'struct s' has no member named 'x'\na.c:8:3: error: 'y' undeclared\n\
            a.c: At top level:\na.c:9:1: error: conflicting types for 'three'; have 'int(void)'\na.c:9:2: error: odd\n";
        assert_eq!(functions_with_errors(words), ["three", "two"]);
        let more = "a.c:2:9: error: implicit declaration of function 'f'; did you mean 'g'? [-Werror]\n";
        let calls = "a.c:2:1: error: too few arguments to function 'one'\na.c:3:1: error: passing argument 1 of 'two' from \
            incompatible pointer type\na.c:4:1: error: incompatible type for argument 2 of 'four'\n";
        assert_eq!(reshaped(&format!("{words}{calls}")), ["four", "one", "three", "two"]);
        assert_eq!(undeclared(&format!("{words}{more}")), ["f", "y"]);
        assert_eq!(first_error(words), "a.c:7:3: error: 'struct s' has no member named 'x'");
    }
}
