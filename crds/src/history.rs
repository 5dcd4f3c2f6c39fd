//! Rollouts that are over.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A rollout that is over.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FinishedRollout {
    /// Its number.
    pub number: u64,
    /// The set that the policy aimed at before; `None` where there was none.
    pub from: String,
    /// The set that it aimed at, or `None`.
    pub to: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Attempts begun.
    pub started: u32,
    /// Nodes that failed.
    pub failed: u32,
    /// When it began.
    pub since: Time,
    /// When it was over.
    pub ended: Time,
    /// Who failed, and how.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub evidence: Vec<RolloutEvidence>,
}

/// How a rollout ended.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Every stage was through.
    Complete,
    /// Another target came before it was.
    Superseded,
    /// More nodes failed than may.
    Failed,
    /// More nodes failed than may, and those that it had moved went back.
    RolledBack,
}

impl Outcome {
    /// The name as it stands in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "Complete",
            Self::Superseded => "Superseded",
            Self::Failed => "Failed",
            Self::RolledBack => "RolledBack",
        }
    }
}

/// A node or gate that failed in a rollout.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutEvidence {
    /// The node, or the gate.
    #[schemars(length(max = 253))]
    pub who: String,
    /// It is a gate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gate: bool,
    /// When that was first seen.
    pub at: Time,
    /// What it said, and what its log tells of it; at most 1 KiB.
    #[schemars(length(max = 1024))]
    pub what: String,
}
