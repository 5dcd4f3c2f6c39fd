//! Detached OpenPGP signatures: who signed these bytes, for which role, with a key that was
//! good when it signed.
//!
//! Taken: binary detached signatures (type 0x00), version 4 or 6, SHA-256 or stronger, by a
//! signing-capable key of a pinned certificate, with exactly one notation `role@invivo.dev`,
//! critical, whose value is the role. Keys are judged at the signature's own creation time, except
//! that a hard revocation (compromise) counts for all time.
//!
//! That time is the signer's word. A signature dated ahead of the verifier's clock, or past a date
//! that it has of its own, does not count, and so is named `BelowThreshold`: the document may be in
//! order, it lacks signatures that hold today.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use invivo_terms::{Fingerprint, Refusal};
use jiff::Timestamp;
use sequoia_openpgp::cert::amalgamation::{ValidAmalgamation as _, ValidateAmalgamation as _};
use sequoia_openpgp::packet::Signature;
use sequoia_openpgp::packet::signature::subpacket::{SubpacketTag, SubpacketValue};
use sequoia_openpgp::parse::{Dearmor, PacketParserBuilder, PacketParserResult, Parse};
use sequoia_openpgp::policy::{HashAlgoSecurity, Policy, StandardPolicy};
use sequoia_openpgp::types::{HashAlgorithm, RevocationStatus, SignatureType};
use sequoia_openpgp::{Cert, Packet};

use crate::document::{Role, cap};
use crate::keyring::Keyring;
use crate::{Document, Rejection, Signed};

/// The notation that names the role; critical, so that other software refuses such a signature
/// rather than take it for one on something else.
pub const ROLE_NOTATION: &str = "role@invivo.dev";
/// The most signature packets that may stand beside one document.
pub const MAX_SIGNATURES: usize = 64;
/// The longest signature packet, in bytes. Post-quantum ones reach 50 KB.
const MAX_PACKET: u32 = 64 << 10;
/// Which algorithms are good enough is judged as of this second (2026-11-01), on every machine alike.
const ALGORITHMS_AS_OF: u64 = 1_793_491_200;
/// How far ahead of the verifier's clock a signature may be dated. Honest clocks differ, by an hour
/// where one of them missed a change to daylight saving time; a thief gains that hour and no more.
const SKEW: Duration = Duration::from_hours(1);

/// Why a signature does not count, the more telling the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Flaw {
    /// Over other bytes, or of a kind that is not taken.
    Useless,
    /// Dated ahead of the clock, or past a date of its own.
    Untimely,
    /// By nobody known, or by a key that may not sign this.
    Unknown,
    /// For another purpose.
    Confused,
    /// By a key past its date.
    Expired,
    /// By a revoked key.
    Revoked,
}

impl Flaw {
    pub(crate) const fn refusal(self) -> Refusal {
        match self {
            Self::Useless | Self::Untimely => Refusal::BelowThreshold,
            Self::Unknown => Refusal::UnknownKey,
            Self::Confused => Refusal::SignatureConfusion,
            Self::Expired => Refusal::ExpiredKey,
            Self::Revoked => Refusal::RevokedKey,
        }
    }
}

/// What one signature packet turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Counts for the role.
    Good {
        /// The certificate.
        by: Fingerprint,
        /// When it was made.
        at: Timestamp,
    },
    /// One more by a certificate that counts already; not looked at further.
    Again,
    /// Does not count.
    Bad {
        /// Why not.
        flaw: Flaw,
        /// For people.
        detail: String,
    },
}

/// Checks that at least the role's threshold of distinct certificates signed the document, and
/// tells since when that many had: the earliest of the newest signatures that are enough. Keys are
/// judged at signing time, so a thief of one that has expired since must date his signature back;
/// this is the time that shows it, and a fresh signature beside it does not hide it.
///
/// `now` is the later of two clocks, so that a node whose own is years behind goes by the server's.
/// A server that lies about its date can make "ahead" later only where it also shows documents that
/// have not expired by then: the trust document's and the index's dates end the lie. There is none
/// for documents whose dates do not matter any more.
///
/// Where they did not, the most telling finding gives the name: a revoked or expired key, then a
/// signature for another purpose, then an unknown key, else `BelowThreshold`.
///
/// # Errors
///
/// `EndlessData`, `Malformed`, `UnknownKey`, `BelowThreshold`, `RevokedKey`, `ExpiredKey`, `SignatureConfusion`.
pub(crate) fn check(
    keyring: &Keyring,
    role: Role,
    document: Document,
    signed: &Signed,
    now: Option<Timestamp>,
) -> Result<Timestamp, Rejection> {
    let findings = examine(keyring, role, document, &signed.document, &signed.signatures, now)?;
    let mut times = Vec::new();
    let mut worst: Option<(Flaw, String)> = None;
    for finding in findings {
        match finding {
            // One of each certificate: further ones are found `Again`.
            Finding::Good { at, .. } => times.push(at),
            Finding::Again => {}
            Finding::Bad { flaw, detail } => {
                if worst.as_ref().is_none_or(|(known, _)| flaw > *known) {
                    worst = Some((flaw, detail));
                }
            }
        }
    }
    let (good, threshold) = (times.len(), keyring.threshold(role));
    times.sort_unstable_by(|a, b| b.cmp(a));
    if let Some(since) = threshold.checked_sub(1).and_then(|last| times.get(last)) {
        return Ok(*since);
    }
    let (refusal, reason) =
        worst.map_or((Refusal::BelowThreshold, String::new()), |(flaw, detail)| (flaw.refusal(), detail));
    let separator = if reason.is_empty() { "" } else { "; " };
    Err(Rejection::new(
        refusal,
        document,
        format!("{good} of {threshold} signatures needed hold{separator}{reason}"),
    ))
}

/// Looks at every signature packet beside a document.
///
/// # Errors
///
/// `EndlessData` over a cap, `Malformed` where something else than signatures stands.
pub(crate) fn examine(
    keyring: &Keyring,
    role: Role,
    document: Document,
    bytes: &[u8],
    signatures: &[u8],
    now: Option<Timestamp>,
) -> Result<Vec<Finding>, Rejection> {
    let mut held = BTreeSet::new();
    let mut findings = Vec::new();
    for signature in packets(document, signatures)? {
        let finding = judge(keyring, role, bytes, &signature, now, &held);
        if let Finding::Good { by, .. } = &finding {
            held.insert(by.clone());
        }
        findings.push(finding);
    }
    Ok(findings)
}

/// Splits the file beside a document into its signature packets, within the caps.
pub(crate) fn packets(document: Document, bytes: &[u8]) -> Result<Vec<Signature>, Rejection> {
    let malformed =
        |detail: &str| Rejection::new(Refusal::Malformed, document, format!("signatures: {detail}"));
    if bytes.len() as u64 > cap::SIGNATURES {
        return Err(Rejection::new(
            Refusal::EndlessData,
            document,
            "the signatures are longer than their cap",
        ));
    }
    let mut found = Vec::new();
    if bytes.is_empty() {
        return Ok(found);
    }
    let mut next = PacketParserBuilder::from_bytes(bytes)
        .map(|builder| {
            builder
                .dearmor(Dearmor::Disabled)
                .max_packet_size(MAX_PACKET)
                .max_recursion_depth(0)
                .automatic_hashing(false)
        })
        .and_then(PacketParserBuilder::build)
        .map_err(|_| malformed("not binary OpenPGP packets"))?;
    while let PacketParserResult::Some(parser) = next {
        if found.len() == MAX_SIGNATURES {
            return Err(Rejection::new(
                Refusal::EndlessData,
                document,
                format!("more than {MAX_SIGNATURES} signatures"),
            ));
        }
        let (packet, rest) = parser.next().map_err(|_| malformed("cut short"))?;
        let Packet::Signature(signature) = packet else {
            return Err(malformed("something else than a detached signature"));
        };
        found.push(signature);
        next = rest;
    }
    Ok(found)
}

/// Judges one signature. Cheap checks come first; the public-key operation only for pinned keys
/// that have not signed well already.
fn judge(
    keyring: &Keyring,
    role: Role,
    bytes: &[u8],
    signature: &Signature,
    now: Option<Timestamp>,
    held: &BTreeSet<Fingerprint>,
) -> Finding {
    let bad = |flaw, detail: String| Finding::Bad { flaw, detail };
    match signature {
        Signature::V4(_) | Signature::V6(_) => {}
        _ => return bad(Flaw::Useless, format!("a signature of version {}", signature.version())),
    }
    if signature.typ() != SignatureType::Binary {
        return bad(Flaw::Confused, format!("a signature of type {}", signature.typ()));
    }
    match signature.hash_algo() {
        HashAlgorithm::SHA256
        | HashAlgorithm::SHA384
        | HashAlgorithm::SHA512
        | HashAlgorithm::SHA3_256
        | HashAlgorithm::SHA3_512 => {}
        weak => return bad(Flaw::Useless, format!("a signature over {weak}")),
    }
    let issuers = signature.get_issuers();
    let Some((by, certificate)) = keyring.certificates().find(|(_, certificate)| {
        certificate.keys().any(|key| issuers.iter().any(|issuer| issuer.aliases(key.key().key_handle())))
    }) else {
        let issuer = issuers.first().map_or_else(|| "nobody named".to_owned(), ToString::to_string);
        return bad(Flaw::Unknown, format!("signed by {}", issuer.to_ascii_lowercase()));
    };
    let Some(made) = signature.signature_creation_time() else {
        return bad(Flaw::Useless, format!("a signature by {by} without a time"));
    };
    let Ok(at) = Timestamp::try_from(made) else {
        return bad(Flaw::Useless, format!("a signature by {by} at no possible time"));
    };
    if held.contains(by) {
        return Finding::Again;
    }
    if let Some(now) = now.filter(|now| signature.signature_alive(SystemTime::from(*now), SKEW).is_err()) {
        return bad(Flaw::Untimely, format!("a signature of {at} does not count at {now}: {by}"));
    }
    if let Err((flaw, detail)) = key_was_good(certificate, bytes, signature, made) {
        return bad(flaw, format!("{detail}: {by}"));
    }
    if let Err(detail) = names_role(signature, role) {
        return bad(Flaw::Confused, format!("{detail}, by {by}"));
    }
    if !keyring.names(role).contains(by) {
        return bad(Flaw::Unknown, format!("{by} has no role {}", role.as_str()));
    }
    Finding::Good { by: by.clone(), at }
}

/// The mathematics, then whether the key might sign at that time.
fn key_was_good(
    certificate: &Cert,
    bytes: &[u8],
    signature: &Signature,
    made: SystemTime,
) -> Result<(), (Flaw, &'static str)> {
    let policy = policy();
    let issuers = signature.get_issuers();
    let key = certificate
        .keys()
        .filter(|key| issuers.iter().any(|issuer| issuer.aliases(key.key().key_handle())))
        .find(|key| signature.verify_message(key.key(), bytes).is_ok())
        .ok_or((Flaw::Useless, "a signature over other bytes"))?;
    if policy.signature(signature, HashAlgoSecurity::CollisionResistance).is_err() {
        return Err((Flaw::Confused, "a signature with a critical part that is not understood"));
    }
    let valid =
        key.with_policy(&policy, made).map_err(|_| (Flaw::Unknown, "a key not bound to its certificate"))?;
    for status in [valid.revocation_status(), valid.valid_cert().revocation_status()] {
        match status {
            RevocationStatus::Revoked(_) => return Err((Flaw::Revoked, "a revoked key")),
            RevocationStatus::CouldBe(_) | RevocationStatus::NotAsFarAsWeKnow => {}
        }
    }
    if valid.alive().is_err() || valid.valid_cert().alive().is_err() {
        return Err((Flaw::Expired, "a key that had expired"));
    }
    if !valid.for_signing() {
        return Err((Flaw::Unknown, "a key that may not sign"));
    }
    Ok(())
}

/// Exactly one notation of ours, critical and hashed, with the role's name.
fn names_role(signature: &Signature, role: Role) -> Result<(), String> {
    let mut names = signature.hashed_area().subpackets(SubpacketTag::NotationData).filter_map(|packet| {
        match packet.value() {
            SubpacketValue::NotationData(notation) if notation.name() == ROLE_NOTATION => {
                Some((packet.critical(), notation.value()))
            }
            _ => None,
        }
    });
    match (names.next(), names.next()) {
        (Some((true, value)), None) if value == role.as_str().as_bytes() => Ok(()),
        (Some((true, value)), None) => Err(format!("signed as {:.32}", String::from_utf8_lossy(value))),
        (Some((false, _)), None) => Err(format!("{ROLE_NOTATION} is not critical")),
        (Some(_), Some(_)) => Err(format!("{ROLE_NOTATION} stands twice")),
        (None, _) => Err(format!("no notation {ROLE_NOTATION}")),
    }
}

/// The library's own judgement of algorithms, with our notation declared as understood.
pub(crate) fn policy() -> StandardPolicy<'static> {
    let mut policy = StandardPolicy::at(UNIX_EPOCH + Duration::from_secs(ALGORITHMS_AS_OF));
    policy.good_critical_notations(&[ROLE_NOTATION]);
    policy
}
