//! Where a repository is looked at: at a URL, or in a folder.

use std::path::Path;

use invivo_feed::document::LevelEntry;
use invivo_feed::{Catalogue, Clocks, Floors, Folder, FolderError, FolderLook};
use invivo_terms::{BuildId, Digest};
use invivo_transport::{Look, Options, Repository};
use jiff::Timestamp;

use crate::exit::Failure;

/// A repository that was looked at.
pub(crate) enum Source {
    /// At a URL.
    Served(Repository, Box<Look>),
    /// In a folder.
    Kept(Folder, Box<FolderLook>),
}

impl Source {
    /// Opens and looks: an http or https URL, else a folder. A desk's folder is taken for the
    /// repository in it.
    pub(crate) async fn look(
        place: &str,
        root: &Digest,
        options: Options,
        now: Timestamp,
    ) -> Result<Self, Failure> {
        if place.starts_with("http://") || place.starts_with("https://") {
            let repository = Repository::new(place, options)?;
            let look = repository.look(root, &Floors::default(), now).await?;
            return Ok(Self::Served(repository, Box::new(look)));
        }
        let path = Path::new(place);
        let tree = path.join("repository");
        let folder = Folder::new(if tree.join("trust").is_dir() { tree } else { path.to_owned() });
        let look = folder.look(root, &Floors::default(), Clocks { own: now, server: None })?;
        Ok(Self::Kept(folder, Box::new(look)))
    }

    pub(crate) fn catalogue(&self) -> &Catalogue {
        match self {
            Self::Served(_, look) => &look.catalogue,
            Self::Kept(_, look) => &look.catalogue,
        }
    }

    pub(crate) async fn kernel(&self, build: &BuildId) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Served(repository, look) => Ok(repository.kernel(look, build).await?),
            Self::Kept(folder, look) => Ok(folder.kernel(look, build)?),
        }
    }

    pub(crate) async fn bundle(&self, level: &LevelEntry) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Served(repository, _) => Ok(repository.bundle(level).await?),
            Self::Kept(folder, _) => Ok(folder.bundle(level)?),
        }
    }
}

impl From<FolderError> for Failure {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::Rejected(rejection) => rejection.into(),
            missing @ FolderError::Missing { .. } => Self::unreachable(format!(
                "{missing}\n  name a repository's URL or the folder that has its timestamp.json"
            )),
            FolderError::Store(error) => Self::of(&error),
        }
    }
}
