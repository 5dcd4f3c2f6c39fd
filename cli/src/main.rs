//! `invivo`, and `kubectl-invivo`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    invivo_cli::run(std::env::args_os().collect(), jiff::Timestamp::now()).into()
}
