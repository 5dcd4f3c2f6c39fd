//! A lab with Invivo in it, as scenarios find it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use invivo_terms::NodeState;
use jiff::Timestamp;

use crate::audit::{self, Event};
use crate::check::{Check, Hole};
use crate::demo::{CANARY, NODES, RECIPE};
use crate::fleet::Fleet;
use crate::node::Node;
use crate::product::{POLICY, Product, REPOSITORY_PORT, Repository};
use crate::rebundle::ByHand;
use crate::{Lab, network};

/// One node, from its start to its report, under emulation and with others at work.
pub(crate) const PATIENCE: Duration = Duration::from_mins(8);

/// A lab with Invivo in it.
pub(crate) struct Stage<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) product: Product<'a>,
    pub(crate) fleet: Fleet,
    pub(crate) check: Check,
    pub(crate) repository: Repository,
    pub(crate) url: String,
}

impl<'a> Stage<'a> {
    pub(crate) fn set(lab: &'a Lab) -> anyhow::Result<Self> {
        let product = Product::new(lab)?;
        let bundle = product.build_patch(RECIPE)?;
        let repository = product.make_repository("test", &bundle)?;
        let check = Check::build(&product.recipe(RECIPE))?;
        lab.start(u8::try_from(NODES.len())?)?;
        product.push_images()?;
        lab.prometheus_up()?;
        let url = lab.serve("repository", repository.folder(), REPOSITORY_PORT)?;
        product.install(&repository.root()?)?;
        lab.wait_up()?;
        product.wait_installed()?;
        let stage = Self { lab, product, fleet: Fleet::open(lab)?, check, repository, url };
        stage.product.kubectl(&["label", "--overwrite", "node", CANARY, "invivo.dev/canary=true"])?;
        for node in NODES {
            stage.check.install(lab, &stage.node(node)?)?;
        }
        Ok(stage)
    }

    /// The stage that an earlier run left.
    pub(crate) fn join(lab: &'a Lab) -> anyhow::Result<Self> {
        network::enter()?;
        let product = Product::new(lab)?;
        let repository = product.old_repository("test")?;
        let check = Check::build(&product.recipe(RECIPE))?;
        let url = lab.serve("repository", repository.folder(), REPOSITORY_PORT)?;
        Ok(Self { lab, product, fleet: Fleet::open(lab)?, check, repository, url })
    }

    /// No patch on any node, agents at work, the feed believed.
    pub(crate) fn calm(&self) -> anyhow::Result<()> {
        self.product.apply(&self.product.feed(&self.url, &self.repository.root()?))?;
        self.target_at_once("None")?;
        self.fleet.wait_feed(crate::product::FEED, "True", "Verified", PATIENCE)?;
        self.fleet.wait_at_target(POLICY, "None", PATIENCE)?;
        for node in NODES {
            self.require(node, Hole::Open)?;
        }
        Ok(())
    }

    pub(crate) fn node(&self, name: &str) -> anyhow::Result<Node> {
        Ok(self.lab.node(name)?)
    }

    /// The name of the pod in which a node's agent runs.
    pub(crate) fn agent_on(&self, node: &str) -> anyhow::Result<String> {
        self.product.kubectl(&[
            "get",
            "pods",
            "-n",
            "invivo-system",
            "-l",
            "app.kubernetes.io/name=invivo-agent",
            "--field-selector",
            &format!("spec.nodeName={node}"),
            "-o",
            "jsonpath={.items[0].metadata.name}",
        ])
    }

    /// The kernel itself is asked.
    pub(crate) fn require(&self, node: &str, wanted: Hole) -> anyhow::Result<()> {
        let seen = self.check.run(&self.node(node)?)?;
        if seen == wanted { Ok(()) } else { bail!("{node} is {seen}, not {wanted}") }
    }

    pub(crate) fn target(&self, target: &str) -> anyhow::Result<()> {
        self.product.apply(&self.product.policy(target))
    }

    /// Publishes a patch by hand, in the test channel, so that only who names its set gets it.
    pub(crate) fn publish(&self, by_hand: &ByHand<'_>) -> anyhow::Result<()> {
        let folder = self.product.folder(&format!("by-hand-{}", by_hand.set))?;
        let bundle = by_hand.make(&self.product.build_patch(RECIPE)?, &folder)?;
        self.repository.add(&self.product, &bundle, by_hand.set, "test")
    }

    /// For all nodes at the same time: where the stages are not what is tried.
    pub(crate) fn target_at_once(&self, target: &str) -> anyhow::Result<()> {
        self.product.apply(&self.product.policy_at_once(target))
    }

    pub(crate) fn wait_closed(&self, nodes: &[&str]) -> anyhow::Result<()> {
        self.fleet.wait_states(nodes, &[NodeState::Applied, NodeState::Settled], PATIENCE)?;
        nodes.iter().try_for_each(|node| self.require(node, Hole::Closed))
    }

    /// What the API server was asked since `since`, and granted.
    pub(crate) fn audit(&self, since: Timestamp) -> anyhow::Result<Vec<Event>> {
        let log: PathBuf = self.lab.audit_log();
        Ok(audit::read(&log)
            .context("read the audit log")?
            .into_iter()
            .filter(|event| event.request_received_timestamp >= since && event.granted())
            .collect())
    }

    /// What a person would look at after a failure.
    pub(crate) fn explain(&self) {
        for arguments in [
            &["get", "pf,pp,np,ps", "-o", "wide"][..],
            &["get", "pods", "-n", "invivo-system", "-o", "wide"],
            &["get", "pp,pf", "-o", "jsonpath={range .items[*]}{.kind}{\" \"}{.status}{\"\\n\"}{end}"],
            &["logs", "-n", "invivo-system", "deploy/invivo-operator", "--tail=30"],
            &[
                "logs",
                "-n",
                "invivo-system",
                "ds/invivo-agent",
                "--all-containers",
                "--all-pods",
                "--tail=15",
            ],
        ] {
            match self.product.kubectl(arguments) {
                Ok(text) => println!("$ kubectl {}\n{text}", arguments.join(" ")),
                Err(error) => println!("$ kubectl {}: {error:#}", arguments.join(" ")),
            }
        }
    }
}
