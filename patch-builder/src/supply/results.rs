//! What came of each change, kept line by line, so that a run that was interrupted goes on where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::changelog::Change;
use super::{Error, Outcome, RESULTS};

/// What a folder of results is of.
const ORDER: &str = "order";

/// What earlier runs found, and what this one finds.
pub(super) struct Results {
    file: fs::File,
    path: PathBuf,
    known: BTreeMap<Key, Outcome>,
}

/// A flaw may be closed by several changes, and a change close several flaws.
type Key = (BTreeSet<String>, String);

fn key(cves: &[String], title: &str) -> Key {
    (cves.iter().cloned().collect(), title.to_owned())
}

impl Results {
    /// Those in `out`, which are of this `order` alone: the same words as when it was begun.
    pub(super) fn open(out: &Path, order: &str) -> Result<Self, Error> {
        let path = out.join(RESULTS);
        let failed = |source| Error::File { path: path.clone(), source };
        fs::create_dir_all(out).map_err(failed)?;
        let begun = out.join(ORDER);
        if begun.exists() {
            let before = fs::read_to_string(&begun).map_err(failed)?;
            if before != order {
                return Err(Error::OtherOrder { path: begun, before });
            }
        } else {
            fs::write(&begun, order).map_err(failed)?;
        }
        let file = fs::OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
        let text = fs::read_to_string(&path).map_err(failed)?;
        // A run may have ended within its last line.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            file.set_len(whole as u64).map_err(failed)?;
        }
        let mut known = BTreeMap::new();
        for (n, line) in text.get(..whole).unwrap_or_default().lines().enumerate() {
            let malformed = |source| Error::Results { path: path.clone(), line: n + 1, source };
            let outcome: Outcome = serde_json::from_str(line).map_err(malformed)?;
            known.insert(key(&outcome.cves, &outcome.title), outcome);
        }
        Ok(Self { file, path, known })
    }

    pub(super) fn known(&self, change: &Change) -> Option<Outcome> {
        self.known.get(&key(&change.cves, &change.title)).cloned()
    }

    pub(super) fn keep(&mut self, outcome: &Outcome) -> Result<(), Error> {
        let line = serde_json::to_string(outcome)? + "\n";
        let failed = |source| Error::File { path: self.path.clone(), source };
        self.file.write_all(line.as_bytes()).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supply::Verdict;

    fn outcome(title: &str) -> Outcome {
        Outcome {
            cves: vec!["CVE-2026-0001".to_owned()],
            title: title.to_owned(),
            version: "2-1".to_owned(),
            how: None,
            paths: Vec::new(),
            others: Vec::new(),
            verdict: Verdict::NeedsPerson { why: title.to_owned() },
            ms: 1,
        }
    }

    fn change(title: &str) -> Change {
        let Outcome { cves, title, version, .. } = outcome(title);
        Change { version, cves, title, machines: Vec::new() }
    }

    #[test]
    fn two_changes_that_close_one_flaw_are_two_results_and_a_torn_line_is_worked_out_anew() {
        let root = tempfile::tempdir().unwrap();
        let mut results = Results::open(root.path(), "order").unwrap();
        results.keep(&outcome("one")).unwrap();
        results.keep(&outcome("two")).unwrap();
        let path = root.path().join(RESULTS);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.trim_end().strip_suffix('}').unwrap()).unwrap();

        let mut results = Results::open(root.path(), "order").unwrap();
        assert_eq!(results.known(&change("one")), Some(outcome("one")));
        assert_eq!(results.known(&change("two")), None);
        results.keep(&outcome("two")).unwrap();
        let results = Results::open(root.path(), "order").unwrap();
        assert_eq!(results.known(&change("two")), Some(outcome("two")));
    }

    #[test]
    fn a_line_that_is_no_result_is_named() {
        let root = tempfile::tempdir().unwrap();
        Results::open(root.path(), "order").unwrap().keep(&outcome("one")).unwrap();
        let path = root.path().join(RESULTS);
        fs::write(&path, fs::read_to_string(&path).unwrap() + "{}\n").unwrap();
        let error = Results::open(root.path(), "order").err().unwrap();
        assert!(matches!(error, Error::Results { line: 2, .. }), "{error}");
    }
}
