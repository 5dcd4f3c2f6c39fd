//! Step after step, until what is wanted is reached or cannot be.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::io::ErrorKind;
use std::time::Duration;

use invivo_terms::{Digest, ModuleName};
use invivo_wire::{Blocker, Fault};
use rustix::io::Errno;

use crate::health::{Harm, Health};
use crate::journal::{Doing, Journal, Task};
use crate::kernel::Kernel;
use crate::loader::Loader;
use crate::missed::{Missed, Reached, ended};
use crate::seen::Seen;
use crate::step::{self, End, Goal, Phase, Situation, Step};

/// How often the kernel is looked at while tasks move.
const LOOK: Duration = Duration::from_millis(50);
/// How often its health is.
const HEALTH: Duration = Duration::from_secs(1);
/// How often a module whose last reference is just going is asked for.
const UNLOAD_TRIES: u32 = 40;

/// What is driven towards a goal.
pub(crate) struct Drive<'a> {
    pub(crate) goal: Goal,
    pub(crate) phase: Phase,
    pub(crate) deadline: Duration,
    /// What to write down before the kernel is touched, with the bytes to keep.
    pub(crate) task: Option<(Task, Option<Bytes<'a>>)>,
    pub(crate) image: Option<&'a [u8]>,
}

/// What is kept of a level.
#[derive(Clone, Copy)]
pub(crate) struct Bytes<'a> {
    pub(crate) digest: &'a Digest,
    pub(crate) module: &'a [u8],
    pub(crate) proof: &'a [u8],
}

/// The kernel's health while tasks move to a level that is new on it, or from one.
struct HealthWatch {
    /// The level that is new, and the kernel's health before it came.
    new: Option<(ModuleName, Health)>,
    /// What is never to be put on again.
    barred: BTreeSet<ModuleName>,
    /// What the kernel has suffered.
    harm: Option<Harm>,
    due: Duration,
}

impl HealthWatch {
    /// What is brought back was found good before, and so was what had settled.
    fn of(drive: &Drive<'_>, journal: &Journal, boot_id: &str) -> Self {
        let task = drive.task.as_ref().map(|(task, _)| task).or(journal.task.as_ref());
        let active = || journal.active_in(boot_id).filter(|active| active.is_minded());
        let (new, barred) = match task.map(|task| (&task.what, task.health)) {
            Some((Doing::Applying(loaded), health)) => (Some((&loaded.module, health)), BTreeSet::new()),
            Some((Doing::BringingBack(_), _)) | None => (None, BTreeSet::new()),
            Some((Doing::RollingBack, _)) => {
                (active().map(|active| (&active.loaded.module, active.health)), journal.barred_in(boot_id))
            }
            Some((Doing::Undoing(loaded), _)) => {
                let mut barred = journal.barred_in(boot_id);
                barred.insert(loaded.module.clone());
                (None, barred)
            }
        };
        let new = new.and_then(|(module, health)| Some((module.clone(), health?)));
        Self { new, barred, harm: None, due: Duration::ZERO }
    }

    fn look<K: Kernel>(&mut self, loader: &Loader<K>, drive: &Drive<'_>, now: Duration) {
        let moving = match (&drive.goal, &drive.phase) {
            // What was to be put on comes off then in any case.
            (_, Phase::Checking | Phase::Journalled) | (Goal::Apply(_), Phase::Undoing { .. }) => false,
            (_, Phase::Switching) | (Goal::RollBack, Phase::Undoing { .. }) => true,
        };
        let Some((module, before)) = self.new.as_ref().filter(|_| moving && now >= self.due) else { return };
        self.due = now + HEALTH;
        if self.harm.is_none()
            && let Some(harm) = loader.harm_since(Some(*before))
        {
            self.barred.insert(module.clone());
            self.harm = Some(harm);
        }
    }
}

impl<K: Kernel> Loader<K> {
    /// Steps until the end.
    pub(crate) fn drive(&mut self, mut drive: Drive<'_>) -> Result<Reached, Missed> {
        let mut tries: BTreeMap<ModuleName, u32> = BTreeMap::new();
        let mut kept = BTreeSet::new();
        let mut told: Option<Duration> = None;
        let mut blockers: Option<Vec<Blocker>> = None;
        let mut under: Option<ModuleName> = None;
        let mut watch = HealthWatch::of(&drive, &self.journal, &self.running.boot_id);
        let mut parameters = CString::default();
        loop {
            let seen = self.kernel.seen()?;
            under = match &drive.goal {
                Goal::Apply(module) => seen.applied().filter(|on| on != module).or(under),
                Goal::RollBack => None,
            };
            let now = self.kernel.since_boot();
            watch.look(self, &drive, now);
            let next = step::next(&Situation {
                goal: &drive.goal,
                phase: &drive.phase,
                seen: &seen,
                kept: &kept,
                under: under.as_ref(),
                now,
                deadline: drive.deadline,
                barred: &watch.barred,
            });
            let phase = drive.phase.clone().after(&next, now);
            match next {
                Step::Unload(name) => {
                    let count = tries.entry(name.clone()).or_default();
                    *count += 1;
                    match self.kernel.unload(&name) {
                        Ok(()) | Err(Errno::NOENT) => {}
                        Err(Errno::AGAIN | Errno::BUSY) if *count < UNLOAD_TRIES => self.kernel.pause(LOOK),
                        Err(_) => {
                            kept.insert(name);
                        }
                    }
                }
                Step::Journal => {
                    let task = drive.task.as_ref().map(|(task, _)| task);
                    parameters = self.parameters(&seen, task, drive.image)?;
                    self.write_down(&mut drive, &seen)?;
                }
                Step::Load => {
                    let image =
                        drive.image.ok_or_else(|| Missed::fault(Fault::Vanished, "the patch is gone"))?;
                    told = Some(now);
                    let signing = self.running.kernel.signing;
                    self.kernel.load(image, &parameters).map_err(|errno| Missed::load(errno, signing))?;
                }
                Step::Switch(name) => {
                    told = told.or(Some(now));
                    match self.kernel.switch(&name, false) {
                        Ok(()) => {}
                        // Somebody else's tasks are moving.
                        Err(error) if error.kind() == ErrorKind::ResourceBusy && now < drive.deadline => {
                            self.kernel.pause(LOOK);
                            continue;
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
                Step::Watch => {}
                // `patch_state` of those who have not moved: 1 while a patch is being taken off. Looking
                // takes a while, in which the transition may end: look again before it is undone.
                Step::Undo(_, enabled) if blockers.is_none() => {
                    blockers = Some(self.kernel.blockers(i8::from(enabled)));
                    continue;
                }
                Step::Undo(name, enabled) => {
                    if let Err(error) = self.kernel.switch(&name, enabled) {
                        // Either there is nothing to reverse any more, or it cannot be reversed. What
                        // the kernel shows next tells which.
                        tracing::warn!(module = %name, error = %error, "reversal not taken");
                    }
                }
                Step::Wait => self.kernel.pause(LOOK),
                // The same: it may have come off meanwhile.
                Step::End(End::Pending(_)) if blockers.is_none() => {
                    blockers = Some(self.kernel.blockers(1));
                    continue;
                }
                Step::End(end) => {
                    let took = told.map(|told| now.saturating_sub(told));
                    return ended(end, took, blockers.unwrap_or_default(), watch.harm);
                }
            }
            drive.phase = phase;
        }
    }

    /// Before the kernel is touched. A roll-back goes on without: what it takes away it need not store.
    fn write_down(&mut self, drive: &mut Drive<'_>, seen: &Seen) -> Result<(), Missed> {
        let Some((task, bytes)) = drive.task.take() else { return Ok(()) };
        // What went unnoticed is not on; loaded anew it has no past.
        let boot_id = &self.running.boot_id;
        self.journal
            .active
            .take_if(|active| active.boot_id == *boot_id && seen.patch(&active.loaded.module).is_none());
        if let Some(bytes) = bytes {
            self.store.keep(bytes.digest, bytes.module, bytes.proof)?;
        }
        let demanded = match task.what {
            Doing::Applying(_) | Doing::BringingBack(_) => true,
            Doing::RollingBack | Doing::Undoing(_) => false,
        };
        self.journal.task = Some(task);
        match self.store.save(&self.journal) {
            Ok(()) => Ok(()),
            Err(error) if demanded => Err(error.into()),
            Err(error) => {
                self.unsaved = true;
                tracing::warn!(error = %error, "rolling back without a journal");
                Ok(())
            }
        }
    }
}
