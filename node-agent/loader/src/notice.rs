//! What the loader notices by itself, between instructions: a level has settled, has gone, or has come on
//! after all.

use invivo_terms::{ModuleName, NodeState};
use invivo_wire::Fault;

use crate::journal::{Active, Loaded};
use crate::kernel::Kernel;
use crate::loader::Loader;
use crate::missed::Missed;
use crate::report;
use crate::seen::{Patch, Seen};

impl<K: Kernel> Loader<K> {
    /// Notices that a level has settled or is gone, removes modules that nothing needs, writes what
    /// could not be written before. Takes no time, so that an answer can wait for it.
    pub(crate) fn look(&mut self) {
        if !self.known {
            return;
        }
        if self.unsaved {
            self.save();
        }
        let Ok(seen) = self.kernel.seen() else { return };
        self.notice_stray(&seen);
        self.notice_rolled_back(&seen);
        self.notice_vanished(&seen);
        self.notice_settled();
        let leftovers: Vec<ModuleName> = seen.leftovers().cloned().collect();
        for name in leftovers {
            // Still referenced for a moment: the next look will do.
            let _ = self.kernel.unload(&name);
        }
    }

    /// The transition of a roll-back that had ended before has ended too.
    fn notice_rolled_back(&mut self, seen: &Seen) {
        let waits = self.journal.rolls_back_late.is_some() && self.journal.task.is_none();
        if !waits || seen.moving().is_some() {
            return;
        }
        if !seen.runs_ours() {
            tracing::info!("rolled back at last");
            self.is_rolled_back(None);
        } else if self.journal.leaving_in(&self.running.boot_id).is_none() {
            // It has been reversed at last.
            self.journal.rolls_back_late = None;
        }
        self.save();
        self.sweep();
    }

    fn notice_settled(&mut self) {
        let Some(active) = self.journal.active_in(&self.running.boot_id) else { return };
        if active.settled || report::settles_in(active, self.kernel.since_boot()).is_some_and(|left| left > 0)
        {
            return;
        }
        // Settled is without trouble: what it did, or what was not looked at yet, comes first.
        if self.has_harmed(active) {
            return;
        }
        let mut settled = self.journal.clone();
        if let Some(active) = settled.active.as_mut() {
            active.settled = true;
            settled.verdicts.settled(&active.loaded.module_digest);
            settled.settled = Some(active.loaded.clone());
        }
        if let Some(outcome) = settled.outcome.as_mut().filter(|outcome| outcome.state == NodeState::Applied)
        {
            outcome.state = NodeState::Settled;
            outcome.since = self.now();
        }
        // Settled means that it comes back after a boot; so only once it is written down.
        match self.store.save(&settled) {
            Ok(()) => {
                self.journal = settled;
                self.unsaved = false;
                self.sweep();
                tracing::info!("settled");
            }
            Err(error) => tracing::warn!(error = %error, "settled level not written down"),
        }
    }

    /// The transition that had no end has ended: it is on, though nobody wants it any more, or gone.
    fn notice_stray(&mut self, seen: &Seen) {
        let Some(loaded) = self.journal.stray_in(&self.running.boot_id) else { return };
        match seen.patch(&loaded.module) {
            Some(patch) if patch.transition => return,
            Some(patch) if patch.enabled => self.is_on_unwanted(loaded.clone()),
            Some(_) | None => {}
        }
        self.journal.stray = None;
        self.save();
    }

    pub(crate) fn is_on_unwanted(&mut self, loaded: Loaded) {
        self.journal.active = Some(Active {
            boot_id: self.running.boot_id.clone(),
            loaded,
            since_boot_seconds: self.kernel.since_boot().as_secs(),
            settled: false,
            harmed: true,
            health: None,
        });
    }

    fn notice_vanished(&mut self, seen: &Seen) {
        let Some(active) = self.journal.active_in(&self.running.boot_id) else { return };
        let there = |patch: &Patch| patch.enabled || patch.transition;
        if self.journal.task.is_some() || seen.patch(&active.loaded.module).is_some_and(there) {
            return;
        }
        let message = format!("{} was taken off by somebody else", active.loaded.module);
        let missed = Missed::fault(Fault::Vanished, message);
        self.journal.active = None;
        self.journal.outcome = Some(self.missed(missed));
        self.save();
    }
}
