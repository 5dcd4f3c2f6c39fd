//! What runs in a guest: its first process, which is this very program. It starts the loader as a
//! node does, does what the plan says, and tells on the console what it sees.

mod deeds;
pub(crate) mod sleepers;
pub(crate) mod targets;
mod work;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use invivo_feed::Floors;
use invivo_loader::store::Store;
use invivo_terms::{Level, Mechanism, Revision};
use invivo_wire::{Answer, ApplyRequest, AskError, Order, ROOT_SOCKET, Request, RollBackRequest, State, ask};
use jiff::{SignedDuration, Timestamp};

use crate::bundles::{module_file, proof_file};
use crate::plan::{Bytes, Deed, End, Kernel, Look, Plan, Said, Step};

/// Where the plan lies.
pub(crate) const PLAN: &str = "/plan.json";
/// Where the host listens. The kernel's own words, of an oops in the middle of ours, go elsewhere.
const HOST: &str = "/dev/ttyS1";
/// The loader's program, and the one of another version where a test has one.
pub(crate) const LOADER: &str = "/invivo-loader";
pub(crate) const OTHER_LOADER: &str = "/other-loader";
const SOCKET: &str = "/run/loader.sock";
const STATE: &str = "/state/invivo";
/// Of the instructions.
const OBJECT: &str = "uid";
/// For anything here; under emulation too.
const PATIENCE: Duration = Duration::from_mins(2);
const LOOK: Duration = Duration::from_millis(200);

/// CAP_DAC_READ_SEARCH and CAP_SYS_MODULE: what the loader's container has.
const KEPT: [libc::c_ulong; 2] = [2, 16];
/// CAP_SYSLOG, which it has where people want it to read the kernel's log.
const KERNEL_LOG: libc::c_ulong = 34;
const LAST_CAPABILITY: libc::c_ulong = 40;

/// The first process of a guest.
pub(crate) fn run() {
    let plan: Plan = serde_json::from_slice(&fs::read(PLAN).unwrap()).unwrap();
    deeds::mounts();
    deeds::disk(plan.facts.file_system);
    let clock = (Timestamp::now(), Instant::now());
    plan.before.iter().copied().for_each(deeds::done);
    let mut guest = Guest { loader: start_for(&plan), plan, clock };
    guest.go();
}

struct Guest {
    loader: Child,
    plan: Plan,
    /// The patch server's: right, whatever befalls the node's own.
    clock: (Timestamp, Instant),
}

impl Guest {
    fn go(&mut self) {
        let state = self.first_answer();
        say(&Said::Up(Box::new(look(state))));
        for step in self.plan.steps.clone() {
            say(&Said::Asks(step.clone()));
            let answer = match &step {
                Step::Settle => until(|state| state.settles_in_seconds.is_none()),
                Step::Trouble => until(|state| state.reason.is_some()),
                Step::RunOut { level, revision } => self.run_out(*level, *revision),
                Step::Apply { .. } | Step::RollBack { .. } | Step::Hold { .. } | Step::ClearVerdicts => {
                    self.ask(&step)
                }
                Step::Meanwhile(deed) => {
                    deeds::done(*deed);
                    Answer::State(Box::new(now()))
                }
                Step::Restart(deeds) => self.restart(deeds),
                Step::Cycles { count, revision } => {
                    say(&Said::Cycled(self.cycles(*count, *revision)));
                    Answer::State(Box::new(now()))
                }
                Step::Compare { count, revision } => {
                    say(&Said::Compared(self.comparisons(*count, *revision)));
                    Answer::State(Box::new(now()))
                }
            };
            let state = now();
            say(&Said::Answered(Box::new(answer), Box::new(look(state))));
        }
        say(&Said::Done(deeds::complaints()));
        match self.plan.end {
            End::PowerOff => {
                self.end_loader();
                deeds::unmount("/state");
                power_off();
            }
            End::Cut => go_on_looking(),
        }
    }

    fn first_answer(&mut self) -> State {
        let start = Instant::now();
        loop {
            // Its socket is there a moment before anybody listens.
            match ask(Path::new(SOCKET), &Request::State, &[], PATIENCE) {
                Ok(answer) => {
                    say(&Said::Began(work::millis(start)));
                    return state_of(answer);
                }
                Err(AskError::Connect(_)) => thread::sleep(Duration::from_millis(5)),
                Err(error) => panic!("{error:?}"),
            }
            if let Some(status) = self.loader.try_wait().unwrap() {
                say(&Said::LoaderEnded(status.to_string()));
                panic!("the loader has ended");
            }
            assert!(start.elapsed() < PATIENCE, "no loader came up");
        }
    }

    fn ask(&self, step: &Step) -> Answer {
        let (socket, request, blobs) = self.question(step);
        let blobs: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
        ask(&socket, &request, &blobs, PATIENCE).unwrap()
    }

    fn question(&self, step: &Step) -> (PathBuf, Request, Vec<Vec<u8>>) {
        let order = |revision| Order { object: OBJECT.to_owned(), revision };
        let deadline = Timestamp::now() + SignedDuration::from_secs(self.plan.deadline_seconds.into());
        let (request, blobs) = match step {
            Step::Apply { level, generation, revision, bytes } => {
                let offer = self.plan.facts.offers.iter().find(|offer| offer.level == *level).unwrap();
                let mut module = fs::read(Path::new("/").join(module_file(*level))).unwrap();
                let middle = module.len() / 2;
                match bytes {
                    Bytes::Good => {}
                    Bytes::Changed => module[middle] ^= 1,
                }
                let proof = fs::read(Path::new("/").join(proof_file(*level, *generation))).unwrap();
                let request = ApplyRequest {
                    order: order(*revision),
                    build_id: offer.build_id.clone(),
                    level: *level,
                    set: offer.set.clone(),
                    digest: offer.set_digest.clone(),
                    manifest: offer.manifest.clone(),
                    mechanism: Mechanism::Livepatch,
                    deadline,
                    settle_after_seconds: self.plan.settle_after_seconds,
                    allow_partial: false,
                    floors: Floors::default(),
                    server_date: Some(self.clock.0 + self.clock.1.elapsed()),
                };
                (Request::Apply(request), vec![proof, module])
            }
            Step::RollBack { revision } => {
                (Request::RollBack(RollBackRequest { order: order(*revision), deadline }), Vec::new())
            }
            Step::Hold { revision } => (Request::Hold { order: order(*revision) }, Vec::new()),
            Step::ClearVerdicts => (Request::ClearVerdicts, Vec::new()),
            Step::Settle
            | Step::Trouble
            | Step::RunOut { .. }
            | Step::Meanwhile(_)
            | Step::Restart(_)
            | Step::Cycles { .. }
            | Step::Compare { .. } => (Request::State, Vec::new()),
        };
        let socket = match step {
            // A person's, on the node.
            Step::ClearVerdicts => Path::new(STATE).join(ROOT_SOCKET),
            _ => PathBuf::from(SOCKET),
        };
        (socket, request, blobs)
    }

    fn restart(&mut self, meanwhile: &[Deed]) -> Answer {
        self.end_loader();
        meanwhile.iter().copied().for_each(deeds::done);
        self.loader = start_for(&self.plan);
        Answer::State(Box::new(self.first_answer()))
    }

    fn run_out(&mut self, level: Level, revision: Revision) -> Answer {
        fs::write("/proc/sys/kernel/sysrq", "1").unwrap();
        fs::write(format!("/proc/{}/oom_score_adj", self.loader.id()), "1000").unwrap();
        // As if there were no memory left: the kernel kills whoever it would miss least.
        let killer = thread::spawn(|| {
            while children("/sys/kernel/livepatch").is_empty() {
                thread::sleep(Duration::from_millis(1));
            }
            fs::write("/proc/sysrq-trigger", "f").unwrap();
        });
        let step = Step::Apply { level, generation: 0, revision, bytes: Bytes::Good };
        let (socket, request, blobs) = self.question(&step);
        let blobs: Vec<&[u8]> = blobs.iter().map(Vec::as_slice).collect();
        let answer = ask(&socket, &request, &blobs, PATIENCE);
        assert!(answer.is_err(), "{answer:?}");
        killer.join().unwrap();
        let status = self.loader.wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status:?}");
        self.loader = start_for(&self.plan);
        Answer::State(Box::new(self.first_answer()))
    }

    fn end_loader(&mut self) {
        self.loader.kill().unwrap();
        self.loader.wait().unwrap();
        // Nobody listens there any more.
        fs::remove_file(SOCKET).unwrap();
    }
}

/// A program that may die of what is patched.
pub(crate) fn read() {
    loop {
        let _ = fs::read_to_string("/proc/loadavg");
        thread::sleep(Duration::from_millis(5));
    }
}

fn power_off() {
    rustix::system::reboot(rustix::system::RebootCommand::PowerOff).unwrap();
}

fn now() -> State {
    state_of(ask(Path::new(SOCKET), &Request::State, &[], PATIENCE).unwrap())
}

/// What the loader says once it is as wanted.
fn until(wanted: impl Fn(&State) -> bool) -> Answer {
    let start = Instant::now();
    loop {
        let state = now();
        if wanted(&state) || start.elapsed() > PATIENCE {
            return Answer::State(Box::new(state));
        }
        thread::sleep(LOOK);
    }
}

/// The power goes when the host wants.
fn go_on_looking() {
    let mut before = None;
    loop {
        let state = now();
        let news = (state.state, state.level, state.reason);
        if before != Some(news) {
            say(&Said::Looks(Box::new(look(state))));
            before = Some(news);
        }
        thread::sleep(LOOK);
    }
}

fn state_of(answer: Answer) -> State {
    match answer {
        Answer::State(state) => *state,
        other => panic!("{other:?}"),
    }
}

/// One line, which the host has when this is done.
fn say(said: &Said) {
    let mut port = fs::OpenOptions::new().write(true).open(HOST).unwrap();
    port.write_all(format!("{}\n", serde_json::to_string(said).unwrap()).as_bytes()).unwrap();
    // SAFETY: the descriptor is that of the open file.
    assert_eq!(unsafe { libc::tcdrain(port.as_raw_fd()) }, 0);
}

fn look(state: State) -> Look {
    // Where it cannot be read, the loader says so.
    let journal = Store::new(Path::new(STATE)).open().unwrap_or_default();
    let folder = Path::new(STATE).join("evidence");
    let text = |name: &String| fs::read_to_string(folder.join(name)).unwrap();
    let evidence = folder.to_str().map(children).unwrap_or_default();
    let evidence = evidence.into_iter().map(|name| (name.clone(), text(&name))).collect();
    Look { at: since_boot(), state, journal, evidence, kernel: kernel() }
}

fn since_boot() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(time.tv_sec * 1000 + time.tv_nsec / 1_000_000).unwrap()
}

fn kernel() -> Kernel {
    let is = |patch: &Path, file: &str, value: &str| {
        fs::read_to_string(patch.join(file)).is_ok_and(|text| text.trim() == value)
    };
    let on = children("/sys/kernel/livepatch").into_iter().filter(|name| {
        let patch = Path::new("/sys/kernel/livepatch").join(name);
        is(&patch, "enabled", "1") && is(&patch, "transition", "0")
    });
    let ours = children("/sys/module").into_iter().filter(|name| name.starts_with("invivo"));
    let note = |name: String| {
        fs::read(Path::new("/sys/module").join(name).join("notes/.note.gnu.build-id")).unwrap_or_default()
    };
    let level = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.strip_prefix("level ")?.trim().parse().ok().map(Level)
    };
    Kernel {
        on: on.collect(),
        modules: ours.map(note).collect::<BTreeSet<_>>(),
        cmdline: level("/proc/cmdline"),
        version: level("/proc/version"),
    }
}

fn children(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn start_for(plan: &Plan) -> Child {
    let capabilities =
        if plan.kernel_log { [KEPT.as_slice(), &[KERNEL_LOG]].concat() } else { KEPT.to_vec() };
    start(plan.facts.root.as_str(), Duration::from_secs(1), capabilities)
}

/// The loader as its container has it, but for the folders: root with few capabilities.
fn start(root: &str, least_settling: Duration, capabilities: Vec<libc::c_ulong>) -> Child {
    let mut loader = Command::new(LOADER);
    loader
        .env_clear()
        .args(["--socket", SOCKET, "--state", STATE, "--livepatch", "/sys/kernel/livepatch"])
        .args([
            "--proc",
            "/proc",
            "--sys",
            "/sys",
            "--modules",
            "/lib/modules",
            "--records",
            "/sys/fs/pstore",
            "--security",
            "/sys/kernel/security",
            "--tracing",
            "/sys/kernel/tracing",
        ])
        .args(["--root", root, "--least-settling", &least_settling.as_secs().to_string()])
        .stdin(Stdio::null());
    // SAFETY: prctl takes numbers and touches no memory; nothing else is done after the fork.
    unsafe { loader.pre_exec(move || drop_all_but(&capabilities)) };
    loader.spawn().unwrap()
}

fn drop_all_but(kept: &[libc::c_ulong]) -> io::Result<()> {
    for capability in (0..=LAST_CAPABILITY).filter(|capability| !kept.contains(capability)) {
        // SAFETY: prctl takes numbers and touches no memory.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
