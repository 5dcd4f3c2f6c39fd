//! What befalls the node, and what the kernel says of it.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{LOADER, OTHER_LOADER, PATIENCE, STATE, sleepers};
use crate::bundles::file_name;
use crate::file_system::FileSystem;
use crate::plan::{Deed, Said};

const DISK: &str = "/dev/nvme0n1";
const FILLING: &str = "/state/filling";

/// Lets it happen.
pub(super) fn done(deed: Deed) {
    match deed {
        Deed::Fill => fill(),
        Deed::Free => fs::remove_file(FILLING).unwrap(),
        Deed::ReadOnly => remount(libc::MS_RDONLY),
        Deed::Writable => remount(0),
        Deed::Garbage => garbage(|_| true),
        Deed::GarbageInLevels => {
            garbage(|path| path.parent().is_some_and(|folder| folder.ends_with("levels")));
        }
        Deed::LaterFormat => later_format(),
        Deed::Clock(seconds) => set_clock(seconds),
        Deed::LockDown => lock_down(),
        Deed::PanicOnOops(yes) => {
            fs::write("/proc/sys/kernel/panic_on_oops", if yes { "1" } else { "0" }).unwrap();
        }
        Deed::Read => read_often(),
        Deed::Impatient => fs::write("/proc/sys/kernel/watchdog_thresh", "2").unwrap(),
        Deed::Fork => super::say(&Said::Sleeps(sleepers::begin_fork())),
        Deed::GoOn => sleepers::end_fork(),
        Deed::Exchange => exchange(),
    }
}

fn exchange() {
    let aside = "/exchanged";
    for (from, to) in [(LOADER, aside), (OTHER_LOADER, LOADER), (aside, OTHER_LOADER)] {
        fs::rename(from, to).unwrap();
    }
}

/// In pieces that get smaller: to the last block.
fn fill() {
    let mut file = fs::File::create(FILLING).unwrap();
    for size in [1 << 20, 1 << 12, 1 << 9] {
        let piece = vec![b'x'; size];
        while file.write_all(&piece).and_then(|()| file.sync_data()).is_ok() {}
    }
}

fn garbage(wanted: fn(&Path) -> bool) {
    for path in files(Path::new(STATE)).into_iter().filter(|path| wanted(path)) {
        let length = fs::metadata(&path).unwrap().len();
        let bytes: Vec<u8> = (0..length).map(|at| (at * 31 % 251).to_le_bytes()[0]).collect();
        fs::write(&path, bytes).unwrap();
    }
    rustix::fs::sync();
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let found = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    // Not the socket.
    found.filter(|path| path.is_file()).collect()
}

fn later_format() {
    let (head, value) = (format!("invivo2 {:016x} {:08x}", 1 << 20, 3), "new");
    let sum = invivo_feed::digest(format!("{head}{value}").as_bytes());
    for name in ["journal.a", "journal.b"] {
        fs::write(Path::new(STATE).join(name), format!("{head} {sum}\n{value}")).unwrap();
    }
    rustix::fs::sync();
}

fn set_clock(seconds: i64) {
    let mut now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec += seconds;
    rustix::time::clock_settime(rustix::time::ClockId::Realtime, now).unwrap();
}

/// The loader sees no securityfs: its container has none.
fn lock_down() {
    const PLACE: &str = "/sys/kernel/security";
    mount("securityfs", PLACE, c"securityfs", 0);
    fs::write(Path::new(PLACE).join("lockdown"), "integrity").unwrap();
    unmount(PLACE);
}

/// By a program of its own, since whoever calls code that oopses dies of it.
#[allow(clippy::zombie_processes, reason = "it ends with the guest")]
fn read_often() {
    sleepers::start("reader");
}

/// Lines of the kernel's log in which it complains.
pub(super) fn complaints() -> Vec<String> {
    const READ_ALL: libc::c_int = 3;
    const MARKS: [&str; 9] = [
        "BUG:",
        "WARNING:",
        "Oops",
        "Call Trace",
        "stall",
        "general protection",
        "EXT4-fs error",
        "Internal error",
        "Metadata corruption",
    ];
    let mut log = vec![0_u8; 1 << 20];
    let length = libc::c_int::try_from(log.len()).unwrap();
    // SAFETY: the kernel writes at most that many bytes, and there are that many.
    let read = unsafe { libc::klogctl(READ_ALL, log.as_mut_ptr().cast(), length) };
    log.truncate(usize::try_from(read).unwrap());
    let text = String::from_utf8_lossy(&log).into_owned();
    text.lines().filter(|line| MARKS.iter().any(|mark| line.contains(mark))).map(str::to_owned).collect()
}

pub(super) fn mounts() {
    mount("proc", "/proc", c"proc", 0);
    mount("sysfs", "/sys", c"sysfs", 0);
    mount("pstore", "/sys/fs/pstore", c"pstore", 0);
    mount("cgroup2", "/sys/fs/cgroup", c"cgroup2", 0);
    mount("tracefs", "/sys/kernel/tracing", c"tracefs", 0);
    mount("devtmpfs", "/dev", c"devtmpfs", 0);
    mount("tmpfs", "/run", c"tmpfs", 0);
}

/// What the state folder lies on.
pub(super) fn disk(file_system: FileSystem) {
    for module in file_system.modules() {
        let module = fs::read(Path::new("/").join(file_name(module))).unwrap();
        rustix::system::init_module(&module, c"").unwrap();
    }
    mount(DISK, "/state", file_system.name(), 0);
}

/// Of what is mounted already; the kind of file system is not looked at.
fn remount(flags: libc::c_ulong) {
    mount(DISK, "/state", c"ext4", libc::MS_REMOUNT | flags);
}

/// A disk may need a moment to appear.
fn mount(what: &str, place: &str, kind: &std::ffi::CStr, flags: libc::c_ulong) {
    let (what, place) = (c_string(what), c_string(place));
    let start = Instant::now();
    loop {
        // SAFETY: three strings that outlive the call, and no data.
        let done =
            unsafe { libc::mount(what.as_ptr(), place.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) }
                == 0;
        if done {
            return;
        }
        let error = io::Error::last_os_error();
        let absent = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENXIO));
        assert!(absent && start.elapsed() < PATIENCE, "mount {what:?} at {place:?}: {error}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(super) fn unmount(place: &str) {
    let place = c_string(place);
    // SAFETY: a string that outlives the call.
    let done = unsafe { libc::umount2(place.as_ptr(), 0) } == 0;
    assert!(done, "unmount {place:?}: {}", io::Error::last_os_error());
}

fn c_string(text: &str) -> std::ffi::CString {
    std::ffi::CString::new(text).unwrap()
}
