//! From the patch server to a verified proof and module.

use std::collections::BTreeMap;

use invivo_api::{Apply, PatchFeed, PatchPolicy};
use invivo_feed::document::{Index, LevelEntry, SetEntry};
use invivo_feed::{Clocks, Document, Floors, Proof, Rejection, Say, check_module, eligible};
use invivo_terms::{Refusal, RepositoryName, SetName};
use invivo_transport::{Error as TransportError, Options, Repository};
use invivo_wire::{Reason, State};
use jiff::Timestamp;
use kube::ResourceExt;

use crate::allow::{self, Forbidden, Unfit};
use crate::cluster::{Cluster, ClusterError};
use crate::loader::{Loader, LoaderError};

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
    /// The API server did not say what people decided.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The feed withholds it now.
    #[error("{0}")]
    Withheld(String),
    /// The loader did not say whether there is room.
    #[error(transparent)]
    Loader(#[from] LoaderError),
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

impl From<Unfit> for FetchError {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Rejected(rejection) => Self::Rejected(rejection),
            Unfit::Withheld { .. } => Self::Withheld(unfit.to_string()),
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

/// Where the patches of a policy come from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The policy.
    pub policy: PatchPolicy,
    /// Its feed, then the feeds that this one takes from, down to the one with the repository.
    pub feeds: Vec<PatchFeed>,
}

impl Source {
    /// Reads the feeds from this one down to its repository.
    ///
    /// # Errors
    ///
    /// `Forbidden` where there is no way down, and whatever the API server says.
    pub async fn read(cluster: &Cluster, policy: PatchPolicy, feed: &str) -> Result<Self, FetchError> {
        let mut feeds: Vec<PatchFeed> = Vec::new();
        let mut next = Some(feed.to_owned());
        while let Some(name) = next.take() {
            if feeds.iter().any(|feed| feed.name_any() == name) {
                return Err(Forbidden::Cycle(name).into());
            }
            let Some(feed) = cluster.feed(&name).await? else { return Err(Forbidden::NoFeed(name).into()) };
            next.clone_from(&feed.spec.source.feed);
            feeds.push(feed);
        }
        Ok(Self { policy, feeds })
    }

    /// What the feeds say about the set of an instruction and, where it does not touch the build,
    /// about those before it, up to the first that is eligible.
    async fn says(
        &self,
        cluster: &Cluster,
        apply: &Apply,
        index: &Index,
        now: Timestamp,
    ) -> Result<BTreeMap<SetName, Vec<Say>>, FetchError> {
        let mut known = BTreeMap::new();
        let Some(set) = index.set(&apply.set) else { return Ok(known) };
        known.insert(set.name.clone(), self.says_about(cluster, set).await?);
        if set.kernels.contains_key(&apply.build_id) {
            return Ok(known);
        }
        for offer in index.origins(&apply.set, &apply.build_id) {
            let says = self.says_about(cluster, offer.set).await?;
            let found = eligible(offer.set, &says, now).is_ok();
            known.insert(offer.set.name.clone(), says);
            if found {
                break;
            }
        }
        Ok(known)
    }

    async fn says_about(&self, cluster: &Cluster, set: &SetEntry) -> Result<Vec<Say>, FetchError> {
        let mut objects = Vec::new();
        for feed in &self.feeds {
            objects.push(cluster.set(&format!("{}.{}", feed.name_any(), set.name)).await?);
        }
        Ok(allow::says(set, &self.feeds, &objects))
    }
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

/// Before anything large is fetched: the loader loads nothing that it cannot keep, with its proof. What
/// else may be wrong with its disk it says when it is passed them.
async fn reserve(loader: &Loader, level: &LevelEntry, proof: u64) -> Result<(), FetchError> {
    let needed = level.modules.iter().map(|module| module.length).sum::<u64>().saturating_add(proof);
    match loader.reserve(needed).await {
        Ok(State { reason: Some(Reason::Refusal(Refusal::StorageFull)), message, .. }) => {
            let why = message.unwrap_or_default();
            let detail = format!("{needed} bytes are to be kept on the node: {why}");
            Err(Rejection::new(Refusal::StorageFull, Document::Bundle, detail).into())
        }
        // An earlier one does not know the question.
        Ok(_) | Err(LoaderError::Refused(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Fetches and verifies what the instruction names, from the mirror of its feed.
///
/// # Errors
///
/// See [`FetchError`].
pub async fn fetch(
    cluster: &Cluster,
    patch_server: &str,
    options: Options,
    apply: &Apply,
    source: &Source,
    (loader, state): (&Loader, &State),
    now: Timestamp,
) -> Result<Fetched, FetchError> {
    let (Some(feed), Some(root_feed)) = (source.feeds.first(), source.feeds.last()) else {
        return Err(Forbidden::Unnamed("feed").into());
    };
    allow::by_policy(apply, &source.policy, feed)?;
    if let Some(feed) = source.feeds.iter().find(|feed| feed.spec.suspend) {
        return Err(FetchError::Withheld(format!("PatchFeed {} is suspended", feed.name_any())));
    }
    let Some(root) = root_feed.root() else { return Err(Forbidden::Unnamed("trust root").into()) };
    let fleet = floors_of(root_feed);
    let base = format!("{}/feeds/{}/", patch_server.trim_end_matches('/'), root_feed.name_any());
    let repository = Repository::new(&base, options)?;
    let floors = own_floors(&state.floors, fleet.repository.as_ref());
    let look = repository.look(root, &floors, now).await?;
    look.catalogue.floors().not_below(&fleet)?;
    let index = look.catalogue.index();
    let earlier = Clocks { own: now, server: look.server_date }.earlier();
    let says = source.says(cluster, apply, index, earlier).await?;
    allow::by_index(apply, &source.policy.spec.target.set, index, &says, earlier)?;
    let kernel = repository.kernel(&look, &apply.build_id).await?;
    let document = look.catalogue.kernel(&apply.build_id, &kernel)?;
    let level = allow::by_kernel(apply, &document)?;
    let proof = Proof {
        trust: look.trust,
        timestamp: look.timestamp,
        index: look.index,
        kernel,
        manifest: Vec::new(),
    };
    let kept = proof.length_with(level.manifest.length).map_err(FetchError::Proof)?;
    reserve(loader, level, kept).await?;
    let bundle = invivo_bundle::unpack(&repository.bundle(level).await?)?;
    let manifest = look.catalogue.manifest(&document, apply.level, &bundle.manifest)?;
    let mut modules = bundle.modules.into_iter();
    let (Some(module), None) = (modules.next(), modules.next()) else {
        let detail = "exactly one module is supported";
        return Err(Rejection::new(Refusal::Malformed, Document::Bundle, detail).into());
    };
    check_module(&manifest, &module.name, &module.bytes)?;
    let proof = Proof { manifest: bundle.manifest, ..proof };
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
