//! The author's folder: `repository/` is served, `draft.json` and `staged/` are not.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use invivo_terms::{BuildId, Digest, RepositoryName};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Certificate, PublishError};
use crate::document::{KernelDocument, Keys, Role, SetEntry, Trust, cap, life};
use crate::folder::Folder;
use crate::keyring::Keyring;
use crate::store;
use crate::{Signed, digest, paths};

/// The longest draft, in bytes: an index and its kernel documents.
const MAX_DRAFT: u64 = 64 << 20;

/// An author's desk.
#[derive(Debug, Clone)]
pub struct Desk {
    folder: PathBuf,
}

/// The keys of one role.
#[derive(Debug, Clone)]
pub struct RoleKeys {
    /// How many must sign.
    pub threshold: u16,
    /// Who may.
    pub certificates: Vec<Certificate>,
}

/// What a trust document is made of.
#[derive(Debug, Clone)]
pub struct Founding {
    /// The repository's name; a rotation cannot change it.
    pub repository: RepositoryName,
    /// How long a timestamp lives, 1 to 90 days.
    pub timestamp_days: u16,
    /// Who may say who may sign. Kept offline.
    pub trust: RoleKeys,
    /// Who may publish.
    pub index: RoleKeys,
    /// Online; signs nothing but timestamps, and is in neither of the other roles.
    pub timestamp: RoleKeys,
}

/// What will be in the next index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Draft {
    pub(super) sets: Vec<SetEntry>,
    pub(super) kernels: BTreeMap<BuildId, KernelDocument>,
}

impl Desk {
    /// Makes a desk in an empty or absent folder and stages `trust/1.json` for signing.
    ///
    /// # Errors
    ///
    /// `NotEmpty`, `Rejected` for keys that no client would take, `Store`.
    pub fn create(folder: &Path, founding: &Founding, now: Timestamp) -> Result<Self, PublishError> {
        let taken = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
        if taken {
            return Err(PublishError::NotEmpty { path: folder.to_owned() });
        }
        let trust = founding.document(1, now)?;
        let desk = Self { folder: folder.to_owned() };
        for name in
            ["staged", "repository/trust", "repository/index", "repository/kernels", "repository/bundles"]
        {
            store::make_folder(&desk.folder.join(name))?;
        }
        desk.save(&Draft::default())?;
        desk.put_staged(Role::Trust, &trust)?;
        Ok(desk)
    }

    /// Opens the desk that `create` made.
    ///
    /// # Errors
    ///
    /// `NotADesk`.
    pub fn open(folder: &Path) -> Result<Self, PublishError> {
        let desk = Self { folder: folder.to_owned() };
        if !desk.draft_path().is_file() {
            return Err(PublishError::NotADesk { path: folder.to_owned() });
        }
        Ok(desk)
    }

    /// The folder to serve.
    pub fn tree(&self) -> PathBuf {
        self.folder.join("repository")
    }

    /// The folder to serve, for reading as a client does.
    pub fn repository(&self) -> Folder {
        Folder::new(self.tree())
    }

    /// The digest of `trust/1.json`, published or still staged: what people pin.
    ///
    /// # Errors
    ///
    /// `Store`; `NothingStaged` where there is none yet.
    pub fn root(&self) -> Result<Digest, PublishError> {
        let published = store::read(&self.tree().join(paths::trust(1)), cap::TRUST)?;
        let first = published.map_or_else(|| self.staged(Role::Trust).map(|staged| staged.document), Ok)?;
        Ok(digest(&first))
    }

    /// Stages the next trust document: other keys, thresholds or timestamp life, or a later date.
    /// Signatures by the thresholds of the old and of the new trust keys are needed.
    ///
    /// # Errors
    ///
    /// `Rejected`, `Store`; `NothingStaged` before the first publication.
    pub fn rotate(&self, founding: &Founding, now: Timestamp) -> Result<(), PublishError> {
        let current =
            self.trust()?.ok_or(PublishError::NothingStaged { what: "published trust document" })?;
        let founding = Founding { repository: current.repository, ..founding.clone() };
        let trust = founding.document(current.version.saturating_add(1), now)?;
        self.put_staged(Role::Trust, &trust)
    }

    /// The repository's name.
    ///
    /// # Errors
    ///
    /// `Store`, `NothingStaged`.
    pub fn name(&self) -> Result<RepositoryName, PublishError> {
        match self.trust()? {
            Some(trust) => Ok(trust.repository),
            None => Ok(self
                .staged_trust()?
                .ok_or(PublishError::NothingStaged { what: "trust document" })?
                .repository),
        }
    }

    /// The bytes to be signed for a role, with what signatures they have: `staged/<role>.json`.
    ///
    /// # Errors
    ///
    /// `NothingStaged`, `Store`.
    pub fn staged(&self, role: Role) -> Result<Signed, PublishError> {
        let document = store::read(&self.staged_path(role), cap::INDEX)?
            .ok_or(PublishError::NothingStaged { what: role.as_str() })?;
        let signatures = store::read(&self.signatures_path(role), cap::SIGNATURES)?.unwrap_or_default();
        Ok(Signed { document, signatures })
    }

    /// Where the bytes to be signed are.
    pub fn staged_path(&self, role: Role) -> PathBuf {
        self.folder.join("staged").join(format!("{}.json", role.as_str()))
    }

    pub(super) fn signatures_path(&self, role: Role) -> PathBuf {
        self.folder.join("staged").join(format!("{}.signatures", role.as_str()))
    }

    /// The published trust document in force.
    pub(super) fn trust(&self) -> Result<Option<Trust>, PublishError> {
        let chain = self.repository().trust_chain()?;
        Ok(chain.last().map(|last| crate::read::trust(&last.document)).transpose()?)
    }

    pub(super) fn staged_trust(&self) -> Result<Option<Trust>, PublishError> {
        match self.staged(Role::Trust) {
            Ok(staged) => Ok(Some(crate::read::trust(&staged.document)?)),
            Err(PublishError::NothingStaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn put_staged<T: Serialize>(&self, role: Role, document: &T) -> Result<(), PublishError> {
        store::remove(&self.signatures_path(role))?;
        let path = self.staged_path(role);
        let bytes = pretty(&path, document)?;
        Ok(store::replace(&path, &bytes, 0o644)?)
    }

    pub(super) fn drop_staged(&self, role: Role) -> Result<(), PublishError> {
        store::remove(&self.staged_path(role))?;
        Ok(store::remove(&self.signatures_path(role))?)
    }

    fn draft_path(&self) -> PathBuf {
        self.folder.join("draft.json")
    }

    pub(super) fn draft(&self) -> Result<Draft, PublishError> {
        store::read_json(&self.draft_path(), MAX_DRAFT)?
            .ok_or_else(|| PublishError::NotADesk { path: self.folder.clone() })
    }

    pub(super) fn save(&self, draft: &Draft) -> Result<(), PublishError> {
        Ok(store::write_json(&self.draft_path(), draft)?)
    }
}

impl Founding {
    fn document(&self, version: u64, now: Timestamp) -> Result<Trust, PublishError> {
        let mut certificates = BTreeMap::new();
        let mut roles = BTreeMap::new();
        for (role, keys) in
            [(Role::Trust, &self.trust), (Role::Index, &self.index), (Role::Timestamp, &self.timestamp)]
        {
            for certificate in &keys.certificates {
                certificates.insert(certificate.fingerprint().clone(), certificate.armoured().to_owned());
            }
            let names =
                keys.certificates.iter().map(|certificate| certificate.fingerprint().clone()).collect();
            roles.insert(role, Keys { threshold: keys.threshold, keys: names });
        }
        let trust = Trust {
            r#type: Role::Trust,
            repository: self.repository.clone(),
            version,
            expires: days_after(now, life::TRUST),
            timestamp_days: self.timestamp_days,
            roles,
            certificates: certificates.into_values().collect(),
        };
        Keyring::read(&trust)?;
        let bytes = pretty(Path::new("trust"), &trust)?;
        crate::read::trust(&bytes)?;
        Ok(trust)
    }
}

/// Documents are for people too: indented, with a line's end. Signed as they are.
pub(super) fn pretty<T: Serialize>(path: &Path, document: &T) -> Result<Vec<u8>, PublishError> {
    let mut bytes = serde_json::to_vec_pretty(document)
        .map_err(|source| store::StoreError::Parse { path: path.to_owned(), source })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// So many days after `now`, in whole seconds.
pub(super) fn days_after(now: Timestamp, days: u16) -> Timestamp {
    let seconds = SignedDuration::from_hours(i64::from(days) * 24);
    let from = Timestamp::from_second(now.as_second()).unwrap_or(now);
    from.checked_add(seconds).unwrap_or(Timestamp::MAX)
}
