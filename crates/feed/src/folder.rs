//! A repository on disk, read as a client reads one: on a stick, on a mounted volume, or the
//! author's own.

use std::path::PathBuf;

use invivo_terms::{BuildId, Digest, Level, Refusal};

use crate::document::{LevelEntry, cap};
use crate::store::{self, StoreError};
use crate::{Catalogue, Client, Clocks, Document, Floors, Rejection, Signed, paths, read};

/// A folder that holds a repository.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

/// A verified look at a repository on disk.
#[derive(Debug, Clone)]
pub struct FolderLook {
    /// What it offers.
    pub catalogue: Catalogue,
    /// The trust chain as it stands.
    pub trust: Vec<Signed>,
    /// The timestamp as it stands.
    pub timestamp: Signed,
    /// The index as it stands.
    pub index: Signed,
}

/// Why a folder was not read.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file was not read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file is not there.
    #[error("{path} is missing")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// What it holds is not believed.
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

impl FolderError {
    /// Condition reason, Event reason and metric label.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Store(error) => error.category(),
            Self::Missing { .. } => "Unreachable",
            Self::Rejected(rejection) => rejection.refusal.as_str(),
        }
    }
}

impl Folder {
    /// The repository below `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Walks trust chain, timestamp and index.
    ///
    /// # Errors
    ///
    /// `Missing`, `Store`, or the first refusal met.
    pub fn look(&self, root: &Digest, floors: &Floors, clocks: Clocks) -> Result<FolderLook, FolderError> {
        let trust = self.trust_chain()?;
        let Some((first, rest)) = trust.split_first() else {
            return Err(self.missing(&paths::trust(1)));
        };
        let client = rest.iter().try_fold(Client::begin(root, floors, clocks, first)?, Client::rotate)?;
        let timestamp = self.timestamp()?.ok_or_else(|| self.missing(paths::TIMESTAMP))?;
        let timestamped = client.timestamp(&timestamp)?;
        let name = paths::index(timestamped.wanted_index().version);
        let index = self.signed(&name, cap::INDEX)?.ok_or_else(|| self.missing(&name))?;
        let catalogue = timestamped.index(&index)?;
        Ok(FolderLook { catalogue, trust, timestamp, index })
    }

    /// The kernel document of `build`, checked.
    ///
    /// # Errors
    ///
    /// As `look`, and every refusal of a kernel document.
    pub fn kernel(&self, look: &FolderLook, build: &BuildId) -> Result<Vec<u8>, FolderError> {
        let Some(reference) = look.catalogue.index().kernels.get(build) else {
            let detail = format!("the index does not know build {build}");
            return Err(Rejection::new(Refusal::WrongKernel, Document::Kernel, detail).into());
        };
        let name = paths::kernel(&reference.sha256);
        let bytes = self.file(&name, cap::KERNEL)?;
        look.catalogue.kernel(build, &bytes)?;
        Ok(bytes)
    }

    /// The bundle of one level, checked.
    ///
    /// # Errors
    ///
    /// `Missing`, `Store`, `ArbitrarySoftware`.
    pub fn bundle(&self, level: &LevelEntry) -> Result<Vec<u8>, FolderError> {
        let name = paths::bundle(&level.bundle.sha256);
        let bytes = self.file(&name, cap::BUNDLE)?;
        let named = (level.bundle.length, &level.bundle.sha256);
        read::named(Document::Bundle, &bytes, named.0, named.1, Refusal::ArbitrarySoftware)?;
        Ok(bytes)
    }

    /// The proof of one level of one build, whose manifest the caller has from the bundle.
    ///
    /// # Errors
    ///
    /// As `kernel`; `WrongKernel` for a level that is not there.
    pub fn proof(
        &self,
        look: &FolderLook,
        build: &BuildId,
        level: Level,
        manifest: Vec<u8>,
    ) -> Result<crate::Proof, FolderError> {
        let kernel = self.kernel(look, build)?;
        let document = look.catalogue.kernel(build, &kernel)?;
        look.catalogue.manifest(&document, level, &manifest)?;
        Ok(crate::Proof {
            trust: look.trust.clone(),
            timestamp: look.timestamp.clone(),
            index: look.index.clone(),
            kernel,
            manifest,
        })
    }

    pub(crate) fn trust_chain(&self) -> Result<Vec<Signed>, StoreError> {
        let mut chain = Vec::new();
        for version in (1..).take(cap::TRUST_CHAIN) {
            match self.signed(&paths::trust(version), cap::TRUST)? {
                Some(signed) => chain.push(signed),
                None => break,
            }
        }
        Ok(chain)
    }

    pub(crate) fn timestamp(&self) -> Result<Option<Signed>, StoreError> {
        self.signed(paths::TIMESTAMP, cap::TIMESTAMP)
    }

    /// The index that the timestamp names, unchecked.
    pub(crate) fn current_index(&self) -> Result<Option<Signed>, crate::publish::PublishError> {
        match self.timestamp()? {
            Some(timestamp) => {
                let named = read::timestamp(&timestamp.document)?.index;
                Ok(self.signed(&paths::index(named.version), cap::INDEX)?)
            }
            None => Ok(None),
        }
    }

    fn signed(&self, name: &str, limit: u64) -> Result<Option<Signed>, StoreError> {
        let Some(document) = store::read(&self.path.join(name), limit)? else { return Ok(None) };
        let signatures =
            store::read(&self.path.join(paths::signatures(name)), cap::SIGNATURES)?.unwrap_or_default();
        Ok(Some(Signed { document, signatures }))
    }

    fn file(&self, name: &str, limit: u64) -> Result<Vec<u8>, FolderError> {
        store::read(&self.path.join(name), limit)?.ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> FolderError {
        FolderError::Missing { path: self.path.join(name) }
    }
}
