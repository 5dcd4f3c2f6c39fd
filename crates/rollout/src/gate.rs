//! What the gates say together.

use invivo_terms::Hold;
use jiff::Timestamp;

use crate::target::Target;
use crate::{Gate, GateVerdict, RolloutMemory, World, rollout};

/// The gates' common verdict.
pub(crate) struct Gates<'a> {
    /// The first one that does not pass, and the hold that it brings.
    pub(crate) closed: Option<Hold>,
    /// One says that something is wrong.
    pub(crate) failing: bool,
    /// And one of these decides about more than the node whose word it heard.
    pub(crate) foreign_failure: bool,
    world: &'a World,
}

impl<'a> Gates<'a> {
    /// Taking patches off needs no gate: it is what people do when one fails.
    pub(crate) fn of(world: &'a World, target: &Target<'_>) -> Self {
        let asked = || world.gates.iter().filter(|_| !target.is_unpatched());
        let failed = |gate: &&Gate| matches!(gate.verdict, GateVerdict::Failed { .. });
        let unknown = |gate: &Gate| matches!(gate.verdict, GateVerdict::Unknown { .. });
        let failing = asked().any(|gate| failed(&gate));
        let closed =
            if failing { Some(Hold::GateFailing) } else { asked().any(unknown).then_some(Hold::GateUnknown) };
        Self { closed, failing, foreign_failure: asked().filter(failed).any(|gate| gate.foreign), world }
    }

    pub(crate) fn note(&self, rollout: &mut RolloutMemory, now: Timestamp) {
        for gate in &self.world.gates {
            if let GateVerdict::Failed { message } = &gate.verdict {
                rollout::note(rollout, &gate.name, true, message, now);
            }
        }
    }
}
