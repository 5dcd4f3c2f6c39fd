//! A guest from the outside: started, listened to, and its power taken away.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use invivo_guest::machine::Port;
use invivo_guest::{Accelerator, Initramfs, Machine, PidFile, Process, Serial, machine};

use crate::bundles::Bundles;
use crate::disk::Disk;
use crate::inside::{LOADER, OTHER_LOADER, PLAN};
use crate::plan::{Plan, Said};
use crate::versions::other_loader;

/// The test of `main.rs` that is the guest's first process.
pub(crate) const INSIDE: &str = "in_the_guest";

/// Enough for a panic and what led to it.
const CONSOLE_LINES: usize = 80;

/// What every boot with a plan has in common.
pub(crate) struct Rig {
    pub(crate) bundles: Bundles,
    archive: Initramfs,
}

/// What is different from guest to guest.
pub(crate) struct Parts<'a> {
    pub(crate) name: &'a str,
    pub(crate) image: &'a Path,
    pub(crate) archive: Initramfs,
    /// Added to the kernel's command line.
    pub(crate) append: &'a str,
    pub(crate) cpus: u8,
    pub(crate) disks: Vec<machine::Disk>,
}

/// This very program as a guest's first process, and the loader beside it.
pub(crate) fn first_process() -> Result<Initramfs, Box<dyn Error>> {
    let this = fs::read(std::env::current_exe()?)?;
    let loader = fs::read(env!("CARGO_BIN_EXE_invivo-loader"))?;
    let folders = ["proc", "sys", "dev", "run", "state"];
    let archive = folders
        .iter()
        .fold(Initramfs::new(), |archive, folder| archive.directory(folder))
        .file("init", 0o755, format!("#!/inside {INSIDE}\n").as_bytes())
        .file("inside", 0o755, &this)
        .file(LOADER, 0o755, &loader);
    Ok(match other_loader() {
        Some(other) => archive.file(OTHER_LOADER, 0o755, &other),
        None => archive,
    })
}

/// Starts a guest, its files in `folder`. Those of its firmware's store of error records are another
/// guest's last words, if there was one before.
pub(crate) fn start(folder: &Path, parts: Parts<'_>) -> Result<Guest, Box<dyn Error>> {
    let at = |what: &str| folder.join(what);
    fs::write(at("initrd"), parts.archive.finish())?;
    let machine = Machine {
        name: format!("invivo-{}", parts.name),
        uuid: None,
        accelerator: Accelerator::detect(),
        cpus: parts.cpus,
        memory_mib: 256,
        kernel: parts.image.to_owned(),
        initrd: at("initrd"),
        append: format!("console=ttyS0 quiet loglevel=4 panic=-1 {}", parts.append),
        disks: parts.disks,
        nic: None,
        serial_log: at("serial"),
        second_port: Some(Port::Log(at("said"))),
        error_records: Some(at("error-records")),
    };
    for log in ["serial", "said"] {
        let _ = fs::remove_file(at(log));
    }
    let pid_file = PidFile::new(at("pid"));
    let process = machine.start(&pid_file, &at("qemu"))?;
    let (serial, said) = (Serial::new(at("serial")), Serial::new(at("said")));
    Ok(Guest { process, pid_file, serial, said, qemu: at("qemu"), start: Instant::now() })
}

impl Rig {
    pub(crate) fn new(bundles: Bundles) -> Result<Self, Box<dyn Error>> {
        let archive = bundles.pack(first_process()?);
        Ok(Self { bundles, archive })
    }

    /// Starts a guest on `disk`; `append` is added to its kernel's command line.
    pub(crate) fn boot(
        &self,
        name: &str,
        disk: &Disk,
        plan: &Plan,
        append: &str,
    ) -> Result<Guest, Box<dyn Error>> {
        self.boot_image(&self.bundles.image, name, disk, plan, append)
    }

    /// The same with this image of the kernel.
    pub(crate) fn boot_image(
        &self,
        image: &Path,
        name: &str,
        disk: &Disk,
        plan: &Plan,
        append: &str,
    ) -> Result<Guest, Box<dyn Error>> {
        let parts = Parts {
            name,
            image,
            archive: self.archive.clone().file(PLAN, 0o444, &serde_json::to_vec(plan)?),
            append: &format!("INVIVO_GUEST=plan {append}"),
            cpus: 1,
            disks: vec![machine::Disk::served(disk.socket())],
        };
        start(disk.folder(), parts)
    }
}

/// A guest that runs.
pub(crate) struct Guest {
    process: Process,
    pid_file: PidFile,
    serial: Serial,
    /// The port of what is said for the host: nobody else speaks there.
    said: Serial,
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
        let text = self.said.text();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    pub(crate) fn has_said(&self, wanted: impl Fn(&Said) -> bool) -> bool {
        self.said().iter().any(wanted)
    }

    /// The end of what was on its console, and QEMU's own words.
    pub(crate) fn console(&self) -> String {
        let text = self.serial.text();
        let lines: Vec<_> = text.lines().collect();
        let last = lines.get(lines.len().saturating_sub(CONSOLE_LINES)..).unwrap_or_default();
        last.join("\n") + "\n" + &read(&self.qemu)
    }

    /// Waits for its end by itself.
    pub(crate) fn ends(&self, patience: Duration) -> Result<Vec<Said>, Box<dyn Error>> {
        if self.process.wait(patience) {
            return Ok(self.said());
        }
        self.kill()?;
        let words = format!("the guest did not end within {patience:?}, its console's end:");
        Err(format!("{words}\n{}", self.console()).into())
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
