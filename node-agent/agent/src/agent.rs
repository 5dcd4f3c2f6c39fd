//! The agent: observe, decide, do one step, report.

use std::time::Duration;

use futures::{Stream, StreamExt};
use invivo_api::{NodePatch, NodePatchStatus};
use invivo_terms::{NodeState, Revision};
use invivo_wire::{ApplyRequest, Fault, Request, RollBackRequest, State};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::alarm::Alarm;
use crate::cluster::{Cluster, ClusterError, Fence};
use crate::fetch::{self, FetchError, Fetched, Source};
use crate::health::Trouble as Health;
use crate::instruction::{Instruction, What};
use crate::loader::{Loader, LoaderError};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::status::{self, Own};
use crate::step::{self, Step};
use crate::uevents::Uevents;
use crate::verdict::{Cause, Trouble, Verdict};

/// The loader is asked how things stand at least this often: a little sooner than it would look by
/// itself, so that one of the two wakes it and not both.
const LOOK: Duration = Duration::from_secs(55);
/// How long modules may go on coming and going before the loader is woken for all of them: at a boot
/// there are hundreds.
const GATHER: Duration = Duration::from_secs(2);
/// A step that lasts longer is reported.
const LONG: Duration = Duration::from_secs(10);
/// How often a refusal is looked at again before it counts: the mirror may be between two states.
const REFUSAL_TRIES: u32 = 2;
/// What the loader may take beyond an instruction's deadline: undoing, writing down.
const AFTER_DEADLINE: Duration = Duration::from_mins(2);

/// The agent of one node.
pub struct Agent {
    cluster: Cluster,
    loader: Loader,
    patch_server: String,
    metrics: Metrics,
    health: Health,
    /// The NodePatch as last seen.
    object: Option<NodePatch>,
    /// The status as last written or seen.
    written: Option<NodePatchStatus>,
    /// What was found wrong with an instruction before it reached the loader.
    found: Option<Verdict>,
    /// Tries at the instruction of this revision.
    pace: Pace,
    /// Since when the instruction is being tried.
    trying: Option<(Instruction, Instant)>,
    /// What the tries wait for, and the last that was heard of it.
    waits_for: Option<(Trouble, String)>,
    /// The object was in the list that is being read.
    in_list: bool,
    /// Modules that come and go.
    uevents: Uevents,
    /// Some have since the loader last looked.
    moved: bool,
}

/// When to look again.
enum Next {
    /// At rest.
    Rest(Duration),
    /// Something is to be tried again.
    Retry(Duration),
}

/// What became of an attempt.
enum Attempt {
    /// The loader answered.
    Answered(Box<State>),
    /// It ended before the loader.
    Ended(Verdict),
    /// To be tried again.
    Again(Trouble, String),
}

impl Agent {
    /// Of the node that `cluster` knows.
    pub fn new(
        cluster: Cluster,
        loader: Loader,
        patch_server: String,
        metrics: Metrics,
        health: Health,
    ) -> Self {
        Self {
            cluster,
            loader,
            patch_server,
            metrics,
            health,
            object: None,
            written: None,
            found: None,
            pace: Pace::default(),
            trying: None,
            waits_for: None,
            in_list: false,
            uevents: Uevents::default(),
            moved: false,
        }
    }

    /// Wakes the loader when modules come and go.
    #[must_use]
    pub fn hearing(self, uevents: Uevents) -> Self {
        Self { uevents, ..self }
    }

    /// Waits until the policy that keeps agents apart is seen to hold. Until then nothing is done:
    /// an agent that could write for others must not be trusted with its own.
    pub async fn wait_for_fence(&self) {
        let mut pace = Pace::default();
        loop {
            match self.cluster.fence().await {
                Fence::Up => {
                    self.metrics.fence(true);
                    return;
                }
                Fence::NotKnownUp(why) => {
                    self.metrics.fence(false);
                    if self.health.set(Some(why.clone())) {
                        tracing::error!(why, "nothing is done on this node");
                    }
                    tokio::time::sleep(pace.wait()).await;
                }
            }
        }
    }

    /// Works for ever.
    pub async fn run(
        mut self,
        mut events: impl Stream<Item = watcher::Result<Event<DeserializeGuard<NodePatch>>>> + Unpin,
    ) {
        let mut listed = false;
        let mut wake = Instant::now();
        let mut uevents = std::mem::take(&mut self.uevents);
        let alarm = Alarm::default();
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => {
                        let known = listed;
                        listed |= matches!(event, Event::InitDone);
                        let changed = self.take(event);
                        // The object is not known before the first list is whole.
                        if !listed || (known && !changed) {
                            continue;
                        }
                    }
                    Some(Err(error)) => {
                        tracing::warn!(error = %error, "watch");
                        continue;
                    }
                    None => return,
                },
                () = uevents.module_moved() => {
                    self.moved = true;
                    wake = wake.min(Instant::now() + GATHER);
                    continue;
                }
                () = alarm.at(wake), if listed => {}
            }
            wake = Instant::now()
                + match self.work().await {
                    Next::Rest(wait) => {
                        self.pace.reset();
                        wait
                    }
                    Next::Retry(wait) => wait,
                };
        }
    }

    /// Whether anything changed.
    fn take(&mut self, event: Event<DeserializeGuard<NodePatch>>) -> bool {
        match event {
            Event::Apply(guarded) | Event::InitApply(guarded) => match guarded.0 {
                Ok(object) if object.name_any() == self.cluster.node() => {
                    let spec = |object: &NodePatch| (object.uid(), object.spec.clone());
                    let news = self.object.as_ref().map(spec) != Some(spec(&object))
                        || self.written.is_none()
                        || self.written != object.status;
                    self.written.clone_from(&object.status);
                    self.object = Some(object);
                    self.in_list = true;
                    news
                }
                Ok(_) => false,
                Err(invalid) => {
                    // What cannot be read is no instruction; the one known before stays ended.
                    tracing::error!(error = %invalid, "NodePatch does not parse");
                    self.in_list = true;
                    false
                }
            },
            Event::Init => {
                self.in_list = false;
                false
            }
            Event::InitDone if self.in_list => true,
            // A NodePatch that is gone asks for nothing: the node keeps its level.
            Event::Delete(_) | Event::InitDone => self.forget(),
        }
    }

    fn forget(&mut self) -> bool {
        self.object = None;
        self.written = None;
        true
    }

    /// One round.
    async fn work(&mut self) -> Next {
        let asked = if self.moved { self.loader.look().await } else { self.loader.state().await };
        let state = match asked {
            Ok(state) => {
                self.moved = false;
                state
            }
            Err(error) => return self.loader_silent(&error),
        };
        self.health.set(None);
        let instruction = self.object.as_ref().and_then(Instruction::of);
        let Some(instruction) = instruction else {
            self.metrics.node(self.cluster.node(), &state, state.state);
            return Next::Rest(rest(&state));
        };
        self.remember_written(&instruction, &state);
        match step::next(&instruction, &state, self.found.as_ref(), Timestamp::now()) {
            Step::Report => self.settle(&instruction, state).await,
            Step::End(verdict) => {
                let verdict = self.by_its_cause(&instruction, verdict);
                self.end(verdict);
                self.settle(&instruction, state).await
            }
            Step::Hold | Step::RollBack | Step::Apply => self.attempt(&instruction, state).await,
        }
    }

    fn loader_silent(&mut self, error: &LoaderError) -> Next {
        self.metrics.loader_down();
        let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        if self.health.set(Some(format!("the loader does not answer: {error}"))) {
            tracing::warn!(error = %error, source, "loader");
        }
        Next::Retry(self.pace.wait())
    }

    /// An instruction that an earlier agent of this node ended by itself is not tried again.
    fn remember_written(&mut self, instruction: &Instruction, state: &State) {
        let loader_knows = state.order.as_ref().is_some_and(|order| *order == instruction.order);
        if self.found.is_none() && !loader_knows {
            self.found =
                self.written.as_ref().and_then(|status| Verdict::written(&instruction.order, status));
        }
    }

    /// A deadline that passed between two tries has a cause, and that is what people need to know.
    fn by_its_cause(&self, instruction: &Instruction, verdict: Verdict) -> Verdict {
        let tried = self.trying.as_ref().is_some_and(|(tried, _)| tried == instruction);
        let waited = self.waits_for.as_ref().filter(|_| tried);
        match waited {
            Some((trouble, why)) if verdict.cause == Cause::Fault(Fault::DeadlinePassed) => {
                Verdict::failed(&instruction.order, Cause::Trouble(*trouble), why.as_str())
            }
            Some(_) | None => verdict,
        }
    }

    fn end(&mut self, verdict: Verdict) {
        tracing::warn!(reason = verdict.cause.as_str(), message = %verdict.message, "instruction ended");
        self.metrics.failure(verdict.cause.as_str());
        self.found = Some(verdict);
    }

    /// Tries to carry the instruction out, and reports if that takes long.
    async fn attempt(&mut self, instruction: &Instruction, state: State) -> Next {
        let began = match &self.trying {
            Some((known, began)) if known == instruction => *began,
            Some(_) | None => {
                let now = Instant::now();
                self.pace.reset();
                self.waits_for = None;
                self.trying = Some((instruction.clone(), now));
                now
            }
        };
        let mut carried = self.carry_out(instruction.clone(), state.clone());
        let attempt = if let Ok(attempt) = tokio::time::timeout_at(began + LONG, &mut carried).await {
            attempt
        } else {
            self.say_working(instruction, &state).await;
            carried.await
        };
        match attempt.unwrap_or_else(|lost| std::panic::resume_unwind(lost.into_panic())) {
            Attempt::Answered(state) => {
                if let Some(reason) = state.reason.filter(|_| state.state.is_failure()) {
                    self.metrics.failure(reason.as_str());
                }
                self.settle(instruction, *state).await
            }
            Attempt::Ended(verdict) if self.is_last_word(&verdict) => {
                self.end(verdict);
                self.settle(instruction, state).await
            }
            Attempt::Ended(verdict) => {
                tracing::info!(reason = verdict.cause.as_str(), message = %verdict.message, "looking again");
                Next::Retry(self.pace.wait())
            }
            Attempt::Again(trouble, why) => {
                let late = instruction.deadline().is_some_and(|deadline| deadline <= Timestamp::now());
                // What the loader may have begun is its own to end and to tell.
                if late && trouble != Trouble::LoaderSilent {
                    self.end(Verdict::failed(&instruction.order, Cause::Trouble(trouble), why));
                    return self.settle(instruction, state).await;
                }
                tracing::warn!(reason = trouble.as_str(), why, "trying again");
                self.waits_for = Some((trouble, why));
                if began.elapsed() >= LONG {
                    self.say_working(instruction, &state).await;
                }
                Next::Retry(self.pace.wait())
            }
        }
    }

    /// On a thread of its own, whose stack goes back to the system: signatures take some three times of
    /// what the agent needs otherwise, and a stack that has grown stays.
    fn carry_out(&self, instruction: Instruction, state: State) -> JoinHandle<Attempt> {
        let (cluster, loader, patch_server) =
            (self.cluster.clone(), self.loader.clone(), self.patch_server.clone());
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            runtime.block_on(carry_out(&cluster, &loader, &patch_server, &instruction, &state))
        })
    }

    /// A refusal of what was fetched is looked at again: the mirror may have been between two
    /// states. Everything else counts at once.
    fn is_last_word(&self, verdict: &Verdict) -> bool {
        match verdict.cause {
            Cause::Refusal(_) => self.pace.tries() >= REFUSAL_TRIES,
            Cause::Fault(_) | Cause::Trouble(_) | Cause::Written(_) => true,
        }
    }

    async fn say_working(&mut self, instruction: &Instruction, state: &State) {
        let waits_for = self.waits_for.as_ref().map(|(trouble, _)| trouble.as_str());
        let own = Own::Working { waits_for };
        let wanted = status::of(state, &own, instruction.revision(), Timestamp::now());
        self.metrics.node(self.cluster.node(), state, NodeState::Working);
        // Best effort: the end of the step is written in any case.
        self.write(instruction, wanted).await;
    }

    /// Reports how things stand.
    async fn settle(&mut self, instruction: &Instruction, state: State) -> Next {
        let now = Timestamp::now();
        let verdict = self.found.as_ref().filter(|verdict| verdict.order == instruction.order);
        let own = verdict.map_or(Own::Nothing, Own::Ended);
        let written = self.written.as_ref().map_or(Revision(0), |status| status.observed_revision);
        let observed = step::observed(Some(instruction), &state, verdict, written);
        let wanted = status::of(&state, &own, observed, now);
        self.metrics.node(self.cluster.node(), &state, wanted.state);
        self.trying = None;
        if self.write(instruction, wanted).await {
            Next::Rest(rest(&state))
        } else {
            Next::Retry(self.pace.wait())
        }
    }

    /// Whether the status is now as wanted.
    async fn write(&mut self, instruction: &Instruction, wanted: NodePatchStatus) -> bool {
        if !status::differs(&wanted, self.written.as_ref()) {
            return true;
        }
        match self.cluster.report(&instruction.order.object, &wanted).await {
            Ok(object) => {
                tracing::info!(
                    state = wanted.state.as_str(),
                    level = wanted.level.0,
                    revision = wanted.observed_revision.0,
                    "reported"
                );
                self.metrics.wrote_status();
                self.written = object.status;
                true
            }
            Err(error) => {
                tracing::warn!(error = %error, "status not written");
                false
            }
        }
    }
}

/// Until the next look: some minute, or the moment in which the level settles.
fn rest(state: &State) -> Duration {
    state.settles_in_seconds.map_or(LOOK, |seconds| LOOK.min(Duration::from_secs(seconds.saturating_add(1))))
}

async fn carry_out(
    cluster: &Cluster,
    loader: &Loader,
    patch_server: &str,
    instruction: &Instruction,
    state: &State,
) -> Attempt {
    let order = &instruction.order;
    let (request, blobs) = match &instruction.what {
        What::Hold => (Request::Hold { order: order.clone() }, Vec::new()),
        What::RollBack { deadline } => {
            (Request::RollBack(RollBackRequest { order: order.clone(), deadline: *deadline }), Vec::new())
        }
        What::Apply(apply) => {
            let fetched = match fetch_for(cluster, (loader, state), patch_server, instruction, apply).await {
                Ok(fetched) => fetched,
                Err(attempt) => return attempt,
            };
            let request = ApplyRequest {
                order: order.clone(),
                build_id: apply.build_id.clone(),
                level: apply.level,
                set: apply.set.clone(),
                digest: apply.digest.clone(),
                manifest: apply.manifest.clone(),
                mechanism: apply.mechanism,
                deadline: apply.deadline.0,
                settle_after_seconds: apply.settle_after.get().as_secs(),
                allow_partial: apply.allow_partial,
                floors: fetched.floors,
                server_date: fetched.server_date,
            };
            (Request::Apply(request), vec![fetched.proof, fetched.module])
        }
    };
    let left = instruction.deadline().map(|deadline| deadline.duration_since(Timestamp::now()));
    let left = left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default();
    match loader.ask(request, blobs, left + AFTER_DEADLINE).await {
        Ok(state) => Attempt::Answered(Box::new(state)),
        Err(LoaderError::Refused(detail)) => {
            Attempt::Ended(Verdict::failed(order, Cause::Fault(Fault::NodeIo), detail))
        }
        Err(error) => Attempt::Again(Trouble::LoaderSilent, error.to_string()),
    }
}

/// Reads policy, feeds and sets once, fetches, verifies.
async fn fetch_for(
    cluster: &Cluster,
    (loader, state): (&Loader, &State),
    patch_server: &str,
    instruction: &Instruction,
    apply: &invivo_api::Apply,
) -> Result<Fetched, Attempt> {
    let order = &instruction.order;
    let forbidden =
        |why: String| Attempt::Ended(Verdict::refused(order, Cause::Trouble(Trouble::NotAllowed), why));
    let unreachable = |error: ClusterError| Attempt::Again(Trouble::Unreachable, error.to_string());
    let (Some(policy), Some(feed)) = (&instruction.policy, &instruction.feed) else {
        return Err(forbidden("the instruction names no policy or no feed".to_owned()));
    };
    let Some(policy) = cluster.policy(policy).await.map_err(unreachable)? else {
        return Err(forbidden(format!("there is no PatchPolicy {policy}")));
    };
    let options = invivo_transport::Options::default();
    let fetched = async {
        let source = Source::read(cluster, policy, feed).await?;
        let now = Timestamp::now();
        fetch::fetch(cluster, patch_server, options, apply, &source, (loader, state), now).await
    };
    fetched.await.map_err(|error| match error {
        FetchError::Forbidden(why) => forbidden(why.to_string()),
        FetchError::Rejected(rejection) => Attempt::Ended(Verdict::rejected(order, &rejection)),
        FetchError::Unreachable(why) => Attempt::Again(Trouble::Unreachable, why),
        FetchError::Cluster(error) => unreachable(error),
        FetchError::Loader(error) => Attempt::Again(Trouble::LoaderSilent, error.to_string()),
        FetchError::Withheld(why) => Attempt::Again(Trouble::Withheld, why),
        FetchError::Proof(error) => {
            Attempt::Ended(Verdict::failed(order, Cause::Fault(Fault::NodeIo), error.to_string()))
        }
    })
}
