//! Where one node stands towards the target, whatever its stage and the pace.

use std::collections::BTreeMap;
use std::time::Duration;

use invivo_terms::{BuildId, Excuse, Hold, Level, NodeState};
use jiff::Timestamp;

use crate::answer::{Answer, allows_partial, answer, attempt, deadline, held_since, holds, is_ours, wants};
use crate::stage::after;
use crate::target::{Aim, Target, Withdrawn, aim_of};
use crate::{
    Instructed, Instruction, Node, Offer, OnWithdrawn, Policy, Readiness, Report, RolloutMemory, Wish,
};

/// One node, judged.
#[derive(Debug)]
pub(crate) struct Judged<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its stage: [`Node::stage`], or one before that which has taken it for its share.
    pub(crate) stage: usize,
    /// The node as it was seen.
    pub(crate) node: &'a Node,
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
    /// When it counts as lost if it is not Ready again by then.
    pub(crate) lost_at: Option<Timestamp>,
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
    Failed(Hold),
    /// Left alone for now: its last attempt said nothing and it is tried again then, or a person
    /// holds it.
    Resting(Hold, Option<Timestamp>),
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
    /// Down, to where this rollout took it from.
    Return,
}

/// What nodes are judged by.
pub(crate) struct Judge<'a, 'r> {
    /// What is aimed at.
    pub(crate) target: &'a Target<'a>,
    /// What the feed offers.
    pub(crate) offer: &'a Offer,
    /// What this policy has proven and the feed still offers, for nodes that come late.
    pub(crate) proven: &'r BTreeMap<&'a BuildId, Aim<'a>>,
    /// What its author withdrew.
    pub(crate) withdrawn: &'r Withdrawn<'a>,
    /// The policy.
    pub(crate) policy: &'a Policy,
    /// The rollout.
    pub(crate) rollout: &'r RolloutMemory,
    /// The time of the decision.
    pub(crate) now: Timestamp,
}

impl<'a> Judge<'a, '_> {
    /// Judges one node.
    pub(crate) fn judge(&self, name: &'a str, node: &'a Node) -> Judged<'a> {
        let report = node.report.as_ref();
        let told = node.spec.as_ref().and_then(|spec| match &spec.instruction {
            Instruction::Apply(apply) => Some(&apply.build_id),
            Instruction::RollBack { .. } | Instruction::Hold => None,
        });
        let build = report.map(|report| &report.build_id).or(told);
        let answer = answer(node.spec.as_ref(), report, self.now);
        let aim = build.and_then(|build| self.target.aim(build));
        let ours = is_ours(node, self.rollout);
        let lost_at = self.lost_at(node, answer, ours);
        let standing = if node.claimed_by_other {
            Standing::Claimed
        } else if lost_at.is_some_and(|at| at <= self.now) {
            Standing::Failed(Hold::NodeNotReady)
        } else if self.rollout.returning {
            self.returning(node, aim, answer, ours)
        } else {
            self.standing(node, aim, answer, ours)
        };
        let lost = matches!(standing, Standing::Failed(Hold::NodeNotReady));
        let counted = ours && standing != Standing::Claimed;
        let midway = self.is_midway(node, aim, answer);
        let open = counted && !lost && (midway || matches!(answer, Answer::Unanswered | Answer::Working));
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
        let stage = crate::cut::stage_of(name, node.stage, build, self.rollout);
        Judged { name, stage, node, build, aim, report, standing, open, ended, attempts, turn, lost_at }
    }

    /// Who is midway goes on in the slot that it has. While nothing was aimed at for it, as with a feed that
    /// was away, being down was its end and was counted as that: then it needs another slot, and nothing
    /// else, for nobody is left without a patch who was to have one.
    pub(crate) fn give_back_slots(&self, judged: &mut [Judged<'a>]) {
        let open = judged.iter().filter(|node| node.open).count();
        // What is seen to have been started was.
        let seen = crate::rollout::sum(judged.iter().map(|node| node.attempts));
        let counted = self.rollout.started.max(seen).saturating_sub(self.rollout.finished);
        let without = open.saturating_sub(usize::try_from(counted).unwrap_or(usize::MAX));
        for node in judged.iter_mut().filter(|node| node.standing == Standing::Midway).take(without) {
            (node.open, node.ended) = (false, true);
        }
    }

    /// When a node that this rollout moved and that has not settled, or has not answered, counts
    /// as lost: after one node deadline without being Ready.
    fn lost_at(&self, node: &Node, answer: Answer, ours: bool) -> Option<Timestamp> {
        let Readiness::NotReady { since } = node.ready else { return None };
        let unsettled = match answer {
            Answer::Unanswered | Answer::Working => true,
            Answer::Reached => node.report.as_ref().is_some_and(|report| report.state == NodeState::Applied),
            Answer::Nothing | Answer::Failed | Answer::Excused(_) | Answer::Lapsed => false,
        };
        // An instruction that was given to a node of which this was already known asks nothing of it.
        let told = node.spec.as_ref().and_then(|spec| deadline(&spec.instruction))?;
        let from = since.max(told.checked_sub(self.policy.node_deadline).unwrap_or(since));
        (ours && unsettled).then(|| after(from, self.policy.node_deadline))
    }
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

/// How many of this rollout's attempts at the node have not ended: one or none.
pub(crate) fn open(node: &Node, rollout: &RolloutMemory, now: Timestamp) -> u32 {
    let counts = !node.claimed_by_other && is_ours(node, rollout);
    let attempts = if counts { attempt(node.spec.as_ref()) } else { 0 };
    attempts.saturating_sub(finished(node, rollout, now))
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
        Answer::Failed if recent => Standing::Failed(failed_hold(report)),
        Answer::Reached if recent && is_blind(hold) && is_of(spec, rollout) => {
            Standing::Done { held_since: now }
        }
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
        stage: rollout.map_or(node.stage, |rollout| crate::cut::stage_of(name, node.stage, build, rollout)),
        node,
        build,
        aim: None,
        report,
        standing,
        open: false,
        ended: false,
        attempts: 0,
        turn: Turn::First,
        lost_at: None,
    }
}

/// Nothing is known of what is offered, the next set is waited for, or the rollout before has to end: the
/// last target holds. Any other hold says that there is none, and who is at the last one is not at it.
const fn is_blind(hold: Hold) -> bool {
    matches!(
        hold,
        Hold::FeedStalled
            | Hold::FeedSuspended
            | Hold::Delayed
            | Hold::AwaitingApproval
            | Hold::AtMaxParallel
    )
}

fn is_of(spec: Option<&Instructed>, rollout: Option<&RolloutMemory>) -> bool {
    match spec.map(|spec| &spec.instruction) {
        Some(Instruction::Apply(apply)) => rollout
            .and_then(|rollout| rollout.target.as_ref())
            .is_some_and(|(_, digest)| apply.digest == *digest),
        Some(Instruction::RollBack { .. } | Instruction::Hold) | None => false,
    }
}

/// What a failed node is held for.
fn failed_hold(report: Option<&Report>) -> Hold {
    match report.map(|report| report.state) {
        Some(NodeState::Convicted) => Hold::Convicted,
        Some(NodeState::Suspected) => Hold::Suspected,
        Some(
            NodeState::Idle
            | NodeState::Working
            | NodeState::Applied
            | NodeState::Settled
            | NodeState::RolledBack
            | NodeState::Blocked
            | NodeState::Refused
            | NodeState::Failed,
        )
        | None => Hold::AttemptEnded,
    }
}

impl Judge<'_, '_> {
    fn standing(&self, node: &Node, aim: Option<&Aim<'_>>, answer: Answer, ours: bool) -> Standing {
        let (target, policy, now) = (self.target, self.policy, self.now);
        let spec = node.spec.as_ref();
        match answer {
            Answer::Unanswered | Answer::Working => {
                let lapses =
                    spec.and_then(|spec| deadline(&spec.instruction)).filter(|deadline| *deadline > now);
                if ours || lapses.is_some() {
                    return Standing::Moving { lapses };
                }
            }
            Answer::Failed if ours && self.is_wanted(node, aim) => {
                return Standing::Failed(failed_hold(node.report.as_ref()));
            }
            Answer::Failed if ours && self.is_catch_up(node) => {
                return Standing::Excused(failed_hold(node.report.as_ref()));
            }
            Answer::Excused(excuse) if ours && (self.is_wanted(node, aim) || self.is_catch_up(node)) => {
                if let Some(rest) = rest(excuse, spec, policy).filter(|(_, until)| *until > now) {
                    return Standing::Resting(rest.0, Some(rest.1));
                }
            }
            Answer::Nothing | Answer::Reached | Answer::Failed | Answer::Excused(_) | Answer::Lapsed => {}
        }
        let Some(report) = &node.report else { return Standing::Absent(Hold::AgentMissing) };
        if answer == Answer::Unanswered {
            return Standing::Absent(Hold::StatusStale);
        }
        if ours && self.is_midway(node, aim, answer) {
            return if node.ready.is_ready() { Standing::Midway } else { Standing::Unsteady };
        }
        let told_down = is_told_down(spec);
        let withdrawn = self.is_to_leave(report);
        let step = match target {
            Target::Unpatched if report.level == Level::UNPATCHED => {
                return Standing::Done { held_since: report.since };
            }
            Target::Unpatched => Step::RollBack,
            Target::Nothing(held) => return Standing::Absent(held.hold),
            Target::Set(chosen) => match aim {
                None if report.level == Level::UNPATCHED => {
                    return Standing::Excused(target.lack(&report.build_id).hold);
                }
                None if withdrawn => Step::RollBack,
                None => return Standing::Excused(Hold::AheadOfTarget),
                Some(aim) if report.level == aim.level && holds(report.state) && !told_down => {
                    if ours && !node.ready.is_ready() && report.state == NodeState::Applied {
                        return Standing::Unsteady;
                    }
                    let matching = spec.filter(|spec| wants(&spec.instruction, aim, policy));
                    return Standing::Done { held_since: held_since(report, matching, policy) };
                }
                Some(aim) if report.level > aim.level => {
                    if !withdrawn && (!chosen.named || report.level <= aim.ceiling) {
                        return Standing::Excused(Hold::AheadOfTarget);
                    }
                    Step::RollBack
                }
                Some(_) => Step::Apply,
            },
        };
        self.startable(node, step)
    }

    /// Where a node stands while the rollout is taken back: only what it moved is touched.
    fn returning(&self, node: &Node, aim: Option<&Aim<'_>>, answer: Answer, ours: bool) -> Standing {
        let spec = node.spec.as_ref();
        let lapses =
            spec.and_then(|spec| deadline(&spec.instruction)).filter(|deadline| *deadline > self.now);
        if matches!(answer, Answer::Unanswered | Answer::Working) && (ours || lapses.is_some()) {
            return Standing::Moving { lapses };
        }
        let Some(report) = &node.report else { return Standing::Absent(Hold::AgentMissing) };
        let moved = ours && self.is_wanted(node, aim);
        match (spec.map(|spec| &spec.instruction), answer) {
            (Some(Instruction::Apply(apply)), _) if moved && report.level == apply.level => {
                self.startable(node, Step::Return)
            }
            (Some(Instruction::Apply(_)), Answer::Failed) if moved => {
                Standing::Failed(failed_hold(Some(report)))
            }
            // It did not come off: a person must look.
            (Some(Instruction::RollBack { .. }), Answer::Failed) if ours => {
                Standing::Failed(failed_hold(Some(report)))
            }
            (Some(Instruction::RollBack { .. }), Answer::Excused(excuse)) if ours => {
                match rest(excuse, spec, self.policy).filter(|(_, until)| *until > self.now) {
                    Some((hold, until)) => Standing::Resting(hold, Some(until)),
                    None => self.startable(node, Step::Return),
                }
            }
            (Some(Instruction::RollBack { .. }), Answer::Lapsed) if ours => {
                self.startable(node, Step::Return)
            }
            (Some(Instruction::RollBack { .. }), Answer::Reached)
                if ours && self.is_midway(node, aim, answer) && node.ready.is_ready() =>
            {
                Standing::Midway
            }
            (Some(_) | None, _) => Standing::Excused(Hold::FailureBudgetSpent),
        }
    }

    /// A node that should move, or why it cannot be instructed now.
    fn startable(&self, node: &Node, step: Step) -> Standing {
        let held = node.held.filter(|held| held.until.is_none_or(|until| until > self.now));
        if let Some(held) = held {
            return Standing::Resting(Hold::HeldByPerson, held.until);
        }
        if !node.ready.is_ready() {
            return Standing::Absent(Hold::NodeNotReady);
        }
        if node.cordoned && step == Step::Apply {
            return Standing::Absent(Hold::NodeCordoned);
        }
        Standing::Pending(step)
    }

    /// The patch is off, as told, and that is not where the node is to end.
    fn is_midway(&self, node: &Node, aim: Option<&Aim<'_>>, answer: Answer) -> bool {
        let Some(Instruction::RollBack { to, .. }) = node.spec.as_ref().map(|spec| &spec.instruction) else {
            return false;
        };
        // Where it came from may not be offered any more: then it stays without.
        let offered =
            |build: &BuildId| to.1.as_ref().is_some_and(|set| aim_of(self.offer, build, to.0, set).is_some());
        let goes_on = if self.rollout.returning {
            // With a set that a person named, agents load that one alone.
            self.policy.target == Wish::Latest
                && node.report.as_ref().is_some_and(|report| offered(&report.build_id))
        } else {
            aim.is_some()
        };
        goes_on && answer == Answer::Reached
    }

    /// The instruction is still what the rollout wants. Which level a set means for a build can change
    /// within a rollout, when an earlier set is withdrawn or leaves its tests.
    fn is_wanted(&self, node: &Node, aim: Option<&Aim<'_>>) -> bool {
        match node.spec.as_ref().map(|spec| &spec.instruction) {
            Some(instruction @ Instruction::Apply(_)) => {
                aim.is_some_and(|aim| wants(instruction, aim, self.policy))
            }
            Some(Instruction::RollBack { .. }) => {
                self.target.is_unpatched()
                    || self.target.is_named()
                    || self.rollout.returning
                    || node.report.as_ref().is_some_and(|report| self.is_to_leave(report))
            }
            Some(Instruction::Hold) | None => false,
        }
    }

    /// What the node runs was withdrawn and is to be taken off.
    fn is_to_leave(&self, report: &Report) -> bool {
        self.policy.on_withdrawn == OnWithdrawn::RollBack && self.withdrawn.has(report)
    }

    /// The instruction brought the node to what was proven before.
    fn is_catch_up(&self, node: &Node) -> bool {
        let Some(Instruction::Apply(apply)) = node.spec.as_ref().map(|spec| &spec.instruction) else {
            return false;
        };
        let aim = self.proven.get(&apply.build_id);
        aim.is_some_and(|aim| wants(&Instruction::Apply(apply.clone()), aim, self.policy))
    }
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
        Excuse::ForeignLivepatch => Hold::ForeignLivepatch,
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
