//! The two gates that every policy has: what the nodes that a rollout moved, and whose level has
//! not settled, show of themselves.

use std::time::Duration;

use invivo_api::NodePatchStatus;
use invivo_rollout::{GateVerdict, Readiness, RolloutMemory};
use invivo_terms::NodeState;
use jiff::Timestamp;

use crate::seen::{SeenNode, SeenPatch};
use crate::store::Entry;

/// What a loader reports when the kernel has suffered, and the patch with it.
const HARM: [&str; 4] = ["KernelOops", "KernelLockup", "WarningNamesPatch", "PanicNamesPatch"];

/// What it reports when the kernel warned of something, of what it could not tell or of something else.
const WARNING: &str = "KernelWarning";

/// How many nodes a message names.
const EXAMPLES: usize = 5;

/// A node that a rollout has told to move and whose level has not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// Its name.
    pub node: String,
    /// What its kubelet reports.
    pub ready: Readiness,
    /// What it answered.
    pub answer: Option<Answer>,
}

/// What a node answered to its instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What became of it.
    pub state: NodeState,
    /// Why.
    pub reason: String,
    /// The same for people.
    pub message: String,
}

impl Moved {
    /// This node, if the rollout under way has told it to move and its level has not settled.
    pub fn of(node: &Entry<SeenNode>, patch: &SeenPatch, rollout: Option<&RolloutMemory>) -> Option<Self> {
        let rollout = rollout.filter(|rollout| !rollout.complete)?;
        let spec = &patch.spec;
        let deadline = match (&spec.apply, &spec.roll_back) {
            (Some(apply), _) => apply.deadline.0,
            (None, Some(roll_back)) => roll_back.deadline.0,
            (None, None) => return None,
        };
        let answers = |status: &&NodePatchStatus| status.observed_revision >= spec.revision;
        let status = patch.status.as_ref().filter(answers);
        let settled = status.is_some_and(|status| status.state == NodeState::Settled);
        // As the planner tells this rollout's instructions from those of the ones before.
        if settled || Some(deadline) <= rollout.before {
            return None;
        }
        Some(Self {
            node: node.name.clone(),
            ready: node.value.ready,
            answer: status.map(|status| Answer {
                state: status.state,
                reason: status.reason.clone().unwrap_or_default(),
                message: status.message.clone().unwrap_or_default(),
            }),
        })
    }
}

/// All of them are Ready. One that is not may only be restarting its kubelet: that is not known
/// until it has lasted for the node `deadline`. Also when time alone changes the verdict.
pub(super) fn node_ready(
    moved: &[Moved],
    deadline: Duration,
    now: Timestamp,
) -> (GateVerdict, Option<Timestamp>) {
    let ends = |since: Timestamp| since.checked_add(deadline).unwrap_or(Timestamp::MAX);
    let missing = moved.iter().filter_map(|node| match node.ready {
        Readiness::Ready => None,
        Readiness::NotReady { since } => Some((node, since)),
    });
    let (lost, waiting): (Vec<_>, Vec<_>) = missing.partition(|(_, since)| ends(*since) <= now);
    let names = |nodes: &[(&Moved, Timestamp)]| {
        some(nodes.len(), nodes.iter().map(|(node, since)| format!("{} since {since}", node.node)))
    };
    if !lost.is_empty() {
        return (GateVerdict::Failed { message: format!("not Ready: {}", names(&lost)) }, None);
    }
    let Some(wake) = waiting.iter().map(|(_, since)| ends(*since)).min() else {
        return (GateVerdict::Passed, None);
    };
    let message = format!("not Ready: {}; it fails at {wake}", names(&waiting));
    (GateVerdict::Unknown { message }, Some(wake))
}

/// None of their kernels has suffered. What the `hidden` nodes report cannot be read.
pub(super) fn kernel_health(moved: &[Moved], hidden: &[String]) -> GateVerdict {
    let with = |wanted: fn(&Answer) -> bool| -> Vec<(&Moved, &Answer)> {
        moved
            .iter()
            .filter_map(|node| Some((node, node.answer.as_ref()?)))
            .filter(|(_, answer)| wanted(answer))
            .collect()
    };
    let words = |nodes: &[(&Moved, &Answer)]| {
        some(
            nodes.len(),
            nodes.iter().map(|(node, answer)| {
                let message = super::plain(&answer.message, 160);
                format!("{}: {}: {message}", node.node, answer.reason)
            }),
        )
    };
    let harmed = with(|answer| HARM.contains(&answer.reason.as_str()));
    if !harmed.is_empty() {
        return GateVerdict::Failed { message: words(&harmed) };
    }
    let warned = with(|answer| answer.reason == WARNING);
    if !warned.is_empty() {
        return GateVerdict::Unknown { message: words(&warned) };
    }
    if hidden.is_empty() {
        return GateVerdict::Passed;
    }
    let names = some(hidden.len(), hidden.iter().cloned());
    GateVerdict::Unknown { message: format!("NodePatches that cannot be read: {names}") }
}

/// The first few of so many.
fn some(count: usize, words: impl Iterator<Item = String>) -> String {
    let shown: Vec<String> = words.take(EXAMPLES).collect();
    match count.saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use serde_json::{Value, json};

    const DEADLINE: Duration = Duration::from_mins(10);

    fn at(time: &str) -> Timestamp {
        format!("2026-11-22T{time}Z").parse().unwrap()
    }

    fn rollout() -> RolloutMemory {
        RolloutMemory {
            number: 3,
            since: at("12:00:00"),
            from: None,
            cuts: Vec::new(),
            returning: false,
            evidence: Vec::new(),
            target: None,
            mechanism: invivo_terms::Mechanism::Livepatch,
            started: 1,
            finished: 0,
            failed: 0,
            stage: 0,
            stage_since: at("12:00:00"),
            soak_until: None,
            complete: false,
            before: Some(at("12:00:00")),
            deadline: Some(at("12:10:00")),
        }
    }

    fn node() -> Entry<SeenNode> {
        let value = SeenNode {
            uid: "u".into(),
            labels: std::collections::BTreeMap::new(),
            ready: Readiness::Ready,
            cordoned: false,
            held: None,
            boot_id: None,
        };
        Entry { name: "n1".into(), uid: "u".into(), resource_version: "1".into(), value: Arc::new(value) }
    }

    fn patch(spec: Value, status: Value) -> SeenPatch {
        SeenPatch {
            owner: Some("u".into()),
            spec: serde_json::from_value(spec).unwrap(),
            status: serde_json::from_value(status).unwrap(),
        }
    }

    fn told(deadline: &str) -> Value {
        json!({"revision": 5, "policy": "p", "feed": "f", "rollBack": {"deadline": at(deadline)}})
    }

    fn lost(node: String) -> Moved {
        Moved { node, ready: Readiness::NotReady { since: at("12:00:00") }, answer: None }
    }

    fn says(reason: &str, state: NodeState) -> Moved {
        let answer = Answer { state, reason: reason.into(), message: "the kernel oopsed\u{1b}[1m".into() };
        Moved { node: "n1".into(), ready: Readiness::Ready, answer: Some(answer) }
    }

    #[test]
    fn only_nodes_that_this_rollout_told_to_move_and_that_have_not_settled_count() {
        let of = |spec: Value, status: Value| {
            Moved::of(&node(), &patch(spec, status), Some(&rollout())).map(|moved| moved.answer.is_some())
        };
        assert_eq!(of(told("12:10:00"), json!({"observedRevision": 5, "state": "Applied"})), Some(true));
        assert_eq!(of(told("12:10:00"), json!({"observedRevision": 5, "state": "Settled"})), None);
        // What it reported before says nothing of this instruction, not even that it has settled.
        assert_eq!(of(told("12:10:00"), json!({"observedRevision": 4, "state": "Settled"})), Some(false));
        assert_eq!(of(told("12:00:00"), json!({"observedRevision": 5, "state": "Applied"})), None);
        let hold = json!({"revision": 5, "hold": {}});
        assert_eq!(of(hold, json!({"observedRevision": 5, "state": "Failed"})), None);
        let complete = RolloutMemory { complete: true, ..rollout() };
        let patch = patch(told("12:10:00"), Value::Null);
        assert_eq!(Moved::of(&node(), &patch, Some(&complete)), None);
        assert_eq!(Moved::of(&node(), &patch, None), None);
    }

    #[test]
    fn a_node_that_is_not_ready_is_unknown_first_and_fails_the_gate_after_its_deadline() {
        let moved = lost("n1".to_owned());
        let (verdict, wake) = node_ready(std::slice::from_ref(&moved), DEADLINE, at("12:09:59"));
        assert!(matches!(verdict, GateVerdict::Unknown { message } if message.contains("n1 since")));
        assert_eq!(wake, Some(at("12:10:00")));
        let (verdict, wake) = node_ready(&[moved], DEADLINE, at("12:10:00"));
        assert!(matches!(verdict, GateVerdict::Failed { .. }));
        assert_eq!(wake, None);
        assert_eq!(node_ready(&[], DEADLINE, at("12:10:00")), (GateVerdict::Passed, None));
    }

    #[test]
    fn an_oops_a_lockup_and_a_warning_that_names_the_patch_fail() {
        for reason in HARM {
            let verdict =
                kernel_health(&[says("", NodeState::Applied), says(reason, NodeState::Failed)], &[]);
            let GateVerdict::Failed { message } = verdict else { panic!("{reason}: {verdict:?}") };
            assert_eq!(message, format!("n1: {reason}: the kernel oopsed [1m"));
        }
    }

    #[test]
    fn a_warning_of_who_knows_what_is_unknown() {
        assert!(matches!(
            kernel_health(&[says("KernelWarning", NodeState::Applied)], &[]),
            GateVerdict::Unknown { .. }
        ));
    }

    #[test]
    fn what_says_nothing_of_the_kernel_passes() {
        for reason in ["", "TransitionStuck", "BelowThreshold", "RebootedUnsettled"] {
            assert_eq!(
                kernel_health(&[says(reason, NodeState::Failed)], &[]),
                GateVerdict::Passed,
                "{reason}"
            );
        }
        assert_eq!(kernel_health(&[], &[]), GateVerdict::Passed);
    }

    #[test]
    fn a_message_names_a_few_nodes_and_counts_the_others() {
        let many: Vec<Moved> = (0..1000).map(|n| lost(format!("n{n}"))).collect();
        let (GateVerdict::Failed { message }, _) = node_ready(&many, DEADLINE, at("13:00:00")) else {
            panic!("it did not fail")
        };
        assert!(message.ends_with("and 995 more"), "{message}");
        assert!(message.len() < 400);
    }
}
