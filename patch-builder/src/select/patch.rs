//! Patch files: unified differences, applied exactly or not at all.

use crate::recipe::extension;
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
    let mut files: Vec<FilePatch> = Vec::new();
    let mut lines = text.lines().peekable();
    let mut old = None;
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("--- ") {
            old = Some(path(name));
        } else if let Some(name) = line.strip_prefix("+++ ").filter(|_| old.is_some()) {
            let (old, new) = (old.take().unwrap_or_default(), path(name));
            if old != new {
                return refuse(Gate::Applies, format!("{old} becomes {new}: files must stay"));
            }
            if !["c", "h"].contains(&extension(new)) {
                return refuse(Gate::OnlyCode, new);
            }
            files.push(FilePatch { path: new, hunks: Vec::new() });
        } else if line.starts_with("@@ ") {
            let Some(file) = files.last_mut() else { return refuse(Gate::Applies, "a hunk of no file") };
            let Some((start, removed, added)) = range(line) else {
                return refuse(Gate::Applies, format!("{}: {line}", file.path));
            };
            let mut hunk = Hunk { start, before: Vec::new(), after: Vec::new() };
            while hunk.before.len() < removed || hunk.after.len() < added {
                let Some(line) = lines.next() else {
                    return refuse(Gate::Applies, format!("{}: ends within a hunk", file.path));
                };
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
                    _ => return refuse(Gate::Applies, format!("{}: {line:?} within a hunk", file.path)),
                }
            }
            if (hunk.before.len(), hunk.after.len()) != (removed, added) {
                return refuse(Gate::Applies, format!("{}: a hunk is longer than it says", file.path));
            }
            file.hunks.push(hunk);
        }
    }
    if files.is_empty() {
        return refuse(Gate::Applies, "no file is changed");
    }
    Ok(files)
}

fn path(name: &str) -> &str {
    let name = name.split('\t').next().unwrap_or(name);
    name.split_once('/').map_or(name, |(_, rest)| rest)
}

/// `@@ -start,removed +start,added @@`: the first start and both lengths.
fn range(line: &str) -> Option<(usize, usize, usize)> {
    let mut words = line.split(' ').skip(1);
    let (old, new) = (words.next()?.strip_prefix('-')?, words.next()?.strip_prefix('+')?);
    let numbers = |text: &str| -> Option<(usize, usize)> {
        match text.split_once(',') {
            Some((start, length)) => Some((start.parse().ok()?, length.parse().ok()?)),
            None => Some((text.parse().ok()?, 1)),
        }
    };
    let ((start, removed), (_, added)) = (numbers(old)?, numbers(new)?);
    Some((start, removed, added))
}

impl FilePatch<'_> {
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

impl Hunk<'_> {
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
    fn a_patch_that_makes_or_moves_a_file_or_ends_early_is_refused() {
        let new = "--- /dev/null\n+++ b/net/y.c\n@@ -0,0 +1,1 @@\n+a\n";
        for bad in ["", "words\n", new, "--- a/x/x.c\n+++ b/x/x.c\n@@ -1,2 +1,2 @@\n a\n"] {
            assert_eq!(parse(bad).unwrap_err().gate, Gate::Applies, "{bad}");
        }
    }
}
