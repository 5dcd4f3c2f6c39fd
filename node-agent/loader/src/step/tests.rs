//! Every state and every edge of the two state machines.

use super::*;
use crate::seen::Resident;

static NONE: BTreeSet<ModuleName> = BTreeSet::new();

const ONE: &str = "invivo_l1_0123456789abcdef";
const TWO: &str = "invivo_l2_0123456789abcdef";

fn name(text: &str) -> ModuleName {
    text.parse().unwrap()
}

fn patch(name: &str, enabled: bool, transition: bool) -> Patch {
    Patch { name: name.to_owned(), enabled, transition }
}

fn seen(patches: &[Patch]) -> Seen {
    Seen { patches: patches.to_vec(), modules: Vec::new() }
}

fn with_leftover(mut seen: Seen, text: &str, references: u32) -> Seen {
    seen.modules.push(Resident { name: name(text), references, loading: false });
    seen
}

/// The next step at second `now` with the deadline at second 100.
fn at(now: u64, goal: &Goal, phase: &Phase, seen: &Seen) -> Step {
    at_with(now, goal, phase, seen, &BTreeSet::new())
}

fn at_with(now: u64, goal: &Goal, phase: &Phase, seen: &Seen, kept: &BTreeSet<ModuleName>) -> Step {
    next(&situation(now, goal, phase, seen, kept))
}

fn situation<'a>(
    now: u64,
    goal: &'a Goal,
    phase: &'a Phase,
    seen: &'a Seen,
    kept: &'a BTreeSet<ModuleName>,
) -> Situation<'a> {
    let (now, deadline) = (Duration::from_secs(now), Duration::from_secs(100));
    Situation { goal, phase, seen, kept, under: None, now, deadline, barred: &NONE }
}

const LATE: u64 = 100;

fn apply(text: &str) -> Goal {
    Goal::Apply(name(text))
}

fn undoing() -> Phase {
    Phase::Undoing { until: Duration::from_secs(160) }
}

#[test]
fn a_clean_kernel_is_journalled_then_loaded_then_watched() {
    let goal = apply(ONE);
    assert_eq!(at(0, &goal, &Phase::Checking, &seen(&[])), Step::Journal);
    assert_eq!(at(0, &goal, &Phase::Journalled, &seen(&[])), Step::Load);
    assert_eq!(at(0, &goal, &Phase::Switching, &seen(&[patch(ONE, true, true)])), Step::Wait);
    assert_eq!(at(0, &goal, &Phase::Switching, &seen(&[patch(ONE, true, false)])), Step::End(End::Reached));
}

#[test]
fn a_patch_in_transition_is_not_applied() {
    let both = seen(&[patch(ONE, true, false), patch(TWO, true, true)]);
    assert_eq!(both.level(), Level(1));
    assert_eq!(at(0, &apply(TWO), &Phase::Switching, &both), Step::Wait);
}

#[test]
fn what_is_applied_already_needs_nothing_even_after_the_deadline() {
    let goal = apply(ONE);
    assert_eq!(at(LATE, &goal, &Phase::Checking, &seen(&[patch(ONE, true, false)])), Step::End(End::Reached));
}

#[test]
fn a_transition_begun_before_the_loader_was_killed_is_watched_and_not_loaded_again() {
    let goal = apply(ONE);
    let moving = seen(&[patch(ONE, true, true)]);
    assert_eq!(at(0, &goal, &Phase::Checking, &moving), Step::Journal);
    assert_eq!(at(0, &goal, &Phase::Journalled, &moving), Step::Watch);
}

#[test]
fn nothing_begins_after_the_deadline() {
    assert_eq!(at(LATE, &apply(ONE), &Phase::Checking, &seen(&[])), Step::End(End::DeadlinePassed));
    let on = seen(&[patch(ONE, true, false)]);
    assert_eq!(at(LATE, &Goal::RollBack, &Phase::Checking, &on), Step::End(End::DeadlinePassed));
}

#[test]
fn a_foreign_livepatch_stops_a_load_but_not_a_roll_back_of_ours() {
    let foreign = seen(&[patch("kpatch_x", true, false), patch(ONE, true, false)]);
    assert_eq!(
        at(0, &apply(TWO), &Phase::Checking, &foreign),
        Step::End(End::Foreign("kpatch_x".to_owned()))
    );
    assert_eq!(at(0, &Goal::RollBack, &Phase::Journalled, &foreign), Step::Switch(name(ONE)));
    let left = seen(&[patch("kpatch_x", true, false)]);
    assert_eq!(at(0, &Goal::RollBack, &Phase::Switching, &left), Step::End(End::Reached));
}

#[test]
fn a_lower_level_is_refused_and_the_same_level_built_anew_is_not() {
    let on = seen(&[patch(TWO, true, false)]);
    assert_eq!(at(0, &apply(ONE), &Phase::Checking, &on), Step::End(End::Lower(Level(2))));
    assert_eq!(at(0, &apply("invivo_l2_ffffffffffffffff"), &Phase::Checking, &on), Step::Journal);
}

#[test]
fn replaced_modules_are_removed_before_a_load_and_never_one_that_is_on() {
    let on = with_leftover(seen(&[patch(ONE, true, false)]), "invivo_l0_0123456789abcdef", 0);
    assert_eq!(at(0, &apply(TWO), &Phase::Checking, &on), Step::Unload(name("invivo_l0_0123456789abcdef")));
    let busy = with_leftover(
        with_leftover(seen(&[patch(ONE, true, false)]), ONE, 0),
        "invivo_l0_0123456789abcdef",
        1,
    );
    assert_eq!(at(0, &apply(TWO), &Phase::Checking, &busy), Step::Journal);
}

#[test]
fn a_module_that_the_kernel_keeps_is_not_asked_for_for_ever() {
    let on = with_leftover(seen(&[]), ONE, 0);
    let kept = BTreeSet::from([name(ONE)]);
    assert_eq!(at_with(0, &apply(TWO), &Phase::Checking, &on, &kept), Step::Journal);
    assert_eq!(at_with(0, &Goal::RollBack, &Phase::Checking, &on, &kept), Step::End(End::Reached));
}

#[test]
fn a_load_waits_for_another_transition_of_ours() {
    let moving = seen(&[patch(ONE, false, true)]);
    assert_eq!(at(0, &apply(TWO), &Phase::Checking, &moving), Step::Wait);
    assert_eq!(at(LATE, &apply(TWO), &Phase::Checking, &moving), Step::End(End::DeadlinePassed));
    assert_eq!(at(0, &apply(ONE), &Phase::Checking, &moving), Step::Wait);
    assert_eq!(at(LATE, &apply(ONE), &Phase::Checking, &moving), Step::End(End::DeadlinePassed));
}

#[test]
fn a_stuck_transition_is_reversed_removed_and_reported() {
    let goal = apply(ONE);
    let moving = seen(&[patch(ONE, true, true)]);
    assert_eq!(at(99, &goal, &Phase::Switching, &moving), Step::Wait);
    assert_eq!(at(LATE, &goal, &Phase::Switching, &moving), Step::Undo(name(ONE), false));
    let back = seen(&[patch(ONE, false, true)]);
    assert_eq!(at(101, &goal, &undoing(), &back), Step::Wait);
    assert_eq!(at(160, &goal, &undoing(), &back), Step::End(End::CannotReverse));
    let gone = with_leftover(seen(&[]), ONE, 0);
    assert_eq!(at(102, &goal, &undoing(), &gone), Step::Unload(name(ONE)));
    assert_eq!(at(102, &goal, &undoing(), &seen(&[])), Step::End(End::Stuck));
}

#[test]
fn a_kernel_that_suffers_while_tasks_move_is_relieved_at_once() {
    let (goal, moving) = (apply(ONE), seen(&[patch(ONE, true, true)]));
    let calm = situation(1, &goal, &Phase::Switching, &moving, &NONE);
    assert_eq!(next(&calm), Step::Wait);
    let barred = BTreeSet::from([name(ONE)]);
    assert_eq!(next(&Situation { barred: &barred, ..calm }), Step::Undo(name(ONE), false));
}

#[test]
fn half_a_module_is_not_loaded_again() {
    let mut half = seen(&[]);
    half.modules.push(Resident { name: name(ONE), references: 1, loading: true });
    assert_eq!(at(0, &apply(ONE), &Phase::Checking, &half), Step::End(End::Half));
    assert_eq!(at(0, &apply(TWO), &Phase::Checking, &half), Step::Journal);
}

#[test]
fn a_transition_that_ends_in_the_moment_of_its_reversal_counts() {
    assert_eq!(at(101, &apply(ONE), &undoing(), &seen(&[patch(ONE, true, false)])), Step::End(End::Reached));
    assert_eq!(at(101, &Goal::RollBack, &undoing(), &seen(&[])), Step::End(End::Reached));
}

#[test]
fn a_reversal_that_came_a_moment_too_late_says_what_went_with_it() {
    let (goal, under, kept) = (apply(TWO), name(ONE), BTreeSet::new());
    let at_under = |phase: &Phase, seen: &Seen| {
        next(&Situation { under: Some(&under), ..situation(101, &goal, phase, seen, &kept) })
    };
    assert_eq!(at_under(&undoing(), &seen(&[patch(TWO, false, true)])), Step::Wait);
    assert_eq!(at_under(&undoing(), &with_leftover(seen(&[]), ONE, 0)), Step::Unload(name(ONE)));
    assert_eq!(at_under(&undoing(), &seen(&[])), Step::End(End::Overshot(name(ONE))));
    assert_eq!(at_under(&undoing(), &seen(&[patch(ONE, true, false)])), Step::End(End::Stuck));
    // Not our doing, so not ours to put back.
    assert_eq!(at_under(&Phase::Switching, &seen(&[])), Step::End(End::Stuck));
}

#[test]
fn a_patch_that_somebody_else_took_off_is_not_applied() {
    assert_eq!(at(1, &apply(ONE), &Phase::Switching, &seen(&[])), Step::End(End::Stuck));
    assert_eq!(at(1, &apply(ONE), &Phase::Switching, &seen(&[patch(ONE, false, true)])), Step::Wait);
}

#[test]
fn a_roll_back_switches_off_waits_and_removes() {
    let goal = Goal::RollBack;
    let on = seen(&[patch(ONE, true, false)]);
    assert_eq!(at(0, &goal, &Phase::Checking, &on), Step::Journal);
    assert_eq!(at(0, &goal, &Phase::Journalled, &on), Step::Switch(name(ONE)));
    assert_eq!(at(0, &goal, &Phase::Switching, &seen(&[patch(ONE, false, true)])), Step::Wait);
    let gone = with_leftover(seen(&[]), ONE, 0);
    assert_eq!(at(0, &goal, &Phase::Switching, &gone), Step::Unload(name(ONE)));
    assert_eq!(at(0, &goal, &Phase::Switching, &seen(&[])), Step::End(End::Reached));
}

#[test]
fn a_roll_back_of_nothing_is_done_at_once() {
    assert_eq!(at(LATE, &Goal::RollBack, &Phase::Checking, &seen(&[])), Step::End(End::Reached));
    let left = with_leftover(seen(&[]), ONE, 0);
    assert_eq!(at(0, &Goal::RollBack, &Phase::Checking, &left), Step::Unload(name(ONE)));
}

#[test]
fn a_stuck_roll_back_is_put_back_on() {
    let goal = Goal::RollBack;
    let moving = seen(&[patch(ONE, false, true)]);
    assert_eq!(at(LATE, &goal, &Phase::Switching, &moving), Step::Undo(name(ONE), true));
    assert_eq!(at(101, &goal, &undoing(), &seen(&[patch(ONE, true, true)])), Step::Wait);
    assert_eq!(at(160, &goal, &undoing(), &seen(&[patch(ONE, true, true)])), Step::End(End::CannotReverse));
    assert_eq!(at(102, &goal, &undoing(), &seen(&[patch(ONE, true, false)])), Step::End(End::Stuck));
}

/// The same where this patch is never to be put on again.
fn at_barred(text: &str, now: u64, phase: &Phase, seen: &Seen) -> Step {
    let barred = BTreeSet::from([name(text)]);
    next(&Situation { barred: &barred, ..situation(now, &Goal::RollBack, phase, seen, &NONE) })
}

#[test]
fn what_is_barred_is_not_put_on_again_however_long_it_takes_to_come_off() {
    let at = |now: u64, phase: &Phase, seen: &Seen| at_barred(ONE, now, phase, seen);
    let moving = seen(&[patch(ONE, false, true)]);
    assert_eq!(at(99, &Phase::Switching, &moving), Step::Wait);
    assert_eq!(at(LATE, &Phase::Switching, &moving), Step::End(End::Pending(name(ONE))));
    assert_eq!(at(LATE, &Phase::Switching, &seen(&[])), Step::End(End::Reached));
    // The kernel did not take the reversal, and then it was barred.
    assert_eq!(at(159, &undoing(), &moving), Step::Wait);
    assert_eq!(at(160, &undoing(), &moving), Step::End(End::Pending(name(ONE))));
    // Somebody else puts it on again, or the loader did before it knew.
    for on in [patch(ONE, true, true), patch(ONE, true, false)].map(|on| seen(&[on])) {
        for (now, phase) in [(1, Phase::Switching), (LATE, Phase::Switching), (101, undoing())] {
            assert_eq!(at(now, &phase, &on), Step::Switch(name(ONE)), "{phase:?} {on:?}");
        }
    }
}

#[test]
fn one_that_is_barred_keeps_no_other_from_being_put_back() {
    let moving = seen(&[patch(ONE, false, true)]);
    assert_eq!(at_barred(TWO, LATE, &Phase::Switching, &moving), Step::Undo(name(ONE), true));
    let both = seen(&[patch(ONE, true, false), patch(TWO, false, true)]);
    let pending = Step::End(End::Pending(name(TWO)));
    assert_eq!(at_barred(TWO, LATE, &Phase::Switching, &both), pending);
}

/// Whatever the kernel shows, and however far it has come.
#[test]
fn nothing_that_is_barred_is_ever_put_on_and_nothing_at_all_by_an_apply() {
    let flags = [(false, false), (false, true), (true, false), (true, true)];
    let ones = flags.map(|(enabled, transition)| patch(ONE, enabled, transition));
    let twos = flags.map(|(enabled, transition)| patch(TWO, enabled, transition));
    let pairs = ones.iter().flat_map(|one| twos.iter().map(|two| vec![one.clone(), two.clone()]));
    let kernels = ones.iter().map(|one| vec![one.clone()]).chain(pairs);
    let kernels: Vec<Seen> = kernels.map(|patches| seen(&patches)).collect();
    let barred = BTreeSet::from([name(ONE)]);
    for phase in [Phase::Checking, Phase::Journalled, Phase::Switching, undoing()] {
        for (seen, now) in kernels.iter().flat_map(|seen| [1, LATE, 160].map(|now| (seen, now))) {
            for goal in [Goal::RollBack, apply(ONE), apply(TWO)] {
                let plain = situation(now, &goal, &phase, seen, &NONE);
                let step = next(&Situation { barred: &barred, ..plain });
                let puts_on = matches!(&step, Step::Undo(undone, true) if goal != Goal::RollBack || *undone == name(ONE));
                assert!(!puts_on, "{goal:?} {phase:?} {seen:?}: {step:?}");
            }
        }
    }
}

#[test]
fn a_roll_back_ends_what_moves_before_it_touches_what_is_on() {
    let goal = Goal::RollBack;
    let on = patch(ONE, true, false);
    // The kernel takes nothing else meanwhile.
    let coming = seen(&[on.clone(), patch(TWO, true, true)]);
    assert_eq!(at(1, &goal, &Phase::Journalled, &coming), Step::Switch(name(TWO)));
    let going = seen(&[on, patch(TWO, false, true)]);
    assert_eq!(at(1, &goal, &Phase::Journalled, &going), Step::Watch);
    assert_eq!(at(1, &goal, &Phase::Switching, &going), Step::Wait);
}

#[test]
fn a_roll_back_that_somebody_undid_is_tried_again_until_the_deadline() {
    let on = seen(&[patch(ONE, true, false)]);
    assert_eq!(at(1, &Goal::RollBack, &Phase::Switching, &on), Step::Switch(name(ONE)));
    assert_eq!(at(LATE, &Goal::RollBack, &Phase::Switching, &on), Step::End(End::Stuck));
}

#[test]
fn an_apply_that_somebody_took_off_is_seen_to_its_end() {
    let goal = apply(ONE);
    let gone = with_leftover(seen(&[]), ONE, 0);
    assert_eq!(at(1, &goal, &Phase::Switching, &gone), Step::Unload(name(ONE)));
    // It has as long to come off as a reversal of our own has.
    let coming_off = seen(&[patch(ONE, false, true)]);
    assert_eq!(at(159, &goal, &Phase::Switching, &coming_off), Step::Wait);
    assert_eq!(at(160, &goal, &Phase::Switching, &coming_off), Step::End(End::CannotReverse));
}

#[test]
fn a_roll_back_that_ended_while_it_was_reversed_clears_up() {
    let gone = with_leftover(seen(&[]), ONE, 0);
    assert_eq!(at(101, &Goal::RollBack, &undoing(), &gone), Step::Unload(name(ONE)));
}
