//! Kernel modules come and go, with the loader beside them as a program of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use invivo_terms::Revision;
use invivo_wire::{Answer, ApplyRequest, Order, Request, RollBackRequest, State, ask};
use jiff::{SignedDuration, Timestamp};
use rustix::io::Errno;

use super::{KEPT, PATIENCE, SOCKET, deeds, power_off, sleepers, start};
use crate::plan::Said;

const TARGETS: [&str; 3] = ["tgt", "hold", "pktgen"];

/// The first process of a guest.
pub(crate) fn run() {
    deeds::mounts();
    let mut guest = Guest::new();
    guest.comes_and_goes();
    guest.is_refused();
    guest.is_foreign_on_disk();
    guest.is_foreign_in_the_kernel();
    guest.is_packed();
    guest.is_pinned();
    guest.is_not_alone();
    guest.is_held();
    if std::env::var_os("INVIVO_ALL").is_some() {
        guest.cannot_be_reversed();
    }
    super::say(&Said::Done(deeds::complaints()));
    power_off();
}

struct Guest {
    loader: Child,
    revision: i64,
    modules: PathBuf,
}

impl Guest {
    fn new() -> Self {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let modules = Path::new("/lib/modules").join(release);
        fs::create_dir_all(modules.join("kernel")).unwrap();
        let guest = Self { loader: loader(), revision: 0, modules };
        guest.installs("tgt.ko", "tgt.ko");
        guest
    }

    /// What `modprobe` would take for tgt is a copy of this file; hold and pktgen are always right.
    fn installs(&self, name: &str, from: &str) {
        let kernel = self.modules.join("kernel");
        let files = [(name, from), ("hold.ko", "hold.ko"), ("pktgen.ko", "pktgen.ko")];
        for (name, from) in files {
            fs::copy(Path::new("/").join(from), kernel.join(name)).unwrap();
        }
        let lines: Vec<String> = files.iter().map(|(name, _)| format!("kernel/{name}:\n")).collect();
        fs::write(self.modules.join("modules.dep"), lines.concat()).unwrap();
    }

    fn restart(&mut self) {
        self.loader.kill().unwrap();
        self.loader.wait().unwrap();
        self.loader = loader();
    }

    fn order(&mut self) -> Order {
        self.revision += 1;
        Order { object: "uid".to_owned(), revision: Revision(self.revision) }
    }

    fn apply(&mut self, level: u32, allow_partial: bool, settle_after_seconds: u64) -> State {
        self.apply_within(SignedDuration::from_mins(2), level, allow_partial, settle_after_seconds)
    }

    fn apply_within(
        &mut self,
        patience: SignedDuration,
        level: u32,
        allow_partial: bool,
        settle_after_seconds: u64,
    ) -> State {
        let read = |path: String| fs::read(path).unwrap();
        let request: ApplyRequest = serde_json::from_slice(&read(format!("/request{level}"))).unwrap();
        let request = ApplyRequest {
            order: self.order(),
            deadline: Timestamp::now() + patience,
            allow_partial,
            settle_after_seconds,
            ..request
        };
        let blobs = [read(format!("/proof{level}")), read(format!("/patch{level}.ko"))];
        asked(&Request::Apply(request), &[&blobs[0], &blobs[1]])
    }

    fn take_off(&mut self) {
        let deadline = Timestamp::now() + SignedDuration::from_mins(2);
        let state = asked(&Request::RollBack(RollBackRequest { order: self.order(), deadline }), &[]);
        assert_eq!((state.level.0, state.targets.len()), (0, 0), "{state:?}");
    }

    fn comes_and_goes(&mut self) {
        let state = self.apply(1, false, 0);
        say(&format!("1 all right: {}, {}", stands(&state), targets(&state)));
        let first = format!("{} {}", insmod("tgt.ko"), patched());
        let gone = format!("{} {}", rmmod("tgt"), tgt());
        say(&format!("1 comes and goes: {first}, {gone}, {} {}", insmod("tgt.ko"), patched()));
        rmmod("tgt");
    }

    fn is_refused(&mut self) {
        // From its start on it looks by itself after a minute, and not in between.
        self.restart();
        let (wrong, right, before) = (insmod("tgt-nofunction.ko"), insmod("tgt.ko"), tgt());
        let after = state_of(&asked(&Request::Look, &[]), "tgt");
        say(&format!(
            "2 wrong build: {wrong}, right {right}, {before}, woken {after}, right {} {}",
            insmod("tgt.ko"),
            patched()
        ));
        rmmod("tgt");
        // While a level has not settled it looks every second.
        self.apply(3, false, 3600);
        let wrong = insmod("tgt-nofunction.ko");
        let healed = until(|| Some(tgt()).filter(|state| state != "NeedsHeal"));
        say(&format!("2 by itself: {wrong}, then {healed}, right {} {}", insmod("tgt.ko"), patched()));
        rmmod("tgt");
        self.take_off();
    }

    fn is_foreign_on_disk(&mut self) {
        self.installs("tgt.ko", "tgt-foreign.ko");
        let state = self.apply(3, false, 3600);
        assert!(state.message.as_ref().is_some_and(|message| message.contains("tgt is another build")));
        let nothing = if is_loaded("invivo_l") { "something" } else { "nothing" };
        say(&format!("3 foreign on disk: {}, {nothing} is loaded", refused(&state)));
        let state = self.apply(3, true, 3600);
        let (stands, targets) = (stands(&state), targets(&state));
        let foreign = format!("{} {} {}", insmod("tgt-foreign.ko"), tgt(), value());
        let hold = format!("{} {}", insmod("hold.ko"), state_of(&asked(&Request::State, &[]), "hold"));
        say(&format!("3 allowed: {stands}, {targets}, foreign {foreign}, hold {hold}"));
        for module in ["tgt", "hold"] {
            rmmod(module);
        }
        self.take_off();
        fs::copy("/tgt-foreign.ko", self.modules.join("kernel/hold.ko")).unwrap();
        say(&format!("3 nothing else: {}", refused(&self.apply(1, true, 3600))));
        self.installs("tgt.ko", "tgt.ko");
    }

    fn is_foreign_in_the_kernel(&mut self) {
        assert_eq!(insmod("tgt-foreign.ko"), "ok");
        let held = refused(&self.apply(3, false, 3600));
        let allowed = stands(&self.apply(3, true, 3600));
        say(&format!("4 foreign is loaded: {held}, allowed {allowed}"));
        rmmod("tgt");
        self.take_off();
        self.apply(3, false, 3600);
        let came = format!("{} {} {}", insmod("tgt-foreign.ko"), tgt(), value());
        say(&format!("4 foreign with all names comes later: {came}"));
        rmmod("tgt");
        self.take_off();
    }

    fn is_packed(&mut self) {
        self.installs("tgt.ko.xz", "tgt.ko.xz");
        let packed = stands(&self.apply(3, false, 3600));
        self.take_off();
        fs::write(self.modules.join("kernel/tgt.ko.xz"), b"\xfd7zXZ\0 and no more").unwrap();
        say(&format!("5 packed: {packed}, damaged {}", refused(&self.apply(3, false, 3600))));
        self.installs("tgt.ko", "tgt.ko");
    }

    /// The policy knows no pinning; a person may load a patch so. The loader takes it as it is.
    fn is_pinned(&mut self) {
        let patch = fs::read("/patch3.ko").unwrap();
        assert_eq!(insmod("tgt.ko"), "ok");
        rustix::system::init_module(&patch, c"pin=1").unwrap();
        until(|| {
            let moving = fs::read_to_string("/sys/kernel/livepatch/invivo_l3_0000000000000003/transition");
            moving.is_ok_and(|moving| moving.trim() == "0").then_some(())
        });
        let state = state_of(&self.apply(3, false, 3600), "tgt");
        say(&format!("6 pinned by hand: {state}, unload {}", rmmod("tgt")));
        self.take_off();
        assert_eq!(rmmod("tgt"), "ok");
    }
}

impl Guest {
    /// Ours would replace it: it is named and left at work until whoever loaded it takes it off.
    fn is_not_alone(&mut self) {
        const PATCH: &str = "/sys/kernel/livepatch/foreign";
        let flag = |name: &str| fs::read_to_string(Path::new(PATCH).join(name)).unwrap_or_default();
        assert_eq!(insmod("foreign.ko"), "ok");
        until(|| (flag("transition").trim() == "0").then_some(()));
        let state = self.apply(3, true, 3600);
        assert!(state.message.as_ref().is_some_and(|message| message.contains("foreign")), "{state:?}");
        let works = fs::read_to_string("/proc/cmdline").unwrap().starts_with("foreign");
        let works = if works { "its function works" } else { "its function is lost" };
        let refused = refused(&state);
        fs::write(Path::new(PATCH).join("enabled"), "0").unwrap();
        until(|| (!Path::new(PATCH).exists()).then_some(()));
        assert_eq!(rmmod("foreign"), "ok");
        let after = stands(&self.apply(3, true, 3600));
        self.take_off();
        say(&format!("7 a livepatch of others: {refused}, {works}, gone {after}"));
    }
}

impl Guest {
    /// A function can be redirected by one alone: whoever has it is named.
    fn is_held(&mut self) {
        assert_eq!(insmod("probe.ko"), "ok");
        let state = self.apply(3, true, 3600);
        let message = state.message.clone().unwrap_or_default();
        let (errno, holders) = message.split_once("; ").unwrap_or((&message, "nobody is named"));
        let errno = errno.split(':').next().unwrap_or_default();
        let nothing = if is_loaded("invivo_l") { "something" } else { "nothing" };
        let held = format!("{}, {errno} and {holders}, {nothing} is loaded", refused(&state));
        assert_eq!(rmmod("probe"), "ok");
        say(&format!("8 a kprobe has a function: {held}, gone {}", stands(&self.apply(3, true, 3600))));
        self.take_off();
    }

    /// One sleeps in old code, which has to end for a patch, and one in new code, which has to end for
    /// its reversal. Neither is woken by the kernel.
    fn cannot_be_reversed(&mut self) {
        const PATCH: &str = "/sys/kernel/livepatch/invivo_l1_0000000000000001";
        let flag = |name: &str| fs::read_to_string(Path::new(PATCH).join(name)).unwrap_or_default();
        let moves = move || flag("transition").trim() == "1";
        assert_eq!(insmod("hold.ko"), "ok");
        let mut old = sleepers::start("old");
        let thread = sleepers::asleep(&old);
        let new = std::thread::spawn(move || {
            until(|| moves().then_some(()));
            let new = sleepers::start("new");
            sleepers::asleep(&new);
            new
        });
        let state = self.apply_within(SignedDuration::from_secs(10), 1, false, 3600);
        let mut new = new.join().unwrap();
        let named: Vec<_> =
            state.blockers.iter().map(|blocker| (blocker.tid, blocker.comm.as_str())).collect();
        let names = if named == [(thread, "old")] { "old alone".to_owned() } else { format!("{named:?}") };
        let stays = flag("enabled").trim() == "0" && moves() && is_loaded("invivo_l1");
        let stays = if stays { "left as it is" } else { "touched" };
        say(&format!("9 sleepers in old and in new code: {}, names {names}, {stays}", refused(&state)));

        let end = |sleeper: &mut Child| {
            sleeper.kill().unwrap();
            sleeper.wait().unwrap();
        };
        end(&mut new);
        until(|| (!Path::new(PATCH).exists()).then_some(()));
        end(&mut old);
        let after = stands(&self.apply(1, false, 3600));
        say(&format!("9 the one in new code is gone: reversed, {after}"));
        self.take_off();
        assert_eq!(rmmod("hold"), "ok");
    }
}

/// Whether a module is there whose name begins so.
fn is_loaded(name: &str) -> bool {
    fs::read_to_string("/proc/modules").unwrap().lines().any(|line| line.starts_with(name))
}

fn say(case: &str) {
    super::say(&Said::Case(case.to_owned()));
}

fn loader() -> Child {
    let _ = fs::remove_file(SOCKET);
    let loader = start(&fs::read_to_string("/root").unwrap(), Duration::ZERO, KEPT.to_vec());
    until(|| Path::new(SOCKET).exists().then_some(()));
    loader
}

fn asked(request: &Request, blobs: &[&[u8]]) -> State {
    match ask(Path::new(SOCKET), request, blobs, PATIENCE) {
        Ok(Answer::State(state)) => *state,
        other => panic!("{other:?}"),
    }
}

/// Polled, with a deadline.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not come to that");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn stands(state: &State) -> String {
    format!("{} level {}", state.state, state.level)
}

fn refused(state: &State) -> String {
    format!("{} {} level {}", state.state, state.reason.map_or("without reason", |r| r.as_str()), state.level)
}

fn targets(state: &State) -> String {
    let told = TARGETS
        .iter()
        .filter_map(|name| state.targets.iter().find(|target| target.name.as_str() == *name))
        .map(|target| format!("{} {}", target.name, target.state));
    told.collect::<Vec<_>>().join(" ")
}

fn state_of(state: &State, name: &str) -> String {
    let found = state.targets.iter().find(|target| target.name.as_str() == name);
    found.map_or("not told".to_owned(), |target| target.state.to_string())
}

fn tgt() -> String {
    state_of(&asked(&Request::State, &[]), "tgt")
}

/// State and number of a target that is loaded.
fn patched() -> String {
    format!("{} {}", tgt(), value())
}

fn value() -> String {
    fs::read_to_string("/proc/tgt").unwrap_or_default().trim().to_owned()
}

fn named(result: Result<(), Errno>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(Errno::INVAL) => "EINVAL".to_owned(),
        Err(Errno::NOEXEC) => "ENOEXEC".to_owned(),
        Err(Errno::AGAIN) => "EAGAIN".to_owned(),
        Err(other) => other.to_string(),
    }
}

fn insmod(file: &str) -> String {
    named(rustix::system::init_module(&fs::read(Path::new("/").join(file)).unwrap(), c""))
}

fn rmmod(module: &str) -> String {
    const O_NONBLOCK: i32 = 0o4000;
    named(rustix::system::delete_module(&std::ffi::CString::new(module).unwrap(), O_NONBLOCK))
}
