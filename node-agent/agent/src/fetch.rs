//! From the patch server to a verified proof and module.

use invivo_api::{Apply, PatchFeed, PatchPolicy};
use invivo_feed::{Document, Floors, Proof, Rejection, check_module};
use invivo_terms::{Refusal, RepositoryName};
use invivo_transport::{Error as TransportError, Options, Repository};
use jiff::Timestamp;
use kube::ResourceExt;

use crate::allow::{self, Forbidden};

/// Why there is nothing to pass to the loader.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Policy or feed do not allow it.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// What came is not believed.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Nothing came.
    #[error("{0}")]
    Unreachable(String),
    /// The proof is not JSON.
    #[error("writing the proof")]
    Proof(#[source] serde_json::Error),
}

impl From<TransportError> for FetchError {
    fn from(error: TransportError) -> Self {
        match error {
            TransportError::Rejected(rejection) => Self::Rejected(rejection),
            TransportError::Unreachable { url, detail } => Self::Unreachable(format!("{url}: {detail}")),
        }
    }
}

/// What goes to the loader.
#[derive(Debug)]
pub struct Fetched {
    /// Everything that vouches for the module, as JSON.
    pub proof: Vec<u8>,
    /// The module's bytes.
    pub module: Vec<u8>,
    /// The patch server's clock.
    pub server_date: Option<Timestamp>,
    /// The highest versions known.
    pub floors: Floors,
}

/// The floors that the operator wrote into the feed's status.
pub fn floors_of(feed: &PatchFeed) -> Floors {
    let repository = feed.status.as_ref().and_then(|status| status.repository.as_ref());
    repository.map_or_else(Floors::default, |repository| Floors {
        repository: Some(repository.name.clone()),
        trust: repository.trust_version,
        index: repository.index_version,
        timestamp: repository.timestamp_version,
    })
}

/// The loader's floors, if they are of this repository: it may have heard of another one last.
fn own_floors(loader: &Floors, repository: Option<&RepositoryName>) -> Floors {
    if loader.repository.is_some() && loader.repository.as_ref() == repository {
        loader.clone()
    } else {
        Floors::default()
    }
}

/// Fetches and verifies what the instruction names, from the mirror of its feed.
///
/// # Errors
///
/// See [`FetchError`].
pub async fn fetch(
    patch_server: &str,
    options: Options,
    apply: &Apply,
    policy: &PatchPolicy,
    feed: &PatchFeed,
    loader: &Floors,
    now: Timestamp,
) -> Result<Fetched, FetchError> {
    allow::by_policy(apply, policy, feed)?;
    let fleet = floors_of(feed);
    let base = format!("{}/feeds/{}/", patch_server.trim_end_matches('/'), feed.name_any());
    let repository = Repository::new(&base, options)?;
    let floors = own_floors(loader, fleet.repository.as_ref());
    let look = repository.look(&feed.spec.trust.root_sha256, &floors, now).await?;
    look.catalogue.floors().not_below(&fleet)?;
    allow::by_index(apply, &policy.spec.target.set, look.catalogue.index())?;
    let kernel = repository.kernel(&look, &apply.build_id).await?;
    let document = look.catalogue.kernel(&apply.build_id, &kernel)?;
    let level = allow::by_kernel(apply, &document)?;
    let bundle = invivo_bundle::unpack(&repository.bundle(level).await?)?;
    let manifest = look.catalogue.manifest(&document, apply.level, &bundle.manifest)?;
    let mut modules = bundle.modules.into_iter();
    let (Some(module), None) = (modules.next(), modules.next()) else {
        let detail = "exactly one module is supported";
        return Err(Rejection::new(Refusal::Malformed, Document::Bundle, detail).into());
    };
    check_module(&manifest, &module.name, &module.bytes)?;
    let proof = Proof {
        trust: look.trust,
        timestamp: look.timestamp,
        index: look.index,
        kernel,
        manifest: bundle.manifest,
    };
    Ok(Fetched {
        proof: serde_json::to_vec(&proof).map_err(FetchError::Proof)?,
        module: module.bytes,
        server_date: look.server_date,
        floors: look.catalogue.floors().raise(&fleet),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floors_of_another_repository_are_not_taken_for_this_ones() {
        let floors =
            |name: &str| Floors { repository: Some(name.parse().unwrap()), trust: 1, index: 7, timestamp: 9 };
        let name = "example".parse().unwrap();
        assert_eq!(own_floors(&floors("example"), Some(&name)), floors("example"));
        assert_eq!(own_floors(&floors("other"), Some(&name)), Floors::default());
        assert_eq!(own_floors(&floors("example"), None), Floors::default());
        assert_eq!(own_floors(&Floors::default(), None), Floors::default());
    }
}
