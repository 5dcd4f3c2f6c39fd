//! Whether what the agent passed may be loaded here. Nothing that the agent says is believed: the
//! proof must hold from a pinned root, and lead to exactly what was asked for, to exactly these
//! bytes, and to the kernel that runs.

use std::collections::BTreeSet;

use invivo_feed::document::{BundleMechanism, Index, Manifest, ManifestModule, SetStatus};
use invivo_feed::{Clocks, Document, Floors, Proof, Proven, Rejection, digest, verify_proof};
use invivo_terms::{BuildId, Digest, Level, Mechanism, Refusal, SetName};
use invivo_wire::{ApplyRequest, Fault, Signing};
use jiff::Timestamp;

use crate::journal::Loaded;
use crate::module::{Modinfo, is_signed, modinfo};
use crate::running::Running;

/// Why it may not be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A named refusal.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Something about this node.
    #[error("{1}")]
    Fault(Fault, String),
}

/// What this node goes by.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The roots that people pinned.
    pub roots: &'a BTreeSet<Digest>,
    /// The kernel that runs.
    pub running: &'a Running,
}

/// A verified level, and the floors from now on.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The level.
    pub loaded: Loaded,
    /// The floors under its root.
    pub floors: Floors,
}

/// What the proof must lead to.
struct Wanted<'a> {
    build_id: &'a BuildId,
    level: Level,
    set: &'a SetName,
    digest: &'a Digest,
    manifest: &'a Digest,
}

fn rejected(refusal: Refusal, document: Document, detail: impl Into<String>) -> Refused {
    Refused::Rejected(Rejection::new(refusal, document, detail))
}

/// Verifies what an agent passed.
///
/// # Errors
///
/// The first refusal met.
pub fn passed(
    ground: Ground<'_>,
    request: &ApplyRequest,
    own_floors: impl Fn(&Digest) -> Floors,
    now: Timestamp,
    proof: &[u8],
    module: &[u8],
) -> Result<Verified, Refused> {
    let wanted = Wanted {
        build_id: &request.build_id,
        level: request.level,
        set: &request.set,
        digest: &request.digest,
        manifest: &request.manifest,
    };
    match request.mechanism {
        Mechanism::Livepatch => {}
    }
    let proof = parse(proof)?;
    let root = pinned_root(ground.roots, &proof)?;
    let floors = raised(own_floors(&root), &request.floors);
    let clocks = Clocks { own: now, server: request.server_date };
    let (proven, found) = hold(ground, &wanted, &proof, &root, &floors, clocks, module)?;
    let loaded = Loaded {
        build_id: request.build_id.clone(),
        module: found.name,
        module_digest: found.sha256,
        level: request.level,
        set: request.set.clone(),
        set_digest: request.digest.clone(),
        manifest: request.manifest.clone(),
        complete: proven.manifest.complete,
        settle_after_seconds: request.settle_after_seconds,
        root,
        verified_at: clocks.later(),
        floors,
    };
    Ok(Verified { loaded, floors: proven.catalogue.floors().clone() })
}

/// Verifies a level from the state folder. Its documents may have expired since: going back to
/// what this node has run is no new load. So it is judged by the clock and the floors of the time
/// when it was new. Everything else is checked as it was then.
///
/// # Errors
///
/// The first refusal met.
pub fn kept(ground: Ground<'_>, loaded: &Loaded, proof: &[u8], module: &[u8]) -> Result<(), Refused> {
    let wanted = Wanted {
        build_id: &loaded.build_id,
        level: loaded.level,
        set: &loaded.set,
        digest: &loaded.set_digest,
        manifest: &loaded.manifest,
    };
    let proof = parse(proof)?;
    let root = pinned_root(ground.roots, &proof)?;
    let clocks = Clocks { own: loaded.verified_at, server: None };
    let (_, found) = hold(ground, &wanted, &proof, &root, &loaded.floors, clocks, module)?;
    if found.name == loaded.module && root == loaded.root {
        Ok(())
    } else {
        Err(rejected(Refusal::MixAndMatch, Document::Module, "not the module that the journal names"))
    }
}

fn parse(proof: &[u8]) -> Result<Proof, Refused> {
    serde_json::from_slice(proof)
        .map_err(|error| rejected(Refusal::Malformed, Document::Trust, format!("the proof does not parse: {error}")))
}

/// The digest of the proof's first document, if people pinned it.
fn pinned_root(roots: &BTreeSet<Digest>, proof: &Proof) -> Result<Digest, Refused> {
    let first = proof
        .trust
        .first()
        .ok_or_else(|| rejected(Refusal::WrongRoot, Document::Trust, "the proof begins with no trust document"))?;
    let root = digest(&first.document);
    if roots.contains(&root) {
        Ok(root)
    } else {
        Err(rejected(Refusal::WrongRoot, Document::Trust, format!("{root} is not pinned on this node")))
    }
}

/// The node's own floors, raised by what the agent knows from the cluster. Only for this judgement:
/// what is stored are the versions of documents that were verified here, so that an agent cannot
/// shut a node off for good.
fn raised(own: Floors, agents: &Floors) -> Floors {
    let same = match (&own.repository, &agents.repository) {
        (Some(own), Some(agents)) => own == agents,
        (None, Some(_)) => true,
        (Some(_) | None, None) => false,
    };
    if !same {
        return own;
    }
    Floors {
        repository: agents.repository.clone(),
        trust: own.trust.max(agents.trust),
        index: own.index.max(agents.index),
        timestamp: own.timestamp.max(agents.timestamp),
    }
}

fn hold(
    ground: Ground<'_>,
    wanted: &Wanted<'_>,
    proof: &Proof,
    root: &Digest,
    floors: &Floors,
    clocks: Clocks,
    module: &[u8],
) -> Result<(Proven, ManifestModule), Refused> {
    let kernel = &ground.running.kernel;
    if *wanted.build_id != kernel.build_id {
        let detail = format!("meant for kernel build {}, this kernel is {}", wanted.build_id, kernel.build_id);
        return Err(rejected(Refusal::WrongKernel, Document::Kernel, detail));
    }
    let proven = verify_proof(proof, root, floors, clocks)?;
    if digest(&proof.manifest) != *wanted.manifest {
        return Err(rejected(Refusal::MixAndMatch, Document::Manifest, "not the manifest that the instruction names"));
    }
    runs_here(ground.running, &proven.manifest)?;
    let provider = provider(proven.catalogue.index(), wanted)?;
    if proven.catalogue.set_digest(wanted.set).as_ref() != Some(wanted.digest) {
        return Err(rejected(Refusal::MixAndMatch, Document::Index, "the set is not the one that the instruction names"));
    }
    if proven.manifest.level != wanted.level || proven.manifest.set != *provider {
        let detail = format!("of set {} and level {}", proven.manifest.set, proven.manifest.level);
        return Err(rejected(Refusal::MixAndMatch, Document::Manifest, detail));
    }
    let found = same_module(ground.running, &proven.manifest, module)?;
    Ok((proven, found))
}

/// The manifest is for the kernel that runs, and by a way that this kernel has.
fn runs_here(running: &Running, manifest: &Manifest) -> Result<(), Refused> {
    let (here, there) = (&running.kernel, &manifest.kernel);
    if (&here.build_id, &here.release, here.arch) != (&there.build_id, &there.release, there.arch) {
        let detail = format!("for {} ({}), this kernel is {} ({})", there.release, there.build_id, here.release, here.build_id);
        return Err(rejected(Refusal::WrongKernel, Document::Manifest, detail));
    }
    if !here.supports.contains(&Mechanism::Livepatch) || !manifest.mechanisms.contains(&BundleMechanism::Livepatch) {
        return Err(Refused::Fault(Fault::NoLivepatch, "kernel or bundle has no upstream livepatch".to_owned()));
    }
    Ok(())
}

/// The set that brings the level to this build: the wanted set, or, where that does not touch the
/// build, the last active one before it that does. Withdrawn sets bring nothing.
fn provider<'a>(index: &'a Index, wanted: &Wanted<'_>) -> Result<&'a SetName, Refused> {
    let at = index
        .sets
        .iter()
        .position(|set| set.name == *wanted.set)
        .ok_or_else(|| rejected(Refusal::MixAndMatch, Document::Index, format!("no set {}", wanted.set)))?;
    let mut up_to_it = index.sets.iter().take(at + 1).rev();
    if up_to_it.clone().next().is_some_and(|set| set.status == SetStatus::Withdrawn) {
        return Err(rejected(Refusal::Withdrawn, Document::Index, format!("set {}", wanted.set)));
    }
    let (name, brings) = up_to_it
        .find_map(|set| match set.status {
            SetStatus::Active => Some((&set.name, set.kernels.get(wanted.build_id)?)),
            SetStatus::Withdrawn => None,
        })
        .ok_or_else(|| rejected(Refusal::WrongKernel, Document::Index, "no set brings anything to this build"))?;
    if brings.level == wanted.level && brings.manifest == *wanted.manifest {
        Ok(name)
    } else {
        Err(rejected(Refusal::MixAndMatch, Document::Index, format!("set {} brings level {}", wanted.set, brings.level)))
    }
}

/// The bytes are those of the manifest's module, and say the same of themselves.
fn same_module(running: &Running, manifest: &Manifest, module: &[u8]) -> Result<ManifestModule, Refused> {
    let [named] = manifest.modules.as_slice() else {
        return Err(rejected(Refusal::Malformed, Document::Manifest, "exactly one module is supported"));
    };
    if module.len() as u64 != named.length || digest(module) != named.sha256 {
        return Err(rejected(Refusal::ArbitrarySoftware, Document::Module, "not the bytes that the manifest names"));
    }
    if named.name.level() != manifest.level {
        return Err(rejected(Refusal::Malformed, Document::Manifest, "the module's name carries another level"));
    }
    let says = modinfo(module).map_err(|error| rejected(Refusal::Malformed, Document::Module, error.to_string()))?;
    agrees(&says, manifest, named)?;
    let demands_signature = match running.kernel.signing {
        Signing::Off => false,
        Signing::Enforced | Signing::Lockdown => true,
    };
    if demands_signature && !is_signed(module) {
        let detail = "the kernel takes only modules signed by a key that it trusts; this one has no signature";
        return Err(rejected(Refusal::LoadRefused, Document::Module, detail));
    }
    Ok(named.clone())
}

fn agrees(says: &Modinfo, manifest: &Manifest, named: &ManifestModule) -> Result<(), Refused> {
    let release = says.vermagic.split(' ').next().unwrap_or_default();
    if says.vermagic != manifest.vermagic
        || release != manifest.kernel.release
        || says.build_id != manifest.kernel.build_id.as_str()
    {
        let detail = format!("modinfo is for {} ({})", release, says.build_id);
        return Err(rejected(Refusal::WrongKernel, Document::Module, detail));
    }
    let same = says.name == named.name.as_str()
        && says.level == manifest.level.to_string()
        && says.set == manifest.set.as_str();
    if !same {
        let detail = format!("modinfo says {}, level {}, set {}", says.name, says.level, says.set);
        return Err(rejected(Refusal::MixAndMatch, Document::Module, detail));
    }
    if says.livepatch != "Y" || says.abi != "1" {
        return Err(rejected(Refusal::Malformed, Document::Module, "not a patch module of a form known here"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floors(repository: Option<&str>, trust: u64, index: u64) -> Floors {
        Floors { repository: repository.map(|name| name.parse().unwrap()), trust, index, timestamp: index }
    }

    #[test]
    fn the_cluster_raises_floors_and_never_lowers_them() {
        let own = floors(Some("example"), 2, 9);
        assert_eq!(raised(own.clone(), &floors(Some("example"), 3, 4)), floors(Some("example"), 3, 9));
        assert_eq!(raised(own.clone(), &floors(Some("other"), 9, 99)), own);
        assert_eq!(raised(own.clone(), &floors(None, 9, 99)), own);
        assert_eq!(raised(Floors::default(), &floors(Some("example"), 1, 5)), floors(Some("example"), 1, 5));
    }
}
