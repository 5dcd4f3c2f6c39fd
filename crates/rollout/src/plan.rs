//! One decision about one policy: target, standings, stages, pace, instructions.

use std::collections::{BTreeMap, BTreeSet};

use invivo_terms::{BuildId, Hold, Level, SetName};
use jiff::Timestamp;

use crate::dispatch::{Dispatch, held, is_stopped};
use crate::gate::Gates;
use crate::pace::{Pace, Trial, domain_of, is_expedited, pace};
use crate::stage::Well;
use crate::standing::{self, Judge, Judged, Standing};
use crate::target::{Aim, Key, Target, Withdrawn, resolve, still_proven};
use crate::{
    Apply, Finished, Held, Instruction, Memory, NewNodes, Offer, OnFailure, Outcome, Plan, Policy,
    RolloutMemory, Supersede, Wish, World, rollout, stage, target, window,
};

/// Decides which nodes go where now, and why the others do not.
///
/// The same world gives the same plan. The caller stores [`Plan::memory`] by compare-and-swap
/// against the memory that it took the world from, and writes [`Plan::actions`] only after that.
pub fn plan(world: &World) -> Plan {
    let Some(before) = before(world) else { return plan_for(world, None) };
    let made = plan_for(world, Some(before.set()));
    match before {
        // The rollout that a newer set waited for has just ended.
        Before::Ends(_) if is_complete(&made.memory) && made.actions.is_empty() => again(world, made.memory),
        Before::Ends(_) => made,
        Before::GoesBack(_) if is_returning(&made.memory) && !is_back(&made) => made,
        Before::GoesBack(_) => plan_for(world, None),
    }
}

/// Decides once more, with a memory that differs from the world's.
fn again(world: &World, memory: Memory) -> Plan {
    plan(&World { memory, ..world.clone() })
}

fn plan_for(world: &World, pinned: Option<&SetName>) -> Plan {
    let target = resolve(world, pinned);
    let plan = match (target.key(), &target) {
        (Some(key), _) => aimed(world, &target, key),
        (None, Target::Nothing(held)) => waiting(world, *held),
        (None, Target::Unpatched | Target::Set(_)) => waiting(world, held(Hold::FeedStalled)),
    };
    Plan { memory: still_proven(plan.memory, &world.offer), ..plan }
}

/// What the rollout under way has to do before that of another set begins which `Latest` means now.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Before<'a> {
    /// It ends.
    Ends(&'a SetName),
    /// Where it has failed, the nodes that it moved go back, although its set may not be chosen any
    /// more, as after a quarantine.
    GoesBack(&'a SetName),
}

impl<'a> Before<'a> {
    pub(crate) const fn set(self) -> &'a SetName {
        match self {
            Self::Ends(set) | Self::GoesBack(set) => set,
        }
    }
}

pub(crate) fn before(world: &World) -> Option<Before<'_>> {
    let World { policy, memory, nodes, offer, .. } = world;
    let Offer::Sets(sets) = offer else { return None };
    let rollout = memory.rollout.as_ref()?;
    let (name, digest) = rollout.target.as_ref().filter(|_| rollout.started > 0 && !rollout.complete)?;
    // Whoever names another one wants that at once.
    let named = match &policy.target {
        Wish::Latest => false,
        Wish::Named(wanted) if wanted == name => true,
        Wish::Named(_) | Wish::None => return None,
    };
    let set = sets.iter().find(|set| set.name == *name && set.digest == *digest)?;
    let within = rollout.failed <= rollout::budget(policy, rollout::governed(nodes));
    let ends = policy.supersede == Supersede::Finish && set.is_eligible() && within && !named;
    if ends && !rollout.returning {
        return Some(Before::Ends(name));
    }
    let key = resolve(world, None).key();
    let other = key.is_none_or(|key| !rollout::is_for(rollout, &key, policy.mechanism));
    (other && policy.on_failure == OnFailure::RollBack).then_some(Before::GoesBack(name))
}

fn is_complete(memory: &Memory) -> bool {
    memory.rollout.as_ref().is_some_and(|rollout| rollout.complete)
}

fn is_returning(memory: &Memory) -> bool {
    memory.rollout.as_ref().is_some_and(|rollout| rollout.returning)
}

/// Whether everybody who can has gone back: nobody moves, and nobody waits for a turn.
fn is_back(made: &Plan) -> bool {
    let waits = |held: &Held| {
        matches!(
            held.hold,
            Hold::AtMaxParallel
                | Hold::ZoneBusy
                | Hold::FleetLimit
                | Hold::Paused
                | Hold::DryRun
                | Hold::EmergencyStop
        )
    };
    made.actions.is_empty() && made.in_flight.is_empty() && !made.holds.values().any(waits)
}

fn aimed(world: &World, target: &Target<'_>, key: Key) -> Plan {
    let World { now, policy, memory, nodes, .. } = world;
    let known = memory.rollout.as_ref();
    let other = known.filter(|known| !rollout::is_for(known, &key, policy.mechanism));
    if other.is_some_and(|known| rollout::is_draining(known, nodes, *now)) {
        return waiting(world, held(Hold::AtMaxParallel));
    }
    let mut rollout = rollout::current(known, key, policy.mechanism, nodes, *now);
    let proven_aims = proven_aims(world);
    let withdrawn = Withdrawn::of(&world.offer);
    let judge = Judge {
        target,
        offer: &world.offer,
        proven: &proven_aims,
        withdrawn: &withdrawn,
        policy,
        rollout: &rollout,
        now: *now,
    };
    let mut judged: Vec<Judged<'_>> = nodes.iter().map(|(name, node)| judge.judge(name, node)).collect();
    judge.give_back_slots(&mut judged);
    // What vanished did so in the rollout that the memory knows.
    let vanished = if other.is_some() { &BTreeSet::new() } else { &world.vanished };
    rollout::count(&mut rollout, &judged, vanished, *now);
    let gates = Gates::of(world, target, &rollout);
    let well = Well {
        within_budget: rollout.failed <= rollout::budget(policy, rollout::governed(nodes)),
        gates: gates.closed.is_none(),
        failing: gates.failing,
        skip_soak: is_expedited(policy, &rollout, *now),
        imprecision: world.imprecision,
    };
    let empty = stage::advance(policy, &mut rollout, &mut judged, well, *now);
    if returns(policy, &rollout, &judged, &gates, well) {
        rollout.returning = true;
        rollout.soak_until = None;
        gates.note(&mut rollout, *now);
        // What was judged by a rollout that goes forward does not hold for one that goes back.
        return again(world, Memory { rollout: Some(rollout), ..memory.clone() });
    }
    let mut history = superseded(world, other);
    // A rollout that moved nobody until it was through is not worth remembering.
    if rollout.complete && rollout.started > 0 && known.is_some_and(|known| !known.complete) {
        rollout::remember(&mut history, rollout::finished(&rollout, Outcome::Complete, *now));
    }
    // A stage that has just begun is asked about first.
    let gates = Gates::of(world, target, &rollout);
    let pace = pace(policy, memory, &rollout, &judged, *now);
    let proven = proven(memory, &rollout, well, target, &pace);
    let opening = window::opening(policy, *now);

    let mut wake = Wake { now: *now, at: None };
    wake.extend(rollout.soak_until);
    wake.extend(pace.trials.values().filter_map(|trial| match trial {
        Trial::Running { until } => *until,
        Trial::Proven | Trial::Open => None,
    }));
    let spread = stage::at(policy, rollout.stage).spread.as_deref();
    let mut dispatch = Dispatch {
        world,
        rollout: &rollout,
        within_budget: well.within_budget,
        gates: &gates,
        opening,
        proven: &proven_aims,
        empty,
        pace,
        fleet: world.brakes.fleet,
        actions: BTreeMap::new(),
        starts: BTreeSet::new(),
        taken_again: 0,
        holds: BTreeMap::new(),
        done: BTreeSet::new(),
        in_flight: BTreeSet::new(),
        failed: BTreeSet::new(),
    };
    let mut order: Vec<&Judged<'_>> = judged.iter().collect();
    order.sort_by_key(|node| (node.turn, spread.map(|label| domain_of(node, label))));
    for node in order {
        wake.extend(lapse(node));
        wake.extend(node.lost_at);
        if waits(node) && node.stage == rollout.stage && !rollout.complete {
            wake.extend([stage::excuse_at(policy, &rollout)]);
        }
        dispatch.place(node);
    }
    let Dispatch { actions, starts, taken_again, holds, done, in_flight, failed, .. } = dispatch;
    wake.extend(holds.values().filter_map(|held| held.until));

    let slots = rollout::saturate(starts.len()).saturating_add(taken_again);
    rollout.started = rollout.started.saturating_add(slots);
    let given = actions.values().filter_map(|instruction| match instruction {
        Instruction::Apply(Apply { deadline, .. }) | Instruction::RollBack { deadline, .. } => {
            Some(*deadline)
        }
        Instruction::Hold => None,
    });
    rollout.deadline = rollout.deadline.into_iter().chain(given).max();
    if rollout::has_unseen(&rollout, &judged, *now) || !actions.is_empty() {
        wake.extend(rollout.deadline);
    }
    let stage = Some(stage::view(policy, &rollout, &judged, *now));
    let stages = taken(&judged);
    let memory = Memory { rollout: Some(rollout), proven, history };
    Plan { memory, actions, starts, holds, done, in_flight, failed, stages, stage, wake: wake.at }
}

/// What is remembered, with the rollout that another target comes in place of.
fn superseded(world: &World, other: Option<&RolloutMemory>) -> Vec<Finished> {
    let World { now, policy, memory, nodes, .. } = world;
    let mut history = memory.history.clone();
    if let Some(known) = other.filter(|known| !known.complete && known.started > 0) {
        let within = known.failed <= rollout::budget(policy, rollout::governed(nodes));
        let outcome = match (known.returning, within) {
            (true, _) => Outcome::RolledBack,
            (false, true) => Outcome::Superseded,
            (false, false) => Outcome::Failed,
        };
        rollout::remember(&mut history, rollout::finished(known, outcome, *now));
    }
    history
}

/// Whether the rollout is to be taken back: it failed, people asked for that, and more than one
/// node's own word says so. One node's word moves one node.
fn returns(
    policy: &Policy,
    rollout: &RolloutMemory,
    judged: &[Judged<'_>],
    gates: &Gates<'_>,
    well: Well,
) -> bool {
    let asked = policy.on_failure == OnFailure::RollBack && !rollout.returning && !rollout.complete;
    if !asked || rollout.started == 0 || rollout.target.is_none() {
        return false;
    }
    let lost = judged.iter().any(|node| node.standing == Standing::Failed(Hold::NodeNotReady));
    let evident = rollout.failed >= 2 || lost;
    gates.foreign_failure || (!well.within_budget && evident)
}

/// What this policy has proven, as far as the feed still offers it.
pub(crate) fn proven_aims(world: &World) -> BTreeMap<&BuildId, Aim<'_>> {
    if world.policy.new_nodes == NewNodes::Staged || world.policy.target != Wish::Latest {
        return BTreeMap::new();
    }
    let proven = world.memory.proven.iter();
    proven
        .filter(|(_, (_, set))| target::is_eligible(&world.offer, set))
        .filter_map(|(build, (level, set))| {
            target::aim_of(&world.offer, build, *level, set).map(|aim| (build, aim))
        })
        .collect()
}

/// Nothing can be aimed at: what moves ends and is counted, nothing starts.
fn waiting(world: &World, why: Held) -> Plan {
    let memory = &world.memory;
    let counted = memory.rollout.as_ref().map(|known| rollout::counted(known, &world.nodes, world.now));
    let memory = Memory { rollout: counted, ..memory.clone() };
    let known = memory.rollout.as_ref();
    let mut wake = Wake { now: world.now, at: None };
    wake.extend(why.until);
    // Until then what is not seen to have ended uses up the fleet's limit.
    let in_flight = known.filter(|rollout| rollout.started > rollout.finished);
    wake.extend(in_flight.and_then(|rollout| rollout.deadline));
    let mut plan = Plan {
        memory: memory.clone(),
        actions: BTreeMap::new(),
        starts: BTreeSet::new(),
        holds: BTreeMap::new(),
        done: BTreeSet::new(),
        in_flight: BTreeSet::new(),
        failed: BTreeSet::new(),
        stages: BTreeMap::new(),
        stage: None,
        wake: None,
    };
    let mut judged = Vec::with_capacity(world.nodes.len());
    for (name, node) in &world.nodes {
        let node = standing::judge_without_aim(name, node, known, why.hold, world.now);
        wake.extend(lapse(&node));
        match node.standing {
            Standing::Done { .. } => {
                plan.done.insert(name.clone());
            }
            Standing::Moving { .. } if is_stopped(world, &node) => {
                plan.actions.insert(name.clone(), Instruction::Hold);
            }
            Standing::Moving { .. } => {
                plan.in_flight.insert(name.clone());
            }
            Standing::Failed(hold) => {
                plan.failed.insert(name.clone());
                plan.holds.insert(name.clone(), held(hold));
            }
            Standing::Claimed => {
                plan.holds.insert(name.clone(), held(Hold::ClaimedByOther));
            }
            Standing::Excused(hold) | Standing::Absent(hold) => {
                let own = if hold == why.hold { why } else { held(hold) };
                plan.holds.insert(name.clone(), own);
            }
            Standing::Midway | Standing::Unsteady | Standing::Resting(..) | Standing::Pending(_) => {
                plan.holds.insert(name.clone(), why);
            }
        }
        judged.push(node);
    }
    // Who has failed meanwhile is told, whatever may be chosen now.
    if let Some(rollout) = plan.memory.rollout.as_mut() {
        rollout::count_failed(rollout, &judged, &world.vanished, world.now);
    }
    plan.stages = taken(&judged);
    plan.stage = known.map(|rollout| stage::view(&world.policy, rollout, &judged, world.now));
    plan.wake = wake.at;
    plan
}

/// The nodes that a share has taken.
fn taken(judged: &[Judged<'_>]) -> BTreeMap<String, usize> {
    let taken = judged.iter().filter(|node| node.stage != node.node.stage);
    taken.map(|node| (node.name.to_owned(), node.stage)).collect()
}

/// What the policy knows to be proven: a rollout that went through every stage adds the builds on
/// which its level has held.
fn proven(
    memory: &Memory,
    rollout: &RolloutMemory,
    well: Well,
    target: &Target<'_>,
    pace: &Pace<'_>,
) -> BTreeMap<BuildId, (Level, SetName)> {
    let mut proven = memory.proven.clone();
    if rollout.complete && well.within_budget {
        for (build, trial) in &pace.trials {
            if let (Trial::Proven, Some(aim)) = (trial, target.aim(build)) {
                proven.insert((*build).clone(), (aim.level, aim.origin.clone()));
            }
        }
    }
    proven
}

/// The earliest moment ahead.
struct Wake {
    now: Timestamp,
    at: Option<Timestamp>,
}

impl Wake {
    fn extend(&mut self, moments: impl IntoIterator<Item = Timestamp>) {
        self.at = self.at.into_iter().chain(moments.into_iter().filter(|at| *at > self.now)).min();
    }
}

/// When time alone changes where the node stands.
const fn lapse(node: &Judged<'_>) -> Option<Timestamp> {
    match node.standing {
        Standing::Moving { lapses } => lapses,
        Standing::Resting(_, until) => until,
        Standing::Claimed
        | Standing::Midway
        | Standing::Done { .. }
        | Standing::Unsteady
        | Standing::Failed(_)
        | Standing::Excused(_)
        | Standing::Absent(_)
        | Standing::Pending(_) => None,
    }
}

/// The node cannot be instructed and may be excused later.
const fn waits(node: &Judged<'_>) -> bool {
    matches!(node.standing, Standing::Absent(_))
}
