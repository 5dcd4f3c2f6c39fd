//! The loader on a real kernel, alone in a guest: the released program with its filter and no more
//! capabilities than its container gives it, asked over its socket. There is no network, no agent and
//! no Kubernetes.
//!
//! The guest's first process is this very program, so that both sides share their types. Skips, and
//! says so, where QEMU is missing.
#![allow(unsafe_code, reason = "the guest's first process mounts and drops capabilities")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod blocked;
mod boot;
mod bundles;
mod chance;
mod cuts;
mod deaths;
mod disk;
mod faults;
mod figures;
mod file_system;
mod inside;
mod judge;
#[path = "../../../../patch-builder/tests/targets/modules.rs"]
mod modules;
mod plan;
#[path = "../../../fixtures/repository.rs"]
#[allow(dead_code, reason = "the agent's tests need more of it")]
mod repository;
mod signer;
mod stays;
mod strict;
mod targets;
mod versions;

use std::path::Path;
use std::process::Command;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use invivo_terms::{Level, NodeState, Revision};
use jiff::Timestamp;

use boot::Rig;
use bundles::Bundles;
use disk::Disk;
use judge::Promised;
use plan::{Bytes, End, Look, Plan, Said, Step};

/// Longest life of a guest that ends by itself: many times what the longest needs under emulation, since
/// machines are busy.
const PATIENCE: Duration = Duration::from_hours(1);
const POWER_CUTS: u32 = 40;
/// Without one of them there is nothing to try.
const NEEDED: [&str; 3] = ["qemu-system-x86_64", "mke2fs", "openssl"];

/// The first process of a guest; nothing anywhere else.
#[test]
fn in_the_guest() {
    match std::env::var("INVIVO_GUEST").as_deref() {
        Ok("plan") if std::process::id() == 1 => inside::run(),
        Ok("targets") if std::process::id() == 1 => inside::targets::run(),
        Ok("reader") => inside::read(),
        Ok("parent") => inside::sleepers::fork(),
        Ok("old") => inside::sleepers::sleep(),
        Ok("new") => inside::sleepers::sleep_in_new_code(),
        _ => {}
    }
}

/// What all guests share. Each test has one guest at a time, and as many run as there are processors.
/// None where it cannot be tried.
fn rig() -> Option<RwLockReadGuard<'static, Rig>> {
    shared().map(|rig| rig.read().unwrap_or_else(PoisonError::into_inner))
}

/// The same for a test that wants the processors for itself.
fn whole_rig() -> Option<RwLockWriteGuard<'static, Rig>> {
    shared().map(|rig| rig.write().unwrap_or_else(PoisonError::into_inner))
}

fn shared() -> Option<&'static RwLock<Rig>> {
    static RIG: OnceLock<Option<RwLock<Rig>>> = OnceLock::new();
    let rig = RIG.get_or_init(|| {
        let has = |program: &&str| Command::new(program).arg("--version").output().is_ok();
        let found = NEEDED.iter().all(has);
        found.then(|| RwLock::new(Rig::new(Bundles::make().unwrap()).unwrap()))
    });
    if rig.is_none() {
        eprintln!("SKIP: one of {NEEDED:?} is missing, nothing was tried");
    }
    rig.as_ref()
}

/// Whether there is time for what is tried before a release and not at every change.
fn there_is_time() -> bool {
    let time = std::env::var("INVIVO_ALL").is_ok_and(|value| value == "1");
    if !time {
        eprintln!("SKIP: takes minutes; INVIVO_ALL=1 tries it");
    }
    time
}

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

/// A boot that ends by itself.
fn plan(rig: &Rig, steps: Vec<Step>) -> Plan {
    let facts = rig.bundles.facts();
    Plan {
        facts,
        settle_after_seconds: 1,
        deadline_seconds: 600,
        kernel_log: false,
        before: Vec::new(),
        steps,
        end: End::PowerOff,
    }
}

/// What a guest said to its end, and that its kernel had nothing to complain about.
fn to_its_end(rig: &Rig, disk: &Disk, plan: &Plan, append: &str) -> Vec<Said> {
    to_its_end_on(&rig.bundles.image, rig, disk, plan, append)
}

/// The same with this image of the kernel.
fn to_its_end_on(image: &Path, rig: &Rig, disk: &Disk, plan: &Plan, append: &str) -> Vec<Said> {
    disk.power_on(None);
    let guest = rig.boot_image(image, "life", disk, plan, append).unwrap();
    let said = guest.ends(PATIENCE).unwrap();
    assert_eq!(said.last(), Some(&Said::Done(Vec::new())), "{}", guest.console());
    eprintln!("{:?} from power on to power off, {} writes", guest.age(), disk.writes());
    said
}

fn looks(said: Vec<Said>) -> Vec<Look> {
    said.into_iter()
        .filter_map(|said| match said {
            Said::Up(look) | Said::Answered(_, look) | Said::Looks(look) => Some(*look),
            Said::Asks(_)
            | Said::Sleeps(_)
            | Said::Began(_)
            | Said::LoaderEnded(_)
            | Said::Case(_)
            | Said::Cycled(_)
            | Said::Compared(_)
            | Said::Done(_) => None,
        })
        .collect()
}

fn new_disk(rig: &Rig) -> Disk {
    Disk::serve(rig.bundles.file_system.image().unwrap()).unwrap()
}

fn hold(revision: i64) -> Step {
    Step::Hold { revision: Revision(revision) }
}

fn roll_back(revision: i64) -> Step {
    Step::RollBack { revision: Revision(revision) }
}

fn apply(level: u32, revision: i64) -> Step {
    Step::Apply { level: Level(level), generation: 0, revision: Revision(revision), bytes: Bytes::Good }
}

#[test]
fn a_level_is_applied_and_settles_and_is_back_after_a_boot() {
    let Some(rig) = rig() else { return };
    let disk = new_disk(&rig);
    let mut promised = Promised::new(rig.bundles.facts());
    let mut boot = |steps| {
        // Long enough to be looked at before it has settled, however slow the guest is.
        let plan = Plan { settle_after_seconds: 15, ..plan(&rig, steps) };
        let said = to_its_end(&rig, &disk, &plan, "");
        let wrong: Vec<_> = said.iter().flat_map(|said| promised.hear(said)).collect();
        assert_eq!(wrong, Vec::<String>::new());
        promised.power_cut();
        for said in &said {
            if let Said::Began(millis) = said {
                eprintln!("first answer {millis} ms after the loader's start");
            }
        }
        let seen = |look: Look| {
            if let (NodeState::Settled, Some(kernels)) = (look.state.state, look.state.switch_millis) {
                eprintln!("settled; the kernel took {kernels} ms to switch");
            }
            (look.state.state, look.kernel.cmdline, look.kernel.version)
        };
        looks(said).into_iter().map(seen).collect::<Vec<_>>()
    };
    let (one, two, three) = (Some(Level(1)), Some(Level(2)), Some(Level(3)));
    // The third level redirects one function less than the second, which is the kernel's own again.
    let first = boot(vec![apply(1, 1), apply(2, 2), apply(3, 3), Step::Settle]);
    let wanted = [
        (NodeState::Idle, None, None),
        (NodeState::Applied, one, None),
        (NodeState::Applied, two, two),
        (NodeState::Applied, three, None),
        (NodeState::Settled, three, None),
    ];
    assert_eq!(first, wanted);
    let second = boot(vec![roll_back(4)]);
    assert_eq!(second, [(NodeState::Settled, three, None), (NodeState::RolledBack, None, None)]);
    assert_eq!(boot(Vec::new()), [(NodeState::RolledBack, None, None)]);
}

/// `INVIVO_POWER_CUTS` says how many, `INVIVO_SEED` by which chance.
#[test]
fn nothing_promised_is_lost_and_nothing_convicted_is_loaded_whenever_the_power_is_cut() {
    let Some(rig) = whole_rig() else { return };
    let count = number("INVIVO_POWER_CUTS").map_or(POWER_CUTS, |count| u32::try_from(count).unwrap());
    let seed = number("INVIVO_SEED").unwrap_or_else(|| Timestamp::now().as_microsecond().unsigned_abs());
    eprintln!("{count} power cuts, INVIVO_SEED={seed}");
    let (rig, start) = (&*rig, Instant::now());
    let lane =
        |name, lane| move || cuts::run(rig, name, seed + lane, count.div_ceil(2)).map_err(|e| e.to_string());
    let tally = std::thread::scope(|scope| {
        let lanes = [scope.spawn(lane("a", 0)), scope.spawn(lane("b", 1))];
        lanes.map(|lane| lane.join().unwrap())
    });
    let tally = tally.into_iter().map(|tally| tally.unwrap_or_else(|error| panic!("{error}")));
    let tally = tally.reduce(cuts::Tally::add).unwrap();
    eprintln!("in {:?}, INVIVO_SEED={seed}\n{tally}", start.elapsed());
    // Or nothing was tried. What is rare need not be among a few.
    let often =
        ["loaders that came up", "cuts in the middle of an instruction"].map(|what| (POWER_CUTS, what));
    let rare = ["levels brought back", "suspicions", "convictions"].map(|what| (10 * POWER_CUTS, what));
    for (enough, what) in often.into_iter().chain(rare) {
        assert!(count < enough || tally.of(what) > 0, "no {what}");
    }
}
