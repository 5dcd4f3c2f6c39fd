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
    /// What they say about the stage that the rollout is in; an answer about another one is none.
    /// Taking patches off needs no gate: it is what people do when one fails.
    pub(crate) fn of(world: &'a World, target: &Target<'_>, rollout: &RolloutMemory) -> Self {
        let current = (rollout.number, rollout.stage);
        let asked = || world.gates.iter().filter(|_| !target.is_unpatched());
        let is_about_this = |gate: &Gate| gate.about.is_none_or(|about| about == current);
        let failed = |gate: &&Gate| is_about_this(gate) && matches!(gate.verdict, GateVerdict::Failed { .. });
        let unknown =
            |gate: &Gate| !is_about_this(gate) || matches!(gate.verdict, GateVerdict::Unknown { .. });
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
