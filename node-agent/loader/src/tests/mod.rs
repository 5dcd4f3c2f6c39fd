//! The loader on a kernel that is not real, with repositories that are.

mod boot;
mod corrupted;
mod diagram;
mod going;
mod health;
mod in_order;
mod life;
mod memory;
#[path = "../../../fixtures/repository.rs"]
#[allow(dead_code, reason = "the agent's tests need more of it")]
mod repository;
mod schedules;
mod targets;
mod verdicts;
mod versions;

use std::collections::BTreeSet;
use std::time::Duration;

use invivo_terms::{Level, NodeState};
use invivo_wire::{Answer, ApplyRequest, Fault, Reason, Request, RollBackRequest, State};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use crate::fake::{Fake, Moment};
use crate::loader::Loader;
use crate::store::Store;
use crate::verify::Pinned;
use repository::{Author, Bundle};

/// One node, one author.
struct Trial {
    author: Author,
    kernel: Fake,
    state: TempDir,
    loader: Loader<Fake>,
}

impl Trial {
    fn new() -> Self {
        let author = author("example");
        let (kernel, state) = (Fake::new(), tempfile::tempdir().unwrap());
        let loader = start(&author, &kernel, &state);
        Self { author, kernel, state, loader }
    }

    /// The node is shut down in order, or the container ends: the loader is told to.
    fn told_to_end(&self) {
        let store = Store::new(self.state.path());
        store.mark_end(&self.kernel.0.borrow().running.boot_id).unwrap();
    }

    /// The loader's container starts again.
    fn restart(&mut self) {
        self.loader = start(&self.author, &self.kernel, &self.state);
    }

    fn reboot(&mut self, boot_id: &str) {
        self.kernel.reboot(boot_id, Duration::from_secs(9));
        self.restart();
    }

    fn now(&self) -> Timestamp {
        self.kernel.0.borrow().now
    }

    /// A request as an honest agent makes it.
    fn request(&self, revision: i64, bundle: &Bundle) -> ApplyRequest {
        ApplyRequest {
            order: order("uid", revision),
            build_id: bundle.build_id.clone(),
            level: bundle.level,
            set: bundle.set.clone(),
            digest: bundle.set_digest.clone(),
            manifest: bundle.manifest_digest(),
            mechanism: invivo_terms::Mechanism::Livepatch,
            deadline: self.now() + SignedDuration::from_mins(10),
            settle_after_seconds: 1800,
            allow_partial: false,
            floors: invivo_feed::Floors::default(),
            server_date: Some(self.now()),
        }
    }

    fn apply(&mut self, revision: i64, bundle: &Bundle) -> State {
        let request = self.request(revision, bundle);
        self.pass(request, &bundle.proof, &bundle.module)
    }

    fn pass(&mut self, request: ApplyRequest, proof: &[u8], module: &[u8]) -> State {
        state(self.loader.handle(Request::Apply(request), &[proof.to_vec(), module.to_vec()]))
    }

    fn roll_back(&mut self, revision: i64) -> State {
        let deadline = self.now() + SignedDuration::from_mins(10);
        let request = RollBackRequest { order: order("uid", revision), deadline };
        state(self.loader.handle(Request::RollBack(request), &[]))
    }

    fn hold(&mut self, revision: i64) -> State {
        state(self.loader.handle(Request::Hold { order: order("uid", revision) }, &[]))
    }

    fn ask(&mut self) -> State {
        state(self.loader.handle(Request::State, &[]))
    }

    /// Transitions end in this moment and not before.
    fn sticks_until(&self, moment: Moment) {
        let mut world = self.kernel.0.borrow_mut();
        (world.transition, world.ends) = (None, Some(moment));
    }

    /// Applied, and quiet for its settling time.
    fn settle(&mut self, revision: i64, bundle: &Bundle) {
        assert_eq!(self.apply(revision, bundle).state, NodeState::Applied);
        self.kernel.pass(Duration::from_mins(30));
        assert_eq!(self.ask().state, NodeState::Settled);
    }
}

fn author(name: &str) -> Author {
    Author::new(name, "2026-11-21T11:00:00Z".parse().unwrap())
}

fn start(author: &Author, kernel: &Fake, state: &TempDir) -> Loader<Fake> {
    let store = Store::new(state.path());
    let trust = Box::new(Pinned(BTreeSet::from([author.root()])));
    let mut loader = Loader::new(kernel.clone(), store, trust).unwrap();
    loader.come_up();
    loader
}

fn order(object: &str, revision: i64) -> invivo_wire::Order {
    invivo_wire::Order { object: object.to_owned(), revision: invivo_terms::Revision(revision) }
}

fn state(answer: Answer) -> State {
    match answer {
        Answer::State(state) => *state,
        Answer::Refused { detail } => panic!("{detail}"),
        Answer::Cleared { .. } => panic!("an answer to another question"),
    }
}

fn fault(fault: Fault) -> Reason {
    Reason::Fault(fault)
}

fn refusal(refusal: invivo_terms::Refusal) -> Reason {
    Reason::Refusal(refusal)
}

const UNPATCHED: Level = Level(0);
