//! One decision about one policy: target, standings, stages, pace, instructions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use invivo_terms::{BuildId, Hold, Level, SetName};
use jiff::Timestamp;

use crate::pace::{Pace, Trial, pace};
use crate::stage;
use crate::standing::{self, Judged, Standing, Step};
use crate::target::{Key, Target, resolve};
use crate::{Apply, Held, Instruction, Memory, Plan, Policy, RolloutMemory, World, rollout};

/// Settling time where a stage has no soak.
const SETTLE: Duration = Duration::from_mins(30);

/// Decides which nodes go where now, and why the others do not.
///
/// The same world gives the same plan. The caller stores [`Plan::memory`] by compare-and-swap
/// against the memory that it took the world from, and writes [`Plan::actions`] only after that.
pub fn plan(world: &World) -> Plan {
    let target = resolve(world);
    match (target.key(), &target) {
        (Some(key), _) => aimed(world, &target, key),
        (None, Target::Nothing(hold)) => waiting(world, &world.memory, *hold),
        (None, Target::Unpatched | Target::Set(_)) => waiting(world, &world.memory, Hold::FeedStalled),
    }
}

fn aimed(world: &World, target: &Target<'_>, key: Key) -> Plan {
    let World { now, policy, memory, nodes, .. } = world;
    if let Some(known) =
        memory.rollout.as_ref().filter(|known| !rollout::is_for(known, &key, policy.mechanism))
        && let Some(old) = rollout::draining(known, nodes, *now)
    {
        let deadline = old.deadline;
        let memory = Memory { rollout: Some(old), proven: memory.proven.clone() };
        let plan = waiting(world, &memory, Hold::AtMaxParallel);
        let wake = plan.wake.into_iter().chain(deadline).min();
        return Plan { wake, ..plan };
    }
    let mut rollout = rollout::current(memory.rollout.as_ref(), key, policy.mechanism, *now);
    let judged: Vec<Judged<'_>> = nodes
        .iter()
        .map(|(name, node)| standing::judge(name, node, target, policy, &rollout, *now))
        .collect();
    rollout::count(&mut rollout, &judged, *now);
    let empty = stage::advance(policy, &mut rollout, &judged, *now);
    let pace = pace(policy, memory, &rollout, &judged, *now);
    let proven = proven(memory, &rollout, target, &pace);

    let mut wake = Wake { now: *now, at: None };
    wake.extend(rollout.soak_until);
    wake.extend(pace.trials.values().filter_map(|trial| match trial {
        Trial::Running { until } => *until,
        Trial::Proven | Trial::Open => None,
    }));
    let mut dispatch = Dispatch {
        now: *now,
        policy,
        rollout: &rollout,
        empty,
        pace,
        actions: BTreeMap::new(),
        starts: BTreeSet::new(),
        holds: BTreeMap::new(),
        done: BTreeSet::new(),
        in_flight: BTreeSet::new(),
        failed: BTreeSet::new(),
    };
    let mut order: Vec<&Judged<'_>> = judged.iter().collect();
    order.sort_by_key(|node| node.turn);
    for node in order {
        wake.extend(lapse(node));
        if waits(node) && node.stage == rollout.stage && !rollout.complete {
            wake.extend([stage::excuse_at(policy, &rollout)]);
        }
        dispatch.place(node);
    }
    let Dispatch { actions, starts, holds, done, in_flight, failed, .. } = dispatch;

    rollout.started = rollout.started.saturating_add(rollout::saturate(starts.len()));
    if !actions.is_empty() {
        rollout.deadline = rollout.deadline.max(Some(rollout::deadline(policy, &rollout, *now)));
    }
    if rollout::has_unseen(&rollout, &judged, *now) || !actions.is_empty() {
        wake.extend(rollout.deadline);
    }
    let stage = Some(stage::view(policy, &rollout, &judged, *now));
    let memory = Memory { rollout: Some(rollout), proven };
    Plan { memory, actions, starts, holds, done, in_flight, failed, stage, wake: wake.at }
}

/// Nothing can be aimed at: the memory stays, what moves ends, nothing starts.
fn waiting(world: &World, memory: &Memory, hold: Hold) -> Plan {
    let known = memory.rollout.as_ref();
    let mut wake = Wake { now: world.now, at: None };
    let mut plan = Plan {
        memory: memory.clone(),
        actions: BTreeMap::new(),
        starts: BTreeSet::new(),
        holds: BTreeMap::new(),
        done: BTreeSet::new(),
        in_flight: BTreeSet::new(),
        failed: BTreeSet::new(),
        stage: None,
        wake: None,
    };
    let mut judged = Vec::with_capacity(world.nodes.len());
    for (name, node) in &world.nodes {
        let node = standing::judge_without_aim(name, node, known, hold, world.now);
        wake.extend(lapse(&node));
        match node.standing {
            Standing::Done { .. } => {
                plan.done.insert(name.clone());
            }
            Standing::Moving { .. } => {
                plan.in_flight.insert(name.clone());
            }
            Standing::Failed => {
                plan.failed.insert(name.clone());
                plan.holds.insert(name.clone(), held(Hold::AttemptEnded));
            }
            Standing::Claimed => {
                plan.holds.insert(name.clone(), held(Hold::ClaimedByOther));
            }
            Standing::Excused(hold) | Standing::Absent(hold) => {
                plan.holds.insert(name.clone(), held(hold));
            }
            Standing::Midway | Standing::Unsteady | Standing::Resting(..) | Standing::Pending(_) => {
                plan.holds.insert(name.clone(), held(hold));
            }
        }
        judged.push(node);
    }
    plan.stage = known.map(|rollout| stage::view(&world.policy, rollout, &judged, world.now));
    plan.wake = wake.at;
    plan
}

/// What the policy knows to be proven: a rollout that went through every stage adds the builds on
/// which its level has held.
fn proven(
    memory: &Memory,
    rollout: &RolloutMemory,
    target: &Target<'_>,
    pace: &Pace<'_>,
) -> BTreeMap<BuildId, (Level, SetName)> {
    let mut proven = memory.proven.clone();
    if rollout.complete && rollout.failed == 0 {
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

const fn held(hold: Hold) -> Held {
    Held { hold, until: None }
}

/// When time alone changes where the node stands.
const fn lapse(node: &Judged<'_>) -> Option<Timestamp> {
    match node.standing {
        Standing::Moving { lapses } => lapses,
        Standing::Resting(_, until) => Some(until),
        Standing::Claimed
        | Standing::Midway
        | Standing::Done { .. }
        | Standing::Unsteady
        | Standing::Failed
        | Standing::Excused(_)
        | Standing::Absent(_)
        | Standing::Pending(_) => None,
    }
}

/// The node cannot be instructed and may be excused later.
const fn waits(node: &Judged<'_>) -> bool {
    matches!(node.standing, Standing::Absent(_))
}

/// Gives each node its one place in the plan.
struct Dispatch<'a> {
    now: Timestamp,
    policy: &'a Policy,
    rollout: &'a RolloutMemory,
    empty: bool,
    pace: Pace<'a>,
    actions: BTreeMap<String, Instruction>,
    starts: BTreeSet<String>,
    holds: BTreeMap<String, Held>,
    done: BTreeSet<String>,
    in_flight: BTreeSet<String>,
    failed: BTreeSet<String>,
}

impl Dispatch<'_> {
    fn place(&mut self, node: &Judged<'_>) {
        let name = node.name.to_owned();
        let outcome = match node.standing {
            Standing::Done { .. } => {
                self.done.insert(name);
                return;
            }
            Standing::Moving { .. } => {
                self.in_flight.insert(name);
                return;
            }
            Standing::Midway => self.go_on(node),
            Standing::Pending(step) => self.start(node, step),
            Standing::Failed => {
                self.failed.insert(name.clone());
                Err(held(Hold::AttemptEnded))
            }
            Standing::Claimed => Err(held(Hold::ClaimedByOther)),
            Standing::Unsteady => Err(held(Hold::NodeNotReady)),
            Standing::Resting(hold, until) => Err(Held { hold, until: Some(until) }),
            Standing::Excused(hold) | Standing::Absent(hold) => Err(held(hold)),
        };
        match outcome {
            Ok(instruction) => {
                self.actions.insert(name, instruction);
            }
            Err(held) => {
                self.holds.insert(name, held);
            }
        }
    }

    /// The second half of one movement: it has its slot already.
    fn go_on(&mut self, node: &Judged<'_>) -> Result<Instruction, Held> {
        if self.policy.paused {
            return Err(held(Hold::Paused));
        }
        self.pace.midway = self.pace.midway.checked_sub(1).ok_or(held(Hold::AtMaxParallel))?;
        self.instruction(node, Step::Apply, node.attempts).ok_or(held(Hold::UnsupportedKernel))
    }

    fn start(&mut self, node: &Judged<'_>, step: Step) -> Result<Instruction, Held> {
        if self.policy.paused {
            return Err(held(Hold::Paused));
        }
        if self.rollout.failed > 0 {
            return Err(held(Hold::FailureBudgetSpent));
        }
        if node.stage > self.rollout.stage {
            return Err(self.not_in_stage());
        }
        let trial = node.build.and_then(|build| self.pace.trials.get_mut(build));
        if let Some(Trial::Running { until }) = trial {
            return Err(Held { hold: Hold::KernelNotProven, until: until.filter(|until| *until > self.now) });
        }
        self.pace.slots = self.pace.slots.checked_sub(1).ok_or(held(Hold::AtMaxParallel))?;
        if let Some(trial @ Trial::Open) = trial {
            *trial = Trial::Running { until: None };
        }
        let attempt = node.attempts.saturating_add(1);
        let instruction = self.instruction(node, step, attempt).ok_or(held(Hold::UnsupportedKernel))?;
        self.starts.insert(node.name.to_owned());
        Ok(instruction)
    }

    fn not_in_stage(&self) -> Held {
        match self.rollout.soak_until.filter(|until| *until > self.now) {
            Some(until) => Held { hold: Hold::StageSoaking, until: Some(until) },
            None if self.empty => held(Hold::EmptyStage),
            None => held(Hold::NotInStage),
        }
    }

    fn instruction(&self, node: &Judged<'_>, step: Step, attempt: u32) -> Option<Instruction> {
        let deadline = rollout::deadline(self.policy, self.rollout, self.now);
        match step {
            Step::RollBack => Some(Instruction::RollBack { deadline, attempt }),
            Step::Apply => {
                let report = node.report?;
                let aim = node.aim?;
                let soak = stage::at(self.policy, node.stage).soak;
                Some(Instruction::Apply(Apply {
                    build_id: report.build_id.clone(),
                    level: aim.level,
                    set: aim.set.clone(),
                    digest: aim.digest.clone(),
                    manifest: aim.manifest.clone(),
                    mechanism: self.policy.mechanism,
                    deadline,
                    settle_after: if soak.is_zero() { SETTLE } else { soak },
                    allow_partial: self.policy.allow_partial,
                    from: (report.level, report.set.clone()),
                    attempt,
                }))
            }
        }
    }
}
