//! The few things that the loader does to a kernel, and the clocks it goes by.

use std::ffi::CString;
use std::fs;
use std::io;
use std::time::Duration;

use invivo_terms::ModuleName;
use invivo_wire::Blocker;
use jiff::Timestamp;
use rustix::io::Errno;
use rustix::time::ClockId;

use crate::health::Health;
use crate::running::{Folders, Names, Running, RunningError};
use crate::seen::Seen;
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

    /// `init_module(2)` of exactly these bytes, without parameters.
    ///
    /// # Errors
    ///
    /// The kernel's.
    fn load(&mut self, image: &[u8]) -> Result<(), Errno>;

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
}

impl Linux {
    /// Seen through these folders.
    pub fn new(folders: Folders) -> Self {
        Self { folders }
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

    fn load(&mut self, image: &[u8]) -> Result<(), Errno> {
        rustix::system::init_module(image, c"")
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
