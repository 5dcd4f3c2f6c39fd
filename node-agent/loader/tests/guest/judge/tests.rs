use super::*;

use std::collections::BTreeMap;
use std::time::Duration;

use invivo_loader::journal::Journal;
use invivo_terms::SetName;
use invivo_wire::Order;

use crate::file_system::FileSystem;
use crate::plan::{Generation, Kernel};

#[path = "../../../../fixtures/state.rs"]
mod state;
use state::at_rest;

fn floors(repository: &str, timestamp: u64) -> Floors {
    Floors { repository: Some(repository.parse().unwrap()), trust: 1, index: 1, timestamp }
}

fn facts() -> Facts {
    let offer = |level: u32, repository: &str| Offer {
        build_id: "ab".repeat(20).parse().unwrap(),
        level: Level(level),
        set: "2026-11-21.1".parse::<SetName>().unwrap(),
        set_digest: Digest::from_bytes(&[0; 32]),
        manifest: Digest::from_bytes(&[0; 32]),
        module: module(level),
        note: note(level),
        generations: (4..8).map(|timestamp| Generation { floors: floors(repository, timestamp) }).collect(),
    };
    let offers = vec![offer(1, "example"), offer(2, "example"), offer(4, "stranger")];
    Facts { root: Digest::from_bytes(&[0; 32]), offers, file_system: FileSystem::Ext4 }
}

fn note(level: u32) -> Vec<u8> {
    vec![u8::try_from(level).unwrap()]
}

fn module(level: u32) -> Digest {
    invivo_feed::digest(&note(level))
}

/// A node on which all is as it should be.
fn look(level: u32, state: NodeState, revision: i64) -> Look {
    let on = (level > 0).then_some(Level(level));
    let state = State {
        order: (revision > 0).then(|| Order { object: "uid".to_owned(), revision: Revision(revision) }),
        level: Level(level),
        floors: if revision > 0 { floors("example", 6) } else { Floors::default() },
        ..at_rest(state)
    };
    Look {
        at: u64::try_from(Duration::from_secs(2).as_millis()).unwrap(),
        state,
        journal: Journal::default(),
        evidence: BTreeMap::new(),
        kernel: Kernel {
            on: on.iter().map(ToString::to_string).collect(),
            modules: on.iter().map(|_| note(level)).collect(),
            cmdline: on,
            version: on.filter(|on| *on == SECOND),
        },
    }
}

fn up(look: Look) -> Said {
    Said::Up(Box::new(look))
}

fn answered(look: Look) -> Said {
    Said::Answered(Box::new(Answer::State(Box::new(look.state.clone()))), Box::new(look))
}

fn apply(level: u32, generation: u32, revision: i64) -> Step {
    let (level, revision) = (Level(level), Revision(revision));
    Step::Apply { level, generation, revision, bytes: Bytes::Good }
}

fn wrong(promised: &mut Promised, said: &[Said]) -> Vec<String> {
    said.iter().flat_map(|said| promised.hear(said)).collect()
}

/// A node whose level 1 has settled with revision 3, and whose power was cut.
fn settled() -> Promised {
    let mut promised = Promised::new(facts());
    let said = [
        up(look(0, NodeState::Idle, 0)),
        Said::Asks(apply(1, 2, 3)),
        answered(look(1, NodeState::Applied, 3)),
        Said::Looks(Box::new(look(1, NodeState::Settled, 3))),
    ];
    assert_eq!(wrong(&mut promised, &said), Vec::<String>::new());
    promised.power_cut();
    promised
}

fn after_a_cut(look: Look) -> Vec<String> {
    wrong(&mut settled(), &[up(look)])
}

#[test]
fn a_node_that_keeps_its_promises_is_not_blamed() {
    assert_eq!(after_a_cut(look(1, NodeState::Settled, 3)), Vec::<String>::new());
}

#[test]
fn lost_floors_and_instructions_are_found_out() {
    let mut forgot = look(1, NodeState::Settled, 3);
    forgot.state.floors.timestamp = 5;
    assert!(after_a_cut(forgot)[0].starts_with("lost floors"));
    assert!(after_a_cut(look(1, NodeState::Settled, 2))[0].starts_with("revision 2"));
    assert!(after_a_cut(look(1, NodeState::Settled, 4))[0].starts_with("revision 4"), "asked by nobody");
    let mut empty = look(1, NodeState::Settled, 3);
    empty.state.floors = Floors::default();
    assert!(after_a_cut(empty)[0].starts_with("lost floors"));
}

#[test]
fn a_settled_level_that_is_not_back_and_one_that_nobody_asked_for_are_found_out() {
    assert!(after_a_cut(look(0, NodeState::Idle, 3))[0].contains("is not back"));
    assert!(after_a_cut(look(2, NodeState::Settled, 3))[0].contains("level 2 is back"));
    let mut promised = settled();
    promised.power_cut();
    assert_eq!(wrong(&mut promised, &[up(look(0, NodeState::Suspected, 3))]), Vec::<String>::new());
}

#[test]
fn a_module_that_nobody_signed_is_found_out() {
    let mut strange = look(1, NodeState::Settled, 3);
    strange.kernel.modules.insert(note(4));
    assert!(after_a_cut(strange)[0].starts_with("a module that nobody signed"));
    let mut refused = look(1, NodeState::Failed, 3);
    refused.state.reason = Some(Reason::Refusal(Refusal::LoadRefused));
    assert!(after_a_cut(refused)[0].contains("LoadRefused"));
}

#[test]
fn code_that_runs_without_the_loaders_word_is_found_out() {
    let mut lies = look(1, NodeState::Settled, 3);
    lies.kernel.cmdline = None;
    assert!(after_a_cut(lies)[0].starts_with("level 1 by the loader"));
}

#[test]
fn what_is_due_is_told_from_what_was_heard() {
    let mut promised = settled();
    wrong(&mut promised, &[up(look(1, NodeState::Settled, 3))]);
    assert_eq!(promised.due(&apply(2, 3, 4)), Due::On(Level(2)));
    assert_eq!(promised.due(&apply(2, 1, 4)), Due::Refused(Because::OldDocuments));
    assert_eq!(promised.due(&apply(4, 0, 4)), Due::Refused(Because::Stranger));
    assert_eq!(promised.due(&Step::Hold { revision: Revision(2) }), Due::Refused(Because::OldInstruction));
    promised.convicted.insert(module(2));
    assert_eq!(promised.due(&apply(2, 3, 4)), Due::Refused(Because::Convicted));
    let said = [Said::Asks(apply(2, 3, 4)), answered(look(2, NodeState::Applied, 4))];
    let wrong = wrong(&mut promised, &said);
    assert!(wrong[0].contains("due Refused(Convicted)"), "{wrong:?}");
    assert!(wrong[1].starts_with("a conviction is forgotten"), "{wrong:?}");
}
