//! `invivo clear-verdict`: a person on the node says that it was something else. Nothing that comes
//! over the network can say so.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use invivo_wire::{Answer, Request, Verdict, ask};
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{Format, print};

/// Where a node keeps the folders of its pods.
const PODS: &str = "/var/lib/kubelet/pods";
/// The socket's place in the folder of the agent's pod.
const SOCKET: &str = "volumes/kubernetes.io~empty-dir/run/loader.sock";
/// The loader may be busy with its own start.
const PATIENCE: Duration = Duration::from_mins(1);

/// Arguments of `invivo clear-verdict`.
#[derive(Debug, Args)]
pub struct ClearArguments {
    /// The loader's socket; looked for among the node's pods where it is not given.
    #[arg(long)]
    socket: Option<PathBuf>,
    /// In which form to answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What is no longer held against anything.
#[derive(Debug, Serialize)]
struct Cleared {
    cleared: Vec<Verdict>,
}

impl fmt::Display for Cleared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cleared.is_empty() {
            return writeln!(f, "no bundle was suspected or convicted on this node");
        }
        for verdict in &self.cleared {
            let word = verdict.judgement.as_str();
            writeln!(
                f,
                "level {} of set {}: {word} since {}; cleared",
                verdict.level, verdict.set, verdict.since
            )?;
            if let Some(evidence) = &verdict.evidence {
                writeln!(f, "  {}", evidence.excerpt)?;
            }
        }
        writeln!(f, "the next instruction may load it again")
    }
}

/// Runs it.
///
/// # Errors
///
/// No loader on this node; the caller is not root.
pub fn run(arguments: &ClearArguments) -> Result<(), Failure> {
    let sockets = match &arguments.socket {
        Some(socket) => vec![socket.clone()],
        None => sockets(Path::new(PODS)),
    };
    let mut silent = Failure::unreachable(format!(
        "no loader listens below {PODS}\n  run this as root on the node, while the agent's pod runs"
    ));
    for socket in &sockets {
        match ask(socket, &Request::ClearVerdicts, &[], PATIENCE) {
            Ok(Answer::Cleared { verdicts }) => {
                return print(arguments.output, &Cleared { cleared: verdicts });
            }
            Ok(Answer::Refused { detail }) => {
                return Err(Failure::refused(format!("the loader refuses: {detail}")));
            }
            Ok(Answer::State(state)) => {
                let why = state.message.unwrap_or_else(|| "it gave no reason".to_owned());
                return Err(Failure::error(format!("nothing was cleared: {why}")));
            }
            // What a pod that is gone left behind, or somebody else's socket.
            Err(error) => {
                silent = Failure::unreachable(crate::exit::chain(&error))
                    .while_doing(&socket.display().to_string());
            }
        }
    }
    Err(silent)
}

/// The sockets that there are below the folder of the node's pods.
fn sockets(pods: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(pods).into_iter().flatten().flatten();
    entries.map(|pod| pod.path().join(SOCKET)).filter(|socket| socket.exists()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_socket_is_found_among_the_pods_of_the_node() {
        let pods = tempfile::tempdir().unwrap();
        assert!(sockets(pods.path()).is_empty());
        for pod in ["other", "agent"] {
            fs::create_dir_all(pods.path().join(pod).join("volumes/kubernetes.io~empty-dir/run")).unwrap();
        }
        fs::write(pods.path().join("agent").join(SOCKET), "").unwrap();
        assert_eq!(sockets(pods.path()), [pods.path().join("agent").join(SOCKET)]);
    }

    #[test]
    fn a_node_without_a_loader_is_said_to_have_none() {
        let missing = ClearArguments { socket: Some("/nonexistent".into()), output: Format::Table };
        assert_eq!(run(&missing).unwrap_err().exit, crate::Exit::Unreachable);
    }
}
