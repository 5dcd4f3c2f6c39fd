//! One policy: observe, validate, plan, write the status, then the instructions.
//!
//! The order is what keeps two operators, or one that is killed half-way, from starting too much:
//! the status with the raised count goes first and only if the policy is still what was read;
//! only then come the instructions, each bound to the NodePatch that was read. What becomes of a
//! write that fails is the `wave` module's business.

use std::time::Duration;

use invivo_api::PatchPolicyStatus;
use invivo_rollout::Held;
use invivo_terms::Hold;
use jiff::Timestamp;
use kube::Resource;

use crate::context::{Context, Done};
use crate::deletion::{Deletion, Guard};
use crate::error::Error;
use crate::event;
use crate::gate;
use crate::observe::{FeedView, View, view};
use crate::status;
use crate::unreadable;
use crate::write;

/// Brings one policy a step further at `now`.
///
/// # Errors
///
/// The first write that did not happen. After a failed status write nothing is instructed.
pub async fn reconcile(context: &Context, name: &str, now: Timestamp) -> Result<Done, Error> {
    let turn = match context.stores.fleet_limit {
        Some(_) => Some(context.fleet.lock().await),
        None => None,
    };
    if let Some(policy) = context.stores.policies.unreadable_of(name) {
        return unreadable::say_policy(context, &policy, now).await;
    }
    let Some(view) = view(&context.stores, &context.sights, &context.gates, name, now) else {
        context.metrics.forget_policy(name);
        context.waves.take(name);
        context.shown.forget(name);
        context.stores.losses.forget(name);
        context.gates.want(name, Vec::new());
        return Ok(Done::default());
    };
    if matches!(view.feed, FeedView::Unseen) {
        // What an earlier process wrote stands until the feed has been looked at.
        return Ok(Done::default());
    }
    let wanted = status::of(&view, now);
    let present = view.policy.value.status.as_ref();
    let actions = view.decision.as_ref().is_ok_and(|decision| !decision.plan.actions.is_empty());
    // With actions it is written even if nothing differs: that proves that what was read still holds.
    let mut wave = context.waves.take(name).still(&view.policy, now);
    let differs = actions || present != Some(&wanted);
    let later = match present {
        Some(present) if differs && !actions && only_shows(context, present, &wanted) => {
            context.shown.not_before(name, now)
        }
        Some(_) | None => None,
    };
    if differs && later.is_none() {
        if let Err(error) = write_status(context, &view, &wanted).await {
            context.waves.keep(name, wave);
            return Err(error);
        }
        context.shown.wrote(name, now);
        let notes = event::of_policy(present, &wanted);
        event::publish(&context.recorder, &view.policy.value.object_ref(&()), &notes).await;
    }
    drop(turn);
    measure(context, name, &wanted);
    let Ok(decision) = &view.decision else {
        context.gates.want(name, Vec::new());
        return Ok(Done::wake_at(later, now));
    };
    // Once every stage is through and no gate holds a node, nothing is asked: that is rest.
    let gated = |held: &Held| matches!(held.hold, Hold::GateFailing | Hold::GateUnknown);
    let waits = decision.plan.holds.values().any(gated);
    let rollout = decision.plan.memory.rollout.as_ref().filter(|rollout| !rollout.complete || waits);
    let under_way = gate::Wanted::of(rollout, |stage| decision.checked.stage_name(stage));
    context.gates.want(name, gate::questions(&view.policy, under_way.as_ref()));
    // A count that is not written is none that a wave could be part of.
    if later.is_none() {
        wave.add(&view.policy, &wanted, decision);
    }
    let again = wave.write(context, &view.policy).await;
    context.waves.keep(name, wave);
    let mut wakes = vec![decision.plan.wake, decision.gates.wake, later];
    match &decision.deletion {
        Deletion::Alive { guard: Guard::PutOn } => guard(context, name, true).await?,
        Deletion::Alive { guard: Guard::TakeOff } | Deletion::Over { .. } => {
            guard(context, name, false).await?;
        }
        Deletion::RollingBack { wake, .. } => wakes.push(*wake),
        Deletion::Alive { guard: Guard::Leave } | Deletion::Leaving => {}
    }
    let done = Done::wake_at(wakes.into_iter().flatten().min(), now);
    // A stage has begun, and what its gates say is that they were asked about another one. Nothing else
    // may ever happen that would make the policy be looked at again.
    let asked_elsewhere = gate::asked_elsewhere(&decision.gates.gates, under_way.as_ref());
    Ok(if again? || asked_elsewhere { Done { wake: Some(GATHER), ..done } } else { done })
}

/// Whether nothing rests on the difference. How many nodes have ended is found again at every look;
/// but what is left of the fleet's limit is counted in the statuses of all policies.
fn only_shows(context: &Context, present: &PatchPolicyStatus, wanted: &PatchPolicyStatus) -> bool {
    let moving = |status: &PatchPolicyStatus| {
        let ended = status.rollout.as_ref().map(|rollout| rollout.finished);
        (ended, status.nodes.as_ref().map(|nodes| nodes.in_flight))
    };
    let limited = context.stores.fleet_limit.is_some();
    status::decide_alike(present, wanted) && (!limited || moving(present) == moving(wanted))
}

/// Puts the finalizer on or takes it off, on the policy as it is by now.
async fn guard(context: &Context, name: &str, guarded: bool) -> Result<(), Error> {
    match context.stores.policies.get(name) {
        Some(policy) => write::policy_finalizer(&context.client, &context.stores, &policy, guarded).await,
        None => Ok(()),
    }
}

/// Writes the status by compare-and-swap. An answer that was lost is not a write that was: without
/// looking again, the nodes that it counts would neither move nor be counted off before their deadline.
async fn write_status(context: &Context, view: &View, wanted: &PatchPolicyStatus) -> Result<(), Error> {
    let (client, stores) = (&context.client, &context.stores);
    match write::policy_status(client, stores, &view.policy, wanted).await {
        Err(error) if error.category().is_open() => {
            let policy = write::read_policy(client, stores, &view.policy.name).await?;
            let written = policy.uid == view.policy.uid && policy.value.status.as_ref() == Some(wanted);
            if written { Ok(()) } else { Err(error) }
        }
        answer => answer,
    }
}

fn measure(context: &Context, name: &str, status: &PatchPolicyStatus) {
    if let Some(nodes) = &status.nodes {
        let counts = [
            nodes.total,
            nodes.current,
            nodes.pending,
            nodes.in_flight,
            nodes.held,
            nodes.failed,
            nodes.unsupported,
        ];
        for (state, count) in status::NODE_STATES.into_iter().zip(counts) {
            context.metrics.policy_nodes(name, state, count);
        }
    }
    let verdicts: Vec<_> = status.gates.iter().map(|gate| gate.verdict).collect();
    context.metrics.gates(name, &verdicts);
    if let Some(rollout) = &status.rollout {
        let stage = status.stage.as_ref().map(|stage| stage.index);
        context.metrics.rollout(name, stage, rollout.started, rollout.finished, rollout.failed);
    }
}

/// How long changes are gathered before a policy is planned again.
pub const GATHER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod journeys;
#[cfg(test)]
pub(crate) mod tests;
