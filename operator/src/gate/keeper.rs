//! Asks what is wanted, for as long as it is wanted and this replica may work.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use invivo_api::PrometheusGate;
use invivo_rollout::GateVerdict;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::ask::ask;
use super::job::{self, JobState, NAMESPACE, Run};
use super::prometheus::Quiet;
use super::{GateSights, Question, plain};
use crate::engine::Leave;
use crate::queue::jittered;
use crate::signal::{Signal, Signals};
use crate::write::MANAGER;

/// How often a Prometheus is asked.
const ASK_EVERY: Duration = Duration::from_secs(15);
/// How soon what the API server did not take or give is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// How long a request to the API server may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Asks what decisions want to know.
pub struct Keeper {
    /// The API server.
    pub client: Client,
    /// The operator's own namespace, where Secrets for a Prometheus are.
    pub namespace: String,
    /// How long a Prometheus may take.
    pub patience: Duration,
    /// What is wanted, and where answers go.
    pub sights: Arc<GateSights>,
    /// Who is told.
    pub signals: Arc<Signals>,
}

/// A question that is being asked; it ends with this.
struct Asking {
    policy: String,
    question: Question,
    task: AbortHandle,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Keeper {
    /// Asks for ever: one task for each question.
    pub async fn run(self: Arc<Self>, mut leave: Leave) {
        let mut asking: Vec<Asking> = Vec::new();
        loop {
            if !(*leave.leader.borrow() && leave.admission.borrow().in_force()) {
                self.sights.forget();
            }
            let wanted = self.sights.wanted();
            asking.retain(|one| {
                wanted.iter().any(|(policy, question)| one.policy == *policy && one.question == *question)
            });
            for (policy, question) in wanted {
                if asking.iter().any(|one| one.policy == policy && one.question == question) {
                    continue;
                }
                let (this, name, what) = (Arc::clone(&self), policy.clone(), question.clone());
                let task = tokio::spawn(async move { this.follow(&name, &what).await }).abort_handle();
                asking.push(Asking { policy, question, task });
            }
            let ended = tokio::select! {
                () = self.sights.changed() => false,
                changed = leave.leader.changed() => changed.is_err(),
                changed = leave.admission.changed() => changed.is_err(),
            };
            if ended {
                return;
            }
        }
    }

    async fn follow(&self, policy: &str, question: &Question) {
        let tell = |verdict: GateVerdict| {
            if self.sights.answer(policy, question, verdict) {
                self.signals.tell(Signal::Gate(policy.to_owned()));
            }
        };
        match question {
            Question::Prometheus(gate) => self.ask(gate, tell).await,
            Question::Job(run) => self.run_job(run, tell).await,
        }
    }

    async fn ask(&self, gate: &PrometheusGate, tell: impl Fn(GateVerdict)) {
        let mut quiet = Quiet::default();
        loop {
            let answer = ask(&self.client, &self.namespace, gate, self.patience).await;
            let now = Instant::now();
            tell(quiet.hear(answer, gate.quiet, now));
            let pause = jittered(ASK_EVERY);
            tokio::time::sleep(quiet.passes_in(gate.quiet, now).map_or(pause, |left| left.min(pause))).await;
        }
    }

    /// Creates the Job if it is not there, and follows it. Deleted before it has succeeded, it is
    /// run again; what succeeded counts for as long as it is wanted.
    async fn run_job(&self, run: &Run, tell: impl Fn(GateVerdict)) {
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), NAMESPACE);
        let name = run.name();
        // Looked at anew, a watch tells again what it found.
        let look = || watch_object(jobs.clone(), &name).default_backoff().boxed();
        let mut seen = look();
        let mut met = false;
        let mut due: Option<Instant> = None;
        loop {
            let next = tokio::select! {
                next = seen.next() => next,
                () = sleep_until(due) => {
                    tell(job::overdue(&name));
                    due = None;
                    continue;
                }
            };
            match next {
                None => return,
                Some(Err(error)) => {
                    if !met {
                        let message = format!("Job {NAMESPACE}/{name} cannot be looked at: {error}");
                        tell(GateVerdict::Unknown { message: plain(&message, 600) });
                    }
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(job = name, error, "watch of a gate's Job interrupted");
                }
                Some(Ok(None)) => {
                    (met, due) = (false, None);
                    if let Err(message) = self.create(&jobs, run).await {
                        tell(GateVerdict::Unknown { message });
                        tokio::time::sleep(jittered(TRY_AGAIN)).await;
                        seen = look();
                    }
                }
                Some(Ok(Some(job))) => {
                    met = true;
                    match job::state(&job) {
                        JobState::Running => {
                            let left = left(&job, run);
                            due = (!left.is_zero()).then(|| Instant::now() + left);
                            tell(if left.is_zero() { job::overdue(&name) } else { job::running(&name) });
                        }
                        JobState::Complete => {
                            tell(GateVerdict::Passed);
                            return;
                        }
                        JobState::Failed { reason } => {
                            due = None;
                            let pods = self.pods(&job).await;
                            tell(job::failure(&name, &reason, pods.as_deref().unwrap_or_default()));
                            if pods.is_none() {
                                tokio::time::sleep(jittered(TRY_AGAIN)).await;
                                seen = look();
                            }
                        }
                    }
                }
            }
        }
    }

    async fn create(&self, jobs: &Api<Job>, run: &Run) -> Result<(), String> {
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let job = run.job();
        let answer = tokio::time::timeout(ANSWER_WITHIN, jobs.create(&params, &job)).await;
        let cannot =
            |why: &str| format!("Job {NAMESPACE}/{} cannot be created: {}", run.name(), plain(why, 600));
        match answer {
            Ok(Ok(_)) => {
                tracing::info!(job = run.name(), "a gate's Job created");
                Ok(())
            }
            // It is there: another operator was quicker, or an answer was lost.
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => Ok(()),
            Ok(Err(kube::Error::Api(status))) => Err(cannot(&status.message)),
            Ok(Err(error)) => Err(cannot(&error.to_string())),
            Err(_) => Err(cannot("no answer in time")),
        }
    }

    /// The pods that a Job left, if they can be read now.
    async fn pods(&self, job: &Job) -> Option<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let uid = job.metadata.uid.as_deref().unwrap_or_default();
        let params = ListParams::default().labels(&format!("batch.kubernetes.io/controller-uid={uid}"));
        let error = match tokio::time::timeout(ANSWER_WITHIN, pods.list(&params)).await {
            Ok(Ok(pods)) => return Some(pods.items),
            Ok(Err(error)) => error.to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        tracing::warn!(job = job.metadata.name, error, "pods of a gate's Job not read");
        None
    }
}

/// How long until a Job must have ended. Its creation stands by the API server's clock; one that
/// lies in the future counts as now.
fn left(job: &Job, run: &Run) -> Duration {
    let created = job.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let age = created.map(|created| Timestamp::now().duration_since(created)).unwrap_or_default();
    job::ends_within(run).saturating_sub(Duration::try_from(age).unwrap_or_default())
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
