//! Dates: documents past theirs, signatures dated ahead or back.

use invivo_terms::Refusal;
use jiff::SignedDuration;
use serde_json::json;

use super::{House, assert_refused, at, days, now, verify};
use crate::document::Role;
use crate::{Clocks, Document, Floors, Proof, digest, verify_proof};

#[test]
fn freeze_an_expired_document_by_the_later_of_two_clocks() {
    let house = House::new();
    let proof = house.proof();
    for clocks in [
        at(days(7)),
        Clocks { own: days(-3650), server: Some(days(7)) },
        Clocks { own: days(7), server: Some(days(-3650)) },
    ] {
        let verdict = verify_proof(&proof, &house.root(), &Floors::default(), clocks);
        assert_refused(verdict, Refusal::Expired, Document::Timestamp);
    }
    let mut forger = house.forger();
    forger.trust[0]["expires"] = json!(days(1));
    let proof = forger.proof();
    let root = root_of(&proof);
    assert_refused(
        verify_proof(&proof, &root, &Floors::default(), at(days(2))),
        Refusal::Expired,
        Document::Trust,
    );
    let mut forger = house.forger();
    forger.index["expires"] = json!(days(1));
    let proof = forger.proof();
    assert_refused(
        verify_proof(&proof, &root_of(&proof), &Floors::default(), at(days(2))),
        Refusal::Expired,
        Document::Index,
    );
}

fn root_of(proof: &Proof) -> invivo_terms::Digest {
    digest(&proof.trust[0].document)
}

#[test]
fn freeze_by_a_thief_of_the_timestamp_key_who_dates_far_ahead() {
    let house = House::new();
    let mut forger = house.forger();
    forger.timestamp["expires"] = json!(days(30));
    assert_refused(forger.verdict(), Refusal::Malformed, Document::Timestamp);
    let mut forger = house.forger();
    forger.index["expires"] = json!(days(120));
    assert_refused(forger.verdict(), Refusal::Malformed, Document::Index);
}

/// The timestamp that a thief of its key makes today and dates to another day.
fn timestamp_dated(house: &House, day: i64, minutes: i64) -> Proof {
    let mut forger = house.forger();
    forger.link();
    let mut proof = forger.unlinked();
    forger.signed_at = days(day) + SignedDuration::from_mins(minutes);
    forger.timestamp["expires"] = json!(forger.signed_at + SignedDuration::from_hours(7 * 24));
    proof.timestamp = forger.sign(Role::Timestamp, &forger.timestamp);
    proof
}

#[test]
fn freeze_by_a_thief_of_the_timestamp_key_who_signs_ahead_of_every_clock() {
    let house = House::new();
    let check = |proof: &Proof, clocks| verify_proof(proof, &root_of(proof), &Floors::default(), clocks);
    for (day, minutes) in [(25_000, 0), (3_650, 0), (1, 0), (0, 61)] {
        let proof = timestamp_dated(&house, day, minutes);
        for clocks in [
            at(now()),
            Clocks { own: now(), server: Some(days(-3650)) },
            Clocks { own: days(-3650), server: Some(now()) },
        ] {
            assert_refused(check(&proof, clocks), Refusal::BelowThreshold, Document::Timestamp);
        }
    }
    // Honest clocks differ.
    check(&timestamp_dated(&house, 0, 59), at(now())).unwrap();
}

#[test]
fn an_index_or_trust_document_signed_ahead_of_every_clock_does_not_count_either() {
    let house = House::new();
    for (role, document) in [(Role::Trust, Document::Trust), (Role::Index, Document::Index)] {
        let mut forger = house.forger();
        forger.link();
        let mut proof = forger.unlinked();
        forger.signed_at = days(1);
        match role {
            Role::Trust => proof.trust = vec![forger.sign(role, &forger.trust[0])],
            _ => proof.index = forger.sign(role, &forger.index),
        }
        assert_refused(verify(&proof), Refusal::BelowThreshold, document);
    }
}

#[test]
fn a_node_whose_clock_is_years_behind_goes_by_the_servers_date() {
    let house = House::new();
    let clocks = Clocks { own: days(-3650), server: Some(now()) };
    verify_proof(&house.proof(), &house.root(), &Floors::default(), clocks).unwrap();
    // With no other clock it cannot tell a thief's timestamp from a good one.
    let verdict = verify_proof(&house.proof(), &house.root(), &Floors::default(), at(days(-3650)));
    assert_refused(verdict, Refusal::BelowThreshold, Document::Trust);
}

#[test]
fn a_server_that_lies_about_its_date_brings_a_thief_no_further_than_the_index_lives() {
    let house = House::new();
    let mut proof = timestamp_dated(&house, 3650, 0);
    let lie = |day| Clocks { own: now(), server: Some(days(day)) };
    let root = root_of(&proof);
    let verdict = verify_proof(&proof, &root, &Floors::default(), lie(3650));
    assert_refused(verdict, Refusal::Expired, Document::Trust);
    proof = timestamp_dated(&house, 91, 0);
    let verdict = verify_proof(&proof, &root, &Floors::default(), lie(91));
    assert_refused(verdict, Refusal::Expired, Document::Index);
    // And no longer than the lie.
    proof = timestamp_dated(&house, 30, 0);
    verify_proof(&proof, &root, &Floors::default(), lie(30)).unwrap();
    let verdict = verify_proof(&proof, &root, &Floors::default(), at(now()));
    assert_refused(verdict, Refusal::BelowThreshold, Document::Timestamp);
}
