//! How many more may start now, and which kernel builds have shown that they may.
//!
//! # A kernel build's first node goes alone
//!
//! A build is proven by the policy's memory of this very level, or by a node on which the level
//! has held. How long is enough: as long as the longest soak of the stages before the one under
//! way. So
//!
//! - in the first stage the build's first node must only report Applied before the others of that
//!   stage start, within `maxParallel`: what the stage proves is proven by its soak, which nothing
//!   of a later stage precedes;
//! - a build that was in the stages before has held for their soaks when the next one begins, and
//!   nobody waits twice;
//! - a build that no stage before contained gets on one node what they would have given it. With
//!   `canary (30m)` and an implied `rest` without soak, a build that has no canary waits 30
//!   minutes after its first node instead of starting everywhere at once.
//!
//! Where no stage has a soak the people who wrote the policy asked for none: Applied suffices.
//! In an emergency (`expedite`) Applied suffices as well.
//!
//! What `None` takes off needs no proof. Nodes that are excused never block the others. While a node
//! was started that is not seen, as in an old view, no other build's first node starts.

use std::collections::BTreeMap;
use std::time::Duration;

use invivo_terms::BuildId;
use jiff::Timestamp;

use crate::rollout::saturate;
use crate::stage::after;
use crate::standing::{Judged, Standing};
use crate::{Memory, Parallel, Policy, RolloutMemory};

/// What is left to give out in this plan.
#[derive(Debug)]
pub(crate) struct Pace<'a> {
    /// Nodes that may start.
    pub(crate) slots: u32,
    /// Nodes that are midway and may go on in their slots.
    pub(crate) midway: u32,
    /// What each kernel build has shown; empty where no proof is needed.
    pub(crate) trials: BTreeMap<&'a BuildId, Trial>,
    /// The group that moves now, where the stage takes one after the other.
    pub(crate) domain: Domain<'a>,
}

/// Which group of nodes may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Domain<'a> {
    /// Every one.
    Any,
    /// One, and none is moving yet.
    Free(&'a str),
    /// This one: its value of this label.
    Busy(&'a str, &'a str),
    /// None: nodes of several are moving, or of one that is not seen.
    Shut,
}

impl<'a> Domain<'a> {
    /// Takes a node in, if it is of the group that may move.
    pub(crate) fn admit(&mut self, node: &Judged<'a>) -> bool {
        match *self {
            Self::Any => true,
            Self::Free(label) => {
                *self = Self::Busy(label, domain_of(node, label));
                true
            }
            Self::Busy(label, value) => domain_of(node, label) == value,
            Self::Shut => false,
        }
    }
}

/// A node's group; nodes without the label are one group.
pub(crate) fn domain_of<'a>(node: &Judged<'a>, label: &str) -> &'a str {
    node.node.domains.get(label).map_or("", String::as_str)
}

fn domain<'a>(
    policy: &'a Policy,
    rollout: &RolloutMemory,
    judged: &[Judged<'a>],
    now: Timestamp,
) -> Domain<'a> {
    let Some(label) = crate::stage::at(policy, rollout.stage).spread.as_deref() else { return Domain::Any };
    if crate::rollout::has_unseen(rollout, judged, now) {
        return Domain::Shut;
    }
    let mut domain = Domain::Free(label);
    let moves = |node: &&Judged<'_>| {
        node.open || matches!(node.standing, Standing::Moving { .. } | Standing::Midway | Standing::Unsteady)
    };
    for node in judged.iter().filter(moves) {
        if !domain.admit(node) {
            return Domain::Shut;
        }
    }
    domain
}

/// What a kernel build has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trial {
    /// The level has held.
    Proven,
    /// One node is on its way or has not held for long enough.
    Running {
        /// When it will have, if it has reported.
        until: Option<Timestamp>,
    },
    /// No node was tried.
    Open,
}

/// What the stage under way allows, less what is in flight.
pub(crate) fn pace<'a>(
    policy: &'a Policy,
    memory: &Memory,
    rollout: &RolloutMemory,
    judged: &[Judged<'a>],
    now: Timestamp,
) -> Pace<'a> {
    let allowed = match crate::stage::at(policy, rollout.stage).max_parallel {
        Parallel::Nodes(nodes) => nodes,
        Parallel::Percent(percent) => share(crate::stage::size(judged, rollout.stage), percent),
    };
    let number =
        |wanted: fn(&Judged<'_>) -> bool| saturate(judged.iter().filter(|node| wanted(node)).count());
    let open = number(|node| node.open);
    let midway = number(|node| node.open && node.standing == Standing::Midway);
    let earlier = number(|node| !node.open && matches!(node.standing, Standing::Moving { .. }));
    let in_flight = rollout.started.saturating_sub(rollout.finished).max(open).saturating_add(earlier);
    Pace {
        slots: allowed.saturating_sub(in_flight),
        midway: allowed.saturating_sub(open.saturating_sub(midway).saturating_add(earlier)),
        trials: trials(policy, memory, rollout, judged, now),
        domain: domain(policy, rollout, judged, now),
    }
}

/// Whether people asked for this rollout's soaks to be skipped, and that holds still.
pub(crate) fn is_expedited(policy: &Policy, rollout: &RolloutMemory, now: Timestamp) -> bool {
    let set = rollout.target.as_ref().map(|(set, _)| set);
    policy.expedite.as_ref().is_some_and(|expedite| Some(&expedite.set) == set && now < expedite.until)
}

fn share(nodes: u32, percent: u8) -> u32 {
    let share = u64::from(nodes) * u64::from(percent.min(100)) / 100;
    u32::try_from(share).unwrap_or(u32::MAX).max(1)
}

fn trials<'a>(
    policy: &Policy,
    memory: &Memory,
    rollout: &RolloutMemory,
    judged: &[Judged<'a>],
    now: Timestamp,
) -> BTreeMap<&'a BuildId, Trial> {
    let before = policy.stages.get(..rollout.stage).unwrap_or(&policy.stages);
    let soaks = before.iter().map(|stage| stage.soak).max().unwrap_or_default();
    let enough = if is_expedited(policy, rollout, now) { Duration::ZERO } else { soaks };
    let mut trials: BTreeMap<&BuildId, Trial> = BTreeMap::new();
    for node in judged {
        let Some((build, aim)) = node.build.zip(node.aim) else {
            continue;
        };
        let trial = trials.entry(build).or_insert_with(|| {
            let known =
                memory.proven.get(build).is_some_and(|(level, set)| *level == aim.level && set == aim.origin);
            if known { Trial::Proven } else { Trial::Open }
        });
        let shown = match node.standing {
            Standing::Done { held_since } => {
                let until = after(held_since, enough);
                let held = enough.is_zero() || until <= now;
                if held { Trial::Proven } else { Trial::Running { until: Some(until) } }
            }
            Standing::Moving { .. } | Standing::Midway | Standing::Unsteady => Trial::Running { until: None },
            Standing::Claimed
            | Standing::Failed(_)
            | Standing::Resting(..)
            | Standing::Excused(_)
            | Standing::Absent(_)
            | Standing::Pending(_) => continue,
        };
        *trial = more(*trial, shown);
    }
    if crate::rollout::has_unseen(rollout, judged, now) {
        // What another operator started may be any build's first node.
        for trial in trials.values_mut() {
            *trial = more(*trial, Trial::Running { until: None });
        }
    }
    trials
}

/// The one of the two that shows more.
fn more(one: Trial, other: Trial) -> Trial {
    match (one, other) {
        (Trial::Proven, Trial::Proven | Trial::Running { .. } | Trial::Open)
        | (Trial::Running { .. } | Trial::Open, Trial::Proven) => Trial::Proven,
        (Trial::Running { until: one }, Trial::Running { until: other }) => {
            Trial::Running { until: one.into_iter().chain(other).min() }
        }
        (Trial::Running { until }, Trial::Open) | (Trial::Open, Trial::Running { until }) => {
            Trial::Running { until }
        }
        (Trial::Open, Trial::Open) => Trial::Open,
    }
}
