//! The Unix socket: who may speak, one at a time, and how long.

use std::fs;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use invivo_wire::{Answer, Patient, Request, frame};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::kernel::Kernel;
use crate::loader::Loader;
use crate::memory;

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

/// Who may speak. Judged by uid: the pid is 0 across pid namespaces, and who can open the socket was
/// decided by its group and folder already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peers {
    /// The agent of this uid, and root: the socket that both containers see.
    Agent(u32),
    /// Root of the node: the socket in the state folder, which nobody else can enter.
    Root,
}

impl Peers {
    /// Whether a process of this user may speak at all.
    pub const fn may_speak(self, uid: u32) -> bool {
        match self {
            Self::Agent(agent) => uid == agent || uid == 0,
            Self::Root => uid == 0,
        }
    }

    /// The agent's word is the network's: verdicts are for people on the node.
    pub const fn may_ask(self, request: &Request) -> bool {
        match (self, request) {
            (Self::Root, Request::State | Request::Look | Request::ClearVerdicts)
            | (
                Self::Agent(_),
                Request::State
                | Request::Look
                | Request::Reserve { .. }
                | Request::Apply(_)
                | Request::RollBack(_)
                | Request::Hold { .. },
            ) => true,
            (
                Self::Root,
                Request::Reserve { .. } | Request::Apply(_) | Request::RollBack(_) | Request::Hold { .. },
            )
            | (Self::Agent(_), Request::ClearVerdicts) => false,
        }
    }
}

/// A socket, and who may ask what there.
#[derive(Debug)]
pub struct Door {
    /// Never blocks.
    listener: UnixListener,
    peers: Peers,
}

impl Door {
    /// # Errors
    ///
    /// If the socket cannot be told not to block.
    pub fn new(listener: UnixListener, peers: Peers) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, peers })
    }
}

/// Answers for ever, one peer after the other, and lets the loader look by itself in between, however
/// often it is asked.
pub fn serve<K: Kernel>(doors: &[Door], loader: &mut Loader<K>) -> io::Error {
    let mut due = Instant::now() + loader.next_tick();
    loop {
        let left = due.saturating_duration_since(Instant::now());
        let mut waiting: Vec<PollFd<'_>> =
            doors.iter().map(|door| PollFd::new(&door.listener, PollFlags::IN)).collect();
        let left = Timespec::try_from(left).ok();
        match poll(&mut waiting, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return error.into(),
        }
        let mut asked = false;
        for door in doors {
            match door.listener.accept() {
                Ok((stream, _)) => match stream.set_nonblocking(false) {
                    Ok(()) => {
                        asked |= converse(&stream, door.peers, loader);
                        memory::give_back();
                    }
                    Err(error) => return error,
                },
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return error,
            }
        }
        // Whoever asks how things stand wakes it anyway: it need not wake a second time within the minute.
        if asked || Instant::now() >= due {
            loader.tick();
            due = Instant::now() + loader.next_tick();
        } else {
            // An instruction may have left something that wants looking after sooner.
            due = due.min(Instant::now() + loader.next_tick());
        }
    }
}

/// One question, one answer. Whether it was how things stand.
pub fn converse<K: Kernel>(stream: &UnixStream, peers: Peers, loader: &mut Loader<K>) -> bool {
    let mut asked = false;
    // Not rustix's: its pid is never 0, and here it is, since the peer is in another pid namespace.
    let answer = match getsockopt(stream, PeerCredentials) {
        Ok(peer) if peers.may_speak(peer.uid()) => {
            match frame::read::<Request>(&mut Patient::new(stream, PATIENCE)) {
                Ok((request, blobs)) if peers.may_ask(&request) => {
                    asked = matches!(request, Request::State | Request::Look);
                    loader.handle(request, &blobs)
                }
                Ok(_) => Answer::Refused { detail: "not to be asked through this socket".to_owned() },
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
    asked
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
        let trust = Box::new(crate::verify::Pinned(std::collections::BTreeSet::new()));
        let mut loader = Loader::new(crate::fake::Fake::new(), store, trust).unwrap();
        loader.come_up();
        for (uid, welcome) in [(1000, false), (65532, true)] {
            let asked = std::thread::spawn({
                let path = path.clone();
                move || ask_as(uid, path)
            });
            let heard = converse(&listener.accept().unwrap().0, Peers::Agent(65532), &mut loader);
            assert_eq!(heard, welcome, "nobody else makes it look");
            assert_eq!(matches!(asked.join().unwrap(), Answer::State(_)), welcome, "uid {uid}");
        }
    }

    #[test]
    fn only_the_agent_and_root_may_speak() {
        let peers = Peers::Agent(65532);
        assert!(peers.may_speak(65532) && peers.may_speak(0));
        assert!(!peers.may_speak(65533) && !peers.may_speak(1000));
        assert!(Peers::Root.may_speak(0) && !Peers::Root.may_speak(65532));
    }

    #[test]
    fn verdicts_are_cleared_through_roots_own_socket_alone_and_instructions_never_come_there() {
        let order = invivo_wire::Order { object: "uid".to_owned(), revision: invivo_terms::Revision(1) };
        let hold = Request::Hold { order };
        assert!(
            Peers::Root.may_ask(&Request::ClearVerdicts)
                && !Peers::Agent(65532).may_ask(&Request::ClearVerdicts)
        );
        assert!(Peers::Agent(65532).may_ask(&hold) && !Peers::Root.may_ask(&hold));
    }
}
