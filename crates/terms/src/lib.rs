//! The words of Invivo as types: names that must not be mixed up, and the typed reasons for
//! doing nothing (holds), for saying no (refusals) and for what became of a node (states).
//!
//! Nobody copies these; every other crate uses them.

mod block;
mod digest;
mod duration;
mod evidence;
mod excuse;
mod hold;
mod kernel;
mod name;
mod node;
mod number;
mod refusal;
mod rules;
mod target;
mod version;
mod words;

pub use block::Block;
pub use digest::Digest;
pub use duration::HumanDuration;
pub use evidence::EvidenceVerdict;
pub use excuse::Excuse;
pub use hold::Hold;
pub use kernel::{Arch, BuildId, Mechanism};
pub use name::{Date, Fingerprint, InvalidName, ModuleName, RepositoryName, SetName, TargetName, TargetSet};
pub use node::NodeState;
pub use number::{Level, Revision};
pub use refusal::Refusal;
pub use rules::{ApprovalMode, Decision, Decisions, FeedChannel, FeedRules};
pub use target::TargetState;
pub use version::{effective_version, label_value};

/// Node label put by the operator on every node it governs; the agent DaemonSet follows it.
pub const LABEL_AGENT: &str = "invivo.dev/agent";
/// Node annotation by which a person holds a node: JSON with `reason` and, if it ends, `until`.
pub const ANNOTATION_HOLD: &str = "invivo.dev/hold";
/// The ConfigMap in the operator's namespace whose existence stops every instruction.
pub const EMERGENCY_STOP: &str = "invivo-emergency-stop";
/// Node label with the level that a node runs, `0` where it runs none.
pub const LABEL_LEVEL: &str = "invivo.dev/level";
/// Node label with the effective version, encoded by [`label_value`].
pub const LABEL_EFFECTIVE: &str = "invivo.dev/effective-version";
