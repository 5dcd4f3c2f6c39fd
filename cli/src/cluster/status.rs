//! `status`: how far policies, feeds and nodes are.

use std::fmt;

use invivo_api::{CANARY_PATCH, HoldCount, NodePatch, PatchFeed, PatchPolicy};
use invivo_terms::{Level, NodeState, SetName};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::Value;

use super::connect::Cluster;
use super::stop::told;
use super::unseen::Unseen;
use crate::table::{Table, counted, printable};
use crate::time::relative;

/// How far everything is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// When this was read.
    pub now: Timestamp,
    /// The emergency stop that is in force: its `user`, `since` and `reason`.
    pub emergency_stop: Option<Value>,
    /// The policies.
    pub policies: Vec<PolicyLine>,
    /// The feeds.
    pub feeds: Vec<FeedLine>,
    /// The nodes.
    pub nodes: Vec<NodeLine>,
}

/// One policy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyLine {
    /// Its name.
    pub name: String,
    /// What is asked for: `Latest`, `None` or a set.
    pub target: String,
    /// What that means now.
    pub resolved: Option<String>,
    /// Nodes at the target.
    pub current: u32,
    /// Nodes governed.
    pub total: u32,
    /// Nodes that are left alone, each for a reason in `holds`.
    pub held: u32,
    /// Nodes that ended without success.
    pub failed: u32,
    /// The stage.
    pub stage: Option<String>,
    /// `True`, `False`, `Unknown`.
    pub ready: String,
    /// Why.
    pub reason: String,
    /// The same for people.
    pub message: String,
    /// Why nodes are not moving.
    pub holds: Vec<HoldCount>,
    /// What happens next.
    pub next_action: Option<String>,
}

/// One feed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedLine {
    /// Its name.
    pub name: String,
    /// The repository's own name.
    pub repository: Option<String>,
    /// `True`, `False`, `Unknown`.
    pub ready: String,
    /// A named refusal, `Unreachable`, `Verified`.
    pub reason: String,
    /// The same for people.
    pub message: String,
    /// The newest eligible set.
    pub latest_set: Option<SetName>,
    /// When the first of its documents expires.
    pub expires: Option<Timestamp>,
}

/// One node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeLine {
    /// Its name.
    pub name: String,
    /// What became of its instruction; none where the agent has not reported.
    pub state: Option<NodeState>,
    /// The level it runs.
    pub level: Level,
    /// What a scanner may believe.
    pub effective: Option<String>,
    /// `uname -r`.
    pub kernel: Option<String>,
    /// The policy that governs it.
    pub policy: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
}

impl Status {
    /// The status of what was read.
    pub fn of(cluster: &Cluster, now: Timestamp) -> Self {
        Self {
            now,
            emergency_stop: cluster.stop.as_ref().map(|stop| stop.at("/data").clone()),
            policies: cluster.policies.iter().map(policy).collect(),
            feeds: cluster.feeds.iter().map(feed).collect(),
            nodes: cluster.nodes.iter().filter(|patch| patch.name_any() != CANARY_PATCH).map(node).collect(),
        }
    }
}

fn ready(conditions: &[Condition]) -> (String, String, String) {
    conditions.iter().find(|c| c.type_ == "Ready").map_or_else(
        || {
            (
                "Unknown".to_owned(),
                Unseen::NotObserved.as_str().to_owned(),
                "the operator has not looked at it yet".to_owned(),
            )
        },
        |c| (c.status.clone(), c.reason.clone(), c.message.clone()),
    )
}

fn policy(policy: &PatchPolicy) -> PolicyLine {
    let status = policy.status.clone().unwrap_or_default();
    let (ready, reason, message) = ready(&status.conditions);
    let nodes = status.nodes.unwrap_or_default();
    PolicyLine {
        name: policy.name_any(),
        target: policy.spec.target.set.to_string(),
        resolved: status.rollout.map(|rollout| rollout.key.target),
        current: nodes.current,
        total: nodes.total,
        held: nodes.held,
        failed: nodes.failed,
        stage: status.stage.map(|stage| stage.name),
        ready,
        reason,
        message,
        holds: status.holds,
        next_action: status.next_action,
    }
}

fn feed(feed: &PatchFeed) -> FeedLine {
    let status = feed.status.clone().unwrap_or_default();
    let (ready, reason, message) = ready(&status.conditions);
    FeedLine {
        name: feed.name_any(),
        repository: status.repository.as_ref().map(|r| r.name.to_string()),
        ready,
        reason,
        message,
        latest_set: status.latest_set,
        expires: status.repository.map(|r| r.expires.0),
    }
}

fn node(node: &NodePatch) -> NodeLine {
    let status = node.status.as_ref();
    NodeLine {
        name: node.name_any(),
        state: status.map(|s| s.state),
        level: status.map(|s| s.level).unwrap_or_default(),
        effective: status.and_then(|s| s.effective.clone()),
        kernel: status.and_then(|s| s.kernel.as_ref()).map(|k| k.release.clone()),
        policy: node.spec.policy.clone(),
        reason: status.and_then(|s| s.reason.clone()),
        since: status.and_then(|s| s.since.as_ref()).map(|t| t.0),
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(stop) = &self.emergency_stop {
            let told = printable(&told(stop));
            writeln!(f, "Everything is stopped{told}. `kubectl invivo start` goes on.\n")?;
        }
        if self.policies.is_empty() && self.feeds.is_empty() {
            return writeln!(f, "No PatchPolicy and no PatchFeed. Begin with a feed: docs/quickstart.md");
        }
        let mut policies =
            Table::new(&["POLICY", "TARGET", "SET", "NODES", "HELD", "FAILED", "STAGE", "READY", "WHY"]);
        for p in &self.policies {
            policies.row([
                p.name.clone(),
                p.target.clone(),
                p.resolved.clone().unwrap_or_default(),
                format!("{} of {}", p.current, p.total),
                p.held.to_string(),
                p.failed.to_string(),
                p.stage.clone().unwrap_or_default(),
                p.ready.clone(),
                p.reason.clone(),
            ]);
        }
        write!(f, "{policies}")?;
        for p in &self.policies {
            for hold in &p.holds {
                let until = hold
                    .until
                    .as_ref()
                    .map_or_else(String::new, |t| format!(", {}", relative(self.now, t.0)));
                writeln!(
                    f,
                    "  {}: {} {}{until} ({}): {}",
                    p.name,
                    counted(u64::from(hold.nodes), "node"),
                    hold.reason,
                    printable(&few(&hold.examples)),
                    hold.reason.remedy()
                )?;
            }
            if let Some(next) = &p.next_action {
                writeln!(f, "  {}: next: {}", p.name, printable(next))?;
            }
        }
        let mut feeds = Table::new(&["FEED", "REPOSITORY", "READY", "REASON", "LATEST", "EXPIRES"]);
        for feed in &self.feeds {
            feeds.row([
                feed.name.clone(),
                feed.repository.clone().unwrap_or_default(),
                feed.ready.clone(),
                feed.reason.clone(),
                feed.latest_set.as_ref().map(ToString::to_string).unwrap_or_default(),
                feed.expires.map(|t| relative(self.now, t)).unwrap_or_default(),
            ]);
        }
        write!(f, "\n{feeds}")?;
        for feed in self.feeds.iter().filter(|feed| feed.ready != "True") {
            writeln!(f, "  {}: {}", feed.name, printable(&feed.message))?;
        }
        let mut nodes =
            Table::new(&["NODE", "STATE", "LEVEL", "EFFECTIVE", "KERNEL", "POLICY", "SINCE", "REASON"]);
        for node in &self.nodes {
            nodes.row([
                node.name.clone(),
                node.state.map_or("NotReported", NodeState::as_str).to_owned(),
                node.level.to_string(),
                node.effective.clone().unwrap_or_default(),
                node.kernel.clone().unwrap_or_default(),
                node.policy.clone().unwrap_or_default(),
                node.since.map(|t| relative(self.now, t)).unwrap_or_default(),
                node.reason.clone().unwrap_or_default(),
            ]);
        }
        write!(f, "\n{nodes}")
    }
}

fn few(names: &[String]) -> String {
    let shown = names.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > 3 { format!("{shown}, …") } else { shown }
}
