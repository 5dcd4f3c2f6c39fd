//! Objects that are there and cannot be read, as those that a newer version wrote.
//!
//! Nothing rests on them, and nothing is done that they might speak against: a set halts every feed, a
//! feed itself and those over it, a policy every other one, for it may claim their nodes; a node whose
//! NodePatch cannot be read is told nothing. Nothing is written over what is not understood, except, on
//! feeds and policies, the conditions that say so.

use invivo_api::{ConditionType, PatchFeed, PatchPolicy, condition, set_conditions};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::context::{Context, Done};
use crate::error::Error;
use crate::event;
use crate::seen::Seen;
use crate::store::Unreadable;
use crate::write::{self, Conditions};

/// The reason of conditions that tell of it.
pub const UNREADABLE: &str = "Unreadable";

/// Says on a policy that it cannot be read.
///
/// # Errors
///
/// What was not read or written.
pub async fn say_policy(context: &Context, policy: &Unreadable, now: Timestamp) -> Result<Done, Error> {
    say::<PatchPolicy>(context, policy, now).await
}

/// Says on a feed that it cannot be read.
///
/// # Errors
///
/// What was not read or written.
pub async fn say_feed(context: &Context, feed: &Unreadable, now: Timestamp) -> Result<Done, Error> {
    say::<PatchFeed>(context, feed, now).await
}

async fn say<T: Seen>(context: &Context, unreadable: &Unreadable, now: Timestamp) -> Result<Done, Error> {
    let Some(present) = write::read_conditions::<T>(&context.client, unreadable).await? else {
        return Ok(Done::default());
    };
    let conditions = conditions(&present, unreadable, now);
    if conditions != present.conditions {
        write::conditions::<T>(&context.client, unreadable, &present, &conditions).await?;
        let notes = event::of_feed(&present.conditions, &conditions);
        event::publish(&context.recorder, &present.about, &notes).await;
    }
    Ok(Done::default())
}

fn conditions(present: &Conditions, unreadable: &Unreadable, now: Timestamp) -> Vec<Condition> {
    let message = format!("{unreadable}; nothing starts, nothing is taken off");
    let new = [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled].map(|kind| {
        let truth = kind == ConditionType::Stalled;
        condition(kind, truth, UNREADABLE, &message, present.generation, Time(now))
    });
    set_conditions(&present.conditions, new.to_vec())
}

#[cfg(test)]
mod tests;
