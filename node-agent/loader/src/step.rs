//! One step at a time: what to do next, from what is wanted, how far it has come, and what the
//! kernel shows. Pure; every wait is on the clock that counts suspend, handed in as `now`.

use std::collections::BTreeSet;
use std::time::Duration;

use invivo_terms::{Level, ModuleName};

use crate::seen::{Patch, Seen};

/// How long the reversal of a stuck transition is waited for. Taking a big patch off was measured
/// at 20 s.
pub const UNDOING: Duration = Duration::from_mins(1);

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// This module's patch is the applied one.
    Apply(ModuleName),
    /// None of our patches is on.
    RollBack,
}

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was done yet.
    Checking,
    /// The journal says what is about to be done.
    Journalled,
    /// The kernel was told; tasks are moving.
    Switching,
    /// It took too long and is being reversed, with patience until then.
    Undoing {
        /// On the clock of `now`.
        until: Duration,
    },
}

/// Everything that the next step rests on.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// What is wanted.
    pub goal: &'a Goal,
    /// How far it has come.
    pub phase: &'a Phase,
    /// What the kernel shows.
    pub seen: &'a Seen,
    /// Modules that the kernel would not let go of; they are not asked for again.
    pub kept: &'a BTreeSet<ModuleName>,
    /// Our patch that was on before, which the wanted one replaces.
    pub under: Option<&'a ModuleName>,
    /// Time since boot.
    pub now: Duration,
    /// The instruction's deadline on the same clock.
    pub deadline: Duration,
    /// Patches that did harm, or that nobody ever wanted wholly on. One that is being put on is waited
    /// for no more; none of them is ever put on again, however long it takes to come off.
    pub barred: &'a BTreeSet<ModuleName>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Remove a module that nothing needs.
    Unload(ModuleName),
    /// Write down what is about to be done.
    Journal,
    /// Load the module.
    Load,
    /// Write 0 to `enabled`.
    Switch(ModuleName),
    /// The kernel is at it already: watch.
    Watch,
    /// Write `enabled` the other way: the transition is stuck.
    Undo(ModuleName, bool),
    /// Look again soon.
    Wait,
    /// Nothing more to do.
    End(End),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// As wanted.
    Reached,
    /// The deadline had passed before anything was done.
    DeadlinePassed,
    /// A live patch that is not ours is there; ours would replace it.
    Foreign(String),
    /// A higher level is on.
    Lower(Level),
    /// The kernel keeps half of the module, whose load never ended.
    Half,
    /// Stuck until the deadline, and reversed.
    Stuck,
    /// Stuck, but it ended in the moment before it was reversed: the kernel took it off instead, and
    /// this patch, which it had replaced, was gone by then.
    Overshot(ModuleName),
    /// Stuck, and the reversal is stuck too.
    CannotReverse,
    /// This barred patch is stuck on its way off, and is not put on again: tasks that are back on the
    /// old code would return to it. The kernel goes on taking it off.
    Pending(ModuleName),
}

/// The next step.
pub fn next(situation: &Situation<'_>) -> Step {
    match (situation.goal, situation.phase) {
        (Goal::Apply(module), Phase::Checking) => check_apply(situation, module),
        (Goal::Apply(module), Phase::Journalled) => match situation.seen.patch(module) {
            Some(_) => Step::Watch,
            None => Step::Load,
        },
        (Goal::Apply(module), Phase::Switching) => watch_apply(situation, module),
        (Goal::Apply(module), Phase::Undoing { until }) => undo_apply(situation, module, *until),
        (Goal::RollBack, Phase::Checking) => check_roll_back(situation),
        (Goal::RollBack, Phase::Journalled) => begin_roll_back(situation),
        (Goal::RollBack, Phase::Switching) => watch_roll_back(situation),
        (Goal::RollBack, Phase::Undoing { until }) => undo_roll_back(situation, *until),
    }
}

impl Phase {
    /// Where a step leads that was taken at `now`.
    #[must_use]
    pub fn after(self, step: &Step, now: Duration) -> Self {
        match step {
            Step::Journal => Self::Journalled,
            Step::Load | Step::Switch(..) | Step::Watch => Self::Switching,
            Step::Undo(..) => Self::Undoing { until: now + UNDOING },
            Step::Unload(_) | Step::Wait | Step::End(_) => self,
        }
    }
}

impl Situation<'_> {
    fn late(&self) -> bool {
        self.now >= self.deadline
    }

    fn leftover(&self) -> Option<ModuleName> {
        self.seen.leftovers().find(|name| !self.kept.contains(*name)).cloned()
    }
}

fn check_apply(situation: &Situation<'_>, module: &ModuleName) -> Step {
    let seen = situation.seen;
    if let Some(name) = seen.foreign() {
        return Step::End(End::Foreign(name.to_owned()));
    }
    match seen.patch(module) {
        Some(patch) if patch.is_applied() => return Step::End(End::Reached),
        Some(patch) if patch.enabled => return Step::Journal,
        // It is on its way out; its module must go before it can come again.
        Some(_) if situation.late() => return Step::End(End::DeadlinePassed),
        Some(_) => return Step::Wait,
        None => {}
    }
    if situation.late() {
        return Step::End(End::DeadlinePassed);
    }
    if seen.level() > module.level() {
        return Step::End(End::Lower(seen.level()));
    }
    if situation.seen.moving().is_some() {
        return Step::Wait;
    }
    match situation.leftover() {
        Some(name) => Step::Unload(name),
        // To load it again would wait for the other load, for ever.
        None if seen.modules.iter().any(|half| half.name == *module && half.loading) => Step::End(End::Half),
        None => Step::Journal,
    }
}

fn watch_apply(situation: &Situation<'_>, module: &ModuleName) -> Step {
    match situation.seen.patch(module) {
        Some(patch) if patch.is_applied() => Step::End(End::Reached),
        Some(patch) if patch.enabled && (situation.late() || situation.barred.contains(module)) => {
            Step::Undo(module.clone(), false)
        }
        Some(patch) if patch.enabled => Step::Wait,
        // Not by us: somebody wrote to `enabled`. Seen to its end like a reversal of our own.
        Some(_) | None => {
            let unasked = Situation { under: None, ..*situation };
            undo_apply(&unasked, module, situation.deadline + UNDOING)
        }
    }
}

fn undo_apply(situation: &Situation<'_>, module: &ModuleName, until: Duration) -> Step {
    match situation.seen.patch(module) {
        // It ended after all, in the moment before it was reversed.
        Some(patch) if patch.is_applied() => Step::End(End::Reached),
        Some(Patch { transition: true, .. }) if situation.now >= until => Step::End(End::CannotReverse),
        Some(Patch { transition: true, .. }) => Step::Wait,
        Some(_) | None => match (situation.leftover(), situation.under) {
            (Some(name), _) => Step::Unload(name),
            (None, Some(under)) if situation.seen.patch(under).is_none() => {
                Step::End(End::Overshot(under.clone()))
            }
            (None, Some(_) | None) => Step::End(End::Stuck),
        },
    }
}

fn check_roll_back(situation: &Situation<'_>) -> Step {
    let nothing_on = situation.seen.ours().next().is_none();
    match situation.leftover() {
        Some(name) if nothing_on => Step::Unload(name),
        None if nothing_on => Step::End(End::Reached),
        Some(_) | None if situation.late() => Step::End(End::DeadlinePassed),
        Some(_) | None => Step::Journal,
    }
}

fn begin_roll_back(situation: &Situation<'_>) -> Step {
    match (situation.seen.moving(), situation.seen.applied()) {
        (Some((name, Patch { enabled: true, .. })), _) | (None, Some(name)) => Step::Switch(name),
        (Some(_), _) | (None, None) => Step::Watch,
    }
}

fn watch_roll_back(situation: &Situation<'_>) -> Step {
    let late = situation.late();
    match (situation.seen.moving(), situation.seen.applied()) {
        (Some((name, patch)), _) if situation.barred.contains(&name) => see_off(name, patch, late),
        (Some((name, _)), _) if late => Step::Undo(name, true),
        (Some(_), _) => Step::Wait,
        (None, Some(name)) if !late || situation.barred.contains(&name) => Step::Switch(name),
        (None, Some(_)) => Step::End(End::Stuck),
        (None, None) => clear_up(situation),
    }
}

fn undo_roll_back(situation: &Situation<'_>, until: Duration) -> Step {
    let late = situation.now >= until;
    match (situation.seen.moving(), situation.seen.applied()) {
        // What it did was found only after the reversal had begun.
        (Some((name, patch)), _) if situation.barred.contains(&name) => see_off(name, patch, late),
        (None, Some(name)) if situation.barred.contains(&name) => Step::Switch(name),
        (Some(_), _) if late => Step::End(End::CannotReverse),
        (Some(_), _) => Step::Wait,
        (None, Some(_)) => Step::End(End::Stuck),
        // It ended after all, in the moment before it was reversed.
        (None, None) => clear_up(situation),
    }
}

/// One that is never put on again, while tasks move.
fn see_off(name: ModuleName, patch: &Patch, late: bool) -> Step {
    if patch.enabled {
        // By us before anything was known against it, or by somebody else.
        Step::Switch(name)
    } else if late {
        Step::End(End::Pending(name))
    } else {
        Step::Wait
    }
}

fn clear_up(situation: &Situation<'_>) -> Step {
    match situation.leftover() {
        Some(name) => Step::Unload(name),
        None => Step::End(End::Reached),
    }
}

#[cfg(test)]
mod tests;
