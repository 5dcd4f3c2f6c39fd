//! How far one policy is, stage by stage: what `watch` shows.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::object::Object;
use super::unseen::Unseen;
use crate::table::{Table, counted, printable};
use crate::time::relative;

/// The last stage, where the policy does not write it out.
const REST: &str = "rest";

/// How far a policy is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The policy.
    pub policy: String,
    /// What it rolls out: a set, or `None`.
    pub target: Option<String>,
    /// The rollout's number.
    pub rollout: Option<u64>,
    /// Its stages in their order.
    pub stages: Vec<StageLine>,
    /// The policy's nodes.
    pub nodes: Counts,
    /// `True`, `False`, `Unknown`.
    pub ready: String,
    /// It will not go on without a person.
    pub stalled: bool,
    /// Every stage is through, and the operator has seen the newest spec.
    pub through: bool,
    /// Why it stands where it stands.
    pub reason: String,
    /// The same for people.
    pub message: String,
    /// Why nodes are not moving.
    pub holds: Vec<Holding>,
    /// What happens next.
    pub next_action: Option<String>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StageLine {
    /// Its name.
    pub name: String,
    /// Where the rollout is with it.
    pub standing: Standing,
    /// Its nodes, while the rollout is in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<StageCounts>,
    /// When its soak ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soak_until: Option<Timestamp>,
}

/// Where a rollout is with a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Standing {
    /// It is through.
    Through,
    /// It is in it.
    Now,
    /// It has not begun.
    Waits,
}

/// A stage's nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StageCounts {
    /// All.
    pub total: u64,
    /// At the target.
    pub done: u64,
    /// Instructed, not yet reported.
    pub in_flight: u64,
    /// Failed.
    pub failed: u64,
    /// Not waited for.
    pub excused: u64,
}

/// A policy's nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// All.
    pub total: u64,
    /// At the target.
    pub current: u64,
    /// Instructed, not yet reported.
    pub in_flight: u64,
    /// Failed.
    pub failed: u64,
}

/// Why some nodes are not moving.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holding {
    /// The hold.
    pub reason: String,
    /// How many.
    #[serde(default)]
    pub nodes: u64,
    /// When it may end by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CurrentStage {
    name: String,
    index: usize,
    #[serde(default)]
    soak_until: Option<Timestamp>,
    #[serde(default)]
    nodes: StageCounts,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Said {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

impl Progress {
    /// Of this policy.
    pub fn of(policy: &Object) -> Self {
        let conditions: Vec<Said> = policy.read("/status/conditions").unwrap_or_default();
        let said = |kind: &str| conditions.iter().find(|condition| condition.kind == kind);
        let ready = said("Ready");
        let seen = policy.number("/status/observedGeneration") >= policy.number("/metadata/generation");
        let complete = policy.at("/status/rollout/complete").as_bool() == Some(true);
        Self {
            policy: policy.name().to_owned(),
            target: policy.text("/status/rollout/key/target").map(str::to_owned),
            rollout: policy.number("/status/rollout/key/number"),
            stages: stages(policy, complete),
            nodes: policy.read("/status/nodes").unwrap_or_default(),
            ready: ready.map_or_else(|| "Unknown".to_owned(), |ready| ready.status.clone()),
            stalled: seen && said("Stalled").is_some_and(|stalled| stalled.status == "True"),
            through: seen && ready.is_some_and(|ready| ready.status == "True"),
            reason: ready
                .map_or_else(|| Unseen::NotObserved.as_str().to_owned(), |ready| ready.reason.clone()),
            message: ready.map(|ready| ready.message.clone()).unwrap_or_default(),
            holds: policy.read("/status/holds").unwrap_or_default(),
            next_action: policy.text("/status/nextAction").map(str::to_owned),
        }
    }

    /// One line, for a log: what moved since the line before is in it.
    pub fn line(&self) -> String {
        let stage = self.stages.iter().find(|stage| stage.standing == Standing::Now).map_or_else(
            || "no stage".to_owned(),
            |stage| {
                let counts = stage.nodes.clone().unwrap_or_default();
                format!("stage {} {} of {}", stage.name, counts.done, counts.total)
            },
        );
        let holds: Vec<_> = self.holds.iter().map(|hold| format!("{} {}", hold.nodes, hold.reason)).collect();
        let holds = if holds.is_empty() { String::new() } else { format!("; held: {}", holds.join(", ")) };
        printable(&format!(
            "{} {} {stage}; {} of {} nodes, {} moving, {} failed; {}{holds}",
            self.policy,
            self.target.as_deref().unwrap_or("-"),
            self.nodes.current,
            self.nodes.total,
            self.nodes.in_flight,
            self.nodes.failed,
            self.reason,
        ))
    }

    /// As people look at it at `now`.
    pub fn shown(&self, now: Timestamp) -> Shown<'_> {
        Shown { progress: self, now }
    }
}

/// The stages as the spec has them, and the implied last one; where the rollout is comes from the status.
fn stages(policy: &Object, complete: bool) -> Vec<StageLine> {
    let written: Vec<Named> = policy.read("/spec/rollout/stages").unwrap_or_default();
    let mut names: Vec<String> = written.into_iter().map(|stage| stage.name).collect();
    let open = policy
        .at("/spec/rollout/stages")
        .as_array()
        .and_then(|stages| stages.last())
        .is_some_and(|last| last.get("nodeSelector").is_none() && last.get("share").is_none());
    if !open {
        names.push(REST.to_owned());
    }
    let current: Option<CurrentStage> = policy.read("/status/stage");
    names
        .into_iter()
        .enumerate()
        .map(|(index, name)| {
            let here = current.as_ref().filter(|stage| stage.index == index && stage.name == name);
            let standing = match &current {
                _ if complete => Standing::Through,
                Some(stage) if index < stage.index => Standing::Through,
                Some(stage) if index == stage.index => Standing::Now,
                Some(_) | None => Standing::Waits,
            };
            StageLine {
                name,
                standing,
                nodes: here.map(|stage| stage.nodes.clone()),
                soak_until: here.and_then(|stage| stage.soak_until).filter(|_| standing == Standing::Now),
            }
        })
        .collect()
}

/// A progress for people.
#[derive(Debug)]
pub struct Shown<'a> {
    progress: &'a Progress,
    now: Timestamp,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = self.progress;
        let rollout = p.rollout.map_or_else(String::new, |number| format!(" (rollout {number})"));
        writeln!(
            f,
            "{} -> {}{rollout}: {} of {}, {} moving, {} failed; {}",
            p.policy,
            p.target.as_deref().unwrap_or("nothing yet"),
            p.nodes.current,
            counted(p.nodes.total, "node"),
            p.nodes.in_flight,
            p.nodes.failed,
            printable(&p.reason),
        )?;
        let mut table = Table::new(&["  STAGE", "DONE", "MOVING", "FAILED", "EXCUSED", "STANDING"]);
        for stage in &p.stages {
            let count = |of: fn(&StageCounts) -> u64| {
                stage.nodes.as_ref().map(|counts| of(counts).to_string()).unwrap_or_default()
            };
            let standing = match (stage.standing, stage.soak_until) {
                (Standing::Through, _) => "through".to_owned(),
                (Standing::Now, Some(until)) => format!("soaks, ends {}", relative(self.now, until)),
                (Standing::Now, None) => "now".to_owned(),
                (Standing::Waits, _) => "waits".to_owned(),
            };
            table.row([
                format!("  {}", stage.name),
                stage.nodes.as_ref().map(|c| format!("{} of {}", c.done, c.total)).unwrap_or_default(),
                count(|c| c.in_flight),
                count(|c| c.failed),
                count(|c| c.excused),
                standing,
            ]);
        }
        write!(f, "{table}")?;
        for hold in &p.holds {
            let until =
                hold.until.map_or_else(String::new, |until| format!(", {}", relative(self.now, until)));
            writeln!(f, "  {} {}{until}", counted(hold.nodes, "node"), printable(&hold.reason))?;
        }
        if p.stalled {
            writeln!(f, "  it does not go on without a person: {}", printable(&p.message))?;
        }
        if let Some(next) = &p.next_action {
            writeln!(f, "  next: {}", printable(next))?;
        }
        Ok(())
    }
}
