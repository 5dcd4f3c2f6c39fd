//! What happens to one node.

use std::time::Duration;

use invivo_terms::{Excuse, Level, NodeState};
use jiff::Timestamp;

use super::cluster::{Cluster, deadline, fresh, is_open};
use super::event::Event;
use crate::{HeldByPerson, Instruction, Node, Readiness, Report};

pub(super) fn handle(cluster: &mut Cluster, name: &str, event: Event) {
    let now = cluster.now;
    let Some(member) = cluster.nodes.get_mut(name) else { return };
    let node = &mut member.node;
    let can_answer = is_open(node) && node.ready.is_ready();
    match event {
        Event::Act(_) if can_answer => {
            act(node, now);
            ended(cluster, name);
        }
        Event::Fail(_, how) if can_answer && deadline(node) > Some(now) => {
            let state = [NodeState::Failed, NodeState::Refused, NodeState::Convicted][usize::from(how % 3)];
            end(node, state, None);
            failed(cluster, name);
            ended(cluster, name);
        }
        Event::Miss(_, blocked) if can_answer => {
            if blocked {
                end(node, NodeState::Blocked, Some(Excuse::Blocked));
            } else {
                end(node, NodeState::Failed, Some(Excuse::NotTried));
            }
            ended(cluster, name);
        }
        Event::Settle(_) => {
            if let Some(report) = node.report.as_mut().filter(|report| report.state == NodeState::Applied) {
                report.state = NodeState::Settled;
            }
        }
        Event::Boot(_) => boot(node, now),
        Event::Ready(_, ready) => match (ready, node.ready) {
            (true, Readiness::NotReady { .. }) => node.ready = Readiness::Ready,
            (false, Readiness::Ready) => {
                node.ready = Readiness::NotReady { since: now };
                // It may come to count as lost, which is another end than its own word.
                for moved in cluster.parts.iter_mut().filter_map(|part| part.moved.get_mut(name)) {
                    moved.may_be_lost = true;
                }
            }
            (true, Readiness::Ready) | (false, Readiness::NotReady { .. }) => {}
        },
        Event::Leave(_) => cluster.vanish(name),
        Event::Replace(_) => {
            let mut member = member.clone();
            // What was meant for the old node is refused.
            let revision = member.node.spec.as_ref().map(|spec| spec.revision.next());
            member.node = fresh(now, member.node.stage, 1, 0);
            if let (Some(spec), Some(report), Some(next)) =
                (&mut member.node.spec, &mut member.node.report, revision)
            {
                (spec.revision, report.observed) = (next, next);
            }
            cluster.vanish(name);
            cluster.nodes.insert(name.to_owned(), member);
        }
        Event::Claim(_, policy) => {
            let before = std::mem::replace(&mut member.owner, policy);
            if before != policy {
                cluster.parts[before].moved.remove(name);
            }
        }
        Event::Hold(_, until) => {
            let until = until.map(|seconds| now + Duration::from_secs(seconds));
            node.held = if node.held.is_some() { None } else { Some(HeldByPerson { until }) };
        }
        Event::Cordon(_, on) => node.cordoned = on,
        Event::Act(_)
        | Event::Fail(..)
        | Event::Miss(..)
        | Event::Pass(_)
        | Event::Join(..)
        | Event::Refresh(_)
        | Event::Decide { .. }
        | Event::Aim(..)
        | Event::Feed(_)
        | Event::Brake(..)
        | Event::EmergencyStop(_)
        | Event::Gate(..)
        | Event::Window(..)
        | Event::Blackout(..)
        | Event::Expedite(..) => {}
    }
}

/// A node obeys; after the deadline it says that it has seen the instruction and does nothing.
fn act(node: &mut Node, now: Timestamp) {
    let in_time = deadline(node) > Some(now);
    let spec = node.spec.clone().unwrap();
    let report = node.report.as_mut().unwrap();
    (report.observed, report.excuse) = (spec.revision, None);
    match spec.instruction {
        Instruction::Apply(apply) if in_time => {
            assert_eq!(apply.build_id, report.build_id);
            assert!(apply.level >= report.level, "a load lowers a node");
            (report.level, report.set, report.state, report.since) =
                (apply.level, Some(apply.set), NodeState::Applied, now);
        }
        Instruction::RollBack { .. } if in_time => unload(report, NodeState::RolledBack, now),
        Instruction::Apply(_) | Instruction::RollBack { .. } | Instruction::Hold => {
            if report.state.is_failure() {
                report.state = NodeState::Idle;
            }
        }
    }
}

/// The patch is gone; where it had not settled, that is remembered against it. The journal keeps how the
/// last instruction failed.
fn boot(node: &mut Node, now: Timestamp) {
    let open = is_open(node);
    let Some(report) = &mut node.report else { return };
    if report.state == NodeState::Applied && !open {
        unload(report, NodeState::Suspected, now);
        report.excuse = Some(Excuse::Lost);
    } else if report.state.is_failure() {
        unload(report, report.state, now);
    } else {
        unload(report, NodeState::Idle, now);
        report.excuse = None;
    }
}

fn unload(report: &mut Report, state: NodeState, now: Timestamp) {
    (report.level, report.set, report.state, report.since) = (Level(0), None, state, now);
}

fn end(node: &mut Node, state: NodeState, excuse: Option<Excuse>) {
    let revision = node.spec.as_ref().unwrap().revision;
    let report = node.report.as_mut().unwrap();
    (report.observed, report.state, report.excuse) = (revision, state, excuse);
}

fn ended(cluster: &mut Cluster, name: &str) {
    let now = cluster.now;
    for part in &mut cluster.parts {
        if let Some(moved) = part.moved.get_mut(name) {
            moved.ended = Some(now);
        }
    }
}

/// Counts against the rollout that gave the instruction, if it is under way still.
fn failed(cluster: &mut Cluster, name: &str) {
    let member = &cluster.nodes[name];
    let part = &mut cluster.parts[member.giver];
    let Some(rollout) = part.memory.rollout.as_ref() else { return };
    let told = member.node.spec.as_ref().map(|spec| &spec.instruction);
    let Some(Instruction::Apply(apply)) = told else { return };
    let late = part.memory.proven.get(&apply.build_id).is_some_and(|(level, _)| *level == apply.level);
    if Some(apply.deadline) > rollout.before && !late {
        part.failed.insert(name.to_owned());
    }
}
