//! What the lab can be told.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use invivo_e2e::image::NODE_KERNEL;
use invivo_e2e::oci::{Image, Item};
use invivo_e2e::prometheus::Prometheus;
use invivo_e2e::scenario::Choice;
use invivo_e2e::state::State;
use invivo_e2e::{Cache, Lab, network, serve, swarm, targets};

/// A real Kubernetes control plane and real nodes with real kernels, on this machine.
#[derive(Debug, Parser)]
#[command(name = "invivo-lab", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Get and build everything that the lab needs and does not have yet.
    Build,
    /// Bring the lab up and wait until its nodes are Ready.
    Up {
        /// How many nodes.
        #[arg(long, env = "INVIVO_LAB_NODES", default_value_t = 3)]
        nodes: u8,
    },
    /// Take it down: no process and no network namespace stays.
    Down {
        /// Keep the cluster's data and the nodes' disks.
        #[arg(long)]
        keep: bool,
    },
    /// Show what runs.
    Status,
    /// Run kubectl on the lab's cluster.
    Kubectl(Rest),
    /// Run helm on the lab's cluster.
    Helm(Rest),
    /// Run any program in the lab's network, KUBECONFIG set.
    Exec(Rest),
    /// Do something with a node.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Do something with images.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Serve a folder's files at http://10.77.0.1:PORT/.
    Serve {
        /// The folder.
        folder: PathBuf,
        /// The port.
        #[arg(long, default_value_t = 8080)]
        port: u16,
    },
    /// Start or stop Prometheus.
    Prometheus {
        /// What to do.
        action: Switch,
    },
    /// Ask Prometheus.
    Query {
        /// The question, in PromQL.
        promql: String,
    },
    /// Say where the API server's audit log is.
    Audit,
    /// Build the Kubernetes programs and helm; the last line says in which folders they are, separated like PATH.
    Tools,
    /// Show the whole way of one patch on a new lab, which stays up.
    Demo,
    /// Run the scenarios on a new lab.
    Test {
        /// Only those whose name contains this.
        filter: Option<String>,
        #[command(flatten)]
        choice: Choice,
    },
    /// Show the demonstration on a new lab, measure on it, and print a table.
    Bench {
        /// How many seconds the cluster is watched at rest; 600 if left out.
        #[arg(long)]
        rest: Option<u64>,
    },
    /// Show on a control plane of its own that hundreds of simulated nodes are rolled out as promised, measure, and print a table.
    Fleet(swarm::Options),
    /// The list of what Prometheus scrapes.
    #[command(hide = true)]
    ServeTargets {
        /// How to reach the API server.
        kubeconfig: PathBuf,
        /// Address and port.
        address: String,
    },
    /// The server behind `serve`.
    #[command(hide = true)]
    ServeFiles {
        /// The folder.
        folder: PathBuf,
        /// Address and port.
        address: String,
    },
}

#[derive(Debug, clap::Args)]
struct Rest {
    /// Arguments that are passed on.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Switch {
    /// Start it.
    Up,
    /// Stop it.
    Down,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Add a node and wait until it is Ready.
    Add {
        /// Release of its kernel, as Debian names it.
        #[arg(long, default_value = NODE_KERNEL)]
        kernel: String,
        /// Its name; nodeI if left out.
        name: Option<String>,
        /// What its kernel is told besides.
        #[arg(long, default_value = invivo_e2e::node::USUAL)]
        parameters: String,
    },
    /// Panic its kernel. It stays off.
    Crash {
        /// The node.
        name: String,
    },
    /// Cut its power.
    Poweroff {
        /// The node.
        name: String,
        /// Shut it down in order instead.
        #[arg(long)]
        orderly: bool,
    },
    /// Boot it on the disk that it has, and wait until it is Ready.
    PowerOn {
        /// The node.
        name: String,
    },
    /// Cut its power, boot it again, and wait until it is Ready.
    Reset {
        /// The node.
        name: String,
    },
    /// Forget its disk. It must be off.
    Wipe {
        /// The node.
        name: String,
    },
    /// Run a command in a root shell on it; ends with the command's status.
    Exec {
        /// The node.
        name: String,
        /// How many seconds the command may take.
        #[arg(long, default_value_t = 60)]
        timeout: u64,
        /// The command; several words are quoted for the shell, one is a script.
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Copy a file to it.
    Copy {
        /// The node.
        name: String,
        /// The file here.
        file: PathBuf,
        /// Its path there.
        path: String,
    },
    /// Show what its kernel said on the serial port in this boot.
    Log {
        /// The node.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Make the product's images from the programs beside this one and put them into a registry.
    Ship {
        /// As in `image.registry` of the chart, such as registry.example.com/invivo.
        registry: String,
    },
    /// Make an image from files and put it into the lab's registry, registry.lab.
    Push {
        /// NAME:TAG, without the registry's name.
        name: String,
        /// SRC:DEST[:MODE], once for each file; an empty SRC makes a folder.
        #[arg(long = "file", required = true)]
        files: Vec<Item>,
        /// The program and its first arguments; the first file if left out.
        #[arg(long)]
        entrypoint: Vec<String>,
        /// UID or UID:GID.
        #[arg(long, default_value = "65532:65532")]
        user: String,
    },
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    // There is one provider in this program; a second call would find it set.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match arguments.what {
        What::Build => {
            Lab::build()?;
        }
        What::Up { nodes } => {
            Lab::build()?.up(nodes)?;
            println!("lab: up. Try: invivo-lab kubectl get nodes");
        }
        What::Down { keep } => Lab::down(&State::open(&Cache::open()?)?, keep)?,
        What::Status => status()?,
        What::Kubectl(rest) => return pass_on(inside()?.kubectl(), rest),
        What::Helm(rest) => return pass_on(inside()?.helm(), rest),
        What::Exec(rest) => return exec(&inside()?, rest),
        What::Node(command) => return node(command),
        What::Image(ImageCommand::Ship { registry }) => invivo_e2e::shipped::push_to(&registry)?,
        What::Image(ImageCommand::Push { name, files, entrypoint, user }) => {
            let entrypoint = if entrypoint.is_empty() {
                files.iter().take(1).map(|item| format!("/{}", item.path)).collect()
            } else {
                entrypoint
            };
            let image = Image { entrypoint, user, items: files };
            let digest = inside()?.registry().push(&name, &image)?;
            println!("registry.lab/{name} {digest}");
        }
        What::Serve { folder, port } => {
            let folder = folder.canonicalize().with_context(|| format!("find {}", folder.display()))?;
            println!("{}", inside()?.serve(&port.to_string(), &folder, port)?);
        }
        What::Prometheus { action: Switch::Up } => {
            let lab = inside()?;
            lab.prometheus_up()?;
            println!("{}", Prometheus::address());
        }
        What::Prometheus { action: Switch::Down } => inside()?.prometheus().down()?,
        What::Query { promql } => {
            network::enter()?;
            let result = runtime()?.block_on(Prometheus::query(&promql))?;
            println!("{}", serde_json::to_string_pretty(&result)?);
        }
        What::Audit => {
            let state = State::open(&Cache::open()?)?;
            println!("{}", state.path("log/audit.jsonl").display());
        }
        What::Tools => {
            let lab = Lab::build()?;
            let folder = |command: Command| Path::new(command.get_program()).parent().map(Path::to_owned);
            let folders = [folder(lab.kubectl()), folder(lab.helm())];
            println!("{}", std::env::join_paths(folders.into_iter().flatten())?.display());
        }
        What::Demo => invivo_e2e::demo::run()?,
        What::Test { filter, choice } => {
            if !invivo_e2e::scenario::run(filter.as_deref(), choice)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        What::Bench { rest } => invivo_e2e::bench::run(rest)?,
        What::Fleet(options) => swarm::run(options)?,
        What::ServeTargets { kubeconfig, address } => {
            runtime()?.block_on(targets::serve(kubeconfig, &address))?;
        }
        What::ServeFiles { folder, address } => {
            runtime()?.block_on(serve::serve(folder, &address))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The lab, this thread in its network.
fn inside() -> anyhow::Result<Lab> {
    let lab = Lab::open()?;
    network::enter()?;
    Ok(lab)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")
}

/// This process becomes the other program.
fn pass_on(mut command: Command, rest: Rest) -> anyhow::Result<ExitCode> {
    let error = command.args(rest.arguments).exec();
    Err(error).with_context(|| format!("run {}", command.get_program().display()))
}

fn exec(lab: &Lab, rest: Rest) -> anyhow::Result<ExitCode> {
    let mut arguments = rest.arguments.into_iter();
    let program = arguments.next().context("which program?")?;
    let mut command = Command::new(program);
    command.env("KUBECONFIG", lab.pki().path("admin.kubeconfig"));
    pass_on(command, Rest { arguments: arguments.collect() })
}

fn node(command: NodeCommand) -> anyhow::Result<ExitCode> {
    let lab = inside()?;
    match command {
        NodeCommand::Add { kernel, name, parameters } => {
            let node = lab.add_node(&kernel, name.as_deref(), &parameters)?;
            println!("{}", node.name());
        }
        NodeCommand::Crash { name } => lab.node(&name)?.crash()?,
        NodeCommand::Poweroff { name, orderly } => {
            let node = lab.node(&name)?;
            if orderly {
                node.shut_down()?;
            } else {
                node.power_off()?;
            }
        }
        NodeCommand::PowerOn { name } => lab.power_on(&lab.node(&name)?)?,
        NodeCommand::Reset { name } => lab.reset(&lab.node(&name)?)?,
        NodeCommand::Wipe { name } => lab.node(&name)?.wipe()?,
        NodeCommand::Exec { name, timeout, command } => {
            let script = match command.as_slice() {
                [script] => script.clone(),
                words => words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" "),
            };
            let output = lab.node(&name)?.run(&script, Duration::from_secs(timeout))?;
            print!("{}", output.text());
            let status = u8::try_from(output.status).unwrap_or(1);
            return Ok(ExitCode::from(status));
        }
        NodeCommand::Copy { name, file, path } => {
            let output = lab.copy_to(&lab.node(&name)?, &file, &path)?;
            anyhow::ensure!(output.success(), "copy to {name}: {}", output.text());
        }
        NodeCommand::Log { name } => print!("{}", lab.node(&name)?.serial().text()),
    }
    Ok(ExitCode::SUCCESS)
}

fn status() -> anyhow::Result<()> {
    let state = State::open(&Cache::open()?)?;
    let network = if network::exists() { "up" } else { "down" };
    println!("network {} {network}", network::NAMESPACE);
    println!("state   {}", state.root().display());
    for (name, process) in state.processes() {
        match process {
            Some(process) => {
                println!("{name:<26} pid {:<8} {:>5} MiB", process.pid(), process.resident_kib() / 1024);
            }
            None => println!("{name:<26} off"),
        }
    }
    if network::exists() {
        let lab = inside()?;
        let _ = lab.kubectl().args(["get", "nodes", "-o", "wide"]).status();
    }
    Ok(())
}

/// One word of a shell's command line.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_word_reaches_the_shell_as_it_is() {
        assert_eq!(quote("it's $HOME"), r"'it'\''s $HOME'");
    }
}
