//! `why <node>`: what it was told, what it answered, what holds it, and what to do.

use std::fmt;

use invivo_api::{NodePatch, PatchFeed, PatchPolicy};
use invivo_terms::{Hold, Level, NodeState, Refusal, Revision, SetName};
use jiff::Timestamp;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hold::HOLD;
use super::object::Object;
use super::plan::{Plan, PlannedNode};
use super::stop::told;
use super::unseen::Unseen;
use crate::table::printable;
use crate::time::relative;

/// What was read about one node.
#[derive(Debug)]
pub struct Asked {
    /// The node.
    pub node: String,
    /// Its instruction and answer.
    pub patch: Option<NodePatch>,
    /// The policy that governs it.
    pub policy: Option<PatchPolicy>,
    /// That policy's feed.
    pub feed: Option<PatchFeed>,
    /// The operator's plan, or why it was not to be had.
    pub plan: Result<Plan, String>,
    /// The Node itself.
    pub about: Option<Object>,
    /// The emergency stop that is in force.
    pub stop: Option<Object>,
    /// Pods that blockers are in: uid and `namespace/name`.
    pub pods: Vec<(String, String)>,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// When this was read.
    pub now: Timestamp,
    /// The node.
    pub node: String,
    /// The policy that governs it.
    pub policy: Option<String>,
    /// Its feed.
    pub feed: Option<String>,
    /// What the node was told.
    pub instruction: Option<Instruction>,
    /// What the node answered.
    pub report: Option<Report>,
    /// What the operator decided: `Apply`, `RollBack`, `InFlight`, `Done`, `Hold`; none without its plan.
    pub decision: Option<String>,
    /// The stage of the rollout that the node is in.
    pub stage: Option<String>,
    /// Why it is not moving: a hold, or a named refusal.
    pub cause: Option<String>,
    /// What was seen, for people.
    pub check: Option<String>,
    /// Threads that kept the last attempt from ending.
    pub blockers: Vec<Blocking>,
    /// What to do, for people.
    pub remedy: Option<String>,
    /// When the cause may end by itself.
    pub until: Option<Timestamp>,
    /// `plan`, or `statuses` where the operator's plan was not to be had.
    pub source: &'static str,
    /// Why it was not.
    pub plan_error: Option<String>,
}

/// What the node was told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instruction {
    /// Its number.
    pub revision: Revision,
    /// `Apply`, `RollBack`, `Hold`.
    pub kind: &'static str,
    /// The level to run.
    pub level: Option<Level>,
    /// The set it comes with.
    pub set: Option<SetName>,
    /// No attempt starts after this.
    pub deadline: Option<Timestamp>,
}

/// What the node answered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The newest instruction it knows.
    pub revision: Revision,
    /// What became of it.
    pub state: NodeState,
    /// The level it runs.
    pub level: Level,
    /// The set it came with.
    pub set: Option<SetName>,
    /// What a scanner may believe.
    pub effective: Option<String>,
    /// `uname -r`.
    pub kernel: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Why.
    pub reason: Option<String>,
    /// The same for people.
    pub message: Option<String>,
}

/// A thread that kept an attempt from ending.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocking {
    /// Thread id on the node.
    pub tid: u32,
    /// Its short name.
    pub comm: String,
    /// Its pod, `namespace/name`, where the caller may read pods and it still runs.
    pub pod: Option<String>,
    /// The pod's uid.
    pub pod_uid: Option<String>,
    /// Its container.
    pub container: Option<String>,
}

/// What holds the node.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cause {
    name: Option<String>,
    check: Option<String>,
    remedy: Option<String>,
    until: Option<Timestamp>,
}

impl Why {
    /// The answer from what was read.
    pub fn of(asked: &Asked, now: Timestamp) -> Self {
        let planned =
            asked.plan.as_ref().ok().and_then(|plan| plan.nodes.iter().find(|n| n.name == asked.node));
        let instruction = asked.patch.as_ref().map(instruction);
        let report = asked.patch.as_ref().and_then(report);
        let cause = cause(asked, planned, instruction.as_ref(), report.as_ref(), now);
        Self {
            now,
            node: asked.node.clone(),
            policy: asked.patch.as_ref().and_then(|patch| patch.spec.policy.clone()),
            feed: asked.policy.as_ref().map(|policy| policy.spec.feed.clone()),
            instruction,
            report,
            decision: planned.map(|planned| planned.decision.clone()),
            stage: planned.map(|planned| planned.stage.clone()),
            cause: cause.name,
            check: cause.check,
            blockers: blockers(asked),
            remedy: cause.remedy,
            until: cause.until,
            source: if asked.plan.is_ok() { "plan" } else { "statuses" },
            plan_error: asked.plan.as_ref().err().cloned(),
        }
    }
}

fn instruction(patch: &NodePatch) -> Instruction {
    let spec = &patch.spec;
    let (kind, level, set, deadline) = match (&spec.apply, &spec.roll_back) {
        (Some(apply), _) => ("Apply", Some(apply.level), Some(apply.set.clone()), Some(apply.deadline.0)),
        (None, Some(back)) => ("RollBack", Some(Level::UNPATCHED), None, Some(back.deadline.0)),
        (None, None) => ("Hold", None, None, None),
    };
    Instruction { revision: spec.revision, kind, level, set, deadline }
}

fn report(patch: &NodePatch) -> Option<Report> {
    let status = patch.status.as_ref()?;
    Some(Report {
        revision: status.observed_revision,
        state: status.state,
        level: status.level,
        set: status.set.clone(),
        effective: status.effective.clone(),
        kernel: status.kernel.as_ref().map(|kernel| kernel.release.clone()),
        since: status.since.as_ref().map(|t| t.0),
        reason: status.reason.clone(),
        message: status.message.clone(),
    })
}

/// The nearest cause first: no policy, what the node itself reports, what the plan or the
/// policy's status says, then the feed.
fn cause(
    asked: &Asked,
    planned: Option<&PlannedNode>,
    instruction: Option<&Instruction>,
    report: Option<&Report>,
    now: Timestamp,
) -> Cause {
    if asked.patch.is_none() {
        return Cause {
            name: Some(Unseen::NoPolicy.as_str().to_owned()),
            check: Some("the operator has made no NodePatch for this node".to_owned()),
            remedy: Some("compare the node's labels with the nodeSelector of the PatchPolicies".to_owned()),
            until: None,
        };
    }
    let hold = planned.and_then(|planned| {
        let name = planned.hold.clone()?;
        let remedy = known::<Hold>(&name).map(|hold| hold.remedy().to_owned());
        Some(Cause {
            check: seen(asked, &name),
            remedy: remedy.or_else(|| planned.remedy.clone()),
            until: planned.until,
            name: Some(name),
        })
    });
    let failed = report.filter(|r| r.state.is_failure()).map(|report| Cause {
        name: Some(report.reason.clone().unwrap_or_else(|| report.state.to_string())),
        check: report.message.clone(),
        remedy: report
            .reason
            .as_deref()
            .and_then(known::<Refusal>)
            .map(|refusal| refusal.remedy().to_owned())
            .or_else(|| Some(Hold::AttemptEnded.remedy().to_owned())),
        until: None,
    });
    // The plan is newer and about this very node; statuses only stand in for it.
    let from_status = asked.policy.as_ref().filter(|_| planned.is_none()).and_then(|policy| {
        let holds = policy.status.as_ref().map(|status| status.holds.as_slice()).unwrap_or_default();
        holds.iter().find(|hold| hold.examples.contains(&asked.node)).map(|hold| Cause {
            name: Some(hold.reason.to_string()),
            check: seen(asked, hold.reason.as_str()),
            remedy: Some(hold.reason.remedy().to_owned()),
            until: hold.until.as_ref().map(|t| t.0),
        })
    });
    let unanswered = instruction
        .filter(|i| report.is_none_or(|r| r.revision < i.revision))
        .map(|_| Cause {
            name: Some(if report.is_some() { Hold::StatusStale } else { Hold::AgentMissing }.to_string()),
            check: Some("the node has not answered its newest instruction".to_owned()),
            remedy: Some(Hold::AgentMissing.remedy().to_owned()),
            until: None,
        })
        .filter(|_| asked.plan.is_err());
    // A node at its target is not held in the plan, but the next rollout will find it so.
    let held =
        held_by_person(asked).filter(|held| held.until.is_none_or(|until| now < until)).map(|held| Cause {
            name: Some(Hold::HeldByPerson.to_string()),
            check: Some(held.check),
            remedy: Some(Hold::HeldByPerson.remedy().to_owned()),
            until: held.until,
        });
    failed.or(hold).or(from_status).or(unanswered).or(held).unwrap_or_default()
}

/// What stands behind a hold, where it is written down elsewhere.
fn seen(asked: &Asked, hold: &str) -> Option<String> {
    match hold {
        "FeedStalled" => feed_trouble(asked),
        "HeldByPerson" => held_by_person(asked).map(|held| held.check),
        "EmergencyStop" => {
            asked.stop.as_ref().map(|stop| format!("everything is stopped{}", told(stop.at("/data"))))
        }
        _ => None,
    }
}

/// A person's hold, as it stands on the Node.
struct PersonsHold {
    check: String,
    until: Option<Timestamp>,
}

fn held_by_person(asked: &Asked) -> Option<PersonsHold> {
    let annotation = asked.about.as_ref()?.at("/metadata/annotations").get(HOLD)?.as_str()?;
    // One that cannot be read holds as well, for the operator too.
    let value = serde_json::from_str::<Value>(annotation).unwrap_or_default();
    let told = |field| value.get(field).and_then(Value::as_str);
    Some(PersonsHold {
        check: format!("annotation {HOLD}: {}", told("reason").unwrap_or(annotation)),
        until: told("until").and_then(|until| until.parse().ok()),
    })
}

fn blockers(asked: &Asked) -> Vec<Blocking> {
    let status = asked.patch.as_ref().and_then(|patch| patch.status.as_ref());
    let blockers = status.map(|status| status.blockers.as_slice()).unwrap_or_default();
    blockers
        .iter()
        .map(|blocker| {
            let pod = asked.pods.iter().find(|(uid, _)| Some(uid) == blocker.pod_uid.as_ref());
            Blocking {
                tid: blocker.tid,
                comm: blocker.comm.clone(),
                pod: pod.map(|(_, name)| name.clone()),
                pod_uid: blocker.pod_uid.clone(),
                container: blocker.container.clone(),
            }
        })
        .collect()
}

fn feed_trouble(asked: &Asked) -> Option<String> {
    let feed = asked.feed.as_ref()?;
    let conditions = &feed.status.as_ref()?.conditions;
    let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status != "True")?;
    Some(format!("feed {}: {}: {}", feed.name_any(), ready.reason, ready.message))
}

fn known<T: for<'de> Deserialize<'de>>(name: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, text: &str| writeln!(f, "{:<13}{}", format!("{name}:"), printable(text));
        line("Node", &self.node)?;
        match (&self.policy, &self.feed) {
            (Some(policy), Some(feed)) => line("Policy", &format!("{policy} (feed {feed})"))?,
            (Some(policy), None) => line("Policy", &format!("{policy} (it does not exist any more)"))?,
            (None, _) => line("Policy", "none")?,
        }
        if let Some(i) = &self.instruction {
            let what = match (i.level, &i.set) {
                (Some(level), Some(set)) => format!("{} level {level} ({set})", i.kind),
                (Some(level), None) => format!("{} to level {level}", i.kind),
                (None, _) => i.kind.to_owned(),
            };
            let deadline =
                i.deadline.map_or_else(String::new, |t| format!(", deadline {}", relative(self.now, t)));
            line("Instruction", &format!("{what}, revision {}{deadline}", i.revision))?;
        }
        match &self.report {
            Some(r) => {
                let since = r.since.map_or_else(String::new, |t| format!(", {}", relative(self.now, t)));
                let version = r.effective.as_ref().map_or_else(String::new, |v| format!(" ({v})"));
                line(
                    "Report",
                    &format!("{}, level {}{version}, revision {}{since}", r.state, r.level, r.revision),
                )?;
                if let Some(kernel) = &r.kernel {
                    line("Kernel", kernel)?;
                }
            }
            None => line("Report", "none yet")?,
        }
        if let Some(decision) = &self.decision {
            let stage = self.stage.as_ref().map_or_else(String::new, |s| format!(", stage {s}"));
            line("Plan", &format!("{decision}{stage}"))?;
        }
        match &self.cause {
            Some(cause) => {
                let until = self
                    .until
                    .map_or_else(String::new, |t| format!(", until {t} ({})", relative(self.now, t)));
                line("Why", &format!("{cause}{until}"))?;
            }
            None => line("Why", "nothing holds it")?,
        }
        if let Some(check) = &self.check {
            line("Seen", check)?;
        }
        for blocker in &self.blockers {
            let place = match (&blocker.pod, &blocker.pod_uid) {
                (Some(pod), _) => format!(" in pod {pod}"),
                (None, Some(uid)) => format!(" in the pod with uid {uid}"),
                (None, None) => String::new(),
            };
            line("Blocked by", &format!("{} (thread {}){place}", blocker.comm, blocker.tid))?;
        }
        if let Some(remedy) = &self.remedy {
            line("What to do", remedy)?;
        }
        if let Some(error) = &self.plan_error
            && self.policy.is_some()
        {
            line("Note", &format!("from statuses alone; the operator's plan was not to be had: {error}"))?;
        }
        Ok(())
    }
}
