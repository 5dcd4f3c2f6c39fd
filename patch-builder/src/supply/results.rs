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
    known: BTreeMap<BTreeSet<String>, Outcome>,
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
        let mut known = BTreeMap::new();
        if path.exists() {
            for line in fs::read_to_string(&path).map_err(failed)?.lines() {
                let outcome: Outcome = serde_json::from_str(line)?;
                known.insert(outcome.cves.iter().cloned().collect(), outcome);
            }
        }
        let file = fs::OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
        Ok(Self { file, path, known })
    }

    pub(super) fn known(&self, change: &Change) -> Option<Outcome> {
        self.known.get(&change.cves.iter().cloned().collect::<BTreeSet<_>>()).cloned()
    }

    pub(super) fn keep(&mut self, outcome: &Outcome) -> Result<(), Error> {
        let line = serde_json::to_string(outcome)?;
        let failed = |source| Error::File { path: self.path.clone(), source };
        writeln!(self.file, "{line}").and_then(|()| self.file.flush()).map_err(failed)
    }
}
