//! `invivo repo`: making a repository, step by step, each key holder for themselves.

mod answer;
mod arguments;
mod key;
mod steps;

pub use answer::{Desk as DeskAnswer, Made, Shown, Signing};
pub use arguments::{RepoArguments, RepoCommand};
pub use steps::run;

pub(crate) use answer::{channel_name, status_name};
pub(crate) use key::{file, trouble};
