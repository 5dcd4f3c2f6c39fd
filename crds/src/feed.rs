//! `PatchFeed`: what may come in, and when.

use invivo_terms::{
    ApprovalMode, Block, BuildId, Date, Digest, FeedChannel, FeedRules, HumanDuration, Level, RepositoryName,
    SetName,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// How often a repository is looked at where nothing else is said.
const HOURLY: HumanDuration = HumanDuration::from_secs(3600);

/// What may come in, from where, and when: a signed repository of patches, or another feed's sets,
/// filtered again.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "invivo.dev",
    version = "v1alpha1",
    kind = "PatchFeed",
    shortname = "pf",
    category = "invivo",
    status = "PatchFeedStatus",
    derive = "PartialEq",
    doc = "What may come in, from where, and when: a signed repository of patches, or another feed's sets.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("a PatchFeed's name has at most 63 characters"),
    validation = Rule::new("!has(self.spec.source.feed) || self.spec.source.feed != self.metadata.name")
        .message("a feed cannot take from itself"),
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Latest","type":"string","jsonPath":".status.latestSet"}"#,
    printcolumn = r#"{"name":"Expires","type":"string","jsonPath":".status.repository.expires","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(
    validation = Rule::new("has(self.source.repository) == has(self.trust)")
        .message("trust is needed with source.repository, and not given with source.feed: that feed's own counts"),
    validation = Rule::new("has(self.source.repository) || !has(self.pollInterval)")
        .message("pollInterval is not given with source.feed: nothing is fetched for such a feed")
)]
#[serde(rename_all = "camelCase")]
pub struct PatchFeedSpec {
    /// Where the patches come from.
    pub source: Source,
    /// Whom to believe. Needed with `source.repository`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<Trust>,
    /// `Stable` takes the sets whose tests are finished, `Test` also the others.
    #[serde(default)]
    pub channel: FeedChannel,
    /// A set is withheld until this long after its release, by the earlier of two clocks.
    #[serde(default)]
    pub delay: HumanDuration,
    /// A sticky date, such as `2026-05-31`: only sets released on or before that day (UTC) are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date"))]
    pub as_of: Option<Date>,
    /// Whether people must approve a set before it may be rolled out. A rejection always counts.
    #[serde(default)]
    pub approval: Approval,
    /// How often the patch server looks at the repository (jittered by a tenth): 1h where nothing
    /// is said, at least 10s. Only with `source.repository`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('[1-9][0-9]*[dhm]|[1-9][0-9]+s')").message("pollInterval must be at least 10s"))]
    pub poll_interval: Option<HumanDuration>,
    /// Nothing new comes in: the patch server does not look, and no load starts from this feed nor
    /// from one over it. What is on the nodes stays.
    #[serde(default)]
    pub suspend: bool,
}

/// Where the patches come from: exactly one of the two.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.repository) != has(self.feed)").message("exactly one of repository and feed"))]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// A repository of plain files. Only the patch server fetches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// Another PatchFeed, whose sets are filtered again: what that one withholds, this one does too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub feed: Option<String>,
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

/// Whether people must approve a set.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("self.mode == 'Manual' || !has(self.required)").message("required is for mode Manual"))]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// `Manual`: a set waits for approvals in its PatchSet. `Automatic`: it does not.
    #[serde(default)]
    pub mode: ApprovalMode,
    /// How many people must approve, 1 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub required: Option<u32>,
}

/// What the operator knows of the feed.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PatchFeedStatus {
    /// The generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Reconciling`, `Stalled`; the reason is a named refusal, `Unreachable`, `Suspended`,
    /// `FeedNotFound`, `FeedCycle`, `ExpiresSoon` or `Verified`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub conditions: Vec<Condition>,
    /// The versions seen, below which nothing is accepted any more. Of a feed over another one they
    /// stand there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryStatus>,
    /// The newest eligible set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_set: Option<SetName>,
    /// The kernel builds of this fleet, and what the feed has for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub kernels: Vec<CoveredKernel>,
    /// The sets that are withheld, and why; the newest first, at most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub blocked: Vec<BlockedSet>,
}

/// A set that is withheld.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockedSet {
    /// Its name.
    pub set: SetName,
    /// Why; of several reasons the gravest.
    pub reason: Block,
    /// When that ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
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
    /// The pinned root; none for a feed over another one.
    pub fn root(&self) -> Option<&Digest> {
        self.spec.trust.as_ref().map(|trust| &trust.root_sha256)
    }

    /// How often its repository is looked at.
    pub fn poll_interval(&self) -> HumanDuration {
        self.spec.poll_interval.unwrap_or(HOURLY)
    }

    /// What it asks of a set.
    pub fn rules(&self) -> FeedRules {
        FeedRules {
            channel: self.spec.channel,
            delay: self.spec.delay,
            as_of: self.spec.as_of.clone(),
            required: match self.spec.approval.mode {
                ApprovalMode::Automatic => 0,
                ApprovalMode::Manual => self.spec.approval.required.unwrap_or(1).max(1),
            },
        }
    }

    /// The versions seen from the root that is pinned now.
    pub fn floors(&self) -> Option<&RepositoryStatus> {
        let seen = self.status.as_ref()?.repository.as_ref()?;
        let root = self.root()?;
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
    /// What a scanner may believe of a node at that level, such as `6.1.170-3+invivo4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 160))]
    pub effective: Option<String>,
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

    #[test]
    fn what_is_not_said_is_stable_at_once_without_approval_and_every_hour() {
        let feed = feed(&Value::Null);
        assert_eq!(feed.rules(), FeedRules::default());
        assert_eq!(feed.poll_interval().to_string(), "1h");
    }

    #[test]
    fn manual_asks_for_one_approval_where_no_number_is_said() {
        for (approval, required) in [
            (json!({}), 0),
            (json!({"mode": "Automatic"}), 0),
            (json!({"mode": "Manual"}), 1),
            (json!({"mode": "Manual", "required": 2}), 2),
        ] {
            let mut feed = feed(&Value::Null);
            feed.spec.approval = serde_json::from_value(approval).unwrap();
            assert_eq!(feed.rules().required, required);
        }
    }
}
