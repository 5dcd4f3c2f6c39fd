//! A repository at a URL, or a mirror of one: it makes no difference, mirrors hold no key.

use std::sync::{Arc, Mutex, PoisonError};

use invivo_feed::document::{LevelEntry, cap};
use invivo_feed::{Catalogue, Client, Clocks, Document, Floors, Rejection, Signed, digest, paths};
use invivo_terms::{BuildId, Digest, Refusal};
use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;

use crate::fetch::{Body, Fetched, Fetcher, Wanted};
use crate::{Error, Look, Options};

/// How long what was verified need not be verified again.
const HOLDS_FOR: SignedDuration = SignedDuration::from_hours(1);

/// A repository at a URL. Clones share what was last seen, so that a look that finds nothing new
/// costs two small requests.
#[derive(Debug, Clone)]
pub struct Repository {
    fetcher: Fetcher,
    seen: Arc<Mutex<Option<Seen>>>,
}

/// What held last time.
#[derive(Debug, Clone)]
struct Seen {
    root: Digest,
    trust: Vec<Signed>,
    timestamp: Signed,
    etag: Option<String>,
    index: Signed,
    catalogue: Catalogue,
    at: Timestamp,
}

impl Seen {
    /// Whether all that a look would check is known to hold: the same bytes against the same floors
    /// fail by a date only. Those of the documents are judged here; a signature may have one of its
    /// own, and may be dated ahead of a clock that was set back, so what held holds for a while only.
    fn holds(&self, timestamp: &Signed, floors: &Floors, clocks: Clocks) -> bool {
        let now = clocks.later();
        self.timestamp == *timestamp
            && self.catalogue.floors() == floors
            && now < self.catalogue.expires()
            && self.at <= now
            && now.duration_since(self.at) < HOLDS_FOR
    }
}

impl Repository {
    /// A repository whose files are below `base`.
    ///
    /// # Errors
    ///
    /// `Unreachable` if `base` is not an http or https URL.
    #[allow(clippy::needless_pass_by_value, reason = "callers build the options for this one repository")]
    pub fn new(base: &str, options: Options) -> Result<Self, Error> {
        Ok(Self { fetcher: Fetcher::new(base, &options)?, seen: Arc::default() })
    }

    /// Walks trust chain, timestamp and index.
    ///
    /// # Errors
    ///
    /// `Unreachable`, or the first refusal met.
    pub async fn look(&self, root: &Digest, floors: &Floors, now: Timestamp) -> Result<Look, Error> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let seen = seen.filter(|seen| seen.root == *root);
        let mut trust = seen.as_ref().map(|seen| seen.trust.clone()).unwrap_or_default();
        // The first answer also brings the server's clock.
        let (next, server_date) = self.trust(trust.len() + 1).await?;
        let clocks = Clocks { own: now, server: server_date };
        let mut fetched = None;
        if let (Some(seen), None) = (&seen, &next) {
            let (timestamp, etag) = self.timestamp(Some(seen)).await?;
            if seen.holds(&timestamp, floors, clocks) {
                let Seen { catalogue, trust, timestamp, index, .. } = seen.clone();
                return Ok(Look { catalogue, trust, timestamp, index, server_date, unchanged: true });
            }
            fetched = Some((timestamp, etag));
        }
        trust.extend(next);
        let Some((first, rest)) = trust.split_first() else {
            return Err(self.fetcher.unreachable(&paths::trust(1), "HTTP 404 Not Found"));
        };
        let mut client = rest.iter().try_fold(Client::begin(root, floors, clocks, first)?, Client::rotate)?;
        let known = seen.as_ref().map_or(0, |seen| seen.trust.len());
        if trust.len() > known {
            while let (Some(next), _) = self.trust(trust.len() + 1).await? {
                client = client.rotate(&next)?;
                trust.push(next);
            }
        }
        let (timestamp, etag) = match fetched {
            Some(fetched) => fetched,
            None => self.timestamp(seen.as_ref()).await?,
        };
        let (timestamped, timestamp, etag) = match client.clone().timestamp(&timestamp) {
            Ok(timestamped) => (timestamped, timestamp, etag),
            // The two files may be from before and after a refresh.
            Err(rejection) if rejection.refusal == Refusal::BelowThreshold => {
                let (timestamp, etag) = self.timestamp(None).await?;
                (client.timestamp(&timestamp)?, timestamp, etag)
            }
            Err(rejection) => return Err(rejection.into()),
        };
        let wanted = timestamped.wanted_index().clone();
        let index = match seen.map(|seen| seen.index).filter(|index| digest(&index.document) == wanted.sha256)
        {
            Some(index) => index,
            None => self.signed(Document::Index, &paths::index(wanted.version), wanted.length).await?,
        };
        let catalogue = timestamped.index(&index)?;
        let seen = Seen {
            root: root.clone(),
            trust: trust.clone(),
            timestamp: timestamp.clone(),
            etag,
            index: index.clone(),
            catalogue: catalogue.clone(),
            at: clocks.later(),
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        Ok(Look { catalogue, trust, timestamp, index, server_date, unchanged: false })
    }

    /// Fetches and checks the kernel document of `build`.
    ///
    /// # Errors
    ///
    /// `Unreachable`, or the refusal.
    pub async fn kernel(&self, look: &Look, build: &BuildId) -> Result<Vec<u8>, Error> {
        let Some(reference) = look.catalogue.index().kernels.get(build) else {
            let detail = format!("the index does not know build {build}");
            return Err(Rejection::new(Refusal::WrongKernel, Document::Kernel, detail).into());
        };
        let name = paths::kernel(&reference.sha256);
        let bytes = self.by_digest(Document::Kernel, &name, reference.length).await?;
        look.catalogue.kernel(build, &bytes)?;
        Ok(bytes)
    }

    /// Fetches the bundle of one level and checks its length and digest.
    ///
    /// # Errors
    ///
    /// `Unreachable`, `ArbitrarySoftware`, `EndlessData`, `SlowRetrieval`.
    pub async fn bundle(&self, level: &LevelEntry) -> Result<Vec<u8>, Error> {
        let named = &level.bundle;
        if named.length > cap::BUNDLE {
            let detail = format!("{} bytes are named, {} allowed", named.length, cap::BUNDLE);
            return Err(Rejection::new(Refusal::EndlessData, Document::Bundle, detail).into());
        }
        let bytes = self.by_digest(Document::Bundle, &paths::bundle(&named.sha256), named.length).await?;
        let found = digest(&bytes);
        if bytes.len() as u64 != named.length || found != named.sha256 {
            let detail = format!(
                "{} bytes with digest {found}, named are {} with {}",
                bytes.len(),
                named.length,
                named.sha256
            );
            return Err(Rejection::new(Refusal::ArbitrarySoftware, Document::Bundle, detail).into());
        }
        Ok(bytes)
    }

    /// One trust document, or none where the chain ends, and the server's clock.
    async fn trust(&self, version: usize) -> Result<(Option<Signed>, Option<Timestamp>), Error> {
        let name = paths::trust(version as u64);
        let fetched = self.get(Document::Trust, &name, cap::TRUST, None, false).await?;
        let date = fetched.date;
        match fetched.body {
            Body::Found { bytes, .. } => {
                let signatures = self.signatures(Document::Trust, &name).await?;
                Ok((Some(Signed { document: bytes, signatures }), date))
            }
            // Some object stores say "forbidden" of what is not there.
            Body::Absent(_) | Body::Unchanged => Ok((None, date)),
        }
    }

    /// The timestamp, and its ETag for the next time.
    async fn timestamp(&self, seen: Option<&Seen>) -> Result<(Signed, Option<String>), Error> {
        let (document, name) = (Document::Timestamp, paths::TIMESTAMP);
        let unless = seen.and_then(|seen| seen.etag.as_deref());
        match (self.get(document, name, cap::TIMESTAMP, unless, false).await?.body, seen) {
            (Body::Found { bytes, etag }, _) => {
                Ok((Signed { document: bytes, signatures: self.signatures(document, name).await? }, etag))
            }
            (Body::Unchanged, Some(seen)) => Ok((seen.timestamp.clone(), seen.etag.clone())),
            (Body::Unchanged, None) => Err(self.absent(name, StatusCode::NOT_MODIFIED)),
            (Body::Absent(status), _) => Err(self.absent(name, status)),
        }
    }

    async fn signed(&self, document: Document, name: &str, limit: u64) -> Result<Signed, Error> {
        let bytes = match self.get(document, name, limit, None, false).await?.body {
            Body::Found { bytes, .. } => bytes,
            Body::Absent(status) => return Err(self.absent(name, status)),
            Body::Unchanged => return Err(self.absent(name, StatusCode::NOT_MODIFIED)),
        };
        Ok(Signed { document: bytes, signatures: self.signatures(document, name).await? })
    }

    /// The signatures beside a document; none are too few, and the check says so.
    async fn signatures(&self, document: Document, name: &str) -> Result<Vec<u8>, Error> {
        match self.get(document, &paths::signatures(name), cap::SIGNATURES, None, false).await?.body {
            Body::Found { bytes, .. } => Ok(bytes),
            Body::Absent(_) | Body::Unchanged => Ok(Vec::new()),
        }
    }

    async fn by_digest(&self, document: Document, name: &str, length: u64) -> Result<Vec<u8>, Error> {
        match self.get(document, name, length, None, true).await?.body {
            Body::Found { bytes, .. } => Ok(bytes),
            Body::Absent(status) => Err(self.absent(name, status)),
            Body::Unchanged => Err(self.absent(name, StatusCode::NOT_MODIFIED)),
        }
    }

    async fn get(
        &self,
        document: Document,
        name: &str,
        limit: u64,
        unless: Option<&str>,
        by_digest: bool,
    ) -> Result<Fetched, Error> {
        self.fetcher.get(Wanted { document, name, limit, unless, by_digest }).await
    }

    fn absent(&self, name: &str, status: StatusCode) -> Error {
        self.fetcher.unreachable(name, &format!("HTTP {status}"))
    }
}

#[cfg(test)]
#[path = "repository_tests.rs"]
mod tests;
