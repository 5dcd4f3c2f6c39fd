//! `invivo-lab`: a real control plane and real nodes on this machine.

mod cli;

use clap::Parser;

fn main() -> anyhow::Result<std::process::ExitCode> {
    cli::run(cli::Arguments::parse())
}
