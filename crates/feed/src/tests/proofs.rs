//! The proof as it goes over the loader's socket and to disk.

use invivo_terms::Refusal;
use serde_json::json;

use super::{House, assert_refused, at, days, now};
use crate::document::{Role, cap};
use crate::{Document, Floors, Proof, Signed, verify_proof};

/// The longest blob that the loader's socket takes: `MAX_BLOB` of `node-agent/wire/src/frame.rs`.
const MAX_BLOB: u64 = 16 << 20;
const _: () = assert!(cap::PROOF <= MAX_BLOB);

fn bytes(length: u64) -> Vec<u8> {
    vec![b'x'; usize::try_from(length).unwrap()]
}

fn signed(document: u64, signatures: u64) -> Signed {
    Signed { document: bytes(document), signatures: bytes(signatures) }
}

#[test]
fn a_proof_of_a_repository_at_every_cap_fits_the_loaders_socket() {
    let each = cap::TRUST_CHAIN_BYTES / cap::TRUST_CHAIN as u64;
    // Lengths that leave most of the last group of base64 empty.
    let chain = vec![signed(each - 1001, 1000); cap::TRUST_CHAIN];
    let proof = Proof {
        trust: chain,
        timestamp: signed(cap::TIMESTAMP, cap::SIGNATURES),
        index: signed(cap::INDEX, cap::SIGNATURES),
        kernel: bytes(cap::KERNEL),
        manifest: bytes(cap::MANIFEST),
    };
    let text = serde_json::to_vec(&proof).unwrap();
    assert!(text.len() as u64 <= cap::PROOF, "{} bytes", text.len());
    assert_eq!(serde_json::from_slice::<Proof>(&text).unwrap(), proof);
}

#[test]
fn how_long_a_proof_will_be_is_known_before_its_manifest_is() {
    let whole = House::new().proof();
    for length in 0..5 {
        let proof = Proof { manifest: bytes(length), ..whole.clone() };
        let text = serde_json::to_vec(&proof).unwrap();
        for other in [&whole, &Proof { manifest: Vec::new(), ..whole.clone() }] {
            assert_eq!(other.length_with(length).unwrap(), text.len() as u64, "{length}");
        }
    }
}

#[test]
fn a_proof_is_base64_and_nothing_else_is_one() {
    let proof = House::new().proof();
    let good = serde_json::to_value(&proof).unwrap();
    let manifest = good["manifest"].as_str().unwrap();
    assert!(manifest.len() <= proof.manifest.len().div_ceil(3) * 4);
    assert_eq!(serde_json::from_value::<Proof>(good.clone()).unwrap(), proof);
    for other in [json!(proof.manifest), json!("e30"), json!("e31="), json!("e 30="), json!(null)] {
        let mut bad = good.clone();
        bad["manifest"] = other;
        assert!(serde_json::from_value::<Proof>(bad).is_err());
    }
}

#[test]
fn endless_data_a_trust_chain_of_long_documents() {
    let house = House::new();
    let mut forger = house.forger();
    forger.link();
    let mut proof = forger.unlinked();
    let padding = usize::try_from(cap::TRUST).unwrap() - 100_000;
    for version in 2..=8 {
        forger.trust[0]["version"] = json!(version);
        let mut document = serde_json::to_vec(&forger.trust[0]).unwrap();
        document.resize(document.len() + padding, b' ');
        let sign = |key: &crate::publish::SecretKey| key.sign(Role::Trust, &document, now()).unwrap();
        let signatures = house.keys.holders.iter().take(2).flat_map(sign).collect();
        proof.trust.push(Signed { document, signatures });
        let root = crate::digest(&proof.trust[0].document);
        let verdict = verify_proof(&proof, &root, &Floors::default(), at(days(0)));
        match version {
            8 => assert_refused(verdict, Refusal::EndlessData, Document::Trust),
            _ => drop(verdict.unwrap()),
        }
    }
}
