//! One feed: its conditions, its floors, what it withholds, its sets.

use std::sync::Arc;

use invivo_api::{
    BlockedSet, ConditionType, CoveredKernel, PatchFeedStatus, RepositoryStatus, condition, set_conditions,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Resource;

use crate::context::{Context, Done, whole_seconds};
use crate::error::Error;
use crate::event;
use crate::observe::Stores;
use crate::offer::{Blocks, Halt, Source};
use crate::record;
use crate::set;
use crate::sight::{Verdict, Verified};
use crate::unreadable::{self, UNREADABLE};
use crate::write;

/// How many withheld sets a status names.
const BLOCKED: usize = 64;

/// Writes down what is known of one feed at `now`.
///
/// # Errors
///
/// The write that did not happen.
pub async fn reconcile(context: &Context, name: &str, now: Timestamp) -> Result<Done, Error> {
    let stores = &context.stores;
    if let Some(feed) = stores.feeds.unreadable_of(name) {
        context.metrics.feed(name, UNREADABLE, false);
        return unreadable::say_feed(context, &feed, now).await;
    }
    let Some(feed) = stores.feeds.get(name) else {
        context.metrics.forget_feed(name);
        set::prune_all(context, name).await?;
        return Ok(Done::default());
    };
    record::evidence(context, now).await?;
    let source = Source::of(stores, &context.sights, feed.clone());
    let unseen = source.as_ref().is_ok_and(Source::is_unseen);
    let standing = match &source {
        Err(halt) => Standing::halted(halt),
        Ok(source) => match source.suspended() {
            Some(halt) => Standing::halted(&halt),
            // What was known before stands until something is known of this root.
            None if unseen => return Ok(Done::default()),
            None => Standing::judged(&source.sight.verdict(now)),
        },
    };
    let old = feed.value.status.clone().unwrap_or_default();
    let generation = feed.value.metadata.generation;
    let known = source.as_ref().ok().filter(|_| !unseen).and_then(|source| {
        // One with a repository of its own writes down the floors of what it has just verified.
        let verified = if source.is_root() { source.sight.verified.clone() } else { source.stored() }?;
        Some(Known { blocks: source.blocks(stores, &verified, now), own: source.is_root(), verified })
    });
    let base = known.as_ref().map_or_else(|| old.clone(), |known| known.status(stores, old.clone()));
    let wanted = PatchFeedStatus {
        observed_generation: generation,
        conditions: conditions(&old.conditions, &standing, generation, now),
        ..base
    };
    context.metrics.feed(name, standing.reason, standing.allows);
    if feed.value.status.as_ref() != Some(&wanted) {
        write::feed_status(&context.client, stores, &feed, &wanted).await?;
        let notes = event::of_feed(&old.conditions, &wanted.conditions);
        event::publish(&context.recorder, &feed.value.object_ref(&()), &notes).await;
    }
    let mut done = Done::default();
    if let Some(Known { verified, blocks, own }) = &known {
        let behind = source.as_ref().map(|source| source.sight.behind).unwrap_or_default();
        let expires = verified.expires;
        context.metrics.feed_offers(name, expires, blocks.values().map(|why| why.block()));
        let fresh = *own && !source.is_ok_and(|source| source.sight.stored.as_ref() == Some(verified));
        if *own {
            context.sights.stored(name, verified);
        }
        set::reconcile_all(context, name, verified, blocks, now).await?;
        let ends = blocks.values().filter_map(|why| why.until()?.checked_add(behind).ok());
        let next = ends.chain([verified.warns, expires]).filter(|at| *at > now).min();
        done = Done::wake_at(next, now);
        done.policies = fresh;
    }
    done.policies |= event_reason(&old.conditions) != event_reason(&wanted.conditions)
        || old.blocked != wanted.blocked
        || old.latest_set != wanted.latest_set;
    Ok(done)
}

fn event_reason(conditions: &[Condition]) -> Option<&str> {
    conditions.first().map(|condition| condition.reason.as_str())
}

/// How a feed stands: one of the three conditions is true, and why.
struct Standing {
    condition: ConditionType,
    reason: &'static str,
    message: String,
    /// New loads may start.
    allows: bool,
}

impl Standing {
    fn halted(halt: &Halt) -> Self {
        Self {
            condition: ConditionType::Stalled,
            reason: halt.reason(),
            message: halt.to_string(),
            allows: false,
        }
    }

    fn judged(verdict: &Verdict) -> Self {
        let (condition, message) = match verdict {
            Verdict::Verified => (ConditionType::Ready, "the mirror is what the repository's owner signed"),
            Verdict::ExpiresSoon { message } => (ConditionType::Ready, message.as_str()),
            Verdict::Pending { message } => (ConditionType::Reconciling, message.as_str()),
            Verdict::Unreachable { message, .. } | Verdict::Refused { message, .. } => {
                (ConditionType::Stalled, message.as_str())
            }
        };
        Self { condition, reason: verdict.reason(), message: message.to_owned(), allows: verdict.allows() }
    }
}

/// `Ready`, `Reconciling`, `Stalled`, with the same reason for all three.
fn conditions(
    old: &[Condition],
    standing: &Standing,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let Standing { condition: true_one, reason, message, .. } = standing;
    let new = [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled]
        .into_iter()
        .map(|kind| condition(kind, kind == *true_one, reason, message, generation, Time(now)))
        .collect();
    set_conditions(old, new)
}

/// What is known of a feed's repository, and what the feed makes of it.
struct Known {
    verified: Arc<Verified>,
    blocks: Blocks,
    /// The repository is its own, not another feed's.
    own: bool,
}

impl Known {
    /// Floors, newest set, kernels and what is withheld.
    fn status(&self, stores: &Stores, old: PatchFeedStatus) -> PatchFeedStatus {
        let Self { verified, blocks, own } = self;
        let name = verified.floors.repository.clone().filter(|_| *own);
        PatchFeedStatus {
            repository: name.map(|name| RepositoryStatus {
                root_sha256: Some(verified.root.clone()),
                name,
                trust_version: verified.floors.trust,
                index_version: verified.floors.index,
                timestamp_version: verified.floors.timestamp,
                expires: Time(whole_seconds(verified.expires)),
            }),
            latest_set: verified.latest(blocks).map(|set| set.name.clone()),
            kernels: self.kernels(stores),
            blocked: self.blocked(),
            ..old
        }
    }

    /// The sets that are withheld, the newest first.
    fn blocked(&self) -> Vec<BlockedSet> {
        let newest = self.verified.index.sets.iter().rev();
        let blocked = newest.filter_map(|set| Some((set, self.blocks.get(&set.name)?)));
        let blocked = blocked.map(|(set, why)| BlockedSet {
            set: set.name.clone(),
            reason: why.block(),
            until: why.until().map(|until| Time(whole_seconds(until))),
        });
        blocked.take(BLOCKED).collect()
    }

    /// The kernel builds of this fleet, those of most nodes first.
    fn kernels(&self, stores: &Stores) -> Vec<CoveredKernel> {
        let mut kernels: Vec<CoveredKernel> = stores
            .builds()
            .into_iter()
            .map(|(build_id, (release, nodes))| {
                let level = self.verified.level(&build_id, &self.blocks);
                CoveredKernel {
                    covered: self.verified.index.kernels.contains_key(&build_id),
                    effective: level.and_then(|level| self.verified.effective(&build_id, level)),
                    level,
                    build_id,
                    release,
                    nodes,
                }
            })
            .collect();
        kernels.sort_by(|a, b| b.nodes.cmp(&a.nodes).then_with(|| a.build_id.cmp(&b.build_id)));
        kernels.truncate(64);
        kernels
    }
}

#[cfg(test)]
mod tests;
