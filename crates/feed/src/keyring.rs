//! The certificates of one trust document, parsed once.

use std::collections::{BTreeMap, BTreeSet};

use invivo_terms::{Fingerprint, Refusal};
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::{Cert, KeyID};

use crate::document::{Keys, Role, Trust};
use crate::{Document, Rejection};

/// The most certificates that one role may have.
pub const MAX_KEYS: usize = 32;
/// The longest that one armoured certificate may be, in bytes.
pub const MAX_CERTIFICATE: usize = 128 << 10;

/// Who may sign what, ready for use.
#[derive(Debug)]
pub(crate) struct Keyring {
    certificates: BTreeMap<Fingerprint, Cert>,
    roles: BTreeMap<Role, Keys>,
}

impl Keyring {
    /// Parses and checks the keys of a trust document.
    ///
    /// # Errors
    ///
    /// `Malformed`.
    pub(crate) fn read(trust: &Trust) -> Result<Self, Rejection> {
        let mut certificates = BTreeMap::new();
        let mut ids = BTreeSet::new();
        if trust.certificates.len() > MAX_KEYS * 3 {
            return Err(malformed("more certificates than roles can name"));
        }
        for armoured in &trust.certificates {
            let (fingerprint, certificate) = certificate(armoured.as_bytes())?;
            // A certificate may hold what subkeys it likes. With another holder's among them that
            // holder's signatures would be looked up here and not count; or, were they both to
            // agree, one hand could sign for two. Short names too must tell who signed.
            let mut own = certificate.keys().map(|key| KeyID::from(key.key().fingerprint()));
            if let Some(shared) = own.find(|id| !ids.insert(id.clone())) {
                return Err(malformed(format!(
                    "key {shared} of {fingerprint} stands in another certificate"
                )));
            }
            if certificates.insert(fingerprint.clone(), certificate).is_some() {
                return Err(malformed(format!("certificate {fingerprint} is given twice")));
            }
        }
        let mut named = BTreeSet::new();
        for role in [Role::Trust, Role::Index, Role::Timestamp] {
            let keys = trust
                .roles
                .get(&role)
                .ok_or_else(|| malformed(format!("role {} has no keys", role.as_str())))?;
            let distinct: BTreeSet<_> = keys.keys.iter().collect();
            if keys.keys.len() > MAX_KEYS || distinct.len() != keys.keys.len() {
                return Err(malformed(format!(
                    "keys of role {}: more than {MAX_KEYS}, or one twice",
                    role.as_str()
                )));
            }
            if keys.threshold == 0 || usize::from(keys.threshold) > distinct.len() {
                let (name, k, n) = (role.as_str(), keys.threshold, distinct.len());
                return Err(malformed(format!("role {name}: threshold {k} of {n} keys")));
            }
            if let Some(missing) = distinct.iter().find(|key| !certificates.contains_key(**key)) {
                return Err(malformed(format!("certificate {missing} is named and not given")));
            }
            named.extend(distinct);
        }
        if let Some(spare) = certificates.keys().find(|key| !named.contains(key)) {
            return Err(malformed(format!("certificate {spare} is given and not named")));
        }
        let roles = trust.roles.clone();
        let keyring = Self { certificates, roles };
        // The timestamp key is online. Were it also one of the others, its theft would be worth more than a freeze.
        for other in [Role::Trust, Role::Index] {
            if let Some(key) =
                keyring.names(Role::Timestamp).iter().find(|key| keyring.names(other).contains(key))
            {
                return Err(malformed(format!("{key} has role timestamp and role {}", other.as_str())));
            }
        }
        Ok(keyring)
    }

    /// How many distinct certificates must sign for this role.
    pub(crate) fn threshold(&self, role: Role) -> usize {
        self.roles.get(&role).map_or(usize::MAX, |keys| usize::from(keys.threshold))
    }

    /// The fingerprints that may sign for this role.
    pub(crate) fn names(&self, role: Role) -> &[Fingerprint] {
        self.roles.get(&role).map_or(&[], |keys| keys.keys.as_slice())
    }

    /// Every certificate of the trust document, whatever its role.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = (&Fingerprint, &Cert)> {
        self.certificates.iter()
    }

    /// Whether a key that this keyring names for `role` is not named by `next` any more.
    pub(crate) fn retires(&self, role: Role, next: &Self) -> bool {
        self.names(role).iter().any(|key| !next.names(role).contains(key))
    }
}

/// Parses one public certificate, armoured or binary.
///
/// # Errors
///
/// `Malformed`.
pub(crate) fn certificate(bytes: &[u8]) -> Result<(Fingerprint, Cert), Rejection> {
    if bytes.len() > MAX_CERTIFICATE {
        return Err(malformed("a certificate is too long"));
    }
    let certificate = Cert::from_bytes(bytes).map_err(|_| malformed("a certificate does not parse"))?;
    if certificate.is_tsk() {
        return Err(malformed("a secret key stands where a certificate should"));
    }
    Ok((fingerprint(&certificate)?, certificate))
}

/// The fingerprint of the certificate's primary key.
pub(crate) fn fingerprint(certificate: &Cert) -> Result<Fingerprint, Rejection> {
    let text = certificate.fingerprint().to_hex().to_ascii_lowercase();
    text.parse().map_err(|_| malformed(format!("fingerprint {text} is neither version 4 nor 6")))
}

fn malformed(detail: impl Into<String>) -> Rejection {
    Rejection::new(Refusal::Malformed, Document::Trust, detail)
}
