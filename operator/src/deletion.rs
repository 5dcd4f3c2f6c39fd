//! What becomes of a policy that is being deleted, and of its nodes.
//!
//! With `onDelete: RollBack` a finalizer keeps the policy until its patches are off. What is waited
//! for are the nodes that can be reached: one that is not Ready, does not answer what it was told,
//! or has a NodePatch that cannot be read, is given up after the node deadline, counted from the deletion and from its instruction,
//! whichever is later, and keeps what it runs. It is waited for again if it comes back meanwhile.
//! A person who does not want to wait changes `onDelete` to `Keep`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use invivo_api::{OnDelete, PatchPolicy};
use invivo_rollout::{Budget, Instruction, Node, OnFailure, Policy, Stage, Wish};
use invivo_terms::{Level, NodeState};
use jiff::Timestamp;

/// Keeps a policy until its patches are off.
pub const FINALIZER: &str = "invivo.dev/roll-back";

/// What is to be done about a policy, as far as its deletion goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    /// It is not being deleted. `guard` says whether the finalizer is to be put on or taken off.
    Alive {
        /// Put it on, take it off, or leave it.
        guard: Guard,
    },
    /// It is being deleted and nothing of ours keeps it: nothing is instructed any more.
    Leaving,
    /// Its nodes go down to no patch.
    RollingBack {
        /// Nodes that are waited for.
        waits: BTreeSet<String>,
        /// Nodes that are not: they are left out of the plan.
        given_up: BTreeSet<String>,
        /// When time alone changes that.
        wake: Option<Timestamp>,
    },
    /// The finalizer comes off, and nothing is instructed any more.
    Over {
        /// Nodes that were given up; they keep what they run.
        left: BTreeSet<String>,
    },
}

/// What becomes of the finalizer of a policy that is not being deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// It is as it should be.
    Leave,
    /// Put it on.
    PutOn,
    /// Take it off.
    TakeOff,
}

/// Decides at `now`; `nodes` are those that the policy governs, and those for which `is_deaf` can be told
/// nothing.
pub fn decide(
    policy: &PatchPolicy,
    nodes: &BTreeMap<String, Node>,
    is_deaf: impl Fn(&str) -> bool,
    now: Timestamp,
) -> Deletion {
    let finalizers = policy.metadata.finalizers.as_deref().unwrap_or_default();
    let guarded = finalizers.iter().any(|finalizer| finalizer == FINALIZER);
    let deleted = policy.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    match (deleted, guarded, policy.spec.on_delete) {
        (None, false, OnDelete::RollBack) => Deletion::Alive { guard: Guard::PutOn },
        (None, true, OnDelete::Keep) => Deletion::Alive { guard: Guard::TakeOff },
        (None, false, OnDelete::Keep) | (None, true, OnDelete::RollBack) => {
            Deletion::Alive { guard: Guard::Leave }
        }
        (Some(_), false, OnDelete::Keep | OnDelete::RollBack) => Deletion::Leaving,
        (Some(_), true, OnDelete::Keep) => Deletion::Over { left: BTreeSet::new() },
        (Some(deleted), true, OnDelete::RollBack) => {
            let patience = policy.spec.rollout.node_deadline.get();
            rolling_back(nodes, is_deaf, deleted, patience, now)
        }
    }
}

/// The policy to plan with while its nodes go down: its stages and their pace, and nothing to watch
/// or to wait for. A node that does not let its patch go stops none of the others.
pub fn plan_with(policy: &Policy) -> Policy {
    let hurry = |stage: &Stage| Stage { optional: true, soak: Duration::ZERO, ..stage.clone() };
    Policy {
        target: Wish::None,
        paused: false,
        dry_run: false,
        failure_budget: Budget::Percent(100),
        on_failure: OnFailure::Pause,
        windows: Vec::new(),
        blackouts: Vec::new(),
        expedite: None,
        stages: policy.stages.iter().map(hurry).collect(),
        rest: hurry(&policy.rest),
        ..policy.clone()
    }
}

/// How one node stands in a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// No patch is on it, and none is on its way.
    Off,
    /// It can be reached.
    Reachable,
    /// It cannot, and is waited for until then.
    Unreachable(Timestamp),
}

fn rolling_back(
    nodes: &BTreeMap<String, Node>,
    is_deaf: impl Fn(&str) -> bool,
    deleted: Timestamp,
    patience: Duration,
    now: Timestamp,
) -> Deletion {
    let (mut waits, mut given_up) = (BTreeSet::new(), BTreeSet::new());
    let mut wake: Option<Timestamp> = None;
    for (name, node) in nodes.iter().filter(|(_, node)| !node.claimed_by_other) {
        match part(node, is_deaf(name), deleted, patience, now) {
            Part::Off => {}
            Part::Unreachable(until) if until <= now => {
                given_up.insert(name.clone());
            }
            Part::Unreachable(until) => {
                wake = wake.into_iter().chain([until]).min();
                waits.insert(name.clone());
            }
            Part::Reachable => {
                waits.insert(name.clone());
            }
        }
    }
    if waits.is_empty() {
        Deletion::Over { left: given_up }
    } else {
        Deletion::RollingBack { waits, given_up, wake }
    }
}

fn part(node: &Node, is_deaf: bool, deleted: Timestamp, patience: Duration, now: Timestamp) -> Part {
    let told = node.spec.as_ref().and_then(|spec| match &spec.instruction {
        Instruction::Apply(apply) => Some((spec.revision, apply.deadline)),
        Instruction::RollBack { deadline, .. } => Some((spec.revision, *deadline)),
        Instruction::Hold => None,
    });
    let report = node.report.as_ref();
    let answered = told.is_none_or(|(revision, _)| report.is_some_and(|report| report.observed >= revision));
    // What never reported and was never told anything has nothing of ours.
    let bare = report.map_or(told.is_none(), |report| report.level == Level::UNPATCHED);
    if bare && answered && !is_deaf && !is_beginning(node, now) {
        return Part::Off;
    }
    if node.ready.is_ready() && answered && !is_deaf {
        return Part::Reachable;
    }
    let patient = deleted.checked_add(patience).unwrap_or(Timestamp::MAX);
    Part::Unreachable(told.map_or(patient, |(_, deadline)| patient.max(deadline)))
}

/// It is putting a patch on, or has seen that it shall; it begins nothing after the deadline.
fn is_beginning(node: &Node, now: Timestamp) -> bool {
    let Some(Instruction::Apply(apply)) = node.spec.as_ref().map(|spec| &spec.instruction) else {
        return false;
    };
    node.report.as_ref().is_some_and(|report| match report.state {
        NodeState::Working => true,
        NodeState::Idle => apply.deadline > now,
        NodeState::Applied
        | NodeState::Settled
        | NodeState::RolledBack
        | NodeState::Blocked
        | NodeState::Refused
        | NodeState::Failed
        | NodeState::Suspected
        | NodeState::Convicted => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use invivo_rollout::{Apply, Instructed, Readiness, Report};
    use invivo_terms::{Mechanism, Revision};
    use serde_json::{Value, json};

    const LOST: Readiness = Readiness::NotReady { since: Timestamp::UNIX_EPOCH };

    fn at(time: &str) -> Timestamp {
        format!("2026-11-22T{time}Z").parse().unwrap()
    }

    fn policy(on_delete: &str, metadata: &Value) -> PatchPolicy {
        let mut policy = json!({"metadata": metadata, "spec": {"feed": "f", "onDelete": on_delete}});
        policy["metadata"]["name"] = json!("workers");
        serde_json::from_value(policy).unwrap()
    }

    fn dying() -> PatchPolicy {
        policy("RollBack", &json!({"deletionTimestamp": at("12:00:00"), "finalizers": [FINALIZER]}))
    }

    fn report(level: u32, observed: i64, state: NodeState) -> Report {
        Report {
            observed: Revision(observed),
            build_id: "b".repeat(40).parse().unwrap(),
            level: Level(level),
            set: None,
            state,
            excuse: None,
            since: at("11:00:00"),
            why: None,
        }
    }

    /// A node that was told something in its fifth revision.
    fn node(instruction: Instruction, report: Option<Report>) -> Node {
        let spec = Some(Instructed { revision: Revision(5), instruction, by_other: false });
        Node {
            stage: 0,
            ready: Readiness::Ready,
            cordoned: false,
            held: None,
            domains: BTreeMap::new(),
            claimed_by_other: false,
            spec,
            report,
        }
    }

    fn down(deadline: &str) -> Instruction {
        Instruction::RollBack { to: (Level::UNPATCHED, None), deadline: at(deadline), attempt: 1 }
    }

    fn up(deadline: &str) -> Instruction {
        let digest = "d".repeat(64);
        Instruction::Apply(Apply {
            build_id: "b".repeat(40).parse().unwrap(),
            level: Level(4),
            set: "2026-11-21.1".parse().unwrap(),
            digest: digest.parse().unwrap(),
            manifest: digest.parse().unwrap(),
            mechanism: Mechanism::Livepatch,
            deadline: at(deadline),
            settle_after: Duration::ZERO,
            allow_partial: false,
            from: (Level::UNPATCHED, None),
            attempt: 1,
        })
    }

    fn decided(node: &Node, now: &str) -> &'static str {
        let nodes = BTreeMap::from([("n1".to_owned(), node.clone())]);
        match decide(&dying(), &nodes, |_| false, at(now)) {
            Deletion::RollingBack { waits, given_up, .. } => {
                assert!(waits.contains("n1") && given_up.is_empty());
                "waits"
            }
            Deletion::Over { left } if left.is_empty() => "off",
            Deletion::Over { .. } => "given up",
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_finalizer_stands_exactly_where_patches_are_to_come_off() {
        let guard = |on_delete: &str, finalizers: &[&str]| {
            let policy = policy(on_delete, &json!({"finalizers": finalizers}));
            match decide(&policy, &BTreeMap::new(), |_| false, at("12:00:00")) {
                Deletion::Alive { guard } => guard,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(guard("Keep", &[]), Guard::Leave);
        assert_eq!(guard("RollBack", &["example.com/other"]), Guard::PutOn);
        assert_eq!(guard("RollBack", &[FINALIZER]), Guard::Leave);
        assert_eq!(guard("Keep", &[FINALIZER]), Guard::TakeOff);
    }

    #[test]
    fn a_deletion_that_keeps_the_patches_waits_for_nothing() {
        let nodes = BTreeMap::from([(
            "n1".to_owned(),
            node(Instruction::Hold, Some(report(4, 5, NodeState::Settled))),
        )]);
        let deleted = json!({"deletionTimestamp": at("12:00:00")});
        assert_eq!(decide(&policy("Keep", &deleted), &nodes, |_| false, at("12:00:01")), Deletion::Leaving);
        // Others keep it; it was never guarded, or is not any more.
        assert_eq!(
            decide(&policy("RollBack", &deleted), &nodes, |_| false, at("12:00:01")),
            Deletion::Leaving
        );
        let changed =
            policy("Keep", &json!({"deletionTimestamp": at("12:00:00"), "finalizers": [FINALIZER]}));
        assert_eq!(
            decide(&changed, &nodes, |_| false, at("12:00:01")),
            Deletion::Over { left: BTreeSet::new() }
        );
    }

    #[test]
    fn a_node_that_can_be_reached_is_waited_for_however_long_it_takes() {
        for (instruction, state) in [
            (Instruction::Hold, NodeState::Settled),
            (down("12:10:00"), NodeState::Blocked),
            (down("12:10:00"), NodeState::Failed),
            (down("12:10:00"), NodeState::Working),
        ] {
            assert_eq!(
                decided(&node(instruction, Some(report(4, 5, state))), "23:00:00"),
                "waits",
                "{state}"
            );
        }
    }

    #[test]
    fn a_node_without_a_patch_is_done_whether_it_is_ready_or_not() {
        let off = node(down("12:10:00"), Some(report(0, 5, NodeState::RolledBack)));
        assert_eq!(decided(&off, "12:00:01"), "off");
        assert_eq!(decided(&Node { ready: LOST, ..off }, "12:00:01"), "off");
        assert_eq!(decided(&node(Instruction::Hold, None), "12:00:01"), "off");
        assert_eq!(decided(&Node { spec: None, ..node(Instruction::Hold, None) }, "12:00:01"), "off");
        let others = Node {
            claimed_by_other: true,
            ..node(Instruction::Hold, Some(report(4, 5, NodeState::Settled)))
        };
        assert_eq!(decided(&others, "12:00:01"), "off");
    }

    #[test]
    fn a_node_that_may_still_put_a_patch_on_is_waited_for() {
        let unanswered = node(up("12:05:00"), Some(report(0, 4, NodeState::Idle)));
        assert_eq!(decided(&unanswered, "12:04:59"), "waits");
        let seen = node(up("12:05:00"), Some(report(0, 5, NodeState::Idle)));
        assert_eq!(decided(&seen, "12:04:59"), "waits");
        assert_eq!(decided(&seen, "12:05:00"), "off", "it begins nothing any more");
        let working = node(up("12:05:00"), Some(report(0, 5, NodeState::Working)));
        assert_eq!(decided(&working, "12:05:00"), "waits");
        let failed = node(up("12:05:00"), Some(report(0, 5, NodeState::Failed)));
        assert_eq!(decided(&failed, "12:04:59"), "off");
    }

    #[test]
    fn a_node_that_is_not_ready_is_given_up_after_the_node_deadline() {
        let node = Node { ready: LOST, ..node(Instruction::Hold, Some(report(4, 5, NodeState::Settled))) };
        assert_eq!(decided(&node, "12:09:59"), "waits");
        assert_eq!(decided(&node, "12:10:00"), "given up");
        let nodes = BTreeMap::from([("n1".to_owned(), node)]);
        let Deletion::RollingBack { wake, .. } = decide(&dying(), &nodes, |_| false, at("12:00:01")) else {
            panic!("it does not wait")
        };
        assert_eq!(wake, Some(at("12:10:00")));
    }

    #[test]
    fn a_node_that_does_not_answer_is_given_up_after_its_own_deadline() {
        let silent = node(down("12:15:00"), Some(report(4, 4, NodeState::Settled)));
        assert_eq!(decided(&silent, "12:14:59"), "waits");
        assert_eq!(decided(&silent, "12:15:00"), "given up");
        // It never answered its last rollout either; nobody can tell it anything.
        let older = node(down("11:00:00"), Some(report(4, 4, NodeState::Settled)));
        assert_eq!(decided(&older, "12:09:59"), "waits");
        assert_eq!(decided(&older, "12:10:00"), "given up");
        // Nor did one that never said a word.
        assert_eq!(decided(&node(down("11:00:00"), None), "12:10:00"), "given up");
    }

    #[test]
    fn one_that_was_given_up_does_not_free_the_others() {
        let lost = Node { ready: LOST, ..node(Instruction::Hold, Some(report(4, 5, NodeState::Settled))) };
        let well = node(Instruction::Hold, Some(report(4, 5, NodeState::Settled)));
        let nodes = BTreeMap::from([("lost".to_owned(), lost), ("well".to_owned(), well)]);
        let names = |name: &str| BTreeSet::from([name.to_owned()]);
        let wanted = Deletion::RollingBack { waits: names("well"), given_up: names("lost"), wake: None };
        assert_eq!(decide(&dying(), &nodes, |_| false, at("12:10:00")), wanted);
    }

    #[test]
    fn a_node_that_can_be_told_nothing_is_given_up_after_the_node_deadline() {
        for known in
            [node(Instruction::Hold, Some(report(4, 5, NodeState::Settled))), node(Instruction::Hold, None)]
        {
            let nodes = BTreeMap::from([("n1".to_owned(), known)]);
            let decided = |now: &str| decide(&dying(), &nodes, |node| node == "n1", at(now));
            assert!(matches!(decided("12:09:59"), Deletion::RollingBack { .. }));
            assert_eq!(decided("12:10:00"), Deletion::Over { left: BTreeSet::from(["n1".to_owned()]) });
        }
    }
}
