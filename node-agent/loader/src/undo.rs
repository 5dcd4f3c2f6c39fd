//! A level that does harm before it has settled is taken off by the loader itself.

use std::time::Duration;

use invivo_wire::Fault;
use jiff::Timestamp;

use crate::drive::Drive;
use crate::health::{Harm, Health, Trouble, trouble};
use crate::journal::{Active, Doing, Loaded, Outcome, Task};
use crate::kernel::Kernel;
use crate::loader::Loader;
use crate::missed::Missed;
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
        let unsettled =
            self.journal.active_in(&self.running.boot_id).filter(|active| !active.settled && !active.harmed);
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
        let did = match &ended {
            Ok(_) => "it was taken off".to_owned(),
            Err(missed) => format!("it could not be taken off: {}", missed.message),
        };
        if let Some(outcome) = self.journal.outcome.as_mut() {
            outcome.add(&did);
        }
        if ended.is_ok() {
            (self.journal.active, self.journal.stray) = (None, None);
            self.unsettle(loaded);
            if let Some(settled) = self.journal.settled.clone() {
                self.return_to(settled);
            }
        }
        self.save();
        self.sweep();
    }
}
