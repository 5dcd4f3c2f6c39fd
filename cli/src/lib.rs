//! The command line: `invivo` for those who make and check repositories, and as `kubectl-invivo`
//! for those who run a cluster.
//!
//! Exit codes: [`Exit`].

pub mod build;
mod bundle;
pub mod clear;
pub mod cluster;
mod completion;
pub mod exit;
pub mod output;
mod reference;
pub mod repo;
mod source;
pub mod supply;
pub mod table;
pub mod time;
pub mod verify;

use std::ffi::OsString;
use std::path::Path;

use clap::{Args, CommandFactory, Parser, Subcommand};
use jiff::Timestamp;

pub use exit::Exit;

use cluster::ClusterCommand;
use exit::Failure;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 error; 2 wrong command line; 3 something was not believed (a named \
    refusal); 4 a server or the cluster did not answer; 5 what was named is not there; 6 the cluster does not allow \
    it; 7 what was asked about is not in order.";

/// Live kernel patches: build them, publish them, check them, see where they are.
#[derive(Debug, Parser)]
#[command(name = "invivo", version, after_help = EXIT_CODES)]
struct Invivo {
    #[command(subcommand)]
    command: Command,
}

/// Live kernel patches in this cluster: where they are, and why not further.
#[derive(Debug, Parser)]
#[command(name = "kubectl-invivo", bin_name = "kubectl invivo", version, after_help = EXIT_CODES)]
struct Plugin {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a repository, step by step.
    Repo(repo::RepoArguments),
    /// Build a recipe for a kernel: a bundle.
    Build(build::BuildArguments),
    /// Work through all fixes between two versions of a distribution's kernel
    Supply(supply::SupplyArguments),
    /// Forget what is held against bundles on this node. For root, on the node itself.
    ClearVerdict(clear::ClearArguments),
    /// Check a whole repository as a node would, every bundle included.
    Verify(verify::VerifyArguments),
    #[command(flatten)]
    Cluster(ClusterCommand),
    /// Write a shell's completion script: `source <(invivo completion bash)`.
    Completion(CompletionArguments),
}

/// `invivo completion`
#[derive(Debug, Args)]
struct CompletionArguments {
    /// The shell.
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Every command of `invivo` as Markdown: `docs/reference/cli.md`.
pub fn reference() -> String {
    reference::page(Invivo::command())
}

/// Runs the command line `arguments`, whose first word is the program's name.
pub fn run(arguments: &[OsString], now: Timestamp) -> Exit {
    if is_named(arguments, completion::KUBECTL) {
        let words: Vec<_> =
            arguments.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        output::write(&completion::answer(&Plugin::command(), &words));
        return Exit::Done;
    }
    let result = parse(arguments).and_then(|command| match command {
        Command::Repo(arguments) => repo::run(&arguments, now).map(|()| Exit::Done),
        Command::Build(arguments) => build::run(&arguments).map(|()| Exit::Done),
        Command::Supply(arguments) => supply::run(&arguments).map(|()| Exit::Done),
        Command::ClearVerdict(arguments) => clear::run(&arguments).map(|()| Exit::Done),
        Command::Verify(arguments) => wait(verify::run(&arguments, now)),
        Command::Cluster(command) => wait(cluster::run(&command, now)),
        Command::Completion(arguments) => {
            let mut script = Vec::new();
            clap_complete::generate(arguments.shell, &mut Invivo::command(), "invivo", &mut script);
            output::write(&String::from_utf8_lossy(&script));
            Ok(Exit::Done)
        }
    });
    match result {
        Ok(exit) => exit,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("invivo: {}", failure.message);
            }
            failure.exit
        }
    }
}

/// Whether the program was called by this name.
fn is_named(arguments: &[OsString], name: &str) -> bool {
    arguments
        .first()
        .and_then(|program| Path::new(program).file_name())
        .is_some_and(|program| program == name)
}

fn parse(arguments: &[OsString]) -> Result<Command, Failure> {
    let parsed = if is_named(arguments, "kubectl-invivo") {
        Plugin::try_parse_from(arguments).map(|plugin| Command::Cluster(plugin.command))
    } else {
        Invivo::try_parse_from(arguments).map(|invivo| invivo.command)
    };
    parsed.map_err(|error| {
        // Help and version come as errors too; clap knows where each goes.
        let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
        let _ = error.print();
        Failure { exit, ..Failure::error("") }
    })
}

fn wait<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::of(&e))?
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_lines_are_well_formed() {
        Invivo::command().debug_assert();
        Plugin::command().debug_assert();
    }

    #[test]
    fn the_plugin_offers_the_cluster_commands_alone() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert!(matches!(
            parse(&words("/usr/bin/kubectl-invivo why node-1")),
            Ok(Command::Cluster(ClusterCommand::Why(_)))
        ));
        assert!(matches!(
            parse(&words("invivo status -o json")),
            Ok(Command::Cluster(ClusterCommand::Status(_)))
        ));
        assert!(matches!(parse(&words("invivo repo show desk")), Ok(Command::Repo(_))));
        for wrong in
            ["kubectl-invivo repo show desk", "invivo", "invivo verify x --root 12", "invivo status -o xml"]
        {
            assert_eq!(parse(&words(wrong)).map(drop).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
        for right in [
            "kubectl-invivo approve 2026-11-21.1 --reason tested",
            "kubectl-invivo expedite workers --set 2026-11-21.1 --reason exploited --for 2h",
            "kubectl-invivo hold node-1 --reason debugging --for 12h -o yaml",
            "kubectl-invivo rollback workers --to None --dry-run",
            "kubectl-invivo watch workers --wait --timeout 1h",
            "kubectl-invivo stop",
        ] {
            assert!(parse(&words(right)).is_ok(), "{right}");
        }
        for wrong in [
            "kubectl-invivo approve 2026-11-21.1",
            "kubectl-invivo rollback workers --to Latest",
            "kubectl-invivo watch --wait",
            "kubectl-invivo hold node-1 --reason x --for 12",
        ] {
            assert_eq!(parse(&words(wrong)).map(drop).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
        assert_eq!(parse(&words("invivo --version")).map(drop).unwrap_err().exit, Exit::Done);
    }
}
