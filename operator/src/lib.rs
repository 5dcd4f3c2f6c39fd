//! The operator: decides which node goes to which level when, and writes that down.
//!
//! `observe -> validate -> plan -> write`. Only the two ends do IO; everything between is pure.

pub mod admission;
pub mod claim;
pub mod context;
pub mod deletion;
pub mod departed;
pub mod engine;
pub mod error;
pub mod event;
pub mod evidence;
#[cfg(test)]
mod fake;
pub mod feed;
pub mod gate;
pub mod http;
pub mod lease;
pub mod lookout;
pub mod loss;
pub mod memory;
pub mod metrics;
pub mod node;
pub mod observe;
pub mod offer;
pub mod options;
pub mod policy;
pub mod quarantine;
pub mod queue;
pub mod reason;
pub mod record;
pub mod report;
mod run;
pub mod seen;
pub mod set;
pub mod shown;
pub mod sight;
pub mod signal;
pub mod status;
pub mod stop;
pub mod store;
pub mod unreadable;
pub mod validate;
pub mod watch;
pub mod wave;
pub mod write;

pub use options::Options;
pub use run::{StartError, run};
