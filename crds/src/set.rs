//! `PatchSet`: one publication; the thing people test and talk about.

use invivo_terms::{Digest, RepositoryName, SetName};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// One publication of a repository, as seen through a feed. Made by the operator, named `<feed>.<set>`.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "invivo.dev",
    version = "v1alpha1",
    kind = "PatchSet",
    shortname = "ps",
    category = "invivo",
    status = "PatchSetStatus",
    derive = "PartialEq",
    doc = "One publication of a repository, as seen through a feed. Made by the operator.",
    validation = Rule::new("self.metadata.name == self.spec.feed + '.' + self.spec.set")
        .message("a PatchSet is named <feed>.<set>"),
    printcolumn = r#"{"name":"Set","type":"string","jsonPath":".spec.set"}"#,
    printcolumn = r#"{"name":"Eligible","type":"string","jsonPath":".status.conditions[?(@.type==\"Eligible\")].status"}"#,
    printcolumn = r#"{"name":"Released","type":"date","jsonPath":".status.released"}"#,
    printcolumn = r#"{"name":"Applied","type":"integer","jsonPath":".status.nodes.applied"}"#,
    printcolumn = r#"{"name":"Settled","type":"integer","jsonPath":".status.nodes.settled"}"#,
    printcolumn = r#"{"name":"Fixes","type":"string","jsonPath":".status.fixes[*].cve","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a PatchSet's spec never changes"))]
#[serde(rename_all = "camelCase")]
pub struct PatchSetSpec {
    /// The PatchFeed through which it came.
    #[schemars(length(min = 1, max = 63))]
    pub feed: String,
    /// The repository that published it.
    pub repository: RepositoryName,
    /// Its name there.
    pub set: SetName,
    /// Digest of the set's entry in the signed index; covers every manifest.
    pub digest: Digest,
}

/// What the operator knows of the set.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PatchSetStatus {
    /// `Eligible`: whether `Latest` may choose it, and why not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
    /// When its author released it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Time>,
    /// `stable` or `test`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The author's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub summary: Option<String>,
    /// What it fixes in the kernels of this fleet; at most 200.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200))]
    pub fixes: Vec<Fix>,
    /// How many nodes have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<SetNodes>,
}

/// One hole closed.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fix {
    /// Its CVE number.
    pub cve: String,
    /// The author's judgement: `low`, `medium`, `high`, `critical`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// The base score as text, such as `7.8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cvss: Option<String>,
}

/// How many nodes have a set.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetNodes {
    /// Active in the kernel.
    pub applied: u32,
    /// Of these, for their settling time.
    pub settled: u32,
    /// Tried without success.
    pub failed: u32,
}
