//! The patch server: the only part of Invivo that talks to the world outside the cluster.
//!
//! For each `PatchFeed` it mirrors the repository byte for byte, after verifying it with the same
//! workflow as everyone else, and serves the mirror in the cluster with the state of its last
//! attempt beside it. It holds no key. A refusal here can only stop loads, never allow one: every
//! reader verifies again.

mod disk;
mod feeds;
mod library;
mod metrics;
mod mirror;
mod path;
mod poll;
mod range;
mod schedule;
mod serve;
mod state;
mod stock;
mod stored;

pub use disk::{Disk, Record};
pub use feeds::{Supervisor, WantedFeed, wanted, watch_feeds};
pub use library::Library;
pub use metrics::Metrics;
pub use path::{FeedName, MirrorPath};
pub use poll::Mirroring;
pub use serve::{health, router};
pub use state::{AttemptState, Reason};
