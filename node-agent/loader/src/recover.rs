//! What the loader does first: finish what a killed one left, and bring back the settled level
//! after a boot, before any agent speaks and without the network. The journal says so before the
//! kernel is touched: a boot that ends in the middle of it is evidence.

use std::time::Duration;

use invivo_terms::{ModuleName, NodeState, Refusal};
use invivo_wire::Reason;
use jiff::Timestamp;

use crate::again::{Again, Waiting};
use crate::drive::Drive;
use crate::health::Health;
use crate::journal::{Active, Doing, Loaded, Outcome, Stray, Task, Unpatched};
use crate::judge::When;
use crate::kernel::Kernel;
use crate::loader::Loader;
use crate::missed::{Missed, Reached, Remedy};
use crate::step::{Goal, Phase};

/// How long a settled level may take to come back after a boot.
const COMING_BACK: Duration = Duration::from_mins(5);

impl<K: Kernel> Loader<K> {
    /// Reads the journal, if that has not been done, and brings it and the kernel together again: finishes
    /// what a killed loader left, and brings back the settled level after a boot. Whatever goes wrong
    /// there is reported, not fatal; without its journal the loader answers how things stand and does
    /// nothing.
    pub fn come_up(&mut self) {
        if !self.unmarked {
            match self.store.unmark_end(&self.running.boot_id) {
                Ok(()) => self.unmarked = true,
                Err(error) => return self.wait(Missed::journal(&error)),
            }
        }
        if !self.known {
            match self.store.open() {
                Ok(journal) => (self.journal, self.known, self.waiting) = (journal, true, None),
                Err(error) => return self.wait(Missed::journal(&error)),
            }
        }
        self.recover();
    }

    fn recover(&mut self) {
        let boot = self.running.boot_id.clone();
        // A boot takes every patch off.
        if self.journal.rolls_back_late.take_if(|late| *late != boot).is_some() {
            self.journal.settled = None;
            self.journal.outcome = Some(Outcome::reached(NodeState::RolledBack, self.now()));
        }
        self.find_records();
        match self.journal.task.clone() {
            Some(task) if task.boot_id == boot => self.resume(task),
            Some(task) => self.interrupted_by_boot(&task),
            None => {}
        }
        // An instruction that was interrupted is asked for again, and comes first.
        if self.is_coming_up() && self.journal.task.is_none() {
            self.after_boot();
        }
        self.sweep();
        self.look();
    }

    /// What this boot took off is not back yet, and may come back.
    fn is_coming_up(&self) -> bool {
        self.journal.boot_id.as_ref() != Some(&self.running.boot_id)
    }

    /// From now on nothing is brought back in this boot.
    pub(crate) fn came_up(&mut self) {
        self.journal.boot_id = Some(self.running.boot_id.clone());
        self.waiting = None;
    }

    /// How long until the loader tries again to come up; none if it has, or waits for an instruction.
    pub(crate) fn next_try(&self) -> Option<Duration> {
        let left = |waiting: &Waiting| waiting.again.left(self.kernel.since_boot());
        (self.is_coming_up() && self.journal.task.is_none())
            .then(|| self.waiting.as_ref().and_then(left).unwrap_or_default())
    }

    /// The loader was killed at it, in this very boot. What the kernel shows is the truth: a patch
    /// that is there is seen to its end; one that is not was never loaded, and the task stays
    /// open until the agent asks again.
    fn resume(&mut self, task: Task) {
        let deadline = self.since_boot_at(task.deadline);
        match task.what {
            Doing::Applying(loaded) => {
                let there = self.kernel.seen().is_ok_and(|seen| seen.patch(&loaded.module).is_some());
                if !there {
                    return self.resume_load(&loaded, task.health);
                }
                tracing::info!(module = %loaded.module, "watching a transition that began before");
                let goal = Goal::Apply(loaded.module.clone());
                let ended =
                    self.drive(Drive { goal, phase: Phase::Journalled, deadline, task: None, image: None });
                self.conclude(ended.map(|reached| (*loaded, reached)));
            }
            Doing::RollingBack => {
                let goal = Goal::RollBack;
                let ended =
                    self.drive(Drive { goal, phase: Phase::Journalled, deadline, task: None, image: None });
                self.rolled_back(ended);
            }
            Doing::Undoing(loaded) => self.undo(&loaded),
            // What follows a boot has not ended and begins anew: it finds the patch, or loads it.
            Doing::BringingBack(_) if self.is_coming_up() => self.journal.task = None,
            Doing::BringingBack(loaded) => self.return_to(*loaded),
        }
    }

    /// Nothing came of the load. Either nobody got so far, or the thread died in it: then the kernel
    /// keeps half a module, and to load it again would never end.
    fn resume_load(&mut self, loaded: &Loaded, before: Option<Health>) {
        let Some(harm) = self.harm_since(before) else { return };
        self.journal.task = None;
        let now = self.now();
        self.journal.verdicts.blame(loaded, &[], now);
        let message = format!("{} while level {} was being loaded", harm.words(), loaded.level);
        self.journal.outcome = Some(self.missed(Missed::fault(harm.fault(), message)));
        self.save();
    }

    /// The machine went down at it. A boot takes every patch off.
    fn interrupted_by_boot(&mut self, task: &Task) {
        self.journal.task = None;
        match &task.what {
            Doing::Applying(loaded) => self.boot_ended_before(loaded, &task.boot_id, true),
            // That it did harm is known and told.
            Doing::Undoing(loaded) => self.boot_ended_before(loaded, &task.boot_id, false),
            // Nothing came in between; it is brought back in this boot.
            Doing::BringingBack(_) if self.ended_in_order(&task.boot_id) => {}
            Doing::BringingBack(loaded) => {
                let outcome = self.unclean(loaded, When::ComingBack);
                self.tell(outcome);
            }
            Doing::RollingBack => {
                self.journal.settled = None;
                self.tell(Outcome::reached(NodeState::RolledBack, self.now()));
            }
        }
    }

    /// Whatever it was before, it counts as settled no more: whoever wants it there has to say so.
    pub(crate) fn unsettle(&mut self, loaded: &Loaded) {
        self.journal.settled.take_if(|settled| settled.module_digest == loaded.module_digest);
    }

    fn after_boot(&mut self) {
        let boot = &self.running.boot_id;
        let active = self.journal.active.take_if(|active| active.boot_id != *boot);
        let before = |stray: &mut Stray| stray.boot_id != *boot;
        let others = [self.journal.stray.take_if(before), self.journal.leaving.take_if(before)];
        let (settled, unsettled): (Vec<Active>, Vec<Active>) =
            active.into_iter().partition(|active| active.settled);
        for active in unsettled {
            self.boot_ended_before(&active.loaded, &active.boot_id, active.is_minded());
        }
        for stray in others.into_iter().flatten() {
            self.boot_ended_before(&stray.loaded, &stray.boot_id, false);
        }
        self.judge_settled(settled.into_iter().next().map(|active| active.loaded));
        self.bring_back_settled();
        self.save();
    }

    fn bring_back_settled(&mut self) {
        let Some(settled) = self.journal.settled.clone() else { return self.came_up() };
        match self.bring_back(&settled) {
            Ok(reached) => self.came_back(settled, &reached),
            Err(missed) => match missed.remedy {
                Remedy::TryAgain => return self.wait(missed),
                Remedy::Nothing | Remedy::PutBack(_) | Remedy::SeeOff(_) => {
                    let outcome = self.missed(missed);
                    self.tell(outcome);
                }
            },
        }
        self.came_up();
    }

    fn wait(&mut self, missed: Missed) {
        let before = self.waiting.as_ref().map(|waiting| waiting.again);
        let again = Again::after(before, self.kernel.since_boot());
        self.waiting = Some(Waiting { why: self.missed(missed), again });
    }

    fn came_back(&mut self, loaded: Loaded, reached: &Reached) {
        let now = self.kernel.since_boot();
        let since_boot = now.as_secs();
        let boot_id = self.running.boot_id.clone();
        let millis = u64::try_from(now.saturating_sub(self.began).as_millis()).unwrap_or(u64::MAX);
        let kernel_millis = reached.millis.unwrap_or_default();
        tracing::info!(level = loaded.level.0, since_boot, millis, kernel_millis, "level is back");
        let settled = self.journal.settled.as_ref() == Some(&loaded);
        if self.is_coming_up() {
            let seconds = u32::try_from(since_boot).unwrap_or(u32::MAX);
            self.journal.unpatched = Some(Unpatched { boot_id: boot_id.clone(), seconds });
        }
        let health = self.health();
        self.journal.active =
            Some(Active { boot_id, loaded, since_boot_seconds: since_boot, settled, harmed: false, health });
        let failed = self.journal.outcome.as_ref().is_some_and(|outcome| outcome.state.is_failure());
        if !failed {
            self.journal.outcome = Some(Outcome::reached(NodeState::Settled, self.now()));
        }
    }

    /// The loader's own undoing took off what the undone patch had replaced. Going back there is part
    /// of the undoing, and no new load.
    pub(crate) fn put_back(&mut self, name: &ModuleName) {
        let boot_id = &self.running.boot_id;
        let before = self.journal.active.take_if(|active| active.boot_id == *boot_id);
        // What the journal does not know cannot be put back; the kernel tells that it is gone.
        if let Some(active) = before.filter(|active| active.loaded.module == *name) {
            self.return_to(active.loaded);
        }
    }

    pub(crate) fn return_to(&mut self, loaded: Loaded) {
        match self.bring_back(&loaded) {
            Ok(reached) => self.came_back(loaded, &reached),
            Err(missed) => {
                let level = loaded.level;
                let message = format!("level {level} could not be put back: {}", missed.message);
                let outcome = self.missed(Missed { state: NodeState::Failed, message, ..missed });
                self.tell(outcome);
            }
        }
        self.save();
    }

    fn bring_back(&mut self, settled: &Loaded) -> Result<Reached, Missed> {
        if settled.build_id != self.running.kernel.build_id {
            return Err(Missed {
                // Nothing was asked for on this kernel yet, and nothing went wrong.
                state: NodeState::Idle,
                reason: Reason::Refusal(Refusal::WrongKernel),
                remedy: Remedy::Nothing,
                blockers: Vec::new(),
                message: format!(
                    "the settled level {} is for kernel build {}",
                    settled.level, settled.build_id
                ),
            });
        }
        self.not_convicted(settled)?;
        let (module, proof) = self.store.kept(&settled.module_digest)?;
        self.trust.kept(&self.running, settled, &proof, &module)?;
        let task = Task {
            boot_id: self.running.boot_id.clone(),
            what: Doing::BringingBack(Box::new(settled.clone())),
            deadline: self.now().checked_add(COMING_BACK).unwrap_or(Timestamp::MAX),
            health: None,
        };
        let ended = self.drive(Drive {
            goal: Goal::Apply(settled.module.clone()),
            phase: Phase::Checking,
            deadline: self.kernel.since_boot() + COMING_BACK,
            task: Some((task, None)),
            image: Some(&module),
        });
        self.journal.task = None;
        ended
    }
}
