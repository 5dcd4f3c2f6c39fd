//! Tables for people, JSON and YAML for machines.

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
    /// The same fields as YAML.
    Yaml,
}

/// Prints `answer` in the form asked for.
///
/// # Errors
///
/// It cannot be written in that form.
pub fn print<T: Serialize + Display>(format: Format, answer: &T) -> Result<(), Failure> {
    write(&text(format, answer)?);
    Ok(())
}

/// `answer` in the form asked for.
///
/// # Errors
///
/// It cannot be written in that form.
pub fn text<T: Serialize + Display>(format: Format, answer: &T) -> Result<String, Failure> {
    match format {
        Format::Table => Ok(answer.to_string()),
        Format::Json => {
            serde_json::to_string_pretty(answer).map(|text| text + "\n").map_err(|e| Failure::of(&e))
        }
        // By way of JSON's values, so that both forms hold the same.
        Format::Yaml => serde_json::to_value(answer)
            .map_err(|e| Failure::of(&e))
            .and_then(|value| serde_saphyr::to_string(&value).map_err(|e| Failure::of(&e))),
    }
}

/// Writes to standard output. A reader that has gone away (`| head`) is no error.
pub fn write(text: &str) {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
}
