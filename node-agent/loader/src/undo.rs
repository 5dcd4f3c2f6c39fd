//! A level that does harm before it has settled is taken off by the loader itself.

use std::time::Duration;

use invivo_terms::{ModuleName, NodeState};
use invivo_wire::{Blocker, Fault};
use jiff::Timestamp;

use crate::drive::Drive;
use crate::health::{Harm, Health, Trouble, trouble};
use crate::journal::{Active, Doing, Loaded, Outcome, Stray, Task};
use crate::kernel::Kernel;
use crate::loader::Loader;
use crate::missed::{Missed, Remedy};
use crate::step::{Goal, Phase};
use crate::verdict::Record;

/// How long taking it off may take. A big patch was measured at 20 s.
const PATIENCE: Duration = Duration::from_mins(5);

impl<K: Kernel> Loader<K> {
    /// The kernel's health now; none where it cannot be read: then nothing is judged by it.
    pub(crate) fn health(&self) -> Option<Health> {
        let health = self.kernel.health();
        if let Err(error) = &health {
            tracing::warn!(error = %error, "the kernel's health cannot be read");
        }
        health.ok()
    }

    /// Looks after a level that is new on this kernel. Once it has settled, the kernel's troubles are
    /// no longer thought to be its doing.
    pub(crate) fn mind_health(&mut self) {
        let unsettled = self.journal.active_in(&self.running.boot_id).filter(|active| active.is_minded());
        let Some((active, before)) = unsettled.and_then(|active| Some((active, active.health?))) else {
            return;
        };
        let (Some(now), None) = (self.health(), &self.journal.task) else { return };
        let loaded = active.loaded.clone();
        let Some(trouble) = trouble(before, now) else { return };
        // Told once; what happens from now on is new.
        if let Some(active) = self.journal.active.as_mut() {
            active.health = Some(now);
        }
        let log = self.kernel.log().map(|log| log.since(&loaded.module));
        let complains = log.as_ref().is_some_and(|log| log.complaint(&loaded.module).is_some());
        match trouble {
            Trouble::Harm(harm) => self.blamed(&loaded, harm, log.as_ref()),
            Trouble::Warning if complains => self.blamed(&loaded, Harm::Warning, log.as_ref()),
            Trouble::Warning => self.warned(&loaded, log.is_some()),
        }
    }

    /// The kernel has oopsed or was stuck since this level came, and it could not be taken off, or
    /// nobody has looked yet.
    pub(crate) fn has_harmed(&self, active: &Active) -> bool {
        active.harmed || self.harm_since(active.health).is_some()
    }

    /// What the kernel has suffered since, warnings aside.
    pub(crate) fn harm_since(&self, before: Option<Health>) -> Option<Harm> {
        match trouble(before?, self.health()?)? {
            Trouble::Harm(harm) => Some(harm),
            Trouble::Warning => None,
        }
    }

    fn blamed(&mut self, loaded: &Loaded, harm: Harm, log: Option<&Record>) {
        let now = self.now();
        let records = log.map(std::slice::from_ref).unwrap_or_default();
        let (_, verdict) = self.journal.verdicts.blame(loaded, records, now);
        let evidence = verdict.evidence.clone();
        self.keep_evidence(evidence.as_ref().map(|evidence| &evidence.digest), records);
        if let Some(active) = self.journal.active.as_mut() {
            active.harmed = true;
        }
        let level = loaded.level;
        let message = format!("{} before level {level} had settled", harm.words());
        let missed = self.missed(Missed::fault(harm.fault(), message));
        self.journal.outcome = Some(Outcome { evidence, ..missed });
        self.undo(loaded);
    }

    /// It stays on: most warnings are of other things, and a patch that closes a hole is worth more.
    fn warned(&mut self, loaded: &Loaded, log_was_read: bool) {
        let of = if log_was_read {
            "of something else, by its log"
        } else {
            "of something; its log, which the loader may not read, says of what"
        };
        let message = format!("before level {} had settled the kernel warned {of}", loaded.level);
        let warned = self.missed(Missed::fault(Fault::KernelWarning, message));
        if let Some(outcome) = self.journal.outcome.as_mut().filter(|outcome| !outcome.state.is_failure()) {
            (outcome.reason, outcome.message) = (warned.reason, warned.message);
        }
        self.save();
    }

    /// Takes it off, and puts back the settled level that it replaced. The outcome says why already.
    pub(crate) fn undo(&mut self, loaded: &Loaded) {
        let task = Task {
            boot_id: self.running.boot_id.clone(),
            what: Doing::Undoing(Box::new(loaded.clone())),
            deadline: self.now().checked_add(PATIENCE).unwrap_or(Timestamp::MAX),
            health: None,
        };
        let ended = self.drive(Drive {
            goal: Goal::RollBack,
            phase: Phase::Checking,
            deadline: self.kernel.since_boot() + PATIENCE,
            task: Some((task, None)),
            image: None,
        });
        self.journal.task = None;
        match ended {
            Ok(_) => {
                self.say("it was taken off", Vec::new());
                (self.journal.active, self.journal.stray, self.journal.leaving) = (None, None, None);
                self.go_back_from(loaded);
            }
            Err(missed) => {
                self.say(&format!("it could not be taken off: {}", missed.message), missed.blockers);
                if let Remedy::SeeOff(_) = missed.remedy {
                    self.leaves(loaded);
                }
            }
        }
        self.save();
        self.sweep();
    }

    /// Looks whether what the loader waits for no more has gone, and does what its undoing would have
    /// done. One that is on instead is taken off again: another had to go first, or somebody put it on.
    pub(crate) fn see_off(&mut self) {
        let leaving = self.journal.leaving_in(&self.running.boot_id).cloned();
        let (Some(loaded), None, Ok(seen)) = (leaving, &self.journal.task, self.kernel.seen()) else {
            return;
        };
        let is_on = seen.patch(&loaded.module).is_some_and(|patch| patch.enabled);
        if seen.moving().is_some_and(|(name, _)| !is_on || name != loaded.module) {
            return;
        }
        if is_on {
            self.is_on_unwanted(loaded.clone());
            self.journal.leaving = None;
            return self.undo(&loaded);
        }
        tracing::info!(module = %loaded.module, "what did harm has come off at last");
        // Another instruction may have ended since, with words of its own.
        self.say(&format!("level {} did harm and has come off at last", loaded.level), Vec::new());
        self.journal.leaving = None;
        self.go_back_from(&loaded);
        self.save();
        self.sweep();
    }

    /// It is not waited for any more; nothing puts it on again.
    fn leaves(&mut self, loaded: &Loaded) {
        let boot_id = self.running.boot_id.clone();
        self.journal.active.take_if(|active| active.loaded.module == loaded.module);
        self.journal.stray.take_if(|stray| stray.loaded.module == loaded.module);
        self.journal.leaving = Some(Stray { boot_id, loaded: loaded.clone() });
    }

    /// A roll-back has not brought this one off in time. It goes on, and nothing comes after it.
    pub(crate) fn goes_as_told(&mut self, name: &ModuleName) {
        let boot_id = &self.running.boot_id;
        let active = self.journal.active_in(boot_id).map(|active| &active.loaded);
        let of = |loaded: &&Loaded| loaded.module == *name;
        match (active.filter(of).cloned(), self.journal.leaving_in(boot_id).filter(of)) {
            (Some(loaded), _) => {
                self.blame_what_goes();
                self.journal.settled = None;
                self.leaves(&loaded);
            }
            (None, Some(_)) => self.journal.settled = None,
            // A stray stays one, and what was on under it is on.
            (None, None) => {}
        }
    }

    /// What a roll-back takes off may do harm on its way.
    pub(crate) fn blame_what_goes(&mut self) {
        let active = self.journal.active_in(&self.running.boot_id).filter(|active| active.is_minded());
        let Some(active) = active else { return };
        if let Some(harm) = self.harm_since(active.health) {
            let (loaded, now) = (active.loaded.clone(), self.now());
            tracing::warn!(module = %loaded.module, "{} while it was being taken off", harm.words());
            self.journal.verdicts.blame(&loaded, &[], now);
        }
    }

    /// Puts back the settled level that this one had replaced, unless something else is on already.
    fn go_back_from(&mut self, loaded: &Loaded) {
        self.unsettle(loaded);
        let free = self.kernel.seen().is_ok_and(|seen| !seen.runs_ours());
        if let Some(settled) = self.journal.settled.clone().filter(|_| free) {
            self.return_to(settled);
        }
    }

    /// Adds to an outcome that is a failure, and says who keeps the transition from ending.
    fn say(&mut self, text: &str, blockers: Vec<Blocker>) {
        if let Some(outcome) = self.journal.outcome.as_mut().filter(|outcome| outcome.state.is_failure()) {
            outcome.add(text);
            // Of one that was reversed they stay told.
            if outcome.state != NodeState::Blocked {
                outcome.blockers = blockers;
            }
        }
    }
}
