//! Commits as patch files, one each: what a change is, to the letter, where whoever asks has them.
//!
//! Files have the form of mails, as `git format-patch` writes them and as the stable kernels' queue keeps them
//! (<https://git.kernel.org/pub/scm/linux/kernel/git/stable/stable-queue.git>, `releases/6.12.110/`). A commit
//! is known by its title, which distributions' changelogs quote.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::candidate::How;
use super::changes;
use super::records::Record;
use crate::select::merge::merge;
use crate::select::patch::{self, FilePatch};

/// Patch files cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}")]
pub struct Error {
    /// The folder or file.
    path: PathBuf,
    /// Why not.
    source: io::Error,
}

/// The most bytes of a file that its title is looked for in. Mails of the kernel's lists have some 4 KiB of heads.
const HEAD: u64 = 64 << 10;
/// A file with more bytes is no fix. The largest of one year's stable kernels have less than 200 KiB.
const MOST: u64 = 1 << 20;

/// A folder of patch files.
#[derive(Debug, Default)]
pub struct Commits {
    /// By their titles, without a difference between capitals and small letters.
    by_title: HashMap<String, BTreeSet<PathBuf>>,
}

/// One commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The words of its author.
    pub message: String,
    /// What it changes.
    difference: String,
    /// The files that it touches, those that are no code too.
    pub files: BTreeSet<String>,
}

impl Commits {
    /// The commits anywhere below `folder`.
    ///
    /// # Errors
    ///
    /// A folder or a file cannot be read.
    pub fn of(folder: &Path) -> Result<Self, Error> {
        let mut by_title: HashMap<String, BTreeSet<PathBuf>> = HashMap::new();
        let mut open = vec![folder.to_owned()];
        while let Some(folder) = open.pop() {
            let failed = |source| Error { path: folder.clone(), source };
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
                let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
                if kind.is_dir() && !is_hidden {
                    open.push(path);
                } else if kind.is_file() {
                    let head = read(&path, HEAD)?;
                    if let Some(title) = title(&head) {
                        by_title.entry(title.to_lowercase()).or_default().insert(path);
                    }
                }
            }
        }
        Ok(Self { by_title })
    }

    /// All commits with this title. One may be there several times, for several kernels.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn find(&self, title: &str) -> Result<Vec<Commit>, Error> {
        let mut found = Vec::new();
        for path in self.by_title.get(&title.to_lowercase()).into_iter().flatten() {
            let text = read(path, MOST + 1)?;
            let is_whole = text.len() as u64 <= MOST;
            found.extend(Commit::of(&text).filter(|commit| is_whole && !found.contains(commit)));
        }
        Ok(found)
    }
}

/// At most the first `limit` bytes of a file. What is not UTF-8 of the words of people is of no use here, and of a
/// difference it does not apply.
fn read(path: &Path, limit: u64) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let file = File::open(path);
    file.and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|source| Error { path: path.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The title in the head of a mail: its subject, folded lines put together, without what is in brackets before it.
fn title(mail: &str) -> Option<String> {
    let mut head = mail.lines().take_while(|line| !line.is_empty());
    let first = head.find_map(|line| line.strip_prefix("Subject:"))?;
    let folded = head.take_while(|line| line.starts_with([' ', '\t']));
    let words = [first].into_iter().chain(folded).flat_map(str::split_whitespace);
    let mut title = words.collect::<Vec<_>>().join(" ");
    while let Some((_, rest)) = title.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        title = rest.trim_start().into();
    }
    Some(title).filter(|title| !title.is_empty())
}

impl Commit {
    /// A mail taken apart; none if it changes no file.
    fn of(mail: &str) -> Option<Self> {
        let begins = |line: &str| line.starts_with("diff --git ") || line.starts_with("--- a/");
        let mut lines = mail.split_inclusive('\n').scan(0, |at, line| {
            let start = *at;
            *at += line.len();
            Some((start, line))
        });
        let (start, _) = lines.find(|(_, line)| begins(line))?;
        let (message, difference) = mail.split_at_checked(start)?;
        let files = patch::touched(difference).ok()?;
        let message = message.split_once("\n\n").map_or(message, |(_, message)| message);
        let commit = Self { message: message.to_owned(), difference: difference.to_owned(), files };
        Some(commit).filter(|commit| !commit.files.is_empty())
    }

    /// What a flaw's record would say of it.
    pub fn record(&self) -> Record {
        Record { files: self.files.clone(), text: self.message.clone() }
    }

    /// The files of it that become part of our kernels, with what it changes. None if it does anything but change
    /// existing C files and headers of these.
    fn patches(&self) -> Option<BTreeMap<&str, FilePatch<'_>>> {
        let is_ours = |path: &str| !changes::is_elsewhere(path);
        let patches = patch::parse_some(&self.difference, is_ours).ok()?;
        Some(patches.into_iter().map(|patch| (patch.path, patch)).collect())
    }

    /// What it makes of those of its files that become part of our kernels; none if one of them is not among them or
    /// it does not fit.
    fn applied(&self, sources: &impl Sources) -> Option<Fixed> {
        let mut how = How::ByCommit;
        let mut files = BTreeMap::new();
        for (path, patch) in self.patches()? {
            let own = sources.own(path)?;
            let text = if let Ok(text) = patch.apply(&own) {
                text
            } else {
                how = How::ByMerge;
                // As it was before, with all that came earlier.
                let after = sources.newer(path)?;
                let before = patch.reversed().apply(&after).ok()?;
                merge(&before, &after, &own)?
            };
            files.insert(path.to_owned(), text);
        }
        Some(Fixed { files, how })
    }
}

/// Where files are read from.
pub trait Sources {
    /// A file of the kernel's own source.
    fn own(&self, path: &str) -> Option<String>;
    /// A file after the step that brings the commit.
    fn newer(&self, path: &str) -> Option<String>;
}

/// The kernel's own files with a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// Their texts.
    pub files: BTreeMap<String, String>,
    /// To the letter, or merged.
    pub how: How,
}

/// The files with the one of `commits` that fits; none if none does, or several that do not come to the same.
pub fn fitting(commits: &[Commit], sources: &impl Sources) -> Option<Fixed> {
    let mut all: Vec<Fixed> = commits.iter().filter_map(|commit| commit.applied(sources)).collect();
    all.sort_by_key(|fixed| fixed.how == How::ByMerge);
    let best = all.first()?;
    let is_other = |other: &&Fixed| other.how == best.how && other.files != best.files;
    if all.iter().any(|other| is_other(&other)) { None } else { all.into_iter().next() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIFFERENCE: &str = "diff --git a/net/a.c b/net/a.c\nindex 1..2 100644\n--- a/net/a.c\n+++ b/net/a.c\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n";

    fn mail(title: &str, difference: &str) -> String {
        format!(
            "From 1 Mon Sep 17 00:00:00 2001\nFrom: A <a@example.org>\nSubject: {title}\nDate: today\n\ncommit 2 upstream.\n\n--- a word ---\nbe it\n---\n net/a.c | 2 +-\n{difference}-- \n2.39.5\n"
        )
    }

    fn commits(files: &[(&str, String)]) -> (tempfile::TempDir, Commits) {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let commits = Commits::of(root.path()).unwrap();
        (root, commits)
    }

    /// The kernel's own text of `net/a.c`, and after the step.
    struct Texts(&'static str, &'static str);

    impl Sources for Texts {
        fn own(&self, path: &str) -> Option<String> {
            (path == "net/a.c").then(|| self.0.to_owned())
        }
        fn newer(&self, path: &str) -> Option<String> {
            (path == "net/a.c").then(|| self.1.to_owned())
        }
    }

    const OWN: Texts = Texts("a\nb\nc\n", "a\nB\nc\n");

    #[test]
    fn a_commit_is_found_by_its_title_and_put_on_the_kernels_own_text() {
        let folded = mail("[PATCH 6.12 03/9] net: fix a\n leak of B", DIFFERENCE);
        let (_root, commits) =
            commits(&[("releases/6.12.1/net-fix.patch", folded), ("series", "x".to_owned())]);
        let found = commits.find("net: Fix a leak of B").unwrap();
        assert!(found[0].record().text.contains("be it"));
        let fixed = fitting(&found, &OWN).unwrap();
        let files = BTreeMap::from([("net/a.c".to_owned(), "a\nB\nc\n".to_owned())]);
        assert_eq!(fixed, Fixed { files, how: How::ByCommit });
        assert!(commits.find("net: fix a").unwrap().is_empty());
    }

    #[test]
    fn of_a_commit_for_several_kernels_the_one_that_fits_is_taken() {
        let other = DIFFERENCE.replace(" c\n", " d\n");
        let (_root, all) = commits(&[("6.1/p", mail("t", &other)), ("6.12/p", mail("t", DIFFERENCE))]);
        assert!(fitting(&all.find("t").unwrap(), &OWN).is_some());
        let other = DIFFERENCE.replace("+B", "+C");
        let (_root, all) = commits(&[("6.1/p", mail("t", &other)), ("6.12/p", mail("t", DIFFERENCE))]);
        assert_eq!(fitting(&all.find("t").unwrap(), &OWN), None, "two that fit");
    }

    #[test]
    fn tests_and_documents_do_not_count_and_a_new_file_or_build_rules_do() {
        let with = |path: &str, from: &str| {
            let more = format!("--- {from}\n+++ b/{path}\n@@ -0,0 +1,1 @@\n+x\n");
            Commit::of(&mail("t", &format!("{DIFFERENCE}{more}"))).unwrap()
        };
        let added = with("tools/testing/selftests/net/b.sh", "/dev/null");
        assert_eq!(
            added.files.iter().map(String::as_str).collect::<Vec<_>>(),
            ["net/a.c", "tools/testing/selftests/net/b.sh"]
        );
        assert_eq!(added.applied(&OWN).unwrap().files.len(), 1);
        assert_eq!(with("net/b.c", "/dev/null").applied(&OWN), None);
        assert_eq!(with("net/Makefile", "a/net/Makefile").applied(&OWN), None);
        assert_eq!(Commit::of(&mail("t", "")), None, "a mail without a difference");
    }

    #[test]
    fn a_commit_beside_lines_of_others_is_merged_and_one_that_does_not_fit_is_not_taken() {
        let commit = Commit::of(&mail("t", DIFFERENCE)).unwrap();
        let merged = commit.applied(&Texts("x\nb\nc\n", "a\nB\nc\n")).unwrap();
        assert_eq!((merged.files["net/a.c"].as_str(), merged.how), ("x\nB\nc\n", How::ByMerge));
        assert_eq!(commit.applied(&Texts("a\nx\nc\n", "a\nB\nc\n")), None, "the line itself is another");
        assert_eq!(commit.applied(&Texts("x\nb\nc\n", "a\nx\nc\n")), None, "the step does not have it");
    }
}
