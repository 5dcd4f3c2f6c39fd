//! Any world at all, also such as no history leads to.

use std::collections::{BTreeMap, BTreeSet};

use invivo_terms::{Excuse, Level, NodeState, Revision};
use jiff::Timestamp;
use proptest::prelude::*;

use super::super::fleet::{Fleet, after, build, digest, set_name, stage, windows};
use super::cluster::{sets, wish};
use super::{cases, check};
use crate::{
    Brakes, Gate, GateVerdict, HeldByPerson, Instructed, Instruction, Node, Policy, Readiness, Wish, World,
    plan,
};

fn instruction(choice: u8, kernel: u32, level: u32, attempt: u32, deadline: Timestamp) -> Instruction {
    match choice {
        0 => Instruction::Hold,
        1 => Instruction::RollBack { to: (Level(0), None), deadline, attempt },
        2 => Instruction::RollBack { to: (Level(1), Some(set_name(1))), deadline, attempt },
        _ => Instruction::Apply(crate::Apply {
            build_id: build(kernel),
            level: Level(level),
            set: set_name(level),
            digest: digest(level),
            manifest: digest(kernel * 1000 + level),
            mechanism: invivo_terms::Mechanism::Livepatch,
            deadline,
            settle_after: std::time::Duration::from_mins(30),
            allow_partial: false,
            from: (Level(level / 2), (level > 1).then(|| set_name(level / 2))),
            attempt,
        }),
    }
}

fn state() -> impl Strategy<Value = NodeState> {
    (0..NodeState::ALL.len()).prop_map(|index| NodeState::ALL[index])
}

prop_compose! {
    fn any_node()(
        stage in 0..4_usize, ready in prop::bool::weighted(0.8), claimed in prop::bool::weighted(0.1),
        told in 0..6_u8, kernels in (1..4_u32, 1..4_u32), levels in (1..5_u32, 0..4_u32),
        at in (0..2000_u64, 0..2000_u64), observed in 1..4_i64, state in state(),
        tries in (0..4_u32, 0..4_usize), set in prop::option::of(1..5_u32), zone in 0..3_u8,
        there in (prop::bool::weighted(0.9), prop::bool::weighted(0.9)),
        brakes in (prop::bool::weighted(0.1), prop::option::weighted(0.1, 0..2000_u64), prop::bool::weighted(0.1)),
    ) -> Node {
        let mut truth = Fleet::new();
        truth.add("n", stage, kernels.0);
        let mut node = truth.node("n").clone();
        node.claimed_by_other = claimed;
        node.cordoned = brakes.0;
        node.held = brakes.1.map(|until| HeldByPerson { until: (until > 100).then(|| after(until)) });
        node.domains.insert("zone".to_owned(), format!("z{zone}"));
        if !ready {
            node.ready = Readiness::NotReady { since: after(at.0.min(at.1)) };
        }
        let instruction = instruction(told, kernels.1, levels.0, tries.0, after(at.0));
        node.spec = there.0.then_some(Instructed { revision: Revision(2), instruction, by_other: brakes.2 });
        let report = node.report.as_mut().unwrap();
        (report.observed, report.level, report.state) = (Revision(observed), Level(levels.1), state);
        (report.since, report.set) = (after(at.1), set.map(set_name));
        report.excuse = [None, Some(Excuse::NotTried), Some(Excuse::Blocked), Some(Excuse::Lost)][tries.1]
            .filter(|_| report.state.is_failure());
        node.report = node.report.filter(|_| there.1);
        node
    }
}

prop_compose! {
    /// A policy and the brakes from outside it.
    fn any_brakes()(
        setup in super::setup(), aim in 0..6_u8, paused in prop::bool::weighted(0.1),
        dry_run in prop::bool::weighted(0.1), stop in prop::bool::weighted(0.1),
        fleet in prop::option::weighted(0.3, 0..3_u32), gate in 0..5_u8,
        window in prop::option::weighted(0.2, (0..40_u32, 1..40_u32)),
    ) -> (Policy, Brakes, Vec<Gate>, usize) {
        let mut policy =
            Policy { target: wish(aim), paused, dry_run, windows: windows(window), ..setup.policy() };
        policy.stages[1].optional = false;
        let message = String::new();
        let verdict = match gate {
            0..=2 => GateVerdict::Passed,
            3 => GateVerdict::Failed { message },
            _ => GateVerdict::Unknown { message },
        };
        let gates = vec![Gate { name: "gate".to_owned(), foreign: true, about: None, verdict }];
        let parallel = usize::try_from(setup.parallel).unwrap();
        (policy, Brakes { emergency_stop: stop, fleet }, gates, parallel)
    }
}

proptest! {
    #![proptest_config(cases(20_000))]

    #[test]
    fn any_world_gives_a_plan_that_keeps_the_rules_and_a_second_leader_adds_nothing(
        nodes in prop::collection::vec(any_node(), 0..14),
        around in any_brakes(), offer in 0..8_u8,
        now in 0..2000_u64,
        remembered in prop::option::of(
            (0..6_u8, 0..3_u32, 0..4_usize, any::<bool>(), prop::option::of(0..2000_u64), 0..3_u32, any::<bool>())
        ),
    ) {
        let (policy, brakes, gates, parallel) = around;
        let mut world = Fleet::new().world;
        (world.now, world.offer, world.policy, world.brakes, world.gates) =
            (after(now), sets(offer), policy, brakes, gates);
        world.nodes = nodes.into_iter().enumerate().map(|(n, node)| (format!("n{n:02}"), node)).collect();
        if let Some((aim, started, stage, watched, deadline, failed, returning)) = remembered {
            let before = World { policy: Policy { target: wish(aim), ..world.policy.clone() }, ..world.clone() };
            world.memory = plan(&World { nodes: BTreeMap::new(), ..before }).memory;
            if let Some(rollout) = &mut world.memory.rollout {
                (rollout.started, rollout.stage, rollout.deadline) = (started, stage, deadline.map(after));
                (rollout.soak_until, rollout.failed) = (watched.then(|| after(now / 2)), failed);
                rollout.returning = returning
                    && world.policy.on_failure == crate::OnFailure::RollBack
                    && world.policy.target == Wish::Latest;
            }
        }
        let first = plan(&world);
        prop_assert_eq!(&first, &plan(&world));
        check::plan(&world, &first, parallel);
        world.memory = first.memory.clone();
        let second = plan(&world);
        check::plan(&world, &second, parallel);
        let told = |made: &crate::Plan| -> BTreeSet<String> {
            let loads = made.actions.iter().filter(|(_, told)| **told != Instruction::Hold);
            loads.map(|(name, _)| name.clone()).collect()
        };
        let given: BTreeSet<String> = told(&first).union(&told(&second)).cloned().collect();
        prop_assert!(given.is_empty() || given.len() + first.in_flight.len() <= parallel);
    }
}

/// Less was remembered as started than is seen: what is seen counts.
#[test]
fn a_second_leader_gives_back_no_slot_that_the_first_has_not() {
    let mut world = Fleet::new().world;
    let mut truth = Fleet::new();
    truth.add("n", 0, 1);
    for (n, there) in [(0, true), (1, true), (2, false), (3, false)] {
        let mut node = truth.node("n").clone();
        node.domains.insert("zone".to_owned(), "z0".to_owned());
        let deadline = after(988);
        node.spec = Some(Instructed {
            revision: Revision(2),
            instruction: instruction(1, 1, 1, 0, deadline),
            by_other: false,
        });
        let report = node.report.as_mut().unwrap();
        (report.observed, report.level, report.state) = (Revision(2), Level(0), NodeState::Applied);
        (report.since, report.set) = (after(0), None);
        if !there {
            node.report = None;
            node.ready = Readiness::NotReady { since: after(0) };
        }
        world.nodes.insert(format!("n{n:02}"), node);
    }
    world.now = after(0);
    world.offer = sets(1);
    world.policy.target = Wish::Latest;
    let mut canary = stage("canary", 3, 0);
    canary.optional = true;
    world.policy.stages = vec![canary, stage("early", 3, 0)];
    world.policy.rest = stage("rest", 3, 0);
    let before = World { policy: Policy { target: wish(0), ..world.policy.clone() }, ..world.clone() };
    world.memory = plan(&World { nodes: BTreeMap::new(), ..before }).memory;
    if let Some(rollout) = &mut world.memory.rollout {
        (rollout.started, rollout.stage, rollout.deadline) = (0, 0, None);
        (rollout.soak_until, rollout.failed) = (None, 0);
    }
    let first = plan(&world);
    world.memory = first.memory.clone();
    let second = plan(&world);
    let told = |made: &crate::Plan| made.actions.keys().cloned().collect::<BTreeSet<_>>();
    assert!(
        told(&first).union(&told(&second)).count() + first.in_flight.len() <= 3,
        "{:?} {:?}",
        told(&first),
        told(&second)
    );
}
