//! The privileged half of a node: verifies, loads, journals, watches, undoes. It has
//! CAP_SYS_MODULE and no network; whatever the agent passes is verified here again, from the roots
//! that people pinned, against the kernel that runs.
//!
//! The shape is `observe -> step::next (pure) -> do one step -> report`.

mod again;
mod blockers;
mod care;
mod drive;
pub mod ending;
pub mod errno;
#[cfg(test)]
mod fake;
pub mod filter;
pub mod health;
mod holders;
pub mod installed;
pub mod journal;
mod judge;
pub mod kernel;
pub mod loader;
mod log;
mod memory;
pub mod missed;
mod notice;
pub mod order;
mod record;
mod recover;
pub mod report;
pub mod running;
pub mod seen;
pub mod shown;
mod slots;
pub mod socket;
pub mod step;
pub mod store;
pub mod targets;
#[cfg(test)]
mod tests;
mod undo;
pub mod verdict;
pub mod verify;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use invivo_terms::Digest;

pub use filter::FilterError;
pub use kernel::{Kernel, Linux};
pub use loader::Loader;
pub use running::{Folders, RunningError};
pub use socket::{BindError, Door, Peers, bind, converse, serve};
pub use store::Store;

/// How a loader is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the socket is bound.
    pub socket: PathBuf,
    /// The state folder on the host.
    pub state: PathBuf,
    /// Where the kernel's files are seen.
    pub folders: Folders,
    /// Digests of the trust documents that people pinned.
    pub roots: BTreeSet<Digest>,
    /// The agent's uid.
    pub agent: u32,
    /// Least time of quiet before anything counts as settled, whatever the agent passes.
    pub least_settling: Duration,
}

/// Why the loader does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Without its filter it must not.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// It cannot be known which kernel runs.
    #[error(transparent)]
    Running(#[from] RunningError),
    /// No socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// It would not hear that it is to end.
    #[error("hearing when to end")]
    End(#[source] std::io::Error),
    /// The socket broke.
    #[error("serving the socket")]
    Serve(#[source] std::io::Error),
}

/// Runs until killed, which is safe at any moment.
///
/// # Errors
///
/// See [`Error`]; it never returns otherwise.
pub fn run(settings: Settings) -> Result<std::convert::Infallible, Error> {
    let told = ending::listen().map_err(Error::End)?;
    filter::install()?;
    let store = Store::new(&settings.state);
    let trust = Box::new(verify::Pinned(settings.roots));
    let mut loader = Loader::new(Linux::new(settings.folders), store.clone(), trust)?;
    ending::heed(told, store, loader.boot_id().to_owned()).map_err(Error::End)?;
    loader.settle_no_sooner_than(settings.least_settling);
    loader.come_up();
    let agent = bind(&settings.socket)?;
    let mut doors = vec![Door::new(agent, Peers::Agent(settings.agent)).map_err(Error::Serve)?];
    match bind(&settings.state.join(invivo_wire::ROOT_SOCKET)) {
        Ok(root) => doors.push(Door::new(root, Peers::Root).map_err(Error::Serve)?),
        // A state folder that cannot be written to keeps nobody from being told so.
        Err(error) => {
            tracing::error!(error = %error, "no socket for root on the node; verdicts cannot be cleared");
        }
    }
    tracing::info!(socket = %settings.socket.display(), "ready");
    Err(Error::Serve(serve(&doors, &mut loader)))
}
