//! The mirror that an earlier run left on disk: believed only if it still verifies, judged by the
//! time at which it was verified. What has expired since is served all the same; its readers
//! judge that by their own clocks.

use invivo_feed::document::cap;
use invivo_feed::{Client, Clocks, Floors, Rejection, Signed};
use invivo_terms::Digest;

use crate::disk::{self, Disk};
use crate::stock::{Stock, Verified, wanted_bundles};
use crate::{FeedName, MirrorPath};

/// What lies there is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It cannot be read.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// It does not verify.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// A bundle is missing or changed.
    #[error("{0} is missing or damaged")]
    Missing(MirrorPath),
}

/// Reads and verifies the mirror of `feed` from `root`; none if there is none from that root.
pub(crate) fn load(disk: &Disk, feed: &FeedName, root: &Digest) -> Result<Option<Stock>, Error> {
    let Some(record) = disk.record(feed)? else { return Ok(None) };
    if record.root != *root {
        return Ok(None);
    }
    let signed = |document: MirrorPath, signatures: MirrorPath, longest| {
        Ok::<_, disk::Error>(Signed {
            document: disk.read(feed, &document, longest)?,
            signatures: disk.read(feed, &signatures, cap::SIGNATURES)?,
        })
    };
    let clocks = Clocks { own: record.verified, server: None };
    let first = signed(MirrorPath::Trust(1), MirrorPath::TrustSignatures(1), cap::TRUST)?;
    let mut client = Client::begin(root, &Floors::default(), clocks, &first)?;
    let mut trust = vec![first];
    for n in (2..=record.trust).take(cap::TRUST_CHAIN) {
        let next = signed(MirrorPath::Trust(n), MirrorPath::TrustSignatures(n), cap::TRUST)?;
        client = client.rotate(&next)?;
        trust.push(next);
    }
    let timestamped = client.timestamp(&record.timestamp)?;
    let version = timestamped.wanted_index().version;
    let index = signed(MirrorPath::Index(version), MirrorPath::IndexSignatures(version), cap::INDEX)?;
    let catalogue = timestamped.index(&index)?;
    let mut verified = Verified::of(&catalogue, trust, record.timestamp, index);
    let mut kernels = Vec::new();
    for (build, reference) in &catalogue.index().kernels {
        let bytes = disk.read(feed, &MirrorPath::Kernel(reference.sha256.clone()), cap::KERNEL)?;
        kernels.push(catalogue.kernel(build, &bytes)?);
        verified.kernels.insert(reference.sha256.clone(), reference.length);
    }
    for (sha256, level) in wanted_bundles(catalogue.index(), &kernels) {
        let path = MirrorPath::Bundle(sha256.clone());
        if !disk.holds(feed, &path, level.bundle.length, &sha256) {
            return Err(Error::Missing(path));
        }
        verified.bundles.insert(sha256, level.bundle.length);
    }
    Ok(Some(Stock::new(root.clone(), record.verified, &verified, None, |p| disk.place(feed, p))))
}
