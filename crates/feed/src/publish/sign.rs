//! Staging, and signatures by each key holder separately.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use invivo_terms::Fingerprint;
use jiff::Timestamp;
use sequoia_openpgp::armor;
use sequoia_openpgp::serialize::SerializeInto;

use super::desk::{days_after, pretty};
use super::{Desk, PublishError, SecretKey};
use crate::document::{Index, KernelReference, Role, cap, life};
use crate::keyring::Keyring;
use crate::signature::{Finding, examine, packets};
use crate::{Document, digest, paths, read, store};

/// How far the signing of a staged document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The document.
    pub role: Role,
    /// One need; two for a rotation of the trust document, by its old and by its new keys.
    pub needs: Vec<Need>,
}

/// So many of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// How many must sign.
    pub threshold: usize,
    /// Who has.
    pub signed: Vec<Fingerprint>,
    /// Who may still.
    pub open: Vec<Fingerprint>,
}

impl Progress {
    /// Whether it can be published.
    pub fn is_complete(&self) -> bool {
        self.needs.iter().all(|need| need.signed.len() >= need.threshold)
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.role.as_str())?;
        for need in &self.needs {
            write!(f, " {} of {} signatures needed;", need.signed.len(), need.threshold)?;
        }
        Ok(())
    }
}

impl Desk {
    /// Writes the next index for signing (`staged/index.json`) and the kernel documents it names.
    /// Signatures of an earlier staging are dropped. `days` is how long it will live, at most 90.
    ///
    /// # Errors
    ///
    /// `Rejected`, `Store`.
    pub fn stage(&self, days: u16, now: Timestamp) -> Result<Index, PublishError> {
        let draft = self.draft()?;
        let mut kernels = BTreeMap::new();
        for (build, document) in &draft.kernels {
            let bytes = pretty(&self.tree(), document)?;
            read::within(Document::Kernel, &bytes, cap::KERNEL)?;
            read::kernel(&bytes)?;
            let sha256 = digest(&bytes);
            store::replace(&self.tree().join(paths::kernel(&sha256)), &bytes, 0o644)?;
            let release = document.kernel.release.clone();
            kernels.insert(build.clone(), KernelReference { release, length: bytes.len() as u64, sha256 });
        }
        let published =
            self.repository().current_index()?.map(|signed| read::index(&signed.document)).transpose()?;
        let index = Index {
            r#type: Role::Index,
            repository: self.name()?,
            version: published.map_or(1, |index| index.version.saturating_add(1)),
            expires: days_after(now, days.min(life::INDEX)),
            sets: draft.sets,
            kernels,
        };
        let bytes = pretty(&self.tree(), &index)?;
        read::within(Document::Index, &bytes, cap::INDEX)?;
        read::index(&bytes)?;
        self.put_staged(Role::Index, &index)?;
        Ok(index)
    }

    /// Signs what is staged for `role` with one holder's own key.
    ///
    /// # Errors
    ///
    /// `NothingStaged`, `Key`, `Signature` where the key has no such role, `Store`.
    pub fn sign(&self, role: Role, key: &SecretKey, now: Timestamp) -> Result<Progress, PublishError> {
        let staged = self.staged(role)?;
        self.import(role, &key.sign(role, &staged.document, now)?)
    }

    /// Adds a detached signature that the holder made elsewhere over [`Desk::staged_path`], armoured or binary:
    /// `gpg --detach-sign --sig-notation '!role@invivo.dev=index' index.json`, or
    /// `sq sign --signature-file --notation '!role@invivo.dev' index index.json`.
    ///
    /// # Errors
    ///
    /// `NothingStaged`, `Signature` where it does not count, `Store`.
    pub fn import(&self, role: Role, signature: &[u8]) -> Result<Progress, PublishError> {
        let staged = self.staged(role)?;
        let binary = binary(signature)?;
        let keyrings = self.keyrings(role)?;
        let document = document(role);
        let mut signatures = staged.signatures.clone();
        let mut why_not = "it holds no signature".to_owned();
        let mut taken = false;
        for packet in packets(document, &binary)? {
            let bytes = sequoia_openpgp::Packet::from(packet).to_vec().map_err(PublishError::key)?;
            for keyring in &keyrings {
                let findings = examine(keyring, role, document, &staged.document, &bytes, None)?;
                match findings.into_iter().next() {
                    Some(Finding::Good { .. }) => {
                        taken = true;
                        signatures.extend_from_slice(&bytes);
                        break;
                    }
                    Some(Finding::Bad { detail, flaw }) => why_not = format!("{}: {detail}", flaw.refusal()),
                    Some(Finding::Again) | None => {}
                }
            }
        }
        if !taken {
            return Err(PublishError::Signature { detail: why_not });
        }
        let before = self.progress(role)?;
        store::replace(&self.signatures_path(role), &signatures, 0o644)?;
        let after = self.progress(role)?;
        if before == after {
            // Somebody who has signed already; one signature of each is enough.
            store::replace(&self.signatures_path(role), &staged.signatures, 0o644)?;
        }
        Ok(after)
    }

    /// How far the signing is. Dates are judged when it is published.
    ///
    /// # Errors
    ///
    /// `NothingStaged`, `Rejected`, `Store`.
    pub fn progress(&self, role: Role) -> Result<Progress, PublishError> {
        let staged = self.staged(role)?;
        let mut needs = Vec::new();
        for keyring in self.keyrings(role)? {
            let findings =
                examine(&keyring, role, document(role), &staged.document, &staged.signatures, None)?;
            let signed: Vec<_> = findings
                .into_iter()
                .filter_map(|finding| match finding {
                    Finding::Good { by, .. } => Some(by),
                    Finding::Again | Finding::Bad { .. } => None,
                })
                .collect();
            let open = keyring.names(role).iter().filter(|key| !signed.contains(key)).cloned().collect();
            needs.push(Need { threshold: keyring.threshold(role), signed, open });
        }
        Ok(Progress { role, needs })
    }

    /// Whose signatures count: for a trust document the old and the new holders, for the rest the
    /// holders of the trust document that will be in force.
    fn keyrings(&self, role: Role) -> Result<Vec<Keyring>, PublishError> {
        let (published, staged) = (self.trust()?, self.staged_trust()?);
        let both = match role {
            Role::Trust => {
                published.iter().chain(&staged).map(Keyring::read).collect::<Result<Vec<_>, _>>()?
            }
            Role::Index | Role::Timestamp => {
                staged.or(published).iter().map(Keyring::read).collect::<Result<Vec<_>, _>>()?
            }
        };
        Ok(both)
    }
}

/// The file that a role signs.
pub(super) const fn document(role: Role) -> Document {
    match role {
        Role::Trust => Document::Trust,
        Role::Index => Document::Index,
        Role::Timestamp => Document::Timestamp,
    }
}

/// Takes the armour off where there is one.
fn binary(signature: &[u8]) -> Result<Vec<u8>, PublishError> {
    let wrong = |detail: &str| PublishError::Signature { detail: detail.to_owned() };
    if signature.len() as u64 > cap::SIGNATURES {
        return Err(wrong("it is longer than signatures may be"));
    }
    if !signature.trim_ascii_start().starts_with(b"-----BEGIN PGP SIGNATURE-----") {
        return Ok(signature.to_vec());
    }
    let mode = armor::ReaderMode::Tolerant(Some(armor::Kind::Signature));
    let mut bytes = Vec::new();
    armor::Reader::from_bytes(signature, mode)
        .take(cap::SIGNATURES)
        .read_to_end(&mut bytes)
        .map_err(|_| wrong("its armour is damaged"))?;
    Ok(bytes)
}
