//! `invivo verify`: the whole way from the pinned root to every module, as a node would go it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use invivo_feed::document::{KernelDocument, LevelEntry, SetEntry, SetStatus};
use invivo_feed::{Catalogue, check_module};
use invivo_terms::{BuildId, Digest, Level, RepositoryName, SetName};
use invivo_transport::Options;
use jiff::Timestamp;
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::output::{self, Format};
use crate::repo::{channel_name, status_name};
use crate::source::Source;
use crate::table::{Table, printable};
use crate::time::relative;

/// `invivo verify`
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// The repository: a URL, or a folder.
    repository: String,
    /// The digest of trust/1.json, from the repository's owner by another way than the repository.
    #[arg(long)]
    root: Digest,
    /// PEM file with certificates to trust besides the usual ones.
    #[arg(long, env = "INVIVO_EXTRA_CA")]
    extra_ca: Option<PathBuf>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// When.
    pub now: Timestamp,
    /// The repository's name.
    pub repository: RepositoryName,
    /// Version of the trust document.
    pub trust: u64,
    /// Version of the index.
    pub index: u64,
    /// Version of the timestamp.
    pub timestamp: u64,
    /// When the first of them expires.
    pub expires: Timestamp,
    /// The sets.
    pub sets: Vec<SetEntry>,
    /// Every level of every kernel build.
    pub levels: Vec<LevelLine>,
    /// Whether every bundle that may be loaded was verified.
    pub good: bool,
}

/// One level of one kernel build.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LevelLine {
    /// The build.
    pub build_id: BuildId,
    /// Its release.
    pub release: String,
    /// The level; none where the kernel document itself was refused.
    pub level: Option<Level>,
    /// The set.
    pub set: Option<SetName>,
    /// What it closes.
    pub fixes: Vec<String>,
    /// Length of the bundle in bytes.
    pub bytes: Option<u64>,
    /// `Verified`, `Withdrawn`, a named refusal or `Unreachable`.
    pub result: String,
    /// What was wrong, for people.
    pub detail: Option<String>,
}

/// Verifies and answers.
///
/// # Errors
///
/// The repository does not answer, or a document on the way was refused.
pub async fn run(arguments: &VerifyArguments, now: Timestamp) -> Result<Exit, Failure> {
    let extra_ca = match &arguments.extra_ca {
        Some(path) => Some(crate::repo::file(path, "read --extra-ca", 1 << 20)?),
        None => None,
    };
    let options = Options { minimum_rate: 1024, deadline: Duration::from_mins(5), extra_ca };
    let source = Source::look(&arguments.repository, &arguments.root, options, now).await?;
    let verified = everything(&source, now).await;
    output::print(arguments.output, &verified)?;
    Ok(if verified.good { Exit::Done } else { Exit::Refused })
}

/// Fetches and checks all that the catalogue leads to; what is refused becomes a line, not an end.
async fn everything(source: &Source, now: Timestamp) -> Verified {
    let catalogue = source.catalogue();
    let mut levels = Vec::new();
    for (build, reference) in &catalogue.index().kernels {
        let document = match source.kernel(build).await {
            Ok(bytes) => catalogue.kernel(build, &bytes).map_err(Failure::from),
            Err(failure) => Err(failure),
        };
        match document {
            Ok(document) => {
                for level in &document.levels {
                    levels.push(one(source, catalogue, &document, level).await);
                }
            }
            Err(failure) => levels.push(LevelLine {
                build_id: build.clone(),
                release: reference.release.clone(),
                level: None,
                set: None,
                fixes: Vec::new(),
                bytes: None,
                result: result(&failure),
                detail: Some(failure.message),
            }),
        }
    }
    let floors = catalogue.floors();
    Verified {
        now,
        repository: catalogue.index().repository.clone(),
        trust: floors.trust,
        index: floors.index,
        timestamp: floors.timestamp,
        expires: catalogue.expires(),
        sets: catalogue.index().sets.clone(),
        good: levels.iter().all(|l| matches!(l.result.as_str(), "Verified" | "Withdrawn")),
        levels,
    }
}

async fn one(
    source: &Source,
    catalogue: &Catalogue,
    document: &KernelDocument,
    level: &LevelEntry,
) -> LevelLine {
    let withdrawn =
        catalogue.index().sets.iter().any(|set| set.name == level.set && set.status == SetStatus::Withdrawn);
    let (result, detail) = if withdrawn {
        ("Withdrawn".to_owned(), None)
    } else {
        match check(source, catalogue, document, level).await {
            Ok(()) => ("Verified".to_owned(), None),
            Err(failure) => (result(&failure), Some(failure.message)),
        }
    };
    LevelLine {
        build_id: document.kernel.build_id.clone(),
        release: document.kernel.release.clone(),
        level: Some(level.level),
        set: Some(level.set.clone()),
        fixes: level.fixes.iter().map(|fix| fix.cve.clone()).collect(),
        bytes: Some(level.bundle.length),
        result,
        detail,
    }
}

/// The bundle, its manifest, every module.
async fn check(
    source: &Source,
    catalogue: &Catalogue,
    document: &KernelDocument,
    level: &LevelEntry,
) -> Result<(), Failure> {
    let bundle = source.bundle(level).await?;
    let unpacked = invivo_bundle::unpack(&bundle)?;
    let manifest = catalogue.manifest(document, level.level, &unpacked.manifest)?;
    for module in &manifest.modules {
        let bytes = crate::bundle::module(&unpacked, &module.name)?;
        check_module(&manifest, &module.name, bytes)?;
    }
    Ok(())
}

/// The name of a refusal, as far as one was given.
fn result(failure: &Failure) -> String {
    match (&failure.refusal, failure.exit) {
        (Some(refusal), _) => refusal.to_string(),
        (None, Exit::Unreachable) => "Unreachable".to_owned(),
        (
            None,
            Exit::Done
            | Exit::Error
            | Exit::Usage
            | Exit::Refused
            | Exit::Missing
            | Exit::Denied
            | Exit::Trouble,
        ) => "Error".to_owned(),
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "repository {}: trust {}, index {}, timestamp {}, expires {}",
            self.repository,
            self.trust,
            self.index,
            self.timestamp,
            relative(self.now, self.expires)
        )?;
        let mut sets = Table::new(&["SET", "CHANNEL", "STATUS", "RELEASED", "KERNELS", "SUMMARY"]);
        for set in &self.sets {
            sets.row([
                set.name.to_string(),
                channel_name(set.channel).to_owned(),
                status_name(set.status).to_owned(),
                relative(self.now, set.released),
                set.kernels.len().to_string(),
                set.summary.clone(),
            ]);
        }
        write!(f, "\n{sets}")?;
        let mut levels = Table::new(&["KERNEL", "BUILD", "LEVEL", "SET", "BYTES", "FIXES", "RESULT"]);
        for level in &self.levels {
            levels.row([
                level.release.clone(),
                level.build_id.as_str().chars().take(12).collect(),
                level.level.map(|l| l.to_string()).unwrap_or_default(),
                level.set.as_ref().map(ToString::to_string).unwrap_or_default(),
                level.bytes.map(|b| b.to_string()).unwrap_or_default(),
                level.fixes.join(" "),
                level.result.clone(),
            ]);
        }
        write!(f, "\n{levels}")?;
        for detail in self.levels.iter().filter_map(|level| level.detail.as_deref()) {
            for line in detail.lines() {
                writeln!(f, "{}", printable(line))?;
            }
        }
        Ok(())
    }
}
