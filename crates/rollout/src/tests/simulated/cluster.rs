//! A cluster with two policies that share nodes and a limit, and two operators that believe old
//! views and may be killed between two writes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use invivo_terms::{Block, NodeState, Revision};
use jiff::Timestamp;

use super::super::fleet::{Fleet, block, set, set_name, stage, windows, withdraw};
use super::event::{Event, POLICIES};
use super::{check, home};
use crate::{
    Brakes, Budget, Gate, GateVerdict, Instructed, Instruction, Memory, NewNodes, Node, Offer, OnFailure,
    OnWithdrawn, Policy, Readiness, RolloutMemory, Set, Stage, Supersede, Wish, World, plan,
};

/// What the first policy is like.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) parallel: u32,
    pub(super) soaks: (u64, u64),
    pub(super) share: Option<u8>,
    pub(super) spread: bool,
    pub(super) budget: Budget,
    pub(super) on_failure: OnFailure,
    pub(super) supersede: Supersede,
    pub(super) on_withdrawn: OnWithdrawn,
    pub(super) new_nodes: NewNodes,
    pub(super) limit: Option<u32>,
}

impl Setup {
    pub(super) fn policy(&self) -> Policy {
        let spread = self.spread.then(|| "zone".to_owned());
        let canary = optional(stage("canary", self.parallel, self.soaks.0));
        let early = optional(stage("early", self.parallel, self.soaks.1));
        Policy {
            stages: vec![canary, Stage { spread: spread.clone(), share: self.share, ..early }],
            rest: Stage { spread, ..stage("rest", self.parallel, 0) },
            failure_budget: self.budget,
            on_failure: self.on_failure,
            supersede: self.supersede,
            on_withdrawn: self.on_withdrawn,
            new_nodes: self.new_nodes,
            ..Policy::default()
        }
    }
}

/// One node, whose it is and who told it what it was told last.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) node: Node,
    pub(super) owner: usize,
    pub(super) giver: usize,
}

/// What one operator believes.
#[derive(Debug, Clone, Default)]
pub(super) struct View {
    nodes: BTreeMap<String, Member>,
    memories: [Memory; POLICIES],
    versions: [u64; POLICIES],
    vanished: BTreeMap<String, (usize, Timestamp)>,
    at: Option<Timestamp>,
}

/// What this rollout really did to a node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moved {
    pub(super) stage: usize,
    pub(super) while_watched: bool,
    pub(super) may_be_lost: bool,
    pub(super) ended: Option<Timestamp>,
}

/// A policy, its status, and what really came of its rollout.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) policy: Policy,
    pub(super) gates: Vec<Gate>,
    pub(super) memory: Memory,
    pub(super) version: u64,
    pub(super) parallel: usize,
    pub(super) moved: BTreeMap<String, Moved>,
    pub(super) failed: BTreeSet<String>,
}

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) now: Timestamp,
    pub(super) parts: Vec<Part>,
    pub(super) nodes: BTreeMap<String, Member>,
    pub(super) limit: Option<u32>,
    offer: Offer,
    stopped: bool,
    vanished: BTreeMap<String, (usize, Timestamp)>,
    views: [View; 2],
    joined: usize,
}

/// What a feed offers: a gap, a withdrawal, something withheld, a quarantine, nothing to choose.
pub(super) fn sets(choice: u8) -> Offer {
    let mut sets: Vec<Set> =
        vec![set(1, &[(1, 1), (2, 1)]), set(2, &[(1, 2)]), set(3, &[(2, 2)]), set(4, &[(1, 3), (2, 3)])];
    match choice {
        0 => return Offer::Unknown,
        1 => sets.truncate(2),
        2 => withdraw(&mut sets[1]),
        3 => block(&mut sets[3], Block::TestOnly),
        4 => withdraw(&mut sets[3]),
        5 => block(&mut sets[3], Block::Quarantined),
        6 => return Offer::Suspended,
        _ => sets.iter_mut().for_each(withdraw),
    }
    Offer::Sets(sets)
}

pub(super) fn wish(choice: u8) -> Wish {
    match choice {
        0..=2 => Wish::Latest,
        3 => Wish::None,
        4 => Wish::Named(set_name(1)),
        _ => Wish::Named(set_name(3)),
    }
}

fn optional(stage: Stage) -> Stage {
    Stage { optional: true, ..stage }
}

impl Part {
    fn new(policy: Policy, parallel: u32) -> Self {
        Self {
            policy,
            gates: Vec::new(),
            memory: Memory::default(),
            version: 1,
            parallel: usize::try_from(parallel).unwrap(),
            moved: BTreeMap::new(),
            failed: BTreeSet::new(),
        }
    }

    fn of(setup: &Setup) -> Self {
        Self::new(setup.policy(), setup.parallel)
    }

    pub(super) fn rollout(&self) -> Option<&RolloutMemory> {
        self.memory.rollout.as_ref()
    }

    fn changed(&mut self, change: impl FnOnce(&mut Policy)) {
        change(&mut self.policy);
        self.version += 1;
    }

    /// What it has in flight as far as its status tells. A policy that has nothing to aim at does not
    /// count what ended; after the last deadline nothing of it begins any more.
    fn in_flight(&self, now: Timestamp) -> u32 {
        let waits = self.rollout().filter(|rollout| rollout.deadline > Some(now));
        waits.map_or(0, |rollout| rollout.started - rollout.finished)
    }
}

impl Cluster {
    pub(super) fn new(members: &[(usize, u32, u8)], setup: &Setup) -> Self {
        let second = Policy {
            stages: vec![optional(stage("canary", 2, 0)), optional(stage("early", 2, 5))],
            rest: stage("rest", 2, 0),
            ..Policy::default()
        };
        let mut cluster = Self {
            now: super::super::fleet::after(0),
            parts: vec![Part::of(setup), Part::new(second, 2)],
            nodes: BTreeMap::new(),
            limit: setup.limit,
            offer: sets(1),
            stopped: false,
            vanished: BTreeMap::new(),
            views: [View::default(), View::default()],
            joined: 0,
        };
        for (stage, kernel, zone) in members {
            cluster.join(0, *stage, *kernel, *zone);
        }
        cluster.refresh(0);
        cluster.refresh(1);
        cluster
    }

    fn join(&mut self, owner: usize, stage: usize, kernel: u32, zone: u8) {
        self.joined += 1;
        let name = format!("n{:02}", self.joined);
        let member = Member { node: fresh(self.now, stage, kernel, zone), owner, giver: owner };
        self.nodes.insert(name, member);
    }

    fn name(&self, index: usize) -> Option<String> {
        let names: Vec<&String> = self.nodes.keys().collect();
        (!names.is_empty()).then(|| names[index % names.len()].clone())
    }

    pub(super) fn refresh(&mut self, leader: usize) {
        self.views[leader] = View {
            nodes: self.nodes.clone(),
            memories: std::array::from_fn(|policy| self.parts[policy].memory.clone()),
            versions: std::array::from_fn(|policy| self.parts[policy].version),
            vanished: self.vanished.clone(),
            at: Some(self.now),
        };
    }

    pub(super) fn handle(&mut self, event: Event) {
        let after = |now: Timestamp, seconds: u64| now + Duration::from_secs(seconds);
        match event {
            Event::Pass(seconds) => self.now = after(self.now, seconds),
            Event::Refresh(leader) => self.refresh(usize::from(leader)),
            Event::Decide { leader, policy, killed_after } => {
                self.decide(usize::from(leader), policy, killed_after);
            }
            Event::Join(policy, stage, kernel, zone) => self.join(policy, stage, kernel, zone),
            Event::Aim(policy, choice) => {
                self.parts[policy].changed(|policy| policy.target = wish(choice));
            }
            Event::Feed(choice) => self.offer = sets(choice),
            Event::Brake(policy, brake) => self.parts[policy].changed(|policy| match brake {
                super::event::Brake::Paused(on) => policy.paused = on,
                super::event::Brake::DryRun(on) => policy.dry_run = on,
            }),
            Event::EmergencyStop(on) => self.stopped = on,
            Event::Gate(policy, verdict) => self.parts[policy].gates = gates(verdict),
            Event::Window(policy, window) => {
                self.parts[policy].changed(|policy| policy.windows = windows(window));
            }
            Event::Blackout(policy, from, length) => {
                let from = after(self.now, from);
                let blackout = crate::Blackout { from, until: after(from, length) };
                self.parts[policy].changed(|policy| policy.blackouts = vec![blackout]);
            }
            Event::Expedite(policy, number, until) => {
                let expedite = crate::Expedite { set: set_name(number), until: after(self.now, until) };
                self.parts[policy].changed(|policy| policy.expedite = Some(expedite));
            }
            Event::Act(index)
            | Event::Fail(index, _)
            | Event::Miss(index, _)
            | Event::Settle(index)
            | Event::Boot(index)
            | Event::Ready(index, _)
            | Event::Leave(index)
            | Event::Replace(index)
            | Event::Claim(index, _)
            | Event::Hold(index, _)
            | Event::Cordon(index, _) => {
                if let Some(name) = self.name(index) {
                    super::node::handle(self, &name, event);
                }
            }
        }
    }

    /// The node is gone; one that was in flight or unsettled has failed.
    pub(super) fn vanish(&mut self, name: &str) {
        let Some(member) = self.nodes.remove(name) else { return };
        let report = member.node.report.as_ref();
        let unsettled = is_open(&member.node) || report.is_some_and(|r| r.state == NodeState::Applied);
        let told = member.node.spec.as_ref().map(|spec| &spec.instruction);
        if let (Some(Instruction::Apply(apply)), true) = (told, unsettled) {
            self.vanished.insert(name.to_owned(), (member.giver, apply.deadline));
        }
        for part in &mut self.parts {
            part.moved.remove(name);
        }
    }

    fn world(&self, view: &View, policy: usize) -> World {
        let part = &self.parts[policy];
        let memory = view.memories[policy].clone();
        let rollout = memory.rollout.as_ref();
        let concerned = |(giver, deadline): (usize, Timestamp)| {
            giver == policy
                && rollout.is_some_and(|rollout| Some(deadline) > rollout.before && !rollout.complete)
        };
        let vanished = view.vanished.iter().filter(|(_, gone)| concerned(**gone));
        let seen = |member: &Member| {
            let mut node = member.node.clone();
            node.claimed_by_other = member.owner != policy;
            if let Some(spec) = &mut node.spec {
                spec.by_other = member.giver != policy;
            }
            node
        };
        // Statuses are read anew for the fleet's limit; nodes are as old as the view.
        let in_flight = self.parts.iter().map(|part| part.in_flight(self.now)).sum();
        World {
            now: self.now,
            imprecision: Duration::ZERO,
            policy: part.policy.clone(),
            offer: self.offer.clone(),
            vanished: vanished.map(|(name, _)| name.clone()).collect(),
            nodes: view.nodes.iter().map(|(name, member)| (name.clone(), seen(member))).collect(),
            gates: part.gates.clone(),
            brakes: Brakes {
                emergency_stop: self.stopped,
                fleet: self.limit.map(|limit| limit.saturating_sub(in_flight)),
            },
            memory,
        }
    }

    fn decide(&mut self, leader: usize, policy: usize, killed_after: Option<usize>) {
        // Watches end by themselves within minutes; a view as old as the node deadline is not believed.
        let oldest = self.now - self.parts[policy].policy.node_deadline;
        if self.views[leader].at.is_none_or(|at| at <= oldest) {
            self.refresh(leader);
        }
        let world = self.world(&self.views[leader], policy);
        let made = plan(&world);
        assert_eq!(made, plan(&world), "the same world gives the same plan");
        check::plan(&world, &made, self.parts[policy].parallel);
        let part = &mut self.parts[policy];
        let view = &mut self.views[leader];
        if view.versions[policy] != part.version {
            (view.memories[policy], view.versions[policy]) = (part.memory.clone(), part.version);
            return;
        }
        let old = std::mem::replace(&mut part.memory, made.memory.clone());
        part.version += 1;
        (view.memories[policy], view.versions[policy]) = (made.memory, part.version);
        check::memory(part, &old, self.now);
        let mut refused = 0;
        for (name, instruction) in made.actions.into_iter().take(killed_after.unwrap_or(usize::MAX)) {
            let starts = made.starts.contains(&name);
            let written = self.write(&world, policy, &name, instruction, starts);
            refused += u32::from(!written && starts);
        }
        let part = &mut self.parts[policy];
        if let Some(rollout) = part.memory.rollout.as_mut().filter(|_| killed_after.is_none()) {
            // Nobody else has written since.
            rollout.started -= refused;
            part.version += 1;
            let view = &mut self.views[leader];
            (view.memories[policy], view.versions[policy]) = (part.memory.clone(), part.version);
        }
        check::flight(self, policy);
    }

    /// Writes unless the node's instruction is another one than the operator believed.
    fn write(&mut self, world: &World, policy: usize, name: &str, told: Instruction, starts: bool) -> bool {
        let believed = world.nodes[name].spec.as_ref().map(|spec| spec.revision);
        let known = self.nodes.get(name).map(|member| member.node.spec.as_ref().map(|spec| spec.revision));
        if known != Some(believed) {
            return false;
        }
        if starts {
            check::start(self, world, policy, name, &told);
        }
        let part = &mut self.parts[policy];
        let member = self.nodes.get_mut(name).unwrap();
        let own = member.owner == policy && told != Instruction::Hold;
        if let Some(rollout) = part.memory.rollout.as_ref().filter(|_| own) {
            let stage = check::stage_of(name, &member.node, rollout);
            let while_watched = rollout.soak_until.is_some() || stage < rollout.stage || rollout.complete;
            // An old view may have shown it Ready.
            let may_be_lost = !member.node.ready.is_ready();
            part.moved.insert(name.to_owned(), Moved { stage, while_watched, may_be_lost, ended: None });
        } else {
            part.moved.remove(name);
        }
        let spec = &mut member.node.spec;
        let revision = spec.as_ref().map_or(Revision(0), |spec| spec.revision).next();
        if let (Instruction::Hold, Some(report)) = (&told, &mut member.node.report) {
            report.observed = revision;
        }
        *spec = Some(Instructed { revision, instruction: told, by_other: false });
        member.giver = policy;
        true
    }

    /// Nothing happens any more; everything works. One operator sees it all.
    pub(super) fn settle_down(&mut self) {
        self.stopped = false;
        if matches!(self.offer, Offer::Unknown | Offer::Suspended) {
            self.offer = sets(1);
        }
        for part in &mut self.parts {
            part.gates.clear();
            (part.policy.paused, part.policy.dry_run, part.policy.windows) = (false, false, Vec::new());
        }
        for member in self.nodes.values_mut() {
            let node = &mut member.node;
            (node.ready, node.cordoned, node.held) = (Readiness::Ready, false, None);
        }
        for _ in 0..600 {
            let mut at_rest = true;
            for policy in 0..POLICIES {
                self.refresh(0);
                self.decide(0, policy, None);
            }
            for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
                super::node::handle(self, &name, Event::Act(0));
            }
            self.refresh(0);
            let mut wake = None;
            for policy in 0..POLICIES {
                let made = plan(&self.world(&self.views[0], policy));
                at_rest &= made.actions.is_empty() && made.memory == self.parts[policy].memory;
                wake = wake.into_iter().chain(made.wake).min();
            }
            if at_rest {
                let Some(wake) = wake else { break };
                self.now = wake;
            }
        }
        for policy in 0..POLICIES {
            let world = self.world(&self.views[0], policy);
            home::all(&self.parts[policy], &world, &plan(&world));
        }
    }
}

fn gates(verdict: u8) -> Vec<Gate> {
    let message = String::new();
    let verdict = match verdict {
        0..=2 => GateVerdict::Passed,
        3 => GateVerdict::Failed { message },
        _ => GateVerdict::Unknown { message },
    };
    let gate = |name: &str, verdict| Gate { name: name.to_owned(), foreign: true, about: None, verdict };
    vec![gate("first", GateVerdict::Passed), gate("second", verdict)]
}

/// A node that runs no patch and was told nothing.
pub(super) fn fresh(now: Timestamp, stage: usize, kernel: u32, zone: u8) -> Node {
    let mut fleet = Fleet::new();
    fleet.world.now = now;
    fleet.add("n", stage.min(2), kernel);
    fleet.node("n").domains.insert("zone".to_owned(), format!("z{zone}"));
    fleet.node("n").clone()
}

/// It has not answered what it was told.
pub(super) fn is_open(node: &Node) -> bool {
    let told = node.spec.as_ref().filter(|spec| spec.instruction != Instruction::Hold);
    told.is_some_and(|spec| node.report.as_ref().is_none_or(|report| report.observed < spec.revision))
}

pub(super) fn deadline(node: &Node) -> Option<Timestamp> {
    match &node.spec.as_ref()?.instruction {
        Instruction::Apply(apply) => Some(apply.deadline),
        Instruction::RollBack { deadline, .. } => Some(*deadline),
        Instruction::Hold => None,
    }
}
