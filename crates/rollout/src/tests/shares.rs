//! Stages that take a share, and stages that take one zone after the other.

use std::collections::{BTreeMap, BTreeSet};

use super::fleet::{Fleet, MINUTE, stage};
use crate::{Offer, Stage};
use invivo_terms::Hold;

fn share(percent: u8, max: u32, soak_minutes: u64) -> Stage {
    Stage { share: Some(percent), ..stage("early", max, soak_minutes) }
}

/// A share of everybody, then the rest; so many nodes of build 1.
fn shared(percent: u8, nodes: u32) -> Fleet {
    let mut fleet = Fleet::with(0, 0);
    fleet.world.policy.stages = vec![share(percent, 1000, 30)];
    fleet.world.policy.rest = stage("rest", 1000, 0);
    for n in 0..nodes {
        fleet.add(&format!("n{n:03}"), 1, 1);
    }
    fleet
}

#[test]
fn a_share_is_rounded_up_and_at_least_one_of_each_kernel_build() {
    for (percent, nodes, expected) in [(10, 25, 3), (1, 25, 1), (100, 25, 25), (10, 1, 1)] {
        let mut fleet = shared(percent, nodes);
        fleet.offer(vec![super::fleet::set(1, &[(1, 1), (2, 1)])]);
        fleet.add("other", 1, 2);
        let moved: BTreeSet<String> = fleet.run().into_iter().collect();
        assert!(moved.contains("other"));
        assert_eq!(moved.len(), expected + 1, "{percent} % of {nodes}");
    }
}

#[test]
fn the_cut_is_fixed_when_the_stage_begins() {
    let mut fleet = shared(20, 10);
    let first: BTreeSet<String> = fleet.run().into_iter().collect();
    assert_eq!(first.len(), 2);
    let cuts = fleet.rollout().cuts.clone();
    let gone = first.first().unwrap().clone();
    fleet.world.nodes.remove(&gone);
    for n in 0..10 {
        fleet.add(&format!("late{n}"), 1, 1);
    }
    let late = fleet.run();
    assert!(late.len() < 8, "those whose place it is, not a new share of all: {late:?}");
    assert_eq!(fleet.rollout().cuts, cuts);
    fleet.pass(30 * MINUTE);
    assert_eq!(fleet.run().len() + late.len(), 18, "everybody has had a turn");
    fleet.pass(10 * MINUTE);
    fleet.run();
    assert!(fleet.rollout().complete);
}

#[test]
fn a_share_takes_nobody_whom_a_stage_before_has() {
    let mut fleet = Fleet::with(2, 0);
    fleet.world.policy.stages = vec![stage("canary", 9, 0), share(50, 9, 30)];
    fleet.world.policy.rest = stage("rest", 9, 0);
    for n in 0..6 {
        fleet.add(&format!("n{n}"), 2, 1);
    }
    let moved = fleet.run();
    assert_eq!(moved[..2], ["c1", "c2"]);
    assert_eq!(moved.len(), 2 + 4, "half of eight");
    assert_eq!(fleet.world.memory.rollout.as_ref().unwrap().stage, 1);
}

#[test]
fn a_share_of_nobody_holds_nobody() {
    let mut fleet = Fleet::with(2, 0);
    fleet.world.policy.stages = vec![stage("canary", 9, 0), share(50, 9, 30)];
    fleet.run();
    assert!(fleet.rollout().complete);
}

#[test]
fn the_next_rollout_takes_others() {
    let mut fleet = shared(10, 100);
    let first: BTreeSet<String> = fleet.run().into_iter().collect();
    fleet.pass(30 * MINUTE);
    fleet.run();
    fleet.offer(vec![super::fleet::set(1, &[(1, 1)]), super::fleet::set(2, &[(1, 2)])]);
    let second: BTreeSet<String> = fleet.run().into_iter().collect();
    assert_eq!((first.len(), second.len()), (10, 10));
    assert_ne!(first, second);
}

#[test]
fn zones_go_one_after_the_other() {
    let mut fleet = shared(100, 6);
    fleet.world.policy.stages[0].spread = Some("zone".to_owned());
    for (n, zone) in ["b", "a", "b", "a", "c", "a"].into_iter().enumerate() {
        fleet.node(&format!("n{n:03}")).domains.insert("zone".to_owned(), zone.to_owned());
    }
    assert_eq!(fleet.decide(), ["n001"], "the build's first node goes alone");
    assert_eq!(fleet.hold("n000"), Some(Hold::KernelNotProven));
    fleet.obey("n001");
    assert_eq!(fleet.decide(), ["n003", "n005"]);
    assert_eq!(fleet.hold("n000"), Some(Hold::ZoneBusy));
    fleet.obey("n003");
    assert!(fleet.decide().is_empty());
    fleet.obey("n005");
    assert_eq!(fleet.decide(), ["n000", "n002"]);
    fleet.obey("n000");
    fleet.unready("n000");
    fleet.obey("n002");
    assert!(fleet.decide().is_empty(), "a zone with a node that is not steady is not through");
}

#[test]
fn with_starts_that_are_not_seen_no_zone_is_free() {
    let mut fleet = shared(100, 4);
    fleet.world.policy.stages[0].spread = Some("zone".to_owned());
    fleet.run();
    fleet.offer(vec![super::fleet::set(1, &[(1, 1)]), super::fleet::set(2, &[(1, 2)])]);
    fleet.decide();
    let name = fleet.plan().in_flight.first().unwrap().clone();
    fleet.obey(&name);
    let lost = fleet.plan();
    assert!(lost.actions.len() > 1);
    fleet.world.memory = lost.memory;
    assert!(fleet.decide().is_empty());
    assert!(
        fleet
            .plan()
            .holds
            .values()
            .all(|held| held.hold == Hold::ZoneBusy || held.hold == Hold::AtMaxParallel)
    );
}

#[test]
fn the_plan_tells_whom_a_share_has_taken_with_and_without_a_feed() {
    let mut fleet = shared(20, 10);
    let taken: BTreeMap<String, usize> = fleet.run().into_iter().map(|name| (name, 0)).collect();
    assert_eq!(taken.len(), 2);
    assert_eq!(fleet.plan().stages, taken);
    fleet.world.offer = Offer::Unknown;
    assert_eq!(fleet.plan().stages, taken);
}

#[test]
fn the_zone_that_moves_takes_in_nodes_of_its_own_and_no_others() {
    let mut fleet = Fleet::with(4, 0);
    fleet.world.policy.stages = vec![Stage { spread: Some("zone".to_owned()), ..stage("canary", 2, 30) }];
    fleet.node("c4").domains.insert("zone".to_owned(), "z".to_owned());
    fleet.decide();
    fleet.obey("c1");
    assert_eq!(fleet.decide(), ["c2", "c3"]);
    fleet.obey("c2");
    assert!(fleet.decide().is_empty());
    assert_eq!(fleet.hold("c4"), Some(Hold::ZoneBusy));
    fleet.add("c5", 0, 1);
    assert_eq!(fleet.decide(), ["c5"]);
}
