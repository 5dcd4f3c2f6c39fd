//! What the planner remembers, as it stands in a policy's status.
//!
//! The status holds whole seconds, so decisions are made at whole seconds too; what is read back
//! is exactly what was written.

use invivo_api::{
    Cut, CutKernel, FinishedRollout, Outcome, PatchPolicyStatus, Proven, RolloutEvidence, RolloutKey,
    RolloutStatus, StageNodes, StageStatus,
};
use invivo_rollout::{Memory, RolloutMemory, StageView};
use invivo_terms::SetName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The target of a rollout that takes patches off.
const NO_PATCH: &str = "None";

/// What an earlier decision left in this status.
pub fn recall(status: Option<&PatchPolicyStatus>) -> Memory {
    let Some(status) = status else { return Memory::default() };
    let proven = status
        .proven
        .iter()
        .map(|proven| (proven.build_id.clone(), (proven.level, proven.set.clone())))
        .collect();
    Memory {
        rollout: status.rollout.as_ref().map(|rollout| recall_rollout(rollout, status.stage.as_ref())),
        proven,
        history: status.history.iter().map(recall_finished).collect(),
    }
}

fn recall_finished(finished: &FinishedRollout) -> invivo_rollout::Finished {
    invivo_rollout::Finished {
        number: finished.number,
        from: finished.from.parse().ok(),
        to: finished.to.parse().ok(),
        outcome: match finished.outcome {
            Outcome::Complete => invivo_rollout::Outcome::Complete,
            Outcome::Superseded => invivo_rollout::Outcome::Superseded,
            Outcome::Failed => invivo_rollout::Outcome::Failed,
            Outcome::RolledBack => invivo_rollout::Outcome::RolledBack,
        },
        started: finished.started,
        failed: finished.failed,
        since: finished.since.0,
        ended: finished.ended.0,
        evidence: recall_evidence(&finished.evidence),
    }
}

fn recall_evidence(evidence: &[RolloutEvidence]) -> Vec<invivo_rollout::Evidence> {
    let recall = |evidence: &RolloutEvidence| invivo_rollout::Evidence {
        who: evidence.who.clone(),
        gate: evidence.gate,
        at: evidence.at.0,
        what: evidence.what.clone(),
    };
    evidence.iter().map(recall).collect()
}

fn recall_cut(cut: &Cut) -> invivo_rollout::Cut {
    let kernels = cut.kernels.iter().map(|kernel| (kernel.build_id.clone(), kernel.last));
    invivo_rollout::Cut {
        stage: usize::try_from(cut.stage).unwrap_or(usize::MAX),
        kernels: kernels.collect(),
    }
}

fn recall_rollout(rollout: &RolloutStatus, stage: Option<&StageStatus>) -> RolloutMemory {
    let target = match (rollout.key.target.parse::<SetName>(), &rollout.key.digest) {
        (Ok(set), Some(digest)) => Some((set, digest.clone())),
        (Ok(_) | Err(_), _) => None,
    };
    RolloutMemory {
        number: rollout.key.number,
        target,
        mechanism: rollout.key.mechanism,
        started: rollout.started,
        finished: rollout.finished,
        failed: rollout.failed,
        stage: stage.map_or(0, |stage| usize::try_from(stage.index).unwrap_or(usize::MAX)),
        stage_since: stage.map_or(jiff::Timestamp::UNIX_EPOCH, |stage| stage.since.0),
        soak_until: stage.and_then(|stage| stage.soak_until.as_ref()).map(|until| until.0),
        since: rollout.since.as_ref().map_or(jiff::Timestamp::UNIX_EPOCH, |since| since.0),
        from: rollout.from.clone(),
        cuts: rollout.cuts.iter().map(recall_cut).collect(),
        complete: rollout.complete,
        returning: rollout.returning,
        evidence: recall_evidence(&rollout.evidence),
        before: rollout.before.as_ref().map(|before| before.0),
        deadline: rollout.deadline.as_ref().map(|deadline| deadline.0),
    }
}

/// A memory's rollout as it stands in the status.
pub fn write_rollout(memory: &RolloutMemory) -> RolloutStatus {
    let (target, digest) = match &memory.target {
        Some((set, digest)) => (set.to_string(), Some(digest.clone())),
        None => (NO_PATCH.to_owned(), None),
    };
    RolloutStatus {
        key: RolloutKey { number: memory.number, target, digest, mechanism: memory.mechanism },
        started: memory.started,
        finished: memory.finished,
        failed: memory.failed,
        since: Some(Time(memory.since)),
        from: memory.from.clone(),
        cuts: memory.cuts.iter().map(write_cut).collect(),
        complete: memory.complete,
        returning: memory.returning,
        evidence: write_evidence(&memory.evidence),
        before: memory.before.map(Time),
        deadline: memory.deadline.map(Time),
    }
}

fn write_cut(cut: &invivo_rollout::Cut) -> Cut {
    let kernels = cut.kernels.iter().take(64);
    Cut {
        stage: u32::try_from(cut.stage).unwrap_or(u32::MAX),
        kernels: kernels.map(|(build, last)| CutKernel { build_id: build.clone(), last: *last }).collect(),
    }
}

fn write_evidence(evidence: &[invivo_rollout::Evidence]) -> Vec<RolloutEvidence> {
    let write = |evidence: &invivo_rollout::Evidence| RolloutEvidence {
        who: evidence.who.clone(),
        gate: evidence.gate,
        at: Time(evidence.at),
        what: evidence.what.clone(),
    };
    evidence.iter().map(write).collect()
}

/// A memory's finished rollouts as they stand in the status.
pub fn write_history(memory: &Memory) -> Vec<FinishedRollout> {
    let name = |set: &Option<SetName>| set.as_ref().map_or_else(|| NO_PATCH.to_owned(), ToString::to_string);
    let write = |finished: &invivo_rollout::Finished| FinishedRollout {
        number: finished.number,
        from: name(&finished.from),
        to: name(&finished.to),
        outcome: match finished.outcome {
            invivo_rollout::Outcome::Complete => Outcome::Complete,
            invivo_rollout::Outcome::Superseded => Outcome::Superseded,
            invivo_rollout::Outcome::Failed => Outcome::Failed,
            invivo_rollout::Outcome::RolledBack => Outcome::RolledBack,
        },
        started: finished.started,
        failed: finished.failed,
        since: Time(finished.since),
        ended: Time(finished.ended),
        evidence: write_evidence(&finished.evidence),
    };
    memory.history.iter().map(write).collect()
}

/// A memory's stage as it stands in the status; `view` has its counts from before the nodes that
/// are instructed now, `starting` of which are in it.
pub fn write_stage(
    memory: &RolloutMemory,
    name: &str,
    view: Option<&StageView>,
    starting: u32,
) -> StageStatus {
    let nodes =
        view.filter(|view| view.index == memory.stage).map_or_else(StageNodes::default, |view| StageNodes {
            total: view.total,
            done: view.done,
            in_flight: view.in_flight.saturating_add(starting),
            failed: view.failed,
            excused: view.excused,
        });
    StageStatus {
        name: name.to_owned(),
        index: u32::try_from(memory.stage).unwrap_or(u32::MAX),
        since: Time(memory.stage_since),
        soak_until: memory.soak_until.map(Time),
        nodes,
    }
}

/// A memory's proven levels as they stand in the status.
pub fn write_proven(memory: &Memory) -> Vec<Proven> {
    memory
        .proven
        .iter()
        .take(64)
        .map(|(build_id, (level, set))| Proven {
            build_id: build_id.clone(),
            level: *level,
            set: set.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use invivo_terms::{Level, Mechanism};

    fn memory() -> Memory {
        Memory {
            rollout: Some(RolloutMemory {
                number: 3,
                since: "2026-11-22T11:00:00Z".parse().unwrap(),
                from: Some("2026-11-20.1".parse().unwrap()),
                cuts: vec![invivo_rollout::Cut {
                    stage: 1,
                    kernels: [("b".repeat(40).parse().unwrap(), u64::MAX >> 1)].into(),
                }],
                returning: true,
                evidence: vec![evidence()],
                target: Some(("2026-11-21.1".parse().unwrap(), "a".repeat(64).parse().unwrap())),
                mechanism: Mechanism::Livepatch,
                started: 41,
                finished: 37,
                failed: 1,
                stage: 1,
                stage_since: "2026-11-22T12:00:00Z".parse().unwrap(),
                soak_until: Some("2026-11-22T12:30:00Z".parse().unwrap()),
                complete: false,
                before: None,
                deadline: Some("2026-11-22T12:10:00Z".parse().unwrap()),
            }),
            proven: [("b".repeat(40).parse().unwrap(), (Level(4), "2026-11-21.1".parse().unwrap()))].into(),
            history: vec![invivo_rollout::Finished {
                number: 2,
                from: None,
                to: Some("2026-11-20.1".parse().unwrap()),
                outcome: invivo_rollout::Outcome::RolledBack,
                started: 7,
                failed: 2,
                since: "2026-11-21T11:00:00Z".parse().unwrap(),
                ended: "2026-11-21T12:00:00Z".parse().unwrap(),
                evidence: vec![evidence()],
            }],
        }
    }

    fn evidence() -> invivo_rollout::Evidence {
        invivo_rollout::Evidence {
            who: "node-1".to_owned(),
            gate: false,
            at: "2026-11-22T11:30:00Z".parse().unwrap(),
            what: "Convicted: KernelPanic".to_owned(),
        }
    }

    fn through_the_api_server(memory: &Memory) -> Memory {
        let rollout = memory.rollout.as_ref().unwrap();
        let status = PatchPolicyStatus {
            rollout: Some(write_rollout(rollout)),
            stage: Some(write_stage(rollout, "early", None, 0)),
            proven: write_proven(memory),
            history: write_history(memory),
            ..PatchPolicyStatus::default()
        };
        let text = serde_json::to_string(&status).unwrap();
        recall(Some(&serde_json::from_str(&text).unwrap()))
    }

    #[test]
    fn what_is_remembered_reads_back_as_it_was() {
        let memory = memory();
        assert_eq!(through_the_api_server(&memory), memory);
    }

    #[test]
    fn a_rollout_to_no_patch_reads_back_as_one() {
        let mut memory = memory();
        let rollout = memory.rollout.as_mut().unwrap();
        rollout.target = None;
        rollout.complete = true;
        rollout.soak_until = None;
        assert_eq!(through_the_api_server(&memory), memory);
    }

    #[test]
    fn nothing_is_remembered_of_a_policy_without_status() {
        assert_eq!(recall(None), Memory::default());
    }
}
