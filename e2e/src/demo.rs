//! The whole way, shown: open, canary closed, soak, rest closed, rolled back, closed again.
//!
//! Every line printed was observed. What is not seen in time ends the demonstration with an error.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use invivo_terms::NodeState;
use jiff::Timestamp;
use serde::Serialize;

use crate::Lab;
use crate::check::{Check, Hole};
use crate::fleet::{Fleet, Seen};
use crate::node::Node;
use crate::product::{POLICY, Product};
use crate::prometheus::Prometheus;

/// The recipe that the demonstration builds.
pub const RECIPE: &str = "CVE-2026-53249";
/// The node that is labelled `invivo.dev/canary=true`.
pub const CANARY: &str = "node1";
/// The nodes of the demonstration.
pub const NODES: [&str; 3] = ["node1", "node2", "node3"];
/// From a change of the policy to the last node's report; a node may take a minute under emulation.
const PATIENCE: Duration = Duration::from_mins(5);

/// `target/demo/report.json`
#[derive(Debug, Serialize)]
struct Report {
    nodes: Vec<NodeReport>,
    seconds: BTreeMap<&'static str, f64>,
}

#[derive(Debug, Serialize)]
struct NodeReport {
    name: String,
    kernel: String,
    canary: bool,
    steps: Vec<StepReport>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct StepReport {
    step: StepName,
    at: Timestamp,
    cve: Hole,
    level: u32,
    effective: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum StepName {
    Before,
    Canary,
    Rest,
    RolledBack,
    Again,
}

/// Runs the demonstration on a new lab and leaves that up.
///
/// # Errors
/// When anything is not as it should be.
pub fn run() -> anyhow::Result<()> {
    let mut clock = Clock::new();
    say("everything that the lab needs");
    let lab = Lab::build()?;
    if lab.running() {
        say("an older lab is up: down with it");
        Lab::down(lab.state(), false)?;
    }
    let product = Product::new(&lab)?;
    clock.lap("lab-tools");

    say(&format!("the live patch for {RECIPE}, from Debian's own fixed source"));
    let bundle = product.build_patch(RECIPE)?;
    let repository = product.make_repository("demo", &bundle)?;
    let check = Check::build(&product.recipe(RECIPE))?;
    clock.lap("patch");

    say("the lab: control plane and three nodes; while they boot, images, Prometheus and the repository");
    lab.start(u8::try_from(NODES.len())?)?;
    product.push_images()?;
    lab.prometheus_up()?;
    say("the repository on a plain static server outside the cluster");
    let url = lab.serve("repository", repository.folder(), crate::product::REPOSITORY_PORT)?;
    say("helm install invivo-crds, helm install invivo");
    product.install(&repository.root()?)?;
    lab.wait_up()?;
    clock.lap("lab-up");
    product.wait_installed()?;
    clock.lap("install");

    let story = Story { fleet: Fleet::open(&lab)?, check, nodes: lab.nodes()? };
    for node in &story.nodes {
        story.check.install(&lab, node)?;
    }
    let mut report = story.kernels()?;
    story.observe(StepName::Before, &mut report)?;
    require(&report, StepName::Before, &[], &NODES)?;

    say(&format!("kubectl label node {CANARY} invivo.dev/canary=true"));
    product.kubectl(&["label", "node", CANARY, "invivo.dev/canary=true"])?;
    let feed = product.feed(&url, &repository.root()?);
    apply(&product, &[("patchfeed.yaml", &feed), ("patchpolicy.yaml", &product.policy("Latest"))])?;

    let begun = Instant::now();
    story.wait_closed(&[CANARY])?;
    println!("    {CANARY} closed {:.1} s after kubectl apply", begun.elapsed().as_secs_f64());
    story.observe(StepName::Canary, &mut report)?;
    require(&report, StepName::Canary, &[CANARY], &["node2", "node3"])?;
    clock.lap("canary");

    let until = story.fleet.wait("the canary's soak", PATIENCE, || {
        let status = story.fleet.policy(POLICY)?.status.unwrap_or_default();
        let canary = status.stage.filter(|stage| stage.name == "canary");
        Ok(match canary.and_then(|stage| stage.soak_until) {
            Some(until) => Seen::Answer((until, status.next_action)),
            None => Seen::NotYet("the canary's stage is not soaking".to_owned()),
        })
    })?;
    println!("    the canary soaks until {}: {}", until.0.0, until.1.unwrap_or_default());
    story.wait_closed(&["node2", "node3"])?;
    story.observe(StepName::Rest, &mut report)?;
    require(&report, StepName::Rest, &NODES, &[])?;
    clock.lap("rest");

    say("kubectl get pp,np,ps");
    println!("{}", product.kubectl(&["get", "pp,np,ps"])?);
    story.questions()?;

    say("target: {set: None}");
    apply(&product, &[("patchpolicy.yaml", &product.policy("None"))])?;
    story.wait_open()?;
    story.observe(StepName::RolledBack, &mut report)?;
    require(&report, StepName::RolledBack, &[], &NODES)?;
    clock.lap("roll-back");

    say("target: {set: Latest}");
    apply(&product, &[("patchpolicy.yaml", &product.policy("Latest"))])?;
    story.wait_closed(&NODES)?;
    story.observe(StepName::Again, &mut report)?;
    require(&report, StepName::Again, &NODES, &[])?;
    clock.lap("again");

    let report = Report { nodes: report, seconds: clock.finish() };
    let path = write(&product, "report.json", &serde_json::to_vec_pretty(&report)?)?;
    println!("\n{}", serde_json::to_string(&report.seconds)?);
    println!(
        "\nThe lab is up. Look around:\n  {lab} kubectl get pp,np,ps\n  {lab} query 'invivo_policy_nodes'\n  \
         {lab} exec curl -s {prometheus}/api/v1/targets\n  make demo-clean   ends it\nReport: {path}",
        lab = std::env::current_exe()?.display(),
        prometheus = Prometheus::address(),
        path = path.display(),
    );
    Ok(())
}

struct Story {
    fleet: Fleet,
    check: Check,
    nodes: Vec<Node>,
}

impl Story {
    fn kernels(&self) -> anyhow::Result<Vec<NodeReport>> {
        self.nodes
            .iter()
            .map(|node| {
                let kernel = node.run("uname -r", Duration::from_secs(30))?.text().trim().to_owned();
                Ok(NodeReport {
                    name: node.name().to_owned(),
                    kernel,
                    canary: node.name() == CANARY,
                    steps: Vec::new(),
                })
            })
            .collect()
    }

    /// Asks every kernel itself, and what its agent reported.
    fn observe(&self, step: StepName, report: &mut [NodeReport]) -> anyhow::Result<()> {
        let patches = self.fleet.patches()?;
        println!("  {step:?}:");
        for (node, entry) in self.nodes.iter().zip(report) {
            let status = patches.get(node.name()).and_then(|patch| patch.status.clone());
            let seen = StepReport {
                step,
                at: Timestamp::now(),
                cve: self.check.run(node)?,
                level: status.as_ref().map_or(0, |status| status.level.0),
                effective: status.as_ref().and_then(|status| status.effective.clone()),
            };
            println!(
                "    {} {} {RECIPE} {}; reported: level {} {} {}",
                entry.name,
                entry.kernel,
                seen.cve,
                seen.level,
                seen.effective.as_deref().unwrap_or("-"),
                status.map_or("no report", |status| status.state.as_str()),
            );
            entry.steps.push(seen);
        }
        Ok(())
    }

    fn wait_closed(&self, nodes: &[&str]) -> anyhow::Result<()> {
        self.fleet.wait_states(nodes, &[NodeState::Applied, NodeState::Settled], PATIENCE)
    }

    fn wait_open(&self) -> anyhow::Result<()> {
        self.fleet.wait_states(&NODES, &[NodeState::RolledBack, NodeState::Idle], PATIENCE)
    }

    /// Three questions that a person asks of a fleet, answered by Prometheus.
    fn questions(&self) -> anyhow::Result<()> {
        say("Prometheus");
        // The latest scrape is some seconds old: the first question is asked until it shows all nodes.
        let all = NODES.len().to_string();
        for (promql, wanted) in [
            ("sum by (policy, state) (invivo_policy_nodes{state=~\"current|total\"})", Some(all.as_str())),
            ("count_values by (job) (\"level\", invivo_node_level)", Some(all.as_str())),
            ("max by (feed) (invivo_feed_ready)", None),
        ] {
            let answer = self.fleet.wait(promql, Duration::from_mins(1), || {
                let answer = self.fleet.block_on(Prometheus::query(promql))?;
                let values: Vec<&str> = answer
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|row| row.pointer("/value/1")?.as_str())
                    .collect();
                let there =
                    !values.is_empty() && wanted.is_none_or(|wanted| values.iter().all(|v| *v == wanted));
                Ok(if there { Seen::Answer(answer.clone()) } else { Seen::NotYet(format!("{values:?}")) })
            })?;
            println!("    {promql}");
            for row in answer.as_array().into_iter().flatten() {
                println!(
                    "      {} {}",
                    row.get("metric").map_or_else(String::new, ToString::to_string),
                    row.pointer("/value/1").and_then(serde_json::Value::as_str).unwrap_or("-"),
                );
            }
        }
        Ok(())
    }
}

fn require(report: &[NodeReport], step: StepName, closed: &[&str], open: &[&str]) -> anyhow::Result<()> {
    for (names, wanted) in [(closed, Hole::Closed), (open, Hole::Open)] {
        for name in names {
            let seen = report
                .iter()
                .find(|entry| entry.name == *name)
                .and_then(|entry| entry.steps.iter().find(|seen| seen.step == step))
                .with_context(|| format!("{name} was not looked at"))?;
            if seen.cve != wanted {
                bail!("{step:?}: {name} is {}, not {wanted}", seen.cve);
            }
        }
    }
    Ok(())
}

/// Leaves these objects beside the report and applies them from there, as a person would.
fn apply(product: &Product<'_>, objects: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut arguments = vec!["apply".to_owned()];
    for (name, yaml) in objects {
        let path = write(product, name, yaml.as_bytes())?;
        arguments.extend(["-f".to_owned(), path.display().to_string()]);
    }
    say(&format!("kubectl {}", arguments.join(" ")));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    print!("{}", product.kubectl(&arguments)?);
    Ok(())
}

fn write(product: &Product<'_>, name: &str, content: &[u8]) -> anyhow::Result<PathBuf> {
    let folder = product.tree().join("target/demo");
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let path = folder.join(name);
    std::fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

fn say(what: &str) {
    println!("demo: {what}");
}

/// What each part took.
struct Clock {
    start: Instant,
    last: Instant,
    laps: BTreeMap<&'static str, f64>,
}

impl Clock {
    fn new() -> Self {
        let now = Instant::now();
        Self { start: now, last: now, laps: BTreeMap::new() }
    }

    fn lap(&mut self, name: &'static str) {
        let seconds = self.last.elapsed().as_secs_f64();
        println!("demo: {name} took {seconds:.1} s");
        self.laps.insert(name, round(seconds));
        self.last = Instant::now();
    }

    fn finish(mut self) -> BTreeMap<&'static str, f64> {
        self.laps.insert("total", round(self.start.elapsed().as_secs_f64()));
        self.laps
    }
}

fn round(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}
