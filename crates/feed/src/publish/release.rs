//! Publishing: only what a client would take, content first, the timestamp last.

use std::path::Path;

use jiff::Timestamp;

use super::desk::{days_after, pretty};
use super::{Desk, PublishError, SecretKey};
use crate::document::{IndexReference, Role, TimestampDocument, cap};
use crate::store::{self, StoreError};
use crate::{Client, Clocks, Floors, Signed, digest, paths, read, signature};

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Version of the trust document in force.
    pub trust: u64,
    /// Version of the index.
    pub index: u64,
    /// Version of the timestamp.
    pub timestamp: u64,
    /// When the first of them expires.
    pub expires: Timestamp,
}

impl Desk {
    /// Publishes what is staged, trust document and index, with a new timestamp. The whole is
    /// checked as a client checks it before a byte is written. A reader who comes in between sees
    /// the old state or the new.
    ///
    /// # Errors
    ///
    /// `NothingStaged`, `Unsigned`, `Rejected`, `Key`, `Store`.
    pub fn publish(&self, timestamp_key: &SecretKey, now: Timestamp) -> Result<Published, PublishError> {
        let (trust, index) = (self.take(Role::Trust)?, self.take(Role::Index)?);
        if trust.is_none() && index.is_none() {
            return Err(PublishError::NothingStaged { what: "trust document or index" });
        }
        let mut chain = self.repository().trust_chain()?;
        chain.extend(trust.clone());
        let current = self.repository().current_index()?;
        let Some(index_in_force) = index.clone().or(current) else {
            // A repository may be founded before it has anything to offer.
            return Err(PublishError::NothingStaged { what: "index" });
        };
        let (timestamp, published) = self.timestamp(&chain, &index_in_force, timestamp_key, now)?;
        self.complete(&index_in_force)?;
        if let Some(trust) = &trust {
            self.put(&paths::trust(published.trust), trust)?;
        }
        if let Some(index) = &index {
            self.put(&paths::index(published.index), index)?;
        }
        self.put_timestamp(&timestamp)?;
        self.drop_staged(Role::Trust)?;
        self.drop_staged(Role::Index)?;
        Ok(published)
    }

    /// Makes a new timestamp for the published index.
    ///
    /// # Errors
    ///
    /// `NothingStaged` before the first publication, `Rejected`, `Key`, `Store`.
    pub fn refresh(&self, timestamp_key: &SecretKey, now: Timestamp) -> Result<Published, PublishError> {
        let chain = self.repository().trust_chain()?;
        let index = self
            .repository()
            .current_index()?
            .ok_or(PublishError::NothingStaged { what: "published index" })?;
        let (timestamp, published) = self.timestamp(&chain, &index, timestamp_key, now)?;
        self.put_timestamp(&timestamp)?;
        Ok(published)
    }

    /// The staged document of a role, if there is one and enough have signed it.
    fn take(&self, role: Role) -> Result<Option<Signed>, PublishError> {
        match self.staged(role) {
            Ok(staged) => {
                let progress = self.progress(role)?;
                if !progress.is_complete() {
                    return Err(PublishError::Unsigned { what: role.as_str(), detail: progress.to_string() });
                }
                Ok(Some(staged))
            }
            Err(PublishError::NothingStaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A new timestamp over `index`, and the proof that a client takes the three.
    fn timestamp(
        &self,
        chain: &[Signed],
        index: &Signed,
        key: &SecretKey,
        now: Timestamp,
    ) -> Result<(Signed, Published), PublishError> {
        let Some((first, rest)) = chain.split_first() else {
            return Err(PublishError::NothingStaged { what: "trust document" });
        };
        let clocks = Clocks { own: now, server: None };
        let begun = Client::begin(&digest(&first.document), &Floors::default(), clocks, first)?;
        let client = rest.iter().try_fold(begun, Client::rotate)?;
        let before =
            self.repository().timestamp()?.map(|signed| read::timestamp(&signed.document)).transpose()?;
        let parsed = read::index(&index.document)?;
        let document = TimestampDocument {
            r#type: Role::Timestamp,
            repository: client.trust().repository.clone(),
            version: before.map_or(1, |before| before.version.saturating_add(1)),
            expires: days_after(now, client.trust().timestamp_days),
            index: IndexReference {
                version: parsed.version,
                length: index.document.len() as u64,
                sha256: digest(&index.document),
            },
        };
        let bytes = pretty(Path::new(paths::TIMESTAMP), &document)?;
        let signatures = key.sign(Role::Timestamp, &bytes, now)?;
        let timestamp = Signed { document: bytes, signatures };
        let catalogue = client.timestamp(&timestamp)?.index(index)?;
        let floors = catalogue.floors();
        let published = Published {
            trust: floors.trust,
            index: floors.index,
            timestamp: floors.timestamp,
            expires: catalogue.expires(),
        };
        Ok((timestamp, published))
    }

    /// Every file that the index leads to must be there.
    fn complete(&self, index: &Signed) -> Result<(), PublishError> {
        for reference in read::index(&index.document)?.kernels.values() {
            let bytes = self.wanted(&paths::kernel(&reference.sha256), cap::KERNEL)?;
            for level in read::kernel(&bytes)?.levels {
                let bundle = self.wanted(&paths::bundle(&level.bundle.sha256), cap::BUNDLE)?;
                if digest(&bundle) != level.bundle.sha256 {
                    let path = self.tree().join(paths::bundle(&level.bundle.sha256));
                    let source = std::io::ErrorKind::InvalidData.into();
                    return Err(StoreError::Io { path, source }.into());
                }
            }
        }
        Ok(())
    }

    fn wanted(&self, name: &str, limit: u64) -> Result<Vec<u8>, PublishError> {
        let path = self.tree().join(name);
        match store::read(&path, limit)? {
            Some(bytes) => Ok(bytes),
            None => Err(StoreError::Io { path, source: std::io::ErrorKind::NotFound.into() }.into()),
        }
    }

    /// Signatures first: the document's presence is what readers go by.
    fn put(&self, name: &str, signed: &Signed) -> Result<(), PublishError> {
        store::replace(&self.tree().join(paths::signatures(name)), &signed.signatures, 0o644)?;
        Ok(store::replace(&self.tree().join(name), &signed.document, 0o644)?)
    }

    /// Two files cannot be replaced at once. The signatures beside the timestamp are the new one
    /// and the one before, so that either document is vouched for whichever a reader gets.
    fn put_timestamp(&self, timestamp: &Signed) -> Result<(), PublishError> {
        let mut signatures = timestamp.signatures.clone();
        if let Some(before) = self.repository().timestamp()? {
            let document = crate::Document::Timestamp;
            let old = signature::packets(document, &before.signatures)?.into_iter().next();
            if let Some(old) = old {
                use sequoia_openpgp::serialize::SerializeInto as _;
                signatures.extend(sequoia_openpgp::Packet::from(old).to_vec().map_err(PublishError::key)?);
            }
        }
        self.put(paths::TIMESTAMP, &Signed { document: timestamp.document.clone(), signatures })
    }
}
