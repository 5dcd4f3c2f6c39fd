//! One policy: observe, validate, plan, write the status, then the instructions.
//!
//! The order is what keeps two operators, or one that is killed half-way, from starting too much:
//! the status with the raised count goes first and only if the policy is still what was read;
//! only then come the instructions, each bound to the NodePatch that was read.

use std::time::Duration;

use futures::{StreamExt, stream};
use invivo_api::{Apply, HoldInstruction, NodePatchSpec, OnNode, PatchPolicyStatus, RollBack};
use invivo_rollout::Instruction;
use invivo_terms::{HumanDuration, Revision};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;

use crate::context::{Context, Done};
use crate::error::{Category, Error};
use crate::event;
use crate::observe::{Decision, FeedView, View, view};
use crate::seen::SeenPatch;
use crate::status;
use crate::store::Entry;
use crate::write;

/// How many instructions are written at the same time.
const WRITES_AT_ONCE: usize = 16;

/// How often one instruction is tried within one decision.
const ATTEMPTS: u32 = 3;

/// Brings one policy a step further at `now`.
///
/// # Errors
///
/// The first write that did not happen. After a failed status write nothing is instructed.
pub async fn reconcile(context: &Context, name: &str, now: Timestamp) -> Result<Done, Error> {
    let Some(view) = view(&context.stores, &context.sights, name, now) else {
        context.metrics.forget_policy(name);
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
    if actions || present != Some(&wanted) {
        write_status(context, &view, &wanted).await?;
        let notes = event::of_policy(present, &wanted);
        event::publish(&context.recorder, &view.policy.value.object_ref(&()), &notes).await;
    }
    measure(context, name, &wanted);
    let Ok(decision) = &view.decision else { return Ok(Done::default()) };
    instruct(context, &view, decision).await?;
    Ok(Done::wake_at(decision.plan.wake, now))
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

async fn instruct(context: &Context, view: &View, decision: &Decision) -> Result<(), Error> {
    let writes = decision.plan.actions.iter().filter_map(|(node, instruction)| {
        let patch = decision.patches.get(node)?;
        Some(async move {
            let revision = write_instruction(context, view, patch, instruction).await?;
            tracing::info!(policy = view.policy.name, node, revision = revision.0, "instructed");
            Ok(())
        })
    });
    let results: Vec<Result<(), Error>> =
        stream::iter(writes).buffer_unordered(WRITES_AT_ONCE).collect().await;
    results.into_iter().collect()
}

/// Gives one node its instruction. The node's agent writes to the same object, so that the first
/// attempt may meet another version; as long as nothing that the decision rests on is different,
/// it is made again. An answer that was lost is looked up.
async fn write_instruction(
    context: &Context,
    view: &View,
    planned: &Entry<SeenPatch>,
    instruction: &Instruction,
) -> Result<Revision, Error> {
    let mut patch = planned.clone();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let spec = next_spec(view, &patch, instruction);
        let error = match write::instruct(&context.client, &context.stores, &patch, &spec).await {
            Ok(()) => return Ok(spec.revision),
            Err(error) => error,
        };
        let conflict = error.category() == Category::Conflict;
        if attempt >= ATTEMPTS || !(conflict || error.category().is_open()) {
            return Err(error);
        }
        let found = write::read_patch(&context.client, &context.stores, &patch.name).await?;
        if found.uid == patch.uid && found.value.spec == spec {
            return Ok(spec.revision);
        }
        if !is_as_planned(planned, &found) {
            return Err(error);
        }
        patch = found;
    }
}

/// Whether what a decision rests on is still so: the same object with the same instruction, on a
/// node that has neither booted nor changed its level since.
fn is_as_planned(planned: &Entry<SeenPatch>, found: &Entry<SeenPatch>) -> bool {
    let facts = |entry: &Entry<SeenPatch>| {
        let status = entry.value.status.clone().unwrap_or_default();
        (status.boot_id, status.kernel.map(|kernel| kernel.build_id), status.level, status.set, status.state)
    };
    planned.uid == found.uid
        && planned.value.owner == found.value.owner
        && planned.value.spec == found.value.spec
        && facts(planned) == facts(found)
}

/// The spec that gives this instruction, with the next revision.
fn next_spec(view: &View, patch: &Entry<SeenPatch>, instruction: &Instruction) -> NodePatchSpec {
    let observed = patch.value.status.as_ref().map_or(Revision(0), |status| status.observed_revision);
    let mut spec = NodePatchSpec {
        revision: patch.value.spec.revision.max(observed).next(),
        policy: Some(view.policy.name.clone()),
        feed: Some(view.policy.value.spec.feed.clone()),
        apply: None,
        roll_back: None,
        hold: None,
    };
    match instruction {
        Instruction::Apply(apply) => {
            let (level, set) = apply.from.clone();
            spec.apply = Some(Apply {
                build_id: apply.build_id.clone(),
                level: apply.level,
                set: apply.set.clone(),
                digest: apply.digest.clone(),
                manifest: apply.manifest.clone(),
                mechanism: apply.mechanism,
                deadline: Time(apply.deadline),
                settle_after: HumanDuration::from_secs(apply.settle_after.as_secs()),
                from: Some(OnNode { level, set }),
                attempt: apply.attempt,
            });
        }
        Instruction::RollBack { deadline, attempt } => {
            spec.roll_back = Some(RollBack { deadline: Time(*deadline), attempt: *attempt });
        }
        Instruction::Hold => spec.hold = Some(HoldInstruction {}),
    }
    spec
}

fn measure(context: &Context, name: &str, status: &PatchPolicyStatus) {
    if let Some(nodes) = &status.nodes {
        let counts =
            [nodes.total, nodes.current, nodes.pending, nodes.in_flight, nodes.failed, nodes.unsupported];
        for (state, count) in status::NODE_STATES.into_iter().zip(counts) {
            context.metrics.policy_nodes(name, state, count);
        }
    }
    if let Some(rollout) = &status.rollout {
        let stage = status.stage.as_ref().map(|stage| stage.index);
        context.metrics.rollout(name, stage, rollout.started, rollout.finished, rollout.failed);
    }
}

/// How long changes are gathered before a policy is planned again.
pub const GATHER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
