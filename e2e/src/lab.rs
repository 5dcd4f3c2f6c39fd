//! The whole lab: what it needs, its start, its end.

mod alone;
mod ready;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use invivo_guest::{Accelerator, Output};
use k8s_openapi::api::core::v1 as core;
use kube::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::cache::{self, Cache};
use crate::controlplane::{ControlPlane, PARTS};
use crate::gotools::{self, GoTools};
use crate::image::{self, Kernel, NODE_KERNEL, OTHER_KERNEL, RootImage};
use crate::network;
use crate::node::{self, Node};
use crate::packages::{self, Packages};
use crate::pki::{self, Pki};
use crate::progress;
use crate::prometheus::{self, Prometheus};
use crate::registry::{self, Registry};
use crate::state::{self, State};
use crate::targets;

pub use ready::{boot_id, is_ready};

/// Why the lab did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// The state.
    #[error(transparent)]
    State(#[from] state::Error),
    /// A package.
    #[error(transparent)]
    Packages(#[from] packages::Error),
    /// The programs written in Go.
    #[error(transparent)]
    GoTools(#[from] gotools::Error),
    /// An image to boot from.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// The network.
    #[error(transparent)]
    Network(#[from] network::Error),
    /// A certificate.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// A node.
    #[error(transparent)]
    Node(#[from] node::Error),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// Prometheus.
    #[error(transparent)]
    Prometheus(#[from] prometheus::Error),
    /// A process.
    #[error(transparent)]
    Process(#[from] invivo_guest::process::Error),
    /// The file that says how to reach the API server.
    #[error("read the kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The API server.
    #[error("ask the API server: {0}")]
    Api(#[from] kube::Error),
    /// The runtime for questions to it.
    #[error("start the runtime: {0}")]
    Runtime(std::io::Error),
    /// A node did not come.
    #[error("not Ready after {waited:?}: {nodes}")]
    NotReady {
        /// Which.
        nodes: String,
        /// How long was waited.
        waited: Duration,
    },
}

/// A lab that has all it needs, whether it is up or not.
#[derive(Debug, Clone)]
pub struct Lab {
    cache: Cache,
    state: State,
    tools: GoTools,
    pki: Pki,
}

/// How long nodes may take until they are Ready, all at once on two processors.
const BOOT: Duration = Duration::from_mins(10);

impl Lab {
    /// Gets and builds what is not in the cache. Must not be called in the lab's network.
    ///
    /// # Errors
    /// When something cannot be had or built.
    pub fn build() -> Result<Self, Error> {
        let lab = Self::open()?;
        for release in [NODE_KERNEL, OTHER_KERNEL] {
            lab.kernel(release)?;
        }
        lab.prometheus().fetch()?;
        Ok(lab)
    }

    /// The lab, built as far as it must be to run.
    ///
    /// # Errors
    /// When something cannot be had or built.
    pub fn open() -> Result<Self, Error> {
        let lab = Self::of(Cache::open()?, State::open)?;
        lab.root()?;
        Ok(lab)
    }

    fn of(cache: Cache, state: impl FnOnce(&Cache) -> Result<State, state::Error>) -> Result<Self, Error> {
        Packages::new(&cache).install()?;
        let tools = GoTools::build(&cache)?;
        let state = state(&cache)?;
        let pki = Pki::open(&state.path("pki"))?;
        Ok(Self { cache, state, tools, pki })
    }

    /// What nodes boot from, made if need be.
    fn root(&self) -> Result<RootImage, Error> {
        Ok(RootImage::build(&self.cache, &self.tools)?)
    }

    fn control_plane(&self) -> ControlPlane<'_> {
        ControlPlane { tools: &self.tools, state: &self.state, pki: &self.pki }
    }

    /// Starts the control plane, the registry and `nodes` nodes, and waits until all are Ready.
    /// What runs already is left alone. The calling thread is in the lab's network afterwards.
    ///
    /// # Errors
    /// When a part does not start, or a node does not get Ready.
    pub fn up(&self, nodes: u8) -> Result<(), Error> {
        self.start(nodes)?;
        self.wait_up()
    }

    /// The first half of [`Lab::up`]: the API server answers, the nodes boot.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn start(&self, nodes: u8) -> Result<(), Error> {
        let kernel = self.kernel(NODE_KERNEL)?;
        let step = progress::begin(format!("start {nodes} nodes"));
        if !self.running() {
            self.forget()?;
        }
        network::up()?;
        network::enter()?;
        self.control_plane().up()?;
        let accelerator = Accelerator::detect();
        let root = self.root()?;
        let missing = usize::from(nodes).saturating_sub(self.nodes()?.len());
        for _ in 0..missing {
            node::add(&self.state, &self.pki, NODE_KERNEL, None, node::USUAL)?;
        }
        let mut started = 0;
        for node in self.nodes()? {
            let kernel = if node.description.kernel == kernel.release {
                kernel.clone()
            } else {
                self.kernel(&node.description.kernel)?
            };
            node.power_on(accelerator, &root, &kernel)?;
            started += 1;
        }
        step.note(&format!("{started} guests started ({accelerator:?})"));
        self.registry().up()?;
        step.done();
        Ok(())
    }

    /// The second half of [`Lab::up`]: waits until every node is Ready.
    ///
    /// # Errors
    /// When a node does not get Ready.
    pub fn wait_up(&self) -> Result<(), Error> {
        let names = self.nodes()?.iter().map(|node| (node.name().to_owned(), None)).collect();
        self.wait_ready(names, BOOT)
    }

    /// Ends every process of the lab and removes its network. Logs, images and the registry's
    /// content stay; the cluster and the nodes' disks do not, unless `keep`.
    ///
    /// # Errors
    /// When a process does not end.
    pub fn down(state: &State, keep: bool) -> Result<(), Error> {
        let step = progress::begin("take the lab down");
        stop_all(state)?;
        network::down()?;
        if !keep {
            for name in ["etcd", "nodes", "run", "prometheus"] {
                state.remove(name)?;
            }
        }
        step.done();
        Ok(())
    }

    /// Stops the API server, does `meanwhile`, and starts it again, whatever came of that.
    ///
    /// # Errors
    /// When it cannot be stopped or does not come back, or `meanwhile` fails.
    pub fn without_api_server(&self, meanwhile: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.state.pid_file("kube-apiserver").stop(Duration::from_secs(3))?;
        let done = meanwhile();
        self.control_plane().api_server_up()?;
        done
    }

    /// Whether any process of the lab runs.
    pub fn running(&self) -> bool {
        self.state.processes().iter().any(|(_, process)| process.is_some())
    }

    /// Adds a node and waits until it is Ready.
    ///
    /// # Errors
    /// When it cannot be added or does not get Ready.
    pub fn add_node(&self, release: &str, name: Option<&str>, parameters: &str) -> Result<Node, Error> {
        self.kernel(release)?;
        let node = node::add(&self.state, &self.pki, release, name, parameters)?;
        self.power_on(&node)?;
        Ok(node)
    }

    /// Boots a node and waits until the kubelet of that boot says Ready. A node that is on already
    /// is only waited for.
    ///
    /// # Errors
    /// When it does not start or does not get Ready.
    pub fn power_on(&self, node: &Node) -> Result<(), Error> {
        if node.process().is_some() {
            return self.wait_ready(vec![(node.name().to_owned(), None)], BOOT);
        }
        let step = progress::begin(format!("boot {}", node.name()));
        let before = Self::block_on(async {
            let nodes: Api<core::Node> = Api::all(self.client().await?);
            Ok::<_, Error>(nodes.get_opt(node.name()).await?.map(|node| boot_id(&node)))
        })??;
        self.start_guest(node)?;
        self.wait_ready(vec![(node.name().to_owned(), before)], BOOT)?;
        step.done();
        Ok(())
    }

    fn start_guest(&self, node: &Node) -> Result<(), Error> {
        let kernel = self.kernel(&node.description.kernel)?;
        Ok(node.power_on(Accelerator::detect(), &self.root()?, &kernel)?)
    }

    /// Cuts a node's power and boots it again on the disk that it has.
    ///
    /// # Errors
    /// As [`Lab::power_on`].
    pub fn reset(&self, node: &Node) -> Result<(), Error> {
        node.power_off()?;
        self.power_on(node)
    }

    /// Copies a file of this machine to `path` on a node, over the lab's network.
    ///
    /// # Errors
    /// When the file cannot be served or the node cannot fetch it.
    pub fn copy_to(&self, node: &Node, file: &Path, path: &str) -> Result<Output, Error> {
        let name = format!("copy-{}", std::process::id());
        let served = self.state.path(&format!("files/{name}"));
        std::fs::copy(file, &served).map_err(|source| state::Error::Io {
            what: "copy",
            path: file.to_owned(),
            source,
        })?;
        self.serve("files", &self.state.path("files"), FILES_PORT)?;
        let address = format!("http://{}:{FILES_PORT}/{name}", network::HOST);
        let output = node.run(
            &format!("mkdir -p \"$(dirname '{path}')\" && curl -sSf -o '{path}' {address}"),
            Duration::from_mins(2),
        );
        self.state.remove(&format!("files/{name}"))?;
        Ok(output?)
    }

    /// Serves the files below `folder` at `http://10.77.0.1:PORT/` with a process of its own.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve(&self, name: &str, folder: &Path, port: u16) -> Result<String, Error> {
        let address = format!("{}:{port}", network::HOST);
        let arguments = [folder.as_os_str(), address.as_ref()];
        self.own_service(&format!("serve-{name}"), "serve-files", &arguments, &address)?;
        Ok(format!("http://{address}/"))
    }

    /// Starts Prometheus, and beside it the list of what it scrapes.
    ///
    /// # Errors
    /// When one of them does not start.
    pub fn prometheus_up(&self) -> Result<(), Error> {
        let kubeconfig = self.pki.path("admin.kubeconfig");
        let address = targets::ADDRESS;
        let arguments = [kubeconfig.as_os_str(), address.as_ref()];
        self.own_service("serve-targets", "serve-targets", &arguments, address)?;
        Ok(self.prometheus().up()?)
    }

    /// A service that is this very program with other arguments.
    fn own_service(
        &self,
        service: &str,
        command: &str,
        arguments: &[&OsStr],
        address: &str,
    ) -> Result<(), Error> {
        let here = std::env::current_exe().map_err(|source| state::Error::Io {
            what: "find",
            path: PathBuf::from("invivo-lab"),
            source,
        })?;
        // A scenario is another program in the same folder.
        let program = here.with_file_name("invivo-lab");
        self.state.service(service, Command::new(program).arg(command).args(arguments))?;
        self.state.wait_ready(service, Duration::from_secs(20), || state::listens(address))?;
        Ok(())
    }

    /// A kernel, made if need be.
    ///
    /// # Errors
    /// When Debian has no such kernel.
    pub fn kernel(&self, release: &str) -> Result<Kernel, Error> {
        Ok(Kernel::build(&self.cache, release)?)
    }

    /// All nodes.
    ///
    /// # Errors
    /// When one's description cannot be read.
    pub fn nodes(&self) -> Result<Vec<Node>, Error> {
        Ok(node::all(&self.state)?)
    }

    /// The node of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, name: &str) -> Result<Node, Error> {
        Ok(node::find(&self.state, name)?)
    }

    /// The lab's registry of images.
    pub fn registry(&self) -> Registry<'_> {
        Registry { tools: &self.tools, state: &self.state }
    }

    /// The lab's Prometheus.
    pub fn prometheus(&self) -> Prometheus<'_> {
        Prometheus { cache: &self.cache, state: &self.state }
    }

    /// What this lab keeps.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Its certificates.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// Log of the API server: who asked for what.
    pub fn audit_log(&self) -> PathBuf {
        self.state.path("log/audit.jsonl")
    }

    /// kubectl as the cluster's administrator, still without arguments.
    pub fn kubectl(&self) -> Command {
        self.administrator("kubectl")
    }

    /// helm as the cluster's administrator, still without arguments.
    pub fn helm(&self) -> Command {
        self.administrator("helm")
    }

    fn administrator(&self, program: &str) -> Command {
        let mut command = Command::new(self.tools.program(program));
        command.env("KUBECONFIG", self.pki.path("admin.kubeconfig"));
        command
    }

    /// A client of the API server as the cluster's administrator. The calling thread must be in the
    /// lab's network.
    ///
    /// # Errors
    /// When the kubeconfig is not there.
    pub async fn client(&self) -> Result<kube::Client, Error> {
        let file = Kubeconfig::read_from(self.pki.path("admin.kubeconfig"))?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(file, &options).await?;
        Ok(kube::Client::try_from(config)?)
    }

    fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Error> {
        Ok(tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::Runtime)?
            .block_on(future))
    }

    /// A new cluster begins without anything of the last one.
    fn forget(&self) -> Result<(), Error> {
        for name in ["etcd", "nodes", "log", "run", "prometheus"] {
            self.state.remove(name)?;
        }
        for name in ["nodes", "log", "run"] {
            self.state.folder(name)?;
        }
        Ok(())
    }
}

/// The port of the server from which nodes fetch what is copied to them.
const FILES_PORT: u16 = 5080;

/// Ends every process that has a pid file: guests and clients first, the control plane last and in
/// reverse order.
fn stop_all(state: &State) -> Result<(), Error> {
    let mut names: Vec<String> = state.processes().into_iter().map(|(name, _)| name).collect();
    names.sort_by_key(|name| PARTS.iter().position(|part| part == name).map_or(0, |at| PARTS.len() - at));
    for name in names {
        let patience = if PARTS.contains(&name.as_str()) || name == "prometheus" {
            // The API server would drain for a minute.
            Duration::from_secs(3)
        } else {
            Duration::from_millis(500)
        };
        state.pid_file(&name).stop(patience)?;
    }
    Ok(())
}
