//! From bytes to documents: caps, purpose, form. Signatures are checked before this.

use std::collections::{BTreeMap, BTreeSet};

use invivo_terms::{Digest, Refusal, RepositoryName, TargetName};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::document::{
    FileReference, Index, KernelDocument, LevelEntry, Manifest, PatchedObject, Role, TimestampDocument,
    Trust, cap, life,
};
use crate::{Document, Rejection, digest};

/// The highest version: every JSON reader and every Kubernetes integer holds it exactly.
pub const MAX_VERSION: u64 = 1 << 53;
/// The most sets in an index.
pub const MAX_SETS: usize = 10_000;
/// The most levels of a kernel build that its document lists.
pub const MAX_LEVELS: usize = 1_000;
/// The most modules of one level. One, today; a level for several objects may need more.
pub const MAX_MODULES: usize = 8;
/// The most parts of the kernel that one module changes; what the module itself can leave out again.
pub const MAX_OBJECTS: usize = 128;
/// The longest summary of a set, in characters.
pub const MAX_SUMMARY: usize = 1_024;

/// What every signed document begins with, whatever its kind.
#[derive(Deserialize)]
struct Head {
    r#type: String,
    repository: String,
}

/// Refuses bytes over the kind's cap.
pub(crate) fn within(document: Document, bytes: &[u8], limit: u64) -> Result<(), Rejection> {
    if bytes.len() as u64 > limit {
        return Err(Rejection::new(
            Refusal::EndlessData,
            document,
            format!("{} bytes, {limit} allowed", bytes.len()),
        ));
    }
    Ok(())
}

/// Refuses bytes that are not the file named.
pub(crate) fn named(
    document: Document,
    bytes: &[u8],
    length: u64,
    sha256: &Digest,
    otherwise: Refusal,
) -> Result<(), Rejection> {
    within(document, bytes, length)?;
    let found = digest(bytes);
    if bytes.len() as u64 != length || found != *sha256 {
        let detail = format!("{} bytes with digest {found}, named are {length} with {sha256}", bytes.len());
        return Err(Rejection::new(otherwise, document, detail));
    }
    Ok(())
}

/// Parses strictly.
pub(crate) fn parse<T: DeserializeOwned>(document: Document, bytes: &[u8]) -> Result<T, Rejection> {
    serde_json::from_slice(bytes)
        .map_err(|error| Rejection::new(Refusal::Malformed, document, error.to_string()))
}

/// Type and repository first, so that a document for another purpose is called that and not malformed.
pub(crate) fn purpose(
    document: Document,
    bytes: &[u8],
    role: Role,
    repository: Option<&RepositoryName>,
) -> Result<(), Rejection> {
    let head: Head = parse(document, bytes)?;
    if head.r#type != role.as_str() {
        let detail = format!("its type is {:.32}, wanted is {}", head.r#type, role.as_str());
        return Err(Rejection::new(Refusal::SignatureConfusion, document, detail));
    }
    if let Some(repository) = repository.filter(|wanted| wanted.as_str() != head.repository) {
        let detail = format!("it is of repository {:.64}, wanted is {repository}", head.repository);
        return Err(Rejection::new(Refusal::SignatureConfusion, document, detail));
    }
    Ok(())
}

/// Parses a trust document whose purpose is established.
pub(crate) fn trust(bytes: &[u8]) -> Result<Trust, Rejection> {
    let trust: Trust = parse(Document::Trust, bytes)?;
    version(Document::Trust, trust.version)?;
    if !(1..=life::TIMESTAMP).contains(&trust.timestamp_days) {
        return Err(malformed(
            Document::Trust,
            format!("timestampDays is {}, allowed are 1 to {}", trust.timestamp_days, life::TIMESTAMP),
        ));
    }
    Ok(trust)
}

/// Parses a timestamp whose purpose is established.
pub(crate) fn timestamp(bytes: &[u8]) -> Result<TimestampDocument, Rejection> {
    let timestamp: TimestampDocument = parse(Document::Timestamp, bytes)?;
    version(Document::Timestamp, timestamp.version)?;
    version(Document::Index, timestamp.index.version)?;
    if timestamp.index.length > cap::INDEX {
        return Err(Rejection::new(
            Refusal::EndlessData,
            Document::Index,
            "the timestamp names one longer than the cap",
        ));
    }
    Ok(timestamp)
}

/// Parses an index whose purpose is established.
pub(crate) fn index(bytes: &[u8]) -> Result<Index, Rejection> {
    let index: Index = parse(Document::Index, bytes)?;
    version(Document::Index, index.version)?;
    if index.sets.len() > MAX_SETS {
        return Err(malformed(Document::Index, format!("{} sets, {MAX_SETS} allowed", index.sets.len())));
    }
    let mut names = BTreeSet::new();
    let mut levels = BTreeMap::new();
    for set in &index.sets {
        if !names.insert(&set.name) {
            return Err(malformed(Document::Index, format!("set {} stands twice", set.name)));
        }
        if set.summary.chars().count() > MAX_SUMMARY {
            return Err(malformed(Document::Index, format!("the summary of set {} is too long", set.name)));
        }
        for (build, kernel) in &set.kernels {
            if !index.kernels.contains_key(build) {
                return Err(malformed(
                    Document::Index,
                    format!("set {} is for {build}, which has no document", set.name),
                ));
            }
            let before = levels.insert(build, kernel.level.0).unwrap_or(0);
            if kernel.level.0 <= before {
                return Err(malformed(
                    Document::Index,
                    format!("set {}: levels of {build} do not rise", set.name),
                ));
            }
        }
    }
    for (build, kernel) in &index.kernels {
        if kernel.length > cap::KERNEL {
            return Err(malformed(
                Document::Index,
                format!("the document of {build} is longer than its cap"),
            ));
        }
    }
    Ok(index)
}

/// Parses a kernel document whose bytes are the ones named.
pub(crate) fn kernel(bytes: &[u8]) -> Result<KernelDocument, Rejection> {
    let kernel: KernelDocument = parse(Document::Kernel, bytes)?;
    let rising = kernel.levels.is_sorted_by(|a, b| a.level < b.level);
    if !rising || kernel.levels.len() > MAX_LEVELS || kernel.levels.iter().any(|entry| entry.level.0 == 0) {
        return Err(malformed(Document::Kernel, "levels must rise from 1, at most 1,000 of them"));
    }
    kernel.levels.iter().try_for_each(level)?;
    Ok(kernel)
}

fn level(entry: &LevelEntry) -> Result<(), Rejection> {
    let names: BTreeSet<_> = entry.modules.iter().map(|module| &module.name).collect();
    if entry.modules.is_empty() || entry.modules.len() > MAX_MODULES || names.len() != entry.modules.len() {
        return Err(malformed(
            Document::Kernel,
            format!("level {}: 1 to {MAX_MODULES} modules, each once", entry.level),
        ));
    }
    let over = |file: &FileReference, limit| file.length > limit;
    if over(&entry.manifest, cap::MANIFEST)
        || over(&entry.bundle, cap::BUNDLE)
        || entry.modules.iter().any(|module| module.length > cap::MODULE)
    {
        return Err(malformed(Document::Kernel, format!("level {}: a file over its cap", entry.level)));
    }
    Ok(())
}

/// Parses a manifest whose bytes are the ones named.
pub(crate) fn manifest(bytes: &[u8]) -> Result<Manifest, Rejection> {
    let manifest: Manifest = parse(Document::Manifest, bytes)?;
    manifest.modules.iter().try_for_each(|module| objects(&module.objects))?;
    Ok(manifest)
}

/// The kernel itself is told by its build id already; every other object is a module with its own.
fn objects(objects: &[PatchedObject]) -> Result<(), Rejection> {
    let bad = |detail: String| Err(malformed(Document::Manifest, detail));
    if objects.len() > MAX_OBJECTS {
        return bad(format!("{} objects, {MAX_OBJECTS} allowed", objects.len()));
    }
    let mut names = BTreeSet::new();
    for object in objects {
        let name = &object.name;
        let is_kernel = name == "vmlinux";
        if !is_kernel && let Err(error) = name.parse::<TargetName>() {
            return bad(error.to_string());
        }
        if !names.insert(name) {
            return bad(format!("object {name} stands twice"));
        }
        if is_kernel == object.build_id.is_some() {
            return bad(format!("object {name}: a module has a build id of its own, and only a module"));
        }
    }
    Ok(())
}

fn version(document: Document, version: u64) -> Result<(), Rejection> {
    if version == 0 || version > MAX_VERSION {
        return Err(malformed(document, format!("version {version} is not in 1 to 2^53")));
    }
    Ok(())
}

fn malformed(document: Document, detail: impl Into<String>) -> Rejection {
    Rejection::new(Refusal::Malformed, document, detail)
}
