//! What the patch server counts.

use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::FeedName;
use crate::state::Reason;
use crate::stock::Stock;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FeedReason {
    feed: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfFeed {
    feed: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u64,
}

/// What the patch server counts.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    state: Family<FeedReason, Gauge>,
    attempts: Family<FeedReason, Counter>,
    bytes: Family<OfFeed, Gauge>,
    verified: Family<OfFeed, Gauge>,
    timestamp: Family<OfFeed, Gauge>,
    requests: Family<Code, Counter>,
    sent: Counter<u64, AtomicU64>,
}

impl Metrics {
    /// Registers everything; names carry the prefix `invivo_`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "invivo_mirror_state",
            "1 for the reason with which the last attempt at a feed ended, 0 for the others",
            metrics.state.clone(),
        );
        registry.register(
            "invivo_mirror_attempts",
            "Attempts at a feed by outcome",
            metrics.attempts.clone(),
        );
        registry.register(
            "invivo_mirror_bytes",
            "Bytes of the kernel documents and bundles served of a feed",
            metrics.bytes.clone(),
        );
        registry.register(
            "invivo_mirror_verified_timestamp_seconds",
            "When what is served of a feed was last verified, or found to be what was verified",
            metrics.verified.clone(),
        );
        registry.register(
            "invivo_mirror_timestamp_version",
            "Version of the timestamp document served of a feed",
            metrics.timestamp.clone(),
        );
        registry.register(
            "invivo_mirror_requests",
            "Requests answered by status code",
            metrics.requests.clone(),
        );
        registry.register("invivo_mirror_sent_bytes", "Bytes of files handed out", metrics.sent.clone());
        registry.register(
            "invivo_build",
            "What is running",
            Info::new(vec![("component", "patch-server"), ("version", env!("CARGO_PKG_VERSION"))]),
        );
        metrics
    }

    pub(crate) fn attempt(&self, feed: &FeedName, outcome: Reason) {
        let labels = |reason: Reason| FeedReason { feed: feed.to_string(), reason: reason.as_str() };
        self.attempts.get_or_create(&labels(outcome)).inc();
        for reason in Reason::all() {
            self.state.get_or_create(&labels(reason)).set(i64::from(reason == outcome));
        }
    }

    pub(crate) fn stock(&self, feed: &FeedName, stock: &Stock, seen: Timestamp) {
        let labels = OfFeed { feed: feed.to_string() };
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.bytes.get_or_create(&labels).set(number(stock.bytes));
        self.verified.get_or_create(&labels).set(seen.as_second());
        self.timestamp.get_or_create(&labels).set(number(stock.timestamp_version));
    }

    pub(crate) fn forget(&self, feed: &FeedName) {
        let labels = OfFeed { feed: feed.to_string() };
        self.bytes.remove(&labels);
        self.verified.remove(&labels);
        self.timestamp.remove(&labels);
        for reason in Reason::all() {
            let labels = FeedReason { feed: feed.to_string(), reason: reason.as_str() };
            self.state.remove(&labels);
            self.attempts.remove(&labels);
        }
    }

    pub(crate) fn answered(&self, code: u16, bytes: u64) {
        self.requests.get_or_create(&Code { code: u64::from(code) }).inc();
        self.sent.inc_by(bytes);
    }
}
