//! The loader: takes requests, does one step after the other, writes down what it does.

use std::time::Duration;

use invivo_terms::{Digest, NodeState};
use invivo_wire::{Answer, ApplyRequest, Fault, Order, Reason, Request, RollBackRequest, State};
use jiff::Timestamp;

use crate::again::Waiting;
use crate::drive::{Bytes, Drive};
use crate::health::Health;
use crate::journal::{Active, Doing, Journal, Loaded, Outcome, Stray, Task};
use crate::kernel::Kernel;
use crate::missed::{Missed, Reached, Remedy};
use crate::order::{Place, place};
use crate::report;
use crate::running::{Running, RunningError};
use crate::step::{Goal, Phase};
use crate::store::Store;
use crate::targets::Memory;
use crate::verdict::Record;
use crate::verify::{Passed, Verified, Verify};

/// How often a loader at rest looks by itself, if nobody asks.
const IDLE: Duration = Duration::from_mins(1);
/// Longest that an instruction is waited for in one go, however far its deadline is. While tasks
/// move the loader answers nobody, and the kernel takes no other patch; an instruction without this
/// limit could buy both for as long as it likes. Transitions that ended at all were measured to end
/// within 20 s (after 15 s the kernel wakes the sleepers), and the default deadline of a node, 10
/// minutes, is not cut.
pub(crate) const LONGEST: Duration = Duration::from_mins(15);
/// Most room that is taken for a level: a module and its proof, as long as the socket takes them.
const MOST_KEPT: u64 = 2 * invivo_wire::frame::MAX_BLOB as u64;

/// The loader of one node.
#[derive(Debug)]
pub struct Loader<K> {
    pub(crate) kernel: K,
    pub(crate) store: Store,
    pub(crate) trust: Box<dyn Verify>,
    pub(crate) running: Running,
    pub(crate) journal: Journal,
    /// This boot is not marked as one that ended in order; nothing is done before that.
    pub(crate) unmarked: bool,
    /// The journal has been read; until then the one in memory means nothing.
    pub(crate) known: bool,
    /// The journal on disk is older than the one in memory.
    pub(crate) unsaved: bool,
    /// Records of panics that this loader found when it came up, and no loader before it.
    pub(crate) found: Vec<Record>,
    pub(crate) waiting: Option<Waiting>,
    least_settling: Duration,
    /// When this process began, since boot.
    pub(crate) began: Duration,
    /// What was done for the modules that the patch changes.
    pub(crate) memory: Memory,
}

impl<K: Kernel> Loader<K> {
    /// Begins in this boot, and has done nothing yet.
    ///
    /// # Errors
    ///
    /// If it cannot be known which kernel runs.
    pub fn new(kernel: K, store: Store, trust: Box<dyn Verify>) -> Result<Self, RunningError> {
        let (running, began) = (kernel.running()?, kernel.began());
        let unmarked = store.unmark_end(&running.boot_id).is_ok();
        Ok(Self {
            kernel,
            store,
            trust,
            running,
            journal: Journal::default(),
            unmarked,
            known: false,
            unsaved: false,
            found: Vec::new(),
            waiting: None,
            least_settling: Duration::ZERO,
            began,
            memory: Memory::default(),
        })
    }

    /// The boot in which it runs.
    pub fn boot_id(&self) -> &str {
        &self.running.boot_id
    }

    /// What the agent passes comes from the network: nothing that it loads settles sooner than this.
    pub fn settle_no_sooner_than(&mut self, least: Duration) {
        self.least_settling = least;
    }

    /// Answers one request.
    pub fn handle(&mut self, request: Request, blobs: &[Vec<u8>]) -> Answer {
        let answered = match (request, blobs) {
            (Request::State, []) => {
                // Whoever asks that is fetching nothing.
                self.release();
                self.look();
                self.state()
            }
            (Request::Look, []) => {
                self.look();
                self.mind_targets();
                self.state()
            }
            (
                Request::Reserve { .. }
                | Request::Hold { .. }
                | Request::RollBack(_)
                | Request::ClearVerdicts,
                [],
            )
            | (Request::Apply(_), [_, _])
                if !self.known =>
            {
                self.state()
            }
            (Request::Reserve { bytes }, []) => self.reserve(bytes),
            (Request::Hold { order }, []) => self.hold(order),
            (Request::RollBack(request), []) => self.roll_back(&request),
            (Request::Apply(request), [proof, module]) => self.apply(&request, proof, module),
            (Request::ClearVerdicts, []) => return self.clear_verdicts(),
            (
                Request::State
                | Request::Look
                | Request::Reserve { .. }
                | Request::Hold { .. }
                | Request::RollBack(_)
                | Request::Apply(_)
                | Request::ClearVerdicts,
                _,
            ) => {
                return Answer::Refused { detail: "wrong number of blobs".to_owned() };
            }
        };
        match answered {
            Ok(state) => Answer::State(Box::new(state)),
            Err(error) => Answer::Refused { detail: format!("kernel files: {error}") },
        }
    }

    /// How things stand.
    ///
    /// # Errors
    ///
    /// If the kernel's files cannot be read.
    pub fn state(&self) -> std::io::Result<State> {
        let seen = self.kernel.seen()?;
        let waiting = self.waiting.as_ref().map(|waiting| &waiting.why);
        let targets = self.targets(&seen);
        let (since_boot, now) = (self.kernel.since_boot(), self.kernel.now());
        let told = report::state(&self.journal, waiting, &self.running, &seen, targets, since_boot, now);
        Ok(State { room: self.store.room(), ..told })
    }

    /// Takes room for what the agent is about to fetch. The agent's word is bounded like all that it says.
    fn reserve(&self, bytes: u64) -> std::io::Result<State> {
        let state = self.state()?;
        let reserved = self.store.reserve(bytes.min(MOST_KEPT));
        let missed = reserved.err().map(Missed::from);
        let (reason, message) = missed.map(|missed| (missed.reason, missed.message)).unzip();
        Ok(State { reason, message, ..state })
    }

    /// Gives back the room that was taken.
    fn release(&self) {
        if let Err(error) = self.store.release() {
            tracing::warn!(error = %error, "room that was taken is not given back");
        }
    }

    /// What the loader does by itself: tries again what failed in passing, and looks.
    pub fn tick(&mut self) {
        if self.next_try() == Some(Duration::ZERO) {
            self.come_up();
        } else {
            self.look();
            self.mind_health();
            self.see_off();
            self.mind_targets();
        }
    }

    /// How long until the next [`Self::tick`] is worth it; at least a second, and no more while a
    /// level has not settled, or one goes that nobody waits for any more.
    pub fn next_tick(&self) -> Duration {
        let boot_id = &self.running.boot_id;
        let unsettled = self.journal.active_in(boot_id).filter(|active| !active.settled);
        let going = self.journal.stray_in(boot_id).or(self.journal.leaving_in(boot_id));
        let restless = unsettled.is_some() || going.is_some() || self.journal.rolls_back_late.is_some();
        [restless.then_some(Duration::ZERO), self.next_try()]
            .into_iter()
            .flatten()
            .fold(IDLE, Duration::min)
            .max(Duration::from_secs(1))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.kernel.now()
    }

    /// The instruction's deadline on the clock that counts from boot; at most [`LONGEST`] ahead.
    pub(crate) fn since_boot_at(&self, deadline: Timestamp) -> Duration {
        let left = deadline.duration_since(self.now());
        self.kernel.since_boot() + Duration::try_from(left).unwrap_or(Duration::ZERO).min(LONGEST)
    }

    pub(crate) fn save(&mut self) {
        match self.store.save(&self.journal) {
            Ok(()) => self.unsaved = false,
            Err(error) => {
                self.unsaved = true;
                tracing::warn!(error = %error, "journal not written; kept in memory");
            }
        }
    }

    pub(crate) fn sweep(&self) {
        let evidence: Vec<&Digest> = self.journal.verdicts.records().collect();
        if let Err(error) = self.store.sweep(&self.journal.needed(), &evidence) {
            tracing::warn!(error = %error, "state folder not swept");
        }
    }

    /// The answer to an instruction that is not to be carried out.
    fn turn_down(&mut self, order: &Order) -> Option<std::io::Result<State>> {
        match place(self.journal.order.as_ref(), order) {
            Place::New => None,
            Place::Again if self.journal.task.is_some() || self.journal.outcome.is_none() => None,
            Place::Again => {
                self.look();
                Some(self.state())
            }
            Place::Stale => {
                let stale = |mut state: State| {
                    state.reason = Some(Reason::Fault(Fault::StaleInstruction));
                    state.message =
                        Some(format!("revision {} is older than one already known", order.revision));
                    state
                };
                Some(self.state().map(stale))
            }
        }
    }

    fn hold(&mut self, order: Order) -> std::io::Result<State> {
        if let Some(answer) = self.turn_down(&order) {
            return answer;
        }
        let level = self.kernel.seen()?.level();
        let at_rest = report::at_rest(level, self.journal.active_in(&self.running.boot_id));
        let since = self.journal.outcome.as_ref().filter(|old| old.state == at_rest).map(|old| old.since);
        self.release();
        self.begins(order);
        self.journal.outcome = Some(Outcome::reached(at_rest, since.unwrap_or(self.now())));
        self.save();
        self.state()
    }

    fn apply(&mut self, request: &ApplyRequest, proof: &[u8], module: &[u8]) -> std::io::Result<State> {
        if let Some(answer) = self.turn_down(&request.order) {
            return answer;
        }
        tracing::info!(revision = request.order.revision.0, level = request.level.0, set = %request.set, "apply");
        self.begins(request.order.clone());
        let ended = self.try_apply(request, proof, module);
        self.conclude(ended);
        self.release();
        self.sweep();
        self.look();
        self.state()
    }

    /// Whatever became of the instruction before, this one counts from now on.
    fn begins(&mut self, order: Order) {
        self.journal.order = Some(order);
        (self.journal.task, self.journal.outcome) = (None, None);
        self.journal.rolls_back_late = None;
    }

    fn try_apply(
        &mut self,
        request: &ApplyRequest,
        proof: &[u8],
        module: &[u8],
    ) -> Result<(Loaded, Reached), Missed> {
        let floors = |root: &Digest| self.journal.floors_of(root);
        let passed = Passed { request, proof, module, floors: &floors, now: self.now() };
        let Verified { mut loaded, floors, functions } = self.trust.passed(&self.running, &passed)?;
        loaded.settle_after_seconds = loaded.settle_after_seconds.max(self.least_settling.as_secs());
        self.not_convicted(&loaded)?;
        self.could_be_convicted(&loaded)?;
        self.journal.last_root = Some(loaded.root.clone());
        self.journal.floors.insert(loaded.root.clone(), floors);
        let task = Task {
            boot_id: self.running.boot_id.clone(),
            what: Doing::Applying(Box::new(loaded.clone())),
            deadline: request.deadline,
            health: self.health(),
        };
        let ended = self.drive(Drive {
            goal: Goal::Apply(loaded.module.clone()),
            phase: Phase::Checking,
            deadline: self.since_boot_at(request.deadline),
            task: Some((task, Some(Bytes { digest: &loaded.module_digest, module, proof }))),
            image: Some(module),
        });
        let reached = ended.map_err(|missed| missed.held_by(|| self.kernel.holders(&functions)))?;
        // Where the level was on already, nothing was written down on the way.
        self.store.keep(&loaded.module_digest, module, proof)?;
        Ok((loaded, reached))
    }

    /// Writes down what became of an instruction to apply.
    pub(crate) fn conclude(&mut self, ended: Result<(Loaded, Reached), Missed>) {
        let task = self.journal.task.take();
        match ended {
            Ok((loaded, reached)) => {
                let health = task.and_then(|task| task.health);
                self.journal.outcome = Some(self.applied(loaded, &reached, health));
            }
            Err(missed) => {
                let (remedy, harmful) = (missed.remedy.clone(), missed.is_harm());
                self.journal.outcome = Some(self.missed(missed));
                match remedy {
                    // What was to be put on and is on its way off is a stray.
                    Remedy::Nothing | Remedy::TryAgain | Remedy::SeeOff(_) => {}
                    Remedy::PutBack(name) => self.put_back(&name),
                }
                if let Some(Doing::Applying(loaded)) = task.map(|task| task.what) {
                    self.left_behind(*loaded, harmful);
                }
            }
        }
        self.save();
    }

    /// What an instruction that was not carried out leaves: a suspicion, a transition without end.
    fn left_behind(&mut self, loaded: Loaded, harmful: bool) {
        if harmful {
            let now = self.now();
            self.journal.verdicts.blame(&loaded, &[], now);
        }
        if self.kernel.seen().is_ok_and(|seen| seen.patch(&loaded.module).is_some()) {
            let boot_id = self.running.boot_id.clone();
            self.journal.stray = Some(Stray { boot_id, loaded });
        }
    }

    fn applied(&mut self, loaded: Loaded, reached: &Reached, health: Option<Health>) -> Outcome {
        let before = self
            .journal
            .active_in(&self.running.boot_id)
            .filter(|active| active.loaded.module_digest == loaded.module_digest)
            // What did harm is tried anew by a new instruction, and so is what nobody wanted before.
            .filter(|active| !active.harmed);
        let (since_boot_seconds, settled, health) = before
            .map_or((self.kernel.since_boot().as_secs(), false, health), |before| {
                (before.since_boot_seconds, before.settled, before.health)
            });
        let health = health.or_else(|| self.health());
        if settled {
            self.journal.verdicts.settled(&loaded.module_digest);
            self.journal.settled = Some(loaded.clone());
        }
        self.came_up();
        let state = if settled { NodeState::Settled } else { NodeState::Applied };
        (self.journal.stray, self.journal.leaving) = (None, None);
        self.journal.active = Some(Active {
            boot_id: self.running.boot_id.clone(),
            loaded,
            since_boot_seconds,
            settled,
            harmed: false,
            health,
        });
        Outcome { switch_millis: reached.millis, ..Outcome::reached(state, self.now()) }
    }

    pub(crate) fn missed(&self, missed: Missed) -> Outcome {
        tracing::warn!(reason = missed.reason.as_str(), message = %missed.message, "not reached");
        let blockers = missed.blockers;
        Outcome { blockers, ..Outcome::missed(missed.state, missed.reason, missed.message, self.now()) }
    }

    fn roll_back(&mut self, request: &RollBackRequest) -> std::io::Result<State> {
        if let Some(answer) = self.turn_down(&request.order) {
            return answer;
        }
        tracing::info!(revision = request.order.revision.0, "roll back");
        self.release();
        self.begins(request.order.clone());
        let task = Task {
            boot_id: self.running.boot_id.clone(),
            what: Doing::RollingBack,
            deadline: request.deadline,
            health: None,
        };
        let ended = self.drive(Drive {
            goal: Goal::RollBack,
            phase: Phase::Checking,
            deadline: self.since_boot_at(request.deadline),
            task: Some((task, None)),
            image: None,
        });
        self.rolled_back(ended);
        self.state()
    }

    pub(crate) fn rolled_back(&mut self, ended: Result<Reached, Missed>) {
        self.journal.task = None;
        match ended {
            Ok(reached) => {
                self.blame_what_goes();
                self.is_rolled_back(reached.millis);
            }
            Err(missed) => {
                if let Remedy::SeeOff(name) = &missed.remedy {
                    self.goes_as_told(name);
                }
                let moving = self.kernel.seen().is_ok_and(|seen| seen.moving().is_some());
                self.journal.rolls_back_late = moving.then(|| self.running.boot_id.clone());
                self.journal.outcome = Some(self.missed(missed));
            }
        }
        self.save();
        self.sweep();
        self.look();
    }

    pub(crate) fn is_rolled_back(&mut self, switch_millis: Option<u32>) {
        self.came_up();
        (self.journal.active, self.journal.stray, self.journal.leaving) = (None, None, None);
        (self.journal.settled, self.journal.unpatched) = (None, None);
        self.journal.rolls_back_late = None;
        self.journal.outcome =
            Some(Outcome { switch_millis, ..Outcome::reached(NodeState::RolledBack, self.now()) });
    }
}
