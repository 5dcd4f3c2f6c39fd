//! What leads to the place of a change, beside its title: its commit and the record of its flaw.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::changelog::Change;
use super::commits::{Commit, Commits, Sources};
use super::records::{Record, Records};
use super::steps::Step;
use super::{Error, commits};

/// What is known of a change.
pub(super) struct Leads {
    /// The files of its fix, and words about it.
    pub(super) record: Option<Record>,
    /// The forms of its commit that its step may have brought.
    pub(super) commits: Vec<Commit>,
}

impl Leads {
    pub(super) fn of(
        change: &Change,
        records: &Records,
        all: &Commits,
        sources: &impl Sources,
    ) -> Result<Self, Error> {
        let forms = all.find(&change.title)?;
        let commits = commits::brought(forms.clone(), sources);
        let is_same = |files: &BTreeSet<String>| commits.iter().all(|commit| commit.files == *files);
        let record = match commits.first().filter(|first| is_same(&first.files)) {
            Some(commit) => Some(commit.record()),
            // A record has the files of all commits that close a flaw; the forms for other kernels have those of
            // this one, and perhaps more.
            None => match records.find(&change.cves)? {
                None => together(&forms),
                record => record,
            },
        };
        Ok(Self { record, commits })
    }
}

/// What all forms of a commit say; none if there is none.
fn together(forms: &[Commit]) -> Option<Record> {
    let text = forms.first()?.message.clone();
    Some(Record { files: forms.iter().flat_map(|form| form.files.iter().cloned()).collect(), text })
}

/// The kernel's own source, and the files after a step that are not as in that.
pub(super) struct Trees<'t> {
    own: &'t Path,
    newer: &'t Path,
}

impl<'t> Trees<'t> {
    pub(super) fn of(own: &'t Path, step: &'t Step) -> Self {
        Self { own, newer: &step.newer }
    }
}

impl Sources for Trees<'_> {
    fn own(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.own.join(path)).ok()
    }

    fn newer(&self, path: &str) -> Option<String> {
        let kept = self.newer.join(path);
        if kept.is_file() { fs::read_to_string(kept).ok() } else { self.own(path) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Step(&'static str);

    impl Sources for Step {
        fn own(&self, _: &str) -> Option<String> {
            Some("a\nb\nc\n".to_owned())
        }
        fn newer(&self, _: &str) -> Option<String> {
            Some(self.0.to_owned())
        }
    }

    /// What leads to a change whose commit is in `net/a.c` and whose record, if it has one, names `net/b.c`.
    fn leads(cve: &str, newer: &'static str) -> (Option<String>, usize) {
        let root = tempfile::tempdir().unwrap();
        let patch = "--- a/net/a.c\n+++ b/net/a.c\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n";
        fs::write(root.path().join("x.patch"), format!("Subject: t\n\n{patch}")).unwrap();
        let record = r#"{"containers": {"cna": {"affected": [{"programFiles": ["net/b.c"]}]}}}"#;
        fs::write(root.path().join("CVE-2026-0001.json"), record).unwrap();
        let (records, commits) = (Records::of(root.path()).unwrap(), Commits::of(root.path()).unwrap());
        let change = Change {
            version: "2".to_owned(),
            cves: vec![cve.to_owned()],
            title: "t".to_owned(),
            machines: Vec::new(),
        };
        let found = Leads::of(&change, &records, &commits, &Step(newer)).unwrap();
        let files = found.record.map(|record| record.files.into_iter().collect::<Vec<_>>().join(" "));
        (files, found.commits.len())
    }

    #[test]
    fn a_commit_that_the_step_brought_says_more_than_a_record_and_one_for_another_kernel_less() {
        let (has, has_not) = ("a\nB\nc\n", "a\nb\nc\n");
        assert_eq!(leads("CVE-2026-0001", has), (Some("net/a.c".to_owned()), 1));
        assert_eq!(leads("CVE-2026-0001", has_not), (Some("net/b.c".to_owned()), 0));
        assert_eq!(leads("CVE-2026-0002", has_not), (Some("net/a.c".to_owned()), 0));
    }
}
