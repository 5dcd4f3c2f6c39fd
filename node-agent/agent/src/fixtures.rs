//! Plain values for the tests of the pure parts.

use invivo_api::Apply;
use invivo_terms::{Arch, HumanDuration, Level, Mechanism, NodeState, Revision};
use invivo_wire::{Kernel, Order, Signing, State};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::instruction::{Instruction, What};

pub(crate) fn loader(object: &str, revision: i64, state: NodeState) -> State {
    State {
        boot_id: "boot-1".to_owned(),
        kernel: Kernel {
            build_id: "ab".repeat(20).parse().unwrap(),
            release: "6.1.0-47-cloud-amd64".to_owned(),
            version: Some("6.1.170-3".to_owned()),
            arch: Arch::X86_64,
            supports: vec![Mechanism::Livepatch],
            signing: Signing::Off,
        },
        order: Some(Order { object: object.to_owned(), revision: Revision(revision) }),
        level: Level(0),
        set: None,
        manifest: None,
        effective: "6.1.170-3".to_owned(),
        state,
        since: "2026-11-21T11:00:00Z".parse().unwrap(),
        settles_in_seconds: None,
        unpatched_seconds: None,
        reason: None,
        message: None,
        evidence: None,
        blockers: Vec::new(),
        switch_millis: None,
        floors: invivo_feed::Floors::default(),
        targets: Vec::new(),
        room: None,
    }
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
