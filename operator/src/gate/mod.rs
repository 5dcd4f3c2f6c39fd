//! The gates of a policy: what must be well before a stage starts and throughout its soak.
//!
//! Whether nodes are Ready and kernels well is read from what was seen, at each decision.
//! Prometheus and Jobs are asked by the keeper, and only what a rollout needs to know: a decision
//! says what it wants ([`GateSights::want`]), the answers lie ready for the next one, and each
//! change of one makes its policy look again. At rest nothing is wanted, so nothing is asked.
//!
//! What is not known is not healthy. An answer belongs to the whole question: another rollout,
//! stage or spec makes another one, which nothing that was answered before answers.

mod ask;
mod health;
mod job;
mod keeper;
mod prometheus;
mod sights;

use invivo_api::{Gate, GateOutcome, GateStatus, PatchPolicy};
use invivo_rollout::{self as rollout, GateVerdict, RolloutMemory};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::store::Entry;

pub use ask::ANSWER_WITHIN;
pub use health::Moved;
pub use job::{NAMESPACE, Run};
pub use keeper::Keeper;
pub use sights::{GateSights, Question};

/// The longest message of a gate in a policy's status, in characters.
const LONGEST_MESSAGE: usize = 1536;

/// What a rollout asks its gates about: one of its stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The rollout's number.
    pub rollout: u64,
    /// Where it goes: a set's name, or `None`.
    pub target: String,
    /// The stage under way.
    pub stage: String,
    /// The same as the planner counts them: the rollout's number and the stage's index.
    pub about: (u64, usize),
}

impl Wanted {
    /// The stage that a rollout is in, the last one once every stage is through; nothing before there
    /// is a rollout. `stage_name` names a stage by its index.
    pub fn of<'a>(
        rollout: Option<&RolloutMemory>,
        stage_name: impl FnOnce(usize) -> &'a str,
    ) -> Option<Self> {
        let rollout = rollout?;
        let target = rollout.target.as_ref().map_or_else(|| "None".to_owned(), |(set, _)| set.to_string());
        let about = (rollout.number, rollout.stage);
        Some(Self { rollout: rollout.number, target, stage: stage_name(rollout.stage).to_owned(), about })
    }
}

/// How the gates stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Each of them.
    pub gates: Vec<rollout::Gate>,
    /// When time alone changes that.
    pub wake: Option<Timestamp>,
}

/// How a policy's gates stand at `now` for the stage that is `wanted`, where `moved` are its nodes
/// that the rollout has moved, and of those `hidden` it cannot be read what became of them. Pure but for
/// the look at the answers.
pub fn verdicts(
    sights: &GateSights,
    policy: &Entry<PatchPolicy>,
    wanted: Option<&Wanted>,
    (moved, hidden): (&[Moved], &[String]),
    now: Timestamp,
) -> Standing {
    let deadline = policy.value.spec.rollout.node_deadline.get();
    let (ready, wake) = health::node_ready(moved, deadline, now);
    let mut gates = vec![
        rollout::Gate { name: NODE_READY.to_owned(), foreign: false, about: None, verdict: ready },
        rollout::Gate {
            name: KERNEL_HEALTH.to_owned(),
            foreign: false,
            about: None,
            verdict: health::kernel_health(moved, hidden),
        },
    ];
    for (name, gate) in outside(&policy.value.spec.gates) {
        let unknown = |message: &str| GateVerdict::Unknown { message: message.to_owned() };
        let verdict = match wanted.map(|wanted| question(policy, gate, wanted)) {
            Some(Some(question)) => sights.verdict(&policy.name, &question),
            Some(None) => unknown("it is none that this version knows: correct spec.gates"),
            None => unknown("no stage is under way"),
        };
        gates.push(rollout::Gate { name, foreign: true, about: wanted.map(|wanted| wanted.about), verdict });
    }
    Standing { gates, wake }
}

/// What is to be asked outside for the stage that is wanted; nothing where none is. Once every
/// stage is through and no gate holds a node, none is: that is rest.
pub fn questions(policy: &Entry<PatchPolicy>, wanted: Option<&Wanted>) -> Vec<Question> {
    let Some(wanted) = wanted else { return Vec::new() };
    outside(&policy.value.spec.gates).filter_map(|(_, gate)| question(policy, gate, wanted)).collect()
}

/// Whether one of these is about another stage than the one that is under way by now.
pub fn asked_elsewhere(gates: &[rollout::Gate], under_way: Option<&Wanted>) -> bool {
    let elsewhere =
        |wanted: &Wanted| gates.iter().any(|gate| gate.foreign && gate.about != Some(wanted.about));
    under_way.is_some_and(elsewhere)
}

/// The gates as they stand in the policy's status; an instant stays while its verdict does.
pub fn status(old: &[GateStatus], gates: &[rollout::Gate], now: Timestamp) -> Vec<GateStatus> {
    let of = |gate: &rollout::Gate| {
        let (verdict, message) = match &gate.verdict {
            GateVerdict::Passed => (GateOutcome::Passed, None),
            GateVerdict::Failed { message } => (GateOutcome::Failed, Some(message)),
            GateVerdict::Unknown { message } => (GateOutcome::Unknown, Some(message)),
        };
        let before = old.iter().find(|before| before.name == gate.name && before.verdict == verdict);
        GateStatus {
            name: gate.name.clone(),
            verdict,
            message: message.map(|message| message.chars().take(LONGEST_MESSAGE).collect()),
            since: before.map_or(Time(now), |before| before.since.clone()),
        }
    };
    gates.iter().map(of).collect()
}

const NODE_READY: &str = "nodeReady";
const KERNEL_HEALTH: &str = "kernelHealth";

/// The gates that are asked outside, each with its name: its kind, and its place among these from
/// the second on. One of no kind, as of a later version, is among them: it is never passed.
fn outside(gates: &[Gate]) -> impl Iterator<Item = (String, &Gate)> {
    let mut seen = [0_u32; 3];
    gates.iter().filter_map(move |gate| {
        let [queries, jobs, others] = &mut seen;
        let (kind, count) = match gate {
            Gate { prometheus: Some(_), .. } => ("prometheus", queries),
            Gate { job: Some(_), .. } => ("job", jobs),
            Gate { node_ready: Some(_), .. } | Gate { kernel_health: Some(_), .. } => return None,
            Gate { .. } => ("gate", others),
        };
        *count = count.saturating_add(1);
        let name = if *count == 1 { kind.to_owned() } else { format!("{kind}-{count}") };
        Some((name, gate))
    })
}

fn question(policy: &Entry<PatchPolicy>, gate: &Gate, wanted: &Wanted) -> Option<Question> {
    match (&gate.prometheus, &gate.job) {
        (Some(prometheus), _) => Some(Question::Prometheus(Box::new(prometheus.clone()))),
        (None, Some(job)) => Some(Question::Job(Box::new(Run::of(policy, job, wanted)))),
        (None, None) => None,
    }
}

/// What others say, fit for a status: without control characters but line ends, and not too long.
fn plain(text: &str, longest: usize) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
        .take(longest)
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests;
