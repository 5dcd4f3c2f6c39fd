//! `history <policy>`: the rollouts that have ended, and how.

use std::fmt;

use clap::Args;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Call;
use super::object::Object;
use crate::table::{Table, printable};
use crate::time::relative;

/// `history`
#[derive(Debug, Args)]
pub struct HistoryArguments {
    /// The PatchPolicy.
    pub(super) policy: String,
    #[command(flatten)]
    pub(super) call: Call,
}

/// A rollout that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finished {
    /// Its number.
    pub number: u64,
    /// The set that the policy aimed at before; `None` where there was none.
    pub from: String,
    /// The set that it aimed at, or `None`.
    pub to: String,
    /// `Complete`, `Superseded`, `Failed`, `RolledBack`.
    pub outcome: String,
    /// Attempts begun.
    #[serde(default)]
    pub started: u64,
    /// Nodes that failed.
    #[serde(default)]
    pub failed: u64,
    /// When it began.
    pub since: Timestamp,
    /// When it was over.
    pub ended: Timestamp,
    /// Who failed, and how.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
}

/// A node or gate that failed in a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The node, or the gate.
    pub who: String,
    /// When that was first seen.
    pub at: Timestamp,
    /// What it said.
    pub what: String,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// When this was read.
    pub now: Timestamp,
    /// The policy.
    pub policy: String,
    /// The rollouts, newest first.
    pub rollouts: Vec<Finished>,
}

/// The rollouts of a policy that are over, newest first. Entries of an unknown form are left out.
fn finished(policy: &Object) -> Vec<Finished> {
    let entries: Vec<Value> = policy.read("/status/history").unwrap_or_default();
    let mut known: Vec<Finished> =
        entries.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect();
    known.sort_by_key(|rollout| std::cmp::Reverse(rollout.number));
    known
}

impl History {
    /// Of this policy.
    pub fn of(policy: &Object, now: Timestamp) -> Self {
        Self { now, policy: policy.name().to_owned(), rollouts: finished(policy) }
    }
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rollouts.is_empty() {
            return writeln!(f, "No rollout of PatchPolicy {} has ended yet.", self.policy);
        }
        let mut table =
            Table::new(&["NUMBER", "FROM", "TO", "OUTCOME", "ATTEMPTS", "FAILED", "BEGAN", "ENDED"]);
        for rollout in &self.rollouts {
            table.row([
                rollout.number.to_string(),
                rollout.from.clone(),
                rollout.to.clone(),
                rollout.outcome.clone(),
                rollout.started.to_string(),
                rollout.failed.to_string(),
                relative(self.now, rollout.since),
                relative(self.now, rollout.ended),
            ]);
        }
        write!(f, "{table}")?;
        for rollout in &self.rollouts {
            for Evidence { who, at, what } in &rollout.evidence {
                writeln!(f, "  {}: {at} {}: {}", rollout.number, printable(who), printable(what))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::object::Kind;
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_rollout_comes_first_with_its_evidence() {
        let policy = Object::new(
            Kind::Policy,
            json!({"metadata": {"name": "workers"}, "status": {"history": [
                {"number": 1, "from": "None", "to": "2026-11-20.1", "outcome": "Complete", "started": 12, "failed": 0,
                 "since": "2026-11-20T10:00:00Z", "ended": "2026-11-20T16:00:00Z"},
                {"number": 2, "from": "2026-11-20.1", "to": "2026-11-21.1", "outcome": "RolledBack",
                 "started": 3, "failed": 1, "since": "2026-11-21T09:00:00Z", "ended": "2026-11-21T10:00:00Z",
                 "evidence": [{"who": "node-1", "at": "2026-11-21T09:30:00Z", "what": "Convicted: it died"}]},
                {"of": "another form"},
            ]}}),
        );
        let history = History::of(&policy, "2026-11-21T12:00:00Z".parse().unwrap());
        let expected = "\
NUMBER   FROM           TO             OUTCOME      ATTEMPTS   FAILED   BEGAN     ENDED
2        2026-11-20.1   2026-11-21.1   RolledBack   3          1        3h ago    2h ago
1        None           2026-11-20.1   Complete     12         0        26h ago   20h ago
  2: 2026-11-21T09:30:00Z node-1: Convicted: it died
";
        assert_eq!(history.to_string(), expected);
    }

    #[test]
    fn a_policy_without_a_past_says_so() {
        let policy = Object::new(Kind::Policy, json!({"metadata": {"name": "workers"}}));
        let history = History::of(&policy, Timestamp::UNIX_EPOCH);
        assert_eq!(history.to_string(), "No rollout of PatchPolicy workers has ended yet.\n");
    }
}
