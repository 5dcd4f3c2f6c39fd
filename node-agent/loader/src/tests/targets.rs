//! Kernel modules as targets, through the whole loader.

use std::time::Duration;

use invivo_feed::document::PatchedObject;
use invivo_terms::{BuildId, Level, NodeState, TargetName, TargetState};
use invivo_wire::{Fault, Request, State};

use super::repository::Bundle;
use super::{Trial, UNPATCHED, fault, state};
use crate::fake::build_id;
use crate::targets::{Build, Builds, Shown};

fn name(text: &str) -> TargetName {
    text.parse().unwrap()
}

fn right() -> BuildId {
    build_id(0x11)
}

fn foreign() -> BuildId {
    build_id(0x22)
}

impl Trial {
    /// Changes the kernel and two modules.
    pub(super) fn changing(&self, level: u32, features: Option<&str>) -> Bundle {
        let object = |name: &str, build_id: Option<BuildId>| PatchedObject {
            name: name.to_owned(),
            build_id,
            functions: vec!["f".to_owned()],
        };
        let objects = vec![object("vmlinux", None), object("a", Some(right())), object("b", Some(right()))];
        let set = format!("2026-11-21.{level}");
        self.author.publish_changing(&build_id(0xab), level, &set, objects, features, Some("6.1.176-1"))
    }

    fn has(&self, target: &str, file: Build, loaded: Build) {
        self.kernel.0.borrow_mut().builds.insert(name(target), Builds { file, loaded });
    }

    fn shows(&self, target: &str, shown: Shown) {
        self.kernel.0.borrow_mut().shown.insert(name(target), shown);
    }

    fn refuses(&self, target: &str) {
        self.shows(target, Shown { needs_heal: true, ..Shown::default() });
    }

    fn apply_partially(&mut self, revision: i64, bundle: &Bundle) -> State {
        let mut request = self.request(revision, bundle);
        request.allow_partial = true;
        self.pass(request, &bundle.proof, &bundle.module)
    }

    fn look(&mut self) -> State {
        state(self.loader.handle(Request::Look, &[]))
    }

    fn heals(&self) -> Vec<String> {
        self.kernel.0.borrow().heals.iter().map(ToString::to_string).collect()
    }

    fn parameters(&self) -> Vec<String> {
        self.kernel.0.borrow().parameters.clone()
    }
}

fn told(state: &State) -> Vec<String> {
    state.targets.iter().map(|target| format!("{} {}", target.name, target.state)).collect()
}

const PATCHED: Shown = Shown { patched: true, skipped: false, pinned: false, needs_heal: false };
const SKIPPED: Shown = Shown { patched: false, skipped: true, ..PATCHED };

#[test]
fn a_patch_whose_targets_are_right_is_loaded_whole_and_each_is_told() {
    let mut trial = Trial::new();
    let bundle = trial.changing(1, Some("clear,heal,skip,pin"));
    trial.has("a", Build::Is(right()), Build::Is(right()));
    trial.has("b", Build::Is(right()), Build::None);
    trial.shows("a", PATCHED);
    let state = trial.apply(1, &bundle);
    assert_eq!((state.state, state.level), (NodeState::Applied, Level(1)));
    assert_eq!(state.effective, "6.1.176-1");
    assert_eq!(told(&state), ["a Patched", "b Absent"]);
    assert_eq!(trial.parameters(), [""]);
    let state = trial.roll_back(2);
    assert_eq!((state.level, told(&state)), (UNPATCHED, Vec::new()));
}

#[test]
fn a_foreign_target_holds_the_patch_before_anything_is_done_and_names_it() {
    for (file, loaded) in [
        (Build::Is(foreign()), Build::None),
        (Build::Is(right()), Build::Is(foreign())),
        (Build::Unknown, Build::None),
    ] {
        let mut trial = Trial::new();
        let bundle = trial.changing(1, Some("heal,skip,pin"));
        trial.has("b", file, loaded);
        let state = trial.apply(1, &bundle);
        assert_eq!(
            (state.state, state.reason, state.level),
            (NodeState::Refused, Some(fault(Fault::ForeignTarget)), UNPATCHED)
        );
        let message = state.message.unwrap();
        assert!(message.contains("b is another build") || message.contains("build of b is not known"));
        assert_eq!(trial.kernel.loads(), 0);
        trial.restart();
        assert_eq!((trial.kernel.loads(), trial.ask().state), (0, NodeState::Refused));
        trial.has("b", Build::Is(right()), Build::None);
        assert_eq!(trial.apply(2, &bundle).state, NodeState::Applied, "a new instruction looks again");
    }
}

#[test]
fn where_the_policy_allows_it_a_foreign_target_is_left_out_and_the_claim_is_not_made() {
    let mut trial = Trial::new();
    let bundle = trial.changing(1, Some("heal,skip,pin"));
    trial.has("a", Build::Is(foreign()), Build::None);
    trial.shows("a", SKIPPED);
    trial.shows("b", PATCHED);
    trial.has("b", Build::Is(right()), Build::Is(right()));
    let state = trial.apply_partially(1, &bundle);
    assert_eq!(
        (state.state, told(&state)),
        (NodeState::Applied, vec!["a Skipped".into(), "b Patched".into()])
    );
    assert_eq!(trial.parameters(), ["skip=a"]);
    assert_eq!(state.effective, "6.1.170-3+invivo1");
}

#[test]
fn a_patch_that_cannot_skip_is_held_whatever_the_policy_allows() {
    for features in [None, Some("heal"), Some("skipping")] {
        let mut trial = Trial::new();
        let bundle = trial.changing(1, features);
        trial.has("a", Build::Is(foreign()), Build::None);
        assert_eq!(
            trial.apply_partially(1, &bundle).reason,
            Some(fault(Fault::ForeignTarget)),
            "{features:?}"
        );
        assert_eq!(trial.kernel.loads(), 0);
    }
}

#[test]
fn after_a_boot_what_was_allowed_holds_and_what_is_held_is_tried_again() {
    let mut trial = Trial::new();
    let bundle = trial.changing(1, Some("heal,skip,pin"));
    trial.settle(1, &bundle);
    trial.has("a", Build::Is(foreign()), Build::None);
    trial.reboot("boot-2");
    let held = trial.ask();
    assert_eq!((held.reason, held.level), (Some(fault(Fault::ForeignTarget)), UNPATCHED));
    trial.has("a", Build::Is(right()), Build::None);
    trial.kernel.pass(Duration::from_secs(6));
    trial.loader.tick();
    assert_eq!(trial.ask().level, Level(1));
    assert_eq!(trial.parameters(), ["", ""]);

    let mut trial = Trial::new();
    let bundle = trial.changing(1, Some("heal,skip,pin"));
    assert_eq!(trial.apply_partially(1, &bundle).state, NodeState::Applied);
    trial.kernel.pass(Duration::from_mins(30));
    assert_eq!(trial.ask().state, NodeState::Settled);
    trial.has("a", Build::Is(foreign()), Build::None);
    trial.reboot("boot-2");
    assert_eq!((trial.ask().level, trial.parameters()), (Level(1), vec![String::new(), "skip=a".to_owned()]));
}

#[test]
fn a_target_that_comes_and_goes_is_seen_at_each_question() {
    let mut trial = Trial::new();
    let bundle = trial.changing(1, Some("clear,heal,skip,pin"));
    trial.apply(1, &bundle);
    for (loaded, shown, wanted) in [
        (Build::Is(right()), PATCHED, "a Patched"),
        (Build::None, Shown::default(), "a Absent"),
        (Build::Is(right()), Shown { pinned: true, ..PATCHED }, "a Pinned"),
        (Build::Is(foreign()), PATCHED, "a ForeignBuild"),
    ] {
        trial.has("a", Build::Is(right()), loaded);
        trial.shows("a", shown);
        assert_eq!(told(&trial.ask())[0], wanted);
    }
}

#[test]
fn a_refused_target_is_healed_when_the_loader_is_woken_or_looks_by_itself() {
    let mut trial = Trial::new();
    let bundle = trial.changing(1, Some("heal,skip,pin"));
    trial.apply(1, &bundle);
    trial.refuses("a");
    assert_eq!(told(&trial.ask()), ["a NeedsHeal", "b Absent"], "to ask how things stand changes nothing");
    assert_eq!(trial.heals(), Vec::<String>::new());
    assert_eq!(told(&trial.look()), ["a Absent", "b Absent"]);
    trial.look();
    assert_eq!(trial.heals(), ["a"], "healed once");
    trial.refuses("a");
    trial.kernel.pass(Duration::from_mins(1));
    trial.loader.tick();
    assert_eq!(trial.heals(), ["a", "a"]);
    assert_eq!(told(&trial.ask()), ["a Refused", "b Absent"]);
    trial.has("a", Build::Is(right()), Build::Is(right()));
    trial.shows("a", PATCHED);
    assert_eq!(told(&trial.look()), ["a Patched", "b Absent"]);
}

#[test]
fn a_patch_that_is_not_ours_to_mind_is_not_healed_and_what_cannot_be_healed_is_told() {
    let mut trial = Trial::new();
    let bundle = trial.changing(1, Some("heal,skip,pin"));
    trial.refuses("a");
    assert!(told(&trial.look()).is_empty());
    assert_eq!(trial.heals(), Vec::<String>::new(), "nothing is on");
    trial.apply(1, &bundle);
    trial.kernel.0.borrow_mut().cannot_heal = true;
    for _ in 0..3 {
        assert_eq!(told(&trial.look()), ["a NeedsHeal", "b Absent"]);
    }
}

#[test]
fn a_new_level_begins_anew_with_what_was_healed() {
    let mut trial = Trial::new();
    let (first, second) = (trial.changing(1, Some("heal")), trial.changing(2, Some("heal")));
    trial.apply(1, &first);
    for _ in 0..2 {
        trial.refuses("a");
        trial.look();
    }
    assert_eq!(trial.ask().targets[0].state, TargetState::Refused);
    assert_eq!(trial.apply(2, &second).targets[0].state, TargetState::Absent);
}
