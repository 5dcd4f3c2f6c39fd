//! One attempt: look at the repository, fetch what is new, make it the mirror.

use invivo_feed::document::{LevelEntry, cap};
use invivo_feed::{Catalogue, Rejection};
use invivo_terms::{BuildId, Digest, Refusal};
use invivo_transport::{Look, Repository};
use jiff::Timestamp;

use crate::disk::{self, Disk};
use crate::state::Reason;
use crate::stock::{Verified, wanted_bundles};
use crate::{MirrorPath, WantedFeed};

/// Why an attempt brought nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No answer, or not one that is believed.
    #[error(transparent)]
    Fetch(#[from] invivo_transport::Error),
    /// A file fetched earlier is not believed.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The mirror cannot be kept.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// The repository is larger than one feed may be here.
    #[error("the repository's files have {bytes} bytes, {limit} are allowed")]
    TooLarge {
        /// Bytes of its kernel documents and bundles.
        bytes: u64,
        /// Bytes that one feed may take.
        limit: u64,
    },
    /// The task that writes files was ended.
    #[error("the writing of files was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl Error {
    /// Condition reason and metric label.
    pub(crate) const fn reason(&self) -> Reason {
        match self {
            Self::Fetch(invivo_transport::Error::Unreachable { .. }) => Reason::Unreachable,
            Self::Fetch(invivo_transport::Error::Rejected(rejection)) | Self::Rejected(rejection) => {
                Reason::Refused(rejection.refusal)
            }
            Self::Disk(_) | Self::TooLarge { .. } | Self::Interrupted(_) => {
                Reason::Refused(Refusal::StorageFull)
            }
        }
    }

    /// Which document was refused.
    pub(crate) fn document(&self) -> Option<&'static str> {
        match self {
            Self::Fetch(invivo_transport::Error::Rejected(rejection)) | Self::Rejected(rejection) => {
                Some(rejection.document.as_str())
            }
            Self::Fetch(invivo_transport::Error::Unreachable { .. })
            | Self::Disk(_)
            | Self::TooLarge { .. }
            | Self::Interrupted(_) => None,
        }
    }

    /// What happened and what to do, for people.
    pub(crate) fn message(&self) -> String {
        let remedy = match self {
            Self::Fetch(invivo_transport::Error::Unreachable { .. }) => {
                "check spec.source.repository.url, the way from the patch server to it and, where its \
                 certificate is not trusted, the chart's patchServer.extraCAConfigMap"
            }
            Self::Fetch(invivo_transport::Error::Rejected(rejection)) | Self::Rejected(rejection) => {
                rejection.refusal.remedy()
            }
            Self::Disk(disk::Error::Damaged { .. }) => {
                "remove this file from the patch server's data volume; it is made anew"
            }
            Self::Disk(_) | Self::Interrupted(_) => {
                "check the patch server's data volume: free space on it or enlarge it"
            }
            Self::TooLarge { .. } => {
                "raise the patch server's --max-feed-bytes and its volume, or use a smaller repository"
            }
        };
        format!("{self}; {remedy}").chars().take(900).collect()
    }
}

/// Verifies the repository and brings every new content-addressed file to disk. Nothing that is
/// served changes yet; stopping in the middle leaves files that the next attempt finds. Says
/// whether it is what the last attempt verified, to the byte.
pub(crate) async fn fetch(
    repository: &Repository,
    disk: &Disk,
    feed: &WantedFeed,
    limit: u64,
    now: Timestamp,
) -> Result<(Verified, bool), Error> {
    let floors = blocking(disk, feed, |disk, feed| disk.floors(&feed.name, &feed.root)).await??;
    let look = repository.look(&feed.root, &floors, now).await?;
    let raised = look.catalogue.floors().clone();
    blocking(disk, feed, move |disk, feed| disk.raise(&feed.name, &feed.root, &raised)).await??;

    let Look { catalogue, trust, timestamp, index, .. } = &look;
    let mut verified = Verified::of(catalogue, trust.clone(), timestamp.clone(), index.clone());
    let mut kernels = Vec::new();
    let mut bytes = 0u64;
    let allowed = |bytes: u64| if bytes > limit { Err(Error::TooLarge { bytes, limit }) } else { Ok(()) };
    for (build, reference) in &catalogue.index().kernels {
        bytes = bytes.saturating_add(reference.length);
        allowed(bytes)?;
        kernels.push(kernel(repository, disk, feed, &look, catalogue, build, &reference.sha256).await?);
        verified.kernels.insert(reference.sha256.clone(), reference.length);
    }
    let bundles = wanted_bundles(catalogue.index(), &kernels);
    for level in bundles.values() {
        bytes = bytes.saturating_add(level.bundle.length);
    }
    allowed(bytes)?;
    for (sha256, level) in bundles {
        bundle(repository, disk, feed, &sha256, &level).await?;
        verified.bundles.insert(sha256, level.bundle.length);
    }
    Ok((verified, look.unchanged))
}

async fn kernel(
    repository: &Repository,
    disk: &Disk,
    feed: &WantedFeed,
    look: &Look,
    catalogue: &Catalogue,
    build: &BuildId,
    sha256: &Digest,
) -> Result<invivo_feed::document::KernelDocument, Error> {
    let path = MirrorPath::Kernel(sha256.clone());
    let wanted = path.clone();
    let there = blocking(disk, feed, move |disk, feed| disk.read(&feed.name, &wanted, cap::KERNEL)).await?;
    if let Some(document) = there.ok().and_then(|bytes| catalogue.kernel(build, &bytes).ok()) {
        return Ok(document);
    }
    let bytes = repository.kernel(look, build).await?;
    let document = catalogue.kernel(build, &bytes)?;
    blocking(disk, feed, move |disk, feed| disk.keep(&feed.name, &path, &bytes)).await??;
    Ok(document)
}

async fn bundle(
    repository: &Repository,
    disk: &Disk,
    feed: &WantedFeed,
    sha256: &Digest,
    level: &LevelEntry,
) -> Result<(), Error> {
    let path = MirrorPath::Bundle(sha256.clone());
    let (wanted, reference) = (path.clone(), level.bundle.clone());
    let there = blocking(disk, feed, move |disk, feed| {
        disk.holds(&feed.name, &wanted, reference.length, &reference.sha256)
    });
    if there.await? {
        return Ok(());
    }
    let bytes = repository.bundle(level).await?;
    blocking(disk, feed, move |disk, feed| disk.keep(&feed.name, &path, &bytes)).await??;
    Ok(())
}

/// Runs file work off the threads that serve.
pub(crate) async fn blocking<T: Send + 'static>(
    disk: &Disk,
    feed: &WantedFeed,
    work: impl FnOnce(&Disk, &WantedFeed) -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    let (disk, feed) = (disk.clone(), feed.clone());
    tokio::task::spawn_blocking(move || work(&disk, &feed)).await
}
