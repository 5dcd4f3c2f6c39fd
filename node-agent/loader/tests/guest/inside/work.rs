//! Many instructions one after the other, and how long they take.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use invivo_terms::{Level, NodeState, Revision};
use invivo_wire::Answer;

use rustix::io::Errno;

use super::{Guest, LOADER, PATIENCE};
use crate::bundles::module_file;
use crate::plan::{Bytes, Comparison, Cycle, Step};

const LIVEPATCH: &str = "/sys/kernel/livepatch";
/// Of `delete_module`: the answer comes at once.
const O_NONBLOCK: i32 = 0o4000;
/// Threads that sleep in the kernel while it is patched.
const SLEEPERS: usize = 30;

impl Guest {
    pub(super) fn cycles(&self, count: u32, mut revision: Revision) -> Vec<Cycle> {
        let _work = Work::begin();
        let one = |_| {
            let start = Instant::now();
            self.expect(&apply(1, &mut revision), NodeState::Applied, 1);
            self.expect(&apply(2, &mut revision), NodeState::Applied, 2);
            self.expect(&roll_back(&mut revision), NodeState::RolledBack, 0);
            Cycle { millis: millis(start), memory: self.memory() }
        };
        (0..count).map(one).collect()
    }

    /// One after the other, so that whatever else the machine does meets both.
    pub(super) fn comparisons(&self, count: u32, mut revision: Revision) -> Vec<Comparison> {
        let module = fs::read(Path::new("/").join(module_file(Level(1)))).unwrap();
        let one = |_| {
            let kernel = by_the_kernel_alone(&module);
            let start = Instant::now();
            let switch = self.expect(&apply(1, &mut revision), NodeState::Applied, 1);
            let loader = millis(start);
            self.expect(&roll_back(&mut revision), NodeState::RolledBack, 0);
            Comparison { kernel, loader, switch: switch.unwrap().into() }
        };
        (0..count).map(one).collect()
    }

    /// How long the kernel took.
    fn expect(&self, step: &Step, state: NodeState, level: u32) -> Option<u32> {
        match self.ask(step) {
            Answer::State(now) if (now.state, now.level) == (state, Level(level)) => now.switch_millis,
            other => panic!("{step:?}: {other:?}"),
        }
    }

    /// What the loader has for itself alone, in KiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.loader.id())).unwrap();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        anonymous.split_whitespace().next().unwrap().parse().unwrap()
    }
}

fn next(revision: &mut Revision) -> Revision {
    let this = *revision;
    *revision = Revision(this.0 + 1);
    this
}

fn apply(level: u32, revision: &mut Revision) -> Step {
    Step::Apply { level: Level(level), generation: 0, revision: next(revision), bytes: Bytes::Good }
}

fn roll_back(revision: &mut Revision) -> Step {
    Step::RollBack { revision: next(revision) }
}

pub(super) fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap()
}

/// Milliseconds from the load to the end of the transition. Nothing of it is left.
fn by_the_kernel_alone(module: &[u8]) -> u64 {
    let name = "invivo_l1_0000000000000001";
    let patch = Path::new(LIVEPATCH).join(name);
    let is =
        |file: &str, value: &str| fs::read_to_string(patch.join(file)).is_ok_and(|text| text.trim() == value);
    let until = |done: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < PATIENCE, "the transition does not end");
            thread::sleep(Duration::from_millis(1));
        }
    };
    let start = Instant::now();
    rustix::system::init_module(module, c"").unwrap();
    until(&|| is("transition", "0"));
    let took = millis(start);
    fs::write(patch.join("enabled"), "0").unwrap();
    until(&|| !patch.exists());
    // The last reference goes a moment after the patch; the loader looks for what is left as well.
    let c_name = std::ffi::CString::new(name).unwrap();
    until(&|| matches!(rustix::system::delete_module(&c_name, O_NONBLOCK), Ok(()) | Err(Errno::NOENT)));
    took
}

/// Other work of the guest: sleepers, a reader of what is patched, programs that come and go.
struct Work(Arc<AtomicBool>);

impl Work {
    fn begin() -> Self {
        let on = Arc::new(AtomicBool::new(true));
        let work = |what: fn()| {
            let on = Arc::clone(&on);
            thread::spawn(move || {
                while on.load(Ordering::Relaxed) {
                    what();
                }
            });
        };
        (0..SLEEPERS).for_each(|_| work(|| thread::sleep(Duration::from_millis(300))));
        work(|| {
            fs::read_to_string("/proc/cmdline").unwrap();
            thread::sleep(Duration::from_millis(1));
        });
        work(|| {
            let program = Command::new(LOADER).arg("--version").stdout(Stdio::null()).status();
            assert!(program.unwrap().success());
            thread::sleep(Duration::from_millis(100));
        });
        Self(on)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
