//! The named refusals: one variant each, used as condition reason, Event reason and metric label.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident => $remedy:literal,)+) => {
        /// Why something offered was not taken. The name is what people search for; it never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum Refusal {
            $($(#[$doc])* $name,)+
        }

        impl Refusal {
            /// Every refusal there is, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name as it stands in conditions, Events and metrics.
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

refusals! {
    /// Signed, but by nobody that the trust document names for this role.
    UnknownKey => "ask the repository's owner which keys signed it; if a key was added, its trust document must say so",
    /// Fewer distinct certificates signed than the role needs.
    BelowThreshold => "the repository's owner must add the missing signatures and publish again",
    /// A signature by a revoked key.
    RevokedKey => "the repository's owner must sign with a valid key and rotate the trust document",
    /// A signature by a key that had expired when it signed.
    ExpiredKey => "the repository's owner must extend or replace the key and sign again",
    /// A valid signature for another document type, role or repository.
    SignatureConfusion => "the document was signed for another purpose: check which repository the URL serves",
    /// The first trust document is not the one that people pinned.
    WrongRoot => "compare spec.trust.rootSha256 and the chart's trust roots with the owner's published digest",
    /// An older document than one already seen.
    Rollback => "the mirror serves old files: refresh it from its source",
    /// A version far ahead, which only a key rotation may bring.
    FastForward => "the repository's owner must rotate the index key by a higher trust version",
    /// The timestamp or index is past its date.
    Expired => "the repository's owner must refresh the timestamp (invivo repo refresh) or publish again",
    /// A document is not the one that the document above names.
    MixAndMatch => "the mirror is half updated or tampered with: refresh it from its source",
    /// Module or bundle bytes are not the signed ones.
    ArbitrarySoftware => "the file was changed after signing: refresh the mirror; if it persists, treat the server as hostile",
    /// The patch is for another kernel build.
    WrongKernel => "nothing to do on the node: it runs another kernel than the patch was made for",
    /// Longer than declared or than its cap.
    EndlessData => "the server sends more than was signed: check what it serves",
    /// Slower than the minimum rate, or past the deadline.
    SlowRetrieval => "check the network and the server; the fetch is resumed at the next attempt",
    /// The set was withdrawn by its author.
    Withdrawn => "choose another set",
    /// The node cannot store what it must keep.
    StorageFull => "free space on the node's state folder",
    /// The kernel refused the module; the message has its errno.
    LoadRefused => "see the message for the kernel's errno and the node's kernel log",
    /// Does not parse, or has fields where none may be.
    Malformed => "the document is damaged or from a newer format: refresh the mirror or upgrade Invivo",
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_one_name_in_code_and_on_the_wire() {
        for refusal in Refusal::ALL {
            assert_eq!(serde_json::to_value(refusal).unwrap(), refusal.as_str());
            assert!(!refusal.remedy().is_empty());
        }
    }
}
