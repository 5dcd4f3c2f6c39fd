//! `PatchPolicy`: which nodes, how fast, how careful.

use invivo_terms::{BuildId, Digest, Hold, HumanDuration, Level, Mechanism, SetName, TargetSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gate::{Gate, GateStatus};
use crate::history::{FinishedRollout, RolloutEvidence};
use crate::selector::selector;
use crate::window::{Blackout, Window};

fn one() -> IntOrString {
    IntOrString::Int(1)
}

fn zero() -> IntOrString {
    IntOrString::Int(0)
}

fn ten_minutes() -> HumanDuration {
    HumanDuration::from_secs(600)
}

/// Which nodes are kept at which patches, in which stages.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "invivo.dev",
    version = "v1alpha1",
    kind = "PatchPolicy",
    plural = "patchpolicies",
    shortname = "pp",
    category = "invivo",
    status = "PatchPolicyStatus",
    derive = "PartialEq",
    doc = "Which nodes are kept at which patches, in which stages.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("a PatchPolicy's name has at most 63 characters"),
    printcolumn = r#"{"name":"Target","type":"string","jsonPath":".status.rollout.key.target"}"#,
    printcolumn = r#"{"name":"Current","type":"integer","jsonPath":".status.nodes.current"}"#,
    printcolumn = r#"{"name":"Nodes","type":"integer","jsonPath":".status.nodes.total"}"#,
    printcolumn = r#"{"name":"Stage","type":"string","jsonPath":".status.stage.name"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Why","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PatchPolicySpec {
    /// The PatchFeed to take from.
    #[schemars(length(min = 1, max = 63))]
    pub feed: String,
    /// The nodes; all of them where it is empty. A node belongs to one policy: to the one of the
    /// highest priority; among equals it stays where it is, else the older policy has it, else the
    /// first by name.
    #[serde(default)]
    #[schemars(schema_with = "selector")]
    pub node_selector: LabelSelector,
    /// Which policy has a node that several select.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// What the nodes shall run.
    #[serde(default)]
    pub target: Target,
    /// In which order and how fast.
    #[serde(default)]
    pub rollout: Rollout,
    /// What must be well before a stage starts and throughout its soak. Whether nodes are Ready and
    /// their kernels well is always looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.filter(g, has(g.nodeReady)).size() <= 1 && self.filter(g, has(g.kernelHealth)).size() <= 1")
        .message("nodeReady and kernelHealth stand in gates at most once"))]
    pub gates: Vec<Gate>,
    /// Load a level also on nodes where a kernel module that it changes is another build than the
    /// level was made for, or cannot be known, and leave that module as it is. Such a node is held
    /// otherwise (`ForeignTarget`).
    #[serde(default)]
    pub allow_partial: bool,
    /// When nodes may start; at any time where there is none.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub windows: Vec<Window>,
    /// When they may not, whatever the windows say.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub blackouts: Vec<Blackout>,
    /// What a node gets whose stage has not begun and that has less than this policy has proven for
    /// its kernel build: new nodes, as a rule.
    #[serde(default)]
    pub new_nodes: NewNodes,
    /// No new instruction is given; what is under way ends.
    #[serde(default)]
    pub paused: bool,
    /// Only plan: nothing is instructed, the plan is published.
    #[serde(default)]
    pub dry_run: bool,
    /// What becomes of the patches when the policy is deleted.
    #[serde(default)]
    pub on_delete: OnDelete,
}

/// What becomes of a policy's patches when it is deleted.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnDelete {
    /// They stay on the nodes.
    #[default]
    Keep,
    /// They are taken off first, at the pace of the policy's stages; until then the finalizer
    /// `invivo.dev/roll-back` keeps the policy. A node that is not Ready, or does not answer, is
    /// waited for no longer than `rollout.nodeDeadline`. Changed to `Keep`, the policy goes at once.
    RollBack,
}

/// What a node gets whose stage has not begun.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewNodes {
    /// The level that this policy has proven for its kernel build.
    #[default]
    Proven,
    /// Nothing until its stage begins.
    Staged,
}

/// What becomes of a rollout when `Latest` comes to be a newer set.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Supersede {
    /// It ends first.
    #[default]
    Finish,
    /// The newer set's begins at once.
    Restart,
}

/// What follows when more nodes fail than the budget allows.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFailure {
    /// Nothing starts any more.
    #[default]
    Pause,
    /// Neither, and the nodes that this rollout moved go back where they came from, at the
    /// stage's pace; only if two nodes say so, or a gate, or a node that is lost.
    RollBack,
}

/// What becomes of a level whose set is withdrawn.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnWithdrawn {
    /// It stays.
    #[default]
    Keep,
    /// It is taken off.
    RollBack,
}

/// An emergency: soaks are skipped.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expedite {
    /// The set whose soaks are skipped, and no other's.
    pub set: SetName,
    /// Why, for people.
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
    /// Who asks for it; must be the one who writes it.
    #[schemars(length(min = 1, max = 253))]
    pub user: String,
    /// Up to when.
    pub until: Time,
}

/// What the nodes shall run.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// `Latest` (never lowers a node), a set's name, or `None` (take every patch off).
    pub set: TargetSet,
}

impl Default for Target {
    fn default() -> Self {
        Self { set: TargetSet::Latest }
    }
}

/// In which order and how fast.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// At most 16. A node is in the first stage that matches it; the nodes that none matches
    /// follow in a last stage `rest`, which may be written out (without selector) to set its pace.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(
        validation = Rule::new("self.all(a, self.exists_one(b, b.name == a.name))").message("stage names must differ"),
        validation = Rule::new("self.size() == 0 || self.all(s, has(s.nodeSelector) || has(s.share) || s.name == self[self.size() - 1].name)")
            .message("only the last stage may leave out both nodeSelector and share"),
        validation = Rule::new("self.all(s, s.name != 'rest' || (!has(s.nodeSelector) && !has(s.share)))")
            .message("a stage named rest has neither nodeSelector nor share: it is all the other nodes")
    )]
    pub stages: Vec<Stage>,
    /// One node, from instruction to applied. After it the attempt is undone and reported.
    #[serde(default = "ten_minutes")]
    #[x_kube(validation = Rule::new("self.matches('[1-9][0-9]*[dhm]|([3-9][0-9]|[1-9][0-9]{2,})s')")
        .message("nodeDeadline must be at least 30s"))]
    pub node_deadline: HumanDuration,
    /// What becomes of this rollout when `Latest` comes to be a newer set.
    #[serde(default)]
    pub supersede: Supersede,
    /// How many nodes may fail in one rollout: a number, or a share of the policy's nodes such as
    /// `5%`, rounded down. When more fail, `onFailure` follows.
    #[serde(default = "zero")]
    #[schemars(extend("minimum" = 0, "pattern" = "^([0-9]|[1-9][0-9]|100)%$"))]
    pub failure_budget: IntOrString,
    /// What follows when more nodes fail.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// What becomes of a level whose set is withdrawn, where the target is `Latest`. A set that a
    /// person names stays until they name another one.
    #[serde(default)]
    pub on_withdrawn: OnWithdrawn,
    /// An emergency.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expedite: Option<Expedite>,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            stages: Vec::new(),
            node_deadline: ten_minutes(),
            supersede: Supersede::default(),
            failure_budget: zero(),
            on_failure: OnFailure::default(),
            on_withdrawn: OnWithdrawn::default(),
            expedite: None,
        }
    }
}

/// One step of a rollout.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.nodeSelector) || !has(self.share)")
    .message("a stage has a nodeSelector or a share, not both"))]
pub struct Stage {
    /// Unique within the policy.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')").message("a stage name is lower-case letters, digits and dashes"))]
    pub name: String,
    /// The stage's nodes, among those that the policy selects. Left out, with `share`, in the last
    /// stage: all the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector")]
    pub node_selector: Option<LabelSelector>,
    /// The stage's nodes as a share of the policy's nodes of each kernel build, such as `10%`, rounded
    /// up, at least one, of those that no stage before it has. Which ones is decided when it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^([1-9][0-9]?|100)%$"))]
    pub share: Option<String>,
    /// A label by whose values nodes move one group after the other, such as
    /// `topology.kubernetes.io/zone`. Nodes without it are one group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub spread: Option<String>,
    /// Go on although the stage matches no node. Otherwise that holds the rollout (`EmptyStage`).
    #[serde(default)]
    pub optional: bool,
    /// How many nodes may be moving at once: a number, or a share of the stage's nodes such as
    /// `25%`, rounded down, at least 1.
    #[serde(default = "one")]
    #[schemars(extend("minimum" = 1, "pattern" = "^([1-9][0-9]?|100)%$"))]
    pub max_parallel: IntOrString,
    /// How long the stage is watched after its last node reported Applied, before the next begins.
    #[serde(default)]
    pub soak: HumanDuration,
}

/// What the operator knows of the policy.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PatchPolicyStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Reconciling`, `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
    /// The rollout under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// The stage that the rollout is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<StageStatus>,
    /// The policy's nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeCounts>,
    /// How the gates of the stage under way stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 18))]
    pub gates: Vec<GateStatus>,
    /// Why nodes are not moving, most first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub holds: Vec<HoldCount>,
    /// What every stage has been through without trouble, per kernel build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub proven: Vec<Proven>,
    /// What happens next and when, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_action: Option<String>,
    /// The last rollouts that are over, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub history: Vec<FinishedRollout>,
}

/// A rollout: moving the policy's nodes to one resolved target.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Which rollout this is.
    pub key: RolloutKey,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// The set that the policy aimed at before, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<SetName>,
    /// Attempts begun so far; a node that is tried again counts again. Raised by compare-and-swap
    /// before a wave is written.
    pub started: u32,
    /// Of these, the ones that have ended, well or not.
    pub finished: u32,
    /// Nodes that failed. An attempt that says nothing about the patch is none.
    pub failed: u32,
    /// Every stage is through.
    #[serde(default)]
    pub complete: bool,
    /// It failed, and the nodes that it moved go back where they came from.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub returning: bool,
    /// Which nodes the stages have taken that take a share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub cuts: Vec<Cut>,
    /// Who failed, and how.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub evidence: Vec<RolloutEvidence>,
    /// The latest deadline of the rollouts before this one; later ones belong to this rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Time>,
    /// The latest deadline given in this rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
}

/// Which nodes a stage has taken that takes a share.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cut {
    /// Index of the stage.
    pub stage: u32,
    /// For each kernel build, up to which place in the rollout's order.
    #[schemars(length(max = 64))]
    pub kernels: Vec<CutKernel>,
}

/// A cut for one kernel build.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CutKernel {
    /// The build.
    pub build_id: BuildId,
    /// The place of the last node that is in the stage.
    pub last: u64,
}

/// Which rollout this is. Any difference makes another rollout.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutKey {
    /// Rises with each change of the resolved target.
    pub number: u64,
    /// The set's name, or `None`.
    pub target: String,
    /// The set's digest; absent for `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// How the patch takes effect.
    pub mechanism: Mechanism,
}

/// The stage that the rollout is in.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageStatus {
    /// Its name; `rest` for the implied last one.
    pub name: String,
    /// Counted from 0.
    pub index: u32,
    /// When it began.
    pub since: Time,
    /// When its soak ends, once its last node has reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soak_until: Option<Time>,
    /// Its nodes.
    pub nodes: StageNodes,
}

/// A stage's nodes.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageNodes {
    /// All of them.
    pub total: u32,
    /// At the target.
    pub done: u32,
    /// Instructed, not yet reported.
    pub in_flight: u32,
    /// Failed.
    pub failed: u32,
    /// Not waited for: the repository has nothing for their kernel build, or they could not be
    /// tried while others of it were.
    pub excused: u32,
}

/// The policy's nodes.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeCounts {
    /// All that the policy governs.
    pub total: u32,
    /// At the target.
    pub current: u32,
    /// To be moved, not instructed yet.
    pub pending: u32,
    /// Instructed, not yet reported.
    pub in_flight: u32,
    /// Left alone, each for a reason in `holds`: all that are neither at the target nor instructed. Who is
    /// pending, has failed or is unsupported is among them.
    #[serde(default)]
    pub held: u32,
    /// Failed.
    pub failed: u32,
    /// With a kernel build that the repository does not know.
    pub unsupported: u32,
}

/// Why nodes are not moving.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldCount {
    /// The reason.
    pub reason: Hold,
    /// How many nodes.
    pub nodes: u32,
    /// At most 20 of their names.
    #[schemars(length(max = 20))]
    pub examples: Vec<String>,
    /// When it may end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// What one kernel build has been through in this policy.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proven {
    /// The build.
    pub build_id: BuildId,
    /// The level that settled there.
    pub level: Level,
    /// The set it came with.
    pub set: SetName,
}
