//! A guest from the outside: started, listened to, and its power taken away.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use invivo_guest::{Accelerator, Initramfs, Machine, PidFile, Process, Serial, machine};

use crate::bundles::Bundles;
use crate::disk::Disk;
use crate::inside::{MARK, PLAN};
use crate::plan::{Plan, Said};

/// The test of `main.rs` that is the guest's first process.
const INSIDE: &str = "in_the_guest";

/// What every boot has in common.
pub(crate) struct Rig {
    pub(crate) bundles: Bundles,
    archive: Initramfs,
    accelerator: Accelerator,
}

impl Rig {
    pub(crate) fn new(bundles: Bundles) -> Result<Self, Box<dyn Error>> {
        let this = fs::read(std::env::current_exe()?)?;
        let loader = fs::read(env!("CARGO_BIN_EXE_invivo-loader"))?;
        let archive = ["proc", "sys", "dev", "run", "state"]
            .iter()
            .fold(Initramfs::new(), |archive, folder| archive.directory(folder))
            .file("init", 0o755, format!("#!/inside {INSIDE}\n").as_bytes())
            .file("inside", 0o755, &this)
            .file("invivo-loader", 0o755, &loader);
        let archive = bundles.pack(archive);
        Ok(Self { bundles, archive, accelerator: Accelerator::detect() })
    }

    /// Starts a guest on `disk`; `append` is added to its kernel's command line.
    pub(crate) fn boot(
        &self,
        name: &str,
        disk: &Disk,
        plan: &Plan,
        append: &str,
    ) -> Result<Guest, Box<dyn Error>> {
        let at = |what: &str| disk.beside(what);
        let archive = self.archive.clone().file(PLAN, 0o444, &serde_json::to_vec(plan)?);
        fs::write(at("initrd"), archive.finish())?;
        let machine = Machine {
            name: format!("invivo-{name}"),
            uuid: None,
            accelerator: self.accelerator,
            cpus: 1,
            memory_mib: 256,
            kernel: self.bundles.image.clone(),
            initrd: at("initrd"),
            append: format!("console=ttyS0 quiet loglevel=4 panic=-1 INVIVO_GUEST=1 {append}"),
            disks: vec![machine::Disk::served(disk.socket())],
            nic: None,
            serial_log: at("serial"),
            console: None,
            error_records: None,
        };
        let _ = fs::remove_file(at("serial"));
        let pid_file = PidFile::new(at("pid"));
        let process = machine.start(&pid_file, &at("qemu"))?;
        Ok(Guest {
            process,
            pid_file,
            serial: Serial::new(at("serial")),
            qemu: at("qemu"),
            start: Instant::now(),
        })
    }
}

/// A guest that runs.
pub(crate) struct Guest {
    process: Process,
    pid_file: PidFile,
    serial: Serial,
    qemu: PathBuf,
    start: Instant,
}

impl Guest {
    /// Since its power came on.
    pub(crate) fn age(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn runs(&self) -> bool {
        self.process.alive()
    }

    /// Ends it at once.
    pub(crate) fn kill(&self) -> Result<(), Box<dyn Error>> {
        Ok(self.pid_file.kill()?)
    }

    /// What it has said so far. A last line may be half a line.
    pub(crate) fn said(&self) -> Vec<Said> {
        let text = self.serial.text();
        let lines = text.lines().filter_map(|line| line.strip_prefix(MARK));
        lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub(crate) fn has_said(&self, wanted: impl Fn(&Said) -> bool) -> bool {
        self.said().iter().any(wanted)
    }

    /// All that was on its console, and QEMU's own words.
    pub(crate) fn console(&self) -> String {
        self.serial.text() + &read(&self.qemu)
    }

    /// Waits for its end by itself.
    pub(crate) fn ends(&self, patience: Duration) -> Result<Vec<Said>, Box<dyn Error>> {
        if self.process.wait(patience) {
            return Ok(self.said());
        }
        self.kill()?;
        Err(format!("the guest did not end within {patience:?}:\n{}", self.console()).into())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // A guest must not outlive its test.
        let _ = self.pid_file.kill();
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
