//! Tables for people, JSON for machines.

use std::fmt::Display;

use clap::ValueEnum;
use serde::Serialize;

use crate::exit::Failure;

/// In which form a command answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables and sentences. Their look may change.
    #[default]
    Table,
    /// JSON. Its fields stay.
    Json,
}

/// Prints `answer` in the form asked for.
///
/// # Errors
///
/// It cannot be written as JSON.
pub fn print<T: Serialize + Display>(format: Format, answer: &T) -> Result<(), Failure> {
    let text = match format {
        Format::Table => answer.to_string(),
        Format::Json => serde_json::to_string_pretty(answer).map_err(|e| Failure::of(&e))? + "\n",
    };
    write(&text);
    Ok(())
}

/// Writes to standard output. A reader that has gone away (`| head`) is no error.
pub fn write(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
