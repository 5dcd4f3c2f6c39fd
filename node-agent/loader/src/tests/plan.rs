use super::*;

fn build(digit: char) -> BuildId {
    digit.to_string().repeat(40).parse().unwrap()
}

fn name(text: &str) -> TargetName {
    text.parse().unwrap()
}

fn target(text: &str) -> Target {
    Target { name: name(text), build_id: build('a') }
}

fn right() -> Build {
    Build::Is(build('a'))
}

fn foreign() -> Build {
    Build::Is(build('b'))
}

const ALLOWED: Terms = Terms { allow_partial: true, can_skip: true };

#[test]
fn a_target_is_right_only_if_neither_its_file_nor_what_is_loaded_is_anything_else() {
    let changes = Changes { kernel: true, targets: vec![target("a")] };
    let cases = [
        (Build::None, Build::None, None),
        (right(), Build::None, None),
        (Build::None, right(), None),
        (right(), right(), None),
        (foreign(), Build::None, Some(Wrong::Foreign)),
        (foreign(), right(), Some(Wrong::Foreign)),
        (foreign(), Build::Unknown, Some(Wrong::Foreign)),
        (Build::None, foreign(), Some(Wrong::Foreign)),
        (right(), foreign(), Some(Wrong::Foreign)),
        (foreign(), foreign(), Some(Wrong::Foreign)),
        (Build::Unknown, foreign(), Some(Wrong::Foreign)),
        (Build::Unknown, Build::None, Some(Wrong::Unknown)),
        (Build::Unknown, right(), Some(Wrong::Unknown)),
        (Build::Unknown, Build::Unknown, Some(Wrong::Unknown)),
        (Build::None, Build::Unknown, Some(Wrong::Unknown)),
        (right(), Build::Unknown, Some(Wrong::Unknown)),
    ];
    for (file, loaded, wrong) in cases {
        let builds = BTreeMap::from([(name("a"), Builds { file, loaded })]);
        let found = plan(&changes, &builds, Terms { allow_partial: false, can_skip: true });
        let wanted = match wrong {
            None => Plan::Load { skip: Vec::new() },
            Some(wrong) => Plan::Held(Held::NotAllowed, vec![(name("a"), wrong)]),
        };
        assert_eq!(found, wanted, "{builds:?}");
    }
    let not_looked_at = plan(&changes, &BTreeMap::new(), Terms { allow_partial: false, ..ALLOWED });
    assert_eq!(not_looked_at, Plan::Held(Held::NotAllowed, vec![(name("a"), Wrong::Unknown)]));
}

#[test]
fn wrong_targets_are_left_out_where_policy_and_patch_allow_it_and_something_is_left() {
    let well = Builds { file: right(), loaded: Build::None };
    let wrong = Builds { file: foreign(), loaded: Build::None };
    let changes = |kernel| Changes { kernel, targets: vec![target("a"), target("b")] };
    let one = BTreeMap::from([(name("a"), well), (name("b"), wrong.clone())]);
    let all = BTreeMap::from([(name("a"), wrong.clone()), (name("b"), wrong)]);
    let skip = |names: &[&str]| Plan::Load { skip: names.iter().map(|text| name(text)).collect() };
    for kernel in [false, true] {
        assert_eq!(plan(&changes(kernel), &one, ALLOWED), skip(&["b"]));
        for (terms, held) in [
            (Terms { allow_partial: false, ..ALLOWED }, Held::NotAllowed),
            (Terms { can_skip: false, ..ALLOWED }, Held::CannotSkip),
            (Terms { allow_partial: false, can_skip: false }, Held::NotAllowed),
        ] {
            let wrong = vec![(name("b"), Wrong::Foreign)];
            assert_eq!(plan(&changes(kernel), &one, terms), Plan::Held(held, wrong));
        }
    }
    assert_eq!(plan(&changes(true), &all, ALLOWED), skip(&["a", "b"]));
    let both = vec![(name("a"), Wrong::Foreign), (name("b"), Wrong::Foreign)];
    assert_eq!(plan(&changes(false), &all, ALLOWED), Plan::Held(Held::NothingLeft, both));
    assert_eq!(plan(&Changes::default(), &BTreeMap::new(), ALLOWED), skip(&[]));
}

#[test]
fn the_parameters_name_what_is_left_out_and_are_none_where_nothing_is() {
    assert_eq!(parameters(&[]), "");
    assert_eq!(parameters(&[name("nf_tables"), name("8021q")]), "skip=nf_tables,8021q");
}

#[test]
fn what_holds_a_patch_is_told_in_few_words_however_much_it_is() {
    let wrong: Vec<_> = (0..128).map(|n| (name(&format!("{n:055}")), Wrong::Foreign)).collect();
    for held in [Held::NotAllowed, Held::CannotSkip, Held::NothingLeft] {
        assert!(held.message(&wrong).contains(", 125 more; "));
    }
    assert_eq!(
        Held::NotAllowed.message(&[(name("a"), Wrong::Foreign), (name("b"), Wrong::Unknown)]),
        "a is another build, the build of b is not known; the policy does not allow to leave modules out"
    );
}

/// Absent, with the right file.
fn absent() -> Builds {
    Builds { file: right(), loaded: Build::None }
}

fn loaded() -> Builds {
    Builds { file: right(), loaded: right() }
}

const NO: Shown = Shown { patched: false, skipped: false, pinned: false, needs_heal: false };
const PATCHED: Shown = Shown { patched: true, ..NO };
const SKIPPED: Shown = Shown { skipped: true, ..NO };
const PINNING: Shown = Shown { pinned: true, ..NO };
const PINNED: Shown = Shown { patched: true, ..PINNING };
const REFUSED: Shown = Shown { needs_heal: true, ..NO };

#[test]
fn each_state_is_told_by_what_the_kernel_shows() {
    let file = |file: Build| Builds { file, loaded: Build::None };
    let in_kernel = |loaded: Build| Builds { file: right(), loaded };
    let cases = [
        (absent(), NO, TargetState::Absent),
        (file(Build::None), NO, TargetState::Absent),
        // The moment in which it has come and is not shown as patched yet, or goes.
        (loaded(), NO, TargetState::Absent),
        (absent(), PINNING, TargetState::Absent),
        (loaded(), PATCHED, TargetState::Patched),
        // Its package was renewed while it ran: it is patched all the same.
        (Builds { file: foreign(), loaded: right() }, PATCHED, TargetState::Patched),
        (loaded(), PINNED, TargetState::Pinned),
        (file(foreign()), SKIPPED, TargetState::Skipped),
        (in_kernel(foreign()), SKIPPED, TargetState::Skipped),
        (absent(), REFUSED, TargetState::NeedsHeal),
        (file(Build::None), REFUSED, TargetState::NeedsHeal),
        (file(foreign()), NO, TargetState::ForeignBuild),
        // To heal it now would be in vain.
        (file(foreign()), REFUSED, TargetState::ForeignBuild),
        (in_kernel(foreign()), NO, TargetState::ForeignBuild),
        // It has all the names, so the kernel did not mind.
        (in_kernel(foreign()), PATCHED, TargetState::ForeignBuild),
        (file(Build::Unknown), NO, TargetState::UnknownBuild),
        (file(Build::Unknown), REFUSED, TargetState::UnknownBuild),
        (in_kernel(Build::Unknown), PATCHED, TargetState::UnknownBuild),
    ];
    let target = target("a");
    for (builds, shown, wanted) in cases {
        let facts = Facts { target: &target, builds: &builds, shown };
        assert_eq!(Memory::default().state(&facts), wanted, "{facts:?}");
        assert_eq!(Memory::default().is_to_heal(&facts), wanted == TargetState::NeedsHeal, "{facts:?}");
    }
}

#[test]
fn each_refusal_is_healed_and_a_second_one_is_told_until_the_target_has_come() {
    let patch: ModuleName = "invivo_l1_0123456789abcdef".parse().unwrap();
    let (target, builds) = (target("a"), absent());
    let look = |memory: &Memory, shown| {
        let facts = Facts { target: &target, builds: &builds, shown };
        (memory.state(&facts), memory.is_to_heal(&facts))
    };
    let mut memory = Memory::default();
    memory.of(&patch);
    assert_eq!(look(&memory, REFUSED), (TargetState::NeedsHeal, true));
    memory.healed(&target.name);
    assert_eq!(look(&memory, NO), (TargetState::Absent, false));
    assert_eq!(look(&memory, REFUSED), (TargetState::Refused, true), "refused although it was healed");
    memory.healed(&target.name);
    assert_eq!(look(&memory, NO), (TargetState::Refused, false));
    memory.loaded(&target.name);
    assert_eq!(look(&memory, NO), (TargetState::Absent, false), "it has come and gone");
    assert_eq!(look(&memory, REFUSED), (TargetState::NeedsHeal, true));
    memory.healed(&target.name);
    memory.of(&"invivo_l2_0123456789abcdef".parse().unwrap());
    assert_eq!(look(&memory, REFUSED), (TargetState::NeedsHeal, true), "another patch");
}

#[test]
fn a_wrong_file_is_not_healed_until_it_is_the_right_one() {
    let target = target("a");
    for (file, heals) in [(foreign(), false), (Build::Unknown, false), (right(), true)] {
        let builds = Builds { file, loaded: Build::None };
        let facts = Facts { target: &target, builds: &builds, shown: REFUSED };
        assert_eq!(Memory::default().is_to_heal(&facts), heals, "{builds:?}");
    }
}
