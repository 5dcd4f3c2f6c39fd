//! Commits as patch files, one each: what a change is, to the letter, where whoever asks has them.
//!
//! Files have the form of mails, as `git format-patch` writes them and as the stable kernels' queue keeps them
//! (<https://git.kernel.org/pub/scm/linux/kernel/git/stable/stable-queue.git>, `releases/6.12.110/`). A commit
//! is known by its title, which distributions' changelogs quote.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::candidate::How;
use super::records::Record;
use crate::select::merge::merge;
use crate::select::patch::{self, FilePatch};
use crate::unpack::is_elsewhere;

/// Patch files cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder or a file cannot be read.
    #[error("{path}")]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
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
            let failed = |source| Error::Read { path: folder.clone(), source };
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
                let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
                if kind.is_dir() && !is_hidden {
                    open.push(path);
                } else if kind.is_file() {
                    let head = read(&path, HEAD)?;
                    if let Some(title) = title(&String::from_utf8_lossy(&head)) {
                        by_title.entry(title.to_lowercase()).or_default().insert(path);
                    }
                }
            }
        }
        Ok(Self { by_title })
    }

    /// How many titles there are.
    #[must_use]
    pub fn titles(&self) -> usize {
        self.by_title.len()
    }

    /// All commits with this title. One may be there several times, for several kernels.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn find(&self, title: &str) -> Result<Vec<Commit>, Error> {
        let mut found = Vec::new();
        for path in self.by_title.get(&title.to_lowercase()).into_iter().flatten() {
            let bytes = read(path, MOST + 1)?;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let is_whole = text.len() as u64 <= MOST;
            found.extend(Commit::of(&text).filter(|commit| is_whole && !found.contains(commit)));
        }
        Ok(found)
    }
}

/// At most the first `limit` bytes of a file.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let file = File::open(path);
    file.and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(bytes)
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
        // Of several mails in one file it is not known whose is what, and one that was packed for the way has other
        // characters.
        let is_head = |line: &str| line.starts_with("From ") && line.ends_with(" 00:00:00 2001");
        let is_packed = |line: &str| {
            let line = line.to_ascii_lowercase();
            let way = line.strip_prefix("content-transfer-encoding:").map(str::trim);
            way.is_some_and(|way| !["7bit", "8bit"].contains(&way))
        };
        if difference.lines().any(is_head) || message.lines().any(is_packed) {
            return None;
        }
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
    fn patches(&self) -> Option<Vec<FilePatch<'_>>> {
        patch::parse_some(&self.difference, |path| !is_elsewhere(path)).ok()
    }

    /// Whether what it adds is there after a step.
    fn is_added(&self, sources: &impl Sources) -> bool {
        let is_there = |patch: &FilePatch| {
            let Some(newer) = sources.newer(patch.path) else { return false };
            let lines: HashSet<&str> = newer.lines().collect();
            let mut added = patch.added().peekable();
            added.peek().is_some() && added.all(|line| lines.contains(line))
        };
        self.patches().is_some_and(|patches| patches.iter().all(is_there))
    }

    /// Whether it can be taken back from what is there after a step.
    fn is_brought(&self, sources: &impl Sources) -> bool {
        let is_there = |patch: &FilePatch| {
            sources.newer(patch.path).is_some_and(|newer| patch.reversed().apply(&newer).is_ok())
        };
        self.patches().is_some_and(|patches| patches.iter().all(is_there))
    }

    /// What it makes of those of its files that become part of our kernels; none if one of them is not among them or
    /// it does not fit.
    fn applied(&self, sources: &impl Sources) -> Option<Fixed> {
        let mut how = How::ByCommit;
        let mut files = BTreeMap::new();
        for patch in self.patches()? {
            let (own, after) = (sources.own(patch.path)?, sources.newer(patch.path)?);
            // As it was before, with all that came earlier.
            let before = patch.reversed().apply(&after).ok();
            let merged = before.and_then(|before| merge(&before, &after, &own));
            let text = match (patch.apply(&own).ok(), merged) {
                // Other lines of the file look the same.
                (Some(exact), Some(merged)) if exact != merged => return None,
                (Some(exact), _) => exact,
                (None, merged) => {
                    how = How::ByMerge;
                    merged?
                }
            };
            files.insert(patch.path.to_owned(), text);
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

/// Those of the forms of one commit, for several kernels, that a step may have brought: that it has to the letter,
/// or else that it has with other changes between their lines.
pub fn brought(mut forms: Vec<Commit>, sources: &impl Sources) -> Vec<Commit> {
    if forms.iter().any(|form| form.is_brought(sources)) {
        forms.retain(|form| form.is_brought(sources));
    } else {
        forms.retain(|form| form.is_added(sources));
    }
    forms
}

/// The files with a commit of which `commits` are the forms that the step may have brought; none unless all of them
/// come to the same.
pub fn fitting(commits: &[Commit], sources: &impl Sources) -> Option<Fixed> {
    let mut all = commits.iter().map(|commit| commit.applied(sources));
    let first = all.next()??;
    all.all(|other| other.is_some_and(|other| other.files == first.files)).then_some(first)
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
    fn of_a_commit_for_several_kernels_the_one_that_the_step_brought_is_taken() {
        let forms = |one: &str| {
            let files = [("6.1/p", mail("t", one)), ("6.12/p", mail("t", DIFFERENCE))];
            commits(&files).1.find("t").unwrap()
        };
        let found = brought(forms(&DIFFERENCE.replace(" c\n", " d\n")), &OWN);
        assert_eq!(found, [Commit::of(&mail("t", DIFFERENCE)).unwrap()], "the other is among other lines");
        let found = brought(forms(&DIFFERENCE.replace("+B", "+C")), &OWN);
        assert_eq!(found.len(), 1, "the step does not add C");
        // Both are there after the step, and one of them does more.
        let more = DIFFERENCE.to_owned() + "@@ -5,2 +5,3 @@\n e\n+n\n f\n";
        let step = Texts("a\nb\nc\n", "a\nB\nc\nd\ne\nn\nf\n");
        let found = brought(forms(&more), &step);
        assert_eq!((found.len(), fitting(&found, &step)), (2, None));
        let later = Texts("a\nb\nc\n", "x\nB\nc\n");
        assert_eq!(brought(forms(DIFFERENCE), &later).len(), 1, "with another change beside it");
        assert!(brought(forms(DIFFERENCE), &Texts("a\nb\nc\n", "a\nb\nc\n")).is_empty());
    }

    #[test]
    fn a_commit_that_lines_elsewhere_look_like_is_not_taken() {
        // After the step it is in the second place, and so is the line that it changes; the first looks the same.
        let sources = Texts("a\nb\nc\nq\nx\nb\nc\n", "r\nb\nc\nq\na\nB\nc\n");
        assert_eq!(fitting(&[Commit::of(&mail("t", DIFFERENCE)).unwrap()], &sources), None);
    }

    #[test]
    fn a_file_of_several_mails_or_one_that_was_packed_for_the_way_is_no_commit() {
        let one = mail("t", DIFFERENCE);
        assert_eq!(Commit::of(&(one.clone() + &one)), None);
        let packed = one.replace("Date:", "Content-Transfer-Encoding: quoted-printable\nDate:");
        assert_eq!(Commit::of(&packed), None);
        assert!(Commit::of(&one.replace("Date:", "Content-Transfer-Encoding: 8bit\nDate:")).is_some());
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
