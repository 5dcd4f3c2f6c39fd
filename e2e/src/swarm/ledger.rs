//! What was written, read from the API server's audit log and put into the order in which it took
//! effect: the versions that etcd gave.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::Value;

use crate::audit::Event;
use crate::product::OPERATOR;

/// One write that counts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) version: u64,
    pub(super) name: String,
    /// When the API server received it.
    pub(super) received: Timestamp,
    /// When it had answered.
    pub(super) answered: Timestamp,
    pub(super) deed: Deed,
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Deed {
    /// The operator told a node to move to this set.
    Instructed { revision: u64, set: String },
    /// The operator told a node to take everything off.
    TakenBack { revision: u64 },
    /// A node's agent said something.
    Reported { observed: u64, state: String },
    /// The operator wrote a policy's status.
    Policy(Plan),
    /// The operator wrote a set's status.
    Set,
    /// The operator wrote a feed's status.
    Feed,
}

/// What a policy's status says of its rollout.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) stage: u64,
    pub(super) started: u64,
    pub(super) complete: bool,
    /// All that decides anything later: not counts, holds, conditions and words for people.
    decided: Value,
}

/// The writes, by version.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    lines: Vec<Line>,
    /// How often the operator wrote a node's labels.
    pub(super) labels: BTreeMap<String, u32>,
}

/// A moment right after an instruction took effect.
pub(super) struct Moment<'a> {
    /// The stage that the rollout was in.
    pub(super) stage: u64,
    /// The node that was instructed.
    pub(super) node: &'a str,
    /// The nodes that had been instructed and had not reported.
    pub(super) in_flight: &'a BTreeSet<&'a str>,
}

/// How often a policy's status was written, and why.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PolicyWrites {
    /// A wave was counted.
    pub(super) waves: u32,
    /// Something was decided, and nobody started.
    pub(super) decisions: u32,
    /// Nothing but what people read.
    pub(super) shown: u32,
    /// The shortest time from any write to one that only shows.
    pub(super) least: Option<Duration>,
}

impl Ledger {
    /// What these events wrote.
    pub(super) fn of(events: &[Event]) -> Self {
        let mut ledger = Self::default();
        for event in events {
            let counts = event.writes() && event.granted() && !event.request_uri.contains("dryRun");
            if !counts {
                continue;
            }
            let ours = event.user.username.ends_with(OPERATOR);
            if ours && event.concerns("nodes") {
                *ledger.labels.entry(event.name().to_owned()).or_default() += 1;
            } else if let Some(deed) = deed(event, ours) {
                let version = event.response_object.pointer("/metadata/resourceVersion");
                ledger.lines.push(Line {
                    version: version.and_then(Value::as_str).and_then(|v| v.parse().ok()).unwrap_or_default(),
                    name: event.name().to_owned(),
                    received: event.request_received_timestamp,
                    answered: event.stage_timestamp,
                    deed,
                });
            }
        }
        ledger.lines.sort_by_key(|line| line.version);
        ledger
    }

    /// The instructions that move, in order.
    pub(super) fn instructions(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| matches!(line.deed, Deed::Instructed { .. }))
    }

    /// The instructions to take everything off, in order.
    pub(super) fn taken_back(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| matches!(line.deed, Deed::TakenBack { .. }))
    }

    /// The nodes that were told to move to this set, in order.
    pub(super) fn told(&self, wanted: &str) -> Vec<&str> {
        self.lines
            .iter()
            .filter(|line| matches!(&line.deed, Deed::Instructed { set, .. } if set == wanted))
            .map(|line| line.name.as_str())
            .collect()
    }

    /// The most nodes that were on their way at once: told, and not answered yet.
    pub(super) fn most_at_once(&self) -> usize {
        let mut told: BTreeMap<&str, u64> = BTreeMap::new();
        let mut most = 0;
        for line in &self.lines {
            match &line.deed {
                Deed::Instructed { revision, .. } | Deed::TakenBack { revision } => {
                    told.insert(&line.name, *revision);
                    most = most.max(told.len());
                }
                Deed::Reported { observed, .. } => {
                    if told.get(line.name.as_str()).is_some_and(|revision| observed >= revision) {
                        told.remove(line.name.as_str());
                    }
                }
                Deed::Policy(_) | Deed::Set | Deed::Feed => {}
            }
        }
        most
    }

    /// The agents' words, in order.
    pub(super) fn reports(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| matches!(line.deed, Deed::Reported { .. }))
    }

    /// How many lines there are of each name among these.
    pub(super) fn count<'a>(lines: impl Iterator<Item = &'a Line>) -> BTreeMap<&'a str, u32> {
        let mut counts = BTreeMap::new();
        for line in lines {
            *counts.entry(line.name.as_str()).or_default() += 1;
        }
        counts
    }

    /// How many writes of sets' and of feeds' statuses there are.
    pub(super) fn others(&self) -> (usize, usize) {
        let count = |deed: &Deed| self.lines.iter().filter(|line| line.deed == *deed).count();
        (count(&Deed::Set), count(&Deed::Feed))
    }

    /// From the moment in which the first instruction was received to the one in which the last
    /// report was answered.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn span(&self) -> anyhow::Result<Duration> {
        let from = self.instructions().map(|line| line.received).min().context("no instruction")?;
        let to = self.reports().map(|line| line.answered).max().context("no report")?;
        Ok(to.duration_since(from).unsigned_abs())
    }

    /// Looks at each moment right after an instruction.
    ///
    /// # Errors
    /// The look's own.
    pub(super) fn replay(
        &self,
        mut look: impl FnMut(&Moment<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut stage = 0;
        let mut told: BTreeMap<&str, u64> = BTreeMap::new();
        let mut in_flight: BTreeSet<&str> = BTreeSet::new();
        for line in &self.lines {
            match &line.deed {
                Deed::Policy(plan) => stage = plan.stage,
                Deed::Instructed { revision, .. } => {
                    told.insert(&line.name, *revision);
                    in_flight.insert(&line.name);
                    look(&Moment { stage, node: &line.name, in_flight: &in_flight })?;
                }
                Deed::Reported { observed, .. } => {
                    if told.get(line.name.as_str()).is_some_and(|revision| observed >= revision) {
                        in_flight.remove(line.name.as_str());
                    }
                }
                Deed::TakenBack { .. } | Deed::Set | Deed::Feed => {}
            }
        }
        Ok(())
    }

    /// For each stage but the first, and for the end: how long after the last report before it was
    /// decided that the rollout goes on.
    pub(super) fn decisions(&self) -> Vec<(u64, Duration)> {
        let mut decisions = Vec::new();
        let mut before: Option<&Plan> = None;
        let mut last: Option<Timestamp> = None;
        for line in &self.lines {
            match &line.deed {
                Deed::Reported { state, .. } if state == "Applied" => last = Some(line.answered),
                Deed::Policy(plan) => {
                    let further =
                        before.is_some_and(|b| plan.stage > b.stage || (plan.complete && !b.complete));
                    if let (true, Some(last)) = (further, last) {
                        let took = Duration::try_from(line.received.duration_since(last));
                        decisions.push((plan.stage, took.unwrap_or_default()));
                    }
                    before = Some(plan);
                }
                Deed::Reported { .. }
                | Deed::Instructed { .. }
                | Deed::TakenBack { .. }
                | Deed::Set
                | Deed::Feed => {}
            }
        }
        decisions
    }

    /// How often the policy's status was written, and why.
    pub(super) fn policy_writes(&self) -> PolicyWrites {
        let mut writes = PolicyWrites::default();
        let mut before: Option<(&Plan, Timestamp)> = None;
        for line in &self.lines {
            let Deed::Policy(plan) = &line.deed else { continue };
            match before {
                Some((old, at)) if old.started == plan.started && old.decided == plan.decided => {
                    writes.shown += 1;
                    let after = Duration::try_from(line.received.duration_since(at)).unwrap_or_default();
                    writes.least = Some(writes.least.map_or(after, |least| least.min(after)));
                }
                Some((old, _)) if old.started == plan.started => writes.decisions += 1,
                Some(_) => writes.waves += 1,
                None => writes.decisions += 1,
            }
            before = Some((plan, line.received));
        }
        writes
    }
}

fn deed(event: &Event, ours: bool) -> Option<Deed> {
    let number = |path: &str| event.response_object.pointer(path).and_then(Value::as_u64);
    if ours && event.concerns("nodepatches") {
        let part = |path: &str| event.response_object.pointer(path).filter(|part| part.is_object());
        let revision = number("/spec/revision")?;
        return match (part("/spec/apply"), part("/spec/rollBack")) {
            (Some(apply), _) => {
                let set = apply.get("set").and_then(Value::as_str).unwrap_or_default().to_owned();
                Some(Deed::Instructed { revision, set })
            }
            (None, Some(_)) => Some(Deed::TakenBack { revision }),
            (None, None) => None,
        };
    }
    if event.concerns("nodepatches/status") {
        let state = event.response_object.pointer("/status/state").and_then(Value::as_str)?;
        let observed = number("/status/observedRevision").unwrap_or_default();
        return Some(Deed::Reported { observed, state: state.to_owned() });
    }
    if ours && event.concerns("patchpolicies/status") {
        return Some(Deed::Policy(plan(event.response_object.get("status")?)));
    }
    if ours && event.concerns("patchsets/status") {
        return Some(Deed::Set);
    }
    (ours && event.concerns("patchfeeds/status")).then_some(Deed::Feed)
}

fn plan(status: &Value) -> Plan {
    let number = |path: &str| status.pointer(path).and_then(Value::as_u64).unwrap_or_default();
    let without = |path: &str, left_out: &[&str]| {
        let mut part = status.pointer(path).cloned().unwrap_or_default();
        if let Some(fields) = part.as_object_mut() {
            fields.retain(|name, _| !left_out.contains(&name.as_str()));
        }
        part
    };
    let verdicts = status.get("gates").and_then(Value::as_array).into_iter().flatten();
    let verdicts: Vec<_> = verdicts.map(|gate| gate.get("verdict").cloned().unwrap_or_default()).collect();
    let decided = serde_json::json!([
        without("/rollout", &["started", "finished", "deadline"]),
        without("/stage", &["nodes"]),
        status.get("proven"),
        status.get("history"),
        status.get("observedGeneration"),
        verdicts,
    ]);
    Plan {
        stage: number("/stage/index"),
        started: number("/rollout/started"),
        complete: status.pointer("/rollout/complete").and_then(Value::as_bool).unwrap_or_default(),
        decided,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    fn line(version: u64, name: &str, millis: i64, deed: Deed) -> Line {
        Line { version, name: name.to_owned(), received: at(millis), answered: at(millis + 5), deed }
    }

    fn status(stage: u64, started: u64, finished: u64, complete: bool) -> Deed {
        Deed::Policy(plan(&json!({
            "stage": {"index": stage, "nodes": {"done": finished}},
            "rollout": {"started": started, "finished": finished, "complete": complete},
        })))
    }

    fn applied(observed: u64) -> Deed {
        Deed::Reported { observed, state: "Applied".to_owned() }
    }

    fn two_stages() -> Ledger {
        let told = || Deed::Instructed { revision: 2, set: "2026-11-21.1".to_owned() };
        let lines = vec![
            line(1, "p", 0, status(0, 1, 0, false)),
            line(2, "a", 10, told()),
            line(3, "a", 20, applied(1)),
            line(4, "a", 30, applied(2)),
            line(5, "p", 100, status(0, 1, 1, false)),
            line(6, "p", 135, status(1, 3, 1, false)),
            line(7, "b", 140, told()),
            line(8, "c", 141, told()),
            line(9, "b", 150, applied(2)),
            line(10, "c", 160, applied(2)),
            line(11, "p", 265, status(1, 3, 3, true)),
        ];
        Ledger { lines, labels: BTreeMap::new() }
    }

    #[test]
    fn a_node_is_in_flight_until_it_answers_that_very_instruction() {
        let mut seen = Vec::new();
        let look = |moment: &Moment<'_>| {
            seen.push((moment.stage, moment.node.to_owned(), moment.in_flight.len()));
            Ok(())
        };
        two_stages().replay(look).unwrap();
        assert_eq!(seen, [(0, "a".to_owned(), 1), (1, "b".to_owned(), 1), (1, "c".to_owned(), 2)]);
    }

    #[test]
    fn a_decision_is_counted_from_the_last_report_before_it() {
        let millis = two_stages().decisions().into_iter().map(|(stage, took)| (stage, took.as_millis()));
        assert_eq!(millis.collect::<Vec<_>>(), [(1, 100), (1, 100)]);
    }

    #[test]
    fn a_write_that_only_shows_is_told_from_one_that_decides_or_counts_a_wave() {
        let writes = two_stages().policy_writes();
        let expected =
            PolicyWrites { waves: 1, decisions: 2, shown: 1, least: Some(Duration::from_millis(100)) };
        assert_eq!(writes, expected);
    }

    #[test]
    fn the_span_goes_from_the_first_instruction_to_the_last_answer() {
        assert_eq!(two_stages().span().unwrap(), Duration::from_millis(155));
    }
}
