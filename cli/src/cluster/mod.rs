//! Looking at a cluster: `status` and `why`.

mod connect;
mod status;
mod why;

pub use connect::{Cluster, ClusterArguments, Connection};
pub use status::Status;
pub use why::{Asked, Plan, PlannedNode, Why};

use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::exit::Failure;
use crate::output::{self, Format};

/// The commands that look at a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Policies, feeds and nodes: how far each is, and why not further.
    Status(StatusArguments),
    /// Why a node is where it is: its instruction, its answer, what holds it and what to do.
    Why(WhyArguments),
}

/// `status`
#[derive(Debug, Args)]
pub struct StatusArguments {
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// `why`
#[derive(Debug, Args)]
pub struct WhyArguments {
    /// The node.
    node: String,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Runs a command.
///
/// # Errors
///
/// The cluster does not answer, or has no such node.
pub async fn run(command: &ClusterCommand, now: Timestamp) -> Result<(), Failure> {
    match command {
        ClusterCommand::Status(arguments) => {
            let cluster = Connection::open(&arguments.cluster).await?.read().await?;
            output::print(arguments.output, &Status::of(&cluster, now))
        }
        ClusterCommand::Why(arguments) => {
            let asked = Connection::open(&arguments.cluster).await?.ask(&arguments.node).await?;
            output::print(arguments.output, &Why::of(&asked, now))
        }
    }
}

#[cfg(test)]
mod tests;
