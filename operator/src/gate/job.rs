//! The Job of a gate: how it is made, and what its state means.
//!
//! It can do nothing to the cluster: no privilege, no token, no volume but an empty `/tmp`, in a
//! namespace of its own. Its pod is ended at the deadline and left there, so that its last words can
//! be read; the Job's own deadline, a little later, is for pods that never ran.

use std::collections::BTreeMap;

use invivo_api::{JobEnv, JobGate, JobResourceList, JobTemplate, PatchPolicy};
use invivo_rollout::GateVerdict;
use invivo_terms::HumanDuration;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerStatus, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    LocalObjectReference, Pod, PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements,
    SeccompProfile, SecretKeySelector, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use super::{Wanted, plain};
use crate::store::Entry;

/// The only namespace that gates run Jobs in.
pub const NAMESPACE: &str = "invivo-gates";

/// The most of a Job's last words that is kept, in bytes.
const LONGEST_TAIL: usize = 1024;
/// How long after the deadline of its pod a Job is ended that has none.
const SLACK: u64 = 60;
/// How long an ended Job is kept, in seconds.
const KEPT: i32 = 7 * 86_400;
/// Nobody in particular.
const USER: i64 = 65532;
/// The one container.
const CONTAINER: &str = "gate";

/// One run of a gate's Job.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    policy: String,
    policy_uid: String,
    rollout: u64,
    target: String,
    /// Absent where one run is for the whole rollout.
    stage: Option<String>,
    template: JobTemplate,
    deadline: HumanDuration,
}

impl Run {
    /// The run for the stage that is wanted.
    pub(super) fn of(policy: &Entry<PatchPolicy>, gate: &JobGate, wanted: &Wanted) -> Self {
        Self {
            policy: policy.name.clone(),
            policy_uid: policy.uid.clone(),
            rollout: wanted.rollout,
            target: wanted.target.clone(),
            stage: gate.per_stage.then(|| wanted.stage.clone()),
            template: gate.template.clone(),
            deadline: gate.deadline,
        }
    }

    /// The Job's name: the same for the same run, so that two operators do not run it twice, and
    /// another for any other.
    pub(super) fn name(&self) -> String {
        // Everything that makes a run this one; `Debug` writes texts quoted, so that none runs into the next.
        let digest = invivo_feed::digest(format!("{self:?}").as_bytes());
        let short = |text: &str, longest: usize| -> String {
            text.chars().map(|c| if c == '.' { '-' } else { c }).take(longest).collect()
        };
        let stage = self.stage.as_deref().map(|stage| format!("-{}", short(stage, 12))).unwrap_or_default();
        let digest = short(digest.as_str(), 10);
        format!("{}-{}{stage}-{digest}", short(&self.policy, 16), self.rollout)
    }

    /// The Job to create.
    pub(super) fn job(&self) -> Job {
        let seconds = self.deadline.get().as_secs();
        let whole = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        Job {
            metadata: ObjectMeta {
                name: Some(self.name()),
                namespace: Some(NAMESPACE.to_owned()),
                labels: Some(labels()),
                // It goes with the policy.
                owner_references: Some(vec![OwnerReference {
                    api_version: PatchPolicy::api_version(&()).into_owned(),
                    kind: PatchPolicy::kind(&()).into_owned(),
                    name: self.policy.clone(),
                    uid: self.policy_uid.clone(),
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            },
            spec: Some(JobSpec {
                active_deadline_seconds: Some(whole(seconds.saturating_add(SLACK))),
                // One failure is an answer; a node that was drained under the pod is none.
                backoff_limit: Some(0),
                pod_failure_policy: Some(PodFailurePolicy {
                    rules: vec![PodFailurePolicyRule {
                        action: "Ignore".to_owned(),
                        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                            status: "True".to_owned(),
                            type_: "DisruptionTarget".to_owned(),
                        }]),
                        on_exit_codes: None,
                    }],
                }),
                ttl_seconds_after_finished: Some(KEPT),
                template: PodTemplateSpec {
                    metadata: Some(ObjectMeta { labels: Some(labels()), ..ObjectMeta::default() }),
                    spec: Some(self.pod(whole(seconds))),
                },
                ..JobSpec::default()
            }),
            status: None,
        }
    }

    fn pod(&self, seconds: i64) -> PodSpec {
        let template = &self.template;
        let secret = |name: &String| LocalObjectReference { name: name.clone() };
        let pull: Vec<_> = template.image_pull_secrets.iter().map(secret).collect();
        PodSpec {
            active_deadline_seconds: Some(seconds),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            restart_policy: Some("Never".to_owned()),
            termination_grace_period_seconds: Some(5),
            image_pull_secrets: (!pull.is_empty()).then_some(pull),
            node_selector: (!template.node_selector.is_empty()).then(|| template.node_selector.clone()),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                fs_group: Some(USER),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".to_owned(),
                    localhost_profile: None,
                }),
                ..PodSecurityContext::default()
            }),
            containers: vec![self.container()],
            volumes: Some(vec![Volume {
                name: "tmp".to_owned(),
                empty_dir: Some(EmptyDirVolumeSource {
                    size_limit: Some(Quantity("64Mi".to_owned())),
                    medium: None,
                }),
                ..Volume::default()
            }]),
            ..PodSpec::default()
        }
    }

    fn container(&self) -> Container {
        let template = &self.template;
        let words = |words: &Vec<String>| (!words.is_empty()).then(|| words.clone());
        Container {
            name: CONTAINER.to_owned(),
            image: Some(template.image.clone()),
            command: words(&template.command),
            args: words(&template.args),
            env: Some(self.environment()),
            resources: Some(resources(template)),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                read_only_root_filesystem: Some(true),
                capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
                ..SecurityContext::default()
            }),
            // The kubelet keeps the end of the log of a container that failed in the pod's status:
            // nobody needs the right to read logs.
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            volume_mounts: Some(vec![VolumeMount {
                name: "tmp".to_owned(),
                mount_path: "/tmp".to_owned(),
                ..VolumeMount::default()
            }]),
            ..Container::default()
        }
    }

    fn environment(&self) -> Vec<EnvVar> {
        let set = |name: &str, value: &str| EnvVar {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            value_from: None,
        };
        let mut all = vec![
            set("INVIVO_POLICY", &self.policy),
            set("INVIVO_ROLLOUT", &self.rollout.to_string()),
            set("INVIVO_TARGET", &self.target),
        ];
        all.extend(self.stage.as_deref().map(|stage| set("INVIVO_STAGE", stage)));
        all.extend(self.template.env.iter().map(variable));
        all
    }
}

fn labels() -> BTreeMap<String, String> {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    BTreeMap::from([
        label("app.kubernetes.io/part-of", "invivo"),
        label("app.kubernetes.io/managed-by", "invivo-operator"),
        label("app.kubernetes.io/name", "invivo-gate"),
    ])
}

fn variable(written: &JobEnv) -> EnvVar {
    let from = written.secret.as_ref().map(|secret| EnvVarSource {
        secret_key_ref: Some(SecretKeySelector {
            name: secret.name.clone(),
            key: secret.key.clone(),
            optional: None,
        }),
        ..EnvVarSource::default()
    });
    EnvVar { name: written.name.clone(), value: written.value.clone(), value_from: from }
}

fn resources(template: &JobTemplate) -> ResourceRequirements {
    let amounts = |list: Option<&JobResourceList>| {
        let amount = |name: &str, value: Option<&String>| {
            value.map(|value| (name.to_owned(), Quantity(value.clone())))
        };
        let list = list.cloned().unwrap_or_default();
        let all: BTreeMap<String, Quantity> = amount("cpu", list.cpu.as_ref())
            .into_iter()
            .chain(amount("memory", list.memory.as_ref()))
            .collect();
        all
    };
    let asked = template.resources.as_ref();
    let mut limits = amounts(asked.and_then(|asked| asked.limits.as_ref()));
    limits.entry("memory".to_owned()).or_insert_with(|| Quantity("256Mi".to_owned()));
    let requests = amounts(asked.and_then(|asked| asked.requests.as_ref()));
    ResourceRequirements {
        limits: Some(limits),
        requests: (!requests.is_empty()).then_some(requests),
        ..ResourceRequirements::default()
    }
}

/// How far a Job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JobState {
    /// It has not ended.
    Running,
    /// It succeeded.
    Complete,
    /// It did not.
    Failed {
        /// Why it has ended, in one word.
        reason: String,
    },
}

/// How far this Job is. Only its controller's last word counts.
pub(super) fn state(job: &Job) -> JobState {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let holds = |kind: &str| {
        conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")
    };
    if let Some(failed) = holds("Failed") {
        let reason = plain(failed.reason.as_deref().unwrap_or("Failed"), 64);
        return JobState::Failed { reason };
    }
    if holds("Complete").is_some() { JobState::Complete } else { JobState::Running }
}

/// What it means that a Job failed, by what its pods left. A test that ran and did not succeed has
/// failed; one that never ran says nothing.
pub(super) fn failure(job: &str, reason: &str, pods: &[Pod]) -> GateVerdict {
    let last = pods.iter().max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    let container = last.and_then(|pod| {
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        statuses.iter().find(|status| status.name == CONTAINER)
    });
    let ran = container.is_some_and(has_run);
    if ran || (last.is_none() && reason != "DeadlineExceeded") {
        let words = container.and_then(last_words).unwrap_or_else(|| "it left no words".to_owned());
        return GateVerdict::Failed { message: format!("Job {NAMESPACE}/{job} failed ({reason}): {words}") };
    }
    let why = last.map_or_else(|| "it has no pod".to_owned(), |pod| waits_for(pod, container));
    let message = format!(
        "Job {NAMESPACE}/{job} ended without a run ({reason}): {why}; delete the Job to run it again"
    );
    GateVerdict::Unknown { message }
}

/// The verdict on a Job that has not ended.
pub(super) fn running(job: &str) -> GateVerdict {
    GateVerdict::Unknown { message: format!("Job {NAMESPACE}/{job} has not ended") }
}

/// The verdict on a Job that should have been ended long ago.
pub(super) fn overdue(job: &str) -> GateVerdict {
    let message = format!(
        "Job {NAMESPACE}/{job} is past its deadline and nobody ended it: see the cluster's Job controller"
    );
    GateVerdict::Unknown { message }
}

/// How long after its creation a Job must have ended.
pub(super) fn ends_within(run: &Run) -> std::time::Duration {
    run.deadline.get().saturating_add(std::time::Duration::from_secs(2 * SLACK))
}

fn has_run(container: &ContainerStatus) -> bool {
    let state = container.state.as_ref();
    state.is_some_and(|state| state.terminated.is_some() || state.running.is_some())
}

fn waits_for(pod: &Pod, container: Option<&ContainerStatus>) -> String {
    let waiting = container
        .and_then(|container| container.state.as_ref()?.waiting.as_ref())
        .map(|waiting| (waiting.reason.as_deref(), waiting.message.as_deref()));
    let status = pod.status.as_ref();
    let own = || status.map(|status| (status.reason.as_deref(), status.message.as_deref()));
    let unscheduled = || {
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
        Some((scheduled.reason.as_deref(), scheduled.message.as_deref()))
    };
    let (reason, message) = waiting.or_else(unscheduled).or_else(own).unwrap_or_default();
    plain(&format!("{}: {}", reason.unwrap_or("Pending"), message.unwrap_or_default()), 300)
}

/// The end of what a container said, whole lines where there is room for one.
fn last_words(container: &ContainerStatus) -> Option<String> {
    let terminated = container.state.as_ref()?.terminated.as_ref()?;
    let said = plain(terminated.message.as_deref().unwrap_or_default(), usize::MAX);
    let exit = format!("exit code {}", terminated.exit_code);
    let tail = tail(&said, LONGEST_TAIL);
    Some(if tail.is_empty() { exit } else { format!("{exit}:\n{tail}") })
}

fn tail(text: &str, longest: usize) -> &str {
    let Some(cut) = text.len().checked_sub(longest).filter(|cut| *cut > 0) else { return text };
    let rest = text.get(text.ceil_char_boundary(cut)..).unwrap_or_default();
    // The first line is most likely not whole.
    rest.split_once('\n').map_or(rest, |(_, whole)| whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn run(stage: Option<&str>) -> Run {
        Run {
            policy: "workers".into(),
            policy_uid: "u".into(),
            rollout: 4,
            target: "2026-11-21.1".into(),
            stage: stage.map(str::to_owned),
            template: serde_json::from_value(json!({"image": "registry.example.com/smoke:1",
                "args": ["--all"], "env": [{"name": "A", "value": "b"},
                    {"name": "TOKEN", "secret": {"name": "smoke", "key": "token"}}]}))
            .unwrap(),
            deadline: HumanDuration::from_secs(300),
        }
    }

    fn job(conditions: &Value) -> Job {
        serde_json::from_value(json!({"status": {"conditions": conditions}})).unwrap()
    }

    fn pod(created: &str, state: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"creationTimestamp": format!("2026-11-22T{created}Z")},
            "status": {"containerStatuses": [{"name": "gate", "state": state, "image": "", "imageID": "",
                "ready": false, "restartCount": 0}]}}))
        .unwrap()
    }

    fn words(verdict: GateVerdict) -> (bool, String) {
        match verdict {
            GateVerdict::Failed { message } => (true, message),
            GateVerdict::Unknown { message } => (false, message),
            GateVerdict::Passed => panic!("passed"),
        }
    }

    #[test]
    fn each_run_has_a_name_of_its_own_that_fits() {
        let long = Run { policy: format!("a.{}", "b".repeat(61)), rollout: u64::MAX, ..run(None) };
        let long = Run { stage: Some("c".repeat(63)), ..long };
        let template = JobTemplate { image: "other".into(), ..run(None).template };
        let names = [
            run(None).name(),
            run(Some("canary")).name(),
            run(Some("early")).name(),
            Run { rollout: 5, ..run(None) }.name(),
            Run { policy_uid: "v".into(), ..run(None) }.name(),
            Run { template, ..run(None) }.name(),
            long.name(),
        ];
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
        for name in &names {
            // Pods carry it as a label.
            assert!(
                name.len() <= 63 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'),
                "{name}"
            );
        }
        assert_eq!(run(Some("canary")).name(), run(Some("canary")).name());
        assert!(run(Some("canary")).name().starts_with("workers-4-canary-"));
    }

    #[test]
    fn a_job_has_no_privilege_no_token_and_an_end() {
        let made = serde_json::to_value(run(Some("canary")).job()).unwrap();
        let spec = &made["spec"];
        assert_eq!(spec["activeDeadlineSeconds"], 360);
        assert_eq!(spec["backoffLimit"], 0);
        let pod = &spec["template"]["spec"];
        assert_eq!(pod["activeDeadlineSeconds"], 300);
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["volumes"], json!([{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}]));
        assert!(pod.get("hostNetwork").is_none() && pod.get("serviceAccountName").is_none());
        let container = &pod["containers"][0];
        assert_eq!(container["securityContext"]["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(container["resources"], json!({"limits": {"memory": "256Mi"}}));
        let names: Vec<_> =
            container["env"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
        let wanted = ["INVIVO_POLICY", "INVIVO_ROLLOUT", "INVIVO_TARGET", "INVIVO_STAGE", "A", "TOKEN"];
        assert_eq!(names, wanted);
        assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], "u");
    }

    #[test]
    fn only_the_controllers_last_word_ends_a_job() {
        assert_eq!(state(&Job::default()), JobState::Running);
        assert_eq!(state(&job(&json!([{"type": "FailureTarget", "status": "True"}]))), JobState::Running);
        assert_eq!(state(&job(&json!([{"type": "Complete", "status": "False"}]))), JobState::Running);
        assert_eq!(state(&job(&json!([{"type": "Complete", "status": "True"}]))), JobState::Complete);
        let failed = json!([{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]);
        assert_eq!(state(&job(&failed)), JobState::Failed { reason: "BackoffLimitExceeded".into() });
    }

    #[test]
    fn a_job_that_failed_leaves_its_last_words_and_no_more_than_a_kibibyte_of_them() {
        let log: Vec<_> = (0..500).map(|n| format!("line {n} \u{1b}[31m\n")).collect();
        let end = json!({"terminated": {"exitCode": 3, "message": log.concat()}});
        let pods = [pod("12:00:00", &json!({"waiting": {"reason": "x"}})), pod("12:00:09", &end)];
        let (failed, message) = words(failure("j", "BackoffLimitExceeded", &pods));
        assert!(failed);
        let (head, tail) = message.split_once(":\n").unwrap();
        assert_eq!(head, "Job invivo-gates/j failed (BackoffLimitExceeded): exit code 3");
        assert!(tail.len() <= LONGEST_TAIL && tail.len() > 900, "{}", tail.len());
        assert!(tail.starts_with("line ") && tail.ends_with("line 499  [31m"), "{tail}");
        assert!(message.chars().count() <= super::super::LONGEST_MESSAGE);
    }

    #[test]
    fn one_line_without_an_end_is_cut_within_a_character_of_none() {
        assert_eq!(tail(&"ü".repeat(1000), 1023).len(), 1022);
        assert_eq!(tail("short", 1024), "short");
        assert_eq!(tail("", 1024), "");
    }

    #[test]
    fn a_job_that_never_ran_says_nothing_and_one_that_ran_too_long_has_failed() {
        let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
        let (failed, message) = words(failure("j", "DeadlineExceeded", &[pod("12:00:00", &waiting)]));
        assert!(!failed && message.contains("ImagePullBackOff: no such image"), "{message}");
        let (failed, message) = words(failure("j", "DeadlineExceeded", &[]));
        assert!(!failed && message.contains("it has no pod"), "{message}");
        let killed = json!({"terminated": {"exitCode": 137}});
        let (failed, message) = words(failure("j", "BackoffLimitExceeded", &[pod("12:00:00", &killed)]));
        assert!(failed && message.ends_with("exit code 137"), "{message}");
        // Its pod ran, or it could not have failed so, and was taken away since.
        assert!(words(failure("j", "BackoffLimitExceeded", &[])).0);
    }
}
