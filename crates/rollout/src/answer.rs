//! What became of a node's instruction, by what its agent reports.

use invivo_terms::{BuildId, Excuse, Level, NodeState};
use jiff::Timestamp;

use crate::target::Aim;
use crate::{Apply, Instructed, Instruction, Node, Policy, Report, RolloutMemory};

/// What became of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// There is nothing to answer.
    Nothing,
    /// The report is older than the instruction.
    Unanswered,
    /// Under way, or seen and not yet begun.
    Working,
    /// The result asked for is there.
    Reached,
    /// Ended without success.
    Failed,
    /// Ended without success, which says nothing about the patch.
    Excused(Excuse),
    /// Seen, and neither result nor failure by the deadline; as after a boot before settling.
    Lapsed,
}

pub(crate) const fn holds(state: NodeState) -> bool {
    match state {
        NodeState::Applied | NodeState::Settled => true,
        NodeState::Idle
        | NodeState::Working
        | NodeState::RolledBack
        | NodeState::Blocked
        | NodeState::Refused
        | NodeState::Failed
        | NodeState::Suspected
        | NodeState::Convicted => false,
    }
}

/// Since when a level has held. A node's own clock may be wrong, so its word is not taken for a
/// time before it was told. `Settled` is counted by the node's monotonic clock and needs no other.
pub(crate) fn held_since(report: &Report, matching: Option<&Instructed>, policy: &Policy) -> Timestamp {
    let told = matching
        .and_then(|spec| deadline(&spec.instruction))
        .and_then(|deadline| deadline.checked_sub(policy.node_deadline).ok())
        .unwrap_or(Timestamp::MIN);
    if report.state == NodeState::Settled { told } else { told.max(report.since) }
}

pub(crate) fn deadline(instruction: &Instruction) -> Option<Timestamp> {
    match instruction {
        Instruction::Apply(apply) => Some(apply.deadline),
        Instruction::RollBack { deadline, .. } => Some(*deadline),
        Instruction::Hold => None,
    }
}

/// Which attempt an instruction is; 0 where it asks for nothing.
pub(crate) fn attempt(spec: Option<&Instructed>) -> u32 {
    match spec.map(|spec| &spec.instruction) {
        Some(Instruction::Apply(Apply { attempt, .. }) | Instruction::RollBack { attempt, .. }) => {
            (*attempt).max(1)
        }
        Some(Instruction::Hold) | None => 0,
    }
}

pub(crate) fn answer(spec: Option<&Instructed>, report: Option<&Report>, now: Timestamp) -> Answer {
    let Some((spec, until)) = spec.and_then(|spec| Some((spec, deadline(&spec.instruction)?))) else {
        return Answer::Nothing;
    };
    let Some(report) = report.filter(|report| report.observed >= spec.revision) else {
        return Answer::Unanswered;
    };
    if report.state.is_failure() {
        return match report.excuse {
            // One boot may be chance; the next attempt is the only one that may find out.
            Some(Excuse::Lost) if attempt(Some(spec)) > 1 => Answer::Failed,
            Some(excuse) => Answer::Excused(excuse),
            None => Answer::Failed,
        };
    }
    let reached = match &spec.instruction {
        Instruction::Apply(apply) => {
            report.build_id == apply.build_id && report.level == apply.level && holds(report.state)
        }
        Instruction::RollBack { .. } => report.level == Level::UNPATCHED,
        Instruction::Hold => true,
    };
    if report.state == NodeState::Working || (!reached && now < until) {
        Answer::Working
    } else if reached {
        Answer::Reached
    } else {
        Answer::Lapsed
    }
}

/// The instruction was given in this rollout. One for a kernel that the node no longer runs does
/// not count: its end says nothing about the kernel that runs now.
pub(crate) fn is_ours(node: &Node, rollout: &RolloutMemory) -> bool {
    let own = node.spec.as_ref().filter(|spec| !spec.by_other);
    let Some(instruction) = own.map(|spec| &spec.instruction) else { return false };
    let runs = |build: &BuildId| node.report.as_ref().is_none_or(|report| report.build_id == *build);
    match instruction {
        Instruction::Apply(apply) => Some(apply.deadline) > rollout.before && runs(&apply.build_id),
        Instruction::RollBack { deadline, .. } => Some(*deadline) > rollout.before,
        Instruction::Hold => false,
    }
}

pub(crate) fn allows_partial(spec: Option<&Instructed>) -> bool {
    match spec.map(|spec| &spec.instruction) {
        Some(Instruction::Apply(apply)) => apply.allow_partial,
        Some(Instruction::RollBack { .. } | Instruction::Hold) | None => false,
    }
}

/// The instruction is to go to this aim; deadline, settling time and origin may differ.
pub(crate) fn wants(instruction: &Instruction, aim: &Aim<'_>, policy: &Policy) -> bool {
    match instruction {
        Instruction::Apply(Apply { level, set, digest, manifest, mechanism, .. }) => {
            (*level, set, digest, manifest) == (aim.level, aim.set, aim.digest, aim.manifest)
                && *mechanism == policy.mechanism
        }
        Instruction::RollBack { .. } | Instruction::Hold => false,
    }
}
