//! Every hold that the planner gives is reached, and every hold there is has a page.

use std::collections::BTreeMap;

use super::fleet::{Fleet, MINUTE, after, set, stage};
use crate::{Blackout, Gate, GateVerdict, HeldByPerson, Offer, Wish};
use invivo_terms::{Block, Excuse, Hold, NodeState};

/// A fleet in which `r2` or the node named is held for this reason.
fn reached() -> BTreeMap<Hold, (Fleet, &'static str)> {
    let mut worlds = BTreeMap::new();
    let mut add = |hold: Hold, name: &'static str, make: &dyn Fn(&mut Fleet)| {
        let mut fleet = Fleet::with(2, 2);
        make(&mut fleet);
        worlds.insert(hold, (fleet, name));
    };
    let gate = |verdict| vec![Gate { name: "errors".to_owned(), foreign: true, about: None, verdict }];
    let refused = |excuse: Excuse| {
        move |fleet: &mut Fleet| {
            fleet.decide();
            fleet.end("c1", NodeState::Refused);
            fleet.report("c1").excuse = Some(excuse);
        }
    };
    let failed = |state: NodeState| {
        move |fleet: &mut Fleet| {
            fleet.decide();
            fleet.end("c1", state);
        }
    };
    add(Hold::NotInStage, "r1", &|_| {});
    add(Hold::EmptyStage, "r1", &|fleet| {
        fleet.world.nodes.remove("c1");
        fleet.world.nodes.remove("c2");
    });
    add(Hold::StageSoaking, "r1", &|fleet| drop(fleet.run()));
    add(Hold::KernelNotProven, "c2", &|fleet| fleet.world.policy.stages[0] = stage("canary", 2, 30));
    add(Hold::AtMaxParallel, "c3", &|fleet| {
        fleet.add("c3", 0, 1);
        fleet.decide();
        fleet.obey("c1");
        fleet.decide();
    });
    add(Hold::GateFailing, "c1", &|fleet| {
        fleet.world.gates = gate(GateVerdict::Failed { message: String::new() });
    });
    add(Hold::GateUnknown, "c1", &|fleet| {
        fleet.world.gates = gate(GateVerdict::Unknown { message: String::new() });
    });
    add(Hold::ZoneBusy, "c2", &|fleet| {
        fleet.world.policy.stages[0] = stage("canary", 2, 30);
        fleet.world.policy.stages[0].spread = Some("zone".to_owned());
        fleet.node("c2").domains.insert("zone".to_owned(), "b".to_owned());
        fleet.add("c0", 0, 1);
        fleet.decide();
        fleet.obey("c0");
        fleet.decide();
    });
    add(Hold::FleetLimit, "c1", &|fleet| fleet.world.brakes.fleet = Some(0));
    add(Hold::OutsideWindow, "c1", &|fleet| {
        fleet.world.policy.blackouts = vec![Blackout { from: after(10), until: after(MINUTE) }];
    });
    add(Hold::Blackout, "c1", &|fleet| {
        fleet.world.policy.blackouts = vec![Blackout { from: after(0), until: after(MINUTE) }];
    });
    add(Hold::Paused, "c1", &|fleet| fleet.world.policy.paused = true);
    add(Hold::DryRun, "c1", &|fleet| fleet.world.policy.dry_run = true);
    add(Hold::EmergencyStop, "c1", &|fleet| fleet.world.brakes.emergency_stop = true);
    add(Hold::HeldByPerson, "c1", &|fleet| fleet.node("c1").held = Some(HeldByPerson { until: None }));
    add(Hold::FeedStalled, "c1", &|fleet| fleet.world.offer = Offer::Unknown);
    add(Hold::FeedSuspended, "c1", &|fleet| fleet.world.offer = Offer::Suspended);
    for (hold, reason) in [
        (Hold::Delayed, Block::Delayed),
        (Hold::AwaitingApproval, Block::AwaitingApproval),
        (Hold::SetQuarantined, Block::Quarantined),
    ] {
        add(hold, "c1", &move |fleet| {
            let mut withheld = set(1, &[(1, 1)]);
            super::fleet::block(&mut withheld, reason);
            fleet.offer(vec![withheld]);
        });
    }
    add(Hold::TargetMissing, "c1", &|fleet| {
        fleet.world.policy.target = Wish::Named(super::fleet::set_name(9));
    });
    add(Hold::AheadOfTarget, "c1", &|fleet| fleet.report("c1").level = invivo_terms::Level(9));
    add(Hold::UnsupportedKernel, "c1", &|fleet| fleet.offer(vec![set(1, &[(7, 1)])]));
    add(Hold::NodeNotReady, "c1", &|fleet| fleet.unready("c1"));
    add(Hold::NodeCordoned, "c1", &|fleet| fleet.node("c1").cordoned = true);
    add(Hold::AgentMissing, "c1", &|fleet| fleet.node("c1").report = None);
    add(Hold::StatusStale, "c1", &|fleet| {
        fleet.decide();
        fleet.pass(11 * MINUTE);
        fleet.world.policy.target = Wish::None;
    });
    add(Hold::FailureBudgetSpent, "c2", &failed(NodeState::Failed));
    add(Hold::AttemptEnded, "c1", &failed(NodeState::Failed));
    add(Hold::Convicted, "c1", &failed(NodeState::Convicted));
    add(Hold::Suspected, "c1", &failed(NodeState::Suspected));
    add(Hold::NotTried, "c1", &refused(Excuse::NotTried));
    add(Hold::BlockedByThreads, "c1", &refused(Excuse::Blocked));
    add(Hold::ModuleSigningKeyMissing, "c1", &refused(Excuse::KeyMissing));
    add(Hold::Lockdown, "c1", &refused(Excuse::Lockdown));
    add(Hold::ForeignTarget, "c1", &refused(Excuse::ForeignTarget));
    add(Hold::ForeignLivepatch, "c1", &refused(Excuse::ForeignLivepatch));
    add(Hold::ClaimedByOther, "c1", &|fleet| fleet.node("c1").claimed_by_other = true);
    worlds
}

#[test]
fn every_hold_is_reached() {
    let worlds = reached();
    for hold in Hold::ALL {
        let (fleet, name) = worlds.get(hold).unwrap_or_else(|| panic!("nobody is ever held by {hold}"));
        let seen = fleet.hold(name);
        assert_eq!(seen, Some(*hold), "{name}");
    }
}

#[test]
fn every_hold_has_its_section_in_the_documents() {
    let page = include_str!("../../../../docs/holds.md");
    for hold in Hold::ALL {
        let section = page.split("\n## ").find(|section| section.lines().next() == Some(hold.as_str()));
        let section = section.unwrap_or_else(|| panic!("docs/holds.md says nothing of {hold}"));
        for part in ["**Cause:**", "**Check:**", "**Remedy:**"] {
            assert!(section.contains(part), "{hold} has no {part}");
        }
    }
    let sections = page.split("\n## ").skip(1).filter_map(|section| section.lines().next());
    for section in sections {
        assert!(Hold::ALL.iter().any(|hold| hold.as_str() == section), "{section} is no hold");
    }
}
