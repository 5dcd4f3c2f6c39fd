//! What can be found against a set on one node.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{NodeState, words};

/// The kernel suffered while the level was on it and had not settled; the loader took it off.
const HARM: [&str; 3] = ["KernelOops", "KernelLockup", "WarningNamesPatch"];

words! {
    /// What was found against a set on one node.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
    pub enum EvidenceVerdict {
        /// Its loader convicted the level after an unclean boot.
        Convicted,
        /// Its loader took the level off: the kernel oopsed, locked up, or warned in patched code.
        Harmed,
        /// It is not Ready, and the level had not settled there. Gone again if it comes back without a boot.
        NotReady,
        /// It was not Ready and came back with another boot; the level had not settled there.
        Rebooted,
        /// It was not Ready and is gone, or it went while the level was on its way or had not settled.
        Lost,
    }
}

impl EvidenceVerdict {
    /// What a node's own report says against the set of its instruction, if anything.
    pub fn told(state: NodeState, reason: Option<&str>) -> Option<Self> {
        match state {
            NodeState::Convicted => Some(Self::Convicted),
            NodeState::Failed => reason.filter(|reason| HARM.contains(reason)).map(|_| Self::Harmed),
            NodeState::Idle
            | NodeState::Working
            | NodeState::Applied
            | NodeState::Settled
            | NodeState::RolledBack
            | NodeState::Blocked
            | NodeState::Refused
            | NodeState::Suspected => None,
        }
    }

    /// A node says so itself. Two such nodes are enough against a set, one is not.
    pub const fn convicts(self) -> bool {
        match self {
            Self::Convicted | Self::Harmed => true,
            Self::NotReady | Self::Rebooted | Self::Lost => false,
        }
    }

    /// The control plane saw it, and no agent can write it: with one node's own word it is enough.
    /// A node that is merely away may be so for any reason.
    pub const fn is_foreign(self) -> bool {
        match self {
            Self::Rebooted => true,
            Self::Convicted | Self::Harmed | Self::NotReady | Self::Lost => false,
        }
    }
}

impl fmt::Display for EvidenceVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_verdict_and_harm_done_to_the_kernel_speak_against_a_set() {
        for state in NodeState::ALL {
            let told = EvidenceVerdict::told(state, Some("LoadRefused"));
            assert_eq!(told.is_some(), state == NodeState::Convicted, "{state}");
        }
        for reason in HARM {
            let told = EvidenceVerdict::told(NodeState::Failed, Some(reason));
            assert_eq!(told, Some(EvidenceVerdict::Harmed), "{reason}");
            assert_eq!(EvidenceVerdict::told(NodeState::Applied, Some(reason)), None, "{reason}");
        }
        assert_eq!(EvidenceVerdict::told(NodeState::Failed, None), None);
    }
}
