//! Turns changes into work, and does the work while this replica may.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::admission::Admission;
use crate::context::{Context, Done, whole_seconds};
use crate::error::Error;
use crate::event::{self, Failure};
use crate::metrics::Work;
use crate::queue::Queue;
use crate::signal::{Signal, Signals};
use crate::{feed, node, policy, record};

/// How many keys are worked on at the same time.
const AT_ONCE: usize = 16;

/// How many nodes that have failed are told of when work begins.
const CAUGHT_UP: usize = 1000;

/// How long reports are gathered before a feed's sets are counted again.
const COUNT_AFTER: Duration = Duration::from_secs(2);

/// One thing to bring up to date.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Feed(String),
    Node(String),
    Policy(String),
}

impl Key {
    const fn work(&self) -> Work {
        match self {
            Self::Feed(_) => Work::Feed,
            Self::Node(_) => Work::Node,
            Self::Policy(_) => Work::Policy,
        }
    }

    /// A decision does not wait behind what is written down about each node.
    const fn decides(&self) -> bool {
        matches!(self, Self::Policy(_))
    }

    fn name(&self) -> &str {
        match self {
            Self::Feed(name) | Self::Node(name) | Self::Policy(name) => name,
        }
    }
}

/// What must be true before anything is written.
#[derive(Clone)]
pub struct Leave {
    /// This replica holds the lease.
    pub leader: watch::Receiver<bool>,
    /// Our admission policies hold.
    pub admission: watch::Receiver<Admission>,
}

impl Leave {
    fn given(&self, context: &Context) -> bool {
        *self.leader.borrow() && self.admission.borrow().in_force() && context.stores.incomplete().is_empty()
    }
}

/// Works until `stop` turns true.
pub async fn run(
    context: Arc<Context>,
    signals: Arc<Signals>,
    mut leave: Leave,
    mut failures: mpsc::Receiver<Failure>,
    mut stop: watch::Receiver<bool>,
) {
    let mut queue = Queue::new(Key::decides);
    let mut running = FuturesUnordered::new();
    let mut given = false;
    loop {
        expand(&context, &mut queue, signals.take());
        let was = std::mem::replace(&mut given, leave.given(&context));
        if given && !was {
            tracing::info!("work begins");
            everything(&context, &mut queue);
            let context = Arc::clone(&context);
            tokio::spawn(async move { catch_up(&context, Timestamp::now()).await });
        } else if was && !given {
            tracing::warn!("work stops: no lease, or the admission policies are not in force");
        }
        while given && running.len() < AT_ONCE {
            let Some(key) = queue.take(Instant::now()) else { break };
            running.push(work(&context, key));
        }
        let due = queue.next().filter(|_| given && running.len() < AT_ONCE);
        tokio::select! {
            biased;
            _ = stop.changed() => break,
            Some((key, ended)) = running.next(), if !running.is_empty() => finish(&context, &mut queue, key, ended),
            () = signals.heard() => {}
            Ok(()) = leave.leader.changed() => {}
            Ok(()) = leave.admission.changed() => {}
            Some(failure) = failures.recv() => if given {
                event::publish_once(&context.client, &context.reporter, &failure, Timestamp::now()).await;
            },
            () = sleep_until(due) => {}
        }
    }
    // What has begun ends: a wave is not left half-written if that can be helped.
    let rest = async { while running.next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(5), rest).await.is_err() {
        tracing::warn!("stopped with writes under way");
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn work(context: &Context, key: Key) -> (Key, Result<Done, Error>) {
    let now = whole_seconds(Timestamp::now());
    let ended = match &key {
        Key::Feed(name) => feed::reconcile(context, name, now).await,
        Key::Node(name) => node::reconcile(context, name).await,
        // What speaks against a set is written down before anything is done about a node.
        Key::Policy(name) => match record::evidence(context, now).await {
            Ok(()) => policy::reconcile(context, name, now).await,
            Err(error) => Err(error),
        },
    };
    (key, ended)
}

fn finish(context: &Context, queue: &mut Queue<Key>, key: Key, ended: Result<Done, Error>) {
    let now = Instant::now();
    match ended {
        Ok(done) => {
            if done.policies {
                all_policies(context, queue, now);
            }
            queue.done(key, done.wake.map(|wake| now + wake));
        }
        Err(error) => {
            let category = error.category();
            context.metrics.reconcile_error(key.work(), category);
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::warn!(kind = ?key.work(), name = key.name(), ?category, %error, source, "write did not happen");
            if let Key::Feed(_) = &key {
                // What the feed offers may be usable although not all about it is written down.
                all_policies(context, queue, now);
            }
            queue.failed(key, now);
        }
    }
}

/// Tells of the nodes that failed while nobody worked, or nobody said so any more: those that somebody
/// has told of are not told again.
pub(crate) async fn catch_up(context: &Context, now: Timestamp) {
    let found = context.stores.patches.all();
    let failures = found.iter().filter_map(|patch| event::of_node_found(patch, now)).take(CAUGHT_UP);
    for failure in failures {
        event::publish_once(&context.client, &context.reporter, &failure, now).await;
    }
}

fn everything(context: &Context, queue: &mut Queue<Key>) {
    let now = Instant::now();
    let (feeds, policies) = (&context.stores.feeds, &context.stores.policies);
    let names = feeds.all().into_iter().map(|feed| feed.name);
    for name in names.chain(feeds.unreadable().into_iter().map(|feed| feed.name)) {
        queue.add(Key::Feed(name), now);
    }
    for policy in policies.unreadable() {
        queue.add(Key::Policy(policy.name), now);
    }
    for node in context.stores.nodes.all() {
        queue.add(Key::Node(node.name), now);
    }
    all_policies(context, queue, now);
}

fn all_policies(context: &Context, queue: &mut Queue<Key>, now: Instant) {
    for policy in context.stores.policies.all() {
        queue.add(Key::Policy(policy.name), now + policy::GATHER);
    }
}

/// Which work follows from these changes.
fn expand(context: &Context, queue: &mut Queue<Key>, signals: std::collections::BTreeSet<Signal>) {
    let now = Instant::now();
    let mut count_sets = false;
    let mut plan = false;
    for signal in signals {
        match signal {
            Signal::Feed(name) | Signal::Sight(name) => {
                queue.add(Key::Feed(name), now);
                // What it takes in, others may take from it.
                for feed in context.stores.feeds.all() {
                    if feed.value.spec.source.feed.is_some() {
                        queue.add(Key::Feed(feed.name), now);
                    }
                }
                plan = true;
            }
            Signal::Policy(name) => {
                // One policy's wish may move a node from or to another.
                queue.add(Key::Policy(name), now);
                plan = true;
                for node in context.stores.nodes.all() {
                    queue.add(Key::Node(node.name), now);
                }
            }
            Signal::Set(name) => {
                // Decisions and verdicts are part of what the feed offers, and those over it.
                if let Some((feed, _)) = feed_and_set(&name) {
                    queue.add(Key::Feed(feed.to_owned()), now + COUNT_AFTER);
                }
                plan = true;
            }
            Signal::Patch(name) => {
                queue.add(Key::Node(name), now);
                plan = true;
                count_sets = true;
            }
            Signal::Node(name) => {
                queue.add(Key::Node(name), now);
                plan = true;
            }
            Signal::Gate(policy) => queue.add(Key::Policy(policy), now),
        }
    }
    if plan {
        all_policies(context, queue, now);
    }
    if count_sets {
        for feed in context.stores.feeds.all() {
            queue.add(Key::Feed(feed.name), now + COUNT_AFTER);
        }
    }
}

/// `production.2026-11-21.1` is set `2026-11-21.1` of feed `production`; a feed's name may hold dots.
fn feed_and_set(name: &str) -> Option<(&str, &str)> {
    let (head, _) = name.rsplit_once('.')?;
    let (feed, _) = head.rsplit_once('.')?;
    Some((feed, name.get(feed.len() + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn policies_look_again_although_not_all_about_their_feed_could_be_written() {
        let fake = crate::fake::Fake::default();
        fake.put(
            "/apis/invivo.dev/v1alpha1/patchpolicies/workers",
            serde_json::json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "PatchPolicy", "metadata": {},
                "spec": {"feed": "production"}}),
        );
        let (context, mut queue) = (fake.operator(), Queue::new(Key::decides));
        let feed = Key::Feed("production".to_owned());
        queue.add(feed.clone(), Instant::now());
        assert_eq!(queue.take(Instant::now()), Some(feed.clone()));
        let source = Box::new(kube::Error::LinesCodecMaxLineLengthExceeded);
        finish(
            &context,
            &mut queue,
            feed,
            Err(Error::CreatePatchSet { name: "production.2026-11-21.1".to_owned(), source }),
        );
        assert_eq!(queue.take(Instant::now() + policy::GATHER), Some(Key::Policy("workers".to_owned())));
    }

    #[test]
    fn a_sets_name_tells_its_feed() {
        assert_eq!(feed_and_set("production.2026-11-21.1"), Some(("production", "2026-11-21.1")));
        assert_eq!(feed_and_set("a.b.2026-11-21.1"), Some(("a.b", "2026-11-21.1")));
        assert_eq!(feed_and_set("nonsense"), None);
    }
}
