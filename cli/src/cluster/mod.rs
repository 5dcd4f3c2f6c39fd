//! A cluster: looking at it, deciding about sets, braking.

mod approve;
mod ask;
mod change;
mod command;
mod connect;
mod expedite;
mod history;
mod hold;
mod object;
mod pause;
mod person;
mod plan;
mod preflight;
mod progress;
mod rollback;
mod status;
mod stop;
mod unseen;
mod watch;
mod why;

pub use change::Changed;
pub use command::ChangeCommand;
pub use connect::{Cluster, ClusterArguments, Connection};
pub use history::History;
pub use plan::{Plan, PlannedNode};
pub use preflight::Preflight;
pub use progress::Progress;
pub use status::Status;
pub use unseen::Unseen;
pub use why::{Asked, Why};

use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::exit::{Exit, Failure};
use crate::output::{self, Format};
use object::Kind;

/// The commands for a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Policies, feeds and nodes: how far each is, and why not further.
    Status(StatusArguments),
    /// Why a node is where it is: its instruction, its answer, what holds it and what to do.
    Why(WhyArguments),
    /// The whole plan of a policy, node by node, as the operator has it.
    Plan(plan::PlanArguments),
    /// Live progress by stage; a line for each change where this is no terminal.
    Watch(watch::WatchArguments),
    /// The rollouts of a policy that have ended, and how.
    History(history::HistoryArguments),
    /// Before anything is installed: whether each node can be patched, and whether a repository
    /// covers its kernel.
    Preflight(preflight::PreflightArguments),
    /// Those that change something.
    #[command(flatten)]
    Change(ChangeCommand),
}

/// Which cluster, and in which form to answer.
#[derive(Debug, Default, Args)]
pub struct Call {
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// How a change is made.
#[derive(Debug, Default, Args)]
pub struct Writing {
    /// Ask the API server whether it would take the change, and keep nothing.
    #[arg(long)]
    dry_run: bool,
}

/// `status`
#[derive(Debug, Args)]
pub struct StatusArguments {
    #[command(flatten)]
    call: Call,
}

/// `why`
#[derive(Debug, Args)]
pub struct WhyArguments {
    /// The node.
    node: String,
    #[command(flatten)]
    call: Call,
}

impl ClusterCommand {
    fn call(&self) -> &Call {
        match self {
            Self::Status(a) => &a.call,
            Self::Why(a) => &a.call,
            Self::Plan(a) => &a.call,
            Self::Watch(a) => &a.call,
            Self::History(a) => &a.call,
            Self::Preflight(a) => &a.call,
            Self::Change(command) => command.call(),
        }
    }
}

/// Runs a command.
///
/// # Errors
///
/// The cluster does not answer, does not allow it, or what was named is not there.
pub async fn run(command: &ClusterCommand, now: Timestamp) -> Result<Exit, Failure> {
    let connection = Connection::open(&command.call().cluster).await?;
    run_on(&connection, command, now).await
}

/// Runs a command on a cluster that a way is open to.
///
/// # Errors
///
/// See [`run`].
pub async fn run_on(
    connection: &Connection,
    command: &ClusterCommand,
    now: Timestamp,
) -> Result<Exit, Failure> {
    let output = command.call().output;
    match command {
        ClusterCommand::Status(_) => output::print(output, &Status::of(&connection.read().await?, now))?,
        ClusterCommand::Why(a) => output::print(output, &Why::of(&connection.ask(&a.node).await?, now))?,
        ClusterCommand::Plan(a) => {
            connection.object(Kind::Policy, &a.policy).await?;
            output::print(output, &connection.plan(&a.policy).await?)?;
        }
        ClusterCommand::History(a) => {
            let policy = connection.object(Kind::Policy, &a.policy).await?;
            output::print(output, &History::of(&policy, now))?;
        }
        ClusterCommand::Preflight(a) => {
            let preflight = preflight::look(connection, a, now).await?;
            output::print(output, &preflight)?;
            return Ok(preflight.exit());
        }
        ClusterCommand::Watch(a) => return watch::watch(connection, a).await,
        ClusterCommand::Change(command) => output::print(output, &command.run(connection, now).await?)?,
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests;
