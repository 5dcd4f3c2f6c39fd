//! The kinds of `invivo.dev/v1alpha1`. Every field here works; one that would be ignored does not exist.
//!
//! The YAML beside this folder is generated from these types (`cargo run -p invivo-api`) and
//! checked for drift by a test.

// KubeSchema and CustomResource expand to public items inside functions.
#![allow(unreachable_pub)]

mod condition;
mod feed;
mod gate;
mod history;
mod node;
mod policy;
mod reference;
mod selector;
mod set;
mod window;
mod yaml;

pub use condition::{ConditionType, condition, set_conditions};
pub use feed::{
    Approval, BlockedSet, CoveredKernel, PatchFeed, PatchFeedSpec, PatchFeedStatus, Repository,
    RepositoryStatus, Source, Trust,
};
pub use gate::{
    Authorization, AuthorizationScheme, CaBundle, Gate, GateOutcome, GateStatus, JobEnv, JobGate,
    JobResourceList, JobResources, JobTemplate, KernelHealthGate, NodeReadyGate, PrometheusGate, SecretKey,
};
pub use history::{FinishedRollout, Outcome, RolloutEvidence};
pub use node::{
    Apply, Blocker, CANARY_PATCH, Evidence, HoldInstruction, LastSwitch, NodeKernel, NodePatch,
    NodePatchSpec, NodePatchStatus, OnNode, RollBack, Signing, TargetCounts,
};
pub use policy::{
    Cut, CutKernel, Expedite, HoldCount, NewNodes, NodeCounts, OnDelete, OnFailure, OnWithdrawn, PatchPolicy,
    PatchPolicySpec, PatchPolicyStatus, Proven, Rollout, RolloutKey, RolloutStatus, Stage, StageNodes,
    StageStatus, Supersede, Target,
};
pub use reference::reference;
pub use set::{
    Fix, PatchSet, PatchSetSpec, PatchSetStatus, Quarantine, SetApproval, SetEvidence, SetNodes,
    StoodApproval,
};
pub use window::{Blackout, Day, Window};
pub use yaml::{all_kinds, chart_yaml, yaml};

/// The API group.
pub const GROUP: &str = "invivo.dev";
/// The version that is served and stored.
pub const VERSION: &str = "v1alpha1";
