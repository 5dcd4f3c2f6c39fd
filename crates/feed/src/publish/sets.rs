//! What the next index will say: bundles added, sets withdrawn or promoted.

use invivo_terms::SetName;
use jiff::Timestamp;

use super::{Desk, PublishError};
use crate::document::{
    Channel, FileReference, KernelDocument, LevelEntry, Manifest, ModuleReference, SetEntry, SetKernel,
    SetStatus, cap,
};
use crate::{Document, agree, digest, paths, read, store};

/// One bundle for one set.
#[derive(Debug, Clone)]
pub struct Addition<'a> {
    /// Whether the set's tests are finished; counts when the set is new.
    pub channel: Channel,
    /// The author's words on the set, at most 1,024 characters; counts when the set is new.
    pub summary: &'a str,
    /// The bundle's `manifest.json`, exactly.
    pub manifest: &'a [u8],
    /// The bundle, exactly.
    pub bundle: &'a [u8],
}

impl Desk {
    /// Puts a bundle into the set that its manifest names, making the set where it is new.
    ///
    /// # Errors
    ///
    /// `Rejected` for a manifest that does not parse or agree; `Unfit` for a level that does not
    /// rise or other facts about the kernel; `SetPublished`; `Store`.
    pub fn add(&self, addition: &Addition<'_>, now: Timestamp) -> Result<Manifest, PublishError> {
        read::within(Document::Manifest, addition.manifest, cap::MANIFEST)?;
        read::within(Document::Bundle, addition.bundle, cap::BUNDLE)?;
        let manifest = read::manifest(addition.manifest)?;
        let (set, build) = (&manifest.set, &manifest.kernel.build_id);
        let unfit = |detail: String| PublishError::Unfit { set: set.clone(), build: build.clone(), detail };
        if self.is_published(set)? {
            return Err(PublishError::SetPublished { set: set.clone() });
        }
        if addition.summary.chars().count() > read::MAX_SUMMARY {
            return Err(unfit("the summary is too long".to_owned()));
        }
        let mut draft = self.draft()?;
        if !draft.sets.iter().any(|entry| entry.name == *set) {
            draft.sets.push(SetEntry {
                name: set.clone(),
                released: Timestamp::from_second(now.as_second()).unwrap_or(now),
                channel: addition.channel,
                status: SetStatus::Active,
                summary: addition.summary.to_owned(),
                kernels: std::collections::BTreeMap::new(),
            });
        }
        let Some(entry) = draft.sets.iter_mut().find(|entry| entry.name == *set) else {
            return Err(PublishError::UnknownSet { set: set.clone() });
        };
        let document = draft
            .kernels
            .entry(build.clone())
            .or_insert_with(|| KernelDocument { kernel: manifest.kernel.clone(), levels: Vec::new() });
        if document.kernel != manifest.kernel {
            return Err(unfit("the kernel was described otherwise before".to_owned()));
        }
        // The same level of a set that is still a draft may be made again.
        if entry.kernels.contains_key(build) {
            document.levels.retain(|level| level.set != *set);
        }
        if document.levels.last().is_some_and(|last| last.level >= manifest.level) || manifest.level.0 == 0 {
            return Err(unfit(format!("level {} does not rise", manifest.level)));
        }
        let sha256 = digest(addition.manifest);
        let level = level(&manifest, addition, entry.released);
        agree::manifest(&self.name()?, &document.kernel, &level, &manifest)?;
        store::replace(&self.tree().join(paths::bundle(&level.bundle.sha256)), addition.bundle, 0o644)?;
        document.levels.push(level);
        entry.kernels.insert(build.clone(), SetKernel { level: manifest.level, manifest: sha256 });
        self.save(&draft)?;
        Ok(manifest)
    }

    /// Takes a set back: nobody starts to apply it any more.
    ///
    /// # Errors
    ///
    /// `UnknownSet`, `Store`.
    pub fn withdraw(&self, set: &SetName) -> Result<(), PublishError> {
        self.change(set, |entry| entry.status = SetStatus::Withdrawn)
    }

    /// Says that a set's tests are finished.
    ///
    /// # Errors
    ///
    /// `UnknownSet`, `Store`.
    pub fn promote(&self, set: &SetName) -> Result<(), PublishError> {
        self.change(set, |entry| entry.channel = Channel::Stable)
    }

    /// The sets of the next index, in order.
    ///
    /// # Errors
    ///
    /// `Store`.
    pub fn sets(&self) -> Result<Vec<SetEntry>, PublishError> {
        Ok(self.draft()?.sets)
    }

    fn change(&self, set: &SetName, change: impl FnOnce(&mut SetEntry)) -> Result<(), PublishError> {
        let mut draft = self.draft()?;
        let Some(entry) = draft.sets.iter_mut().find(|entry| entry.name == *set) else {
            return Err(PublishError::UnknownSet { set: set.clone() });
        };
        change(entry);
        self.save(&draft)
    }

    fn is_published(&self, set: &SetName) -> Result<bool, PublishError> {
        let index = self.repository().current_index()?;
        let index = index.map(|signed| read::index(&signed.document)).transpose()?;
        Ok(index.is_some_and(|index| index.set(set).is_some()))
    }
}

fn level(manifest: &Manifest, addition: &Addition<'_>, released: Timestamp) -> LevelEntry {
    let file = |bytes: &[u8]| FileReference { length: bytes.len() as u64, sha256: digest(bytes) };
    let modules = manifest
        .modules
        .iter()
        .map(|module| ModuleReference {
            name: module.name.clone(),
            length: module.length,
            sha256: module.sha256.clone(),
        })
        .collect();
    LevelEntry {
        level: manifest.level,
        set: manifest.set.clone(),
        released,
        mechanisms: manifest.mechanisms.clone(),
        complete: manifest.complete.clone(),
        manifest: file(addition.manifest),
        modules,
        bundle: file(addition.bundle),
        fixes: manifest.fixes.clone(),
    }
}
