//! The gates of a `PatchPolicy`: what must be well before a stage starts and throughout its soak.

use std::collections::BTreeMap;

use invivo_terms::HumanDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::selector::LABEL_VALUE;

const NAME: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
const KEY: &str = "^[-._a-zA-Z0-9]+$";

fn five_minutes() -> HumanDuration {
    HumanDuration::from_secs(300)
}

fn ten_minutes() -> HumanDuration {
    HumanDuration::from_secs(600)
}

fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE},
    })
}

// What is `null` is not there: the schemas below are those of the types inside the options, so that
// the API server takes it out, and a gate of which only the name is left is refused.

/// What must be well before a stage starts and throughout its soak: exactly one of the four.
/// `nodeReady` and `kernelHealth` are always looked at, written here or not.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("[has(self.nodeReady), has(self.kernelHealth), has(self.prometheus), has(self.job)].filter(x, x).size() == 1")
        .message("exactly one of nodeReady, kernelHealth, prometheus and job")
)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    /// The nodes that this rollout moved and whose level has not settled are Ready. Unknown at first,
    /// failed once one has not been for `rollout.nodeDeadline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "NodeReadyGate")]
    pub node_ready: Option<NodeReadyGate>,
    /// The kernels of these nodes are well: an oops or a lockup fails, and so does a warning whose
    /// trace names the patch; after any other warning it is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "KernelHealthGate")]
    pub kernel_health: Option<KernelHealthGate>,
    /// A query returns nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PrometheusGate")]
    pub prometheus: Option<PrometheusGate>,
    /// A Job in the namespace `invivo-gates` succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "JobGate")]
    pub job: Option<JobGate>,
}

/// The nodes that this rollout moved are Ready.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeReadyGate {}

/// The kernels of the nodes that this rollout moved are well.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KernelHealthGate {}

/// A query of Prometheus, or of anything that answers like it, that returns nothing while all is
/// well. One that returns something fails; a server that cannot be reached, is slow, or says what
/// is no answer leaves it unknown, which is not healthy.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!has(self.authorization) || self.address.startsWith('https://')")
        .message("authorization is only sent over https"),
    validation = Rule::new("!has(self.caBundle) || self.address.startsWith('https://')")
        .message("caBundle is only used with https")
)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusGate {
    /// Where it is, such as `https://prometheus.monitoring:9090`; `/api/v1/query` is put behind it.
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/@?#]+(/[^@?#]*)?$')")
        .message("address must be an http or https URL with a host, without user, query and fragment"))]
    pub address: String,
    /// What is sent as the header `Authorization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Authorization")]
    pub authorization: Option<Authorization>,
    /// The certificates to believe, in place of the well-known ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CaBundle")]
    pub ca_bundle: Option<CaBundle>,
    /// The query (PromQL). It must give a vector: a comparison such as `rate(errors[5m]) > 0`.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// How long the query must have returned nothing. Counted by the operator, from the first
    /// answer on; an answer that is missing begins it anew.
    #[serde(default = "five_minutes", rename = "for")]
    pub quiet: HumanDuration,
}

/// What is sent as the header `Authorization`.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authorization {
    /// The word before the credentials.
    #[serde(default, rename = "type")]
    pub scheme: AuthorizationScheme,
    /// Where the credentials are: in a Secret of the operator's own namespace, which it may read
    /// only if the chart's `operator.secrets` names it.
    pub secret: SecretKey,
}

/// How credentials are presented.
#[derive(JsonSchema, Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthorizationScheme {
    /// A token.
    #[default]
    Bearer,
    /// `user:password`, in Base64.
    Basic,
}

impl AuthorizationScheme {
    /// The word in the header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "Bearer",
            Self::Basic => "Basic",
        }
    }
}

/// The certificates to believe.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaBundle {
    /// Where they are, as PEM: in a Secret of the operator's own namespace, which it may read only
    /// if the chart's `operator.secrets` names it.
    pub secret: SecretKey,
}

/// One key of a Secret.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// The Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = NAME))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY))]
    pub key: String,
}

/// A Job in the namespace `invivo-gates` that succeeds. It runs before the stage starts, once; what
/// came of it holds until the stage ends. To run it again, delete the Job.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobGate {
    /// What it runs.
    pub template: JobTemplate,
    /// Before each stage, rather than once in a rollout.
    #[serde(default)]
    pub per_stage: bool,
    /// How long it may take. After that it is ended and the gate has failed.
    #[serde(default = "ten_minutes")]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]*[1-9][0-9]*[dhm].*|[1-9][0-9]+s)$')")
        .message("deadline must be at least 10s"))]
    pub deadline: HumanDuration,
}

/// The one container of a gate's Job. It runs as user 65532 without privileges, token or volumes but
/// a `/tmp`; `INVIVO_POLICY`, `INVIVO_ROLLOUT`, `INVIVO_STAGE` and `INVIVO_TARGET` tell it where it is.
/// Its termination message, else the last lines of its log, stand in the gate's status if it fails.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobTemplate {
    /// Its image.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// Secrets of `invivo-gates` to fetch the image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 253), regex(pattern = NAME)))]
    pub image_pull_secrets: Vec<String>,
    /// In place of the image's entry point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 8192)))]
    pub command: Vec<String>,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 8192)))]
    pub args: Vec<String>,
    /// More environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub env: Vec<JobEnv>,
    /// What it asks for and may use. Without a limit of memory it has 256Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<JobResources>,
    /// Labels of the nodes that it may run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub node_selector: BTreeMap<String, String>,
}

/// An environment variable: a value, or a key of a Secret of `invivo-gates`.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.value) != has(self.secret)").message("exactly one of value and secret"))]
#[serde(rename_all = "camelCase")]
pub struct JobEnv {
    /// Its name.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// Its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 8192))]
    pub value: Option<String>,
    /// The key of a Secret of `invivo-gates` that holds its value. The operator does not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretKey")]
    pub secret: Option<SecretKey>,
}

/// What a gate's Job asks for and may use.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobResources {
    /// What is kept for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<JobResourceList>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<JobResourceList>,
}

/// Amounts, as Kubernetes writes them.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobResourceList {
    /// Processors, such as `500m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^[0-9]+(\.[0-9]{1,3})?m?$"))]
    pub cpu: Option<String>,
    /// Memory, such as `128Mi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = r"^[0-9]+([kMG]|Ki|Mi|Gi)?$"))]
    pub memory: Option<String>,
}

/// How a gate stands.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GateStatus {
    /// Its kind; the second of a kind is `prometheus-2`.
    #[schemars(length(max = 32))]
    pub name: String,
    /// Whether it lets a stage start.
    pub verdict: GateOutcome,
    /// Why not; of a Job that failed, the last lines of its log, at most 1 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1536))]
    pub message: Option<String>,
    /// Since when the verdict is this one.
    pub since: Time,
}

/// Whether a gate lets a stage start.
#[derive(JsonSchema, Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GateOutcome {
    /// It does.
    Passed,
    /// Something is wrong. Within a soak, what `onFailure` says is done.
    Failed,
    /// Not known, which is not healthy: nothing starts and no soak ends.
    Unknown,
}

impl GateOutcome {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Passed, Self::Failed, Self::Unknown];

    /// Its name, as it is written in a status and in a metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "Passed",
            Self::Failed => "Failed",
            Self::Unknown => "Unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_has_one_name_in_the_status_and_in_the_metric() {
        for outcome in GateOutcome::ALL {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
    }
}
