//! From a decision to a policy's status: what people and `kubectl wait` read.

use std::collections::BTreeMap;

use invivo_api::{ConditionType, HoldCount, NodeCounts, PatchPolicyStatus, condition, set_conditions};
use invivo_rollout::Plan;
use invivo_terms::Hold;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::deletion::Deletion;
use crate::memory;
use crate::observe::{Decision, FeedView, View};
use crate::offer::Halt;
use crate::reason::{self, Policy};
use crate::sight::Verdict;

/// The states that a policy's nodes are counted by in the metrics.
pub const NODE_STATES: [&str; 7] =
    ["total", "current", "pending", "in_flight", "held", "failed", "unsupported"];

/// How many names stand in a message or a hold.
const EXAMPLES: usize = 20;

/// How much a message quotes of one piece of evidence, in bytes.
const LONGEST_WORDS: usize = 200;

/// How a policy stands: one of the three conditions is true, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which condition is true.
    pub condition: ConditionType,
    /// Its reason, also that of the other two.
    pub reason: &'static str,
    /// What is the matter and what to do.
    pub message: String,
}

impl Standing {
    fn new(condition: ConditionType, reason: impl Into<reason::Standing>, message: String) -> Self {
        Self { condition, reason: reason.into().as_str(), message }
    }
}

/// The status that this view asks for. Equal to the present one if nothing has changed.
pub fn of(view: &View, now: Timestamp) -> PatchPolicyStatus {
    let old = view.policy.value.status.clone().unwrap_or_default();
    let generation = view.policy.value.metadata.generation;
    let old_gates = old.gates.clone();
    let standing = standing(view);
    let conditions = [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled]
        .into_iter()
        .map(|kind| {
            condition(
                kind,
                kind == standing.condition,
                standing.reason,
                &standing.message,
                generation,
                Time(now),
            )
        })
        .collect();
    let conditions = set_conditions(&old.conditions, conditions);
    let base = PatchPolicyStatus { observed_generation: generation, conditions, ..old };
    match &view.decision {
        // What is remembered stays: a slip in the spec is not an instruction to forget.
        Err(_) => PatchPolicyStatus { holds: Vec::new(), next_action: Some(standing.message), ..base },
        Ok(decision) => {
            let rollout = decision.plan.memory.rollout.as_ref();
            PatchPolicyStatus {
                rollout: rollout.map(memory::write_rollout),
                stage: rollout.map(|rollout| {
                    let name = decision.checked.stage_name(rollout.stage);
                    let starting = starting(decision, rollout.stage);
                    memory::write_stage(rollout, name, decision.plan.stage.as_ref(), starting)
                }),
                nodes: Some(counts(decision)),
                holds: holds(&decision.plan),
                proven: memory::write_proven(&decision.plan.memory),
                next_action: next_action(decision, &standing),
                gates: crate::gate::status(&old_gates, &decision.gates.gates, now),
                history: memory::write_history(&decision.plan.memory),
                ..base
            }
        }
    }
}

/// Whether later decisions follow alike from both: nothing else differs than what people read, and
/// how many nodes have ended, which every look finds again.
pub fn decide_alike(one: &PatchPolicyStatus, other: &PatchPolicyStatus) -> bool {
    let remembered = |status: &PatchPolicyStatus| {
        let mut memory = memory::recall(Some(status));
        if let Some(rollout) = &mut memory.rollout {
            rollout.finished = 0;
        }
        (memory, status.observed_generation)
    };
    remembered(one) == remembered(other)
}

/// How many nodes are where.
pub fn counts(decision: &Decision) -> NodeCounts {
    let plan = &decision.plan;
    let held = |wanted: Hold| plan.holds.values().filter(|held| held.hold == wanted).count();
    let total = decision.world.nodes.values().filter(|node| !node.claimed_by_other).count();
    let current = plan.done.len();
    let in_flight = plan.in_flight.union(&plan.actions.keys().cloned().collect()).count();
    let failed = plan.failed.len();
    let unsupported = held(Hold::UnsupportedKernel);
    let held = plan.holds.len().saturating_sub(held(Hold::ClaimedByOther));
    let pending =
        plan.holds.iter().filter(|(name, held)| !plan.failed.contains(*name) && waits(held.hold)).count();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    NodeCounts {
        total: number(total),
        current: number(current),
        pending: number(pending),
        in_flight: number(in_flight),
        held: number(held),
        failed: number(failed),
        unsupported: number(unsupported),
    }
}

/// How many nodes of a stage are instructed now.
fn starting(decision: &Decision, stage: usize) -> u32 {
    let stage_of = |name: &String| {
        let taken = decision.plan.stages.get(name).copied();
        taken.or_else(|| decision.world.nodes.get(name).map(|node| node.stage))
    };
    let starting = decision.plan.actions.keys().filter(|name| stage_of(name) == Some(stage));
    u32::try_from(starting.count()).unwrap_or(u32::MAX)
}

/// Whether a node held for this reason is still to be moved.
const fn waits(hold: Hold) -> bool {
    !matches!(hold, Hold::UnsupportedKernel | Hold::AheadOfTarget | Hold::ClaimedByOther)
}

fn holds(plan: &Plan) -> Vec<HoldCount> {
    let mut by_reason: BTreeMap<Hold, HoldCount> = BTreeMap::new();
    for (node, held) in &plan.holds {
        let count = by_reason.entry(held.hold).or_insert_with(|| HoldCount {
            reason: held.hold,
            nodes: 0,
            examples: Vec::new(),
            until: None,
        });
        count.nodes = count.nodes.saturating_add(1);
        if count.examples.len() < EXAMPLES {
            count.examples.push(node.clone());
        }
        let until = held.until.map(Time);
        count.until = match (count.until.take(), until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    let mut counts: Vec<_> = by_reason.into_values().collect();
    counts.sort_by(|a, b| b.nodes.cmp(&a.nodes).then(a.reason.cmp(&b.reason)));
    counts
}

/// How the policy stands, worst first.
pub fn standing(view: &View) -> Standing {
    use ConditionType::{Reconciling, Stalled};
    let decision = match &view.decision {
        Ok(decision) => decision,
        Err(undecided) => return Standing::new(Stalled, undecided.reason(), undecided.to_string()),
    };
    let feed = &view.policy.value.spec.feed;
    match &view.feed {
        FeedView::Missing => {
            let message = format!("there is no PatchFeed {feed}: create it, or correct spec.feed");
            return Standing::new(Stalled, Policy::FeedNotFound, message);
        }
        FeedView::Known {
            verdict: Verdict::Refused { message, .. } | Verdict::Unreachable { message, usable: false },
            ..
        } => {
            let message = format!("PatchFeed {feed}: {message}; nothing new starts, nothing is taken off");
            return Standing::new(Stalled, Hold::FeedStalled, message);
        }
        FeedView::Halted(halt) => {
            let reason = match halt {
                Halt::Suspended { .. } => reason::Standing::Held(Hold::FeedSuspended),
                Halt::NotFound { .. } => Policy::FeedNotFound.into(),
                Halt::Cycle(_) => Policy::FeedCycle.into(),
                Halt::Unreadable(_) => Policy::Unreadable.into(),
            };
            let message = format!("{halt}; nothing new starts, nothing is taken off");
            return Standing::new(Stalled, reason, message);
        }
        FeedView::Unseen => {
            return Standing::new(
                Reconciling,
                Policy::FeedPending,
                format!("PatchFeed {feed} is being asked for"),
            );
        }
        FeedView::Known { verdict: Verdict::Pending { message }, .. } => {
            return Standing::new(Reconciling, Policy::FeedPending, format!("PatchFeed {feed}: {message}"));
        }
        FeedView::Known { verified: None, .. } => {
            return Standing::new(
                Reconciling,
                Policy::FeedPending,
                format!("PatchFeed {feed} is being read"),
            );
        }
        FeedView::Known {
            verdict: Verdict::Verified | Verdict::ExpiresSoon { .. } | Verdict::Unreachable { .. },
            verified: Some(_),
            ..
        } => {}
    }
    progress(decision)
}

fn progress(decision: &Decision) -> Standing {
    use ConditionType::{Ready, Reconciling, Stalled};
    let (plan, counts) = (&decision.plan, counts(decision));
    let holding = |wanted: Hold| plan.holds.values().any(|held| held.hold == wanted);
    let stage = plan.stage.as_ref().map_or("rest", |stage| stage.name.as_str());
    if let Deletion::RollingBack { waits, given_up, .. } = &decision.deletion {
        let message = format!(
            "the policy is being deleted: {} to go down: {}; given up: {}",
            nodes(u32::try_from(waits.len()).unwrap_or(u32::MAX)),
            some_of(waits.iter()),
            given_up.len()
        );
        return Standing::new(Reconciling, Policy::RollingBack, message);
    }
    if counts.total == 0 {
        let message = "spec.nodeSelector matches no node that is free: label nodes or widen it".to_owned();
        return Standing::new(Stalled, Policy::NoNodes, message);
    }
    if let Some(standing) = failed(decision, stage) {
        return standing;
    }
    if let Some(unreadable) = decision.unreadable.values().next() {
        let others = decision.unreadable.len().saturating_sub(1);
        let more = if others == 0 { String::new() } else { format!("; {others} more like it") };
        let message = format!("{unreadable}{more}; its node keeps what it has and starts nothing");
        return Standing::new(Stalled, Policy::Unreadable, message);
    }
    for hold in [Hold::TargetMissing, Hold::SetQuarantined, Hold::EmptyStage] {
        if holding(hold) {
            return Standing::new(Stalled, hold, format!("stage {stage}: {}", hold.remedy()));
        }
    }
    let complete = plan.memory.rollout.as_ref().is_none_or(|rollout| rollout.complete);
    if counts.in_flight > 0 {
        let names = some_of(plan.actions.keys().chain(&plan.in_flight));
        let message = format!(
            "stage {stage}: {} under way: {names}; {} to go",
            nodes(counts.in_flight),
            counts.pending
        );
        return Standing::new(Reconciling, Policy::RolloutInProgress, message);
    }
    if decision.checked.policy.paused && (counts.pending > 0 || !complete) {
        let message = format!("{} to go; {}", nodes(counts.pending), Hold::Paused.remedy());
        return Standing::new(Reconciling, Hold::Paused, message);
    }
    if counts.pending > 0 || !complete {
        let soak = plan.memory.rollout.as_ref().and_then(|rollout| rollout.soak_until);
        if let (Some(until), false) = (soak, complete) {
            let message = format!("stage {stage} is watched until {until}; {} to go", nodes(counts.pending));
            return Standing::new(Reconciling, Hold::StageSoaking, message);
        }
        let Some(hold) = main_hold(plan) else {
            let message = format!("stage {stage}: {} to go", nodes(counts.pending));
            return Standing::new(Reconciling, Policy::RolloutInProgress, message);
        };
        let until = until(plan, hold).map_or_else(String::new, |until| format!(" until {until}"));
        let gate = gate_words(&decision.world, hold);
        let message =
            format!("stage {stage}: {} to go: {hold}{until}{gate}: {}", nodes(counts.pending), hold.remedy());
        let reason: reason::Standing =
            if is_brake(hold) { hold.into() } else { Policy::RolloutInProgress.into() };
        return Standing::new(Reconciling, reason, message);
    }
    let unsupported = match counts.unsupported {
        0 => String::new(),
        count => {
            format!("; nothing for the kernel of {}: {}", nodes(count), Hold::UnsupportedKernel.remedy())
        }
    };
    if plan.memory.rollout.is_none() && counts.current == 0 {
        return Standing::new(
            Ready,
            Policy::NothingToApply,
            format!("the feed has nothing for these nodes{unsupported}"),
        );
    }
    Standing::new(Ready, Policy::AtTarget, format!("{} at the target{unsupported}", nodes(counts.current)))
}

/// How a rollout stands in which more nodes failed than may.
fn failed(decision: &Decision, stage: &str) -> Option<Standing> {
    use ConditionType::{Reconciling, Stalled};
    let plan = &decision.plan;
    let rollout = plan.memory.rollout.as_ref()?;
    let evidence =
        rollout.evidence.iter().take(3).map(|found| format!("{}: {}", found.who, brief(&found.what)));
    let evidence = evidence.collect::<Vec<_>>().join("; ");
    if rollout.returning {
        let moving = plan.actions.len().saturating_add(plan.in_flight.len());
        let waits = |held: &invivo_rollout::Held| held.hold == Hold::AtMaxParallel;
        let waiting = plan.holds.values().filter(|held| waits(held)).count();
        if moving > 0 || waiting > 0 {
            let message = format!("{moving} going back, {waiting} to go; {evidence}");
            return Some(Standing::new(Reconciling, Policy::RollingBack, message));
        }
        let message =
            format!("everything that the rollout moved went back; {evidence}; another target begins anew");
        return Some(Standing::new(Stalled, Policy::RolledBack, message));
    }
    let spent = plan.holds.values().any(|held| held.hold == Hold::FailureBudgetSpent);
    let budget = match decision.checked.policy.failure_budget {
        invivo_rollout::Budget::Nodes(0) => plan.failed.is_empty(),
        invivo_rollout::Budget::Nodes(_) | invivo_rollout::Budget::Percent(_) => true,
    };
    if !spent && budget {
        return None;
    }
    let count = rollout.failed;
    let message =
        format!("stage {stage}: {} failed: {evidence}; {}", nodes(count), Hold::FailureBudgetSpent.remedy());
    Some(Standing::new(Stalled, Policy::NodeFailed, message))
}

/// As much of a piece of evidence as a message has room for; all of it is in the status.
fn brief(what: &str) -> &str {
    what.get(..what.floor_char_boundary(LONGEST_WORDS)).unwrap_or(what)
}

/// Whether this hold stops a whole policy, and is the reason to be told.
const fn is_brake(hold: Hold) -> bool {
    matches!(
        hold,
        Hold::GateFailing
            | Hold::GateUnknown
            | Hold::OutsideWindow
            | Hold::Blackout
            | Hold::DryRun
            | Hold::EmergencyStop
            | Hold::FleetLimit
    )
}

fn until(plan: &Plan, wanted: Hold) -> Option<Timestamp> {
    plan.holds.values().filter(|held| held.hold == wanted).filter_map(|held| held.until).min()
}

/// What the gates say that hold everything.
fn gate_words(world: &invivo_rollout::World, hold: Hold) -> String {
    use invivo_rollout::GateVerdict::{Failed, Passed, Unknown};
    if !matches!(hold, Hold::GateFailing | Hold::GateUnknown) {
        return String::new();
    }
    let words = world.gates.iter().filter_map(|gate| match &gate.verdict {
        Passed => None,
        Failed { message } | Unknown { message } => Some(format!("{}: {message}", gate.name)),
    });
    format!(" ({})", words.take(3).collect::<Vec<_>>().join("; "))
}

fn next_action(decision: &Decision, standing: &Standing) -> Option<String> {
    match standing.condition {
        ConditionType::Ready | ConditionType::Eligible | ConditionType::Quarantined => None,
        ConditionType::Stalled => Some(standing.message.clone()),
        ConditionType::Reconciling => {
            let rollout = decision.plan.memory.rollout.as_ref();
            let soak = rollout.filter(|rollout| !rollout.complete).and_then(|rollout| rollout.soak_until);
            match soak {
                Some(until) if standing.reason == Hold::StageSoaking.as_str() => {
                    Some(format!("{until}: the soak ends"))
                }
                Some(_) | None => {
                    let ends = |(hold, what): (Hold, &str)| {
                        let until =
                            until(&decision.plan, hold).filter(|_| standing.reason == hold.as_str())?;
                        Some(format!("{until}: {what}"))
                    };
                    let timed =
                        [(Hold::OutsideWindow, "the window opens"), (Hold::Blackout, "the blackout ends")];
                    Some(timed.into_iter().find_map(ends).unwrap_or_else(|| standing.message.clone()))
                }
            }
        }
    }
}

/// The most frequent reason for which nodes wait. Who waits for its stage waits for what holds the
/// stages before.
fn main_hold(plan: &Plan) -> Option<Hold> {
    let holds: Vec<Hold> =
        holds(plan).into_iter().map(|count| count.reason).filter(|hold| waits(*hold)).collect();
    let cause = holds.iter().find(|hold| **hold != Hold::NotInStage);
    cause.or(holds.first()).copied()
}

fn nodes(count: u32) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") }
}

fn some_of<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let mut names: Vec<&str> = names.map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let more = names.len().saturating_sub(5);
    names.truncate(5);
    let shown = names.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
