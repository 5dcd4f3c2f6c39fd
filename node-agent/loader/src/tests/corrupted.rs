//! What a corrupted agent could pass. Each is refused by name, loads nothing, and leaves a loader
//! that works and a node that keeps its level.

use super::*;
use crate::fake::build_id;
use invivo_terms::Refusal;

/// Passes `spoil`ed input on a node that runs level 1; tells what was said. The node must still be
/// at level 1 afterwards and take the honest level 2.
fn spoiled(spoil: impl FnOnce(&Trial, &Bundle, &mut ApplyRequest, &mut Vec<u8>, &mut Vec<u8>)) -> State {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &one);
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    let (mut request, mut proof, mut module) =
        (trial.request(3, &two), two.proof.clone(), two.module.clone());
    spoil(&trial, &one, &mut request, &mut proof, &mut module);
    let said = trial.pass(request, &proof, &module);
    assert_eq!((said.level, trial.kernel.loads()), (Level(1), 1), "something was loaded or taken off");
    let honest = trial.apply(9, &two);
    assert_eq!((honest.state, honest.level), (NodeState::Applied, Level(2)), "{:?}", honest.message);
    said
}

#[test]
fn a_changed_module_is_arbitrary_software() {
    let said = spoiled(|_, _, _, _, module| *module.last_mut().unwrap() ^= 1);
    assert_eq!((said.state, said.reason), (NodeState::Refused, Some(refusal(Refusal::ArbitrarySoftware))));
    let said = spoiled(|_, one, _, _, module| module.clone_from(&one.module));
    assert_eq!(said.reason, Some(refusal(Refusal::ArbitrarySoftware)));
    let said = spoiled(|_, _, _, _, module| module.push(0));
    assert_eq!(said.reason, Some(refusal(Refusal::ArbitrarySoftware)));
}

#[test]
fn a_bundle_for_another_kernel_is_refused_whatever_the_request_says() {
    let other = |trial: &Trial| trial.author.publish(&build_id(0xcd), 7, "2026-11-21.3");
    let said = spoiled(|trial, _, request, proof, module| {
        let bundle = other(trial);
        *request = ApplyRequest { order: order("uid", 3), ..trial.request(3, &bundle) };
        (*proof, *module) = (bundle.proof, bundle.module);
    });
    assert_eq!((said.state, said.reason), (NodeState::Refused, Some(refusal(Refusal::WrongKernel))));
    let said = spoiled(|trial, _, request, proof, module| {
        let bundle = other(trial);
        *request = ApplyRequest { build_id: build_id(0xab), ..trial.request(3, &bundle) };
        (*proof, *module) = (bundle.proof, bundle.module);
    });
    assert_eq!((said.state, said.reason), (NodeState::Refused, Some(refusal(Refusal::WrongKernel))));
}

#[test]
fn an_older_revision_changes_nothing() {
    let said = spoiled(|_, _, request, _, _| request.order = order("uid", 1));
    assert_eq!(said.reason, Some(fault(Fault::StaleInstruction)));
    assert_eq!((said.state, said.order), (NodeState::Settled, Some(order("uid", 2))));
}

#[test]
fn a_repository_that_nobody_pinned_is_a_wrong_root() {
    let said = spoiled(|trial, _, request, proof, module| {
        let bundle = author("example").publish(&build_id(0xab), 2, "2026-11-21.2");
        *request = trial.request(3, &bundle);
        (*proof, *module) = (bundle.proof, bundle.module);
    });
    assert_eq!((said.state, said.reason), (NodeState::Refused, Some(refusal(Refusal::WrongRoot))));
}

#[test]
fn a_lower_level_is_refused_though_it_is_signed_and_active() {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    trial.settle(2, &two);
    let one = trial.author.renew(&one);
    let said = trial.apply(3, &one);
    assert_eq!((said.state, said.reason), (NodeState::Refused, Some(fault(Fault::LowerLevel))));
    assert_eq!((said.level, trial.kernel.loads()), (Level(2), 1));
}

#[test]
fn documents_past_their_date_start_nothing_new() {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &one);
    let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
    trial.kernel.pass(Duration::from_hours(30 * 24));
    let said = trial.apply(3, &two);
    assert_eq!((said.state, said.reason), (NodeState::Refused, Some(refusal(Refusal::Expired))));
    assert_eq!((said.level, trial.kernel.loads()), (Level(1), 1));
}

#[test]
fn the_servers_clock_can_only_make_documents_older() {
    let late = |_: &Trial, _: &Bundle, request: &mut ApplyRequest, _: &mut Vec<u8>, _: &mut Vec<u8>| {
        request.server_date = Some("2030-01-01T00:00:00Z".parse().unwrap());
    };
    assert_eq!(spoiled(late).reason, Some(refusal(Refusal::Expired)));
}

#[test]
fn a_replayed_proof_is_a_rollback() {
    let mut trial = Trial::new();
    let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.settle(2, &trial.author.renew(&one));
    let said = trial.apply(3, &one);
    assert_eq!((said.state, said.reason), (NodeState::Refused, Some(refusal(Refusal::Rollback))));
}

#[test]
fn what_the_fleet_has_seen_makes_an_old_proof_a_rollback_but_is_not_remembered() {
    let said = spoiled(|_, _, request, _, _| {
        request.floors = invivo_feed::Floors {
            repository: Some("example".parse().unwrap()),
            trust: 1,
            index: u64::MAX,
            timestamp: u64::MAX,
        };
    });
    assert_eq!(said.reason, Some(refusal(Refusal::Rollback)));
}

#[test]
fn another_manifest_set_or_level_than_the_instructions_is_mix_and_match() {
    let said = spoiled(|_, one, request, _, _| request.manifest = one.manifest_digest());
    assert_eq!((said.state, said.reason), (NodeState::Refused, Some(refusal(Refusal::MixAndMatch))));
    let said = spoiled(|_, one, request, _, _| request.digest = one.set_digest.clone());
    assert_eq!(said.reason, Some(refusal(Refusal::MixAndMatch)));
    let said = spoiled(|_, one, request, _, _| request.set = one.set.clone());
    assert_eq!(said.reason, Some(refusal(Refusal::MixAndMatch)));
    let said = spoiled(|_, _, request, _, _| request.level = Level(3));
    assert_eq!(said.reason, Some(refusal(Refusal::MixAndMatch)));
}

#[test]
fn a_withdrawn_set_is_refused_by_its_name() {
    let mut trial = Trial::new();
    let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
    trial.author.withdraw(&bundle);
    let proof = trial.author.proof_of_today(&bundle);
    let request = trial.request(2, &bundle);
    let said = trial.pass(request, &proof, &bundle.module);
    assert_eq!((said.state, said.reason), (NodeState::Refused, Some(refusal(Refusal::Withdrawn))));
    assert_eq!(trial.kernel.loads(), 0);
}

#[test]
fn a_proof_that_is_none_is_malformed() {
    for junk in [&b""[..], b"{}", b"[1,2,3]", &[0xff; 4096]] {
        let said = spoiled(|_, _, _, proof, _| *proof = junk.to_vec());
        assert_eq!((said.state, said.reason), (NodeState::Refused, Some(refusal(Refusal::Malformed))));
    }
}

#[test]
fn the_wrong_number_of_blobs_is_not_understood() {
    let mut trial = Trial::new();
    for request in [Request::State, Request::Hold { order: order("uid", 1) }] {
        assert!(matches!(trial.loader.handle(request, &[Vec::new()]), Answer::Refused { .. }));
    }
    assert_eq!(trial.ask().order, None);
}

#[test]
fn a_kernel_that_wants_signatures_is_not_even_tried_with_an_unsigned_module() {
    use invivo_wire::Signing;
    for (signing, reason) in
        [(Signing::Enforced, Fault::ModuleSigningKeyMissing), (Signing::Lockdown, Fault::Lockdown)]
    {
        let mut trial = Trial::new();
        trial.kernel.0.borrow_mut().running.kernel.signing = signing;
        trial.restart();
        let bundle = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
        let said = trial.apply(2, &bundle);
        assert_eq!((said.state, said.reason), (NodeState::Refused, Some(fault(reason))));
        assert_eq!(trial.kernel.loads(), 0);
    }
}

#[test]
fn a_signature_by_a_key_that_the_kernel_does_not_trust_is_a_key_that_is_missing() {
    use crate::missed::Missed;
    use invivo_wire::Signing;
    use rustix::io::Errno;
    for errno in [Errno::KEYREJECTED, Errno::NOKEY] {
        let missed = Missed::load(errno, Signing::Enforced);
        assert_eq!(
            (missed.state, missed.reason),
            (NodeState::Refused, fault(Fault::ModuleSigningKeyMissing))
        );
        // Without enforcement it is a damaged module.
        assert_eq!(Missed::load(errno, Signing::Off).reason, refusal(Refusal::LoadRefused));
    }
}

#[test]
fn a_load_that_the_kernel_forbids_is_no_fault_of_the_patch_whether_that_could_be_seen_before_or_not() {
    use crate::missed::Missed;
    use invivo_wire::Signing;
    use rustix::io::Errno;
    for signing in [Signing::Lockdown, Signing::Enforced, Signing::Off] {
        let missed = Missed::load(Errno::PERM, signing);
        assert_eq!((missed.state, missed.reason), (NodeState::Refused, fault(Fault::Lockdown)));
    }
}
