//! A NodePatch's spec as one instruction.

use invivo_api::{Apply, NodePatch};
use invivo_terms::Revision;
use invivo_wire::Order;
use jiff::Timestamp;
use kube::ResourceExt;

/// What the operator tells this node.
#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    /// Its place in the order of instructions.
    pub order: Order,
    /// The policy that governs the node.
    pub policy: Option<String>,
    /// The feed to take from.
    pub feed: Option<String>,
    /// What to do.
    pub what: What,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Bring the kernel to a level.
    Apply(Box<Apply>),
    /// Take every patch off.
    RollBack {
        /// No attempt starts after this.
        deadline: Timestamp,
    },
    /// Do nothing new.
    Hold,
}

impl Instruction {
    /// Reads the spec. None where it says nothing that could be done, which the schema forbids:
    /// absence is never an instruction.
    pub fn of(object: &NodePatch) -> Option<Self> {
        let spec = &object.spec;
        let what = match (&spec.apply, &spec.roll_back, &spec.hold) {
            (Some(apply), None, None) => What::Apply(Box::new(apply.clone())),
            (None, Some(roll_back), None) => What::RollBack { deadline: roll_back.deadline.0 },
            (None, None, Some(_)) => What::Hold,
            (_, _, _) => return None,
        };
        let order = Order { object: object.uid()?, revision: spec.revision };
        Some(Self { order, policy: spec.policy.clone(), feed: spec.feed.clone(), what })
    }

    /// Its revision.
    pub const fn revision(&self) -> Revision {
        self.order.revision
    }

    /// Until when it may be tried; none for a hold, which is done at once.
    pub fn deadline(&self) -> Option<Timestamp> {
        match &self.what {
            What::Apply(apply) => Some(apply.deadline.0),
            What::RollBack { deadline } => Some(*deadline),
            What::Hold => None,
        }
    }
}
