//! A fleet, two operators that believe old views, kills between two writes, and every brake.
//! What must always hold is checked against what really happened, not against what was believed.

use std::collections::{BTreeMap, BTreeSet};

use super::fleet::{Fleet, build, set, stage};
use crate::{Instructed, Instruction, Memory, Node, Offer, Plan, Readiness, Set, Wish, World, plan};
use invivo_terms::{Excuse, Hold, Level, NodeState, Revision};
use jiff::Timestamp;
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
enum Event {
    Pass(u64),
    Act(usize),
    Fail(usize, bool),
    Miss(usize, bool),
    Settle(usize),
    Boot(usize),
    Ready(usize, bool),
    Join(usize, u32),
    Leave(usize),
    Claim(usize, bool),
    Refresh(bool),
    Decide { leader: bool, killed_after: Option<usize> },
    Aim(u8),
    Feed(u8),
    Pause(bool),
}

fn event() -> impl Strategy<Value = Event> {
    let node = 0..12_usize;
    let kill = prop_oneof![8 => Just(None), 1 => (0..3_usize).prop_map(Some)];
    prop_oneof![
        6 => prop_oneof![1..120_u64, 300..900_u64, 1500..2400_u64].prop_map(Event::Pass),
        14 => node.clone().prop_map(Event::Act),
        1 => (node.clone(), any::<bool>()).prop_map(|(n, refused)| Event::Fail(n, refused)),
        2 => (node.clone(), any::<bool>()).prop_map(|(n, blocked)| Event::Miss(n, blocked)),
        3 => node.clone().prop_map(Event::Settle),
        1 => node.clone().prop_map(Event::Boot),
        2 => (node.clone(), any::<bool>()).prop_map(|(n, ready)| Event::Ready(n, ready)),
        1 => (0..3_usize, 1..4_u32).prop_map(|(stage, kernel)| Event::Join(stage, kernel)),
        1 => node.clone().prop_map(Event::Leave),
        1 => (node, any::<bool>()).prop_map(|(n, claimed)| Event::Claim(n, claimed)),
        10 => any::<bool>().prop_map(Event::Refresh),
        16 => (any::<bool>(), kill).prop_map(|(leader, killed_after)| Event::Decide { leader, killed_after }),
        2 => (0..5_u8).prop_map(Event::Aim),
        2 => (0..4_u8).prop_map(Event::Feed),
        1 => any::<bool>().prop_map(Event::Pause),
    ]
}

/// What one operator believes.
#[derive(Debug, Clone, Default)]
struct View {
    nodes: BTreeMap<String, Node>,
    memory: Memory,
    version: u64,
    at: Option<Timestamp>,
}

/// What this rollout really did to a node.
#[derive(Debug, Clone, Copy)]
struct Moved {
    stage: usize,
    while_watched: bool,
    ended: Option<Timestamp>,
}

struct Cluster {
    truth: Fleet,
    version: u64,
    views: [View; 2],
    parallel: usize,
    moved: BTreeMap<String, Moved>,
    joined: usize,
}

fn sets(choice: u8) -> Offer {
    let mut sets: Vec<Set> =
        vec![set(1, &[(1, 1), (2, 1)]), set(2, &[(1, 2)]), set(3, &[(2, 2)]), set(4, &[(1, 3), (2, 3)])];
    match choice {
        0 => return Offer::Unknown,
        1 => sets.truncate(2),
        2 => super::fleet::withdraw(&mut sets[1]),
        _ => super::fleet::block(&mut sets[3], invivo_terms::Block::TestOnly),
    }
    Offer::Sets(sets)
}

fn wish(choice: u8) -> Wish {
    match choice {
        0 | 1 => Wish::Latest,
        2 => Wish::None,
        3 => Wish::Named(super::fleet::set_name(1)),
        _ => Wish::Named(super::fleet::set_name(3)),
    }
}

impl Cluster {
    fn new(members: &[(usize, u32)], parallel: u32, soaks: (u64, u64)) -> Self {
        let mut truth = Fleet::new();
        let (canary, early) = (stage("canary", parallel, soaks.0), stage("early", parallel, soaks.1));
        truth.world.policy.stages = vec![canary, early];
        truth.world.policy.stages.iter_mut().for_each(|stage| stage.optional = true);
        truth.world.policy.rest = stage("rest", parallel, 0);
        truth.world.offer = sets(1);
        let parallel = usize::try_from(parallel).unwrap();
        let views = [View::default(), View::default()];
        let mut cluster = Self { truth, version: 1, views, parallel, moved: BTreeMap::new(), joined: 0 };
        for (stage, kernel) in members {
            cluster.join(*stage, *kernel);
        }
        cluster.refresh(0);
        cluster.refresh(1);
        cluster
    }

    fn join(&mut self, stage: usize, kernel: u32) {
        self.joined += 1;
        self.truth.add(&format!("n{:02}", self.joined), stage, kernel);
    }

    fn name(&self, index: usize) -> Option<String> {
        let names: Vec<&String> = self.truth.world.nodes.keys().collect();
        (!names.is_empty()).then(|| names[index % names.len()].clone())
    }

    fn refresh(&mut self, leader: usize) {
        let Self { truth, version, views, .. } = self;
        views[leader] = View {
            nodes: truth.world.nodes.clone(),
            memory: truth.world.memory.clone(),
            version: *version,
            at: Some(truth.world.now),
        };
    }

    fn handle(&mut self, event: Event) {
        let index = |leader: bool| usize::from(leader);
        match event {
            Event::Pass(seconds) => self.truth.pass(seconds),
            Event::Act(node) => self.with(node, Self::act),
            Event::Fail(node, refused) => self.with(node, |cluster, name| {
                if unanswered(&cluster.truth.world.nodes[name]) {
                    cluster.truth.end(name, if refused { NodeState::Refused } else { NodeState::Failed });
                    cluster.ended(name);
                }
            }),
            Event::Miss(node, blocked) => self.with(node, |cluster, name| {
                if unanswered(&cluster.truth.world.nodes[name]) {
                    if blocked {
                        cluster.truth.end(name, NodeState::Blocked);
                    } else {
                        cluster.truth.miss(name);
                    }
                    cluster.ended(name);
                }
            }),
            Event::Settle(node) => self.with(node, |cluster, name| {
                let report = cluster.truth.report(name);
                if report.state == NodeState::Applied {
                    report.state = NodeState::Settled;
                }
            }),
            Event::Boot(node) => self.with(node, |cluster, name| {
                let unsettled = cluster.truth.report(name).state == NodeState::Applied;
                if unsettled && !unanswered(&cluster.truth.world.nodes[name]) {
                    cluster.truth.reboot(name);
                } else {
                    let report = cluster.truth.report(name);
                    (report.level, report.set, report.state) = (Level(0), None, NodeState::Idle);
                    report.excuse = None;
                }
            }),
            Event::Ready(node, ready) => {
                self.with(node, |cluster, name| cluster.truth.set_ready(name, ready));
            }
            Event::Join(stage, kernel) => self.join(stage, kernel),
            Event::Leave(node) => self.with(node, |cluster, name| {
                cluster.truth.world.nodes.remove(name);
                cluster.moved.remove(name);
            }),
            Event::Claim(node, claimed) => self.with(node, |cluster, name| {
                if !unanswered(&cluster.truth.world.nodes[name]) {
                    cluster.truth.node(name).claimed_by_other = claimed;
                    cluster.moved.remove(name);
                }
            }),
            Event::Refresh(leader) => self.refresh(index(leader)),
            Event::Decide { leader, killed_after } => self.decide(index(leader), killed_after),
            Event::Aim(choice) => {
                self.truth.world.policy.target = wish(choice);
                self.version += 1;
            }
            Event::Feed(choice) => self.truth.world.offer = sets(choice),
            Event::Pause(paused) => {
                self.truth.world.policy.paused = paused;
                self.version += 1;
            }
        }
    }

    fn with(&mut self, node: usize, change: impl FnOnce(&mut Self, &str)) {
        if let Some(name) = self.name(node) {
            change(self, &name);
        }
    }

    /// A node obeys; after the deadline it says that it has seen the instruction and does nothing.
    fn act(&mut self, name: &str) {
        let now = self.truth.world.now;
        let node = &self.truth.world.nodes[name];
        if !node.ready.is_ready() || !unanswered(node) {
            return;
        }
        if deadline(node) > Some(now) {
            self.truth.obey(name);
        } else {
            let state = self.truth.report(name).state;
            let state = if state.is_failure() { NodeState::Idle } else { state };
            self.truth.end(name, state);
        }
        self.ended(name);
    }

    fn ended(&mut self, name: &str) {
        if let Some(moved) = self.moved.get_mut(name) {
            moved.ended = Some(self.truth.world.now);
        }
    }

    fn decide(&mut self, leader: usize, killed_after: Option<usize>) {
        // Watches end by themselves within minutes; a view as old as the node deadline is not believed.
        let oldest = self.truth.world.now - self.truth.world.policy.node_deadline;
        if self.views[leader].at.is_none_or(|at| at <= oldest) {
            self.refresh(leader);
        }
        let view = self.views[leader].clone();
        let world = World { memory: view.memory, nodes: view.nodes, ..self.truth.world.clone() };
        let made = plan(&world);
        assert_eq!(made, plan(&world), "the same world gives the same plan");
        check(&world, &made, self.parallel);
        if view.version != self.version {
            (self.views[leader].memory, self.views[leader].version) =
                (self.truth.world.memory.clone(), self.version);
            return;
        }
        let old = std::mem::replace(&mut self.truth.world.memory, made.memory.clone());
        self.version += 1;
        (self.views[leader].memory, self.views[leader].version) = (made.memory, self.version);
        self.check_memory(&old);
        let mut refused = 0;
        for (name, instruction) in made.actions.into_iter().take(killed_after.unwrap_or(usize::MAX)) {
            let written = self.write(&world, &name, instruction);
            refused += u32::from(!written && made.starts.contains(&name));
        }
        if let Some(rollout) = self.truth.world.memory.rollout.as_mut().filter(|_| killed_after.is_none()) {
            // Nobody else has written since.
            rollout.started -= refused;
            self.version += 1;
            (self.views[leader].memory, self.views[leader].version) =
                (self.truth.world.memory.clone(), self.version);
        }
        self.check_flight();
    }

    /// Writes unless the node's instruction is another one than the operator believed.
    fn write(&mut self, world: &World, name: &str, instruction: Instruction) -> bool {
        let believed = world.nodes[name].spec.as_ref().map(|spec| spec.revision);
        let Some(node) = self.truth.world.nodes.get(name) else { return false };
        if node.claimed_by_other || node.spec.as_ref().map(|spec| spec.revision) != believed {
            return false;
        }
        let rollout = self.truth.rollout();
        let proven = |apply: &crate::Apply| {
            let known = self.truth.world.memory.proven.get(&apply.build_id);
            known.is_some_and(|(level, _)| *level == apply.level)
        };
        let is_proven = matches!(&instruction, Instruction::Apply(apply) if proven(apply));
        assert!(is_proven || node.stage <= rollout.stage, "{name} is of a stage that has not begun");
        let while_watched = rollout.soak_until.is_some() || node.stage < rollout.stage || rollout.complete;
        self.moved.insert(name.to_owned(), Moved { stage: node.stage, while_watched, ended: None });
        self.truth.instruct(name, instruction);
        true
    }

    fn check_flight(&self) {
        let now = self.truth.world.now;
        let nodes = self.truth.world.nodes.values();
        let moving = nodes.filter(|node| unanswered(node) && deadline(node) > Some(now)).count();
        assert!(moving <= self.parallel, "{moving} in flight, {} allowed", self.parallel);
    }

    fn check_memory(&mut self, old: &Memory) {
        let (Some(old), Some(new)) = (&old.rollout, &self.truth.world.memory.rollout) else {
            self.moved.clear();
            return;
        };
        assert!(new.number >= old.number);
        if new.number > old.number {
            self.moved.clear();
            return;
        }
        assert!(new.started >= old.started && new.finished >= old.finished && new.failed >= old.failed);
        assert!(new.finished <= new.started && new.stage >= old.stage);
        let stages = &self.truth.world.policy.stages;
        for (index, stage) in stages.iter().enumerate().take(new.stage).skip(old.stage) {
            let watched = self.moved.values().filter(|moved| moved.stage == index && !moved.while_watched);
            for moved in watched {
                let ended = moved.ended.expect("a node of the stage has not ended");
                assert!(
                    ended + stage.soak <= self.truth.world.now,
                    "stage {index} was not watched to its end"
                );
            }
        }
    }

    /// Nothing happens any more; everything works. One operator sees it all.
    fn settle_down(&mut self) {
        self.truth.world.policy.paused = false;
        if self.truth.world.offer == Offer::Unknown {
            self.truth.world.offer = sets(1);
        }
        for node in self.truth.world.nodes.values_mut() {
            (node.ready, node.claimed_by_other) = (Readiness::Ready, false);
        }
        for _ in 0..400 {
            self.refresh(0);
            self.decide(0, None);
            let names: Vec<String> = self.truth.world.nodes.keys().cloned().collect();
            for name in &names {
                self.act(name);
            }
            self.refresh(0);
            let made = self.truth.plan();
            if self.truth.world.memory.rollout.as_ref().is_some_and(|rollout| rollout.failed > 0) {
                return;
            }
            if made.actions.is_empty() && made.memory == self.truth.world.memory {
                let Some(wake) = made.wake else { break };
                self.truth.world.now = wake;
            }
        }
        let made = self.truth.plan();
        let excused = [Hold::AheadOfTarget, Hold::UnsupportedKernel, Hold::TargetMissing, Hold::AttemptEnded];
        let arrived = |(_, held): (_, &crate::Held)| excused.contains(&held.hold);
        assert!(made.actions.is_empty() && made.in_flight.is_empty() && made.wake.is_none(), "{made:#?}");
        assert!(made.holds.iter().all(arrived), "{:#?}", self.truth.world);
    }
}

fn unanswered(node: &Node) -> bool {
    let told = node.spec.as_ref().filter(|spec| spec.instruction != Instruction::Hold);
    told.is_some_and(|spec| node.report.as_ref().is_none_or(|report| report.observed < spec.revision))
}

fn deadline(node: &Node) -> Option<Timestamp> {
    match &node.spec.as_ref()?.instruction {
        Instruction::Apply(apply) => Some(apply.deadline),
        Instruction::RollBack { deadline, .. } => Some(*deadline),
        Instruction::Hold => None,
    }
}

/// What one plan must hold to, whatever was believed.
fn check(world: &World, made: &Plan, parallel: usize) {
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
    let failures = [Hold::AttemptEnded, Hold::Convicted, Hold::Suspected, Hold::NodeNotReady];
    assert!(made.failed.iter().all(|name| failures.contains(&made.holds[name].hold)));
    assert!(made.starts.iter().all(|name| made.actions.contains_key(name)));
    assert!(made.wake.is_none_or(|wake| wake > world.now));
    assert!(made.actions.is_empty() || made.actions.len() + made.in_flight.len() <= parallel);
    assert!(made.actions.is_empty() || !world.policy.paused);
    for (name, instruction) in &made.actions {
        let node = &world.nodes[name];
        let report = node.report.as_ref().expect("nobody is instructed blindly");
        assert!(node.ready.is_ready() && !node.claimed_by_other);
        match (instruction, &world.policy.target) {
            (Instruction::RollBack { .. }, Wish::None | Wish::Named(_)) => assert!(report.level > Level(0)),
            (Instruction::Apply(apply), Wish::Latest | Wish::Named(_)) => {
                assert_eq!(apply.build_id, report.build_id);
                assert!(apply.level >= report.level, "{name} would be lowered");
                let Offer::Sets(sets) = &world.offer else { panic!("no load without a feed") };
                let set =
                    sets.iter().find(|set| set.name == apply.set && set.digest == apply.digest).unwrap();
                let brings = |set: &&Set| {
                    let kernel = set.kernels.get(&apply.build_id);
                    kernel.is_some_and(|k| (k.level, &k.manifest) == (apply.level, &apply.manifest))
                };
                let origin = sets.iter().find(brings).unwrap();
                let named = Wish::Named(set.name.clone()) == world.policy.target;
                assert!(set.is_active() && origin.is_active() && (named || set.name == origin.name));
                assert!(origin.is_eligible() || (named && set.name == origin.name));
            }
            (instruction, wish) => panic!("{wish:?} led to {instruction:?}"),
        }
    }
}

fn instruction(choice: u8, kernel: u32, level: u32, attempt: u32, at: Timestamp) -> Instruction {
    let deadline = at;
    match choice {
        0 => Instruction::Hold,
        1 => Instruction::RollBack { to: (Level(0), None), deadline, attempt },
        _ => Instruction::Apply(crate::Apply {
            build_id: build(kernel),
            level: Level(level),
            set: super::fleet::set_name(level),
            digest: super::fleet::digest(level),
            manifest: super::fleet::digest(kernel * 1000 + level),
            mechanism: invivo_terms::Mechanism::Livepatch,
            deadline,
            settle_after: std::time::Duration::from_mins(30),
            allow_partial: false,
            from: (Level(0), None),
            attempt,
        }),
    }
}

const STATES: [NodeState; 8] = [
    NodeState::Idle,
    NodeState::Working,
    NodeState::Applied,
    NodeState::Settled,
    NodeState::RolledBack,
    NodeState::Blocked,
    NodeState::Refused,
    NodeState::Failed,
];

prop_compose! {
    fn any_node()(
        stage in 0..4_usize, ready in prop::bool::weighted(0.8), claimed in prop::bool::weighted(0.1),
        told in 0..4_u8, kernels in (1..4_u32, 1..4_u32), levels in (1..5_u32, 0..4_u32),
        at in (0..2000_u64, 0..2000_u64), observed in 1..4_i64, state in 0..8_usize,
        tries in (0..4_u32, 0..4_usize),
        there in (prop::bool::weighted(0.9), prop::bool::weighted(0.9)),
    ) -> Node {
        let mut truth = Fleet::new();
        truth.add("n", stage, kernels.0);
        let mut node = truth.node("n").clone();
        node.claimed_by_other = claimed;
        if !ready {
            node.ready = Readiness::NotReady { since: super::fleet::after(at.0.min(at.1)) };
        }
        let instruction = instruction(told, kernels.1, levels.0, tries.0, super::fleet::after(at.0));
        node.spec = there.0.then_some(Instructed { revision: Revision(2), instruction, by_other: false });
        let report = node.report.as_mut().unwrap();
        (report.observed, report.level, report.state) = (Revision(observed), Level(levels.1), STATES[state]);
        report.since = super::fleet::after(at.1);
        report.excuse = [None, Some(Excuse::NotTried), Some(Excuse::Blocked), Some(Excuse::Lost)][tries.1]
            .filter(|_| report.state.is_failure());
        node.report = node.report.filter(|_| there.1);
        node
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_rule_is_broken_and_peace_brings_everybody_home(
        members in prop::collection::vec((0..3_usize, 1..4_u32), 0..9),
        parallel in 1..4_u32,
        soaks in (prop_oneof![Just(0), Just(30_u64)], prop_oneof![Just(0), Just(5_u64), Just(60)]),
        events in prop::collection::vec(event(), 1..70),
    ) {
        let mut cluster = Cluster::new(&members, parallel, soaks);
        for event in events {
            cluster.handle(event);
        }
        cluster.settle_down();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_world_gives_a_plan_that_keeps_the_rules_and_a_second_leader_adds_nothing(
        nodes in prop::collection::vec(any_node(), 0..14),
        parallel in 1..6_u32, offer in 0..4_u8, aim in 0..5_u8, paused in prop::bool::weighted(0.1),
        soak in prop_oneof![Just(0_u64), Just(10)],
        now in 0..2000_u64,
        remembered in prop::option::of((0..5_u8, 0..3_u32, 0..4_usize, any::<bool>(), prop::option::of(0..2000_u64))),
    ) {
        let mut cluster = Cluster::new(&[], parallel, (soak, soak));
        let mut world = cluster.truth.world.clone();
        (world.now, world.offer, world.policy.target, world.policy.paused) =
            (super::fleet::after(now), sets(offer), wish(aim), paused);
        world.nodes = nodes.into_iter().enumerate().map(|(n, node)| (format!("n{n:02}"), node)).collect();
        if let Some((aim, started, stage, watched, deadline)) = remembered {
            let before = World { policy: crate::Policy { target: wish(aim), ..world.policy.clone() }, ..world.clone() };
            world.memory = plan(&World { nodes: BTreeMap::new(), ..before }).memory;
            if let Some(rollout) = &mut world.memory.rollout {
                (rollout.started, rollout.stage, rollout.deadline) = (started, stage, deadline.map(super::fleet::after));
                rollout.soak_until = watched.then(|| super::fleet::after(now / 2));
            }
        }
        let first = plan(&world);
        prop_assert_eq!(&first, &plan(&world));
        check(&world, &first, cluster.parallel);
        world.memory = first.memory.clone();
        let second = plan(&world);
        check(&world, &second, cluster.parallel);
        let given: BTreeSet<&String> = first.actions.keys().chain(second.actions.keys()).collect();
        prop_assert!(given.is_empty() || given.len() + first.in_flight.len() <= cluster.parallel);
        cluster.truth.world = world;
        cluster.views = Default::default();
    }
}
