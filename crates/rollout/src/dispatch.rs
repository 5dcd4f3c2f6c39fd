//! One node after the other: instructed, or held and why.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use invivo_terms::{BuildId, Hold, Level, Revision, SetName};
use jiff::Timestamp;

use crate::gate::Gates;
use crate::pace::{Pace, Trial};
use crate::standing::{Judged, Standing, Step};
use crate::target::Aim;
use crate::window::Opening;
use crate::{Apply, Held, Instruction, RolloutMemory, World, rollout, stage, target, window};

/// The revision with which a NodePatch is made; it asks for nothing.
const FIRST: Revision = Revision(1);

/// Settling time where a stage has no soak.
const SETTLE: Duration = Duration::from_mins(30);

pub(crate) const fn held(hold: Hold) -> Held {
    Held { hold, until: None }
}

/// People stopped everything, and this load is not applied yet.
pub(crate) fn is_stopped(world: &World, node: &Judged<'_>) -> bool {
    let told = node.node.spec.as_ref().map(|spec| &spec.instruction);
    world.brakes.emergency_stop && matches!(told, Some(Instruction::Apply(_)))
}

/// Gives each node its one place in the plan.
pub(crate) struct Dispatch<'a> {
    pub(crate) world: &'a World,
    pub(crate) rollout: &'a RolloutMemory,
    pub(crate) within_budget: bool,
    pub(crate) gates: &'a Gates<'a>,
    pub(crate) opening: Opening,
    pub(crate) proven: &'a BTreeMap<&'a BuildId, Aim<'a>>,
    pub(crate) empty: bool,
    pub(crate) pace: Pace<'a>,
    pub(crate) fleet: Option<u32>,
    pub(crate) actions: BTreeMap<String, Instruction>,
    pub(crate) starts: BTreeSet<String>,
    /// Slots that nodes take again which are midway and had given theirs back.
    pub(crate) taken_again: u32,
    pub(crate) holds: BTreeMap<String, Held>,
    pub(crate) done: BTreeSet<String>,
    pub(crate) in_flight: BTreeSet<String>,
    pub(crate) failed: BTreeSet<String>,
}

impl<'a> Dispatch<'a> {
    /// Puts a node where it belongs. Nodes are placed in the order of their turns.
    pub(crate) fn place(&mut self, node: &Judged<'a>) {
        let name = node.name.to_owned();
        let outcome = match node.standing {
            Standing::Done { .. } => {
                self.done.insert(name);
                return;
            }
            Standing::Moving { .. } if is_stopped(self.world, node) => Ok(Instruction::Hold),
            Standing::Moving { .. } => {
                self.in_flight.insert(name);
                return;
            }
            Standing::Midway => self.go_on(node),
            Standing::Pending(step) => self.start(node, step),
            Standing::Failed(hold) => {
                self.failed.insert(name.clone());
                Err(held(hold))
            }
            Standing::Claimed => Err(held(Hold::ClaimedByOther)),
            Standing::Unsteady => Err(held(Hold::NodeNotReady)),
            Standing::Resting(hold, until) => Err(Held { hold, until }),
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

    /// What people hold everything by, whatever the step.
    fn brake(&self) -> Result<(), Held> {
        if self.world.brakes.emergency_stop {
            return Err(held(Hold::EmergencyStop));
        }
        if self.world.policy.paused { Err(held(Hold::Paused)) } else { Ok(()) }
    }

    /// The second half of one movement: it has its slot already, or takes one again.
    fn go_on(&mut self, node: &Judged<'a>) -> Result<Instruction, Held> {
        self.brake()?;
        if self.world.policy.dry_run {
            return Err(held(Hold::DryRun));
        }
        // After the rollout's last deadline the fleet's limit does not count it any more.
        let counted = node.open && self.rollout.deadline > Some(self.world.now);
        if !counted && self.fleet == Some(0) {
            return Err(held(Hold::FleetLimit));
        }
        let slots = if node.open { &mut self.pace.midway } else { &mut self.pace.slots };
        *slots = slots.checked_sub(1).ok_or(held(Hold::AtMaxParallel))?;
        let deadline = self.deadline(None);
        // Where a node comes from is written down only where it goes back there.
        let back = match node.node.spec.as_ref().map(|spec| &spec.instruction) {
            Some(Instruction::RollBack { to: (level, Some(set)), .. }) => {
                let build = node.report.map(|report| &report.build_id);
                build.and_then(|build| target::aim_of(&self.world.offer, build, *level, set))
            }
            Some(_) | None => None,
        };
        // Where it came from is not offered any more: it stays without.
        let aim = back.as_ref().or(node.aim).ok_or(held(Hold::FailureBudgetSpent))?;
        let attempt = node.attempts.saturating_add(u32::from(!node.open));
        let instruction = self.apply(node, aim, deadline, attempt);
        let instruction = instruction.ok_or(held(Hold::UnsupportedKernel))?;
        self.taken_again = self.taken_again.saturating_add(u32::from(!node.open));
        if !counted {
            self.fleet = self.fleet.map(|fleet| fleet.saturating_sub(1));
        }
        Ok(instruction)
    }

    fn start(&mut self, node: &Judged<'a>, step: Step) -> Result<Instruction, Held> {
        self.brake()?;
        let late = self.catch_up(node, step);
        if step != Step::Return && late.is_none() {
            self.may_go_forward(node)?;
        }
        let closes = if step == Step::Return { None } else { self.closes()? };
        if step != Step::Return && late.is_none() {
            if let Some(hold) = self.gates.closed {
                return Err(held(hold));
            }
            if let Some(Trial::Running { until }) = self.trial(node) {
                return Err(Held { hold: Hold::KernelNotProven, until });
            }
        }
        if self.pace.slots == 0 {
            return Err(held(Hold::AtMaxParallel));
        }
        if self.fleet == Some(0) {
            return Err(held(Hold::FleetLimit));
        }
        if !self.pace.domain.admit(node) {
            return Err(held(Hold::ZoneBusy));
        }
        let attempt = node.attempts.saturating_add(1);
        let deadline = self.deadline(closes);
        let instruction = match step {
            Step::RollBack => Some(Instruction::RollBack { to: (Level::UNPATCHED, None), deadline, attempt }),
            Step::Return => Some(Instruction::RollBack { to: origin(node), deadline, attempt }),
            Step::Apply => {
                let aim = late.or(node.aim);
                aim.and_then(|aim| self.apply(node, aim, deadline, attempt))
            }
        };
        let instruction = instruction.ok_or(held(Hold::UnsupportedKernel))?;
        self.pace.slots = self.pace.slots.saturating_sub(1);
        self.fleet = self.fleet.map(|fleet| fleet.saturating_sub(1));
        let trial = node.build.and_then(|build| self.pace.trials.get_mut(build));
        if let Some(trial @ Trial::Open) = trial.filter(|_| late.is_none()) {
            *trial = Trial::Running { until: None };
        }
        if self.world.policy.dry_run {
            return Err(held(Hold::DryRun));
        }
        self.starts.insert(node.name.to_owned());
        Ok(instruction)
    }

    fn trial(&self, node: &Judged<'_>) -> Option<Trial> {
        node.build.and_then(|build| self.pace.trials.get(build)).copied()
    }

    /// The proven level for a node whose stage has not begun and that has less.
    fn catch_up(&self, node: &Judged<'a>, step: Step) -> Option<&'a Aim<'a>> {
        let held_back = node.stage > self.rollout.stage || !self.within_budget || self.rollout.returning;
        if step != Step::Apply || !held_back {
            return None;
        }
        let report = node.report?;
        self.proven.get(&report.build_id).filter(|aim| report.level < aim.level && is_new(node, aim))
    }

    fn may_go_forward(&self, node: &Judged<'_>) -> Result<(), Held> {
        if !self.within_budget || self.rollout.returning {
            return Err(held(Hold::FailureBudgetSpent));
        }
        if node.stage <= self.rollout.stage {
            return Ok(());
        }
        Err(match self.rollout.soak_until.filter(|until| *until > self.world.now) {
            Some(until) => Held { hold: Hold::StageSoaking, until: Some(until) },
            None if self.empty => held(Hold::EmptyStage),
            None => held(self.gates.closed.unwrap_or(Hold::NotInStage)),
        })
    }

    /// When nothing may start any more, if something may now.
    fn closes(&self) -> Result<Option<Timestamp>, Held> {
        match self.opening {
            Opening::Closed { hold, until } => Err(Held { hold, until }),
            Opening::Open { closes: None } => Ok(None),
            Opening::Open { closes: Some(closes) } => {
                let after_others = self.rollout.before.is_none_or(|before| closes > before);
                if window::has_room(closes, self.world.now) && after_others {
                    Ok(Some(closes))
                } else {
                    Err(Held { hold: Hold::OutsideWindow, until: Some(closes) })
                }
            }
        }
    }

    fn deadline(&self, closes: Option<Timestamp>) -> Timestamp {
        rollout::deadline(&self.world.policy, self.rollout, closes, self.world.now)
    }

    fn apply(
        &self,
        node: &Judged<'_>,
        aim: &Aim<'_>,
        deadline: Timestamp,
        attempt: u32,
    ) -> Option<Instruction> {
        let report = node.report?;
        let policy = &self.world.policy;
        let soak = stage::at(policy, node.stage).soak;
        Some(Instruction::Apply(Apply {
            build_id: report.build_id.clone(),
            level: aim.level,
            set: aim.set.clone(),
            digest: aim.digest.clone(),
            manifest: aim.manifest.clone(),
            mechanism: policy.mechanism,
            deadline,
            settle_after: if soak.is_zero() { SETTLE } else { soak },
            allow_partial: policy.allow_partial,
            from: (report.level, report.set.clone()),
            attempt,
        }))
    }
}

/// Whether the policy has told the node nothing yet, nothing for the kernel that it runs, or nothing
/// but to come to this proven level. A node that was taken down is not new.
fn is_new(node: &Judged<'_>, aim: &Aim<'_>) -> bool {
    let Some(spec) = &node.node.spec else { return true };
    match &spec.instruction {
        Instruction::Hold => spec.revision <= FIRST,
        Instruction::Apply(apply) => {
            apply.manifest == *aim.manifest
                || node.report.is_some_and(|report| report.build_id != apply.build_id)
        }
        Instruction::RollBack { .. } => false,
    }
}

/// Where a node came from when this rollout moved it.
fn origin(node: &Judged<'_>) -> (Level, Option<SetName>) {
    match node.node.spec.as_ref().map(|spec| &spec.instruction) {
        Some(Instruction::Apply(apply)) => apply.from.clone(),
        Some(Instruction::RollBack { to, .. }) => to.clone(),
        Some(Instruction::Hold) | None => (Level::UNPATCHED, None),
    }
}
