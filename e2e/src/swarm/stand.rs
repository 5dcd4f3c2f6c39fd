//! Where it is shown: API server, charts, repository, operator and patch server, all as processes in
//! a network of their own, so that the usual lab may be up beside it.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use invivo_api::RolloutStatus;
use invivo_feed::document::KernelFacts;
use invivo_feed::sample;
use invivo_terms::{Hold, LABEL_LEVEL, Level, RepositoryName, SetName};
use k8s_openapi::api::core::v1 as core;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};

use super::ledger::{Deed, Ledger};
use crate::audit;
use crate::fleet::{Fleet, Seen};
use crate::network::HOST;
use crate::product::{FEED, POLICY, Product, Repository};
use crate::state::listens;
use crate::{Lab, progress};

/// The namespace that the chart is installed in.
pub(super) const NAMESPACE: &str = "invivo-system";
/// The sets of the repository, one for each level from 1 on, each for both kernel builds.
pub(super) const SETS: [&str; 3] = ["2026-11-21.1", "2026-11-22.1", "2026-11-23.1"];
/// The newest of them.
pub(super) const LATEST: &str = SETS[2];
/// More of them in the test channel, where only who names them, or takes what is being tested, gets them.
const TESTED: [&str; 2] = [FAULTY, LATEST_TEST];
/// One that brings nodes down.
pub(super) const FAULTY: &str = "2026-11-24.1";
/// The newest of all.
pub(super) const LATEST_TEST: &str = "2026-11-25.1";
/// Name of the state folder and, with `invivo-` before it, of the network namespace.
const NAME: &str = "swarm";
const NETWORK: &str = "invivo-swarm";
const OPERATOR: &str = "invivo-operator";
const PATCH_SERVER: &str = "invivo-patch-server";
const REPOSITORY_PORT: u16 = 8000;
/// How long a program may take until it is ready, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// What runs, until it is dropped.
pub(super) struct Stand {
    lab: Lab,
    fleet: Fleet,
    kernels: [KernelFacts; 2],
    /// Once it is published, with its address.
    repository: OnceCell<(Repository, String)>,
}

impl Drop for Stand {
    fn drop(&mut self) {
        if let Err(error) = self.lab.end_without_nodes(NETWORK) {
            eprintln!("lab: {error}");
        }
    }
}

impl Stand {
    /// Starts everything in place of what an earlier run left.
    ///
    /// # Errors
    /// When a part does not start.
    pub(super) fn set() -> anyhow::Result<Self> {
        let lab = Lab::without_nodes(NAME)?;
        lab.end_without_nodes(NETWORK)?;
        let stand = Self { fleet: Fleet::open(&lab)?, lab, kernels: kernels()?, repository: OnceCell::new() };
        let step = progress::begin("start etcd and an API server");
        stand.lab.start_api_server(NETWORK)?;
        step.done();
        stand.begin()?;
        Ok(stand)
    }

    fn begin(&self) -> anyhow::Result<()> {
        let product = self.product()?;
        let step = progress::begin("publish a repository for two kernel builds");
        let repository = self.publish(&product)?;
        step.done();
        product.install(&repository.root()?)?;
        let url = self.lab.serve("repository", repository.folder(), REPOSITORY_PORT)?;
        let step = progress::begin("start patch server and operator");
        let data = self.lab.state().folder("mirror")?;
        let mut patch_server = self.program(&product, PATCH_SERVER)?;
        patch_server
            .env("INVIVO_LISTEN", format!("{HOST}:8080"))
            .env("INVIVO_METRICS", format!("{HOST}:9465"))
            .env("INVIVO_DATA", data);
        self.start(PATCH_SERVER, &mut patch_server, &format!("{HOST}:8080"))?;
        self.start_operator(None)?;
        step.done();
        self.repository.get_or_init(|| (repository, url));
        // Nothing is looked at before there is a node to try the admission policies on.
        self.feed("")
    }

    fn start_operator(&self, limit: Option<usize>) -> anyhow::Result<()> {
        let product = self.product()?;
        let mut operator = self.program(&product, OPERATOR)?;
        operator
            .env("INVIVO_LISTEN", format!("{HOST}:9464"))
            .env("INVIVO_PATCH_SERVER", format!("http://{HOST}:8080"))
            .env("INVIVO_ADMISSION_POLICIES", admission_policies(&product)?)
            .env("INVIVO_LEASE_NAME", OPERATOR)
            .env("POD_NAME", "invivo-operator-0")
            .env("POD_NAMESPACE", NAMESPACE);
        if let Some(limit) = limit {
            operator.env("INVIVO_FLEET_MAX_IN_FLIGHT", limit.to_string());
        }
        self.start(OPERATOR, &mut operator, &format!("{HOST}:9464"))
    }

    /// The operator anew, with this limit over all policies.
    ///
    /// # Errors
    /// When it does not end or not come back.
    pub(super) fn restart_operator(&self, limit: Option<usize>) -> anyhow::Result<()> {
        self.stop_operator()?;
        self.start_operator(limit)
    }

    /// Writes the feed of the repository, with these lines below `spec` besides.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub(super) fn feed(&self, spec: &str) -> anyhow::Result<()> {
        let (repository, url) = self.repository.get().context("no repository yet")?;
        let product = self.product()?;
        product.apply(&(product.feed(url, &repository.root()?) + spec))
    }

    /// The author takes a set back.
    ///
    /// # Errors
    /// When a step of publishing is refused.
    pub(super) fn withdraw(&self, set: &str) -> anyhow::Result<()> {
        let (repository, _) = self.repository.get().context("no repository yet")?;
        repository.withdraw(&self.product()?, set)
    }

    /// Bundles that are true in form and of no use to a kernel.
    fn publish(&self, product: &Product<'_>) -> anyhow::Result<Repository> {
        let folder = product.folder("bundles")?;
        let repository: RepositoryName = FEED.parse()?;
        let mut bundles: Vec<(&str, PathBuf)> = Vec::new();
        for (set, level) in SETS.into_iter().chain(TESTED).zip(1..) {
            for kernel in &self.kernels {
                let bundle = sample::sample(&repository, kernel, &set.parse::<SetName>()?, Level(level))?;
                let bytes = invivo_bundle::pack(&bundle.manifest_bytes, &[(&bundle.name, &bundle.module)])?;
                let path = folder.join(format!("{level}-{}.bundle", kernel.build_id));
                std::fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
                bundles.push((set, path));
            }
        }
        let bundles: Vec<(&str, &Path)> = bundles.iter().map(|(set, path)| (*set, path.as_path())).collect();
        let (stable, tested) = bundles.split_at(SETS.len() * self.kernels.len());
        let repository = Repository::publish_all(product, &product.folder("repository")?, stable)?;
        repository.add_all(product, tested, "test")?;
        Ok(repository)
    }

    /// A program with the token of the chart's account of that name.
    fn program(&self, product: &Product<'_>, name: &str) -> anyhow::Result<Command> {
        let program = product.program(name);
        ensure!(program.exists(), "{} was not built", program.display());
        let kubeconfig = self.account(product, name)?;
        let mut command = Command::new(program);
        command.env("KUBECONFIG", kubeconfig);
        Ok(command)
    }

    fn start(&self, name: &str, command: &mut Command, address: &str) -> anyhow::Result<()> {
        self.lab.state().service(name, command)?;
        Ok(self.lab.state().wait_ready(name, PATIENCE, || listens(address))?)
    }

    /// The kubeconfig of one of the chart's accounts.
    fn account(&self, product: &Product<'_>, name: &str) -> anyhow::Result<PathBuf> {
        let token = product.kubectl(&["create", "token", name, "-n", NAMESPACE, "--duration=24h"])?;
        let authority = self.lab.pki().path("ca.crt");
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: swarm\n  cluster:\n    \
             server: https://{HOST}:6443\n    certificate-authority: {}\nusers:\n- name: {name}\n  user:\n    \
             token: {}\ncontexts:\n- name: swarm\n  context: {{cluster: swarm, user: {name}}}\n\
             current-context: swarm\n",
            authority.display(),
            token.trim(),
        );
        Ok(self.lab.state().write(&format!("pki/{name}.kubeconfig"), kubeconfig)?)
    }

    /// Tree, programs and kubectl.
    ///
    /// # Errors
    /// When there is no place to work in.
    pub(super) fn product(&self) -> anyhow::Result<Product<'_>> {
        Product::new(&self.lab)
    }

    /// The cluster as its administrator sees it.
    pub(super) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// A client of the administrator for another runtime.
    ///
    /// # Errors
    /// When the kubeconfig is not there.
    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        Ok(self.lab.client().await?)
    }

    /// A client with the operator's own account.
    ///
    /// # Errors
    /// When there is no token for it.
    pub(super) async fn operator_client(&self) -> anyhow::Result<Client> {
        let kubeconfig = self.account(&self.product()?, OPERATOR)?;
        let file = Kubeconfig::read_from(kubeconfig)?;
        let options = KubeConfigOptions::default();
        Ok(Client::try_from(kube::Config::from_custom_kubeconfig(file, &options).await?)?)
    }

    /// What the nodes run.
    pub(super) fn kernels(&self) -> &[KernelFacts] {
        &self.kernels
    }

    /// Log of the API server: who asked for what.
    pub(super) fn audit_log(&self) -> PathBuf {
        self.lab.audit_log()
    }

    /// Ends the operator, in order.
    ///
    /// # Errors
    /// When it does not end.
    pub(super) fn stop_operator(&self) -> anyhow::Result<()> {
        Ok(self.lab.state().pid_file(OPERATOR).stop(Duration::from_secs(15))?)
    }

    /// Resident memory of the operator, in KiB.
    pub(super) fn operator_memory(&self) -> Option<u64> {
        Some(self.lab.state().pid_file(OPERATOR).process()?.resident_kib())
    }

    /// Waits until the paused policy knows all its nodes and has a level for each.
    ///
    /// # Errors
    /// When that does not come.
    pub(super) fn wait_known(&self, count: usize) -> anyhow::Result<()> {
        let step = progress::begin("wait until the policy knows every node");
        self.fleet.wait("every node held by the pause alone", super::PATIENCE, || {
            let holds = self.fleet.policy(POLICY)?.status.unwrap_or_default().holds;
            let paused = holds.iter().find(|hold| hold.reason == Hold::Paused).map(|hold| hold.nodes);
            let all = paused.is_some_and(|nodes| usize::try_from(nodes).is_ok_and(|nodes| nodes == count));
            Ok(if all { Seen::Answer(()) } else { Seen::NotYet(format!("{holds:?}")) })
        })?;
        let nodes: Api<core::Node> = Api::all(self.fleet.client());
        let unpatched = ListParams::default().labels(&format!("{LABEL_LEVEL}=0"));
        self.fleet.wait("a label on every node", super::PATIENCE, || {
            let labelled = self.fleet.block_on(nodes.list_metadata(&unpatched))?.items.len();
            Ok(if labelled == count { Seen::Answer(()) } else { Seen::NotYet(labelled.to_string()) })
        })?;
        step.done();
        Ok(())
    }

    /// Waits until the policy's rollout to this set is complete and all nodes have it.
    ///
    /// # Errors
    /// When that does not come.
    pub(super) fn wait_complete(&self, set: &str, count: usize) -> anyhow::Result<()> {
        self.wait_complete_within(set, count, super::PATIENCE)
    }

    /// The same, with this patience.
    ///
    /// # Errors
    /// When that does not come.
    pub(super) fn wait_complete_within(
        &self,
        set: &str,
        count: usize,
        patience: Duration,
    ) -> anyhow::Result<()> {
        self.fleet.wait(&format!("every node at {set}"), patience, || {
            let status = self.fleet.policy(POLICY)?.status.unwrap_or_default();
            let ends = |rollout: &RolloutStatus| rollout.key.target == set && rollout.complete;
            let current = status.nodes.as_ref().map_or(0, |nodes| nodes.current);
            Ok(if status.rollout.as_ref().is_some_and(ends) && usize::try_from(current)? == count {
                Seen::Answer(())
            } else {
                Seen::NotYet(format!("{current} nodes, {:?}, {:?}", status.next_action, status.holds))
            })
        })
    }

    /// What was written since the audit log was so long, once every node has settled and has its
    /// labels.
    ///
    /// # Errors
    /// When that does not come.
    pub(super) fn settled_ledger(&self, begun: u64, count: usize) -> anyhow::Result<Ledger> {
        self.fleet.wait("every node's last writes", super::PATIENCE, || {
            let ledger = Ledger::of(&audit::read_from(&self.audit_log(), begun)?);
            let settled = ledger
                .reports()
                .filter(|line| matches!(&line.deed, Deed::Reported { state, .. } if state == "Settled"))
                .count();
            let labels = ledger.labels.len();
            Ok(if settled >= count && labels >= count {
                Seen::Answer(ledger)
            } else {
                Seen::NotYet(format!("{settled} settled, {labels} labelled"))
            })
        })
    }
}

/// The two kernel builds of the fleet.
fn kernels() -> anyhow::Result<[KernelFacts; 2]> {
    let older = sample::kernel('a')?;
    let newer = KernelFacts {
        release: "6.1.0-48-cloud-amd64".to_owned(),
        version: "6.1.172-1".to_owned(),
        ..sample::kernel('b')?
    };
    Ok([older, newer])
}

/// What the chart tells the operator to demand.
fn admission_policies(product: &Product<'_>) -> anyhow::Result<String> {
    product.kubectl(&[
        "get",
        "deployment",
        OPERATOR,
        "-n",
        NAMESPACE,
        "-o",
        "jsonpath={.spec.template.spec.containers[0].env[?(@.name==\"INVIVO_ADMISSION_POLICIES\")].value}",
    ])
}
