//! What of a change's files is tried: their forms, and how much of them.

use super::candidate::Place;
use super::headers::Headers;
use super::prerequisites::Needed;
use super::{Todo, changes};
use crate::part::Edit;
use crate::recipe::{FromHeader, SourceFile, is_header};
use crate::refusal::Refusal;
use crate::select::rebase::rebase;
use crate::select::{self, Keys, Wish};
use crate::users::Change;

/// Where a file differs from the kernel's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Differs {
    /// In nothing but comments and blanks.
    Nowhere,
    /// In what it declares: no code is another for that.
    Declared,
    /// In code, or in what code is made of.
    InCode,
}

/// Where a header differs. One that cannot be taken apart differs in code.
pub(super) fn of_header(path: &str, own: &str, fixed: &str) -> Differs {
    match Change::of(path, own, fixed) {
        _ if own == fixed => Differs::Nowhere,
        Ok(change) if change.is_none() => Differs::Nowhere,
        Ok(change) if change.is_declared_only() => Differs::Declared,
        Ok(_) | Err(_) => Differs::InCode,
    }
}

/// One file, and what of it is tried.
pub(super) struct Work {
    pub(super) place: Place,
    /// It is no file of the fix: only what that needs of it is tried.
    pub(super) is_beside: bool,
    pub(super) texts: Texts,
    pub(super) what: What,
}

impl Work {
    /// Whether one of these functions is in it.
    pub(super) fn has(&self, functions: &[String]) -> bool {
        let all = changes::of_file(&self.texts.own, &self.texts.fixed).functions;
        functions.iter().any(|name| all.contains(name))
    }

    /// What is wanted of it.
    pub(super) fn edit<'e>(&'e self, todo: Todo<'e>, file: &'e SourceFile) -> Edit<'e> {
        let version = Some(todo.step.package.version.as_str());
        let wish = Wish::of(&todo.change.title, &self.texts.fixed, version, file);
        Edit { path: &file.path, wishes: vec![wish] }
    }

    /// Less than it is tried with: without the functions `within` that do not compile, and what needs them.
    /// If no function is to blame, it is what is outside of functions.
    pub(super) fn without_foreign(&self, within: &[String]) -> What {
        let Self { place, texts: Texts { own, fixed, .. }, what, .. } = self;
        let is_sure = |name: &String| place.surely.contains(name);
        let foreign = select::in_need_of(own, fixed, within);
        let mut less = what.without(place, |name| foreign.contains(name) && !is_sure(name));
        loop {
            // What would bring one of them back belongs to them.
            let brings = |name: &String| {
                let (with, _) = select::related(own, fixed, std::slice::from_ref(name));
                with.iter().any(|other| less.left.contains(other))
            };
            let even_less = less.without(place, |name| !is_sure(name) && brings(name));
            if even_less == less {
                break;
            }
            less = even_less;
        }
        let outside = !within.is_empty() || is_header(&place.path);
        What { outside: what.outside && outside, ..less }
    }

    /// The kernel's own text, and with `file` of the fixed one.
    ///
    /// # Errors
    ///
    /// It does not have that.
    pub(super) fn taken(&self, todo: Todo, file: &SourceFile) -> Result<[String; 2], Refusal> {
        let own = &self.texts.own;
        let text = select::compose(&file.path, own, &self.edit(todo, file).wishes, Keys::AsWritten)?;
        // Which line the compiler counts as which matters to nobody else.
        let counts = |line: &&str| line.starts_with("#line ");
        let text = text.split_inclusive('\n').filter(|line| !counts(line)).collect();
        Ok([own.clone(), text])
    }

    /// As much of it as is tried: with what that names and what changed together with it, or the whole file.
    pub(super) fn file(&self, whole: bool) -> SourceFile {
        let Texts { own, fixed, brought, .. } = &self.texts;
        let (functions, mut also) =
            select::related(own, fixed, &self.texts.with_earlier(&self.what.functions, &self.what.left));
        if self.what.outside {
            also.extend(self.texts.outside());
        }
        also.extend(self.what.pieces.iter().cloned());
        // What differs in a header is often outside of functions alone.
        let is_plain = !is_header(&self.place.path) && !self.texts.is_rebased;
        let whole = whole || (functions.is_empty() && is_plain);
        SourceFile {
            path: self.place.path.clone(),
            compiled_in: Vec::new(),
            functions,
            also: if whole { Vec::new() } else { also },
            headers: brought.clone(),
            whole,
        }
    }
}

/// What of the file is tried.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct What {
    pub(super) functions: Vec<String>,
    /// What differs outside of functions as well, and not only what they name of it.
    pub(super) outside: bool,
    /// Pieces outside of functions that are taken in any case, by their texts.
    pub(super) pieces: Vec<String>,
    /// What is left out.
    pub(super) left: Vec<String>,
}

impl What {
    pub(super) fn all(place: &Place) -> Self {
        Self { functions: place.functions.clone(), outside: true, pieces: Vec::new(), left: Vec::new() }
    }

    /// Takes more; whether that was not taken anyway.
    pub(super) fn add(&mut self, needed: Needed) -> bool {
        let before = (self.functions.len(), self.pieces.len(), self.outside);
        self.outside |= needed.is_whole;
        self.functions.extend(needed.functions);
        self.functions.sort_unstable();
        self.functions.dedup();
        for piece in needed.pieces {
            if !self.outside && !self.pieces.contains(&piece) {
                self.pieces.push(piece);
            }
        }
        before != (self.functions.len(), self.pieces.len(), self.outside)
    }

    pub(super) fn without(&self, place: &Place, is_left: impl Fn(&String) -> bool) -> Self {
        let is_left = |name: &String| self.left.contains(name) || is_left(name);
        let (left, functions) = place.functions.iter().cloned().partition(is_left);
        Self { functions, left, ..self.clone() }
    }

    /// What is left out, for people; of a file `beside` those of the fix what it had and has no longer.
    pub(super) fn told(&self, texts: &Texts, is_beside: bool) -> Vec<String> {
        let outside = !is_beside && !self.outside && !texts.outside().is_empty();
        let outside = outside.then(|| "what is outside of functions".to_owned());
        let removed = select::removed(&texts.own, &texts.fixed);
        let removed = removed.into_iter().map(|name| format!("the removal of {name}"));
        self.left.iter().cloned().chain(outside).chain(removed).collect()
    }

    pub(super) fn without_others(&self, place: &Place) -> Self {
        let less = self.without(place, |name| place.of_others.contains(name));
        Self { outside: self.outside && !place.outside_of_others, ..less }
    }
}

/// The forms of one file.
pub(super) struct Texts {
    /// The kernel's own.
    pub(super) own: String,
    /// At the beginning of the step.
    pub(super) older: String,
    /// At its end.
    pub(super) fixed: String,
    /// What was put into that from headers.
    pub(super) brought: Vec<FromHeader>,
    /// The fixed one is no version's: it has nothing of what came before the step, or of other commits.
    pub(super) is_rebased: bool,
}

impl Texts {
    /// Those of a file of which `functions` change in a step: without what came before it, if their change
    /// fits the kernel's own.
    pub(super) fn of([own, older, newer]: [String; 3], functions: &[String]) -> Self {
        let rebased = rebase(&own, &older, &newer)
            .filter(|rebased| own != older && !functions.iter().any(|name| rebased.entangled.contains(name)));
        let is_rebased = rebased.is_some();
        let fixed = rebased.map_or(newer, |rebased| rebased.text);
        Self { own, older, fixed, brought: Vec::new(), is_rebased }
    }

    /// Those of a file that a commit changes.
    pub(super) fn of_commit(own: String, fixed: String) -> Self {
        Self { older: own.clone(), own, fixed, brought: Vec::new(), is_rebased: true }
    }

    /// The functions of both that differ.
    pub(super) fn changed(&self) -> impl Iterator<Item = String> {
        changes::of_file(&self.own, &self.fixed).changed.into_keys()
    }

    /// Whether a function is another than the kernel's own, or new.
    pub(super) fn differs(&self, function: &str) -> bool {
        let changes = changes::of_file(&self.own, &self.fixed);
        changes.changed.contains_key(function) || changes.new.contains_key(function)
    }

    /// What differs outside of functions, and is of the step if that can be told.
    fn outside(&self) -> Vec<String> {
        if self.is_rebased {
            // A piece that came before is there only for those that name it.
            let before = select::outside(&self.own, &self.older);
            let all = select::outside(&self.own, &self.fixed);
            return all.into_iter().filter(|piece| !before.contains(piece)).collect();
        }
        select::outside(&self.own, &self.fixed)
    }

    /// Puts what is missing into the fixed file, as far as a newer header has it; whether that was
    /// anything.
    pub(super) fn bring(&mut self, headers: &Headers, missing: &[String]) -> bool {
        let is_there = |name: &str| self.brought.iter().any(|header| header.names.iter().any(|n| n == name));
        let wanted: Vec<&String> = missing.iter().filter(|name| !is_there(name)).collect();
        let found: Vec<_> = wanted.into_iter().filter_map(|name| Some((name, headers.find(name)?))).collect();
        for (name, (path, text)) in &found {
            self.fixed = select::headers::put_in(&self.fixed, text);
            // In this order: what was asked for later may be what the earlier needs.
            if let Some(header) = self.brought.last_mut().filter(|header| header.path == *path) {
                header.names.push((*name).clone());
            } else {
                let names = vec![(*name).clone()];
                self.brought.push(FromHeader { path: (*path).to_owned(), names });
            }
        }
        !found.is_empty()
    }

    /// `functions`, and all others that differ from the kernel's own but those in `left`, if one of
    /// `functions` has changed before the step as well: its earlier change may need theirs.
    pub(super) fn with_earlier(&self, functions: &[String], left: &[String]) -> Vec<String> {
        if self.is_rebased {
            return functions.to_vec();
        }
        let earlier = changes::of_file(&self.own, &self.older).changed;
        if !functions.iter().any(|name| earlier.contains_key(name)) {
            return functions.to_vec();
        }
        let all = changes::of_file(&self.own, &self.fixed).changed;
        all.into_keys().filter(|name| !left.contains(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_brings_a_function_back_that_does_not_compile_is_left_out_with_it() {
        let own = "int low(int n)\n{\n\treturn n;\n}\nint high(void)\n{\n\treturn low(1);\n}\nint fix(void)\n{\n\treturn 0;\n}\n";
        let fixed = own.replace("low(int n)", "low(int n, int m)").replace("low(1)", "low(1, odd)");
        let fixed = fixed.replace("return 0", "return 1");
        let functions = ["low", "high", "fix"].map(str::to_owned).to_vec();
        let place = Place {
            path: "net/a.c".to_owned(),
            functions: functions.clone(),
            of_others: Vec::new(),
            outside_of_others: false,
            surely: vec!["fix".to_owned()],
        };
        let texts = Texts::of([own.to_owned(), own.to_owned(), fixed], &functions);
        let work = Work { what: What::all(&place), place, texts, is_beside: false };
        let less = work.without_foreign(&["high".to_owned()]);
        assert_eq!(
            (less.functions, less.left),
            (vec!["fix".to_owned()], vec!["low".to_owned(), "high".to_owned()])
        );
    }

    #[test]
    fn of_several_steps_only_the_last_is_taken_unless_a_function_of_it_is_entangled() {
        let text = |first: &str, last: &str, other: &str| {
            let lines = "\n\tm();\n\tm();\n\tm();\n\tm();\n\tm();\n\tm();\n";
            format!("int f(void)\n{{\n\t{first};{lines}\t{last};\n}}\nint g(void)\n{{\n\t{other};\n}}\n")
        };
        let (own, older, newer) =
            (text("a()", "b()", "c()"), text("x()", "b()", "y()"), text("x()", "z()", "y()"));
        let of = |functions: &[&str], newer: &str| {
            let functions: Vec<String> = functions.iter().map(|name| (*name).to_owned()).collect();
            Texts::of([own.clone(), older.clone(), newer.to_owned()], &functions)
        };
        let texts = of(&["f"], &newer);
        assert_eq!((texts.fixed.as_str(), texts.is_rebased), (text("a()", "z()", "c()").as_str(), true));
        assert_eq!(texts.with_earlier(&["f".to_owned()], &[]), ["f"]);
        let newer = text("x()", "b()", "w()");
        let texts = of(&["g"], &newer);
        assert_eq!((texts.fixed.as_str(), texts.is_rebased), (newer.as_str(), false));
        assert_eq!(texts.with_earlier(&["g".to_owned()], &[]), ["f", "g"]);
    }

    #[test]
    fn a_header_differs_in_code_unless_comments_or_prototypes_alone_do() {
        let own = "int f(int n);\n#define A 1\n";
        let differs = |fixed: &str| of_header("net/a.h", own, fixed);
        assert_eq!(differs(&own.replace('1', "1 /* one */")), Differs::Nowhere);
        assert_eq!(differs(&format!("{own}int g(int n);\n")), Differs::Declared);
        assert_eq!(differs(&own.replace('1', "2")), Differs::InCode);
        assert_eq!(differs(&format!("{own}ODD(\n")), Differs::InCode, "what is not understood counts");
        assert_eq!(of_header("net/a.h", "ODD(\n", "ODD(\n"), Differs::Nowhere);
    }
}
