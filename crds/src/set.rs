//! `PatchSet`: one publication; the thing people test and talk about.

use invivo_terms::{Decision, Decisions, Digest, EvidenceVerdict, RepositoryName, SetName};
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
    printcolumn = r#"{"name":"Why","type":"string","jsonPath":".status.conditions[?(@.type==\"Eligible\")].reason"}"#,
    printcolumn = r#"{"name":"Released","type":"date","jsonPath":".status.released"}"#,
    printcolumn = r#"{"name":"Applied","type":"integer","jsonPath":".status.nodes.applied"}"#,
    printcolumn = r#"{"name":"Settled","type":"integer","jsonPath":".status.nodes.settled"}"#,
    printcolumn = r#"{"name":"Fixes","type":"string","jsonPath":".status.fixes[*].cve","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(
    validation = Rule::new("self.feed == oldSelf.feed && self.repository == oldSelf.repository && self.set == oldSelf.set && self.digest == oldSelf.digest")
        .message("feed, repository, set and digest of a PatchSet never change"),
    validation = Rule::new("!has(self.approvals) || self.approvals.all(a, a.digest == self.digest)")
        .message("an approval is bound to the set: its digest must be spec.digest")
)]
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
    /// What people decided, one entry for each of them. An entry is written, changed and removed by
    /// the user that it names; the operator has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = kube::core::ListMerge::Map(vec!["user".to_owned()]))]
    pub approvals: Vec<SetApproval>,
}

/// What one person decided.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetApproval {
    /// Who: the name by which the API server knows the one who writes this entry.
    #[schemars(length(min = 1, max = 256))]
    pub user: String,
    /// `Approve`, or `Reject`, which outweighs every approval.
    pub decision: Decision,
    /// Of the set that this was decided about: `spec.digest`.
    pub digest: Digest,
    /// Why, for those who come later.
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
}

impl PatchSetSpec {
    /// What people decided about the set of this digest.
    pub fn decisions(&self, digest: &Digest) -> Decisions {
        let bound = self.approvals.iter().filter(|entry| self.digest == *digest && entry.digest == *digest);
        bound.fold(Decisions::default(), |sum, entry| match entry.decision {
            Decision::Approve => Decisions { approvals: sum.approvals.saturating_add(1), ..sum },
            Decision::Reject => Decisions { rejected: true, ..sum },
        })
    }
}

/// What the operator knows of the set.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PatchSetStatus {
    /// `Eligible`: whether `Latest` may choose it, and why not. `Quarantined`: whether there is
    /// evidence of several nodes against it that nobody has overruled.
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
    /// How many more it fixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_fixes: Option<u32>,
    /// How many nodes have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<SetNodes>,
    /// What was found against it, on nodes of every feed; survives the nodes. At most 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub evidence: Vec<SetEvidence>,
    /// There is enough evidence against it, and nothing rolls it out any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
}

/// What was found against a set on one node.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetEvidence {
    /// Uid of the Node.
    #[schemars(length(max = 64))]
    pub node_uid: String,
    /// The boot in which the set was put on, or the one that told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 36))]
    pub boot_id: Option<String>,
    /// When it was written down.
    pub time: Time,
    /// What was found.
    pub verdict: EvidenceVerdict,
    /// Whose later approval took its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub overruled_by: Option<String>,
}

/// Nothing rolls the set out.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantine {
    /// Since when.
    pub since: Time,
    /// The approvals that stood then. They do not lift it: another one does, or one of these with
    /// another reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub approvals: Vec<StoodApproval>,
}

/// An approval that stood when a set was quarantined.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoodApproval {
    /// Whose.
    #[schemars(length(max = 256))]
    pub user: String,
    /// With which reason.
    #[schemars(length(max = 256))]
    pub reason: String,
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
    /// That spoke against it: convicted it, or took it off because their kernels suffered. Also
    /// nodes that are gone by now.
    #[serde(default)]
    pub convicted: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_decisions_about_this_very_set_count() {
        let digest = |letter: &str| -> Digest { letter.repeat(64).parse().unwrap() };
        let entry = |user: &str, decision: &str, letter: &str| json!({"user": user, "decision": decision, "digest": letter.repeat(64), "reason": "tried"});
        let spec: PatchSetSpec = serde_json::from_value(json!({
            "feed": "production", "repository": "example", "set": "2026-11-21.1", "digest": "a".repeat(64),
            "approvals": [entry("ada", "Approve", "a"), entry("bob", "Approve", "a"), entry("eve", "Reject", "b")]
        }))
        .unwrap();
        assert_eq!(spec.decisions(&digest("a")), Decisions { approvals: 2, rejected: false });
        assert_eq!(spec.decisions(&digest("b")), Decisions::default());
    }
}
