//! `plan <policy>`: the whole plan, node by node, as the operator serves it.

use std::fmt;

use clap::Args;
use invivo_terms::Level;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Call;
use crate::table::{Table, printable};
use crate::time::relative;

/// `plan`
#[derive(Debug, Args)]
pub struct PlanArguments {
    /// The PatchPolicy.
    pub(super) policy: String,
    #[command(flatten)]
    pub(super) call: Call,
}

/// The operator's plan. What this program does not know of it is passed on all the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The policy.
    #[serde(default)]
    pub policy: String,
    /// When it was made.
    #[serde(default)]
    pub now: Option<Timestamp>,
    /// Its feed.
    #[serde(default)]
    pub feed: String,
    /// What may be done with that.
    #[serde(default)]
    pub feed_reason: String,
    /// How the policy stands.
    pub reason: String,
    /// The same for people.
    pub message: String,
    /// When it is looked at again even if nothing changes.
    #[serde(default)]
    pub wake: Option<Timestamp>,
    /// Every node.
    pub nodes: Vec<PlannedNode>,
    /// The rest.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// What is planned for one node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedNode {
    /// The node.
    pub name: String,
    /// Its stage.
    pub stage: String,
    /// `Apply`, `RollBack`, `InFlight`, `Done`, `Hold`.
    pub decision: String,
    /// The level it is brought to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_level: Option<Level>,
    /// The set that comes with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_set: Option<String>,
    /// Why it is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    /// What a person can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// When that may end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The level that it reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// What became of its instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The rest.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, text: &str| writeln!(f, "{:<13}{}", format!("{name}:"), printable(text));
        line("Policy", &self.policy)?;
        line("Feed", &format!("{} ({})", self.feed, self.feed_reason))?;
        line("Standing", &format!("{}: {}", self.reason, self.message))?;
        if let (Some(now), Some(wake)) = (self.now, self.wake) {
            line("Looks again", &format!("{} at the latest", relative(now, wake)))?;
        }
        let mut table = Table::new(&["NODE", "STAGE", "DECISION", "TO", "RUNS", "STATE", "WHY", "UNTIL"]);
        for node in &self.nodes {
            let to = match (node.to_level, &node.to_set) {
                (Some(level), Some(set)) => format!("level {level} ({set})"),
                (Some(level), None) => format!("level {level}"),
                (None, _) => String::new(),
            };
            let until = match (self.now, node.until) {
                (Some(now), Some(until)) => relative(now, until),
                (_, until) => until.map(|until| until.to_string()).unwrap_or_default(),
            };
            table.row([
                node.name.clone(),
                node.stage.clone(),
                node.decision.clone(),
                to,
                node.level.map(|level| level.to_string()).unwrap_or_default(),
                node.state.clone().unwrap_or_default(),
                node.hold.clone().unwrap_or_default(),
                until,
            ]);
        }
        write!(f, "\n{table}")
    }
}
