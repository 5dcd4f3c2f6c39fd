//! The rollout's memory: when another one begins, and what is counted.
//!
//! `started` is raised in the store before a wave is written. The caller lowers it again by what it
//! knows was never written, in the same way; a leader that does nothing any more leaves slots that
//! nobody fills. An agent begins nothing after its deadline: once the
//! latest deadline given is past, whatever is not seen moving is written off as finished. This is
//! the one thing that rests on the caller's view being younger than the node deadline (at least 30
//! seconds, by default 10 minutes); nothing else does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use invivo_terms::{Hold, Mechanism};
use jiff::Timestamp;

use crate::answer;
use crate::stage::after;
use crate::standing::{self, Judged, Standing};
use crate::target::Key;
use crate::{
    Budget, EVIDENCE, EVIDENCE_AFTERWARDS, EVIDENCE_BYTES, Evidence, Finished, HISTORY, Node, Outcome,
    Policy, RolloutMemory,
};

/// Whether a rollout is the one for this target.
pub(crate) fn is_for(rollout: &RolloutMemory, target: &Key, mechanism: Mechanism) -> bool {
    rollout.target == target.0 && rollout.mechanism == mechanism
}

/// The rollout for this target: the one under way, or the next one.
///
/// What a node was told by a policy of this name that has been deleted since is not in the memory of
/// the one made anew: the next rollout begins after all deadlines that are seen.
pub(crate) fn current(
    known: Option<&RolloutMemory>,
    target: Key,
    mechanism: Mechanism,
    nodes: &BTreeMap<String, Node>,
    now: Timestamp,
) -> RolloutMemory {
    match known {
        Some(known) if is_for(known, &target, mechanism) => known.clone(),
        Some(_) | None => RolloutMemory {
            number: known.map_or(0, |known| known.number).saturating_add(1),
            since: now,
            from: known.and_then(|known| known.target.as_ref()).map(|(set, _)| set.clone()),
            target: target.0,
            mechanism,
            started: 0,
            finished: 0,
            failed: 0,
            stage: 0,
            stage_since: now,
            soak_until: None,
            cuts: Vec::new(),
            complete: false,
            returning: false,
            evidence: Vec::new(),
            before: known
                .and_then(|known| known.deadline.max(known.before))
                .max(latest(nodes))
                .max(Some(now)),
            deadline: None,
        },
    }
}

/// The latest deadline that nodes have from a policy of this name.
fn latest(nodes: &BTreeMap<String, Node>) -> Option<Timestamp> {
    let told = nodes.values().filter_map(|node| node.spec.as_ref()).filter(|spec| !spec.by_other);
    told.filter_map(|spec| answer::deadline(&spec.instruction)).max()
}

/// Whether another target must wait for the rollout under way: some of what it started is not known
/// to have ended, and its deadlines are not past.
///
/// Were it forgotten at once, an operator with an old view would not know of what it started and
/// might start as many again.
pub(crate) fn is_draining(known: &RolloutMemory, nodes: &BTreeMap<String, Node>, now: Timestamp) -> bool {
    known.started > counted(known, nodes, now).finished && known.deadline > Some(now)
}

/// The rollout with its counters brought up to what is seen, where nothing is decided about its nodes.
/// What it has in flight counts towards the fleet's limit all the same.
pub(crate) fn counted(
    known: &RolloutMemory,
    nodes: &BTreeMap<String, Node>,
    now: Timestamp,
) -> RolloutMemory {
    let ended = sum(nodes.values().map(|node| standing::finished(node, known, now)));
    let open = sum(nodes.values().map(|node| standing::open(node, known, now)));
    let lapsed = known.deadline.is_some_and(|deadline| deadline <= now);
    let over = if lapsed { known.started.saturating_sub(open) } else { 0 };
    let finished = known.finished.max(ended.min(known.started)).max(over);
    RolloutMemory { finished, ..known.clone() }
}

/// Brings the counters up to what is seen. Here they never fall within one rollout.
///
/// What counts is attempts, not nodes: each instruction says which attempt it is, so a node that is
/// tried again is seen to have ended the ones before, and a view from before the last one sees one
/// less than was started.
pub(crate) fn count(
    rollout: &mut RolloutMemory,
    judged: &[Judged<'_>],
    vanished: &BTreeSet<String>,
    now: Timestamp,
) {
    let number =
        |wanted: fn(&Judged<'_>) -> bool| saturate(judged.iter().filter(|node| wanted(node)).count());
    let open = number(|node| node.open);
    rollout.started = rollout.started.max(sum(judged.iter().map(|node| node.attempts)));
    rollout.finished = rollout.finished.max(sum(judged.iter().map(Judged::finished)));
    count_failed(rollout, judged, vanished, now);
    if rollout.deadline.is_none_or(|deadline| deadline <= now) {
        rollout.finished = rollout.finished.max(rollout.started.saturating_sub(open));
    }
}

/// The nodes that failed, each with its word. What was written down of one stays.
pub(crate) fn count_failed(
    rollout: &mut RolloutMemory,
    judged: &[Judged<'_>],
    vanished: &BTreeSet<String>,
    now: Timestamp,
) {
    let failed = judged.iter().filter_map(|node| match node.standing {
        Standing::Failed(hold) => Some((node.name, words(node, hold))),
        Standing::Claimed
        | Standing::Moving { .. }
        | Standing::Midway
        | Standing::Done { .. }
        | Standing::Unsteady
        | Standing::Resting(..)
        | Standing::Excused(_)
        | Standing::Absent(_)
        | Standing::Pending(_) => None,
    });
    let gone = vanished.iter().map(|name| (name.as_str(), "vanished before it had settled".to_owned()));
    let failed: BTreeMap<&str, String> = gone.chain(failed).collect();
    let known =
        rollout.evidence.iter().filter(|known| !known.gate && !failed.contains_key(known.who.as_str()));
    let number = saturate(failed.len().saturating_add(known.count()));
    rollout.failed = rollout.failed.max(number);
    for (who, what) in failed {
        note(rollout, who, false, &what, now);
    }
}

/// What a failed node says, or what is said of it.
fn words(node: &Judged<'_>, hold: Hold) -> String {
    let lost = hold == Hold::NodeNotReady;
    let said = node.report.filter(|_| !lost).map(|report| match &report.why {
        Some(why) => format!("{}: {why}", report.state),
        None => report.state.to_string(),
    });
    said.unwrap_or_else(|| "not Ready since before it had settled".to_owned())
}

/// Keeps a piece of evidence, once for each node or gate.
pub(crate) fn note(rollout: &mut RolloutMemory, who: &str, gate: bool, what: &str, now: Timestamp) {
    if rollout.evidence.len() < EVIDENCE && !rollout.evidence.iter().any(|known| known.who == who) {
        let mut what = what.to_owned();
        what.truncate(what.floor_char_boundary(EVIDENCE_BYTES));
        rollout.evidence.push(Evidence { who: who.to_owned(), gate, at: now, what });
    }
}

/// How many nodes are this policy's.
pub(crate) fn governed(nodes: &BTreeMap<String, Node>) -> usize {
    nodes.values().filter(|node| !node.claimed_by_other).count()
}

/// How many nodes may fail.
pub(crate) fn budget(policy: &Policy, nodes: usize) -> u32 {
    match policy.failure_budget {
        Budget::Nodes(nodes) => nodes,
        Budget::Percent(percent) => {
            let share = u64::from(saturate(nodes)) * u64::from(percent.min(100)) / 100;
            u32::try_from(share).unwrap_or(u32::MAX)
        }
    }
}

/// What is remembered of a rollout that is over.
pub(crate) fn finished(rollout: &RolloutMemory, outcome: Outcome, now: Timestamp) -> Finished {
    Finished {
        number: rollout.number,
        from: rollout.from.clone(),
        to: rollout.target.as_ref().map(|(set, _)| set.clone()),
        outcome,
        started: rollout.started,
        failed: rollout.failed,
        since: rollout.since,
        ended: now,
        evidence: rollout.evidence.iter().take(EVIDENCE_AFTERWARDS).cloned().collect(),
    }
}

/// Adds to what is remembered, and forgets the oldest.
pub(crate) fn remember(history: &mut Vec<Finished>, finished: Finished) {
    if history.iter().any(|known| known.number == finished.number) {
        return;
    }
    history.push(finished);
    let over = history.len().saturating_sub(HISTORY);
    history.drain(..over);
}

/// The deadline of an instruction given now: later than every one of the rollouts before, since
/// that is how the instructions of a rollout are told from earlier ones.
pub(crate) fn deadline(
    policy: &Policy,
    rollout: &RolloutMemory,
    closes: Option<Timestamp>,
    now: Timestamp,
) -> Timestamp {
    let asked = closes.into_iter().chain([after(now, policy.node_deadline)]).min().unwrap_or(now);
    rollout.before.map_or(asked, |before| asked.max(after(before, Duration::from_secs(1))))
}

/// Whether attempts were started that are not among those seen here to move or to have ended, and
/// their deadlines are not past.
///
/// The memory's `finished` does not tell: an old view can show as moving what another operator saw
/// end, and would take it for what that one has started since.
pub(crate) fn has_unseen(rollout: &RolloutMemory, judged: &[Judged<'_>], now: Timestamp) -> bool {
    let open = saturate(judged.iter().filter(|node| node.open).count());
    let seen = sum(judged.iter().map(Judged::finished)).saturating_add(open);
    rollout.started > seen && rollout.deadline > Some(now)
}

pub(crate) fn sum(numbers: impl Iterator<Item = u32>) -> u32 {
    numbers.fold(0, u32::saturating_add)
}

pub(crate) fn saturate(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
