//! A small fleet that does what it is told, when the test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::{
    Blocked, Brakes, Held, Instructed, Instruction, Memory, Node, Offer, Parallel, Plan, Policy, Readiness,
    Report, RolloutMemory, Set, SetKernel, Stage, Supersede, Window, World, plan,
};
use invivo_terms::{Block, BuildId, Digest, Excuse, Hold, Level, NodeState, Revision, SetName};
use jiff::Timestamp;

pub(super) const MINUTE: u64 = 60;

pub(super) fn build(number: u32) -> BuildId {
    format!("{number:040x}").parse().unwrap()
}

pub(super) fn digest(number: u32) -> Digest {
    format!("{number:064x}").parse().unwrap()
}

pub(super) fn set_name(number: u32) -> SetName {
    format!("2026-01-01.{number}").parse().unwrap()
}

/// An active, eligible set that brings these builds to these levels.
pub(super) fn set(number: u32, kernels: &[(u32, u32)]) -> Set {
    let kernels = kernels
        .iter()
        .map(|(b, level)| (build(*b), SetKernel { level: Level(*level), manifest: digest(b * 1000 + level) }))
        .collect();
    Set { name: set_name(number), digest: digest(number), blocked: None, kernels }
}

/// Its author takes it back.
pub(super) fn withdraw(set: &mut Set) {
    block(set, Block::Withdrawn);
}

/// The feed withholds it.
pub(super) fn block(set: &mut Set, reason: Block) {
    set.blocked = Some(Blocked { reason, until: None });
}

pub(super) fn stage(name: &str, max: u32, soak_minutes: u64) -> Stage {
    Stage {
        name: name.to_owned(),
        max_parallel: Parallel::Nodes(max),
        soak: Duration::from_secs(soak_minutes * MINUTE),
        ..Stage::new("")
    }
}

pub(super) fn after(seconds: u64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + i64::try_from(seconds).unwrap()).unwrap()
}

/// Daily windows that open so many minutes after the time of day at which everything begins.
pub(super) fn windows(window: Option<(u32, u32)>) -> Vec<Window> {
    let zone = jiff::tz::TimeZone::UTC;
    let Some((from, length)) = window else { return Vec::new() };
    let start = after(u64::from(from) * MINUTE).to_zoned(zone.clone()).time();
    let days = jiff::civil::Weekday::Monday.cycle_forward().take(7).collect();
    vec![Window { days, start, duration: Duration::from_secs(u64::from(length) * MINUTE), zone }]
}

/// Every node is in exactly one of actions, holds, done and in flight, and nobody else is.
pub(super) fn accounts_for_every_node(world: &World, made: &Plan) {
    for name in world.nodes.keys() {
        let places = [
            made.actions.contains_key(name),
            made.holds.contains_key(name),
            made.done.contains(name),
            made.in_flight.contains(name),
        ];
        assert_eq!(places.iter().filter(|there| **there).count(), 1, "{name} is in {places:?}");
    }
    let places = made.actions.len() + made.holds.len() + made.done.len() + made.in_flight.len();
    assert_eq!(places, world.nodes.len());
}

/// The nodes, what is stored about them, and the clock.
#[derive(Debug, Clone)]
pub(super) struct Fleet {
    pub(super) world: World,
}

impl Fleet {
    /// One set with build 1 at level 1; a stage `canary` with a soak of 30 minutes, then `rest`.
    pub(super) fn new() -> Self {
        Self {
            world: World {
                now: after(0),
                imprecision: Duration::ZERO,
                policy: Policy {
                    stages: vec![stage("canary", 1, 30)],
                    rest: stage("rest", 1, 0),
                    supersede: Supersede::Restart,
                    ..Policy::default()
                },
                offer: Offer::Sets(vec![set(1, &[(1, 1)])]),
                memory: Memory::default(),
                nodes: BTreeMap::new(),
                gates: Vec::new(),
                brakes: Brakes::default(),
                vanished: BTreeSet::new(),
            },
        }
    }

    /// With nodes of build 1: `c1`, `c2`, … in the first stage and `r1`, `r2`, … in the second.
    pub(super) fn with(canaries: u32, rest: u32) -> Self {
        let mut fleet = Self::new();
        for n in 1..=canaries {
            fleet.add(&format!("c{n}"), 0, 1);
        }
        for n in 1..=rest {
            fleet.add(&format!("r{n}"), 1, 1);
        }
        fleet
    }

    pub(super) fn add(&mut self, name: &str, stage: usize, kernel: u32) {
        let report = Report {
            observed: Revision(1),
            build_id: build(kernel),
            level: Level(0),
            set: None,
            state: NodeState::Idle,
            excuse: None,
            since: self.world.now,
            why: None,
        };
        let spec = Instructed { revision: Revision(1), instruction: Instruction::Hold, by_other: false };
        let node = Node {
            stage,
            ready: Readiness::Ready,
            cordoned: false,
            held: None,
            domains: BTreeMap::new(),
            claimed_by_other: false,
            spec: Some(spec),
            report: Some(report),
        };
        self.world.nodes.insert(name.to_owned(), node);
    }

    pub(super) fn node(&mut self, name: &str) -> &mut Node {
        self.world.nodes.get_mut(name).unwrap()
    }

    /// The kubelet does not report any more, from now on.
    pub(super) fn unready(&mut self, name: &str) {
        let since = self.world.now;
        self.node(name).ready = Readiness::NotReady { since };
    }

    pub(super) fn report(&mut self, name: &str) -> &mut Report {
        self.node(name).report.as_mut().unwrap()
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.world.now += Duration::from_secs(seconds);
    }

    pub(super) fn plan(&self) -> Plan {
        let made = plan(&self.world);
        assert_eq!(made, plan(&self.world), "the same world gives the same plan");
        made
    }

    /// Plans, stores the memory, writes the instructions. Returns the names of who was instructed.
    pub(super) fn decide(&mut self) -> Vec<String> {
        let plan = self.plan();
        self.world.memory = plan.memory;
        let names = plan.actions.keys().cloned().collect();
        for (name, instruction) in plan.actions {
            self.instruct(&name, instruction);
        }
        names
    }

    pub(super) fn instruct(&mut self, name: &str, instruction: Instruction) {
        let spec = &mut self.node(name).spec;
        let revision = spec.as_ref().map_or(Revision(0), |spec| spec.revision).next();
        *spec = Some(Instructed { revision, instruction, by_other: false });
    }

    /// The node does what it was told.
    pub(super) fn obey(&mut self, name: &str) {
        let now = self.world.now;
        let spec = self.node(name).spec.clone().unwrap();
        let report = self.report(name);
        report.observed = spec.revision;
        report.excuse = None;
        report.since = now;
        match spec.instruction {
            Instruction::Apply(apply) => {
                assert_eq!(apply.build_id, report.build_id);
                report.level = apply.level;
                report.set = Some(apply.set);
                report.state = NodeState::Applied;
            }
            Instruction::RollBack { .. } => {
                report.level = Level(0);
                report.set = None;
                report.state = NodeState::RolledBack;
            }
            Instruction::Hold => report.state = NodeState::Idle,
        }
    }

    /// The node tries and says what came of it.
    pub(super) fn end(&mut self, name: &str, state: NodeState) {
        let revision = self.node(name).spec.as_ref().unwrap().revision;
        let report = self.report(name);
        report.observed = revision;
        report.state = state;
        report.excuse = (state == NodeState::Blocked).then_some(Excuse::Blocked);
    }

    /// The node says that nothing was tried.
    pub(super) fn miss(&mut self, name: &str) {
        self.end(name, NodeState::Failed);
        self.report(name).excuse = Some(Excuse::NotTried);
    }

    /// The node boots before its level has settled.
    pub(super) fn reboot(&mut self, name: &str) {
        self.end(name, NodeState::Failed);
        let report = self.report(name);
        (report.level, report.set, report.excuse) = (Level(0), None, Some(Excuse::Lost));
    }

    /// Everybody whom a plan instructs obeys at once, until nobody is instructed any more.
    /// Returns the names in the order of their instructions.
    pub(super) fn run(&mut self) -> Vec<String> {
        let mut order = Vec::new();
        loop {
            let names = self.decide();
            if names.is_empty() {
                return order;
            }
            for name in &names {
                self.obey(name);
            }
            order.extend(names);
            assert!(order.len() < 10_000, "no end of instructions");
        }
    }

    pub(super) fn hold(&self, name: &str) -> Option<Hold> {
        self.plan().holds.get(name).map(|held| held.hold)
    }

    pub(super) fn held(&self, name: &str) -> Option<Held> {
        self.plan().holds.get(name).copied()
    }

    pub(super) fn rollout(&self) -> &RolloutMemory {
        self.world.memory.rollout.as_ref().unwrap()
    }

    pub(super) fn level(&self, name: &str) -> u32 {
        self.world.nodes[name].report.as_ref().unwrap().level.0
    }

    pub(super) fn offer(&mut self, sets: Vec<Set>) {
        self.world.offer = Offer::Sets(sets);
    }
}
