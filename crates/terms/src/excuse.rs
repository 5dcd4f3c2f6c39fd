//! Attempts that ended without success and say nothing about the patch.

use crate::{NodeState, Refusal};

/// Somebody took the level off by hand.
const VANISHED: &str = "Vanished";

/// Nothing was loaded, for a reason of the node's or of its surroundings.
const NOT_TRIED: [&str; 5] =
    ["DeadlinePassed", "LoaderSilent", "Unreachable", "Withheld", Refusal::StorageFull.as_str()];

/// Why an attempt that ended without success counts nothing against the patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Excuse {
    /// Nothing was loaded: there was no time, no answer or no room.
    NotTried,
    /// Nothing was loaded: the kernel does not trust the key that signed the module, if any did.
    KeyMissing,
    /// Nothing was loaded: the kernel is locked down.
    Lockdown,
    /// Nothing was loaded: a kernel module that the patch changes is another build on the node.
    ForeignTarget,
    /// Nothing was loaded: a live patch that is not ours is on the node.
    ForeignLivepatch,
    /// Threads did not leave the old code before the deadline; it was reversed.
    Blocked,
    /// The level was on and is gone: the node booted anew before it had settled, or somebody took it
    /// off by hand.
    Lost,
}

impl Excuse {
    /// The excuse in what a node reports, if there is one.
    pub fn of(state: NodeState, reason: Option<&str>) -> Option<Self> {
        match (state, reason) {
            (NodeState::Blocked, _) => Some(Self::Blocked),
            (NodeState::Suspected, _) | (NodeState::Failed, Some(VANISHED)) => Some(Self::Lost),
            (NodeState::Refused, Some("ModuleSigningKeyMissing")) => Some(Self::KeyMissing),
            (NodeState::Refused, Some("Lockdown")) => Some(Self::Lockdown),
            (NodeState::Refused, Some("ForeignTarget")) => Some(Self::ForeignTarget),
            (NodeState::Refused, Some("ForeignLivepatch")) => Some(Self::ForeignLivepatch),
            (NodeState::Failed | NodeState::Refused, Some(reason)) if NOT_TRIED.contains(&reason) => {
                Some(Self::NotTried)
            }
            (
                NodeState::Failed
                | NodeState::Convicted
                | NodeState::Refused
                | NodeState::Idle
                | NodeState::Working
                | NodeState::Applied
                | NodeState::Settled
                | NodeState::RolledBack,
                Some(_) | None,
            ) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_loaded_says_nothing_about_the_patch() {
        for reason in NOT_TRIED {
            assert_eq!(Excuse::of(NodeState::Failed, Some(reason)), Some(Excuse::NotTried), "{reason}");
        }
        assert_eq!(Excuse::of(NodeState::Refused, Some("StorageFull")), Some(Excuse::NotTried));
        assert_eq!(Excuse::of(NodeState::Refused, Some("ModuleSigningKeyMissing")), Some(Excuse::KeyMissing));
        assert_eq!(Excuse::of(NodeState::Refused, Some("Lockdown")), Some(Excuse::Lockdown));
        assert_eq!(Excuse::of(NodeState::Refused, Some("ForeignTarget")), Some(Excuse::ForeignTarget));
        assert_eq!(Excuse::of(NodeState::Refused, Some("ForeignLivepatch")), Some(Excuse::ForeignLivepatch));
        assert_eq!(Excuse::of(NodeState::Blocked, Some("TransitionStuck")), Some(Excuse::Blocked));
        assert_eq!(Excuse::of(NodeState::Suspected, Some("RebootedUnsettled")), Some(Excuse::Lost));
        assert_eq!(Excuse::of(NodeState::Convicted, Some("RebootedAgain")), None);
    }

    #[test]
    fn what_was_refused_or_tried_in_vain_is_not_excused() {
        for reason in ["LoadRefused", "CannotReverse", "NodeIo"] {
            assert_eq!(Excuse::of(NodeState::Failed, Some(reason)), None, "{reason}");
        }
        assert_eq!(Excuse::of(NodeState::Refused, Some("BelowThreshold")), None);
        assert_eq!(Excuse::of(NodeState::Failed, None), None);
        // What a working agent waits for is not an end.
        assert_eq!(Excuse::of(NodeState::Working, Some("Unreachable")), None);
    }
}
