//! Where one node stands towards the target, whatever its stage and the pace.

use std::time::Duration;

use invivo_terms::{BuildId, Excuse, Hold, Level, NodeState};
use jiff::Timestamp;

use crate::stage::after;
use crate::target::{Aim, Target};
use crate::{Apply, Instructed, Instruction, Node, Policy, Report, RolloutMemory};

/// One node, judged.
#[derive(Debug)]
pub(crate) struct Judged<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its stage, as [`Node::stage`].
    pub(crate) stage: usize,
    /// The kernel build that it runs or was told to patch.
    pub(crate) build: Option<&'a BuildId>,
    /// What the target is for that build, if anything.
    pub(crate) aim: Option<&'a Aim<'a>>,
    /// What it reported.
    pub(crate) report: Option<&'a Report>,
    /// Where it stands.
    pub(crate) standing: Standing,
    /// It was instructed in this rollout, and that has not ended.
    pub(crate) open: bool,
    /// It was instructed in this rollout, and that has ended.
    pub(crate) ended: bool,
    /// How many times this rollout has begun to move it.
    pub(crate) attempts: u32,
    /// Whose turn it is before whose.
    pub(crate) turn: Turn,
}

/// In which order nodes are given what is to be given out. Who is tried again for want of an
/// answer comes last: nodes that never answer must not keep the others from their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    /// It has a slot already.
    Midway,
    /// It booted before settling: whether the patch did that is asked there and nowhere else.
    Suspected,
    /// It was not tried in this rollout.
    First,
    /// It was, and that said nothing.
    Again,
}

impl Judged<'_> {
    /// How many of its attempts have ended.
    pub(crate) const fn finished(&self) -> u32 {
        if self.open { self.attempts.saturating_sub(1) } else { self.attempts }
    }
}

/// Where one node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Another policy's.
    Claimed,
    /// Instructed, not ended. An instruction of an earlier rollout stops counting when it lapses.
    Moving {
        /// Its deadline, where that is still ahead.
        lapses: Option<Timestamp>,
    },
    /// Taken down in this rollout on its way to a lower level, which it must still be given.
    Midway,
    /// Where it should be; its level has held at least since then.
    Done {
        /// Since when its level has held, as far as it can be told; see [`held_since`].
        held_since: Timestamp,
    },
    /// Moved by this rollout and not yet settled or not yet at its end, and now not Ready.
    Unsteady,
    /// This rollout's instruction ended without success.
    Failed,
    /// This rollout's instruction ended in a way that says nothing; it is tried again then.
    Resting(Hold, Timestamp),
    /// Not waited for.
    Excused(Hold),
    /// Cannot be instructed now; waited for until the node deadline.
    Absent(Hold),
    /// Should move.
    Pending(Step),
}

/// The next step of a node that should move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Up, to the target's level for its build.
    Apply,
    /// Down, to no patch.
    RollBack,
}

/// What became of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
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

/// Judges one node.
pub(crate) fn judge<'a>(
    name: &'a str,
    node: &'a Node,
    target: &'a Target<'a>,
    policy: &Policy,
    rollout: &RolloutMemory,
    now: Timestamp,
) -> Judged<'a> {
    let report = node.report.as_ref();
    let told = node.spec.as_ref().and_then(|spec| match &spec.instruction {
        Instruction::Apply(apply) => Some(&apply.build_id),
        Instruction::RollBack { .. } | Instruction::Hold => None,
    });
    let build = report.map(|report| &report.build_id).or(told);
    let answer = answer(node.spec.as_ref(), report, now);
    let aim = build.and_then(|build| target.aim(build));
    let ours = is_ours(node, rollout);
    let standing = if node.claimed_by_other {
        Standing::Claimed
    } else {
        standing(node, target, aim, policy, answer, ours, now)
    };
    let counted = ours && standing != Standing::Claimed;
    let midway = is_midway(node, target, answer);
    let open = counted && (midway || matches!(answer, Answer::Unanswered | Answer::Working));
    let ended = counted && !open;
    let attempts = if counted { attempt(node.spec.as_ref()) } else { 0 };
    let turn = match answer {
        Answer::Excused(Excuse::Lost) if counted => Turn::Suspected,
        Answer::Excused(_) | Answer::Lapsed if counted => Turn::Again,
        Answer::Reached if standing == Standing::Midway => Turn::Midway,
        Answer::Nothing
        | Answer::Unanswered
        | Answer::Working
        | Answer::Reached
        | Answer::Failed
        | Answer::Excused(_)
        | Answer::Lapsed => Turn::First,
    };
    Judged { name, stage: node.stage, build, aim, report, standing, open, ended, attempts, turn }
}

/// How many of this rollout's attempts at the node have ended, one way or the other.
pub(crate) fn finished(node: &Node, rollout: &RolloutMemory, now: Timestamp) -> u32 {
    if node.claimed_by_other || !is_ours(node, rollout) {
        return 0;
    }
    let attempts = attempt(node.spec.as_ref());
    match answer(node.spec.as_ref(), node.report.as_ref(), now) {
        Answer::Nothing | Answer::Unanswered | Answer::Working => attempts.saturating_sub(1),
        Answer::Reached | Answer::Failed | Answer::Excused(_) | Answer::Lapsed => attempts,
    }
}

/// Judges one node where nothing can be aimed at: what moves ends, the rest waits.
pub(crate) fn judge_without_aim<'a>(
    name: &'a str,
    node: &'a Node,
    rollout: Option<&RolloutMemory>,
    hold: Hold,
    now: Timestamp,
) -> Judged<'a> {
    let report = node.report.as_ref();
    let spec = node.spec.as_ref();
    let deadline = spec.and_then(|spec| deadline(&spec.instruction));
    let recent = deadline.is_some() && deadline > rollout.and_then(|rollout| rollout.before);
    let waiting = Standing::Absent(if report.is_some() { hold } else { Hold::AgentMissing });
    let lapses = deadline.filter(|deadline| *deadline > now);
    let standing = match answer(spec, report, now) {
        Answer::Unanswered | Answer::Working if recent || lapses.is_some() => Standing::Moving { lapses },
        Answer::Failed if recent => Standing::Failed,
        Answer::Reached if recent && is_of(spec, rollout) => Standing::Done { held_since: now },
        Answer::Nothing
        | Answer::Unanswered
        | Answer::Working
        | Answer::Reached
        | Answer::Failed
        | Answer::Excused(_)
        | Answer::Lapsed => waiting,
    };
    let standing = if node.claimed_by_other { Standing::Claimed } else { standing };
    let build = report.map(|report| &report.build_id);
    Judged {
        name,
        stage: node.stage,
        build,
        aim: None,
        report,
        standing,
        open: false,
        ended: false,
        attempts: 0,
        turn: Turn::First,
    }
}

fn is_of(spec: Option<&Instructed>, rollout: Option<&RolloutMemory>) -> bool {
    match spec.map(|spec| &spec.instruction) {
        Some(Instruction::Apply(apply)) => rollout
            .and_then(|rollout| rollout.target.as_ref())
            .is_some_and(|(name, digest)| apply.set == *name && apply.digest == *digest),
        Some(Instruction::RollBack { .. } | Instruction::Hold) | None => false,
    }
}

fn standing(
    node: &Node,
    target: &Target<'_>,
    aim: Option<&Aim<'_>>,
    policy: &Policy,
    answer: Answer,
    ours: bool,
    now: Timestamp,
) -> Standing {
    let spec = node.spec.as_ref();
    match answer {
        Answer::Unanswered | Answer::Working => {
            let lapses = spec.and_then(|spec| deadline(&spec.instruction)).filter(|deadline| *deadline > now);
            if ours || lapses.is_some() {
                return Standing::Moving { lapses };
            }
        }
        Answer::Failed if ours && is_wanted(node, target, aim, policy) => return Standing::Failed,
        Answer::Excused(excuse) if ours && is_wanted(node, target, aim, policy) => {
            if let Some(rest) = rest(excuse, spec, policy).filter(|(_, until)| *until > now) {
                return Standing::Resting(rest.0, rest.1);
            }
        }
        Answer::Nothing | Answer::Reached | Answer::Failed | Answer::Excused(_) | Answer::Lapsed => {}
    }
    let Some(report) = &node.report else { return Standing::Absent(Hold::AgentMissing) };
    if answer == Answer::Unanswered {
        return Standing::Absent(Hold::StatusStale);
    }
    if ours && is_midway(node, target, answer) {
        return if node.ready { Standing::Midway } else { Standing::Unsteady };
    }
    let told_down = is_told_down(spec);
    let step = match target {
        Target::Unpatched if report.level == Level::UNPATCHED => {
            return Standing::Done { held_since: report.since };
        }
        Target::Unpatched => Step::RollBack,
        Target::Nothing(hold) => return Standing::Absent(*hold),
        Target::Set(chosen) => match aim {
            None if report.level > Level::UNPATCHED => return Standing::Excused(Hold::AheadOfTarget),
            None => return Standing::Excused(Hold::UnsupportedKernel),
            Some(aim) if report.level == aim.level && holds(report.state) && !told_down => {
                if ours && !node.ready && report.state == NodeState::Applied {
                    return Standing::Unsteady;
                }
                let matching = spec.filter(|spec| wants(&spec.instruction, aim, policy));
                return Standing::Done { held_since: held_since(report, matching, policy) };
            }
            Some(aim) if report.level > aim.level => {
                if !chosen.named || report.level <= aim.ceiling {
                    return Standing::Excused(Hold::AheadOfTarget);
                }
                Step::RollBack
            }
            Some(_) => Step::Apply,
        },
    };
    if node.ready { Standing::Pending(step) } else { Standing::Absent(Hold::NodeNotReady) }
}

/// How long a node rests before it is tried again: from the deadline of its attempt for one node
/// deadline, twice as long after each attempt, at most 64 times. After a boot it does not rest:
/// there is only one more attempt.
fn rest(excuse: Excuse, spec: Option<&Instructed>, policy: &Policy) -> Option<(Hold, Timestamp)> {
    let hold = match excuse {
        Excuse::NotTried => Hold::NotTried,
        Excuse::KeyMissing => Hold::ModuleSigningKeyMissing,
        Excuse::Lockdown => Hold::Lockdown,
        // Since then the policy has come to allow what held it.
        Excuse::ForeignTarget if policy.allow_partial && !allows_partial(spec) => return None,
        Excuse::ForeignTarget => Hold::ForeignTarget,
        Excuse::Blocked => Hold::BlockedByThreads,
        Excuse::Lost => return None,
    };
    let deadline = deadline(&spec?.instruction)?;
    let doublings = attempt(spec).saturating_sub(1).min(6);
    let pause: Duration = policy.node_deadline.saturating_mul(1 << doublings);
    Some((hold, after(deadline, pause)))
}

fn is_told_down(spec: Option<&Instructed>) -> bool {
    spec.is_some_and(|spec| matches!(spec.instruction, Instruction::RollBack { .. }))
}

/// The patch is off, as told, and the target is not "no patch".
fn is_midway(node: &Node, target: &Target<'_>, answer: Answer) -> bool {
    !target.is_unpatched() && is_told_down(node.spec.as_ref()) && answer == Answer::Reached
}

const fn holds(state: NodeState) -> bool {
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
fn held_since(report: &Report, matching: Option<&Instructed>, policy: &Policy) -> Timestamp {
    let told = matching
        .and_then(|spec| deadline(&spec.instruction))
        .and_then(|deadline| deadline.checked_sub(policy.node_deadline).ok())
        .unwrap_or(Timestamp::MIN);
    if report.state == NodeState::Settled { told } else { told.max(report.since) }
}

fn deadline(instruction: &Instruction) -> Option<Timestamp> {
    match instruction {
        Instruction::Apply(apply) => Some(apply.deadline),
        Instruction::RollBack { deadline, .. } => Some(*deadline),
        Instruction::Hold => None,
    }
}

/// Which attempt an instruction is; 0 where it asks for nothing.
fn attempt(spec: Option<&Instructed>) -> u32 {
    match spec.map(|spec| &spec.instruction) {
        Some(Instruction::Apply(Apply { attempt, .. }) | Instruction::RollBack { attempt, .. }) => {
            (*attempt).max(1)
        }
        Some(Instruction::Hold) | None => 0,
    }
}

fn answer(spec: Option<&Instructed>, report: Option<&Report>, now: Timestamp) -> Answer {
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
fn is_ours(node: &Node, rollout: &RolloutMemory) -> bool {
    let Some(instruction) = node.spec.as_ref().map(|spec| &spec.instruction) else { return false };
    let runs = |build: &BuildId| node.report.as_ref().is_none_or(|report| report.build_id == *build);
    match instruction {
        Instruction::Apply(apply) => Some(apply.deadline) > rollout.before && runs(&apply.build_id),
        Instruction::RollBack { deadline, .. } => Some(*deadline) > rollout.before,
        Instruction::Hold => false,
    }
}

fn allows_partial(spec: Option<&Instructed>) -> bool {
    match spec.map(|spec| &spec.instruction) {
        Some(Instruction::Apply(apply)) => apply.allow_partial,
        Some(Instruction::RollBack { .. } | Instruction::Hold) | None => false,
    }
}

/// The instruction is still what the rollout wants. Which level a set means for a build can change
/// within a rollout, when an earlier set is withdrawn or leaves its tests.
fn is_wanted(node: &Node, target: &Target<'_>, aim: Option<&Aim<'_>>, policy: &Policy) -> bool {
    match node.spec.as_ref().map(|spec| &spec.instruction) {
        Some(instruction @ Instruction::Apply(_)) => aim.is_some_and(|aim| wants(instruction, aim, policy)),
        Some(Instruction::RollBack { .. }) => target.is_unpatched() || target.is_named(),
        Some(Instruction::Hold) | None => false,
    }
}

/// The instruction is to go to this aim; deadline, settling time and origin may differ.
fn wants(instruction: &Instruction, aim: &Aim<'_>, policy: &Policy) -> bool {
    match instruction {
        Instruction::Apply(Apply { level, set, digest, manifest, mechanism, .. }) => {
            (*level, set, digest, manifest) == (aim.level, aim.set, aim.digest, aim.manifest)
                && *mechanism == policy.mechanism
        }
        Instruction::RollBack { .. } | Instruction::Hold => false,
    }
}
