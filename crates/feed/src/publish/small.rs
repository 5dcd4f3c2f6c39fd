//! A small house: three people of whom two must sign, and a timestamp key. For demonstrations,
//! tests and small set-ups; all keys are in one place, which a real publisher avoids.

use std::path::Path;

use invivo_terms::RepositoryName;
use jiff::Timestamp;

use super::{Addition, Desk, Founding, PublishError, Published, RoleKeys, SecretKey};
use crate::document::Role;

/// The keys of a small house.
#[derive(Debug, Clone)]
pub struct SmallHouse {
    /// Three holders, each for trust and index; two must sign.
    pub holders: Vec<SecretKey>,
    /// Signs timestamps.
    pub timestamp: SecretKey,
}

impl SmallHouse {
    /// Makes the four keys.
    ///
    /// # Errors
    ///
    /// `Key`.
    pub fn generate(repository: &RepositoryName, now: Timestamp) -> Result<Self, PublishError> {
        let holders = ["first", "second", "third"]
            .into_iter()
            .map(|holder| SecretKey::generate(&format!("{holder} key holder of {repository}"), now))
            .collect::<Result<_, _>>()?;
        let timestamp = SecretKey::generate(&format!("timestamps of {repository}"), now)?;
        Ok(Self { holders, timestamp })
    }

    /// What `trust/1.json` is made of.
    pub fn founding(&self, repository: &RepositoryName) -> Founding {
        let certificates: Vec<_> = self.holders.iter().map(|key| key.certificate().clone()).collect();
        let people = RoleKeys { threshold: 2, certificates };
        Founding {
            repository: repository.clone(),
            timestamp_days: 7,
            trust: people.clone(),
            index: people,
            timestamp: RoleKeys { threshold: 1, certificates: vec![self.timestamp.certificate().clone()] },
        }
    }

    /// Makes a desk whose trust document two holders have signed.
    ///
    /// # Errors
    ///
    /// As [`Desk::create`] and [`Desk::sign`].
    pub fn found(
        &self,
        folder: &Path,
        repository: &RepositoryName,
        now: Timestamp,
    ) -> Result<Desk, PublishError> {
        let desk = Desk::create(folder, &self.founding(repository), now)?;
        self.sign(&desk, Role::Trust, now)?;
        Ok(desk)
    }

    /// Adds the bundles, stages, has two holders sign, publishes.
    ///
    /// # Errors
    ///
    /// As the steps.
    pub fn publish(
        &self,
        desk: &Desk,
        additions: &[Addition<'_>],
        now: Timestamp,
    ) -> Result<Published, PublishError> {
        for addition in additions {
            desk.add(addition, now)?;
        }
        desk.stage(90, now)?;
        self.sign(desk, Role::Index, now)?;
        desk.publish(&self.timestamp, now)
    }

    fn sign(&self, desk: &Desk, role: Role, now: Timestamp) -> Result<(), PublishError> {
        for holder in self.holders.iter().take(2) {
            desk.sign(role, holder, now)?;
        }
        Ok(())
    }
}
