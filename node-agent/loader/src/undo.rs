//! A level that does harm before it has settled is taken off by the loader itself.

use std::time::Duration;

use invivo_wire::Fault;
use jiff::Timestamp;

use crate::drive::Drive;
use crate::health::{Harm, Health, Trouble, trouble};
use crate::journal::{Active, Doing, Loaded, Task};
use crate::kernel::Kernel;
use crate::loader::Loader;
use crate::missed::Missed;
use crate::step::{Goal, Phase};

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
        match trouble {
            Trouble::Harm(harm) => self.blamed(&loaded, harm),
            Trouble::Warning => self.warned(&loaded),
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

    fn blamed(&mut self, loaded: &Loaded, harm: Harm) {
        let now = self.now();
        self.journal.verdicts.blame(loaded, &[], now);
        if let Some(active) = self.journal.active.as_mut() {
            active.harmed = true;
        }
        let level = loaded.level;
        let message = format!("{} before level {level} had settled", harm.words());
        self.journal.outcome = Some(self.missed(Missed::fault(harm.fault(), message)));
        self.undo(loaded);
    }

    /// It stays on: most warnings are of other things, and a patch that closes a hole is worth more.
    fn warned(&mut self, loaded: &Loaded) {
        let message = format!(
            "the kernel warned of something before level {} had settled; its log says of what",
            loaded.level
        );
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
