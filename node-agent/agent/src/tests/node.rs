//! A loader that believes everything, on a real socket.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use invivo_terms::{BuildId, Level, NodeState, Refusal};
use invivo_wire::{Answer, Patient, Reason, Request, State, frame};
use tempfile::TempDir;

use super::killed::{Reaper, Side};
use crate::fixtures;

struct World {
    state: State,
    asked: usize,
    looks: usize,
    applied: Vec<(Vec<u8>, Vec<u8>)>,
    roll_backs: usize,
    room: u64,
    reserved: Vec<u64>,
    /// It is a loader of the version before.
    of_before: bool,
    settling: Duration,
    applied_at: Option<Instant>,
}

pub(super) struct FakeLoader {
    folder: TempDir,
    world: Arc<Mutex<World>>,
}

pub(super) fn build_id() -> BuildId {
    "ab".repeat(20).parse().unwrap()
}

impl FakeLoader {
    pub(super) fn new(reaper: Reaper) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = Arc::new(Mutex::new(World {
            state: fixtures::at_rest(NodeState::Idle),
            asked: 0,
            looks: 0,
            applied: Vec::new(),
            roll_backs: 0,
            room: u64::MAX,
            reserved: Vec::new(),
            of_before: false,
            settling: Duration::from_mins(30),
            applied_at: None,
        }));
        let listener = UnixListener::bind(folder.path().join("loader.sock")).unwrap();
        let shared = Arc::clone(&world);
        std::thread::spawn(move || {
            let mut unanswered = Vec::new();
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let mut patient = Patient::new(&stream, Duration::from_secs(10));
                let Ok((request, blobs)) = frame::read::<Request>(&mut patient) else { continue };
                let dies = reaper.request();
                if dies == Some(Side::Before) {
                    unanswered.push(stream);
                    continue;
                }
                let answer = shared.lock().unwrap().answer(request, blobs);
                if dies == Some(Side::After) {
                    unanswered.push(stream);
                    continue;
                }
                // An agent that went away asks again.
                let _ = frame::write(&mut patient, &answer, &[]);
            }
        });
        Self { folder, world }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("loader.sock")
    }

    pub(super) fn settles_in(&self, seconds: u64) {
        self.world().settling = Duration::from_secs(seconds);
    }

    pub(super) fn asked(&self) -> usize {
        self.world().asked
    }

    pub(super) fn looks(&self) -> usize {
        self.world().looks
    }

    pub(super) fn applied(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.world().applied.clone()
    }

    pub(super) fn roll_backs(&self) -> usize {
        self.world().roll_backs
    }

    pub(super) fn has_room(&self, bytes: u64) {
        self.world().room = bytes;
    }

    pub(super) fn reserved(&self) -> Vec<u64> {
        self.world().reserved.clone()
    }

    pub(super) fn is_of_before(&self) {
        self.world().of_before = true;
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.world().state);
    }
}

impl World {
    fn answer(&mut self, request: Request, mut blobs: Vec<Vec<u8>>) -> Answer {
        self.asked += 1;
        match request {
            Request::State => {}
            Request::Look => self.looks += 1,
            Request::ClearVerdicts => panic!("that is not for an agent to ask"),
            Request::Reserve { .. } if self.of_before => {
                return Answer::Refused { detail: "request not understood".to_owned() };
            }
            Request::Reserve { bytes } => {
                self.reserved.push(bytes);
                let full = Reason::Refusal(Refusal::StorageFull);
                let reason = (bytes > self.room).then_some(full);
                return Answer::State(Box::new(State { reason, message: None, ..self.state.clone() }));
            }
            Request::Hold { order } => self.state.order = Some(order),
            Request::RollBack(request) => {
                self.roll_backs += 1;
                self.state.order = Some(request.order);
                (self.state.state, self.state.level, self.state.set) =
                    (NodeState::RolledBack, Level(0), None);
                self.applied_at = None;
            }
            Request::Apply(request) => {
                let (module, proof) = (blobs.pop().unwrap(), blobs.pop().unwrap());
                self.applied.push((proof, module));
                self.state.order = Some(request.order);
                (self.state.state, self.state.level) = (NodeState::Applied, request.level);
                self.state.set = Some(request.set);
                self.applied_at = Some(Instant::now());
            }
        }
        let left = self.applied_at.map(|at| self.settling.saturating_sub(at.elapsed()));
        if left.is_some_and(|left| left.is_zero()) && self.state.state == NodeState::Applied {
            self.state.state = NodeState::Settled;
        }
        self.state.settles_in_seconds =
            left.filter(|_| self.state.state == NodeState::Applied).map(|left| left.as_secs());
        Answer::State(Box::new(self.state.clone()))
    }
}
