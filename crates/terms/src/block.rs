//! Why a feed withholds a set.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! blocks {
    ($($(#[$doc:meta])* $name:ident => $remedy:literal,)+) => {
        /// Why a feed withholds a set, in rising gravity: of several reasons the gravest is told.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Block {
            $($(#[$doc])* $name,)+
        }

        impl Block {
            /// Every reason there is, in rising gravity.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name as it stands in statuses, conditions and metrics.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// What a person can do about it, in one sentence.
            pub const fn remedy(self) -> &'static str {
                match self {
                    $(Self::$name => $remedy,)+
                }
            }
        }
    };
}

blocks! {
    /// It was released less than the feed's delay ago.
    Delayed => "wait, shorten spec.delay of the PatchFeed, or name the set in the policy",
    /// Its tests are not finished, and the feed takes only stable sets.
    TestOnly => "wait for its author to release it as stable, or set spec.channel of the PatchFeed to Test",
    /// It was released after the feed's sticky date.
    AfterDate => "move or remove spec.asOf of the PatchFeed, or name the set in the policy",
    /// The feed is in Manual mode, and not enough people have approved it.
    AwaitingApproval => "approve it: kubectl invivo approve <set> --reason …",
    /// A person rejected it.
    Rejected => "ask whoever rejected it; only they, or who may withdraw others' entries, can take that back",
    /// There is evidence of several nodes against it.
    Quarantined => "see status.evidence of the PatchSet; only an approval made after the quarantine lifts it",
    /// Its author took it back.
    Withdrawn => "choose another set",
}

impl Block {
    /// Whether it also stops a set that a policy names. Who names a set has decided about its age
    /// and its channel; what other people decided, evidence and the author's word stand above that.
    pub const fn stops_named(self) -> bool {
        match self {
            Self::Delayed | Self::TestOnly | Self::AfterDate => false,
            Self::AwaitingApproval | Self::Rejected | Self::Quarantined | Self::Withdrawn => true,
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_one_name_in_code_and_on_the_wire() {
        for block in Block::ALL {
            assert_eq!(serde_json::to_value(block).unwrap(), block.as_str());
            assert!(!block.remedy().is_empty());
        }
    }

    #[test]
    fn naming_a_set_overrides_its_age_and_channel_and_nobodys_decision() {
        let stopped: Vec<_> = Block::ALL.iter().filter(|block| block.stops_named()).collect();
        assert_eq!(
            stopped,
            [&Block::AwaitingApproval, &Block::Rejected, &Block::Quarantined, &Block::Withdrawn]
        );
    }
}
