//! The way from the kernel's own source to a newer one, version by version as far as the archive has
//! them: the shorter a step, the fewer changes can be meant by what differs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Error;
use super::changelog::{self, Change};
use super::changes::{Changes, Versions};
use crate::cache::Cache;
use crate::lock::Package;
use crate::progress::{Progress, Step as Doing};
use crate::{fetch, tree};

/// One step.
#[derive(Debug)]
pub struct Step {
    /// The source at its end.
    pub package: Package,
    /// The files at its beginning that are not the kernel's own; none at the first step.
    pub older: Option<PathBuf>,
    /// The files of that source that are not the kernel's own.
    pub newer: PathBuf,
    /// What differs between its beginning and its end.
    pub changes: BTreeMap<String, Changes>,
    /// The changes that it brings.
    pub brought: Vec<Change>,
}

/// The steps from the source package `name` of version `from`, whose tree is `own`, through the versions
/// `through` to `to`. Versions that are not between them are left out.
///
/// # Errors
///
/// A source cannot be had, unpacked or read.
pub fn steps(
    cache: &Cache,
    own: &Path,
    name: &str,
    [from, to]: [&str; 2],
    through: &[String],
    progress: Progress,
) -> Result<Vec<Step>, Error> {
    let newest = fetch::pin_source(cache, name, to, progress)?;
    let text = tree::changelog(cache, &newest, progress)?;
    let all = changelog::between(&text, from, to);
    let mut steps: Vec<Step> = Vec::new();
    for (version, covered) in shares(&changelog::versions(&text), [from, to], through) {
        let package =
            if version == to { newest.clone() } else { fetch::pin_source(cache, name, version, progress)? };
        let newer = tree::differing(cache, &package, own, progress)?;
        progress(Doing::Select, &format!("comparing sources up to {version}"));
        let older = steps.last().map(|step| step.newer.clone());
        let changes = Versions { own, older: older.as_deref(), newer: &newer }
            .changes()
            .map_err(|source| Error::File { path: newer.clone(), source })?;
        let brought = all.iter().filter(|change| covered.contains(&change.version.as_str())).cloned();
        steps.push(Step { package, older, newer, changes, brought: brought.collect() });
    }
    Ok(steps)
}

/// Each version at which a step ends, oldest first, with the versions of the changelog that it covers.
/// `versions` are all, newest first.
fn shares<'v>(
    versions: &[&'v str],
    [from, to]: [&str; 2],
    through: &[String],
) -> Vec<(&'v str, Vec<&'v str>)> {
    let between = versions.iter().skip_while(|v| **v != to).take_while(|v| **v != from);
    let mut shares = Vec::new();
    let mut covered = Vec::new();
    for version in between.collect::<Vec<_>>().into_iter().rev() {
        covered.push(*version);
        if *version == to || through.iter().any(|stop| stop == version) {
            shares.push((*version, std::mem::take(&mut covered)));
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_covers_the_versions_since_the_last() {
        let versions = ["6-1", "5-1", "4-1", "3-1", "2-1", "1-1"];
        let through = ["3-1".to_owned(), "1-1".to_owned(), "9-1".to_owned()];
        let found = shares(&versions, ["2-1", "5-1"], &through);
        assert_eq!(found, [("3-1", vec!["3-1"]), ("5-1", vec!["4-1", "5-1"])]);
    }
}
