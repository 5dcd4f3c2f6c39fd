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

    fn pause(&mut self, length: Duration) {
        std::thread::sleep(length);
    }
}
