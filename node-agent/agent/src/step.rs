//! What to do about an instruction, from what the loader says and what was found before. Pure.

use invivo_terms::{NodeState, Revision};
use invivo_wire::{Fault, Order, Reason, State};
use jiff::Timestamp;

use crate::instruction::{Instruction, What};
use crate::verdict::{Cause, Verdict};

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing, or nothing more: report how things stand.
    Report,
    /// The instruction has ended without reaching the loader.
    End(Verdict),
    /// Tell the loader that there is nothing to do for this revision.
    Hold,
    /// Have the loader take every patch off.
    RollBack,
    /// Fetch, verify, pass to the loader.
    Apply,
}

/// The next step.
pub fn next(instruction: &Instruction, loader: &State, found: Option<&Verdict>, now: Timestamp) -> Step {
    let order = &instruction.order;
    if found.is_some_and(|verdict| verdict.order == *order) {
        return Step::Report;
    }
    // Which instructions it has heard it cannot tell, so none is passed: an old one could be done anew.
    if loader.reason == Some(Reason::Fault(Fault::JournalUnreadable)) {
        return Step::Report;
    }
    match known(loader, order) {
        Known::Newer | Known::Ended => return Step::Report,
        Known::Unheard | Known::UnderWay => {}
    }
    match &instruction.what {
        What::Hold => Step::Hold,
        // The loader alone judges these: it knows whether it began in time and what is on already.
        What::RollBack { .. } => Step::RollBack,
        What::Apply(apply) if apply.build_id != loader.kernel.build_id => {
            let message =
                format!("for kernel build {}, this kernel is {}", apply.build_id, loader.kernel.build_id);
            Step::End(Verdict::refused(order, Cause::Refusal(invivo_terms::Refusal::WrongKernel), message))
        }
        What::Apply(apply) if !loader.kernel.supports.contains(&apply.mechanism) => {
            let message = format!("this kernel has no {}", apply.mechanism);
            Step::End(Verdict::refused(order, Cause::Fault(Fault::NoLivepatch), message))
        }
        // One under way is the loader's to end, late or not.
        What::Apply(apply) if apply.deadline.0 <= now && loader.state != NodeState::Working => {
            let message = "the deadline had passed before it began";
            Step::End(Verdict::failed(order, Cause::Fault(Fault::DeadlinePassed), message))
        }
        What::Apply(_) => Step::Apply,
    }
}

/// What the loader knows of an instruction.
enum Known {
    /// A newer one: what is seen here is old.
    Newer,
    /// This one, and it has ended.
    Ended,
    /// This one; the loader was killed at it.
    UnderWay,
    /// Not this one.
    Unheard,
}

fn known(loader: &State, order: &Order) -> Known {
    match loader.order.as_ref().filter(|known| known.object == order.object) {
        Some(known) if known.revision > order.revision => Known::Newer,
        Some(known) if known.revision == order.revision => match loader.state {
            NodeState::Working => Known::UnderWay,
            NodeState::Idle
            | NodeState::Applied
            | NodeState::Settled
            | NodeState::RolledBack
            | NodeState::Blocked
            | NodeState::Refused
            | NodeState::Failed
            | NodeState::Suspected
            | NodeState::Convicted => Known::Ended,
        },
        Some(_) | None => Known::Unheard,
    }
}

/// The highest revision of this object that agent or loader know to have ended or begun, or that
/// stands in its status as such: a loader may forget, and not know that it did.
pub fn observed(
    instruction: Option<&Instruction>,
    loader: &State,
    found: Option<&Verdict>,
    written: Revision,
) -> Revision {
    let object = instruction.map(|instruction| instruction.order.object.as_str());
    let of = |order: &Order| (Some(order.object.as_str()) == object).then_some(order.revision);
    let loaders = loader.order.as_ref().and_then(of);
    let ours = found.and_then(|verdict| of(&verdict.order));
    loaders.max(ours).unwrap_or_default().max(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{apply, instruction, loader};
    use invivo_terms::Refusal;

    const NOW: &str = "2026-11-21T12:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    #[test]
    fn an_instruction_not_heard_before_is_carried_out() {
        let loader = loader("uid", 4, NodeState::Settled);
        assert_eq!(next(&instruction("uid", 5, What::Hold), &loader, None, now()), Step::Hold);
        let roll_back = What::RollBack { deadline: now() };
        assert_eq!(next(&instruction("uid", 5, roll_back), &loader, None, now()), Step::RollBack);
        assert_eq!(next(&instruction("uid", 5, apply()), &loader, None, now()), Step::Apply);
    }

    #[test]
    fn one_that_has_ended_is_not_done_again() {
        for state in [
            NodeState::Applied,
            NodeState::Settled,
            NodeState::RolledBack,
            NodeState::Blocked,
            NodeState::Refused,
            NodeState::Failed,
            NodeState::Idle,
        ] {
            let loader = loader("uid", 5, state);
            assert_eq!(next(&instruction("uid", 5, apply()), &loader, None, now()), Step::Report, "{state}");
        }
    }

    #[test]
    fn one_that_the_loader_was_killed_at_is_passed_again_even_after_its_deadline() {
        let loader = loader("uid", 5, NodeState::Working);
        let late = "2027-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(next(&instruction("uid", 5, apply()), &loader, None, late), Step::Apply);
    }

    #[test]
    fn an_older_one_is_left_alone_and_the_highest_known_is_reported() {
        let loader = loader("uid", 9, NodeState::Settled);
        let old = instruction("uid", 5, apply());
        assert_eq!(next(&old, &loader, None, now()), Step::Report);
        assert_eq!(observed(Some(&old), &loader, None, Revision(0)), Revision(9));
    }

    #[test]
    fn a_node_made_anew_begins_anew() {
        let loader = loader("old", 9, NodeState::Settled);
        let first = instruction("new", 1, What::Hold);
        assert_eq!(next(&first, &loader, None, now()), Step::Hold);
        assert_eq!(observed(Some(&first), &loader, None, Revision(0)), Revision(0));
    }

    #[test]
    fn what_the_agent_found_wrong_once_is_not_tried_again() {
        let loader = loader("uid", 4, NodeState::Settled);
        let instruction = instruction("uid", 5, apply());
        let found = Verdict::refused(&instruction.order, Cause::Refusal(Refusal::BelowThreshold), "");
        assert_eq!(next(&instruction, &loader, Some(&found), now()), Step::Report);
        assert_eq!(observed(Some(&instruction), &loader, Some(&found), Revision(0)), Revision(5));
    }

    #[test]
    fn a_loader_without_its_journal_is_passed_nothing_and_the_revision_written_before_stays() {
        let mut loader = loader("uid", 5, NodeState::Failed);
        (loader.order, loader.reason) = (None, Some(Reason::Fault(Fault::JournalUnreadable)));
        for what in [What::Hold, What::RollBack { deadline: now() }, apply()] {
            let instruction = instruction("uid", 5, what);
            assert_eq!(next(&instruction, &loader, None, now()), Step::Report);
            assert_eq!(observed(Some(&instruction), &loader, None, Revision(5)), Revision(5));
        }
    }

    #[test]
    fn another_kernel_and_a_passed_deadline_end_it_before_anything_is_fetched() {
        let mut other = loader("uid", 4, NodeState::Idle);
        other.kernel.build_id = "cd".repeat(20).parse().unwrap();
        let Step::End(verdict) = next(&instruction("uid", 5, apply()), &other, None, now()) else { panic!() };
        assert_eq!((verdict.state, verdict.cause.as_str()), (NodeState::Refused, "WrongKernel"));
        let late = "2027-01-01T00:00:00Z".parse().unwrap();
        let loader = loader("uid", 4, NodeState::Idle);
        let Step::End(verdict) = next(&instruction("uid", 5, apply()), &loader, None, late) else { panic!() };
        assert_eq!((verdict.state, verdict.cause.as_str()), (NodeState::Failed, "DeadlinePassed"));
    }

    #[test]
    fn a_kernel_without_the_mechanism_ends_it() {
        let mut bare = loader("uid", 4, NodeState::Idle);
        bare.kernel.supports.clear();
        let Step::End(verdict) = next(&instruction("uid", 5, apply()), &bare, None, now()) else { panic!() };
        assert_eq!(verdict.cause.as_str(), "NoLivepatch");
    }
}
