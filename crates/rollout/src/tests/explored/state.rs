//! The state of the little world, small enough to keep a million apart; and as the planner sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use invivo_terms::{Excuse, Level, Mechanism, NodeState, Revision};
use jiff::Timestamp;

use super::super::fleet::{after, build, digest, set, set_name, stage, windows};
use super::Scenario;
use crate::{
    Apply, Brakes, Budget, Evidence, Gate, GateVerdict, Instructed, Instruction, Memory, Node, Offer, Policy,
    Readiness, Report, RolloutMemory, World,
};

/// How often what may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Left {
    pub(super) ticks: u8,
    pub(super) failures: u8,
    pub(super) misses: u8,
    pub(super) boots: u8,
    pub(super) losses: u8,
    pub(super) replaced: u8,
    pub(super) crashes: u8,
    pub(super) gates: u8,
    pub(super) stops: u8,
    pub(super) sets: u8,
    pub(super) withdrawals: u8,
    pub(super) feeds: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// Seconds.
    pub(super) now: u32,
    pub(super) gate: Verdict,
    pub(super) stop: bool,
    /// The feed is known and to be trusted.
    pub(super) feed: bool,
    /// The sets from 1 up to this number are published.
    pub(super) sets: u8,
    /// This one was withdrawn.
    pub(super) withdrawn: u8,
    pub(super) memory: Mem,
    pub(super) nodes: Vec<Member>,
    pub(super) operators: [Operator; 2],
    pub(super) left: Left,
    /// Attempts of the present rollout that really failed.
    pub(super) failed: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Verdict {
    Passed,
    Failed,
    Unknown,
}

/// One node, its NodePatch and what its kernel runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Member {
    pub(super) unready: Option<u32>,
    pub(super) revision: u8,
    pub(super) told: Told,
    /// It was written when its deadline had passed: no agent begins it.
    pub(super) void: bool,
    pub(super) observed: u8,
    pub(super) level: u8,
    pub(super) state: NodeState,
    pub(super) excuse: Option<Excuse>,
    pub(super) since: u32,
    /// A node of this name vanished in flight or unsettled; the deadline of its instruction.
    pub(super) vanished: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Told {
    Hold,
    Apply { level: u8, from: u8, attempt: u32, deadline: u32, settle: u32 },
    RollBack { to: u8, attempt: u32, deadline: u32 },
}

/// What one operator believes, and what it has still to write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Operator {
    pub(super) nodes: Vec<Member>,
    pub(super) memory: Mem,
    /// Nobody has written the memory since it was read.
    pub(super) current: bool,
    pub(super) at: u32,
    pub(super) writes: Vec<(u8, u8, Told)>,
}

/// The policy's status, as far as decisions depend on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Mem {
    pub(super) number: u32,
    pub(super) target: u8,
    pub(super) started: u32,
    pub(super) finished: u32,
    pub(super) failed: u32,
    pub(super) stage: u8,
    pub(super) stage_since: u32,
    pub(super) soak_until: Option<u32>,
    pub(super) complete: bool,
    pub(super) returning: bool,
    pub(super) evidence: Vec<(String, bool)>,
    pub(super) before: Option<u32>,
    pub(super) deadline: Option<u32>,
    /// For each build; 0 is none.
    pub(super) proven: [u8; 2],
}

impl State {
    pub(super) fn first(scenario: &Scenario) -> Self {
        let member = Member {
            unready: None,
            revision: 1,
            told: Told::Hold,
            observed: 1,
            level: 0,
            state: NodeState::Idle,
            excuse: None,
            since: 0,
            vanished: None,
            void: false,
        };
        let nodes = vec![member; scenario.stages.len()];
        let memory = Mem::default();
        let operator =
            Operator { nodes: nodes.clone(), memory: memory.clone(), current: true, at: 0, writes: vec![] };
        Self {
            now: 0,
            gate: Verdict::Passed,
            stop: false,
            feed: true,
            sets: 1,
            withdrawn: 0,
            memory,
            nodes,
            operators: [operator.clone(), operator],
            left: scenario.left,
            failed: 0,
        }
    }

    /// What tells the state from every other one. Which operator is called the first makes no
    /// difference.
    pub(super) fn key(&self) -> u64 {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let mut operators = self.operators.each_ref().map(|operator| hasher.hash_one(operator));
        operators.sort_unstable();
        let Self { now, gate, stop, feed, sets, withdrawn, memory, nodes, operators: _, left, failed } = self;
        let around = (now, gate, stop, feed, sets, withdrawn, left, failed);
        hasher.hash_one((around, memory, nodes, operators))
    }

    /// What an operator sees: its own view of nodes and memory, and the present of the rest.
    pub(super) fn world(&self, operator: &Operator, scenario: &Scenario) -> World {
        let memory = operator.memory.whole();
        let mut canary = stage("canary", scenario.parallel, 0);
        canary.soak = Duration::from_secs(scenario.soak);
        let policy = Policy {
            stages: vec![canary],
            rest: stage("rest", scenario.parallel, 0),
            node_deadline: Duration::from_secs(u64::from(DEADLINE)),
            failure_budget: Budget::Nodes(scenario.budget),
            on_failure: scenario.on_failure,
            supersede: scenario.supersede,
            windows: windows(scenario.window),
            ..Policy::default()
        };
        let sets = (1..=self.sets).map(|number| {
            let level = u32::from(number);
            let mut set = set(level, &[(1, level), (2, level)]);
            if number == self.withdrawn {
                crate::tests::fleet::withdraw(&mut set);
            }
            set
        });
        let message = String::new();
        let verdict = match self.gate {
            Verdict::Passed => GateVerdict::Passed,
            Verdict::Failed => GateVerdict::Failed { message },
            Verdict::Unknown => GateVerdict::Unknown { message },
        };
        let rollout = memory.rollout.as_ref();
        let before = rollout.and_then(|rollout| rollout.before).map(seconds);
        let concerned = |deadline: u32| rollout.is_some_and(|r| !r.complete) && Some(deadline) > before;
        let members = || operator.nodes.iter().enumerate();
        let vanished: BTreeSet<String> =
            members().filter(|(_, m)| m.vanished.is_some_and(concerned)).map(|(n, _)| name(n)).collect();
        let nodes: BTreeMap<String, Node> = members()
            .map(|(n, member)| (name(n), member.node(scenario.stages[n], scenario.builds[n])))
            .collect();
        World {
            now: after(u64::from(self.now)),
            imprecision: Duration::ZERO,
            policy,
            offer: if self.feed { Offer::Sets(sets.collect()) } else { Offer::Unknown },
            memory,
            nodes,
            gates: vec![Gate { name: "gate".to_owned(), foreign: true, about: None, verdict }],
            brakes: Brakes { emergency_stop: self.stop, fleet: None },
            vanished,
        }
    }
}

/// A node's time for one attempt, in seconds.
pub(super) const DEADLINE: u32 = 600;

pub(super) fn name(index: usize) -> String {
    format!("n{index}")
}

pub(super) fn seconds(at: Timestamp) -> u32 {
    u32::try_from(at.duration_since(after(0)).as_secs()).unwrap()
}

fn at(second: u32) -> Timestamp {
    after(u64::from(second))
}

impl Member {
    /// It has not answered what it was told.
    pub(super) fn is_open(&self) -> bool {
        self.told != Told::Hold && self.observed < self.revision
    }

    pub(super) const fn deadline(&self) -> Option<u32> {
        self.told.deadline()
    }

    fn node(&self, stage: u8, kernel: u8) -> Node {
        let kernel = u32::from(kernel);
        let level =
            |number: u8| (Level(u32::from(number)), (number > 0).then(|| set_name(u32::from(number))));
        let instruction = match self.told {
            Told::Hold => Instruction::Hold,
            Told::Apply { level: to, from, attempt, deadline, settle } => Instruction::Apply(Apply {
                build_id: build(kernel),
                level: Level(u32::from(to)),
                set: set_name(u32::from(to)),
                digest: digest(u32::from(to)),
                manifest: digest(kernel * 1000 + u32::from(to)),
                mechanism: Mechanism::Livepatch,
                deadline: at(deadline),
                settle_after: Duration::from_secs(u64::from(settle)),
                allow_partial: false,
                from: level(from),
                attempt,
            }),
            Told::RollBack { to, attempt, deadline } => {
                Instruction::RollBack { to: level(to), deadline: at(deadline), attempt }
            }
        };
        let revision = Revision(i64::from(self.revision));
        Node {
            stage: usize::from(stage),
            ready: self.unready.map_or(Readiness::Ready, |since| Readiness::NotReady { since: at(since) }),
            cordoned: false,
            held: None,
            domains: BTreeMap::new(),
            claimed_by_other: false,
            spec: Some(Instructed { revision, instruction, by_other: false }),
            report: Some(Report {
                observed: Revision(i64::from(self.observed)),
                build_id: build(kernel),
                level: level(self.level).0,
                set: level(self.level).1,
                state: self.state,
                excuse: self.excuse,
                since: at(self.since),
                why: None,
            }),
        }
    }
}

impl Told {
    pub(super) const fn deadline(&self) -> Option<u32> {
        match self {
            Self::Hold => None,
            Self::Apply { deadline, .. } | Self::RollBack { deadline, .. } => Some(*deadline),
        }
    }

    pub(super) fn of(instruction: &Instruction) -> Self {
        let small = |level: Level| u8::try_from(level.0).unwrap();
        match instruction {
            Instruction::Hold => Self::Hold,
            Instruction::Apply(apply) => Self::Apply {
                level: small(apply.level),
                from: small(apply.from.0),
                attempt: apply.attempt,
                deadline: seconds(apply.deadline),
                settle: u32::try_from(apply.settle_after.as_secs()).unwrap(),
            },
            Instruction::RollBack { to, deadline, attempt } => {
                Self::RollBack { to: small(to.0), attempt: *attempt, deadline: seconds(*deadline) }
            }
        }
    }
}

impl Mem {
    pub(super) fn of(memory: &Memory) -> Self {
        let level = |number| memory.proven.get(&build(number)).map_or(0, |(level, _)| level.0);
        let proven = [1, 2].map(|number| u8::try_from(level(number)).unwrap());
        let Some(rollout) = &memory.rollout else { return Self { proven, ..Self::default() } };
        let target = rollout.target.as_ref().map_or(0, |(set, _)| {
            (1..=3).find(|number| set_name(*number) == *set).and_then(|n| u8::try_from(n).ok()).unwrap()
        });
        let mut evidence: Vec<(String, bool)> =
            rollout.evidence.iter().map(|known| (known.who.clone(), known.gate)).collect();
        evidence.sort();
        Self {
            number: u32::try_from(rollout.number).unwrap(),
            target,
            started: rollout.started,
            finished: rollout.finished,
            failed: rollout.failed,
            stage: u8::try_from(rollout.stage).unwrap(),
            stage_since: seconds(rollout.stage_since),
            soak_until: rollout.soak_until.map(seconds),
            complete: rollout.complete,
            returning: rollout.returning,
            evidence,
            before: rollout.before.map(seconds),
            deadline: rollout.deadline.map(seconds),
            proven,
        }
    }

    fn whole(&self) -> Memory {
        let set_of = |number: u8| (set_name(u32::from(number)), digest(u32::from(number)));
        let rollout = (self.number > 0).then(|| RolloutMemory {
            number: u64::from(self.number),
            since: after(0),
            from: None,
            target: (self.target > 0).then(|| set_of(self.target)),
            mechanism: Mechanism::Livepatch,
            started: self.started,
            finished: self.finished,
            failed: self.failed,
            stage: usize::from(self.stage),
            stage_since: at(self.stage_since),
            soak_until: self.soak_until.map(at),
            cuts: Vec::new(),
            complete: self.complete,
            returning: self.returning,
            evidence: self
                .evidence
                .iter()
                .map(|(who, gate)| Evidence {
                    who: who.clone(),
                    gate: *gate,
                    at: after(0),
                    what: String::new(),
                })
                .collect(),
            before: self.before.map(at),
            deadline: self.deadline.map(at),
        });
        let proven = (1..).zip(self.proven).filter(|(_, level)| *level > 0);
        let proven = proven
            .map(|(number, level)| (build(number), (Level(u32::from(level)), set_name(u32::from(level)))));
        Memory { rollout, proven: proven.collect(), history: Vec::new() }
    }
}
