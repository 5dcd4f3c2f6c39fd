//! Who signed: the attacks on keys and signatures.

use std::time::{Duration, SystemTime};

use invivo_terms::Refusal;
use jiff::Timestamp;
use sequoia_openpgp::cert::{Cert, CertBuilder, CertRevocationBuilder, CipherSuite};
use sequoia_openpgp::packet::signature::SignatureBuilder;
use sequoia_openpgp::packet::signature::subpacket::NotationDataFlags;
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::serialize::SerializeInto;
use sequoia_openpgp::types::{HashAlgorithm, KeyFlags, ReasonForRevocation, SignatureType};
use sequoia_openpgp::{Packet, Profile};
use serde_json::json;

use super::{Forger, House, assert_refused, at, days, now, verify};
use crate::document::Role;
use crate::publish::SecretKey;
use crate::{Document, Floors, ROLE_NOTATION, Signed, digest, verify_proof};

fn cert(validity: Option<Duration>, made: Timestamp, profile: Profile) -> Cert {
    CertBuilder::new()
        .set_cipher_suite(CipherSuite::Cv25519)
        .set_profile(profile)
        .unwrap()
        .set_creation_time(SystemTime::from(made))
        .set_validity_period(validity)
        .set_primary_key_flags(KeyFlags::empty().set_certification())
        .add_subkey(KeyFlags::empty().set_signing(), validity, None)
        .add_userid("a holder")
        .generate()
        .unwrap()
        .0
}

fn key(cert: &Cert) -> SecretKey {
    SecretKey::read(&cert.as_tsk().to_vec().unwrap()).unwrap()
}

/// The certificate with its holder's revocation in it.
fn revoked(cert: Cert, at: Timestamp, reason: ReasonForRevocation) -> Cert {
    let mut signer = cert.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
    let revocation = CertRevocationBuilder::new()
        .set_signature_creation_time(SystemTime::from(at))
        .unwrap()
        .set_reason_for_revocation(reason, b"lost")
        .unwrap()
        .build(&mut signer, &cert, HashAlgorithm::SHA512)
        .unwrap();
    cert.insert_packets(revocation).unwrap().0
}

fn add_index_key(forger: &mut Forger, key: &SecretKey) {
    let certificate = key.certificate();
    forger.trust[0]["certificates"].as_array_mut().unwrap().push(json!(certificate.armoured()));
    let keys = forger.trust[0]["roles"]["index"]["keys"].as_array_mut().unwrap();
    keys.push(json!(certificate.fingerprint()));
}

/// Index signed by the first holder and by this key, which the trust document names in this form.
fn second_index_key(
    house: &House,
    signing: &SecretKey,
    named: &SecretKey,
    signed_at: Timestamp,
) -> crate::Proof {
    let mut forger = house.forger();
    add_index_key(&mut forger, named);
    // Short enough to be signed some weeks back.
    forger.index["expires"] = json!(days(60));
    forger.link();
    let mut proof = forger.unlinked();
    let first = house.keys.holders[0].sign(Role::Index, &proof.index.document, now()).unwrap();
    let second = signing.sign(Role::Index, &proof.index.document, signed_at).unwrap();
    proof.index.signatures = [first, second].concat();
    proof
}

#[test]
fn below_threshold_one_of_the_two_needed() {
    let house = House::new();
    let mut forger = house.forger();
    forger.keys.get_mut(&Role::Index).unwrap().truncate(1);
    assert_refused(forger.verdict(), Refusal::BelowThreshold, Document::Index);
}

#[test]
fn below_threshold_one_certificate_signs_twice() {
    let house = House::new();
    let mut forger = house.forger();
    let one = house.keys.holders[0].clone();
    forger.keys.insert(Role::Index, vec![one.clone(), one]);
    assert_refused(forger.verdict(), Refusal::BelowThreshold, Document::Index);
}

#[test]
fn below_threshold_two_subkeys_of_one_certificate() {
    let house = House::new();
    let both = CertBuilder::new()
        .set_cipher_suite(CipherSuite::Cv25519)
        .set_creation_time(SystemTime::from(now()))
        .add_subkey(KeyFlags::empty().set_signing(), None, None)
        .add_subkey(KeyFlags::empty().set_signing(), None, None)
        .add_userid("two hands")
        .generate()
        .unwrap()
        .0;
    let named = key(&both);
    let mut proof = second_index_key(&house, &named, &named, now());
    proof.index.signatures = both
        .keys()
        .subkeys()
        .secret()
        .flat_map(|subkey| {
            let mut pair = subkey.key().clone().into_keypair().unwrap();
            let signature = SignatureBuilder::new(SignatureType::Binary)
                .set_signature_creation_time(SystemTime::from(now()))
                .unwrap()
                .set_notation(ROLE_NOTATION, "index", NotationDataFlags::empty().set_human_readable(), true)
                .unwrap()
                .sign_message(&mut pair, &proof.index.document)
                .unwrap();
            Packet::from(signature).to_vec().unwrap()
        })
        .collect();
    assert_refused(verify(&proof), Refusal::BelowThreshold, Document::Index);
}

/// A certificate with another's subkey in it, with or without that key's consent.
fn adopted(subkey_of: &Cert, consent: bool) -> Cert {
    let cert = cert(None, days(-1), Profile::RFC4880);
    let mut primary = cert.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
    let subkey = subkey_of.keys().subkeys().secret().next().unwrap().key().clone();
    let made = SystemTime::from(days(-1));
    let mut binding = SignatureBuilder::new(SignatureType::SubkeyBinding)
        .set_signature_creation_time(made)
        .unwrap()
        .set_key_flags(KeyFlags::empty().set_signing())
        .unwrap();
    if consent {
        let back = SignatureBuilder::new(SignatureType::PrimaryKeyBinding)
            .set_signature_creation_time(made)
            .unwrap()
            .sign_primary_key_binding(
                &mut subkey.clone().into_keypair().unwrap(),
                cert.primary_key().key(),
                &subkey,
            )
            .unwrap();
        binding = binding.set_embedded_signature(back).unwrap();
    }
    let binding = binding.sign_subkey_binding(&mut primary, None, &subkey).unwrap();
    let subkey = subkey.parts_into_public();
    cert.insert_packets([Packet::from(subkey), Packet::from(binding)]).unwrap().0
}

/// Without consent the holder robbed could not sign any more; with it one hand would sign for two.
#[test]
fn malformed_one_key_in_two_certificates() {
    let house = House::new();
    let honest = cert(None, days(-2), Profile::RFC4880);
    for consent in [true, false] {
        let mut forger = house.forger();
        for key in [key(&honest), key(&adopted(&honest, consent))] {
            add_index_key(&mut forger, &key);
        }
        assert_refused(forger.verdict(), Refusal::Malformed, Document::Trust);
    }
}

#[test]
fn below_threshold_no_signature_or_one_over_other_bytes() {
    let house = House::new();
    let mut proof = house.proof();
    proof.timestamp.signatures.clear();
    assert_refused(house.verify(&proof), Refusal::BelowThreshold, Document::Timestamp);
    let mut proof = house.proof();
    proof.timestamp.document.push(b' ');
    assert_refused(house.verify(&proof), Refusal::BelowThreshold, Document::Timestamp);
}

#[test]
fn unknown_key_somebody_the_trust_document_does_not_name() {
    let house = House::new();
    let stranger = SecretKey::generate("a stranger", now()).unwrap();
    let mut forger = house.forger();
    forger.keys.insert(Role::Index, vec![house.keys.holders[0].clone(), stranger]);
    assert_refused(forger.verdict(), Refusal::UnknownKey, Document::Index);
}

#[test]
fn unknown_key_a_holder_of_another_role() {
    let house = House::new();
    let mut forger = house.forger();
    forger.keys.insert(Role::Timestamp, vec![house.keys.holders[0].clone()]);
    assert_refused(forger.verdict(), Refusal::UnknownKey, Document::Timestamp);
    let mut forger = house.forger();
    forger.keys.insert(Role::Index, vec![house.keys.holders[0].clone(), house.keys.timestamp.clone()]);
    assert_refused(forger.verdict(), Refusal::UnknownKey, Document::Index);
}

#[test]
fn unknown_key_one_that_may_certify_but_not_sign() {
    let house = House::new();
    let cert = cert(None, now(), Profile::RFC4880);
    let mut pair = cert.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
    let named = key(&cert);
    let mut proof = second_index_key(&house, &named, &named, now());
    verify(&proof).unwrap();
    let first = house.keys.holders[0].sign(Role::Index, &proof.index.document, now()).unwrap();
    let signature = SignatureBuilder::new(SignatureType::Binary)
        .set_signature_creation_time(SystemTime::from(now()))
        .unwrap()
        .set_notation(ROLE_NOTATION, "index", NotationDataFlags::empty(), true)
        .unwrap()
        .sign_message(&mut pair, &proof.index.document)
        .unwrap();
    proof.index.signatures = [first, Packet::from(signature).to_vec().unwrap()].concat();
    assert_refused(verify(&proof), Refusal::UnknownKey, Document::Index);
}

#[test]
fn revoked_key_compromised_for_all_time_retired_from_its_day_on() {
    let house = House::new();
    let cert = cert(None, days(-30), Profile::RFC4880);
    let signing = key(&cert);
    let stolen = key(&revoked(cert.clone(), days(1), ReasonForRevocation::KeyCompromised));
    let proof = second_index_key(&house, &signing, &stolen, now());
    assert_refused(verify(&proof), Refusal::RevokedKey, Document::Index);
    let retired = key(&revoked(cert, days(-1), ReasonForRevocation::KeyRetired));
    let proof = second_index_key(&house, &signing, &retired, now());
    assert_refused(verify(&proof), Refusal::RevokedKey, Document::Index);
    let proof = second_index_key(&house, &signing, &retired, days(-2));
    verify(&proof).unwrap();
}

#[test]
fn expired_key_past_its_date_when_it_signed() {
    let house = House::new();
    let day = Duration::from_hours(24);
    let key = key(&cert(Some(day), days(-3), Profile::RFC4880));
    // It cannot sign by itself any more, so the hand is forced: with the same key before its end.
    let proof = second_index_key(&house, &key, &key, days(-3));
    verify(&proof).unwrap();
    let expired = house_signed_late(&house, day);
    assert_refused(verify(&expired), Refusal::ExpiredKey, Document::Index);
}

/// Signed three days after a key's end, by ignoring that end.
fn house_signed_late(house: &House, validity: Duration) -> crate::Proof {
    let cert = cert(Some(validity), days(-4), Profile::RFC4880);
    let named = key(&cert);
    let mut proof = second_index_key(house, &named, &named, days(-4));
    let first = house.keys.holders[0].sign(Role::Index, &proof.index.document, now()).unwrap();
    let late = cert
        .keys()
        .subkeys()
        .secret()
        .map(|subkey| {
            let mut pair = subkey.key().clone().into_keypair().unwrap();
            let signature = SignatureBuilder::new(SignatureType::Binary)
                .set_signature_creation_time(SystemTime::from(now()))
                .unwrap()
                .set_notation(ROLE_NOTATION, "index", NotationDataFlags::empty(), true)
                .unwrap()
                .sign_message(&mut pair, &proof.index.document)
                .unwrap();
            Packet::from(signature).to_vec().unwrap()
        })
        .next()
        .unwrap();
    proof.index.signatures = [first, late].concat();
    proof
}

#[test]
fn expired_key_whose_thief_dates_an_index_back_beside_a_fresh_signature() {
    let house = House::new();
    let key = key(&cert(Some(Duration::from_hours(25 * 24)), days(-50), Profile::RFC4880));
    // While the key lived nobody could sign for so long a life.
    let proof = second_index_key(&house, &key, &key, days(-40));
    assert_refused(verify(&proof), Refusal::Malformed, Document::Index);
    verify(&second_index_key(&house, &key, &key, days(-26))).unwrap();
}

#[test]
fn expired_keys_whose_thief_dates_a_rotation_back() {
    let house = House::new();
    let year = Duration::from_hours(365 * 24);
    let old: Vec<_> = (0..2).map(|_| key(&cert(Some(year), days(-800), Profile::RFC4880))).collect();
    let thief = SecretKey::generate("a thief", now()).unwrap();
    let rotated = |expires: Timestamp| {
        let mut forger = house.forger();
        forger.link();
        let mut proof = forger.unlinked();
        let trust = |version: u32, expires: Timestamp, keys: &[SecretKey]| {
            let mut trust = forger.trust[0].clone();
            let names: Vec<_> = keys.iter().map(|key| key.certificate().fingerprint()).collect();
            trust["version"] = json!(version);
            trust["expires"] = json!(expires);
            trust["roles"]["trust"] = json!({"threshold": keys.len(), "keys": names});
            let certificates = trust["certificates"].as_array_mut().unwrap();
            certificates.extend(keys.iter().map(|key| json!(key.certificate().armoured())));
            serde_json::to_vec(&trust).unwrap()
        };
        let signed = |document: Vec<u8>, signers: &[SecretKey], at| {
            let sign = |key: &SecretKey| key.sign(Role::Trust, &document, at).unwrap();
            Signed { signatures: signers.iter().flat_map(sign).collect(), document }
        };
        let mut second = signed(trust(2, expires, std::slice::from_ref(&thief)), &old, days(-500));
        second.signatures.extend(thief.sign(Role::Trust, &second.document, now()).unwrap());
        proof.trust = vec![signed(trust(1, days(-440), &old), &old, days(-800)), second];
        verify(&proof)
    };
    assert_refused(rotated(days(300)), Refusal::Malformed, Document::Trust);
    assert_refused(rotated(days(-136)), Refusal::Expired, Document::Trust);
}

/// The timestamp signed with the right key in another manner.
fn timestamp_signed(
    house: &House,
    kind: SignatureType,
    hash: HashAlgorithm,
    notations: &[(&str, bool)],
) -> crate::Proof {
    let mut proof = house.proof();
    let tsk = Cert::from_bytes(&house.keys.timestamp.armoured().unwrap()).unwrap();
    let mut pair = tsk.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
    let mut builder = SignatureBuilder::new(kind)
        .set_hash_algo(hash)
        .set_signature_creation_time(SystemTime::from(now()))
        .unwrap();
    for (value, critical) in notations {
        builder = builder.add_notation(ROLE_NOTATION, value, NotationDataFlags::empty(), *critical).unwrap();
    }
    let signature = builder.sign_message(&mut pair, &proof.timestamp.document).unwrap();
    proof.timestamp.signatures = Packet::from(signature).to_vec().unwrap();
    proof
}

#[test]
fn signature_confusion_made_for_another_role_or_for_none() {
    let house = House::new();
    let (binary, hash) = (SignatureType::Binary, HashAlgorithm::SHA256);
    let right: &[(&str, bool)] = &[("timestamp", true)];
    house.verify(&timestamp_signed(&house, binary, hash, right)).unwrap();
    let wrong: [&[(&str, bool)]; 5] = [
        &[],
        &[("timestamp", false)],
        &[("index", true)],
        &[("timestamp", true), ("index", true)],
        &[("timestamps", true)],
    ];
    for notations in wrong {
        let verdict = house.verify(&timestamp_signed(&house, binary, hash, notations));
        assert_refused(verdict, Refusal::SignatureConfusion, Document::Timestamp);
    }
}

#[test]
fn signature_confusion_a_text_signature_or_a_critical_part_not_understood() {
    let house = House::new();
    let hash = HashAlgorithm::SHA256;
    let verdict = house.verify(&timestamp_signed(&house, SignatureType::Text, hash, &[("timestamp", true)]));
    assert_refused(verdict, Refusal::SignatureConfusion, Document::Timestamp);
    let mut proof = house.proof();
    let tsk = Cert::from_bytes(&house.keys.timestamp.armoured().unwrap()).unwrap();
    let mut pair = tsk.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
    let signature = SignatureBuilder::new(SignatureType::Binary)
        .set_signature_creation_time(SystemTime::from(now()))
        .unwrap()
        .add_notation(ROLE_NOTATION, "timestamp", NotationDataFlags::empty(), true)
        .unwrap()
        .add_notation("only-on-mondays@example.com", "yes", NotationDataFlags::empty(), true)
        .unwrap()
        .sign_message(&mut pair, &proof.timestamp.document)
        .unwrap();
    proof.timestamp.signatures = Packet::from(signature).to_vec().unwrap();
    assert_refused(house.verify(&proof), Refusal::SignatureConfusion, Document::Timestamp);
}

#[test]
fn a_signature_past_its_own_date_does_not_count() {
    let house = House::new();
    let mut proof = house.proof();
    let tsk = Cert::from_bytes(&house.keys.timestamp.armoured().unwrap()).unwrap();
    let mut pair = tsk.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
    let signature = SignatureBuilder::new(SignatureType::Binary)
        .set_signature_creation_time(SystemTime::from(now()))
        .unwrap()
        .set_signature_validity_period(Duration::from_hours(24))
        .unwrap()
        .add_notation(ROLE_NOTATION, "timestamp", NotationDataFlags::empty(), true)
        .unwrap()
        .sign_message(&mut pair, &proof.timestamp.document)
        .unwrap();
    proof.timestamp.signatures = Packet::from(signature).to_vec().unwrap();
    let on = |day| verify_proof(&proof, &house.root(), &Floors::default(), at(days(day)));
    on(0).unwrap();
    assert_refused(on(1), Refusal::BelowThreshold, Document::Timestamp);
}

#[test]
fn a_weak_hash_does_not_count() {
    let house = House::new();
    let verdict = house.verify(&timestamp_signed(
        &house,
        SignatureType::Binary,
        HashAlgorithm::SHA224,
        &[("timestamp", true)],
    ));
    assert_refused(verdict, Refusal::BelowThreshold, Document::Timestamp);
}

#[test]
fn malformed_armour_or_anything_but_signatures_beside_a_document() {
    let house = House::new();
    let certificate = Cert::from_bytes(house.keys.timestamp.certificate().armoured().as_bytes()).unwrap();
    for beside in
        [b"-----BEGIN PGP SIGNATURE-----\n".to_vec(), certificate.to_vec().unwrap(), b"\x00\x01\x02".to_vec()]
    {
        let mut proof = house.proof();
        proof.timestamp.signatures.splice(0..0, beside);
        assert_refused(house.verify(&proof), Refusal::Malformed, Document::Timestamp);
    }
    let mut proof = house.proof();
    proof.timestamp.signatures.pop();
    assert!(house.verify(&proof).is_err());
}

#[test]
fn malformed_a_secret_key_in_the_trust_document() {
    let house = House::new();
    let mut forger = house.forger();
    let secret = String::from_utf8(house.keys.timestamp.armoured().unwrap()).unwrap();
    for certificate in forger.trust[0]["certificates"].as_array_mut().unwrap() {
        if certificate == house.keys.timestamp.certificate().armoured() {
            *certificate = json!(secret.clone());
        }
    }
    assert_refused(forger.verdict(), Refusal::Malformed, Document::Trust);
}

#[test]
fn malformed_an_online_key_that_may_do_more() {
    let house = House::new();
    let mut forger = house.forger();
    let online = json!(house.keys.timestamp.certificate().fingerprint());
    forger.trust[0]["roles"]["index"]["keys"].as_array_mut().unwrap().push(online);
    assert_refused(forger.verdict(), Refusal::Malformed, Document::Trust);
}

#[test]
fn a_rotation_needs_the_old_and_the_new_holders() {
    let house = House::new();
    let new: Vec<_> =
        (0..2).map(|n| SecretKey::generate(&format!("new holder {n}"), now()).unwrap()).collect();
    let rotated = |signers: Vec<SecretKey>| {
        let mut forger = house.forger();
        let mut next = forger.trust[0].clone();
        next["version"] = json!(2);
        for key in &new {
            next["certificates"].as_array_mut().unwrap().push(json!(key.certificate().armoured()));
        }
        let names: Vec<_> = new.iter().map(|key| key.certificate().fingerprint()).collect();
        next["roles"]["trust"] = json!({"threshold": 2, "keys": names});
        forger.link();
        let mut proof = forger.unlinked();
        forger.keys.insert(Role::Trust, signers);
        proof.trust.push(forger.sign(Role::Trust, &next));
        verify(&proof)
    };
    let old: Vec<_> = house.keys.holders.iter().take(2).cloned().collect();
    assert_eq!(rotated([old.clone(), new.clone()].concat()).unwrap().catalogue.floors().trust, 2);
    assert_refused(rotated(old.clone()), Refusal::UnknownKey, Document::Trust);
    assert_refused(rotated(new.clone()), Refusal::UnknownKey, Document::Trust);
    assert_refused(rotated(vec![]), Refusal::BelowThreshold, Document::Trust);
}

#[test]
fn a_version_6_certificate_signs_as_well() {
    let house = House::new();
    let key = key(&cert(None, days(-1), Profile::RFC9580));
    assert_eq!(key.certificate().fingerprint().as_str().len(), 64);
    verify(&second_index_key(&house, &key, &key, now())).unwrap();
}

#[test]
fn one_bad_signature_among_enough_good_ones_does_no_harm() {
    let house = House::new();
    let stranger = SecretKey::generate("a stranger", now()).unwrap();
    let mut proof = house.proof();
    let extra = stranger.sign(Role::Index, &proof.index.document, now()).unwrap();
    proof.index.signatures.splice(0..0, extra);
    verify_proof(&proof, &digest(&proof.trust[0].document), &Floors::default(), at(now())).unwrap();
}
