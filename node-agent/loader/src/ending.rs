//! The loader is told to end: by kubelet, or by a node that shuts down. It ends at once, whatever it is
//! at; before that it writes down in which boot, so that a boot that ends in order is told from one
//! that does not.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level;

use crate::store::Store;

/// Of the thread that hears it.
const STACK: usize = 128 << 10;

/// Hears from now on that the loader is to end; the first process of a container would not otherwise.
///
/// # Errors
///
/// If there is no pair of sockets, or a signal cannot be had.
pub fn listen() -> io::Result<UnixStream> {
    let (ours, handlers) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT] {
        low_level::pipe::register(signal, handlers.try_clone()?)?;
    }
    Ok(ours)
}

/// Ends the process when it is told to, on a thread of its own: the loader may be waiting for tasks.
///
/// # Errors
///
/// If there can be no such thread.
pub fn heed(mut told: UnixStream, store: Store, boot_id: String) -> io::Result<()> {
    let wait = move || {
        if let Err(error) = told.read_exact(&mut [0]) {
            tracing::error!(error = %error, "it will not be heard when the loader is to end");
            return;
        }
        if let Err(error) = store.mark_end(&boot_id) {
            tracing::warn!(error = %error, "not written down that the loader was told to end");
        }
        // The journal says what was under way.
        low_level::exit(0);
    };
    thread::Builder::new().name("ending".to_owned()).stack_size(STACK).spawn(wait).map(drop)
}
