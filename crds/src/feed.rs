//! `PatchFeed`: what may come in.

use invivo_terms::{BuildId, Digest, HumanDuration, Level, RepositoryName, SetName};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

fn hourly() -> HumanDuration {
    HumanDuration::from_secs(3600)
}

/// A signed repository of patches that this cluster may take from.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "invivo.dev",
    version = "v1alpha1",
    kind = "PatchFeed",
    shortname = "pf",
    category = "invivo",
    status = "PatchFeedStatus",
    derive = "PartialEq",
    doc = "A signed repository of patches that this cluster may take from.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("a PatchFeed's name has at most 63 characters"),
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Latest","type":"string","jsonPath":".status.latestSet"}"#,
    printcolumn = r#"{"name":"Expires","type":"string","jsonPath":".status.repository.expires","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PatchFeedSpec {
    /// Where the patches come from.
    pub source: Source,
    /// Whom to believe.
    pub trust: Trust,
    /// How often the patch server looks at the repository (jittered by a tenth). At least 10s.
    #[serde(default = "hourly")]
    #[x_kube(validation = Rule::new("self.matches('[1-9][0-9]*[dhm]|[1-9][0-9]+s')").message("pollInterval must be at least 10s"))]
    pub poll_interval: HumanDuration,
}

/// Where the patches come from.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// A repository of plain files. Only the patch server fetches it.
    pub repository: Repository,
}

/// A repository of plain files.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Repository {
    /// Where `trust/1.json` and the other documents are, `http://` or `https://`. The signatures,
    /// not the connection, decide what is believed.
    #[x_kube(validation = Rule::new("isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHost() != ''")
        .message("url must be an http or https URL with a host"))]
    #[schemars(length(max = 2048))]
    pub url: String,
}

/// Whom to believe.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trust {
    /// SHA-256 of the repository's `trust/1.json`, from its owner by another way than the
    /// repository itself. There is no trust on first use.
    pub root_sha256: Digest,
}

/// What the operator knows of the feed.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PatchFeedStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Reconciling`, `Stalled`; the reason is a named refusal, `Unreachable`, or `Verified`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
    /// The versions seen, below which nothing is accepted any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryStatus>,
    /// The newest eligible set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_set: Option<SetName>,
    /// The kernel builds of this fleet, and what the feed has for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub kernels: Vec<CoveredKernel>,
}

/// The floors: versions seen, below which nothing is accepted any more.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStatus {
    /// The pinned root that these versions were seen from. They say nothing about any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_sha256: Option<Digest>,
    /// The repository's own name.
    pub name: RepositoryName,
    /// Version of the trust document.
    pub trust_version: u64,
    /// Version of the index.
    pub index_version: u64,
    /// Version of the timestamp.
    pub timestamp_version: u64,
    /// When the first of these documents expires; new loads stop then.
    pub expires: Time,
}

impl PatchFeed {
    /// The versions seen from the root that is pinned now.
    pub fn floors(&self) -> Option<&RepositoryStatus> {
        let seen = self.status.as_ref()?.repository.as_ref()?;
        let root = &self.spec.trust.root_sha256;
        // What does not say from which root was written before the root stood there.
        seen.root_sha256.as_ref().is_none_or(|from| from == root).then_some(seen)
    }
}

/// One kernel build of this fleet.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CoveredKernel {
    /// The build.
    pub build_id: BuildId,
    /// What `uname -r` says there.
    pub release: String,
    /// How many nodes run it.
    pub nodes: u32,
    /// Whether the repository has a patch for it.
    pub covered: bool,
    /// The highest eligible level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn feed(seen_from: &Value) -> PatchFeed {
        serde_json::from_value(json!({
            "apiVersion": "invivo.dev/v1alpha1", "kind": "PatchFeed", "metadata": {"name": "production"},
            "spec": {"source": {"repository": {"url": "http://x/"}}, "trust": {"rootSha256": "a".repeat(64)}},
            "status": {"repository": {"rootSha256": seen_from, "name": "patches", "trustVersion": 1,
                "indexVersion": 5, "timestampVersion": 9, "expires": "2027-01-01T00:00:00Z"}}
        }))
        .unwrap()
    }

    #[test]
    fn floors_are_those_of_the_root_that_is_pinned_now() {
        assert_eq!(feed(&json!("a".repeat(64))).floors().map(|seen| seen.index_version), Some(5));
        assert_eq!(feed(&Value::Null).floors().map(|seen| seen.index_version), Some(5));
        assert_eq!(feed(&json!("b".repeat(64))).floors(), None);
    }
}
