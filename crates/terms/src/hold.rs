//! "Not now because …": every node that a plan leaves alone carries one of these.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! holds {
    ($($(#[$doc:meta])* $name:ident => $remedy:literal,)+) => {
        /// Why a node is not moving now.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Hold {
            $($(#[$doc])* $name,)+
        }

        impl Hold {
            /// Every hold there is, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name as it stands in statuses, Events and metrics.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// What a person can check or do, in one sentence.
            pub const fn remedy(self) -> &'static str {
                match self {
                    $(Self::$name => $remedy,)+
                }
            }
        }
    };
}

holds! {
    /// Its stage has not started.
    NotInStage => "wait for the stages before it, or see what holds them",
    /// A stage's selector matches no node, so nobody would test for the others.
    EmptyStage => "label nodes for the stage, or mark the stage optional",
    /// The stage before has all its nodes and is being watched.
    StageSoaking => "wait; status.stage.soakUntil says how long",
    /// No node with this kernel build has settled yet; the first one goes alone.
    KernelNotProven => "wait for the first node of this kernel build",
    /// A gate of the policy says that something is wrong.
    GateFailing => "see status.gates for what it says; nothing starts until it passes",
    /// A gate of the policy cannot tell. Unknown is not healthy.
    GateUnknown => "see status.gates for why; nothing starts until it answers",
    /// Nodes of another group, such as another zone, are moving; the stage takes one after the other.
    ZoneBusy => "wait, or remove spread from the stage",
    /// As many nodes are moving in the whole fleet as the chart's fleet.maxInFlight allows.
    FleetLimit => "wait, or raise fleet.maxInFlight",
    /// No window of the policy is open, or too little of it is left for one more node.
    OutsideWindow => "wait for the next window, or change spec.windows",
    /// A blackout of the policy is on.
    Blackout => "wait for its end, or change spec.blackouts",
    /// As many nodes are moving as the stage allows at once.
    AtMaxParallel => "wait, or raise maxParallel",
    /// A person paused the policy.
    Paused => "set spec.paused to false",
    /// The policy only plans: this node would start now.
    DryRun => "set spec.dryRun to false",
    /// People stopped every instruction in the cluster.
    EmergencyStop => "see ConfigMap invivo-emergency-stop; `kubectl invivo start` ends it",
    /// A person holds this node.
    HeldByPerson => "see the node's annotation invivo.dev/hold; `kubectl invivo unhold` ends it",
    /// The feed cannot be trusted or reached now; nothing new starts.
    FeedStalled => "see the conditions of the PatchFeed",
    /// A person suspended the feed; nothing new starts.
    FeedSuspended => "set spec.suspend of the PatchFeed to false",
    /// What the node waits for was released less than the feed's delay ago.
    Delayed => "wait; status.blocked of the PatchFeed says how long",
    /// What the node waits for has not been approved by enough people.
    AwaitingApproval => "approve the set: kubectl invivo approve <set> --reason …",
    /// There is evidence of several nodes against what the node waits for.
    SetQuarantined => "see status.evidence of the PatchSet; only an approval made after the quarantine lifts it",
    /// The set that the policy names is unknown, rejected or withdrawn, or no set is eligible for `Latest`.
    TargetMissing => "see which sets the PatchFeed blocks and why, or name another set",
    /// The node runs more than `Latest` would give; Latest never lowers a node.
    AheadOfTarget => "nothing to do; name a set or None to go down",
    /// The repository has nothing for this kernel build.
    UnsupportedKernel => "ask the repository's owner for this build, or boot a kernel it covers",
    /// The kubelet does not report Ready.
    NodeNotReady => "repair the node",
    /// Somebody works on the node: it takes no new pods.
    NodeCordoned => "uncordon the node when the work on it is done",
    /// The agent has not reported yet.
    AgentMissing => "see the agent pod on this node",
    /// The report on hand is older than the instruction it must answer.
    StatusStale => "wait for the agent's next report",
    /// A node of this rollout failed; nothing new starts until a person has looked.
    FailureBudgetSpent => "see the failed nodes' reasons; another target begins anew",
    /// Nothing was loaded at the last attempt: no time, no answer or no room. The next one comes by itself.
    NotTried => "see status.reason and status.message of its NodePatch; it is tried again by itself",
    /// Threads did not leave the old code at the last attempt. The next one comes by itself.
    BlockedByThreads => "see status.message of its NodePatch for the threads; it is tried again by itself",
    /// A live patch that is not ours is on the node; ours would replace it. The next attempt comes by itself.
    ForeignLivepatch => "take the other live patch off (its name is in status.message), or leave the node out",
    /// The node booted before the level had settled; it is not tried again in this rollout.
    Suspected => "see status.message of its NodePatch; another target begins anew",
    /// The level killed this node's kernel, and never goes there again.
    Convicted => "see status.evidence of its NodePatch; `invivo clear-verdict` on the node lifts it",
    /// The node's kernel trusts no key that signed the module. The next attempt comes by itself.
    ModuleSigningKeyMissing => "enrol the patch author's key on the node, which needs a reboot; see docs/runbooks",
    /// The node's kernel is locked down and does not take the module. The next attempt comes by itself.
    Lockdown => "enrol the patch author's key on the node, or use signed bundles; see docs/runbooks",
    /// A kernel module that the patch changes is another build on the node. The next attempt comes by itself.
    ForeignTarget => "install the module that came with the kernel, or set spec.allowPartial; see docs/runbooks",
    /// This node's instruction ended without success; a new attempt needs a new instruction.
    AttemptEnded => "see status.reason and status.message of its NodePatch",
    /// Another policy governs this node.
    ClaimedByOther => "narrow one policy's nodeSelector",
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
