//! Patch files: unified differences, applied exactly or not at all.

use std::collections::BTreeSet;
use std::str::Lines;

use crate::recipe::{extension, is_inside};
use crate::refusal::{Gate, Refusal};

/// What a patch does to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePatch<'a> {
    /// The file within the source.
    pub path: &'a str,
    hunks: Vec<Hunk<'a>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Hunk<'a> {
    /// The first line, from 1, in the original.
    start: usize,
    /// The same in what comes of it.
    new_start: usize,
    before: Vec<&'a str>,
    after: Vec<&'a str>,
}

fn refuse<T>(gate: Gate, what: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(gate, what))
}

/// Takes a patch file apart. Paths have one folder in front (`a/`, `b/`), as git writes them.
///
/// # Errors
///
/// It is not a patch, or touches anything but existing C files and headers.
pub fn parse(text: &str) -> Result<Vec<FilePatch<'_>>, Refusal> {
    parse_some(text, |_| true)
}

/// Of a patch file that which is about files that `is_wanted` names.
///
/// # Errors
///
/// It is not a patch, or touches anything of these but existing C files and headers.
pub fn parse_some(text: &str, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<FilePatch<'_>>, Refusal> {
    let mut files = Vec::new();
    for Named { old, new, hunks } in named(text)? {
        if ![old, new].iter().any(|path| *path != NONE && is_wanted(path)) {
            continue;
        }
        if old != new {
            return refuse(Gate::Applies, format!("{old} becomes {new}: files must stay"));
        }
        if !["c", "h"].contains(&extension(new)) {
            return refuse(Gate::OnlyCode, new);
        }
        if hunks.is_empty() {
            return refuse(Gate::Applies, format!("{new}: no line changes"));
        }
        if !is_inside(new) {
            return refuse(Gate::Applies, format!("{new:?} is not a path within the source"));
        }
        if files.iter().any(|file: &FilePatch| file.path == new) {
            return refuse(Gate::Applies, format!("{new}: twice"));
        }
        files.push(FilePatch { path: new, hunks });
    }
    if files.is_empty() {
        return refuse(Gate::Applies, "no file is changed");
    }
    Ok(files)
}

/// The files that a patch file is about, also where it makes, moves or removes them.
///
/// # Errors
///
/// It is not a patch.
pub fn touched(text: &str) -> Result<BTreeSet<String>, Refusal> {
    let paths = named(text)?.into_iter().flat_map(|file| [file.old, file.new]);
    Ok(paths.filter(|path| *path != NONE).map(str::to_owned).collect())
}

/// What stands for a file that is not there, without the folder in front.
const NONE: &str = "dev/null";

/// One file of a patch, whatever becomes of it.
struct Named<'a> {
    old: &'a str,
    new: &'a str,
    hunks: Vec<Hunk<'a>>,
}

fn named(text: &str) -> Result<Vec<Named<'_>>, Refusal> {
    let mut files: Vec<Named> = Vec::new();
    let mut lines = text.lines();
    let mut old = None;
    while let Some(line) = lines.next() {
        if let Some((old, new)) = line.strip_prefix("diff --git ").and_then(|names| names.split_once(" b/")) {
            // A file that only moves has no other line with its names.
            files.push(Named { old: path(old), new, hunks: Vec::new() });
        } else if let Some(name) = line.strip_prefix("--- ") {
            old = Some(path(name));
        } else if let Some(name) = line.strip_prefix("+++ ").filter(|_| old.is_some()) {
            let (old, new) = (old.take().unwrap_or_default(), path(name));
            files.pop_if(|file| file.hunks.is_empty() && (file.new == new || file.old == old));
            files.push(Named { old, new, hunks: Vec::new() });
        } else if line.starts_with("@@ ") {
            let Some(file) = files.last_mut() else { return refuse(Gate::Applies, "a hunk of no file") };
            let hunk = Hunk::of(line, &mut lines);
            let hunk = hunk.map_err(|why| Refusal::new(Gate::Applies, format!("{}: {why}", file.new)))?;
            file.hunks.push(hunk);
        }
    }
    Ok(files)
}

fn path(name: &str) -> &str {
    let name = name.split('\t').next().unwrap_or(name);
    name.split_once('/').map_or(name, |(_, rest)| rest)
}

/// `@@ -start,removed +start,added @@`.
fn ranges(line: &str) -> Option<[(usize, usize); 2]> {
    let mut words = line.split(' ').skip(1);
    let (old, new) = (words.next()?.strip_prefix('-')?, words.next()?.strip_prefix('+')?);
    let numbers = |text: &str| -> Option<(usize, usize)> {
        match text.split_once(',') {
            Some((start, length)) => Some((start.parse().ok()?, length.parse().ok()?)),
            None => Some((text.parse().ok()?, 1)),
        }
    };
    Some([numbers(old)?, numbers(new)?])
}

impl<'a> FilePatch<'a> {
    /// The lines that it adds.
    pub fn added(&self) -> impl Iterator<Item = &str> {
        let added = |hunk: &'_ Hunk<'a>| {
            let mut left: Vec<&str> = hunk.before.clone();
            let is_new = |line: &&str| {
                let there = left.iter().position(|other| other == line);
                there.map(|n| left.swap_remove(n)).is_none()
            };
            hunk.after.iter().copied().filter(is_new).collect::<Vec<_>>()
        };
        self.hunks.iter().flat_map(added)
    }

    /// The patch that takes this one back.
    #[must_use]
    pub fn reversed(&self) -> Self {
        let reversed = |hunk: &Hunk<'a>| Hunk {
            start: hunk.new_start,
            new_start: hunk.start,
            before: hunk.after.clone(),
            after: hunk.before.clone(),
        };
        Self { path: self.path, hunks: self.hunks.iter().map(reversed).collect() }
    }

    /// `original` with the patch: all context must be there to the letter, in one place only.
    ///
    /// # Errors
    ///
    /// A hunk fits nowhere, or in several places of which none is where it says.
    pub fn apply(&self, original: &str) -> Result<String, Refusal> {
        let lines: Vec<&str> = original.lines().collect();
        let mut out = Vec::with_capacity(lines.len());
        let mut at = 0;
        for hunk in &self.hunks {
            let place = hunk.place(&lines, at).map_err(|why| {
                Refusal::new(Gate::Applies, format!("{}: hunk at line {}: {why}", self.path, hunk.start))
            })?;
            out.extend_from_slice(lines.get(at..place).unwrap_or_default());
            out.extend_from_slice(&hunk.after);
            at = place + hunk.before.len();
        }
        out.extend_from_slice(lines.get(at..).unwrap_or_default());
        Ok(out.join("\n") + "\n")
    }
}

impl<'a> Hunk<'a> {
    /// The hunk that begins with the line `head`, and goes on in `lines`.
    fn of(head: &str, lines: &mut Lines<'a>) -> Result<Self, String> {
        let Some([(start, removed), (new_start, added)]) = ranges(head) else { return Err(head.to_owned()) };
        let mut hunk = Hunk { start, new_start, before: Vec::new(), after: Vec::new() };
        while hunk.before.len() < removed || hunk.after.len() < added {
            let line = lines.next().ok_or("ends within a hunk")?;
            // What has no end of a line is told behind it, and is given one.
            if line.starts_with('\\') {
                continue;
            }
            match line.split_at_checked(1) {
                Some(("-", rest)) => hunk.before.push(rest),
                Some(("+", rest)) => hunk.after.push(rest),
                Some((" ", rest)) => {
                    hunk.before.push(rest);
                    hunk.after.push(rest);
                }
                // Mail programs cut the blank of an empty line.
                None => {
                    hunk.before.push("");
                    hunk.after.push("");
                }
                _ => return Err(format!("{line:?} within a hunk")),
            }
        }
        let next = lines.clone().next().unwrap_or_default();
        let is_more = next.starts_with(['+', '-', ' '])
            && !["+++ ", "--- ", "-- "].iter().any(|head| next.starts_with(head));
        if is_more || (hunk.before.len(), hunk.after.len()) != (removed, added) {
            return Err("a hunk is longer than it says".to_owned());
        }
        Ok(hunk)
    }

    fn place(&self, lines: &[&str], from: usize) -> Result<usize, &'static str> {
        let fits =
            |at: usize| at >= from && lines.get(at..).is_some_and(|rest| rest.starts_with(&self.before));
        let said = self.start.saturating_sub(1);
        if fits(said) && !self.before.is_empty() {
            return Ok(said);
        }
        let mut places = (from..lines.len()).filter(|at| fits(*at));
        match (places.next(), places.next()) {
            (Some(place), None) if !self.before.is_empty() => Ok(place),
            (Some(_), Some(_)) => Err("fits in several places, and not where it says"),
            _ => Err("does not fit"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: &str = "a\nb\nc\nd\ne\n";
    const HEAD: &str = "diff --git a/net/x.c b/net/x.c\n--- a/net/x.c\n+++ b/net/x.c\n";

    fn applied(hunk: &str) -> Result<String, Refusal> {
        let text = format!("{HEAD}{hunk}");
        parse(&text)?[0].apply(ORIGINAL)
    }

    #[test]
    fn a_hunk_is_put_where_its_context_is() {
        assert_eq!(applied("@@ -2,3 +2,3 @@ f()\n b\n-c\n+C\n d\n").unwrap(), "a\nb\nC\nd\ne\n");
        // Other changes may have moved it.
        assert_eq!(applied("@@ -12,3 +12,4 @@\n b\n c\n+new\n d\n").unwrap(), "a\nb\nc\nnew\nd\ne\n");
    }

    #[test]
    fn a_patch_is_taken_back() {
        let text = format!("{HEAD}@@ -2,3 +2,4 @@\n b\n-c\n+C\n+D\n d\n");
        let patch = &parse(&text).unwrap()[0];
        let fixed = patch.apply(ORIGINAL).unwrap();
        assert_eq!(patch.reversed().apply(&fixed).unwrap(), ORIGINAL);
    }

    #[test]
    fn a_hunk_whose_context_is_another_is_refused() {
        let refusal = applied("@@ -2,3 +2,3 @@\n b\n-c\n+C\n D\n").unwrap_err();
        assert_eq!(refusal.gate, Gate::Applies);
        assert!(refusal.what.contains("net/x.c: hunk at line 2"), "{refusal}");
    }

    #[test]
    fn a_hunk_that_fits_twice_and_not_where_it_says_is_refused() {
        let text = format!("{HEAD}@@ -9,1 +9,1 @@\n-a\n+b\n");
        let refusal = parse(&text).unwrap()[0].apply("a\na\n").unwrap_err();
        assert!(refusal.what.contains("several"), "{refusal}");
    }

    #[test]
    fn a_patch_of_anything_but_code_is_refused() {
        for name in ["net/Makefile", "net/Kconfig", "arch/x86/entry/entry_64.S"] {
            let text = format!("--- a/{name}\n+++ b/{name}\n@@ -1,1 +1,1 @@\n-a\n+b\n");
            assert_eq!(parse(&text).unwrap_err(), Refusal::new(Gate::OnlyCode, name));
        }
    }

    #[test]
    fn all_files_of_a_patch_are_told_and_those_that_nobody_wants_may_come_and_go() {
        let moved =
            "diff --git a/tools/old.sh b/tools/new.sh\nsimilarity index 100%\nrename from tools/old.sh\n";
        // A line of a hunk looks like a head.
        let new =
            "diff --git a/doc/y b/doc/y\nnew file\n--- /dev/null\n+++ b/doc/y\n@@ -0,0 +1,1 @@\n+++ b/z\n";
        let text = format!("{HEAD}@@ -1,1 +1,1 @@\n-a\n+b\n{moved}{new}");
        let all = touched(&text).unwrap();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        assert_eq!(all, ["doc/y", "net/x.c", "tools/new.sh", "tools/old.sh"]);
        let ours = parse_some(&text, |path| path.starts_with("net/")).unwrap();
        assert_eq!((ours.len(), ours[0].path), (1, "net/x.c"));
        for wanted in ["tools/old", "tools/new", "doc"] {
            let refusal = parse_some(&text, |path| path.starts_with(wanted)).unwrap_err();
            assert!(refusal.what.contains("files must stay"), "{wanted}: {refusal}");
        }
        let mode = "diff --git a/net/x.c b/net/x.c\nold mode 100644\nnew mode 100755\n";
        assert!(parse(mode).unwrap_err().what.contains("no line changes"));
    }

    #[test]
    fn a_patch_that_makes_or_moves_a_file_or_ends_early_is_refused() {
        let new = "--- /dev/null\n+++ b/net/y.c\n@@ -0,0 +1,1 @@\n+a\n";
        let twice = format!("{HEAD}@@ -1,1 +1,1 @@\n-a\n+b\n").repeat(2);
        let outside = "--- a/../x.c\n+++ b/../x.c\n@@ -1,1 +1,1 @@\n-a\n+b\n";
        let longer = format!("{HEAD}@@ -1,1 +1,1 @@\n-a\n+b\n+c\n");
        let early = "--- a/x/x.c\n+++ b/x/x.c\n@@ -1,2 +1,2 @@\n a\n";
        for bad in ["", "words\n", new, early, outside, &twice, &longer] {
            assert_eq!(parse(bad).unwrap_err().gate, Gate::Applies, "{bad}");
        }
        let signed = format!("{HEAD}@@ -1,1 +1,1 @@\n-a\n\\ No newline at end of file\n+b\n-- \n2.39\n");
        assert!(parse(&signed).is_ok());
    }
}
