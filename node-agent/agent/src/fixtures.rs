//! Plain values for the tests of the pure parts.

use invivo_api::Apply;
use invivo_terms::{HumanDuration, Level, Mechanism, NodeState, Revision};
use invivo_wire::{Order, State};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

#[path = "../../fixtures/state.rs"]
mod state;

use crate::instruction::{Instruction, What};
pub(crate) use state::at_rest;

pub(crate) fn loader(object: &str, revision: i64, state: NodeState) -> State {
    let order = Order { object: object.to_owned(), revision: Revision(revision) };
    State { order: Some(order), ..at_rest(state) }
}

pub(crate) fn apply() -> What {
    What::Apply(Box::new(Apply {
        build_id: "ab".repeat(20).parse().unwrap(),
        level: Level(1),
        set: "2026-11-21.1".parse().unwrap(),
        digest: invivo_feed::digest(b"set"),
        manifest: invivo_feed::digest(b"manifest"),
        mechanism: Mechanism::Livepatch,
        deadline: Time("2026-11-21T12:10:00Z".parse().unwrap()),
        settle_after: HumanDuration::from_secs(1800),
        allow_partial: false,
        from: None,
        attempt: 1,
    }))
}

pub(crate) fn instruction(object: &str, revision: i64, what: What) -> Instruction {
    Instruction {
        order: Order { object: object.to_owned(), revision: Revision(revision) },
        policy: Some("workers".to_owned()),
        feed: Some("production".to_owned()),
        what,
    }
}
