//! `invivo`, and `kubectl-invivo`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let now = jiff::Timestamp::now();
    // Whole seconds: everything that is compared with it has them.
    let now = jiff::Timestamp::from_second(now.as_second()).unwrap_or(now);
    invivo_cli::run(&arguments, now).into()
}
