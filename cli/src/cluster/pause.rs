//! `pause`, `resume`: a policy gives no new instruction, or does again.

use clap::Args;
use serde_json::json;

use super::change::{Act, Change};
use super::object::Object;
use super::{Call, Writing};
use crate::exit::Failure;
use crate::table::counted;

/// `pause`, `resume`
#[derive(Debug, Args)]
pub struct PauseArguments {
    /// The PatchPolicy.
    pub(super) policy: String,
    #[command(flatten)]
    pub(super) writing: Writing,
    #[command(flatten)]
    pub(super) call: Call,
}

/// `spec.paused` becomes `paused`.
///
/// # Errors
///
/// The policy did not come from an API server.
pub(super) fn set_paused(act: Act<'_>, policy: &Object, paused: bool) -> Result<Change, Failure> {
    let name = policy.name();
    let change = act.set(policy, "/spec/paused", json!(false), json!(paused))?;
    if !paused {
        return Ok(change.said(
            &format!("PatchPolicy {name} is not paused any more."),
            &format!("PatchPolicy {name} was not paused; nothing was changed."),
            format!("The rollout goes on where it stood. `kubectl invivo watch {name}` shows it."),
        ));
    }
    let moving = counted(policy.number("/status/nodes/inFlight").unwrap_or(0), "node");
    Ok(change.said(
        &format!("PatchPolicy {name} is paused."),
        &format!("PatchPolicy {name} was paused already; nothing was changed."),
        format!(
            "No new instruction is given; what is under way ({moving}) ends. \
             `kubectl invivo resume {name}` goes on."
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::change::Write;
    use super::super::object::Kind;
    use super::super::person::Person;
    use super::*;

    fn policy(paused: bool) -> Object {
        Object::new(
            Kind::Policy,
            json!({"metadata": {"name": "workers", "uid": "u1"}, "spec": {"feed": "f", "paused": paused},
                "status": {"nodes": {"inFlight": 1}}}),
        )
    }

    #[test]
    fn pausing_changes_that_field_alone_and_says_what_is_still_under_way() {
        let ada = Person::new("ada");
        let change = set_paused(Act { command: "pause", person: &ada }, &policy(false), true).unwrap();
        assert_eq!(change.write, Write::Merge(json!({"spec": {"paused": true}, "metadata": {"uid": "u1"}})));
        let shown = change.answer.to_string();
        assert!(shown.starts_with("PatchPolicy workers is paused.\n"), "{shown}");
        assert!(shown.contains("under way (1 node) ends"), "{shown}");
    }

    #[test]
    fn a_policy_that_is_paused_already_is_left_alone() {
        let ada = Person::new("ada");
        let change = set_paused(Act { command: "pause", person: &ada }, &policy(true), true).unwrap();
        assert_eq!(change.write, Write::Nothing);
        assert!(change.answer.done.contains("already"));
        let change = set_paused(Act { command: "resume", person: &ada }, &policy(true), false).unwrap();
        assert_eq!(change.write, Write::Merge(json!({"spec": {"paused": false}, "metadata": {"uid": "u1"}})));
    }
}
