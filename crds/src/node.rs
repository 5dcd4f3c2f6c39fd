//! `NodePatch`: one node; the only thing an agent writes.

use invivo_terms::{
    BuildId, Digest, HumanDuration, Level, Mechanism, NodeState, Revision, SetName, TargetState,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The NodePatch that is no node's: the chart makes it, agents try in vain to write its status.
pub const CANARY_PATCH: &str = "invivo-canary";

const fn first() -> u32 {
    1
}

/// The operator's instruction to one node, and that node's answer. Named like the node, owned by it.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "invivo.dev",
    version = "v1alpha1",
    kind = "NodePatch",
    plural = "nodepatches",
    shortname = "np",
    category = "invivo",
    status = "NodePatchStatus",
    derive = "PartialEq",
    doc = "The operator's instruction to one node, and that node's answer.",
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"Level","type":"integer","jsonPath":".status.level"}"#,
    printcolumn = r#"{"name":"Effective","type":"string","jsonPath":".status.effective"}"#,
    printcolumn = r#"{"name":"Kernel","type":"string","jsonPath":".status.kernel.release"}"#,
    printcolumn = r#"{"name":"Policy","type":"string","jsonPath":".spec.policy"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.reason"}"#,
    printcolumn = r#"{"name":"Since","type":"date","jsonPath":".status.since"}"#
)]
#[x_kube(
    validation = Rule::new("[has(self.apply), has(self.rollBack), has(self.hold)].filter(x, x).size() == 1")
        .message("exactly one of apply, rollBack and hold"),
    validation = Rule::new("!has(self.apply) || (has(self.policy) && has(self.feed))")
        .message("apply needs the policy that asked for it and its feed"),
    validation = Rule::new("self == oldSelf || self.revision > oldSelf.revision")
        .message("revision must rise with every change")
)]
#[serde(rename_all = "camelCase")]
pub struct NodePatchSpec {
    /// Rises with every change of this spec. Agent and loader refuse an older one.
    #[schemars(range(min = 1))]
    pub revision: Revision,
    /// The PatchPolicy that governs the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub policy: Option<String>,
    /// The PatchFeed; the agent refuses one that its policy does not name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub feed: Option<String>,
    /// Bring the node to this level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply: Option<Apply>,
    /// Take patches off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roll_back: Option<RollBack>,
    /// Do nothing new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldInstruction>,
}

/// Bring the node to this level. Bound to the kernel build and to every digest on the way.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Apply {
    /// The kernel build that the level is for.
    pub build_id: BuildId,
    /// The level.
    pub level: Level,
    /// The set it comes with.
    pub set: SetName,
    /// The set's digest.
    pub digest: Digest,
    /// Digest of the level's manifest.
    pub manifest: Digest,
    /// How it takes effect.
    pub mechanism: Mechanism,
    /// No attempt starts after this; one under way is undone.
    pub deadline: Time,
    /// Applied for this long without trouble is settled.
    pub settle_after: HumanDuration,
    /// Kernel modules that are another build on the node may be left out, as the policy says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_partial: bool,
    /// What the node ran before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<OnNode>,
    /// How many times the rollout has now begun to move this node.
    #[serde(default = "first")]
    #[schemars(range(min = 1))]
    pub attempt: u32,
}

/// Take patches off.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RollBack {
    /// Where the node goes next, by another instruction; absent where it stays unpatched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<OnNode>,
    /// No attempt starts after this.
    pub deadline: Time,
    /// How many times the rollout has now begun to move this node.
    #[serde(default = "first")]
    #[schemars(range(min = 1))]
    pub attempt: u32,
}

/// Do nothing new.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HoldInstruction {}

/// What a node runs or ran.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OnNode {
    /// 0 is unpatched.
    pub level: Level,
    /// The set that the level came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<SetName>,
}

/// That node's answer. Written by its agent only.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePatchStatus {
    /// The highest revision that agent or loader know of this object.
    #[serde(default)]
    pub observed_revision: Revision,
    /// Changes with every boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    pub boot_id: Option<String>,
    /// The running kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<NodeKernel>,
    /// What the kernel says is active; 0 is unpatched.
    #[serde(default)]
    pub level: Level,
    /// The set that the level came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<SetName>,
    /// What a scanner may believe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 160))]
    pub effective: Option<String>,
    /// How the level took effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mechanism: Option<Mechanism>,
    /// What became of the instruction.
    #[serde(default)]
    pub state: NodeState,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// How long the node ran without its settled patch after the last boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unpatched_seconds: Option<u32>,
    /// Why, as a named refusal or a loader's reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub message: Option<String>,
    /// What was found, where the state is a verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// Threads that kept a transition from ending, where it was reversed for that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub blockers: Vec<Blocker>,
    /// What the last change of the running code took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_switch: Option<LastSwitch>,
    /// How many of the kernel modules that the level changes stand in which state; absent for a level
    /// that changes none. Modules that merely come and go are no reason to write: `absent`,
    /// `patched` and `pinned` are as of the last write. The loader's log names each that is not well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<TargetCounts>,
}

/// Kernel modules that a level changes, counted by their states.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetCounts {
    /// Not loaded; patched when they come.
    #[serde(default, skip_serializing_if = "is_none")]
    pub absent: u32,
    /// Loaded and patched.
    #[serde(default, skip_serializing_if = "is_none")]
    pub patched: u32,
    /// Patched, and not to be unloaded while they are.
    #[serde(default, skip_serializing_if = "is_none")]
    pub pinned: u32,
    /// Left out of the patch: they were another build when it was loaded.
    #[serde(default, skip_serializing_if = "is_none")]
    pub skipped: u32,
    /// Refused by the kernel, and not healed yet.
    #[serde(default, skip_serializing_if = "is_none")]
    pub needs_heal: u32,
    /// Refused again after they were healed.
    #[serde(default, skip_serializing_if = "is_none")]
    pub refused: u32,
    /// Another build is loaded, or on disk for the next load.
    #[serde(default, skip_serializing_if = "is_none")]
    pub foreign_build: u32,
    /// Which build they are cannot be known.
    #[serde(default, skip_serializing_if = "is_none")]
    pub unknown_build: u32,
}

impl TargetCounts {
    /// Of so many states; none of none.
    pub fn of(states: impl IntoIterator<Item = TargetState>) -> Option<Self> {
        let mut counts = None;
        for state in states {
            let count = counts.get_or_insert_with(Self::default).of_state(state);
            *count = count.saturating_add(1);
        }
        counts
    }

    /// The same with the modules that are well counted together: which of them are loaded is no news.
    #[must_use]
    pub fn settled(self) -> Self {
        let absent = self.absent.saturating_add(self.patched).saturating_add(self.pinned);
        Self { absent, patched: 0, pinned: 0, ..self }
    }

    fn of_state(&mut self, state: TargetState) -> &mut u32 {
        match state {
            TargetState::Absent => &mut self.absent,
            TargetState::Patched => &mut self.patched,
            TargetState::Pinned => &mut self.pinned,
            TargetState::Skipped => &mut self.skipped,
            TargetState::NeedsHeal => &mut self.needs_heal,
            TargetState::Refused => &mut self.refused,
            TargetState::ForeignBuild => &mut self.foreign_build,
            TargetState::UnknownBuild => &mut self.unknown_build,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_none(count: &u32) -> bool {
    *count == 0
}

/// A thread that kept a transition from ending.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocker {
    /// Thread id on the node.
    pub tid: u32,
    /// Its short name.
    #[schemars(length(max = 15))]
    pub comm: String,
    /// Uid of its pod, if it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    pub pod_uid: Option<String>,
    /// Id of its container, if it is in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub container: Option<String>,
}

/// What a dead kernel left behind. The whole record is kept on the node, in the loader's state
/// folder under `evidence/<digest>`.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Digest of the record.
    pub digest: Digest,
    /// The line that tells.
    #[schemars(length(max = 200))]
    pub excerpt: String,
}

/// The running kernel.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeKernel {
    /// Its GNU build id.
    pub build_id: BuildId,
    /// `uname -r`.
    #[schemars(length(max = 128))]
    pub release: String,
    /// The distribution's version of it, such as `6.1.170-3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub version: Option<String>,
    /// The mechanisms that it has.
    #[schemars(length(max = 4))]
    pub supports: Vec<Mechanism>,
    /// What it demands of modules.
    pub signing: Signing,
}

/// What a kernel demands of modules.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signing {
    /// Unsigned modules load.
    Off,
    /// Modules must be signed by a key the kernel trusts.
    Enforced,
    /// The kernel is locked down.
    Lockdown,
}

/// What the last change of the running code took.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastSwitch {
    /// From the module's load to the end of the transition.
    pub millis: u32,
}
