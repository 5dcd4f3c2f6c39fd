//! A small repository, and a forger who can rewrite any document and has the keys he is given.

mod attacks;
mod dates;
mod documents;
mod keys;
mod noise;
mod proofs;
mod publishing;
mod storing;

use std::collections::BTreeMap;

use invivo_terms::{Digest, Level, Refusal, RepositoryName};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::document::Role;
use crate::publish::{Addition, Desk, SecretKey, SmallHouse};
use crate::sample::{Sample, kernel, sample};
use crate::{Clocks, Document, Floors, Proof, Proven, Rejection, Signed, digest, verify_proof};

pub(super) fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

pub(super) fn days(count: i64) -> Timestamp {
    now() + SignedDuration::from_hours(24 * count)
}

pub(super) fn repository() -> RepositoryName {
    "patches.example.com".parse().unwrap()
}

pub(super) fn at(now: Timestamp) -> Clocks {
    Clocks { own: now, server: None }
}

/// A bundle for the kernel of that digit, in set `2026-11-22.<set>`.
pub(super) fn bundle(digit: char, set: u32, level: u32) -> Sample {
    let set = format!("2026-11-22.{set}").parse().unwrap();
    sample(&repository(), &kernel(digit).unwrap(), &set, Level(level)).unwrap()
}

pub(super) fn addition<'a>(sample: &'a Sample, bundle: &'a [u8]) -> Addition<'a> {
    let channel = crate::document::Channel::Stable;
    Addition { channel, summary: "a test", manifest: &sample.manifest_bytes, bundle }
}

/// A published repository with one bundle.
pub(super) struct House {
    pub(super) keys: SmallHouse,
    pub(super) desk: Desk,
    pub(super) sample: Sample,
    _folder: tempfile::TempDir,
}

impl House {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = SmallHouse::generate(&repository(), now()).unwrap();
        let desk = keys.found(&folder.path().join("desk"), &repository(), now()).unwrap();
        let sample = bundle('a', 1, 1);
        keys.publish(&desk, &[addition(&sample, b"a bundle")], now()).unwrap();
        Self { keys, desk, sample, _folder: folder }
    }

    pub(super) fn root(&self) -> Digest {
        self.desk.root().unwrap()
    }

    pub(super) fn proof(&self) -> Proof {
        let folder = self.desk.repository();
        let look = folder.look(&self.root(), &Floors::default(), at(now())).unwrap();
        let build = &self.sample.manifest.kernel.build_id;
        folder.proof(&look, build, self.sample.manifest.level, self.sample.manifest_bytes.clone()).unwrap()
    }

    pub(super) fn verify(&self, proof: &Proof) -> Result<Proven, Rejection> {
        verify_proof(proof, &self.root(), &Floors::default(), at(now()))
    }

    pub(super) fn forger(&self) -> Forger {
        let proof = self.proof();
        let read = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).unwrap() };
        let two: Vec<_> = self.keys.holders.iter().take(2).cloned().collect();
        Forger {
            trust: proof.trust.iter().map(|signed| read(&signed.document)).collect(),
            timestamp: read(&proof.timestamp.document),
            index: read(&proof.index.document),
            kernel: read(&proof.kernel),
            manifest: read(&proof.manifest),
            build: self.sample.manifest.kernel.build_id.to_string(),
            keys: BTreeMap::from([
                (Role::Trust, two.clone()),
                (Role::Index, two),
                (Role::Timestamp, vec![self.keys.timestamp.clone()]),
            ]),
            signed_at: now(),
        }
    }
}

/// Rewrites documents and signs them again.
pub(super) struct Forger {
    pub(super) trust: Vec<Value>,
    pub(super) timestamp: Value,
    pub(super) index: Value,
    pub(super) kernel: Value,
    pub(super) manifest: Value,
    pub(super) build: String,
    pub(super) keys: BTreeMap<Role, Vec<SecretKey>>,
    pub(super) signed_at: Timestamp,
}

impl Forger {
    /// Names every document in the one above, from the manifest up.
    pub(super) fn link(&mut self) {
        let named = |bytes: &[u8]| json!({"length": bytes.len(), "sha256": digest(bytes)});
        let manifest = serde_json::to_vec(&self.manifest).unwrap();
        self.kernel["levels"][0]["manifest"] = named(&manifest);
        self.index["sets"][0]["kernels"][&self.build]["manifest"] = json!(digest(&manifest));
        let kernel = serde_json::to_vec(&self.kernel).unwrap();
        self.index["kernels"][&self.build]["length"] = json!(kernel.len());
        self.index["kernels"][&self.build]["sha256"] = json!(digest(&kernel));
        let index = serde_json::to_vec(&self.index).unwrap();
        let version = self.index["version"].clone();
        self.timestamp["index"] =
            json!({"version": version, "length": index.len(), "sha256": digest(&index)});
    }

    /// The proof with everything linked and signed.
    pub(super) fn proof(mut self) -> Proof {
        self.link();
        self.unlinked()
    }

    /// The proof signed as it stands.
    pub(super) fn unlinked(&self) -> Proof {
        Proof {
            trust: self.trust.iter().map(|trust| self.sign(Role::Trust, trust)).collect(),
            timestamp: self.sign(Role::Timestamp, &self.timestamp),
            index: self.sign(Role::Index, &self.index),
            kernel: serde_json::to_vec(&self.kernel).unwrap(),
            manifest: serde_json::to_vec(&self.manifest).unwrap(),
        }
    }

    pub(super) fn sign(&self, role: Role, value: &Value) -> Signed {
        let document = serde_json::to_vec(value).unwrap();
        let signatures = self.keys[&role]
            .iter()
            .flat_map(|key| key.sign(role, &document, self.signed_at).unwrap())
            .collect();
        Signed { document, signatures }
    }

    /// What a client says that pinned this very trust document.
    pub(super) fn verdict(self) -> Result<Proven, Rejection> {
        let proof = self.proof();
        verify(&proof)
    }
}

/// What a client says that pinned the proof's own root and has seen nothing yet.
pub(super) fn verify(proof: &Proof) -> Result<Proven, Rejection> {
    verify_proof(proof, &digest(&proof.trust[0].document), &Floors::default(), at(now()))
}

#[track_caller]
pub(super) fn assert_refused<T: std::fmt::Debug>(
    verdict: Result<T, Rejection>,
    refusal: Refusal,
    document: Document,
) {
    let rejection = verdict.unwrap_err();
    assert_eq!((rejection.refusal, rejection.document), (refusal, document), "{rejection}");
}
