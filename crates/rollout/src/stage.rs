//! How far the stages are: when one is through, is watched, has ended.
//!
//! A stage is through once each of its nodes is done or excused. Its soak counts from the moment
//! at which this is first seen, by the operator's clock alone: what an agent says about time can
//! neither shorten nor stretch it. A node that joins later does not restart the soak; but the
//! stage does not end while one of its nodes is moving, or is not Ready before it has settled, or
//! while some node was started and is not seen at all, as in an old view.
//!
//! Nodes that cannot be instructed (no agent, not Ready) are waited for until the node deadline
//! has passed since the stage began, and then excused; nodes whose attempt said nothing about the
//! patch are excused at once, until they are tried again. Both only where another node showed that
//! the patch works: one of the same kernel build in the policy, or, where no report tells the
//! build, one in the same stage. A canary that never came up does not let the others go.
//!
//! A gate that does not pass keeps a stage from ending. One that says that something is wrong ends
//! the watch; when it passes again the stage is watched anew. Nodes that failed within the budget
//! do not keep a stage from ending.
//!
//! Nothing is watched where nothing moved: a stage without a done node (all are excused), and
//! stages that a rollout finds settled before its first instruction.

use std::collections::BTreeSet;
use std::time::Duration;

use invivo_terms::{BuildId, Hold, NodeState};
use jiff::Timestamp;

use crate::rollout::{has_unseen, saturate};
use crate::standing::{Judged, Standing, Turn};
use crate::{Policy, RolloutMemory, Stage, StageView};

/// The stage at this index, [`Policy::rest`] from the end of the list on.
pub(crate) fn at(policy: &Policy, index: usize) -> &Stage {
    policy.stages.get(index).unwrap_or(&policy.rest)
}

/// What stands for a node in its stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Done,
    Moving,
    Failed,
    Excused,
    /// Not there yet, or not there any more.
    Waited,
    /// Must be steady again before the stage ends.
    Unsteady,
}

/// What must be well for a stage to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "four independent facts, each asked once")]
pub(crate) struct Well {
    /// No more nodes have failed than may.
    pub(crate) within_budget: bool,
    /// Every gate passes.
    pub(crate) gates: bool,
    /// One of them says that something is wrong.
    pub(crate) failing: bool,
    /// Nobody waits for soaks: an emergency.
    pub(crate) skip_soak: bool,
    /// How much later than it seems a soak may have begun.
    pub(crate) imprecision: Duration,
}

/// Walks through as many stages as have ended. Returns whether the stage at which it stops is
/// empty and holds the others.
pub(crate) fn advance(
    policy: &Policy,
    rollout: &mut RolloutMemory,
    judged: &mut [Judged<'_>],
    well: Well,
    now: Timestamp,
) -> bool {
    let governed = judged.iter().any(|node| node.standing != Standing::Claimed);
    rollout.stage = rollout.stage.min(policy.stages.len());
    let shown = Shown::by(judged);
    let unseen = has_unseen(rollout, judged, now);
    while governed && !rollout.complete && !rollout.returning {
        let stage = at(policy, rollout.stage);
        let is_cut = rollout.cuts.iter().any(|cut| cut.stage == rollout.stage);
        if let Some(share) = stage.share.filter(|_| !is_cut) {
            crate::cut::make(rollout, judged, share);
        }
        let is_last = rollout.stage >= policy.stages.len();
        let parts: Vec<(&Judged<'_>, Part)> = judged
            .iter()
            .filter(|node| node.stage == rollout.stage && node.standing != Standing::Claimed)
            .map(|node| (node, part(node, &shown, policy, rollout, now)))
            .collect();
        if parts.is_empty() && !stage.optional && stage.share.is_none() && !is_last {
            return true;
        }
        let idle = is_idle(&parts, rollout);
        // What a gate finds wrong while a stage is watched begins the watch anew.
        let known = rollout.soak_until.filter(|_| !well.failing);
        let unwatched = idle || stage.soak.is_zero();
        let soak = if unwatched { Duration::ZERO } else { stage.soak.saturating_add(well.imprecision) };
        let soak_until = known.or_else(|| {
            let ended = |part| matches!(part, Part::Done | Part::Excused | Part::Failed);
            let through = parts.iter().all(|(_, part)| ended(*part));
            let may = through && !unseen && (!well.failing || idle);
            may.then(|| after(now, soak))
        });
        rollout.soak_until = soak_until;
        let ends = soak_until.is_some_and(|until| until <= now || well.skip_soak)
            && !parts.iter().any(|(_, part)| matches!(part, Part::Moving | Part::Unsteady));
        if !ends || unseen || !well.within_budget || policy.paused || !(well.gates || idle) {
            return false;
        }
        rollout.soak_until = None;
        rollout.complete = is_last;
        if !is_last {
            rollout.stage += 1;
            rollout.stage_since = now;
        }
    }
    false
}

/// The stage under way, counted.
pub(crate) fn view(
    policy: &Policy,
    rollout: &RolloutMemory,
    judged: &[Judged<'_>],
    now: Timestamp,
) -> StageView {
    let stage = at(policy, rollout.stage);
    let shown = Shown::by(judged);
    let mut view = StageView {
        name: stage.name.clone(),
        index: rollout.stage,
        total: 0,
        done: 0,
        in_flight: 0,
        failed: 0,
        excused: 0,
    };
    for node in judged.iter().filter(|node| node.stage == rollout.stage && node.standing != Standing::Claimed)
    {
        view.total = view.total.saturating_add(1);
        let counter = match part(node, &shown, policy, rollout, now) {
            Part::Done => &mut view.done,
            Part::Moving => &mut view.in_flight,
            Part::Failed => &mut view.failed,
            Part::Excused => &mut view.excused,
            Part::Waited | Part::Unsteady => continue,
        };
        *counter = counter.saturating_add(1);
    }
    view
}

/// When the absent nodes of the stage under way may be excused.
pub(crate) fn excuse_at(policy: &Policy, rollout: &RolloutMemory) -> Timestamp {
    after(rollout.stage_since, policy.node_deadline)
}

/// A moment and a duration later; the end of time where there is no such moment.
pub(crate) fn after(from: Timestamp, duration: std::time::Duration) -> Timestamp {
    from.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// Nothing of the stage was moved by this rollout, so there is nothing to watch.
fn is_idle(parts: &[(&Judged<'_>, Part)], rollout: &RolloutMemory) -> bool {
    // It is watched already. Who moved there may be gone since, or not be seen in an old view.
    if rollout.soak_until.is_some() {
        return false;
    }
    let mut done = parts.iter().filter(|(_, part)| *part == Part::Done).peekable();
    if done.peek().is_none() {
        return parts.iter().all(|(node, part)| !node.ended && *part != Part::Waited);
    }
    let settled = |node: &Judged<'_>| {
        rollout.target.is_none() || node.report.is_some_and(|report| report.state == NodeState::Settled)
    };
    rollout.started == 0 && done.all(|(node, _)| settled(node))
}

fn part(
    node: &Judged<'_>,
    shown: &Shown<'_>,
    policy: &Policy,
    rollout: &RolloutMemory,
    now: Timestamp,
) -> Part {
    match node.standing {
        Standing::Done { .. } => Part::Done,
        Standing::Moving { .. } | Standing::Midway => Part::Moving,
        Standing::Failed(_) => Part::Failed,
        Standing::Unsteady => Part::Unsteady,
        // It booted before its level had settled: only another attempt tells whether it holds.
        Standing::Pending(_) if node.turn == Turn::Suspected => Part::Unsteady,
        Standing::Excused(_) | Standing::Claimed => Part::Excused,
        Standing::Absent(
            Hold::AgentMissing | Hold::NodeNotReady | Hold::NodeCordoned | Hold::StatusStale,
        ) if shown.for_node(node) && excuse_at(policy, rollout) <= now => Part::Excused,
        Standing::Resting(..) if shown.for_node(node) => Part::Excused,
        Standing::Resting(..) | Standing::Absent(_) | Standing::Pending(_) => Part::Waited,
    }
}

/// Where a node shows that the target works.
struct Shown<'a> {
    builds: BTreeSet<&'a BuildId>,
    stages: BTreeSet<usize>,
}

impl<'a> Shown<'a> {
    fn by(judged: &[Judged<'a>]) -> Self {
        // Asked for nodes that may be excused only; most of the time there is none.
        let asked =
            judged.iter().any(|node| matches!(node.standing, Standing::Absent(_) | Standing::Resting(..)));
        let done = || judged.iter().filter(|node| asked && matches!(node.standing, Standing::Done { .. }));
        Self {
            builds: done().filter_map(|node| node.build).collect(),
            stages: done().map(|node| node.stage).collect(),
        }
    }

    fn for_node(&self, node: &Judged<'_>) -> bool {
        match node.report.and(node.build) {
            Some(build) => self.builds.contains(build),
            None => self.stages.contains(&node.stage),
        }
    }
}

/// The number of the stage's nodes of which a share is taken: all but those that are never waited for.
pub(crate) fn size(judged: &[Judged<'_>], index: usize) -> u32 {
    let counts = |node: &&Judged<'_>| {
        node.stage == index
            && !matches!(
                node.standing,
                Standing::Claimed
                    | Standing::Excused(
                        Hold::UnsupportedKernel
                            | Hold::Delayed
                            | Hold::AwaitingApproval
                            | Hold::SetQuarantined
                    )
            )
    };
    saturate(judged.iter().filter(counts).count())
}
