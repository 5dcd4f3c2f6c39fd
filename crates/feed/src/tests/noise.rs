//! Bytes that somebody changed, and bytes that mean nothing.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::{House, at, now};
use crate::{Floors, Proof, keyring, modinfo, read, signature, verify_proof};

struct Fixed {
    house: House,
    proof: Proof,
}

static FIXED: LazyLock<Fixed> = LazyLock::new(|| {
    let house = House::new();
    let proof = house.proof();
    Fixed { house, proof }
});

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_byte_flipped_in_any_document_of_a_proof_is_refused(which in 0..5usize, at_byte: prop::sample::Index, flip in 1..=255u8) {
        let mut proof = FIXED.proof.clone();
        let document = match which {
            0 => &mut proof.trust[0].document,
            1 => &mut proof.timestamp.document,
            2 => &mut proof.index.document,
            3 => &mut proof.kernel,
            _ => &mut proof.manifest,
        };
        let place = at_byte.index(document.len());
        document[place] ^= flip;
        prop_assert!(FIXED.house.verify(&proof).is_err(), "document {which}, byte {place}");
    }

    #[test]
    fn any_byte_flipped_in_a_module_is_refused(at_byte: prop::sample::Index, flip in 1..=255u8) {
        let mut module = FIXED.house.sample.module.clone();
        let place = at_byte.index(module.len());
        module[place] ^= flip;
        let sample = &FIXED.house.sample;
        prop_assert!(crate::check_module(&sample.manifest, &sample.name, &module).is_err());
    }

    #[test]
    fn signatures_changed_or_made_up_never_panic(at_byte: prop::sample::Index, flip: u8, noise: Vec<u8>) {
        let mut proof = FIXED.proof.clone();
        let place = at_byte.index(proof.index.signatures.len());
        proof.index.signatures[place] ^= flip;
        let _ = FIXED.house.verify(&proof);
        proof.index.signatures = noise;
        let verdict = verify_proof(&proof, &FIXED.house.root(), &Floors::default(), at(now()));
        prop_assert!(verdict.is_err());
    }

    #[test]
    fn noise_is_malformed_and_never_a_panic(noise: Vec<u8>, tail in prop::collection::vec(any::<u8>(), 0..400)) {
        let document = crate::Document::Index;
        let _ = signature::packets(document, &noise);
        prop_assert!(keyring::certificate(&noise).is_err());
        prop_assert!(read::trust(&noise).is_err());
        prop_assert!(read::timestamp(&noise).is_err());
        prop_assert!(read::index(&noise).is_err());
        prop_assert!(read::kernel(&noise).is_err());
        prop_assert!(read::manifest(&noise).is_err());
        prop_assert!(modinfo::ModInfo::read(&noise).is_err());
        // Something that begins as a module does.
        let module = &FIXED.house.sample.module;
        let half = [&module[..64], &tail].concat();
        let _ = modinfo::ModInfo::read(&half);
        let mut headers = module.clone();
        for (place, byte) in tail.iter().enumerate() {
            let at = module.len() - 1 - place % 192;
            headers[at] ^= byte;
        }
        let _ = modinfo::ModInfo::read(&headers);
    }

    #[test]
    fn a_module_cut_short_is_malformed(cut: prop::sample::Index) {
        let module = &FIXED.house.sample.module;
        prop_assert!(modinfo::ModInfo::read(&module[..cut.index(module.len())]).is_err());
    }
}
