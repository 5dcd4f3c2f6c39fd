//! Invivo itself, put into the lab the way a person would: images, patch, repository, charts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use invivo_terms::Level;

use crate::{Cache, Lab, cache, command, progress, shipped};

pub use crate::repository::Repository;

/// Name of the feed in demonstration and scenarios.
pub const FEED: &str = "demo";
/// Name of the policy.
pub const POLICY: &str = "fleet";
/// End of the operator's user name.
pub const OPERATOR: &str = ":invivo-operator";
/// How long the canary is watched.
pub const CANARY_SOAK: Duration = Duration::from_secs(15);
/// How long the rest is watched; short, so that it settles within a scenario.
const REST_SOAK: Duration = Duration::from_secs(5);
/// The port of the plain static server outside the cluster.
pub const REPOSITORY_PORT: u16 = 8000;
/// The set that is published.
pub const SET: &str = "2026-11-21.1";
/// The Secret that gates may name.
pub(crate) const GATE_SECRET: &str = "prometheus-gate";
/// The Service address of the patch server: there is no cluster DNS.
const PATCH_SERVER: &str = "10.79.0.80";
/// The kernel build's lock file.
const KERNEL: &str = "recipes/kernels/6.1.0-47-cloud-amd64.yaml";
/// The tree's programs and charts, and the lab that they go to.
pub struct Product<'a> {
    lab: &'a Lab,
    tree: PathBuf,
    programs: PathBuf,
    work: PathBuf,
}

impl<'a> Product<'a> {
    /// The programs are the ones built beside this one.
    ///
    /// # Errors
    /// When there is no place to work in.
    pub fn new(lab: &'a Lab) -> anyhow::Result<Self> {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("find the tree")?.to_owned();
        let programs = std::env::current_exe()?.parent().context("find the programs")?.to_owned();
        let work = lab.state().folder("product")?;
        Ok(Self { lab, tree, programs, work })
    }

    /// One of the programs that were built beside this one.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// Where the sources are.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// A recipe's folder.
    pub fn recipe(&self, name: &str) -> PathBuf {
        self.tree.join("recipes").join(name)
    }

    /// An empty folder to work in.
    ///
    /// # Errors
    /// When it cannot be emptied or made.
    pub fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.work.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).with_context(|| format!("empty {}", path.display()))?;
        }
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    /// `invivo` with these arguments; what it says is passed on, what it prints is returned.
    ///
    /// # Errors
    /// When it ends with an error.
    pub fn invivo(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Ok(command::output(Command::new(self.program("invivo")).current_dir(&self.tree).args(arguments))?)
    }

    /// kubectl as the cluster's administrator; returns what it prints.
    ///
    /// # Errors
    /// When it ends with an error.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Ok(command::output(self.lab.kubectl().args(arguments))?)
    }

    /// `kubectl invivo` as the cluster's administrator; returns what it prints.
    ///
    /// # Errors
    /// When it ends with an error.
    pub fn kubectl_invivo(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut invivo = Command::new(self.program("invivo"));
        invivo.env("KUBECONFIG", self.lab.pki().path("admin.kubeconfig"));
        Ok(command::output(invivo.args(arguments))?)
    }

    /// `kubectl apply -f` of this text.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn apply(&self, yaml: &str) -> anyhow::Result<()> {
        let path = self.work.join("apply.yaml");
        std::fs::write(&path, yaml).with_context(|| format!("write {}", path.display()))?;
        let path = path.to_string_lossy().into_owned();
        self.kubectl(&["apply", "-f", &path]).map(|_| ())
    }

    /// Builds a recipe's patch as a bundle, from Debian's packages; kept by what it was built from.
    ///
    /// # Errors
    /// When a package cannot be had or a check of the builder fails.
    pub fn build_patch(&self, recipe: &str) -> anyhow::Result<PathBuf> {
        self.build_patch_of(&self.recipe(recipe), SET, Level(1))
    }

    /// The same of a recipe in any folder, as this level of that set.
    ///
    /// # Errors
    /// As for [`Product::build_patch`].
    pub fn build_patch_of(&self, recipe: &Path, set: &str, level: Level) -> anyhow::Result<PathBuf> {
        let level = level.to_string();
        let name = recipe.file_name().unwrap_or_default().to_string_lossy();
        let mut key = cache::Key::new(&name).with("set", set).with("level", &level);
        for folder in [recipe, &self.tree.join("kmod/patch"), &self.tree.join("recipes/kernels")] {
            for path in files(folder)? {
                key = key.with(&path.to_string_lossy(), std::fs::read(folder.join(&path))?);
            }
        }
        let builder = std::fs::read(self.program("invivo")).context("read the builder")?;
        key = key.with("builder", builder);
        let folder = Cache::open()?.make::<anyhow::Error>("patches", &key, |folder| {
            self.run_aloud(&[
                "build",
                &recipe.to_string_lossy(),
                "--kernel",
                KERNEL,
                "--set",
                set,
                "--level",
                &level,
                "--repository",
                FEED,
                "--out",
                &folder.join("patch.bundle").to_string_lossy(),
            ])
        })?;
        Ok(folder.join("patch.bundle"))
    }

    /// Makes a repository of one bundle: three index keys of which two must sign.
    ///
    /// # Errors
    /// When a step of publishing is refused.
    pub fn make_repository(&self, name: &str, bundle: &Path) -> anyhow::Result<Repository> {
        Repository::publish(self, &self.folder(&format!("repository-{name}"))?, bundle)
    }

    /// The repository that [`Product::make_repository`] made earlier.
    ///
    /// # Errors
    /// When there is none.
    pub fn old_repository(&self, name: &str) -> anyhow::Result<Repository> {
        Repository::open(&self.work.join(format!("repository-{name}")))
    }

    /// Puts the four images into the lab's registry.
    ///
    /// # Errors
    /// When a program was not built.
    pub fn push_images(&self) -> anyhow::Result<()> {
        let step = progress::begin("push the images");
        let work = self.folder("images")?;
        shipped::each(&self.programs, &work, |name, image| {
            self.lab.registry().push(name, image)?;
            Ok(())
        })?;
        step.done();
        Ok(())
    }

    /// `helm install` of both charts, with this trust root.
    ///
    /// # Errors
    /// When helm refuses.
    pub fn install(&self, root: &str) -> anyhow::Result<()> {
        let step = progress::begin("helm install");
        let chart = |name: &str| self.tree.join("charts").join(name).to_string_lossy().into_owned();
        self.helm(&["install", "invivo-crds", &chart("invivo-crds"), "--wait"])?;
        self.kubectl(&["create", "namespace", "invivo-system"])?;
        self.kubectl(&[
            "label",
            "namespace",
            "invivo-system",
            "pod-security.kubernetes.io/enforce=privileged",
        ])?;
        self.helm(&[
            "install",
            "invivo",
            &chart("invivo"),
            "--namespace",
            "invivo-system",
            "--set",
            "image.registry=registry.lab",
            "--set",
            &format!("patchServer.clusterIP={PATCH_SERVER}"),
            "--set",
            &format!("loader.leastSettling={}", REST_SOAK.as_secs()),
            "--set",
            &format!("trust.roots[0]={root}"),
            "--set",
            &format!("operator.secrets[0]={GATE_SECRET}"),
        ])?;
        step.done();
        Ok(())
    }

    /// `helm upgrade` of the chart with these values changed; waits until every agent is a new one.
    ///
    /// # Errors
    /// When helm refuses, or an agent does not come up.
    pub fn upgrade(&self, values: &[&str]) -> anyhow::Result<()> {
        let chart = self.tree.join("charts/invivo").to_string_lossy().into_owned();
        let set = values.iter().flat_map(|value| ["--set", value]);
        let arguments: Vec<&str> =
            ["upgrade", "invivo", &chart, "--namespace", "invivo-system", "--reuse-values"]
                .into_iter()
                .chain(set)
                .collect();
        self.helm(&arguments)?;
        let all = ["rollout", "status", "-n", "invivo-system", "ds/invivo-agent", "--timeout=480s"];
        self.kubectl(&all).map(|_| ())
    }

    /// Waits until operator and patch server are ready.
    ///
    /// # Errors
    /// When one does not get ready.
    pub fn wait_installed(&self) -> anyhow::Result<()> {
        let step = progress::begin("wait until operator and patch server are ready");
        for deployment in ["invivo-patch-server", "invivo-operator"] {
            self.kubectl(&[
                "rollout",
                "status",
                "-n",
                "invivo-system",
                &format!("deploy/{deployment}"),
                "--timeout=240s",
            ])?;
        }
        step.done();
        Ok(())
    }

    /// The patch server's address in the cluster.
    pub fn patch_server(&self) -> String {
        format!("http://{PATCH_SERVER}:8080")
    }

    /// The feed of the repository at `url`.
    pub fn feed(&self, url: &str, root: &str) -> String {
        self.feed_named(FEED, url, root)
    }

    /// A feed of any name.
    pub fn feed_named(&self, name: &str, url: &str, root: &str) -> String {
        format!(
            "apiVersion: invivo.dev/v1alpha1\nkind: PatchFeed\nmetadata: {{name: {name}}}\nspec:\n  \
             source: {{repository: {{url: \"{url}\"}}}}\n  trust: {{rootSha256: \"{root}\"}}\n  pollInterval: 10s\n"
        )
    }

    /// The policy with this target.
    pub fn policy(&self, target: &str) -> String {
        self.policy_of(FEED, target)
    }

    /// The policy with another feed.
    pub fn policy_of(&self, feed: &str, target: &str) -> String {
        let stages = format!(
            "    - name: canary\n      \
             nodeSelector: {{matchLabels: {{invivo.dev/canary: \"true\"}}}}\n      soak: {canary}s\n    \
             - name: rest\n      maxParallel: 1\n      soak: {rest}s\n",
            canary = CANARY_SOAK.as_secs(),
            rest = REST_SOAK.as_secs(),
        );
        policy_in(feed, target, &stages)
    }

    /// The policy with this target, for all nodes at the same time and nearly without a soak.
    pub fn policy_at_once(&self, target: &str) -> String {
        policy_in(FEED, target, "    - {name: all, maxParallel: 10, soak: 1s}\n")
    }

    fn run_aloud(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let status = Command::new(self.program("invivo"))
            .current_dir(&self.tree)
            .args(arguments)
            .status()
            .context("start invivo")?;
        if status.success() { Ok(()) } else { bail!("invivo {} ended with {status}", arguments.join(" ")) }
    }

    fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Ok(command::output(self.lab.helm().args(arguments))?)
    }
}

fn policy_in(feed: &str, target: &str, stages: &str) -> String {
    format!(
        "apiVersion: invivo.dev/v1alpha1\nkind: PatchPolicy\nmetadata: {{name: {POLICY}}}\nspec:\n  feed: {feed}\n  \
         target: {{set: \"{target}\"}}\n  rollout:\n    stages:\n{stages}"
    )
}

/// Every file below `folder`, by its path there, sorted.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let path = folder.join(&below);
        for entry in std::fs::read_dir(&path).with_context(|| format!("read {}", path.display()))? {
            let entry = entry?;
            let name = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(name);
            } else {
                found.push(name);
            }
        }
    }
    found.sort();
    Ok(found)
}
