//! What leads to the place of a change, beside its title: its commit and the record of its flaw.

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
        let commits = commits::brought(all.find(&change.title)?, sources);
        // A record has the files of all commits that close a flaw.
        let record = match commits.as_slice() {
            [one, others @ ..] if others.iter().all(|other| other.files == one.files) => Some(one.record()),
            _ => records.find(&change.cves)?,
        };
        Ok(Self { record, commits })
    }
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
