//! The workflow: fix the start time; walk the trust chain; timestamp; index; kernel document;
//! manifest; modules. Each step takes bytes and gives the next step or a named rejection.

use std::sync::Arc;

use invivo_terms::{BuildId, Digest, Level, ModuleName, Refusal};
use jiff::{SignedDuration, Timestamp};

use crate::document::{
    Index, IndexReference, KernelDocument, LevelEntry, Manifest, Role, SetStatus, TimestampDocument, Trust,
    cap, life,
};
use crate::keyring::Keyring;
use crate::{Clocks, Document, Floors, Proof, Rejection, Signed, agree, modinfo, read, signature};

/// How far a version may be above its floor. A timestamp made every minute takes two years for
/// that; a thief who jumps further, to lock everybody out, is refused and leaves no trace.
/// Only removing a key of the role by a higher trust version starts its floor anew.
pub const MAX_JUMP: u64 = 1_000_000;
/// How much longer than its kind allows a document may live, counted from its signatures: the
/// clocks of those who write and of those who sign it differ.
const SLACK: SignedDuration = SignedDuration::from_hours(1);

/// The current trust document, reached from the pinned root.
#[derive(Debug, Clone)]
pub struct Client {
    trust: Trust,
    keyring: Arc<Keyring>,
    floors: Floors,
    now: Option<Timestamp>,
    /// Length of the chain so far, with its signatures.
    length: u64,
}

/// A client that also knows the current timestamp.
#[derive(Debug, Clone)]
pub struct Timestamped {
    client: Client,
    timestamp: TimestampDocument,
}

/// A verified index: what the repository offers now.
#[derive(Debug, Clone)]
pub struct Catalogue {
    timestamped: Timestamped,
    index: Index,
}

/// A whole proof that held.
#[derive(Debug, Clone)]
pub struct Proven {
    /// What the repository offers, and the new floors.
    pub catalogue: Catalogue,
    /// The kernel build's document.
    pub kernel: KernelDocument,
    /// The level that the manifest is of.
    pub level: LevelEntry,
    /// The manifest.
    pub manifest: Manifest,
}

impl Client {
    /// Begins with `trust/1.json` and the digest that people pinned for it.
    ///
    /// `floors` must be of this very repository (or the default, where nothing was seen yet):
    /// floors of another are refused as `SignatureConfusion` rather than forgotten.
    ///
    /// # Errors
    ///
    /// `WrongRoot`, and every refusal of a signed document.
    pub fn begin(root: &Digest, floors: &Floors, clocks: Clocks, first: &Signed) -> Result<Self, Rejection> {
        Self::start(root, floors, Some(clocks.later()), first)
    }

    /// Without `now` no date is judged.
    fn start(
        root: &Digest,
        floors: &Floors,
        now: Option<Timestamp>,
        first: &Signed,
    ) -> Result<Self, Rejection> {
        read::within(Document::Trust, &first.document, cap::TRUST)?;
        let length = chain(0, first)?;
        let found = crate::digest(&first.document);
        if found != *root {
            let detail = format!("trust/1.json has digest {found}, pinned is {root}");
            return Err(Rejection::new(Refusal::WrongRoot, Document::Trust, detail));
        }
        read::purpose(Document::Trust, &first.document, Role::Trust, floors.repository.as_ref())?;
        let trust = read::trust(&first.document)?;
        if trust.version != 1 {
            let detail = format!("the pinned root has version {}, wanted is 1", trust.version);
            return Err(Rejection::new(Refusal::WrongRoot, Document::Trust, detail));
        }
        let keyring = Keyring::read(&trust)?;
        let signed = signature::check(&keyring, Role::Trust, Document::Trust, first, now)?;
        lives_at_most(Document::Trust, trust.expires, signed, life::TRUST)?;
        Ok(Self { trust, keyring: Arc::new(keyring), floors: floors.clone(), now, length })
    }

    /// The current trust document.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The version of the trust document to ask for next; absence of that file ends the walk.
    pub fn next_trust(&self) -> u64 {
        self.trust.version.saturating_add(1)
    }

    /// Follows one rotation. Signed by the thresholds of the old and of the new keys.
    ///
    /// # Errors
    ///
    /// Every refusal of a signed document; `EndlessData` for a chain over its cap.
    pub fn rotate(self, next: &Signed) -> Result<Self, Rejection> {
        if self.trust.version >= cap::TRUST_CHAIN as u64 {
            return Err(Rejection::new(
                Refusal::EndlessData,
                Document::Trust,
                "the trust chain is over its cap",
            ));
        }
        read::within(Document::Trust, &next.document, cap::TRUST)?;
        let length = chain(self.length, next)?;
        let signed = signature::check(&self.keyring, Role::Trust, Document::Trust, next, self.now)?;
        read::purpose(Document::Trust, &next.document, Role::Trust, Some(&self.trust.repository))?;
        let trust = read::trust(&next.document)?;
        let wanted = self.next_trust();
        if trust.version != wanted {
            let refusal = if trust.version < wanted { Refusal::Rollback } else { Refusal::FastForward };
            let detail = format!("version {}, wanted is {wanted}", trust.version);
            return Err(Rejection::new(refusal, Document::Trust, detail));
        }
        let keyring = Keyring::read(&trust)?;
        signature::check(&keyring, Role::Trust, Document::Trust, next, self.now)?;
        lives_at_most(Document::Trust, trust.expires, signed, life::TRUST)?;
        let mut floors = self.floors;
        if trust.version > floors.trust {
            if self.keyring.retires(Role::Index, &keyring) {
                floors.index = 0;
            }
            if self.keyring.retires(Role::Timestamp, &keyring) {
                floors.timestamp = 0;
            }
        }
        Ok(Self { trust, keyring: Arc::new(keyring), floors, now: self.now, length })
    }

    /// The floors after the walk so far; may be stored even where a later step refuses.
    pub fn floors(&self) -> Floors {
        Floors {
            repository: Some(self.trust.repository.clone()),
            trust: self.floors.trust.max(self.trust.version),
            ..self.floors.clone()
        }
    }

    /// Ends the walk and takes the timestamp.
    ///
    /// # Errors
    ///
    /// Every refusal of a signed document; `Expired` also where the trust document is past its date.
    pub fn timestamp(mut self, timestamp: &Signed) -> Result<Timestamped, Rejection> {
        if self.trust.version < self.floors.trust {
            return Err(older(Document::Trust, self.trust.version, self.floors.trust));
        }
        self.alive(Document::Trust, self.trust.expires)?;
        self.floors = self.floors();
        let (document, role) = (Document::Timestamp, Role::Timestamp);
        read::within(document, &timestamp.document, cap::TIMESTAMP)?;
        let signed = signature::check(&self.keyring, role, document, timestamp, self.now)?;
        read::purpose(document, &timestamp.document, role, Some(&self.trust.repository))?;
        let timestamp = read::timestamp(&timestamp.document)?;
        in_range(document, timestamp.version, self.floors.timestamp)?;
        in_range(Document::Index, timestamp.index.version, self.floors.index)?;
        lives_at_most(document, timestamp.expires, signed, self.trust.timestamp_days)?;
        self.alive(document, timestamp.expires)?;
        self.floors.timestamp = timestamp.version;
        Ok(Timestamped { client: self, timestamp })
    }

    fn alive(&self, document: Document, expires: Timestamp) -> Result<(), Rejection> {
        match self.now {
            Some(now) if expires <= now => {
                Err(Rejection::new(Refusal::Expired, document, format!("at {expires}; it is {now}")))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl Timestamped {
    /// Version and length of the index to fetch next.
    pub fn wanted_index(&self) -> &IndexReference {
        &self.timestamp.index
    }

    /// Takes the index.
    ///
    /// # Errors
    ///
    /// `MixAndMatch`, and every refusal of a signed document.
    pub fn index(self, index: &Signed) -> Result<Catalogue, Rejection> {
        let (document, role) = (Document::Index, Role::Index);
        let Self { mut client, timestamp } = self;
        let wanted = &timestamp.index;
        read::named(document, &index.document, wanted.length, &wanted.sha256, Refusal::MixAndMatch)?;
        let signed = signature::check(&client.keyring, role, document, index, client.now)?;
        read::purpose(document, &index.document, role, Some(&client.trust.repository))?;
        let index = read::index(&index.document)?;
        if index.version != wanted.version {
            let detail = format!("version {}, the timestamp names {}", index.version, wanted.version);
            return Err(Rejection::new(Refusal::MixAndMatch, document, detail));
        }
        lives_at_most(document, index.expires, signed, life::INDEX)?;
        client.alive(document, index.expires)?;
        client.floors.index = index.version;
        Ok(Catalogue { timestamped: Timestamped { client, timestamp }, index })
    }
}

impl Catalogue {
    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The trust document in force.
    pub fn trust(&self) -> &Trust {
        &self.timestamped.client.trust
    }

    /// The timestamp.
    pub fn timestamp(&self) -> &TimestampDocument {
        &self.timestamped.timestamp
    }

    /// The floors as they are now; to be stored before anything is done with the catalogue.
    pub fn floors(&self) -> &Floors {
        &self.timestamped.client.floors
    }

    /// When the first of trust document, timestamp and index expires.
    pub fn expires(&self) -> Timestamp {
        self.trust().expires.min(self.timestamp().expires).min(self.index.expires)
    }

    /// The digest of a set's entry (canonical, without status, channel, summary).
    pub fn set_digest(&self, set: &invivo_terms::SetName) -> Option<Digest> {
        self.index.set(set).map(crate::document::SetEntry::digest)
    }

    /// Checks a kernel document against the index.
    ///
    /// # Errors
    ///
    /// `WrongKernel` if the index does not know the build, `MixAndMatch`, `EndlessData`, `Malformed`.
    pub fn kernel(&self, build: &BuildId, bytes: &[u8]) -> Result<KernelDocument, Rejection> {
        let document = Document::Kernel;
        let Some(reference) = self.index.kernels.get(build) else {
            return Err(Rejection::new(
                Refusal::WrongKernel,
                document,
                format!("the index does not know build {build}"),
            ));
        };
        read::named(document, bytes, reference.length, &reference.sha256, Refusal::MixAndMatch)?;
        let kernel = read::kernel(bytes)?;
        if kernel.kernel.build_id != *build || kernel.kernel.release != reference.release {
            let detail = format!("it is for {} {}", kernel.kernel.release, kernel.kernel.build_id);
            return Err(Rejection::new(Refusal::WrongKernel, document, detail));
        }
        Ok(kernel)
    }

    /// Checks a manifest against its kernel document.
    ///
    /// # Errors
    ///
    /// `MixAndMatch`, `SignatureConfusion`, `WrongKernel`, `EndlessData`, `Malformed`, `Withdrawn`.
    pub fn manifest(
        &self,
        kernel: &KernelDocument,
        level: Level,
        bytes: &[u8],
    ) -> Result<Manifest, Rejection> {
        let document = Document::Manifest;
        let entry = kernel.level(level).ok_or_else(|| {
            Rejection::new(Refusal::MixAndMatch, document, format!("no level {level} is named"))
        })?;
        let build = &kernel.kernel.build_id;
        let set = self.index.set(&entry.set).filter(|set| {
            set.kernels
                .get(build)
                .is_some_and(|named| named.level == level && named.manifest == entry.manifest.sha256)
        });
        let Some(set) = set else {
            let detail = format!("the index's set {} does not name this level {level} of {build}", entry.set);
            return Err(Rejection::new(Refusal::MixAndMatch, Document::Kernel, detail));
        };
        match set.status {
            SetStatus::Active => {}
            SetStatus::Withdrawn => {
                return Err(Rejection::new(Refusal::Withdrawn, Document::Index, format!("set {}", set.name)));
            }
        }
        read::named(document, bytes, entry.manifest.length, &entry.manifest.sha256, Refusal::MixAndMatch)?;
        let manifest = read::manifest(bytes)?;
        agree::manifest(&self.index.repository, &kernel.kernel, entry, &manifest)?;
        Ok(manifest)
    }
}

impl Proven {
    /// Checks a module's bytes: length, digest, and what its modinfo says. The buffer checked is
    /// the buffer to load.
    ///
    /// # Errors
    ///
    /// `ArbitrarySoftware`, `WrongKernel`, `Malformed`.
    pub fn module(&self, name: &ModuleName, bytes: &[u8]) -> Result<(), Rejection> {
        check_module(&self.manifest, name, bytes)
    }

    /// The digest of the set that the level came with.
    pub fn set_digest(&self) -> Option<Digest> {
        self.catalogue.set_digest(&self.level.set)
    }
}

/// Checks a module's bytes against a verified manifest: length and digest, then its modinfo.
///
/// # Errors
///
/// `ArbitrarySoftware` for other bytes or a name that the manifest does not have; `WrongKernel`,
/// `Malformed` for a modinfo that disagrees.
pub fn check_module(manifest: &Manifest, name: &ModuleName, bytes: &[u8]) -> Result<(), Rejection> {
    let document = Document::Module;
    read::within(document, bytes, cap::MODULE)?;
    let Some(module) = manifest.modules.iter().find(|module| module.name == *name) else {
        return Err(Rejection::new(
            Refusal::ArbitrarySoftware,
            document,
            format!("the manifest names no {name}"),
        ));
    };
    if bytes.len() as u64 != module.length || crate::digest(bytes) != module.sha256 {
        let detail = format!("{name}: {} bytes that are not the {} signed", bytes.len(), module.length);
        return Err(Rejection::new(Refusal::ArbitrarySoftware, document, detail));
    }
    modinfo::ModInfo::read(bytes)?.agrees(manifest, name)
}

/// The whole workflow over a stored or passed proof.
///
/// # Errors
///
/// The first refusal met.
pub fn verify_proof(
    proof: &Proof,
    root: &Digest,
    floors: &Floors,
    clocks: Clocks,
) -> Result<Proven, Rejection> {
    verify(proof, root, floors, Some(clocks.later()))
}

fn verify(
    proof: &Proof,
    root: &Digest,
    floors: &Floors,
    now: Option<Timestamp>,
) -> Result<Proven, Rejection> {
    let Some((first, rest)) = proof.trust.split_first() else {
        return Err(Rejection::new(Refusal::WrongRoot, Document::Trust, "the proof has no trust document"));
    };
    if proof.trust.len() > cap::TRUST_CHAIN {
        return Err(Rejection::new(Refusal::EndlessData, Document::Trust, "the trust chain is over its cap"));
    }
    let client = rest.iter().try_fold(Client::start(root, floors, now, first)?, Client::rotate)?;
    let catalogue = client.timestamp(&proof.timestamp)?.index(&proof.index)?;
    read::within(Document::Kernel, &proof.kernel, cap::KERNEL)?;
    read::within(Document::Manifest, &proof.manifest, cap::MANIFEST)?;
    let sha256 = crate::digest(&proof.kernel);
    let build = catalogue
        .index
        .kernels
        .iter()
        .find(|(_, reference)| reference.sha256 == sha256)
        .map(|(build, _)| build);
    let Some(build) = build else {
        let detail = format!("the index names no kernel document {sha256}");
        return Err(Rejection::new(Refusal::MixAndMatch, Document::Kernel, detail));
    };
    let kernel = catalogue.kernel(build, &proof.kernel)?;
    let sha256 = crate::digest(&proof.manifest);
    let Some(level) = kernel.levels.iter().find(|level| level.manifest.sha256 == sha256).cloned() else {
        let detail = format!("the kernel document names no manifest {sha256}");
        return Err(Rejection::new(Refusal::MixAndMatch, Document::Manifest, detail));
    };
    let manifest = catalogue.manifest(&kernel, level.level, &proof.manifest)?;
    Ok(Proven { catalogue, kernel, level, manifest })
}

/// The workflow over the proof of a level that had settled: every signature and digest, but no
/// date and no floor. Applying a settled level again is not a new load, and what its proof says
/// was current when it was.
///
/// # Errors
///
/// The first refusal met.
pub fn verify_settled(proof: &Proof, root: &Digest) -> Result<Proven, Rejection> {
    verify(proof, root, &Floors::default(), None)
}

/// The length of the trust chain with one more document.
fn chain(before: u64, next: &Signed) -> Result<u64, Rejection> {
    let length = before.saturating_add(next.length());
    if length > cap::TRUST_CHAIN_BYTES {
        return Err(Rejection::new(Refusal::EndlessData, Document::Trust, "the trust chain is over its cap"));
    }
    Ok(length)
}

/// A version may not fall below its floor, nor rise far above one.
fn in_range(document: Document, version: u64, floor: u64) -> Result<(), Rejection> {
    if version < floor {
        return Err(older(document, version, floor));
    }
    if floor > 0 && version - floor > MAX_JUMP {
        let detail =
            format!("version {version}, {floor} was seen before; only a key rotation may jump so far");
        return Err(Rejection::new(Refusal::FastForward, document, detail));
    }
    Ok(())
}

fn older(document: Document, version: u64, floor: u64) -> Rejection {
    Rejection::new(Refusal::Rollback, document, format!("version {version}, {floor} was seen before"))
}

/// A document's date may be at most so many days after enough had signed it.
fn lives_at_most(
    document: Document,
    expires: Timestamp,
    signed: Timestamp,
    days: u16,
) -> Result<(), Rejection> {
    let longest = SignedDuration::from_hours(i64::from(days) * 24) + SLACK;
    match signed.checked_add(longest) {
        Ok(latest) if expires <= latest => Ok(()),
        Ok(_) | Err(_) => Err(Rejection::new(
            Refusal::Malformed,
            document,
            format!("signed {signed}, it would live for more than {days} days"),
        )),
    }
}
