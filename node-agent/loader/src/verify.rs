//! Whether what the agent passed may be loaded here. Nothing that the agent says is believed: the
//! proof must hold from a pinned root, and lead to exactly what was asked for, to exactly these
//! bytes, and to the kernel that runs.

use std::collections::BTreeSet;
use std::thread;

use invivo_feed::document::{BundleMechanism, ManifestModule, SetStatus};
use invivo_feed::{
    Clocks, Document, Floors, Offer, Proof, Proven, Rejection, RunningKernel, check_running, digest,
    verify_proof, verify_settled,
};
use invivo_terms::{BuildId, Digest, Level, Mechanism, Refusal, SetName};
use invivo_wire::{ApplyRequest, Fault, Signing};
use jiff::Timestamp;

use crate::journal::Loaded;
use crate::running::Running;
use crate::targets::{Changes, Target};

/// Ends every module that is signed for the kernel's own check.
const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";

/// Of verification: three times what it was seen to take.
const STACK: usize = 1 << 20;

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

/// Says what may be loaded on the kernel that runs. [`Pinned`] is the only one there is outside of
/// tests.
pub trait Verify: std::fmt::Debug {
    /// Verifies what an agent passed. The node's own floors decide; those that the agent knows from
    /// the cluster can only refuse more, and are not stored, so that an agent cannot shut a node off
    /// for good.
    ///
    /// # Errors
    ///
    /// The first refusal met.
    fn passed(&self, running: &Running, passed: &Passed<'_>) -> Result<Verified, Refused>;

    /// Verifies a level from the state folder. Its documents may have expired since, and newer ones
    /// may have been seen: going back to what this node has run is no new load. Everything else is
    /// checked as it was then.
    ///
    /// # Errors
    ///
    /// The first refusal met.
    fn kept(&self, running: &Running, loaded: &Loaded, proof: &[u8], module: &[u8]) -> Result<(), Refused>;
}

/// What an agent passed, and what it is measured by.
#[derive(Clone, Copy)]
pub struct Passed<'a> {
    /// The instruction.
    pub request: &'a ApplyRequest,
    /// As it came.
    pub proof: &'a [u8],
    /// As it came.
    pub module: &'a [u8],
    /// The node's own floors under a root.
    pub floors: &'a dyn Fn(&Digest) -> Floors,
    /// The wall clock.
    pub now: Timestamp,
}

/// By the digests of the trust documents that people pinned.
#[derive(Debug, Clone)]
pub struct Pinned(pub BTreeSet<Digest>);

/// A verified level, and the floors from now on.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The level.
    pub loaded: Loaded,
    /// The floors under its root.
    pub floors: Floors,
    /// The functions that it redirects.
    pub functions: Vec<String>,
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

impl Verify for Pinned {
    fn passed(&self, running: &Running, passed: &Passed<'_>) -> Result<Verified, Refused> {
        let request = passed.request;
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
        runs(running, wanted.build_id)?;
        let proof = parse(passed.proof)?;
        let root = self.root(&proof)?;
        let clocks = Clocks { own: passed.now, server: request.server_date };
        let floors = (passed.floors)(&root);
        let proven = apart(|| verify_proof(&proof, &root, &floors, clocks))?;
        proven.catalogue.floors().not_below(&request.floors)?;
        let found = leads_to(running, &wanted, &proven, &digest(&proof.manifest), passed.module)?;
        let loaded = Loaded {
            build_id: request.build_id.clone(),
            module: found.name.clone(),
            module_digest: found.sha256.clone(),
            level: request.level,
            set: request.set.clone(),
            set_digest: request.digest.clone(),
            manifest: request.manifest.clone(),
            complete: proven.manifest.complete,
            settle_after_seconds: request.settle_after_seconds,
            root,
            changes: changes(&found),
            allow_partial: request.allow_partial,
        };
        let functions = found.objects.into_iter().flat_map(|object| object.functions).collect();
        Ok(Verified { loaded, floors: proven.catalogue.floors().clone(), functions })
    }

    fn kept(&self, running: &Running, loaded: &Loaded, proof: &[u8], module: &[u8]) -> Result<(), Refused> {
        let wanted = Wanted {
            build_id: &loaded.build_id,
            level: loaded.level,
            set: &loaded.set,
            digest: &loaded.set_digest,
            manifest: &loaded.manifest,
        };
        runs(running, wanted.build_id)?;
        let proof = parse(proof)?;
        let root = self.root(&proof)?;
        let proven = apart(|| verify_settled(&proof, &root))?;
        let found = leads_to(running, &wanted, &proven, &digest(&proof.manifest), module)?;
        let same_targets = changes(&found).targets == loaded.changes.targets;
        if found.name == loaded.module && root == loaded.root && same_targets {
            Ok(())
        } else {
            Err(rejected(Refusal::MixAndMatch, Document::Module, "not the module that the journal names"))
        }
    }
}

impl Pinned {
    /// The digest of the proof's first document, if people pinned it.
    fn root(&self, proof: &Proof) -> Result<Digest, Refused> {
        let first = proof.trust.first().ok_or_else(|| {
            rejected(Refusal::WrongRoot, Document::Trust, "the proof begins with no trust document")
        })?;
        let root = digest(&first.document);
        if self.0.contains(&root) {
            Ok(root)
        } else {
            Err(rejected(Refusal::WrongRoot, Document::Trust, format!("{root} is not pinned on this node")))
        }
    }
}

/// On a stack of its own, which goes back to the system: signatures take some ten times of what the
/// loader needs otherwise, and a stack that has grown stays.
fn apart<T: Send>(judge: impl FnOnce() -> Result<T, Rejection> + Send) -> Result<T, Refused> {
    thread::scope(|scope| {
        let judging = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, judge);
        let judging = judging.map_err(|error| {
            Refused::Fault(Fault::NodeIo, format!("there is no thread to verify in: {error}"))
        })?;
        Ok(judging.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?)
    })
}

fn changes(module: &ManifestModule) -> Changes {
    let target = |(name, build_id): (_, &BuildId)| Target { name, build_id: build_id.clone() };
    Changes {
        kernel: module.objects.iter().any(|object| object.build_id.is_none()),
        targets: module.targets().map(target).collect(),
    }
}

/// The cheapest check first.
fn runs(running: &Running, build_id: &BuildId) -> Result<(), Refused> {
    if *build_id == running.kernel.build_id {
        return Ok(());
    }
    let detail = format!("meant for kernel build {build_id}, this kernel is {}", running.kernel.build_id);
    Err(rejected(Refusal::WrongKernel, Document::Kernel, detail))
}

fn parse(proof: &[u8]) -> Result<Proof, Refused> {
    serde_json::from_slice(proof).map_err(|error| {
        rejected(Refusal::Malformed, Document::Trust, format!("the proof does not parse: {error}"))
    })
}

/// A proof that holds leads to exactly what was asked for, to these bytes, to the kernel that runs.
fn leads_to(
    running: &Running,
    wanted: &Wanted<'_>,
    proven: &Proven,
    manifest_digest: &Digest,
    module: &[u8],
) -> Result<ManifestModule, Refused> {
    if manifest_digest != wanted.manifest {
        return Err(rejected(
            Refusal::MixAndMatch,
            Document::Manifest,
            "not the manifest that the instruction names",
        ));
    }
    let kernel = &running.kernel;
    let here = RunningKernel { build_id: &kernel.build_id, release: &kernel.release, arch: kernel.arch };
    check_running(&proven.manifest, here)?;
    brought_by(wanted, proven)?;
    if !kernel.supports.contains(&Mechanism::Livepatch)
        || !proven.manifest.mechanisms.contains(&BundleMechanism::Livepatch)
    {
        return Err(Refused::Fault(
            Fault::NoLivepatch,
            "kernel or bundle has no upstream livepatch".to_owned(),
        ));
    }
    let [named] = proven.manifest.modules.as_slice() else {
        return Err(rejected(Refusal::Malformed, Document::Manifest, "exactly one module is supported"));
    };
    proven.module(&named.name, module)?;
    let missing = match kernel.signing {
        Signing::Off => None,
        Signing::Enforced => Some(Fault::ModuleSigningKeyMissing),
        Signing::Lockdown => Some(Fault::Lockdown),
    };
    if let Some(fault) = missing.filter(|_| !module.ends_with(SIGNATURE_MARK)) {
        let detail =
            "the kernel takes only modules signed by a key that it trusts; this one has no signature";
        return Err(Refused::Fault(fault, detail.to_owned()));
    }
    Ok(named.clone())
}

/// The wanted set is the instruction's, still active, and brings this level to the build: itself,
/// or, where it does not touch the build, by an active set before it that does.
fn brought_by(wanted: &Wanted<'_>, proven: &Proven) -> Result<(), Refused> {
    let index = proven.catalogue.index();
    let mismatch = |detail: String| Err(rejected(Refusal::MixAndMatch, Document::Index, detail));
    let Some(set) = index.set(wanted.set) else {
        return mismatch(format!("no set {}", wanted.set));
    };
    if set.digest() != *wanted.digest {
        return mismatch(format!("set {} is not the one that the instruction names", wanted.set));
    }
    match set.status {
        SetStatus::Active => {}
        SetStatus::Withdrawn => {
            return Err(rejected(Refusal::Withdrawn, Document::Index, format!("set {}", wanted.set)));
        }
    }
    // Which of the sets before it the feed takes, agent and operator know; any that is active will do.
    let active = |offer: &Offer<'_>| offer.set.name == set.name || offer.set.status == SetStatus::Active;
    let asked =
        |offer: &Offer<'_>| offer.kernel.level == wanted.level && offer.kernel.manifest == *wanted.manifest;
    let touched = set.kernels.contains_key(wanted.build_id);
    let origins = index.origins(wanted.set, wanted.build_id).filter(active);
    let mut found = origins.take(if touched { 1 } else { usize::MAX }).peekable();
    match found.peek().map(|offer| offer.kernel.level) {
        Some(_) if found.any(|offer| asked(&offer)) => Ok(()),
        Some(level) => mismatch(format!("set {} brings level {level}", wanted.set)),
        None => mismatch(format!("set {} brings nothing to this build", wanted.set)),
    }
}
