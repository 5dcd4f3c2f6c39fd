//! The whole plan, node by node, as it is served at `/plan/<policy>`.

use invivo_api::{HoldCount, RolloutStatus, StageStatus};
use invivo_rollout::Instruction;
use invivo_terms::{Hold, Level, NodeState, SetName};
use jiff::Timestamp;
use serde::Serialize;

use crate::observe::{Decision, FeedView, Stores, View};
use crate::reason;
use crate::status;

/// The plan of one policy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The policy.
    pub policy: String,
    /// When it was made.
    pub now: Timestamp,
    /// Its feed.
    pub feed: String,
    /// What may be done with that: the reason of its conditions.
    pub feed_reason: &'static str,
    /// How the policy stands: the reason of its conditions.
    pub reason: &'static str,
    /// The same for people, with what to do.
    pub message: String,
    /// The rollout under way, or the last one.
    pub rollout: Option<RolloutStatus>,
    /// Its stage.
    pub stage: Option<StageStatus>,
    /// Why nodes are not moving.
    pub holds: Vec<HoldCount>,
    /// When it is looked at again even if nothing changes.
    pub wake: Option<Timestamp>,
    /// Every node.
    pub nodes: Vec<NodeReport>,
}

/// What is planned for one node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// The node.
    pub name: String,
    /// Its stage.
    pub stage: String,
    /// `Apply`, `RollBack`, `InFlight`, `Done`, `Hold`.
    pub decision: &'static str,
    /// The level that it is brought to, where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_level: Option<Level>,
    /// The set that this level comes with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_set: Option<SetName>,
    /// Why it is left alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// What a person can check or do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
    /// When that may end by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The level that it reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// What a scanner may believe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective: Option<String>,
    /// What became of its instruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<NodeState>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Report {
    /// The report of this view.
    pub fn of(stores: &Stores, view: &View, now: Timestamp) -> Self {
        let status = status::of(view, now);
        let standing = status::standing(view);
        let decision = view.decision.as_ref().ok();
        Self {
            policy: view.policy.name.clone(),
            now,
            feed: view.policy.value.spec.feed.clone(),
            feed_reason: match &view.feed {
                FeedView::Missing => reason::Feed::FeedNotFound.as_str(),
                FeedView::Halted(halt) => halt.reason(),
                FeedView::Unseen => reason::Feed::Pending.as_str(),
                FeedView::Known { verdict, .. } => verdict.reason(),
            },
            reason: standing.reason,
            message: standing.message,
            rollout: status.rollout,
            stage: status.stage,
            holds: status.holds,
            wake: decision.and_then(|decision| decision.plan.wake),
            nodes: decision.map(|decision| nodes(stores, decision)).unwrap_or_default(),
        }
    }
}

fn nodes(stores: &Stores, decision: &Decision) -> Vec<NodeReport> {
    let plan = &decision.plan;
    decision
        .world
        .nodes
        .iter()
        .map(|(name, node)| {
            let answer =
                stores.patches.get(name).and_then(|patch| patch.value.status.clone()).unwrap_or_default();
            let seen = node.report.as_ref();
            let held = plan.holds.get(name);
            let instruction = plan.actions.get(name).or_else(|| {
                node.spec.as_ref().map(|spec| &spec.instruction).filter(|_| plan.in_flight.contains(name))
            });
            let (decided, to) = match (instruction, held) {
                (Some(instruction), _) => decided(instruction, plan.actions.contains_key(name)),
                (None, Some(_)) => ("Hold", None),
                (None, None) => ("Done", None),
            };
            NodeReport {
                name: name.clone(),
                stage: decision
                    .checked
                    .stage_name(plan.stages.get(name).copied().unwrap_or(node.stage))
                    .to_owned(),
                decision: decided,
                to_level: to.as_ref().map(|(level, _)| *level),
                to_set: to.and_then(|(_, set)| set),
                hold: held.map(|held| held.hold),
                remedy: held.map(|held| held.hold.remedy()),
                until: held.and_then(|held| held.until),
                level: seen.map(|report| report.level),
                effective: seen.and(answer.effective),
                state: seen.map(|report| report.state),
                reason: seen.and(answer.reason),
                message: seen.and(answer.message),
            }
        })
        .collect()
}

type Destination = Option<(Level, Option<SetName>)>;

fn decided(instruction: &Instruction, new: bool) -> (&'static str, Destination) {
    match instruction {
        Instruction::Apply(apply) => {
            (if new { "Apply" } else { "InFlight" }, Some((apply.level, Some(apply.set.clone()))))
        }
        Instruction::RollBack { .. } => {
            (if new { "RollBack" } else { "InFlight" }, Some((Level::UNPATCHED, None)))
        }
        Instruction::Hold => ("Hold", None),
    }
}
