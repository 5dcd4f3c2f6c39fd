//! What the kernel's own list of flaws says of a flaw: the files that its fix is in, and what the fix is
//! about.
//!
//! Records have the form that all CVE records have (CVE JSON 5). The kernel's are published at
//! <https://git.kernel.org/pub/scm/linux/security/vulns.git>, and with everybody else's at
//! <https://github.com/CVEProject/cvelistV5>. A folder of them is given by whoever asks; nothing is fetched.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;

/// Records cannot be used.
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
    /// A file is no record.
    #[error("{path}")]
    Form {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
}

/// What is said of one change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The files of the fix, by their paths in the source.
    pub files: BTreeSet<String>,
    /// What the fix is about: the words of its author.
    pub text: String,
}

/// A folder of records.
#[derive(Debug, Default)]
pub struct Records {
    paths: HashMap<String, PathBuf>,
}

#[derive(Deserialize)]
struct Document {
    containers: Containers,
}

#[derive(Deserialize)]
struct Containers {
    /// Of those who fixed it; what others say of it is left out.
    cna: Cna,
}

#[derive(Deserialize)]
struct Cna {
    #[serde(default)]
    affected: Vec<Affected>,
    #[serde(default)]
    descriptions: Vec<Description>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Affected {
    #[serde(default)]
    program_files: Vec<String>,
}

#[derive(Deserialize)]
struct Description {
    value: String,
}

impl Records {
    /// The records anywhere below `folder`: `CVE-2026-53249.json` and so on.
    ///
    /// # Errors
    ///
    /// A folder cannot be read.
    pub fn of(folder: &Path) -> Result<Self, Error> {
        let mut paths = HashMap::new();
        let mut open = vec![folder.to_owned()];
        while let Some(folder) = open.pop() {
            let failed = |source| Error::Read { path: folder.clone(), source };
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.file_type().map_err(failed)?.is_dir() {
                    open.push(entry.path());
                } else if let Some(cve) = name.strip_suffix(".json").filter(|name| name.starts_with("CVE-")) {
                    paths.insert(cve.to_owned(), entry.path());
                }
            }
        }
        Ok(Self { paths })
    }

    /// What is said of the flaws `cves`, all closed by one change; none if none of them has a record that
    /// names files.
    ///
    /// # Errors
    ///
    /// A record cannot be read, or is none.
    pub fn find(&self, cves: &[String]) -> Result<Option<Record>, Error> {
        let mut found = Record::default();
        for path in cves.iter().filter_map(|cve| self.paths.get(cve)) {
            let text = fs::read(path).map_err(|source| Error::Read { path: path.clone(), source })?;
            let document: Document =
                serde_json::from_slice(&text).map_err(|source| Error::Form { path: path.clone(), source })?;
            let Cna { affected, descriptions } = document.containers.cna;
            found.files.extend(affected.into_iter().flat_map(|one| one.program_files));
            found.text.extend(descriptions.into_iter().map(|one| one.value + "\n"));
        }
        Ok(Some(found).filter(|found| !found.files.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"dataType": "CVE_RECORD", "containers": {
        "cna": {
            "affected": [
                {"product": "Linux", "programFiles": ["net/unix/af_unix.c"]},
                {"product": "Linux", "programFiles": ["net/unix/af_unix.c", "include/net/af_unix.h"]}
            ],
            "descriptions": [{"lang": "en", "value": "unix_ioctl() trusts"}]
        },
        "adp": [{"affected": [{"programFiles": ["elsewhere.c"]}]}]
    }}"#;

    fn records(name: &str, text: &str) -> (tempfile::TempDir, Records) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("published/2026");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), text).unwrap();
        fs::write(folder.join("CVE-2026-0001.mbox"), "no record").unwrap();
        let records = Records::of(root.path()).unwrap();
        (root, records)
    }

    #[test]
    fn a_record_tells_the_files_of_a_fix_and_what_others_say_does_not_count() {
        let (_root, records) = records("CVE-2026-0001.json", TEXT);
        let names = ["CVE-2026-0001", "CVE-2026-0002"].map(str::to_owned);
        let found = records.find(&names).unwrap().unwrap();
        let files: Vec<_> = found.files.iter().map(String::as_str).collect();
        assert_eq!(files, ["include/net/af_unix.h", "net/unix/af_unix.c"]);
        assert!(found.text.contains("unix_ioctl()"));
        assert_eq!(records.find(&names[1..]).unwrap(), None);
    }

    #[test]
    fn a_record_without_files_says_nothing_and_one_that_is_none_is_an_error() {
        let (_root, without) = records("CVE-2026-0001.json", r#"{"containers": {"cna": {}}}"#);
        let names = ["CVE-2026-0001".to_owned()];
        assert_eq!(without.find(&names).unwrap(), None);
        let (_root, broken) = records("CVE-2026-0001.json", "{");
        let error = broken.find(&names).unwrap_err();
        assert!(matches!(error, Error::Form { .. }), "{error}");
    }
}
