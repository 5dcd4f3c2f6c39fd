//! A fleet without machines: a real API server with its etcd, the real operator and the real patch
//! server, and hundreds of nodes of which only the objects and the agents' words are there.
//!
//! Operator and patch server run with the chart's accounts, so that its roles and admission policies
//! hold for them as they do in production. An agent speaks as the chart's account for agents with
//! the claims of its own node, by impersonation: a token for each would need a pod on each.
//! Nobody looks after nodes and pods: there is no controller manager, no scheduler and no kubelet.

mod agents;
mod bare;
mod dead;
mod gate;
mod ledger;
mod nodes;
mod race;
mod rest;
mod staged;
mod stand;
mod table;
mod trial;

use std::time::Duration;

use agents::Swarm;
use gate::Gate;
use stand::Stand;
use table::Table;

/// How large the fleets are and how long is watched.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Instead of all that: the short rollouts whose names contain this.
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "")]
    trials: Option<String>,
    /// Nodes of the fleet that is brought through four stages with a gate; 0 leaves it out.
    #[arg(long, default_value_t = 500)]
    nodes: usize,
    /// Nodes of the fleet that is brought through four stages as fast as it goes; 0 leaves it out.
    #[arg(long, default_value_t = 1000)]
    large: usize,
    /// How many seconds the first fleet is watched at rest.
    #[arg(long, default_value_t = 600)]
    rest: u64,
}

/// One rollout of one of these fleets, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(5);

/// Shows that a fleet is rolled out as promised, measures on it, and prints a table.
///
/// # Errors
/// When a promise is broken or something does not answer.
pub fn run(options: Options) -> anyhow::Result<()> {
    let stand = Stand::set()?;
    let swarm = Swarm::begin(&stand)?;
    let mut table = Table::default();
    let gate = swarm.block_on(Gate::serve())?;
    if let Some(filter) = options.trials {
        return trial::run(&stand, &swarm, &gate, &filter);
    }
    let outcome = show(&stand, &swarm, &gate, &options, &mut table);
    table.print();
    outcome
}

fn show(
    stand: &Stand,
    swarm: &Swarm,
    gate: &Gate,
    options: &Options,
    table: &mut Table,
) -> anyhow::Result<()> {
    if options.nodes > 0 {
        let fleet = nodes::make(stand, swarm, options.nodes)?;
        staged::show(stand, swarm, gate, &fleet, table)?;
        rest::watch(stand, &fleet, Duration::from_secs(options.rest), table)?;
        dead::show(stand, swarm, &fleet, table)?;
        nodes::remove(stand, swarm)?;
    }
    if options.large > 0 {
        let fleet = nodes::make(stand, swarm, options.large)?;
        let ours = race::run(stand, swarm, &fleet, table)?;
        stand.stop_operator()?;
        bare::run(stand, swarm, &fleet, ours, table)?;
    }
    Ok(())
}
