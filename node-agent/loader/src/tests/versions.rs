//! Journals that loaders of other versions have written: the loader's container is replaced by the one
//! of the release before or after while a level is on.

use serde_json::{Value, json};

use super::*;
use crate::fake::build_id;
use crate::slots::Slots;

/// Structures of the journal's own. The rest is what came over the wire or from a repository.
const OWN: [&str; 9] = [
    "/task",
    "/outcome",
    "/active",
    "/active/loaded",
    "/active/health",
    "/settled",
    "/unpatched",
    "/stray",
    "/leaving",
];

/// What a later version might add, wherever it might: in every object that is not a map, and not a
/// variant with what belongs to it.
fn later(journal: &mut Value) {
    grow(journal, "");
}

fn grow(value: &mut Value, place: &str) {
    const NO_STRUCTURES: [&str; 3] = ["/floors", "/verdicts", "/task/what"];
    match value {
        Value::Object(fields) => {
            fields.iter_mut().for_each(|(name, field)| grow(field, &format!("{place}/{name}")));
            if !NO_STRUCTURES.contains(&place) {
                fields.insert("fromTheFuture".to_owned(), json!({"freezes": [3]}));
            }
        }
        Value::Array(entries) => entries.iter_mut().for_each(|entry| grow(entry, place)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What the first version that had these two files did not write.
fn earlier(journal: &mut Value) {
    const ADDED: [&str; 7] =
        ["stray", "leaving", "rollsBackLate", "changes", "allowPartial", "harmed", "blockers"];
    for place in [""].into_iter().chain(OWN) {
        if let Some(object) = journal.pointer_mut(place).and_then(Value::as_object_mut) {
            object.retain(|key, _| !ADDED.contains(&key.as_str()));
        }
    }
}

impl Trial {
    /// The journal is what a loader of another version would have written.
    fn written_by(&self, version: fn(&mut Value)) {
        let (mut slots, value) = Slots::open(self.state.path()).unwrap();
        let before: Value = serde_json::from_slice(&value.unwrap()).unwrap();
        let mut after = before.clone();
        version(&mut after);
        assert_ne!(before, after);
        slots.write(&serde_json::to_vec(&after).unwrap()).unwrap();
    }
}

#[test]
fn a_level_stays_what_it_is_when_a_loader_of_another_version_takes_over() {
    for version in [later, earlier] {
        let mut trial = Trial::new();
        let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
        trial.settle(2, &one);
        let two = trial.author.publish(&build_id(0xab), 2, "2026-11-21.2");
        trial.apply(3, &two);
        // What else is written to the disk is not the loader's.
        let but_room = |state: State| State { room: None, ..state };
        let before = but_room(trial.ask());
        trial.written_by(version);
        trial.restart();
        assert_eq!(but_room(trial.ask()), before);
        assert_eq!(but_room(trial.apply(3, &two)), before);
        assert_eq!(trial.kernel.loads(), 2, "it was not loaded anew");
        trial.kernel.pass(Duration::from_mins(30));
        assert_eq!(trial.ask().state, NodeState::Settled);
        // Instructions and documents of before are old to it too.
        assert_eq!(trial.apply(2, &one).reason, Some(fault(Fault::StaleInstruction)));
        assert_eq!(trial.ask().floors, before.floors);
    }
}

#[test]
fn what_a_later_version_adds_anywhere_is_let_be() {
    let mut trial = Trial::new();
    let one = trial.changing(1, None);
    trial.settle(2, &one);
    trial.kernel.0.borrow_mut().transition = None;
    let two = trial.changing(2, None);
    let state = trial.apply(3, &two);
    assert_eq!((state.state, state.blockers.len()), (NodeState::Blocked, 1));
    let before = trial.loader.journal.clone();
    assert_eq!(before.active.as_ref().unwrap().loaded.changes.targets.len(), 2);
    trial.written_by(later);
    assert_eq!(Store::new(trial.state.path()).open().unwrap(), before);
}

#[test]
fn a_settled_level_is_brought_back_by_a_loader_of_another_version() {
    for version in [later, earlier] {
        let mut trial = Trial::new();
        let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
        trial.settle(2, &one);
        trial.written_by(version);
        trial.reboot("boot-2");
        let state = trial.ask();
        assert_eq!((state.state, state.level), (NodeState::Settled, Level(1)));
    }
}

#[test]
fn what_one_version_holds_against_a_bundle_another_does_too() {
    for version in [later, earlier] {
        let mut trial = Trial::new();
        let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
        for (revision, boot) in [(2, "boot-2"), (3, "boot-3")] {
            trial.apply(revision, &one);
            trial.written_by(version);
            trial.reboot(boot);
        }
        assert_eq!(trial.ask().state, NodeState::Convicted);
        trial.written_by(version);
        trial.restart();
        assert_eq!(trial.apply(4, &one).reason, Some(fault(Fault::ConvictedHere)));
    }
}

#[test]
fn a_load_that_another_version_was_killed_at_is_ended_by_this_one() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    for version in [later, earlier] {
        let mut trial = Trial::new();
        let one = trial.author.publish(&build_id(0xab), 1, "2026-11-21.1");
        trial.kernel.0.borrow_mut().killed = Some(crate::fake::Killed::Waiting);
        assert!(catch_unwind(AssertUnwindSafe(|| trial.apply(2, &one))).is_err());
        trial.kernel.0.borrow_mut().killed = None;
        trial.written_by(version);
        trial.restart();
        let state = trial.ask();
        assert_eq!((state.state, state.level), (NodeState::Applied, Level(1)));
        assert_eq!((trial.apply(2, &one).state, trial.kernel.loads()), (NodeState::Applied, 1));
    }
}
