//! What one step from a version to the next changed, put on the kernel's own text of a file. Of what came
//! before that step nothing is taken, as if its changes had been picked one by one.

use std::collections::BTreeSet;

use super::patch;
use super::split::{self, Part, Piece};

/// A file after a step, without what came before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebased {
    /// Its text.
    pub text: String,
    /// Functions that changed in the step and before it, so that the step's change does not fit the
    /// kernel's own: they are as after the step.
    pub entangled: BTreeSet<String>,
}

/// The step from `older` to `newer`, on the kernel's `own` text; none if one of them is not in the kernel's
/// style.
pub fn rebase(own: &str, older: &str, newer: &str) -> Option<Rebased> {
    let (own, before, after) =
        (split::parts(own).ok()?, split::parts(older).ok()?, split::parts(newer).ok()?);
    let mut text = String::new();
    let mut entangled = BTreeSet::new();
    for part in &after {
        match part.function() {
            Some(name) => {
                let put = function(name, &own, &before, part);
                text.push_str(put.as_deref().unwrap_or(part.text));
                if put.is_none() {
                    entangled.insert(name.to_owned());
                }
            }
            None => text.push_str(other(&own, &before, part)),
        }
    }
    // What the step did not remove is there, wherever it is.
    let is_kept = |part: &&Part| {
        part.function().is_none()
            && part.piece != Piece::Comment
            && !before.iter().any(|other| other.text == part.text || other.stands_for(part))
            && !after.iter().any(|other| other.text == part.text || other.stands_for(part))
    };
    text.extend(own.iter().filter(is_kept).map(|part| part.text));
    Some(Rebased { text, entangled })
}

/// The function `name` of the newer file; none if what the step changed in it does not fit the kernel's own.
fn function(name: &str, own: &[Part], before: &[Part], after: &Part) -> Option<String> {
    let one = |parts: &[Part]| {
        let mut all = parts.iter().filter(|part| part.function() == Some(name));
        let first = all.next().map(|part| part.text.to_owned());
        (first, all.next().is_some())
    };
    let ((own, several), (before, more)) = (one(own), one(before));
    match (own, before) {
        // New, in this step or before.
        (None, _) => Some(after.text.to_owned()),
        // One that is defined once for each of several configurations.
        (Some(own), _) if several || more => (own == after.text).then_some(own),
        (Some(own), Some(before)) if before == after.text || own == before => {
            Some(if before == after.text { own } else { after.text.to_owned() })
        }
        (Some(own), Some(before)) => {
            let text = unified("file.c", &before, after.text);
            patch::parse(&text).ok()?.first()?.apply(&own).ok()
        }
        (Some(own), None) => (own == after.text).then_some(own),
    }
}

/// Anything else of the newer file.
fn other<'t>(own: &[Part<'t>], before: &[Part<'t>], after: &Part<'t>) -> &'t str {
    if !before.iter().any(|part| part.text == after.text) {
        return after.text;
    }
    let is_there = own.iter().any(|part| part.text == after.text);
    let stand_in = own.iter().find(|part| part.stands_for(after)).filter(|_| !is_there);
    stand_in.map_or(after.text, |part| part.text)
}

/// The difference between two texts of the file `path`, as a patch file has it.
pub fn unified(path: &str, before: &str, after: &str) -> String {
    let mut options = diffy::DiffOptions::new();
    options.set_original_filename(format!("a/{path}")).set_modified_filename(format!("b/{path}"));
    options.create_patch(before, after).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, lines: &[&str]) -> String {
        format!("int {name}(void)\n{{\n\t{};\n}}\n", lines.join(";\n\t"))
    }

    const LINES: [&str; 9] = ["a()", "b()", "c()", "d()", "e()", "f()", "g()", "h()", "i()"];

    fn with(changes: &[(usize, &'static str)]) -> String {
        let mut lines = LINES;
        for (n, line) in changes {
            lines[*n] = line;
        }
        function("one", &lines)
    }

    #[test]
    fn of_a_function_that_changed_twice_only_the_last_change_is_taken() {
        let (own, older, newer) = (with(&[]), with(&[(0, "x()")]), with(&[(0, "x()"), (8, "y()")]));
        let found = rebase(&own, &older, &newer).unwrap();
        assert_eq!(found.text, with(&[(8, "y()")]));
        assert!(found.entangled.is_empty());
    }

    #[test]
    fn what_changed_twice_in_one_place_is_entangled_and_as_after_both() {
        let (own, older, newer) = (with(&[]), with(&[(0, "x()")]), with(&[(0, "x()"), (1, "y()")]));
        let found = rebase(&own, &older, &newer).unwrap();
        assert_eq!(found.text, newer);
        assert_eq!(found.entangled.iter().map(String::as_str).collect::<Vec<_>>(), ["one"]);
    }

    #[test]
    fn functions_and_macros_that_the_step_left_alone_are_the_kernels_own() {
        let own = format!("#define A 1\n#define KEPT 1\n{}{}", with(&[]), function("two", &["p()"]));
        let older = format!("#define A 2\n{}{}", with(&[(0, "x()")]), function("two", &["q()"]));
        let newer = format!("{older}#define B 1\n{}", function("new", &["r()"]));
        let found = rebase(&own, &older, &newer).unwrap();
        let wanted = format!(
            "#define A 1\n{}{}#define B 1\n{}#define KEPT 1\n",
            with(&[]),
            function("two", &["p()"]),
            function("new", &["r()"])
        );
        assert_eq!(found, Rebased { text: wanted, entangled: BTreeSet::new() });
    }

    #[test]
    fn a_difference_is_a_patch_that_makes_one_of_the_other() {
        let (before, after) = (with(&[]), with(&[(3, "z()")]));
        let text = unified("net/x.c", &before, &after);
        let patches = patch::parse(&text).unwrap();
        assert_eq!(patches[0].path, "net/x.c");
        assert_eq!(patches[0].apply(&before).unwrap(), after);
    }
}
