//! The status that answers an instruction: the loader's words, or the agent's own verdict over them.

use invivo_api::{Blocker, Evidence, LastSwitch, NodeKernel, NodePatchStatus, Signing, TargetCounts};
use invivo_terms::{Level, Mechanism, NodeState, Revision};
use invivo_wire::{Reason, State};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::verdict::Verdict;

/// What the agent adds to what the loader says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own<'a> {
    /// Nothing.
    Nothing,
    /// A step is taking long.
    Working {
        /// What it waits for, if for anything that has a name.
        waits_for: Option<&'static str>,
    },
    /// The instruction ended before it reached the loader.
    Ended(&'a Verdict),
}

/// The whole status.
pub fn of(loader: &State, own: &Own<'_>, observed: Revision, now: Timestamp) -> NodePatchStatus {
    let (state, since, reason, message) = match own {
        Own::Nothing => (
            loader.state,
            loader.since,
            loader.reason.as_ref().map(|reason| Reason::as_str(*reason).to_owned()),
            loader.message.clone(),
        ),
        Own::Working { waits_for } => (NodeState::Working, now, waits_for.map(str::to_owned), None),
        Own::Ended(verdict) => {
            (verdict.state, now, Some(verdict.cause.as_str().to_owned()), Some(verdict.message.clone()))
        }
    };
    let patched = loader.level != Level::UNPATCHED;
    NodePatchStatus {
        observed_revision: observed,
        boot_id: Some(loader.boot_id.clone()),
        kernel: Some(kernel(loader)),
        level: loader.level,
        set: loader.set.clone(),
        effective: Some(loader.effective.clone()),
        mechanism: patched.then_some(Mechanism::Livepatch),
        state,
        since: Some(Time(since)),
        unpatched_seconds: loader.unpatched_seconds,
        reason: reason.map(|reason| cut(reason, 64)),
        message: message.map(|message| cut(message, 256)),
        evidence: match own {
            Own::Nothing => loader.evidence.clone().map(evidence),
            Own::Working { .. } | Own::Ended(_) => None,
        },
        blockers: match own {
            Own::Nothing => loader.blockers.iter().take(5).cloned().map(blocker).collect(),
            Own::Working { .. } | Own::Ended(_) => Vec::new(),
        },
        last_switch: loader.switch_millis.map(|millis| LastSwitch { millis }),
        targets: TargetCounts::of(loader.targets.iter().map(|target| target.state)),
    }
}

fn kernel(loader: &State) -> NodeKernel {
    let kernel = &loader.kernel;
    NodeKernel {
        build_id: kernel.build_id.clone(),
        release: cut(kernel.release.clone(), 128),
        version: kernel.version.clone().map(|version| cut(version, 128)),
        supports: kernel.supports.clone(),
        signing: match kernel.signing {
            invivo_wire::Signing::Off => Signing::Off,
            invivo_wire::Signing::Enforced => Signing::Enforced,
            invivo_wire::Signing::Lockdown => Signing::Lockdown,
        },
    }
}

fn blocker(thread: invivo_wire::Blocker) -> Blocker {
    Blocker {
        tid: thread.tid,
        comm: cut(thread.comm, 15),
        pod_uid: thread.pod_uid.map(|uid| cut(uid, 36)),
        container: thread.container.map(|id| cut(id, 64)),
    }
}

fn evidence(found: invivo_wire::Evidence) -> Evidence {
    Evidence { digest: found.digest, excerpt: cut(found.excerpt, 200) }
}

fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}

/// Whether the status must be written: times alone are no news, nor are modules that come and go.
pub fn differs(wanted: &NodePatchStatus, written: Option<&NodePatchStatus>) -> bool {
    let timeless = |status: &NodePatchStatus| NodePatchStatus {
        since: None,
        targets: status.targets.clone().map(TargetCounts::settled),
        ..status.clone()
    };
    written.is_none_or(|written| timeless(wanted) != timeless(written))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{instruction, loader};
    use crate::instruction::What;
    use crate::verdict::Cause;
    use invivo_terms::{Refusal, TargetState};

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_loaders_words_become_the_status() {
        let mut state = loader("uid", 5, NodeState::Applied);
        state.level = Level(4);
        state.effective = "6.1.170-3+invivo4".to_owned();
        state.switch_millis = Some(1200);
        let status = of(&state, &Own::Nothing, Revision(5), now());
        assert_eq!(
            (status.state, status.level, status.observed_revision),
            (NodeState::Applied, Level(4), Revision(5))
        );
        assert_eq!(status.mechanism, Some(Mechanism::Livepatch));
        assert_eq!(status.since.as_ref().unwrap().0, state.since);
        assert_eq!(status.last_switch, Some(LastSwitch { millis: 1200 }));
    }

    #[test]
    fn a_verdict_of_the_agent_keeps_what_the_kernel_shows() {
        let mut state = loader("uid", 4, NodeState::Settled);
        state.level = Level(3);
        let order = instruction("uid", 5, What::Hold).order;
        let verdict = Verdict::refused(&order, Cause::Refusal(Refusal::BelowThreshold), "x".repeat(999));
        let status = of(&state, &Own::Ended(&verdict), Revision(5), now());
        assert_eq!((status.state, status.level), (NodeState::Refused, Level(3)));
        assert_eq!(status.reason.as_deref(), Some("BelowThreshold"));
        assert_eq!(status.message.unwrap().len(), 256);
    }

    #[test]
    fn times_alone_are_not_written() {
        let state = loader("uid", 5, NodeState::Idle);
        let status = of(&state, &Own::Nothing, Revision(5), now());
        let later = NodePatchStatus { since: Some(Time(now())), ..status.clone() };
        assert!(!differs(&later, Some(&status)));
        assert!(differs(&NodePatchStatus { level: Level(1), ..status.clone() }, Some(&status)));
        assert!(differs(&status, None));
    }

    #[test]
    fn modules_are_counted_and_only_those_that_are_not_well_are_news() {
        let with = |states: &[TargetState]| {
            let target = |(at, state): (usize, &TargetState)| invivo_wire::Target {
                name: format!("m{at}").parse().unwrap(),
                state: *state,
            };
            let mut state = loader("uid", 5, NodeState::Settled);
            state.targets = states.iter().enumerate().map(target).collect();
            of(&state, &Own::Nothing, Revision(5), now())
        };
        let (absent, patched) = (TargetState::Absent, TargetState::Patched);
        assert_eq!(with(&[]).targets, None);
        let known = with(&[absent, patched, patched]);
        let counts = TargetCounts { absent: 1, patched: 2, ..TargetCounts::default() };
        assert_eq!(known.targets, Some(counts));
        for state in TargetState::ALL {
            let counts = serde_json::to_value(with(&[state]).targets).unwrap();
            let mut name = state.to_string();
            name[..1].make_ascii_lowercase();
            assert_eq!(counts, serde_json::json!({ name: 1 }));
        }
        assert!(!differs(&with(&[patched, absent, absent]), Some(&known)), "one came and two went");
        for state in TargetState::ALL {
            assert_eq!(differs(&with(&[absent, patched, state]), Some(&known)), !state.is_well(), "{state}");
        }
        assert!(differs(&with(&[absent, patched]), Some(&known)));
    }

    #[test]
    fn a_status_of_an_earlier_agent_is_its_memory() {
        let order = instruction("uid", 5, What::Hold).order;
        let verdict = Verdict::refused(&order, Cause::Refusal(Refusal::UnknownKey), "detail");
        let state = loader("uid", 4, NodeState::Idle);
        let written = of(&state, &Own::Ended(&verdict), Revision(5), now());
        let read = Verdict::written(&order, &written).unwrap();
        assert!(!differs(&of(&state, &Own::Ended(&read), Revision(5), now()), Some(&written)));
        let done = of(&state, &Own::Nothing, Revision(5), now());
        assert_eq!(Verdict::written(&order, &done), None);
    }
}
