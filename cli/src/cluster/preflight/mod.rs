//! `preflight`: what Invivo would find, before anything of it is installed.

mod facts;
mod probe;

use facts::Facts;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use clap::Args;
use invivo_api::{NodePatch, Signing};
use invivo_feed::document::{Index, SetStatus};
use invivo_terms::{BuildId, Digest, Level, Mechanism, SetName};
use invivo_transport::Options;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use serde::Serialize;

use super::Call;
use super::connect::Connection;
use crate::exit::{Exit, Failure};
use crate::source::Source;
use crate::table::{Table, printable};

/// `preflight`
#[derive(Debug, Args)]
pub struct PreflightArguments {
    /// The repository that would be used: a URL, or a folder.
    #[arg(long, requires = "root")]
    repository: Option<String>,
    /// The digest of the repository's trust/1.json.
    #[arg(long, requires = "repository")]
    root: Option<Digest>,
    /// PEM file with certificates to trust besides the usual ones.
    #[arg(long, env = "INVIVO_EXTRA_CA")]
    extra_ca: Option<PathBuf>,
    /// Look at each node from a short-lived pod without any right, which this image runs: it needs
    /// sh, od, tr and head. Without it, what Node objects do not say is unknown.
    #[arg(long, value_name = "IMAGE", num_args = 0..=1, default_missing_value = "busybox:stable")]
    probe: Option<String>,
    /// Namespace for these pods.
    #[arg(long, default_value = "default", value_name = "NAMESPACE")]
    probe_namespace: String,
    #[command(flatten)]
    pub(super) call: Call,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preflight {
    /// When this was looked at.
    pub now: Timestamp,
    /// The repository that was compared with.
    pub repository: Option<String>,
    /// The nodes.
    pub nodes: Vec<NodeLine>,
}

/// One node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeLine {
    /// Its name.
    pub name: String,
    /// As the kubelet says it: `amd64`.
    pub architecture: String,
    /// The distribution, as the kubelet says it.
    pub os: String,
    /// `uname -r`.
    pub kernel: String,
    /// What is in the repository for it.
    pub coverage: Coverage,
    /// What was seen in the node's kernel; fields that could not be seen are null.
    #[serde(flatten)]
    pub facts: Facts,
    /// What to make of all that.
    pub verdict: Verdict,
    /// Why, for people.
    pub notes: Vec<String>,
}

/// What a repository has for a node's kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "is")]
pub enum Coverage {
    /// A level for this very build.
    Covered {
        /// The highest active one.
        level: Level,
        /// The set it comes with.
        set: SetName,
    },
    /// Builds of this release; whether this one is among them is not known.
    Listed,
    /// Nothing.
    NotCovered,
    /// No repository was named.
    Unknown,
}

/// What to make of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// It can be patched.
    Ready,
    /// It can be patched if its kernel trusts the key that signs the modules.
    CheckKey,
    /// Something that decides it could not be seen.
    Unknown,
    /// The repository has nothing for its kernel.
    NotCovered,
    /// Something stands in the way.
    Blocked,
    /// Invivo does not support such nodes.
    Unsupported,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::CheckKey => "CheckKey",
            Self::Unknown => "Unknown",
            Self::NotCovered => "NotCovered",
            Self::Blocked => "Blocked",
            Self::Unsupported => "Unsupported",
        }
    }

    const fn is_trouble(self) -> bool {
        match self {
            Self::Ready | Self::CheckKey | Self::Unknown => false,
            Self::NotCovered | Self::Blocked | Self::Unsupported => true,
        }
    }
}

/// Looks at the cluster's nodes.
///
/// # Errors
///
/// The API server does not answer or does not let nodes be read; the repository is not believed.
pub(super) async fn look(
    connection: &Connection,
    asked: &PreflightArguments,
    now: Timestamp,
) -> Result<Preflight, Failure> {
    let nodes: Vec<Node> = connection.list("nodes").await?;
    let source = match (&asked.repository, &asked.root) {
        (Some(place), Some(root)) => {
            let extra_ca = match &asked.extra_ca {
                Some(path) => Some(crate::repo::file(path, "read --extra-ca", 1 << 20)?),
                None => None,
            };
            let options = Options { extra_ca, ..Options::default() };
            Some(Source::look(place, root, options, now).await?)
        }
        (Some(_) | None, _) => None,
    };
    // Where Invivo is there already its agents have told; before that the kind does not exist.
    let told: Vec<NodePatch> = match connection.list("NodePatches").await {
        Ok(told) => told,
        Err(failure) if matches!(failure.exit, Exit::Missing | Exit::Denied) => Vec::new(),
        Err(failure) => return Err(failure),
    };
    let mut seen: BTreeMap<String, Result<Facts, String>> =
        told.iter().filter_map(|patch| Some((patch.name_any(), Ok(from_agent(patch)?)))).collect();
    if let Some(image) = &asked.probe {
        let probing = probe::Probing::new(&asked.probe_namespace, image);
        let names = nodes.iter().filter(|node| is_supported(node)).map(ResourceExt::name_any).collect();
        for (node, facts) in probe::probe(&connection.client, &probing, names).await? {
            // What an agent has told is worth more than a probe that did not get through.
            if facts.is_ok() || !seen.contains_key(&node) {
                seen.insert(node, facts);
            }
        }
    }
    let index = source.as_ref().map(|source| source.catalogue().index());
    Ok(Preflight::of(&nodes, index, &seen, now))
}

/// Whether it is a node that Invivo is made for.
fn is_supported(node: &Node) -> bool {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    info.is_some_and(|info| info.operating_system == "linux" && info.architecture == "amd64")
}

/// What the agent has reported.
fn from_agent(patch: &NodePatch) -> Option<Facts> {
    let kernel = patch.status.as_ref()?.kernel.as_ref()?;
    let lockdown = match kernel.signing {
        Signing::Off => Some("none".to_owned()),
        Signing::Lockdown => Some("integrity".to_owned()),
        Signing::Enforced => None,
    };
    Some(Facts {
        build_id: Some(kernel.build_id.clone()),
        release: Some(kernel.release.clone()),
        livepatch: Some(kernel.supports.contains(&Mechanism::Livepatch)),
        signatures: Some(kernel.signing != Signing::Off),
        lockdown,
        ..Facts::default()
    })
}

impl Preflight {
    /// Of these nodes and what was seen on them.
    pub fn of(
        nodes: &[Node],
        index: Option<&Index>,
        seen: &BTreeMap<String, Result<Facts, String>>,
        now: Timestamp,
    ) -> Self {
        let repository = index.map(|index| index.repository.to_string());
        Self { now, repository, nodes: nodes.iter().map(|node| line(node, index, seen)).collect() }
    }

    /// How the command ends.
    pub fn exit(&self) -> Exit {
        if self.nodes.iter().any(|node| node.verdict.is_trouble()) { Exit::Trouble } else { Exit::Done }
    }
}

fn line(node: &Node, index: Option<&Index>, seen: &BTreeMap<String, Result<Facts, String>>) -> NodeLine {
    let name = node.name_any();
    let info = node.status.as_ref().and_then(|status| status.node_info.clone()).unwrap_or_default();
    let mut notes = Vec::new();
    let mut facts = match seen.get(&name) {
        Some(Ok(facts)) => facts.clone(),
        Some(Err(why)) => {
            notes.push(format!("not probed: {why}"));
            Facts::default()
        }
        None => Facts::default(),
    };
    if facts.release.as_ref().is_some_and(|release| *release != info.kernel_version) {
        // The kubelet reports its kernel when it starts: the answer is of another boot.
        notes.push("the kubelet and the node name different kernels; look again".to_owned());
        facts = Facts::default();
    }
    let coverage = coverage(index, &info.kernel_version, facts.build_id.as_ref());
    let verdict = if is_supported(node) {
        judge(&coverage, &facts, &mut notes)
    } else {
        notes.push(format!("{} on {}", info.operating_system, info.architecture));
        Verdict::Unsupported
    };
    NodeLine {
        name,
        architecture: info.architecture,
        os: info.os_image,
        kernel: info.kernel_version,
        coverage,
        facts,
        verdict,
        notes,
    }
}

fn coverage(index: Option<&Index>, release: &str, build: Option<&BuildId>) -> Coverage {
    let Some(index) = index else { return Coverage::Unknown };
    let Some(build) = build else {
        let listed = index.kernels.values().any(|kernel| kernel.release == release);
        return if listed { Coverage::Listed } else { Coverage::NotCovered };
    };
    let active = index.sets.iter().filter(|set| set.status == SetStatus::Active);
    let levels = active.filter_map(|set| Some((set.kernels.get(build)?.level, set.name.clone())));
    levels
        .max_by_key(|(level, _)| *level)
        .map_or(Coverage::NotCovered, |(level, set)| Coverage::Covered { level, set })
}

/// What stands in the way comes first, then what is not known.
fn judge(coverage: &Coverage, facts: &Facts, notes: &mut Vec<String>) -> Verdict {
    let before = notes.len();
    if facts.livepatch == Some(false) {
        notes.push("its kernel is built without CONFIG_LIVEPATCH".to_owned());
    }
    if facts.modules_disabled == Some(true) {
        notes.push("kernel.modules_disabled is 1: no module loads until the next boot".to_owned());
    }
    let foreign: Vec<_> =
        facts.patches.iter().flatten().filter(|name| !name.starts_with("invivo_l")).collect();
    if !foreign.is_empty() {
        let names: Vec<_> = foreign.iter().map(|name| name.as_str()).collect();
        notes.push(format!("live patches of others are loaded: {}", names.join(", ")));
    }
    if notes.len() > before {
        return Verdict::Blocked;
    }
    if *coverage == Coverage::NotCovered {
        return Verdict::NotCovered;
    }
    let locked = facts.lockdown.as_deref().is_some_and(|lockdown| lockdown != "none");
    if facts.signatures == Some(true) || locked {
        notes.push("its kernel takes only modules that a key of its own trust has signed".to_owned());
    }
    match coverage {
        Coverage::Unknown | Coverage::Listed | Coverage::NotCovered => Verdict::Unknown,
        Coverage::Covered { .. } if facts.livepatch.is_none() => Verdict::Unknown,
        Coverage::Covered { .. } if facts.signatures == Some(true) || locked => Verdict::CheckKey,
        Coverage::Covered { .. } if facts.signatures.is_none() || facts.lockdown.is_none() => {
            notes.push(
                "whether it demands signed modules (Secure Boot, lockdown) is not to be seen from here"
                    .to_owned(),
            );
            Verdict::CheckKey
        }
        Coverage::Covered { .. } => Verdict::Ready,
    }
}

fn said(answer: Option<bool>) -> String {
    match answer {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    }
    .to_owned()
}

impl fmt::Display for Preflight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&[
            "NODE",
            "KERNEL",
            "OS",
            "BUILD",
            "COVERED",
            "LIVEPATCH",
            "SIGNED",
            "LOCKDOWN",
            "LSM",
            "FOREIGN",
            "VERDICT",
        ]);
        for node in &self.nodes {
            let facts = &node.facts;
            let build = facts.build_id.as_ref().map(|build| build.as_str().chars().take(12).collect());
            let unknown = || "unknown".to_owned();
            table.row([
                node.name.clone(),
                node.kernel.clone(),
                node.os.clone(),
                build.unwrap_or_else(unknown),
                match &node.coverage {
                    Coverage::Covered { level, set } => format!("level {level} ({set})"),
                    Coverage::Listed => "release listed".to_owned(),
                    Coverage::NotCovered => "no".to_owned(),
                    Coverage::Unknown => unknown(),
                },
                said(facts.livepatch),
                said(facts.signatures),
                facts.lockdown.clone().unwrap_or_else(unknown),
                if facts.livepatch.is_none() { unknown() } else { facts.security_modules.join(" ") },
                facts.patches.as_ref().map_or_else(unknown, |patches| patches.join(" ")),
                node.verdict.as_str().to_owned(),
            ]);
        }
        write!(f, "{table}")?;
        for node in &self.nodes {
            for note in &node.notes {
                writeln!(f, "  {}: {}", node.name, printable(note))?;
            }
        }
        match &self.repository {
            Some(repository) => writeln!(f, "\nCompared with repository {repository}."),
            None => writeln!(
                f,
                "\nNo repository was compared with: --repository <URL or folder> --root <digest>."
            ),
        }
    }
}

#[cfg(test)]
mod tests;
