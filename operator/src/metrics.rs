//! What is exported at `/metrics`. Labels come from enums and from names of our own objects only.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use invivo_api::GateOutcome;
use invivo_terms::{Block, Refusal};
use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::error::Category;
use crate::reason;

/// What happened to a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum WatchFault {
    /// It broke and is begun again.
    Interrupted,
    /// An object did not deserialise.
    Unreadable,
}

/// What the operator works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Work {
    /// A node's labels and NodePatch.
    Node,
    /// A feed's status and its sets.
    Feed,
    /// A policy's rollout.
    Policy,
}

/// A static name as a label value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name(pub &'static str);

impl EncodeLabelValue for Name {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyState {
    policy: String,
    state: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyVerdict {
    policy: String,
    verdict: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyName {
    policy: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FeedReason {
    feed: String,
    reason: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FeedName {
    feed: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabels {
    kind: String,
    fault: WatchFault,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindName {
    kind: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    kind: Work,
    category: Category,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    state: Name,
    reason: Name,
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Metrics {
    policy_nodes: Family<PolicyState, Gauge>,
    policy_stage: Family<PolicyName, Gauge>,
    policy_gates: Family<PolicyVerdict, Gauge>,
    feed_ready: Family<FeedReason, Gauge>,
    feed_refusals: Family<FeedReason, Counter>,
    feed_expires: Family<FeedName, Gauge>,
    feed_blocked: Family<FeedReason, Gauge>,
    rollout_started: Family<PolicyName, Gauge>,
    rollout_finished: Family<PolicyName, Gauge>,
    rollout_failed: Family<PolicyName, Gauge>,
    node_failures: Family<FailureLabels, Counter>,
    reconcile_errors: Family<ErrorLabels, Counter>,
    watch_faults: Family<FaultLabels, Counter>,
    unreadable_objects: Family<KindName, Gauge>,
    admission_in_force: Gauge,
    is_leader: Gauge,
}

impl Metrics {
    /// Makes everything visible in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("invivo");
        registry.register("policy_nodes", "Nodes of a policy by state", self.policy_nodes.clone());
        registry.register(
            "policy_stage",
            "Index of the stage that a rollout is in",
            self.policy_stage.clone(),
        );
        registry.register(
            "policy_gates",
            "Gates of the present stage by what they say",
            self.policy_gates.clone(),
        );
        registry.register(
            "feed_ready",
            "1 while a feed may be taken from, by reason",
            self.feed_ready.clone(),
        );
        registry.register(
            "feed_refusals",
            "Looks at a feed that ended in a refusal",
            self.feed_refusals.clone(),
        );
        registry.register(
            "feed_expires_timestamp_seconds",
            "When the first of a feed's documents expires; new loads stop then",
            self.feed_expires.clone(),
        );
        registry.register(
            "feed_blocked_sets",
            "Sets that a feed withholds, by reason",
            self.feed_blocked.clone(),
        );
        registry.register(
            "rollout_started",
            "Nodes instructed in the present rollout",
            self.rollout_started.clone(),
        );
        registry.register(
            "rollout_finished",
            "Of these, the ones that have ended",
            self.rollout_finished.clone(),
        );
        registry.register(
            "rollout_failed",
            "Of these, the ones that ended without success",
            self.rollout_failed.clone(),
        );
        registry.register(
            "node_failures",
            "Instructions that ended without success",
            self.node_failures.clone(),
        );
        registry.register("reconcile_errors", "Writes that did not happen", self.reconcile_errors.clone());
        registry.register(
            "watch_faults",
            "Watches broken and objects that could not be read",
            self.watch_faults.clone(),
        );
        registry.register(
            "unreadable_objects",
            "Objects that are there and cannot be read, by kind; a newer version wrote them",
            self.unreadable_objects.clone(),
        );
        registry.register(
            "admission_in_force",
            "1 while our admission policies hold",
            self.admission_in_force.clone(),
        );
        registry.register("is_leader", "1 while this replica decides", self.is_leader.clone());
    }

    /// How many of a policy's nodes are in a state.
    pub fn policy_nodes(&self, policy: &str, state: &'static str, nodes: u32) {
        let labels = PolicyState { policy: policy.to_owned(), state: Name(state) };
        self.policy_nodes.get_or_create(&labels).set(i64::from(nodes));
    }

    /// Where a policy's rollout is.
    pub fn rollout(&self, policy: &str, stage: Option<u32>, started: u32, finished: u32, failed: u32) {
        let labels = PolicyName { policy: policy.to_owned() };
        match stage {
            Some(stage) => drop(self.policy_stage.get_or_create(&labels).set(i64::from(stage))),
            None => drop(self.policy_stage.remove(&labels)),
        }
        self.rollout_started.get_or_create(&labels).set(i64::from(started));
        self.rollout_finished.get_or_create(&labels).set(i64::from(finished));
        self.rollout_failed.get_or_create(&labels).set(i64::from(failed));
    }

    /// What a policy's gates say.
    pub fn gates(&self, policy: &str, verdicts: &[GateOutcome]) {
        for verdict in GateOutcome::ALL {
            let labels = PolicyVerdict { policy: policy.to_owned(), verdict: Name(verdict.as_str()) };
            let count = verdicts.iter().filter(|one| **one == verdict).count();
            self.policy_gates.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A policy is gone.
    pub fn forget_policy(&self, policy: &str) {
        let labels = PolicyName { policy: policy.to_owned() };
        self.policy_stage.remove(&labels);
        self.rollout_started.remove(&labels);
        self.rollout_finished.remove(&labels);
        self.rollout_failed.remove(&labels);
        for verdict in GateOutcome::ALL {
            let labels = PolicyVerdict { policy: policy.to_owned(), verdict: Name(verdict.as_str()) };
            self.policy_gates.remove(&labels);
        }
        for state in crate::status::NODE_STATES {
            self.policy_nodes.remove(&PolicyState { policy: policy.to_owned(), state: Name(state) });
        }
    }

    /// Whether a feed may be taken from, and why.
    pub fn feed(&self, feed: &str, reason: &'static str, ready: bool) {
        self.forget_reasons(feed);
        let labels = FeedReason { feed: feed.to_owned(), reason: Name(reason) };
        self.feed_ready.get_or_create(&labels).set(i64::from(ready));
    }

    /// When what a feed has expires, and why it withholds what it does.
    pub fn feed_offers(&self, feed: &str, expires: Timestamp, blocks: impl Iterator<Item = Block>) {
        self.feed_expires.get_or_create(&FeedName { feed: feed.to_owned() }).set(expires.as_second());
        let mut counts = Block::ALL.iter().map(|block| (*block, 0)).collect::<BTreeMap<_, i64>>();
        for block in blocks {
            *counts.entry(block).or_default() += 1;
        }
        for (block, count) in counts {
            let labels = FeedReason { feed: feed.to_owned(), reason: Name(block.as_str()) };
            self.feed_blocked.get_or_create(&labels).set(count);
        }
    }

    /// A feed is gone.
    pub fn forget_feed(&self, feed: &str) {
        self.forget_reasons(feed);
        self.feed_expires.remove(&FeedName { feed: feed.to_owned() });
        for block in Block::ALL {
            self.feed_blocked.remove(&FeedReason { feed: feed.to_owned(), reason: Name(block.as_str()) });
        }
    }

    fn forget_reasons(&self, feed: &str) {
        let others = reason::Feed::ALL.iter().map(|reason| reason.as_str());
        for reason in Refusal::ALL.iter().map(|refusal| refusal.as_str()).chain(others) {
            self.feed_ready.remove(&FeedReason { feed: feed.to_owned(), reason: Name(reason) });
        }
    }

    /// A look at a feed ended in a refusal.
    pub fn feed_refused(&self, feed: &str, refusal: Refusal) {
        let labels = FeedReason { feed: feed.to_owned(), reason: Name(refusal.as_str()) };
        self.feed_refusals.get_or_create(&labels).inc();
    }

    /// A node's instruction ended without success. What is no named refusal counts as `Other`.
    pub fn node_failed(&self, state: invivo_terms::NodeState, reason: Option<&str>) {
        let named = Refusal::ALL.iter().find(|refusal| Some(refusal.as_str()) == reason);
        let reason = Name(named.map_or("Other", |refusal| refusal.as_str()));
        self.node_failures.get_or_create(&FailureLabels { state: Name(state.as_str()), reason }).inc();
    }

    /// A write did not happen.
    pub fn reconcile_error(&self, kind: Work, category: Category) {
        self.reconcile_errors.get_or_create(&ErrorLabels { kind, category }).inc();
    }

    /// Something was wrong with a watch.
    pub fn watch_fault(&self, kind: &str, fault: WatchFault) {
        self.watch_faults.get_or_create(&FaultLabels { kind: kind.to_owned(), fault }).inc();
    }

    /// How many objects of a kind cannot be read.
    pub fn unreadable(&self, kind: &'static str, objects: usize) {
        let objects = i64::try_from(objects).unwrap_or(i64::MAX);
        self.unreadable_objects.get_or_create(&KindName { kind: Name(kind) }).set(objects);
    }

    /// Whether our admission policies hold.
    pub fn admission(&self, in_force: bool) {
        self.admission_in_force.set(i64::from(in_force));
    }

    /// Whether this replica decides.
    pub fn leader(&self, is_leader: bool) {
        self.is_leader.set(i64::from(is_leader));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_has_one_reason_at_a_time() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        metrics.feed("production", "Verified", true);
        metrics.feed("production", "BelowThreshold", false);
        metrics.feed_refused("production", Refusal::BelowThreshold);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains(r#"invivo_feed_ready{feed="production",reason="BelowThreshold"} 0"#), "{text}");
        assert!(!text.contains(r#"reason="Verified""#), "{text}");
        assert!(
            text.contains(r#"invivo_feed_refusals_total{feed="production",reason="BelowThreshold"} 1"#),
            "{text}"
        );
    }

    #[test]
    fn gates_are_counted_by_what_they_say_until_their_policy_is_gone() {
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        metrics.gates("fleet", &[GateOutcome::Passed, GateOutcome::Failed, GateOutcome::Passed]);
        metrics.gates("fleet", &[GateOutcome::Passed, GateOutcome::Passed]);
        for line in [r#"verdict="Passed"} 2"#, r#"verdict="Failed"} 0"#, r#"verdict="Unknown"} 0"#] {
            assert!(text().contains(&format!(r#"invivo_policy_gates{{policy="fleet",{line}"#)), "{}", text());
        }
        metrics.forget_policy("fleet");
        assert!(!text().contains("fleet"), "{}", text());
    }
}
