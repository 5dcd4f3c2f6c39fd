//! What Prometheus sees of one node.

use std::sync::atomic::AtomicU64;

use invivo_terms::{NodeState, TargetState};
use invivo_wire::State;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KernelLabels {
    node: String,
    release: String,
    build_id: String,
    effective: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct StateLabel(NodeState);

impl EncodeLabelValue for StateLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: StateLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct TargetLabel(TargetState);

impl EncodeLabelValue for TargetLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabels {
    state: TargetLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: String,
}

/// Counters and gauges of one agent.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    kernel: Family<KernelLabels, Gauge>,
    level: Gauge,
    state: Family<StateLabels, Gauge>,
    targets: Family<TargetLabels, Gauge>,
    settled: Gauge,
    unpatched: Gauge,
    failures: Family<ReasonLabels, Counter>,
    status_writes: Counter,
    loader_up: Gauge,
    fence: Gauge,
    switch: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Puts them into a registry.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("invivo");
        registry.register(
            "agent_build",
            "The agent's version",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
        let node = registry.sub_registry_with_prefix("node");
        node.register("kernel", "1; the running kernel and its effective version", metrics.kernel.clone());
        node.register("level", "Level that the kernel shows as applied, 0 unpatched", metrics.level.clone());
        node.register("state", "1 for the state that the node is in", metrics.state.clone());
        node.register(
            "targets",
            "Kernel modules that the applied level changes, by how they stand",
            metrics.targets.clone(),
        );
        node.register("settled", "1 while the level comes back after a boot", metrics.settled.clone());
        node.register(
            "unpatched_seconds",
            "Seconds that the last boot ran without its settled level",
            metrics.unpatched.clone(),
        );
        node.register("failures", "Instructions that ended without success", metrics.failures.clone());
        node.register("switch_seconds", "From load to applied, the last time", metrics.switch.clone());
        let agent = registry.sub_registry_with_prefix("agent");
        agent.register("status_writes", "Writes of the NodePatch's status", metrics.status_writes.clone());
        agent.register("loader_up", "1 while the loader answers", metrics.loader_up.clone());
        agent.register(
            "admission_in_force",
            "1 once the admission policy was seen to hold",
            metrics.fence.clone(),
        );
        metrics
    }

    /// How things stand on the node.
    pub fn node(&self, name: &str, loader: &State, state: NodeState) {
        self.loader_up.set(1);
        self.kernel.clear();
        let labels = KernelLabels {
            node: name.to_owned(),
            release: loader.kernel.release.clone(),
            build_id: loader.kernel.build_id.to_string(),
            effective: loader.effective.clone(),
        };
        self.kernel.get_or_create(&labels).set(1);
        self.level.set(i64::from(loader.level.0));
        for one in NodeState::ALL {
            self.state.get_or_create(&StateLabels { state: StateLabel(one) }).set(i64::from(one == state));
        }
        for one in TargetState::ALL {
            let count = loader.targets.iter().filter(|target| target.state == one).count();
            let gauge = self.targets.get_or_create(&TargetLabels { state: TargetLabel(one) });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.settled.set(i64::from(loader.state == NodeState::Settled));
        self.unpatched.set(i64::from(loader.unpatched_seconds.unwrap_or(0)));
        if let Some(millis) = loader.switch_millis {
            self.switch.set(f64::from(millis) / 1000.0);
        }
    }

    /// The loader does not answer.
    pub fn loader_down(&self) {
        self.loader_up.set(0);
    }

    /// An instruction ended without success. Reasons are of closed lists, so they are few.
    pub fn failure(&self, reason: &str) {
        self.failures.get_or_create(&ReasonLabels { reason: reason.to_owned() }).inc();
    }

    /// The status was written.
    pub fn wrote_status(&self) {
        self.status_writes.inc();
    }

    /// Whether the admission policy holds.
    pub fn fence(&self, up: bool) {
        self.fence.set(i64::from(up));
    }
}
