//! `invivo clear-verdict`: a person on the node says that it was something else. Nothing that comes
//! over the network can say so.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use invivo_wire::{Answer, ROOT_SOCKET, Request, STATE_FOLDER, Verdict, ask};
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{Format, print};

/// The loader may be busy with its own start.
const PATIENCE: Duration = Duration::from_mins(1);

/// Arguments of `invivo clear-verdict`.
#[derive(Debug, Args)]
pub struct ClearArguments {
    /// The node's folder for the loader's journal, with its socket for root.
    #[arg(long, default_value = STATE_FOLDER)]
    state: PathBuf,
    /// In which form to answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What is no longer held against anything.
#[derive(Debug, Serialize)]
struct Cleared {
    cleared: Vec<Verdict>,
}

impl fmt::Display for Cleared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cleared.is_empty() {
            return writeln!(f, "no bundle was suspected or convicted on this node");
        }
        for verdict in &self.cleared {
            let word = verdict.judgement.as_str();
            writeln!(
                f,
                "level {} of set {}: {word} since {}; cleared",
                verdict.level, verdict.set, verdict.since
            )?;
            if let Some(evidence) = &verdict.evidence {
                writeln!(f, "  {}", evidence.excerpt)?;
            }
        }
        writeln!(f, "the next instruction may load it again")
    }
}

/// Runs it.
///
/// # Errors
///
/// No loader on this node; the caller is not root.
pub fn run(arguments: &ClearArguments) -> Result<(), Failure> {
    let socket = arguments.state.join(ROOT_SOCKET);
    match ask(&socket, &Request::ClearVerdicts, &[], PATIENCE) {
        Ok(Answer::Cleared { verdicts }) => print(arguments.output, &Cleared { cleared: verdicts }),
        Ok(Answer::Refused { detail }) => Err(Failure::refused(format!("the loader refuses: {detail}"))),
        Ok(Answer::State(state)) => {
            let why = state.message.unwrap_or_else(|| "it gave no reason".to_owned());
            Err(Failure::error(format!("nothing was cleared: {why}")))
        }
        Err(error) => {
            let advice = "run this as root on the node, while the agent's pod runs";
            let failure = Failure::unreachable(format!("{}\n  {advice}", crate::exit::chain(&error)));
            Err(failure.while_doing(&socket.display().to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_without_a_loader_is_said_to_have_none() {
        let missing = ClearArguments { state: "/nonexistent".into(), output: Format::Table };
        assert_eq!(run(&missing).unwrap_err().exit, crate::Exit::Unreachable);
    }
}
