//! The Unix socket: who may speak, one at a time, and how long.

use std::fs;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use invivo_wire::{Answer, Patient, Request, frame};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::fs::Mode;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::kernel::Kernel;
use crate::loader::Loader;

/// Longest that a peer may take to send its question or to take its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the socket is not there.
#[derive(Debug, thiserror::Error)]
#[error("binding {path}")]
pub struct BindError {
    /// Where.
    path: PathBuf,
    /// Why.
    source: io::Error,
}

/// Binds the socket as `root:<group of the folder> 0660`: the folder's setgid bit gives the group,
/// the umask the mode, so that no moment passes in which others could connect.
///
/// # Errors
///
/// If the folder is missing or the path is taken by something that cannot be removed.
pub fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let at = |source| BindError { path: path.to_owned(), source };
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(at(error)),
    }
    let before = rustix::process::umask(Mode::from_raw_mode(0o117));
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    bound.map_err(at)
}

/// Who may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peers {
    /// The agent's uid.
    pub agent: u32,
}

impl Peers {
    /// The agent and root. Judged by uid: the pid is 0 across pid namespaces, and group membership
    /// already decided who can open the socket.
    pub const fn may_speak(self, uid: u32) -> bool {
        uid == self.agent || uid == 0
    }

    /// The agent's word is the network's: verdicts are for people on the node.
    pub const fn may_ask(self, uid: u32, request: &Request) -> bool {
        match request {
            Request::ClearVerdicts => uid == 0,
            Request::State | Request::Apply(_) | Request::RollBack(_) | Request::Hold { .. } => true,
        }
    }
}

/// Answers for ever, one peer after the other, and lets the loader look by itself in between, however
/// often it is asked.
pub fn serve<K: Kernel>(listener: &UnixListener, peers: Peers, loader: &mut Loader<K>) -> io::Error {
    /// A timeout of nothing would be none.
    const LEAST: Duration = Duration::from_millis(1);
    let mut due = Instant::now() + loader.next_tick();
    loop {
        let left = due.saturating_duration_since(Instant::now()).max(LEAST);
        if let Err(error) = set_socket_timeout(listener, Timeout::Recv, Some(left)) {
            return error.into();
        }
        match listener.accept() {
            Ok((stream, _)) => converse(&stream, peers, loader),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return error,
        }
        let now = Instant::now();
        if now >= due {
            loader.tick();
            due = Instant::now() + loader.next_tick();
        } else {
            // An instruction may have left something that wants looking after sooner.
            due = due.min(now + loader.next_tick());
        }
    }
}

/// One question, one answer.
pub fn converse<K: Kernel>(stream: &UnixStream, peers: Peers, loader: &mut Loader<K>) {
    // Not rustix's: its pid is never 0, and here it is, since the peer is in another pid namespace.
    let answer = match getsockopt(stream, PeerCredentials) {
        Ok(peer) if peers.may_speak(peer.uid()) => {
            match frame::read::<Request>(&mut Patient::new(stream, PATIENCE)) {
                Ok((request, blobs)) if peers.may_ask(peer.uid(), &request) => loader.handle(request, &blobs),
                Ok(_) => Answer::Refused { detail: "only root on this node may ask that".to_owned() },
                Err(error) => Answer::Refused { detail: format!("request not understood: {error}") },
            }
        }
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), "peer refused");
            Answer::Refused { detail: format!("uid {} may not speak to the loader", peer.uid()) }
        }
        Err(error) => Answer::Refused { detail: format!("peer unknown: {error}") },
    };
    if let Err(error) = frame::write(&mut Patient::new(stream, PATIENCE), &answer, &[]) {
        // What was done is in the journal; the peer will ask how things stand.
        tracing::info!(error = %error, "answer not taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_socket_is_open_to_owner_and_group_only_and_replaces_a_stale_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loader.sock");
        for _ in 0..2 {
            let _listener = bind(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        }
    }

    /// Asks as another user: the raw call changes this one thread only.
    #[allow(unsafe_code, reason = "no safe interface changes one thread's user")]
    fn ask_as(uid: u32, path: PathBuf) -> Answer {
        std::thread::spawn(move || {
            // SAFETY: setresuid takes three numbers and touches no memory.
            let result = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
            assert_eq!(result, 0);
            invivo_wire::ask(&path, &Request::State, &[], PATIENCE).unwrap()
        })
        .join()
        .unwrap()
    }

    #[test]
    fn a_peer_of_another_uid_is_refused_even_if_the_socket_lets_it_in() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("loader.sock");
        let listener = bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let state = tempfile::tempdir().unwrap();
        let store = crate::store::Store::new(state.path());
        let mut loader = Loader::start(
            crate::fake::Fake::new(),
            store,
            Box::new(crate::verify::Pinned(std::collections::BTreeSet::new())),
        )
        .unwrap();
        for (uid, welcome) in [(1000, false), (65532, true)] {
            let asked = std::thread::spawn({
                let path = path.clone();
                move || ask_as(uid, path)
            });
            converse(&listener.accept().unwrap().0, Peers { agent: 65532 }, &mut loader);
            assert_eq!(matches!(asked.join().unwrap(), Answer::State(_)), welcome, "uid {uid}");
        }
    }

    #[test]
    fn only_the_agent_and_root_may_speak() {
        let peers = Peers { agent: 65532 };
        assert!(peers.may_speak(65532) && peers.may_speak(0));
        assert!(!peers.may_speak(65533) && !peers.may_speak(1000));
    }
}
