//! Keys for tests and small set-ups. Production keys stay with `gpg`, `sq` or a hardware module;
//! of those only the public certificate and detached signatures come here.

use std::fmt;
use std::time::SystemTime;

use invivo_terms::Fingerprint;
use jiff::Timestamp;
use sequoia_openpgp::Cert;
use sequoia_openpgp::Packet;
use sequoia_openpgp::cert::{CertBuilder, CipherSuite};
use sequoia_openpgp::packet::signature::SignatureBuilder;
use sequoia_openpgp::packet::signature::subpacket::NotationDataFlags;
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::serialize::SerializeInto;
use sequoia_openpgp::types::{HashAlgorithm, KeyFlags, SignatureType};

use super::PublishError;
use crate::document::Role;
use crate::keyring;
use crate::signature::{ROLE_NOTATION, policy};

/// A public certificate, armoured as a trust document carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    fingerprint: Fingerprint,
    armoured: String,
}

impl Certificate {
    /// Reads one, armoured or binary (`gpg --export`, `sq cert export`).
    ///
    /// # Errors
    ///
    /// `Key` for anything else, a secret key included.
    pub fn read(bytes: &[u8]) -> Result<Self, PublishError> {
        let (fingerprint, certificate) =
            keyring::certificate(bytes).map_err(|error| PublishError::key(error.detail))?;
        let armoured = certificate.armored().to_vec().map_err(PublishError::key)?;
        let armoured = String::from_utf8(armoured).map_err(PublishError::key)?;
        Ok(Self { fingerprint, armoured })
    }

    /// The primary key's fingerprint.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// ASCII armour.
    pub fn armoured(&self) -> &str {
        &self.armoured
    }
}

/// A key with its secret half, unprotected.
#[derive(Clone)]
pub struct SecretKey {
    cert: Cert,
    certificate: Certificate,
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey")
            .field("fingerprint", &self.certificate.fingerprint)
            .finish_non_exhaustive()
    }
}

impl SecretKey {
    /// Makes an Ed25519 key (version 4, so that every OpenPGP program reads it) for `holder`.
    ///
    /// # Errors
    ///
    /// `Key`.
    pub fn generate(holder: &str, now: Timestamp) -> Result<Self, PublishError> {
        let (cert, _revocation) = CertBuilder::new()
            .set_cipher_suite(CipherSuite::Cv25519)
            .set_creation_time(SystemTime::from(now))
            .set_primary_key_flags(KeyFlags::empty().set_certification().set_signing())
            .add_userid(holder)
            .generate()
            .map_err(PublishError::key)?;
        Self::of(cert)
    }

    /// Reads an unprotected secret key, armoured or binary.
    ///
    /// # Errors
    ///
    /// `Key`.
    pub fn read(bytes: &[u8]) -> Result<Self, PublishError> {
        let cert = Cert::from_bytes(bytes).map_err(|_| PublishError::key("it does not parse"))?;
        if !cert.is_tsk() {
            return Err(PublishError::key("it has no secret half"));
        }
        Self::of(cert)
    }

    fn of(cert: Cert) -> Result<Self, PublishError> {
        let public = cert.clone().strip_secret_key_material().to_vec().map_err(PublishError::key)?;
        Ok(Self { certificate: Certificate::read(&public)?, cert })
    }

    /// Its public half.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The secret key in ASCII armour: to be written to a file of mode 0600 and nowhere else.
    ///
    /// # Errors
    ///
    /// `Key`.
    pub fn armoured(&self) -> Result<Vec<u8>, PublishError> {
        self.cert.as_tsk().armored().to_vec().map_err(PublishError::key)
    }

    /// A binary detached signature over `bytes` for `role`.
    ///
    /// # Errors
    ///
    /// `Key` where no key of the certificate may sign now.
    pub fn sign(&self, role: Role, bytes: &[u8], now: Timestamp) -> Result<Vec<u8>, PublishError> {
        let time = SystemTime::from(now);
        let policy = policy();
        let key = self
            .cert
            .keys()
            .with_policy(&policy, time)
            .alive()
            .revoked(false)
            .for_signing()
            .unencrypted_secret()
            .next()
            .ok_or_else(|| PublishError::key("no unprotected key of it may sign now"))?;
        let mut pair = key.key().clone().into_keypair().map_err(PublishError::key)?;
        let signature = SignatureBuilder::new(SignatureType::Binary)
            .set_hash_algo(HashAlgorithm::SHA512)
            .set_signature_creation_time(time)
            .and_then(|builder| {
                let flags = NotationDataFlags::empty().set_human_readable();
                builder.set_notation(ROLE_NOTATION, role.as_str(), flags, true)
            })
            .and_then(|builder| builder.sign_message(&mut pair, bytes))
            .map_err(PublishError::key)?;
        Packet::from(signature).to_vec().map_err(PublishError::key)
    }
}
