//! The few things that the loader does to a kernel, and the clocks it goes by.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::time::Duration;

use invivo_terms::{ModuleName, TargetName};
use invivo_wire::Blocker;
use jiff::Timestamp;
use rustix::io::Errno;
use rustix::time::ClockId;

use crate::health::Health;
use crate::installed::Installed;
use crate::running::{Folders, Names, Running, RunningError};
use crate::seen::Seen;
use crate::targets::{Builds, Shown, Target};
use crate::verdict::Record;

/// A kernel. The real one, or a test's.
pub trait Kernel {
    /// Which kernel runs.
    ///
    /// # Errors
    ///
    /// If its files cannot be read.
    fn running(&self) -> Result<Running, RunningError>;

    /// What it shows of live patches and of our modules.
    ///
    /// # Errors
    ///
    /// If its files cannot be read.
    fn seen(&self) -> io::Result<Seen>;

    /// The records of panics that there are, as far as they can be read.
    fn records(&self) -> Vec<Record>;

    /// The end of the kernel's log; none where this process may not read it.
    fn log(&self) -> Option<Record>;

    /// How the kernel says it is.
    ///
    /// # Errors
    ///
    /// If its files cannot be read.
    fn health(&self) -> io::Result<Health>;

    /// At most five threads whose patch state is still `old`.
    fn blockers(&self, old: i8) -> Vec<Blocker>;

    /// Who else redirects any of these functions, for people; nothing where that cannot be known.
    fn holders(&self, functions: &[String]) -> Vec<String>;

    /// The builds of these modules, loaded and on disk for this release.
    fn builds(&self, release: &str, targets: &[Target]) -> BTreeMap<TargetName, Builds>;

    /// What it shows of the targets of this patch, which is on.
    fn shown(&self, patch: &ModuleName, targets: &[Target]) -> BTreeMap<TargetName, Shown>;

    /// Lets a patch clear what a refused load of a target has left in it.
    ///
    /// # Errors
    ///
    /// The kernel's.
    fn heal(&self, patch: &ModuleName, target: &TargetName) -> io::Result<()>;

    /// `init_module(2)` of exactly these bytes, with these parameters.
    ///
    /// # Errors
    ///
    /// The kernel's.
    fn load(&mut self, image: &[u8], parameters: &CStr) -> Result<(), Errno>;

    /// `delete_module(2)`, never by force.
    ///
    /// # Errors
    ///
    /// The kernel's.
    fn unload(&mut self, name: &ModuleName) -> Result<(), Errno>;

    /// Writes a patch's `enabled`.
    ///
    /// # Errors
    ///
    /// The kernel's.
    fn switch(&mut self, name: &ModuleName, enabled: bool) -> io::Result<()>;

    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Time since boot, suspend counted.
    fn since_boot(&self) -> Duration;

    /// The same when this process began.
    fn began(&self) -> Duration;

    /// Lets time pass.
    fn pause(&mut self, length: Duration);
}

/// The kernel that runs this process.
#[derive(Debug)]
pub struct Linux {
    folders: Folders,
    installed: RefCell<Installed>,
}

impl Linux {
    /// Seen through these folders.
    pub fn new(folders: Folders) -> Self {
        Self { folders, installed: RefCell::default() }
    }
}

impl Kernel for Linux {
    fn running(&self) -> Result<Running, RunningError> {
        crate::running::observe(&self.folders, &Names::now())
    }

    fn seen(&self) -> io::Result<Seen> {
        crate::seen::observe(&self.folders)
    }

    fn records(&self) -> Vec<Record> {
        crate::record::observe(&self.folders.records)
    }

    fn log(&self) -> Option<Record> {
        crate::log::observe()
    }

    fn health(&self) -> io::Result<Health> {
        crate::health::observe(&self.folders)
    }

    fn blockers(&self, old: i8) -> Vec<Blocker> {
        crate::blockers::observe(&self.folders, old)
    }

    fn holders(&self, functions: &[String]) -> Vec<String> {
        crate::holders::observe(&self.folders.tracing, functions)
    }

    fn builds(&self, release: &str, targets: &[Target]) -> BTreeMap<TargetName, Builds> {
        let folder = self.folders.modules.join(release);
        let names = targets.iter().map(|target| &target.name);
        self.installed.borrow_mut().builds(&folder, &self.folders.sys, names)
    }

    fn shown(&self, patch: &ModuleName, targets: &[Target]) -> BTreeMap<TargetName, Shown> {
        crate::shown::observe(&self.folders, patch, targets.iter().map(|target| &target.name))
    }

    fn heal(&self, patch: &ModuleName, target: &TargetName) -> io::Result<()> {
        crate::shown::heal(&self.folders, patch, target)
    }

    fn load(&mut self, image: &[u8], parameters: &CStr) -> Result<(), Errno> {
        rustix::system::init_module(image, parameters)
    }

    fn unload(&mut self, name: &ModuleName) -> Result<(), Errno> {
        /// Without it the call could wait for references; with it the answer comes at once.
        const O_NONBLOCK: i32 = 0o4000;
        let name = CString::new(name.as_str()).map_err(|_| Errno::INVAL)?;
        rustix::system::delete_module(&name, O_NONBLOCK)
    }

    fn switch(&mut self, name: &ModuleName, enabled: bool) -> io::Result<()> {
        fs::write(self.folders.livepatch.join(name.as_str()).join("enabled"), if enabled { "1" } else { "0" })
    }

    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn since_boot(&self) -> Duration {
        let time = rustix::time::clock_gettime(ClockId::Boottime);
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }

    fn began(&self) -> Duration {
        let stat = fs::read_to_string(self.folders.proc.join("self/stat")).ok();
        stat.and_then(|stat| process_start(&stat)).unwrap_or_else(|| self.since_boot())
    }

    fn pause(&mut self, length: Duration) {
        std::thread::sleep(length);
    }
}

/// The start in a line of `/proc/*/stat`, since boot: the 22nd word, in hundredths of a second on every
/// machine. The second is the program's name, in brackets, with whatever is in it.
fn process_start(stat: &str) -> Option<Duration> {
    let (_, after) = stat.rsplit_once(") ")?;
    let hundredths: u64 = after.split_whitespace().nth(19)?.parse().ok()?;
    Some(Duration::from_millis(hundredths.checked_mul(10)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_began_when_the_kernel_says_whatever_its_name_is() {
        let stat = "77 (a) b (c) S 1 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123456 2 3 4\n";
        assert_eq!(process_start(stat), Some(Duration::from_millis(1_234_560)));
        assert_eq!(process_start("77 (a) S 1"), None);
        let linux = Linux::new(Folders { proc: "/proc".into(), ..Folders::below(std::path::Path::new("/")) });
        let (began, now) = (linux.began(), linux.since_boot());
        assert!(began < now && now.saturating_sub(began) < Duration::from_mins(10), "{began:?} {now:?}");
    }
}
