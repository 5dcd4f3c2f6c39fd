//! The documents of a repository, as they are written. Unknown fields are refused everywhere.

use std::collections::BTreeMap;

use invivo_terms::{
    Arch, BuildId, Digest, Fingerprint, Level, ModuleName, RepositoryName, SetName, TargetName,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The longest that each kind of file may be, in bytes.
pub mod cap {
    /// A trust document.
    pub const TRUST: u64 = 1 << 20;
    /// A timestamp.
    pub const TIMESTAMP: u64 = 64 << 10;
    /// An index.
    pub const INDEX: u64 = 4 << 20;
    /// A kernel document.
    pub const KERNEL: u64 = 1 << 20;
    /// A manifest.
    pub const MANIFEST: u64 = 256 << 10;
    /// A module.
    pub const MODULE: u64 = 16 << 20;
    /// A bundle.
    pub const BUNDLE: u64 = 16 << 20;
    /// The signatures beside a document.
    pub const SIGNATURES: u64 = 256 << 10;
    /// How many trust documents one walk follows.
    pub const TRUST_CHAIN: usize = 64;
    /// All of those together, with their signatures: what leaves room for everything else in a proof.
    pub const TRUST_CHAIN_BYTES: u64 = 6 << 20;
    /// A proof as it is passed to the loader and stored. Every repository within the other caps has
    /// proofs within this one.
    pub const PROOF: u64 = 16 << 20;
}

/// The longest that each kind of document may live, in days after enough had signed it.
pub mod life {
    /// A trust document.
    pub const TRUST: u16 = 365;
    /// An index.
    pub const INDEX: u16 = 90;
    /// The most that a trust document may give its timestamps.
    pub const TIMESTAMP: u16 = 90;
}

/// The roles that keys can have; also the value of the notation `role@invivo.dev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Says who may sign what. Offline.
    Trust,
    /// Publishes sets. Offline or in a hardware module.
    Index,
    /// Says that an index is the current one. Online.
    Timestamp,
}

impl Role {
    /// The value of `type` and of the signatures' notation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Index => "index",
            Self::Timestamp => "timestamp",
        }
    }
}

/// `trust/N.json`: who may sign what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Trust {
    /// Always `trust`.
    pub r#type: Role,
    /// The repository's name.
    pub repository: RepositoryName,
    /// From 1, without gaps.
    pub version: u64,
    /// No later document is believed by this one after that. At most 365 days from its making.
    pub expires: Timestamp,
    /// How long a timestamp lives, 1 to 90.
    pub timestamp_days: u16,
    /// The keys of each role.
    pub roles: BTreeMap<Role, Keys>,
    /// The certificates of all these keys, ASCII-armoured.
    pub certificates: Vec<String>,
}

/// The keys of one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Keys {
    /// How many distinct certificates must sign.
    pub threshold: u16,
    /// Primary fingerprints of the certificates that may.
    pub keys: Vec<Fingerprint>,
}

/// `timestamp.json`: which index is the current one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimestampDocument {
    /// Always `timestamp`.
    pub r#type: Role,
    /// The repository's name.
    pub repository: RepositoryName,
    /// Rises with every refresh.
    pub version: u64,
    /// At most `timestampDays` from its making.
    pub expires: Timestamp,
    /// The current index.
    pub index: IndexReference,
}

/// One index document, exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IndexReference {
    /// Its version.
    pub version: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Its digest.
    pub sha256: Digest,
}

/// A file named by length and digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileReference {
    /// Length in bytes.
    pub length: u64,
    /// Digest.
    pub sha256: Digest,
}

/// `index/N.json`: the sets, and one entry per kernel build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Index {
    /// Always `index`.
    pub r#type: Role,
    /// The repository's name.
    pub repository: RepositoryName,
    /// Rises with every publication.
    pub version: u64,
    /// At most 90 days from its making.
    pub expires: Timestamp,
    /// In order of publication.
    pub sets: Vec<SetEntry>,
    /// The kernel builds that the repository knows.
    pub kernels: BTreeMap<BuildId, KernelReference>,
}

/// One publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetEntry {
    /// Its name.
    pub name: SetName,
    /// When it was released.
    pub released: Timestamp,
    /// Whether its tests are finished.
    pub channel: Channel,
    /// Whether it may still be rolled out.
    pub status: SetStatus,
    /// The author's words, at most 1,024 characters.
    pub summary: String,
    /// What it brings, for each kernel build that it touches.
    pub kernels: BTreeMap<BuildId, SetKernel>,
}

/// What a set brings for one kernel build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetKernel {
    /// The level.
    pub level: Level,
    /// Digest of the level's manifest.
    pub manifest: Digest,
}

/// Whether a set's tests are finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// They are.
    Stable,
    /// Not yet.
    Test,
}

/// Whether a set may still be rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SetStatus {
    /// It may.
    Active,
    /// Its author took it back.
    Withdrawn,
}

/// Where a kernel build's document is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KernelReference {
    /// `uname -r` of the build.
    pub release: String,
    /// Length of the kernel document in bytes.
    pub length: u64,
    /// Its digest, and so its path.
    pub sha256: Digest,
}

/// `kernels/<sha256>.json`: every level of one kernel build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KernelDocument {
    /// The build.
    pub kernel: KernelFacts,
    /// Rising.
    pub levels: Vec<LevelEntry>,
}

/// What is known of a kernel build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KernelFacts {
    /// Its GNU build id.
    pub build_id: BuildId,
    /// `uname -r`.
    pub release: String,
    /// The distribution's version, such as `6.1.170-3`; stands in `uname -v`.
    pub version: String,
    /// `uname -m`.
    pub arch: Arch,
    /// Such as `debian`.
    pub distribution: String,
}

/// How a bundle can take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BundleMechanism {
    /// Upstream livepatch.
    Livepatch,
}

/// One level of one kernel build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LevelEntry {
    /// The level.
    pub level: Level,
    /// The set that brought it.
    pub set: SetName,
    /// When that was released.
    pub released: Timestamp,
    /// How it can take effect.
    pub mechanisms: Vec<BundleMechanism>,
    /// The version up to which *all* fixes are in, where the author claims that.
    pub complete: Option<String>,
    /// Its manifest.
    pub manifest: FileReference,
    /// Its modules.
    pub modules: Vec<ModuleReference>,
    /// Its bundle: `bundles/<sha256>`.
    pub bundle: FileReference,
    /// What it closes.
    pub fixes: Vec<Fix>,
}

/// One module of a level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModuleReference {
    /// Its name in the kernel; its file is `modules/<name>.ko`.
    pub name: ModuleName,
    /// Length in bytes.
    pub length: u64,
    /// Digest.
    pub sha256: Digest,
}

/// One hole closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fix {
    /// Its CVE number.
    pub cve: String,
    /// The base score as text.
    pub cvss: Option<String>,
    /// `low`, `medium`, `high`, `critical`.
    pub severity: Option<String>,
    /// One line.
    pub title: String,
    /// Where to read on.
    pub url: Option<String>,
}

/// `manifest.json` of a bundle: binds the modules to set, level and kernel build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// The repository's name.
    pub repository: RepositoryName,
    /// The set.
    pub set: SetName,
    /// The level.
    pub level: Level,
    /// The kernel build.
    pub kernel: KernelFacts,
    /// The modules' `vermagic`.
    pub vermagic: String,
    /// The modules.
    pub modules: Vec<ManifestModule>,
    /// How they can take effect.
    pub mechanisms: Vec<BundleMechanism>,
    /// The version up to which *all* fixes are in, where the author claims that.
    pub complete: Option<String>,
    /// What it closes.
    pub fixes: Vec<Fix>,
    /// How it was built.
    pub evidence: Evidence,
}

/// One module with what it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManifestModule {
    /// Its name in the kernel.
    pub name: ModuleName,
    /// Length in bytes.
    pub length: u64,
    /// Digest.
    pub sha256: Digest,
    /// What it changes.
    pub objects: Vec<PatchedObject>,
}

impl ManifestModule {
    /// The kernel modules among what it changes. A manifest that was read has no other objects than
    /// these and `vmlinux`.
    pub fn targets(&self) -> impl Iterator<Item = (TargetName, &BuildId)> {
        self.objects.iter().filter_map(|object| Some((object.name.parse().ok()?, object.build_id.as_ref()?)))
    }
}

/// Part of the kernel that a module changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchedObject {
    /// `vmlinux`, or a kernel module's name.
    pub name: String,
    /// That module's own build id; absent for `vmlinux`.
    pub build_id: Option<BuildId>,
    /// The functions replaced.
    pub functions: Vec<String>,
}

/// How a bundle was built; for people and for building it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evidence {
    /// Digest over every input: sources, template, compiler, lock file.
    pub inputs: Digest,
    /// The compiler's own words.
    pub compiler: String,
    /// Packages taken, `name=version` to digest.
    pub packages: BTreeMap<String, Digest>,
    /// Checks passed, by name.
    pub checks: Vec<String>,
}
