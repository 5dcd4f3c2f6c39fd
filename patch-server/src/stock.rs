//! What is served of one feed: a table of verified files, replaced as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use invivo_feed::document::{Index, KernelDocument, LevelEntry, SetStatus};
use invivo_feed::{Catalogue, Signed, digest};
use invivo_terms::Digest;
use jiff::Timestamp;

use crate::MirrorPath;

/// One verified file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Where its bytes are.
    pub(crate) content: Content,
    /// How many.
    pub(crate) length: u64,
    /// Their digest.
    pub(crate) sha256: Digest,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// Small and able to change under the same name: kept in memory, so that a document and its
    /// signatures change together.
    Memory(Bytes),
    /// Named by its digest: never changes.
    File(PathBuf),
}

/// Everything that one look at a repository vouches for.
#[derive(Debug, Clone)]
pub(crate) struct Verified {
    /// The trust chain from the pinned root.
    pub(crate) trust: Vec<Signed>,
    /// The timestamp.
    pub(crate) timestamp: Signed,
    /// Its version.
    pub(crate) timestamp_version: u64,
    /// The index.
    pub(crate) index: Signed,
    /// Its version.
    pub(crate) index_version: u64,
    /// The kernel documents, digest to length.
    pub(crate) kernels: BTreeMap<Digest, u64>,
    /// The bundles, digest to length.
    pub(crate) bundles: BTreeMap<Digest, u64>,
}

impl Verified {
    /// A look without the content-addressed files yet.
    pub(crate) fn of(catalogue: &Catalogue, trust: Vec<Signed>, timestamp: Signed, index: Signed) -> Self {
        Self {
            trust,
            timestamp,
            timestamp_version: catalogue.floors().timestamp,
            index,
            index_version: catalogue.index().version,
            kernels: BTreeMap::new(),
            bundles: BTreeMap::new(),
        }
    }

    /// All bytes of it.
    pub(crate) fn bytes(&self) -> u64 {
        self.kernels.values().chain(self.bundles.values()).sum()
    }
}

/// The bundles to mirror: those of every level but the withdrawn ones, whose author may have
/// taken the file away.
pub(crate) fn wanted_bundles<'a>(
    index: &Index,
    kernels: impl IntoIterator<Item = &'a KernelDocument>,
) -> BTreeMap<Digest, LevelEntry> {
    let withdrawn: BTreeSet<_> =
        index.sets.iter().filter(|s| s.status == SetStatus::Withdrawn).map(|s| &s.name).collect();
    kernels
        .into_iter()
        .flat_map(|k| &k.levels)
        .filter(|level| !withdrawn.contains(&level.set))
        .map(|level| (level.bundle.sha256.clone(), level.clone()))
        .collect()
}

/// What is served of one feed.
#[derive(Debug, Clone)]
pub(crate) struct Stock {
    /// The root that all of it was verified from.
    pub(crate) root: Digest,
    /// When.
    pub(crate) verified: Timestamp,
    /// Version of the timestamp served.
    pub(crate) timestamp_version: u64,
    /// Bytes of kernel documents and bundles.
    pub(crate) bytes: u64,
    current: BTreeMap<MirrorPath, Entry>,
    previous: Arc<BTreeMap<MirrorPath, Entry>>,
}

impl Stock {
    /// A stock of `verified`, whose content-addressed files lie where `place` says. What `before`
    /// had stays readable for one generation, for those who are in the middle of reading it.
    pub(crate) fn new(
        root: Digest,
        at: Timestamp,
        verified: &Verified,
        before: Option<&Self>,
        place: impl Fn(&MirrorPath) -> PathBuf,
    ) -> Self {
        let mut current = BTreeMap::new();
        let mut memory = |path: MirrorPath, bytes: &[u8]| {
            let entry = Entry {
                content: Content::Memory(Bytes::copy_from_slice(bytes)),
                length: bytes.len() as u64,
                sha256: digest(bytes),
            };
            current.insert(path, entry);
        };
        for (n, signed) in (1..).zip(&verified.trust) {
            memory(MirrorPath::Trust(n), &signed.document);
            memory(MirrorPath::TrustSignatures(n), &signed.signatures);
        }
        memory(MirrorPath::Timestamp, &verified.timestamp.document);
        memory(MirrorPath::TimestampSignatures, &verified.timestamp.signatures);
        memory(MirrorPath::Index(verified.index_version), &verified.index.document);
        memory(MirrorPath::IndexSignatures(verified.index_version), &verified.index.signatures);
        let kernels = verified.kernels.iter().map(|(d, length)| (MirrorPath::Kernel(d.clone()), d, length));
        let bundles = verified.bundles.iter().map(|(d, length)| (MirrorPath::Bundle(d.clone()), d, length));
        for (path, sha256, length) in kernels.chain(bundles) {
            let content = Content::File(place(&path));
            current.insert(path, Entry { content, length: *length, sha256: sha256.clone() });
        }
        let previous = match before {
            None => Arc::default(),
            Some(before) if before.root != root => Arc::default(),
            // A refreshed timestamp alone is no new generation.
            Some(before) if before.names_same_index(verified.index_version) => before.previous.clone(),
            Some(before) => Arc::new(before.current.clone()),
        };
        Self {
            root,
            verified: at,
            timestamp_version: verified.timestamp_version,
            bytes: verified.bytes(),
            current,
            previous,
        }
    }

    /// Whether this timestamp is the one served: it names the index, which names all else.
    pub(crate) fn serves(&self, timestamp: &Signed) -> bool {
        let is = |path: MirrorPath, bytes: &[u8]| {
            self.current.get(&path).is_some_and(|entry| entry.sha256 == digest(bytes))
        };
        is(MirrorPath::Timestamp, &timestamp.document)
            && is(MirrorPath::TimestampSignatures, &timestamp.signatures)
    }

    fn names_same_index(&self, version: u64) -> bool {
        self.current.contains_key(&MirrorPath::Index(version))
    }

    /// A file, of this generation or the one before.
    pub(crate) fn get(&self, path: &MirrorPath) -> Option<&Entry> {
        self.current.get(path).or_else(|| self.previous.get(path))
    }

    /// Whether a file belongs to this generation or the one before.
    pub(crate) fn names(&self, path: &MirrorPath) -> bool {
        self.current.contains_key(path) || self.previous.contains_key(path)
    }
}
