//! The attacks on a patch's way, by name. Keys have a file of their own.

use invivo_terms::Refusal;
use serde_json::json;

use super::{House, assert_refused, at, days, now, verify};
use crate::document::{Role, cap};
use crate::publish::SecretKey;
use crate::sample::{build_id, kernel, module};
use crate::{
    Client, Document, Floors, MAX_JUMP, RunningKernel, check_running, digest, verify_proof, verify_settled,
};

fn floors(trust: u64, index: u64, timestamp: u64) -> Floors {
    Floors { repository: Some(super::repository()), trust, index, timestamp }
}

#[test]
fn a_repository_as_published_is_believed() {
    let house = House::new();
    let proven = house.verify(&house.proof()).unwrap();
    assert_eq!(proven.manifest, house.sample.manifest);
    assert_eq!(*proven.catalogue.floors(), floors(1, 1, 1));
    assert_eq!(proven.catalogue.expires(), days(7));
    assert_eq!(proven.set_digest(), proven.catalogue.set_digest(&house.sample.manifest.set));
    proven.module(&house.sample.name, &house.sample.module).unwrap();
}

#[test]
fn wrong_root_another_first_trust_document_than_the_pinned_one() {
    let (house, other) = (House::new(), House::new());
    let verdict = verify_proof(&other.proof(), &house.root(), &Floors::default(), at(now()));
    assert_refused(verdict, Refusal::WrongRoot, Document::Trust);
}

#[test]
fn arbitrary_software_another_module_than_the_signed_one() {
    let house = House::new();
    let proven = house.verify(&house.proof()).unwrap();
    let mut changed = house.sample.module.clone();
    changed[100] ^= 1;
    let mut longer = house.sample.module.clone();
    longer.push(0);
    for bytes in [changed, longer, house.sample.module[1..].to_vec(), Vec::new()] {
        assert_refused(
            proven.module(&house.sample.name, &bytes),
            Refusal::ArbitrarySoftware,
            Document::Module,
        );
    }
    let other = "invivo_l1_0000000000000000".parse().unwrap();
    assert_refused(proven.module(&other, &house.sample.module), Refusal::ArbitrarySoftware, Document::Module);
}

#[test]
fn rollback_an_older_version_of_each_document() {
    let house = House::new();
    let proof = house.proof();
    for (floor, document) in [
        (floors(2, 1, 1), Document::Trust),
        (floors(1, 2, 1), Document::Index),
        (floors(1, 1, 2), Document::Timestamp),
    ] {
        let verdict = verify_proof(&proof, &house.root(), &floor, at(now()));
        assert_refused(verdict, Refusal::Rollback, document);
    }
    verify_proof(&proof, &house.root(), &floors(1, 1, 1), at(now())).unwrap();
}

#[test]
fn rollback_below_what_the_fleet_has_seen() {
    let (ours, seen) = (floors(1, 4, 9), floors(1, 5, 9));
    assert_refused(ours.not_below(&seen), Refusal::Rollback, Document::Index);
    seen.not_below(&ours).unwrap();
    // After a rotation the others' numbers count no longer.
    floors(2, 1, 1).not_below(&seen).unwrap();
    assert_eq!(ours.raise(&seen), seen);
    assert_eq!(seen.raise(&ours), seen);
    assert_eq!(Floors::default().raise(&seen), seen);
}

#[test]
fn fast_forward_repaired_by_a_rotation_stays_repaired_where_others_remember_the_jump() {
    let (repaired, before) = (floors(2, 1, 1), floors(1, 900_000, 900_000));
    for told in [repaired.raise(&before), before.raise(&repaired)] {
        assert_eq!(told, repaired);
        repaired.not_below(&told).unwrap();
    }
}

#[test]
fn fast_forward_a_jump_that_only_a_rotation_may_make() {
    let house = House::new();
    for (role, document, one_below) in [
        (Role::Index, Document::Index, floors(1, 2, 1)),
        (Role::Timestamp, Document::Timestamp, floors(1, 1, 2)),
    ] {
        let mut forger = house.forger();
        let target = if role == Role::Index { &mut forger.index } else { &mut forger.timestamp };
        target["version"] = json!(MAX_JUMP + 2);
        let proof = forger.proof();
        let root = digest(&proof.trust[0].document);
        assert_refused(
            verify_proof(&proof, &root, &floors(1, 1, 1), at(now())),
            Refusal::FastForward,
            document,
        );
        verify_proof(&proof, &root, &one_below, at(now())).unwrap();
    }
}

#[test]
fn fast_forward_is_repaired_by_a_rotation_of_that_role_and_of_no_other() {
    let house = House::new();
    let high = floors(1, 900_000, 900_000);
    let stranger = SecretKey::generate("a new key", now()).unwrap();
    for (retired, still) in [(Role::Index, Document::Timestamp), (Role::Timestamp, Document::Index)] {
        let mut forger = house.forger();
        let mut next = forger.trust[0].clone();
        next["version"] = json!(2);
        next["certificates"].as_array_mut().unwrap().push(json!(stranger.certificate().armoured()));
        let fingerprint = json!(stranger.certificate().fingerprint());
        if retired == Role::Index {
            next["roles"]["index"]["keys"][0] = fingerprint;
            forger.keys.insert(Role::Index, vec![stranger.clone(), house.keys.holders[1].clone()]);
        } else {
            let certificates = next["certificates"].as_array_mut().unwrap();
            certificates.retain(|found| found != house.keys.timestamp.certificate().armoured());
            next["roles"]["timestamp"]["keys"][0] = fingerprint;
            forger.keys.insert(Role::Timestamp, vec![stranger.clone()]);
        }
        forger.trust.push(next);
        // The other role's floor stands.
        let proof = forger.proof();
        let root = digest(&proof.trust[0].document);
        assert_refused(verify_proof(&proof, &root, &high, at(now())), Refusal::Rollback, still);
        let repaired = if retired == Role::Index { floors(1, 900_000, 1) } else { floors(1, 1, 900_000) };
        let proven = verify_proof(&proof, &root, &repaired, at(now())).unwrap();
        assert_eq!(*proven.catalogue.floors(), floors(2, 1, 1));
        // Only once: the same trust version again starts nothing anew.
        let known = Floors { trust: 2, ..repaired };
        assert!(verify_proof(&proof, &root, &known, at(now())).is_err());
    }
}

#[test]
fn a_settled_level_comes_back_with_an_expired_proof_but_not_with_a_changed_one() {
    let house = House::new();
    let mut proof = house.proof();
    verify_settled(&proof, &house.root()).unwrap();
    proof.manifest[20] ^= 1;
    assert_refused(verify_settled(&proof, &house.root()), Refusal::MixAndMatch, Document::Manifest);
}

#[test]
fn mix_and_match_a_document_that_is_not_the_one_named_above() {
    let house = House::new();
    let proof = house.proof();
    for document in [Document::Index, Document::Kernel, Document::Manifest] {
        let mut other = house.forger();
        other.index["sets"][0]["summary"] = json!("b test");
        other.kernel["kernel"]["distribution"] = json!("ubuntu");
        other.manifest["evidence"]["compiler"] = json!("many");
        let other = other.proof();
        let mut mixed = proof.clone();
        match document {
            Document::Index => mixed.index.document = pad(other.index.document, proof.index.document.len()),
            Document::Kernel => mixed.kernel = other.kernel,
            _ => mixed.manifest = other.manifest,
        }
        assert_refused(house.verify(&mixed), Refusal::MixAndMatch, document);
    }
    // Signed by the right people all the same: the timestamp names another version.
    let mut forger = house.forger();
    forger.link();
    forger.timestamp["index"]["version"] = json!(2);
    assert_refused(verify(&forger.unlinked()), Refusal::MixAndMatch, Document::Index);
    // The kernel document has a level that the index's set does not name.
    let mut forger = house.forger();
    forger.link();
    forger.index["sets"][0]["kernels"][&forger.build]["level"] = json!(9);
    let index = serde_json::to_vec(&forger.index).unwrap();
    forger.timestamp["index"]["sha256"] = json!(digest(&index));
    forger.timestamp["index"]["length"] = json!(index.len());
    assert_refused(verify(&forger.unlinked()), Refusal::MixAndMatch, Document::Kernel);
}

/// As long as the named one, so that it is not its length that gives it away.
fn pad(mut bytes: Vec<u8>, length: usize) -> Vec<u8> {
    bytes.resize(length, b' ');
    bytes
}

#[test]
fn mix_and_match_a_manifest_that_disagrees_with_the_document_that_names_it() {
    let house = House::new();
    let edits: [(&str, serde_json::Value, Refusal); 8] = [
        ("/set", json!("2026-11-22.7"), Refusal::MixAndMatch),
        ("/level", json!(7), Refusal::MixAndMatch),
        ("/modules/0/sha256", json!(digest(b"other")), Refusal::MixAndMatch),
        ("/complete", json!("6.1.176-1"), Refusal::MixAndMatch),
        ("/repository", json!("other.example.com"), Refusal::SignatureConfusion),
        ("/kernel/buildId", json!("b".repeat(40)), Refusal::WrongKernel),
        ("/kernel/release", json!("6.1.0-48-cloud-amd64"), Refusal::WrongKernel),
        ("/vermagic", json!("6.1.0-48-cloud-amd64 SMP"), Refusal::WrongKernel),
    ];
    for (pointer, value, refusal) in edits {
        let mut forger = house.forger();
        *forger.manifest.pointer_mut(pointer).unwrap() = value;
        assert_refused(forger.verdict(), refusal, Document::Manifest);
    }
}

#[test]
fn wrong_kernel_a_build_that_the_repository_does_not_know() {
    let house = House::new();
    let proof = house.proof();
    let catalogue = house.verify(&proof).unwrap().catalogue;
    let verdict = catalogue.kernel(&build_id('b').unwrap(), &proof.kernel);
    assert_refused(verdict, Refusal::WrongKernel, Document::Kernel);
}

#[test]
fn wrong_kernel_another_one_runs() {
    let manifest = House::new().sample.manifest;
    let (same, other) = (kernel('a').unwrap(), kernel('b').unwrap());
    let running = |build_id, release| RunningKernel { build_id, release, arch: invivo_terms::Arch::X86_64 };
    check_running(&manifest, running(&same.build_id, &same.release)).unwrap();
    for (build, release) in
        [(&other.build_id, same.release.as_str()), (&same.build_id, "6.1.0-48-cloud-amd64")]
    {
        assert_refused(
            check_running(&manifest, running(build, release)),
            Refusal::WrongKernel,
            Document::Manifest,
        );
    }
}

#[test]
fn wrong_kernel_the_modules_own_words_disagree_with_the_manifest() {
    let house = House::new();
    let manifest = &house.sample.manifest;
    let fields = |build: &str, vermagic: &str, name: &str, livepatch: &str| {
        let bytes = module(&[
            ("invivo_build_id", build),
            ("vermagic", vermagic),
            ("name", name),
            ("livepatch", livepatch),
        ]);
        crate::ModInfo::read(&bytes).and_then(|found| found.agrees(manifest, &house.sample.name))
    };
    let (build, vermagic, name) =
        (manifest.kernel.build_id.as_str(), &manifest.vermagic, house.sample.name.as_str());
    fields(build, vermagic, name, "Y").unwrap();
    assert_refused(fields(&"b".repeat(40), vermagic, name, "Y"), Refusal::WrongKernel, Document::Module);
    assert_refused(fields(build, "6.1.0 SMP", name, "Y"), Refusal::WrongKernel, Document::Module);
    assert_refused(fields(build, vermagic, "invivo", "Y"), Refusal::ArbitrarySoftware, Document::Module);
    assert_refused(fields(build, vermagic, name, "N"), Refusal::ArbitrarySoftware, Document::Module);
    let twice = module(&[("name", name), ("name", name), ("vermagic", vermagic)]);
    assert_refused(crate::ModInfo::read(&twice), Refusal::Malformed, Document::Module);
    assert_refused(crate::ModInfo::read(&module(&[("name", name)])), Refusal::Malformed, Document::Module);
}

#[test]
fn withdrawn_a_set_that_its_author_took_back() {
    let house = House::new();
    let mut forger = house.forger();
    forger.index["sets"][0]["status"] = json!("withdrawn");
    assert_refused(forger.verdict(), Refusal::Withdrawn, Document::Index);
}

#[test]
fn endless_data_every_document_over_its_cap_or_longer_than_named() {
    let house = House::new();
    let over = |limit: u64| vec![b' '; usize::try_from(limit).unwrap() + 1];
    let proof = house.proof();
    let mut long = proof.clone();
    long.trust[0].document = over(cap::TRUST);
    assert_refused(house.verify(&long), Refusal::EndlessData, Document::Trust);
    let mut long = proof.clone();
    long.timestamp.document = over(cap::TIMESTAMP);
    assert_refused(house.verify(&long), Refusal::EndlessData, Document::Timestamp);
    let mut long = proof.clone();
    long.index.document.push(b' ');
    assert_refused(house.verify(&long), Refusal::EndlessData, Document::Index);
    let mut long = proof.clone();
    long.kernel = over(cap::KERNEL);
    assert_refused(house.verify(&long), Refusal::EndlessData, Document::Kernel);
    let mut long = proof.clone();
    long.manifest = over(cap::MANIFEST);
    assert_refused(house.verify(&long), Refusal::EndlessData, Document::Manifest);
    let mut long = proof.clone();
    long.timestamp.signatures = over(cap::SIGNATURES);
    assert_refused(house.verify(&long), Refusal::EndlessData, Document::Timestamp);
    let mut many = proof.clone();
    many.timestamp.signatures = proof.timestamp.signatures.repeat(crate::MAX_SIGNATURES + 1);
    assert_refused(house.verify(&many), Refusal::EndlessData, Document::Timestamp);
    let proven = house.verify(&proof).unwrap();
    assert_refused(
        proven.module(&house.sample.name, &over(cap::MODULE)),
        Refusal::EndlessData,
        Document::Module,
    );
    let mut forger = house.forger();
    forger.timestamp["index"]["length"] = json!(cap::INDEX + 1);
    assert_refused(verify(&forger.unlinked()), Refusal::EndlessData, Document::Index);
}

#[test]
fn signature_confusion_a_document_of_another_kind_or_repository() {
    let house = House::new();
    // Signed by the index's people, as an index; served as the timestamp.
    let mut proof = house.proof();
    proof.timestamp = proof.index.clone();
    assert_refused(house.verify(&proof), Refusal::SignatureConfusion, Document::Timestamp);
    // A true timestamp that calls itself an index.
    let mut forger = house.forger();
    forger.timestamp["type"] = json!("index");
    assert_refused(forger.verdict(), Refusal::SignatureConfusion, Document::Timestamp);
    // Other repositories of the same people.
    for document in [Document::Timestamp, Document::Index] {
        let mut forger = house.forger();
        let target = if document == Document::Index { &mut forger.index } else { &mut forger.timestamp };
        target["repository"] = json!("other.example.com");
        assert_refused(forger.verdict(), Refusal::SignatureConfusion, document);
    }
    // Floors of one repository do not become those of another.
    let floors =
        Floors { repository: Some("other.example.com".parse().unwrap()), trust: 9, ..Floors::default() };
    let verdict = verify_proof(&house.proof(), &house.root(), &floors, at(now()));
    assert_refused(verdict, Refusal::SignatureConfusion, Document::Trust);
}

#[test]
fn malformed_unknown_fields_in_any_document() {
    let house = House::new();
    for document in
        [Document::Trust, Document::Timestamp, Document::Index, Document::Kernel, Document::Manifest]
    {
        let mut forger = house.forger();
        let target = match document {
            Document::Trust => &mut forger.trust[0],
            Document::Timestamp => &mut forger.timestamp,
            Document::Index => &mut forger.index,
            Document::Kernel => &mut forger.kernel,
            _ => &mut forger.manifest,
        };
        target["surprise"] = json!(true);
        assert_refused(forger.verdict(), Refusal::Malformed, document);
    }
}

#[test]
fn malformed_numbers_that_cannot_be() {
    let house = House::new();
    for (pointer, value) in
        [("/version", json!(0)), ("/version", json!(1u64 << 54)), ("/sets/0/kernels", json!({"bb": {}}))]
    {
        let mut forger = house.forger();
        *forger.index.pointer_mut(pointer).unwrap() = value;
        forger.link();
        forger.timestamp["index"]["version"] = json!(1);
        assert_refused(verify(&forger.unlinked()), Refusal::Malformed, Document::Index);
    }
    for (pointer, value) in [
        ("/roles/index/threshold", json!(0)),
        ("/roles/index/threshold", json!(4)),
        ("/timestampDays", json!(91)),
    ] {
        let mut forger = house.forger();
        *forger.trust[0].pointer_mut(pointer).unwrap() = value;
        assert_refused(forger.verdict(), Refusal::Malformed, Document::Trust);
    }
}

#[test]
fn a_trust_chain_has_no_gaps_and_ends() {
    let house = House::new();
    for (version, refusal) in [(1, Refusal::Rollback), (3, Refusal::FastForward)] {
        let mut forger = house.forger();
        let mut next = forger.trust[0].clone();
        next["version"] = json!(version);
        forger.trust.push(next);
        assert_refused(forger.verdict(), refusal, Document::Trust);
    }
    let mut proof = house.proof();
    proof.trust = vec![proof.trust[0].clone(); cap::TRUST_CHAIN + 1];
    assert_refused(house.verify(&proof), Refusal::EndlessData, Document::Trust);
    proof.trust.clear();
    assert_refused(house.verify(&proof), Refusal::WrongRoot, Document::Trust);
}

#[test]
fn floors_of_the_walk_are_known_before_the_timestamp_is() {
    let house = House::new();
    let client =
        Client::begin(&house.root(), &Floors::default(), at(now()), &house.proof().trust[0]).unwrap();
    assert_eq!((client.floors(), client.next_trust()), (floors(1, 0, 0), 2));
}
