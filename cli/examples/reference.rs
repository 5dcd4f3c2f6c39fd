//! Prints `docs/reference/cli.md`.

fn main() {
    print!("{}", invivo_cli::reference());
}
