//! What a guest is made of.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::accelerator::Accelerator;
use crate::process::{self, PidFile, Process};

/// One guest: its parts, and where its ports are. Nothing is started before [`Machine::start`].
#[derive(Debug, Clone)]
pub struct Machine {
    /// Name of the guest, shown by `ps`.
    pub name: String,
    /// The machine's own identity (`/sys/class/dmi/id/product_uuid`).
    pub uuid: Option<String>,
    /// What runs its instructions.
    pub accelerator: Accelerator,
    /// Number of processors.
    pub cpus: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// The kernel's command line, without what the accelerator adds.
    pub append: String,
    /// Disks, in the order in which the guest sees them (`/dev/vda`, ...).
    pub disks: Vec<Disk>,
    /// The one network card.
    pub nic: Option<Tap>,
    /// Log of the first serial port.
    pub serial_log: PathBuf,
    /// The second serial port.
    pub second_port: Option<Port>,
    /// File behind the firmware's store of error records (ACPI ERST). Linux keeps its last words
    /// there (pstore), and they survive the loss of power.
    pub error_records: Option<PathBuf>,
}

/// What is behind a serial port.
#[derive(Debug, Clone)]
pub enum Port {
    /// A socket that somebody may connect to.
    Socket(PathBuf),
    /// A file: a log of what is said.
    Log(PathBuf),
}

/// A disk: virtio's, or NVMe's where a server is behind it.
#[derive(Debug, Clone)]
pub struct Disk {
    /// The file or socket behind it.
    pub file: PathBuf,
    /// The form of that file.
    pub format: Format,
    /// Several guests may read one file.
    pub read_only: bool,
}

/// The form of a disk's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The bytes as they are.
    Raw,
    /// QEMU's copy-on-write form.
    Qcow2,
    /// No file but the socket of a server that speaks NBD, with a cache that flushes empty. Its guest
    /// sees an NVMe disk, for which most kernels need no module.
    Served,
}

/// A virtio network card on a tap device that exists already.
#[derive(Debug, Clone)]
pub struct Tap {
    /// The tap device.
    pub interface: String,
    /// The card's address.
    pub mac: String,
}

/// Of a served disk: nothing smaller is read or written.
const BLOCK: u32 = 4096;

/// Size of the store of error records. One record is 8 KiB; an oops and its panic fill four or so.
const ERROR_RECORDS: &str = "256K";

impl Machine {
    /// The program and its arguments.
    pub fn command(&self) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(self.arguments());
        command
    }

    /// Starts the guest, its own messages in `log`, and remembers it in `pid_file`.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn start(&self, pid_file: &PidFile, log: &Path) -> Result<Process, process::Error> {
        if let Some(Port::Socket(socket)) = &self.second_port {
            // A socket that a killed guest left; if it cannot go, QEMU says so.
            let _ = fs::remove_file(socket);
        }
        pid_file.spawn(&mut self.command(), log)
    }

    fn arguments(&self) -> Vec<OsString> {
        let mut list = Arguments::default();
        list.pair("-name", &self.name);
        if let Some(uuid) = &self.uuid {
            list.pair("-uuid", uuid);
        }
        list.pair("-M", "q35,usb=off,smbus=off,sata=off");
        list.all(["-nodefaults", "-no-user-config", "-no-reboot"]);
        list.pair("-display", "none");
        list.all(self.accelerator.arguments());
        list.pair("-smp", self.cpus.to_string());
        list.pair("-m", self.memory_mib.to_string());
        list.pair("-kernel", &self.kernel);
        list.pair("-initrd", &self.initrd);
        let told = self.accelerator.kernel_arguments();
        list.pair("-append", format!("{} {told}", self.append).trim());
        for (index, disk) in self.disks.iter().enumerate() {
            list.pair("-drive", disk.drive(index));
            list.pair("-device", disk.device(index));
        }
        if let Some(tap) = &self.nic {
            list.pair(
                "-netdev",
                format!("tap,id=net,ifname={},script=no,downscript=no,vhost=off", tap.interface),
            );
            list.pair("-device", format!("virtio-net-pci,netdev=net,mac={},romfile=", tap.mac));
        }
        list.pair("-device", "virtio-rng-pci");
        if let Some(file) = &self.error_records {
            list.pair(
                "-object",
                joined(format!("memory-backend-file,id=erst,size={ERROR_RECORDS},share=on,mem-path="), file),
            );
            list.pair("-device", "acpi-erst,memdev=erst");
        }
        list.pair("-chardev", joined("file,id=serial,path=", &self.serial_log));
        list.pair("-serial", "chardev:serial");
        if let Some(port) = &self.second_port {
            let value = match port {
                Port::Socket(socket) => joined("socket,id=second,server=on,wait=off,path=", socket),
                Port::Log(file) => joined("file,id=second,path=", file),
            };
            list.pair("-chardev", value);
            list.pair("-serial", "chardev:second");
        }
        list.0
    }
}

impl Disk {
    /// A disk that guests share and none writes.
    pub fn shared(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), format: Format::Raw, read_only: true }
    }

    /// A guest's own disk. A loss of the host's power may lose it; the guest's may not.
    pub fn own(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), format: Format::Qcow2, read_only: false }
    }

    /// A guest's own disk behind the socket of an NBD server, which is told of every flush.
    pub fn served(socket: impl Into<PathBuf>) -> Self {
        Self { file: socket.into(), format: Format::Served, read_only: false }
    }

    fn drive(&self, index: usize) -> OsString {
        let (format, behind) = match self.format {
            Format::Raw => ("raw", ""),
            Format::Qcow2 => ("qcow2", ""),
            Format::Served => ("raw", "nbd+unix:///?socket="),
        };
        let access = match (self.read_only, self.format) {
            (true, _) => "readonly=on,file.locking=off,cache=writeback",
            (false, Format::Raw | Format::Qcow2) => "cache=unsafe,discard=unmap",
            (false, Format::Served) => "cache=writeback",
        };
        joined(format!("if=none,id=disk{index},format={format},{access},file={behind}"), &self.file)
    }

    fn device(&self, index: usize) -> String {
        match self.format {
            Format::Raw | Format::Qcow2 => format!("virtio-blk-pci,drive=disk{index}"),
            Format::Served => {
                format!(
                    "nvme,serial=disk{index},drive=disk{index},logical_block_size={BLOCK},physical_block_size={BLOCK}"
                )
            }
        }
    }
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn pair(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.0.push(name.into());
        self.0.push(value.as_ref().into());
    }

    fn all<'a>(&mut self, words: impl IntoIterator<Item = impl AsRef<OsStr> + 'a>) {
        self.0.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
    }
}

/// `prefix` and a path in one argument. QEMU splits at commas, so those in a path are doubled.
fn joined(prefix: impl Into<String>, path: &Path) -> OsString {
    let mut value = prefix.into();
    value.push_str(&path.to_string_lossy().replace(',', ",,"));
    value.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            name: "n".into(),
            uuid: None,
            accelerator: Accelerator::Kvm,
            cpus: 2,
            memory_mib: 512,
            kernel: "/k".into(),
            initrd: "/i".into(),
            append: "console=ttyS0".into(),
            disks: vec![Disk::shared("/a,b"), Disk::own("/c")],
            nic: None,
            serial_log: "/s".into(),
            second_port: None,
            error_records: None,
        }
    }

    #[test]
    fn a_comma_in_a_path_does_not_become_an_option() {
        let arguments = machine().arguments();
        assert!(arguments.iter().any(|word| word.to_string_lossy().ends_with("file=/a,,b")));
    }

    #[test]
    fn a_served_disk_is_told_of_every_flush() {
        let drive = Disk::served("/s").drive(0).into_string().unwrap();
        assert!(
            drive.contains("cache=writeback") && drive.ends_with("file=nbd+unix:///?socket=/s"),
            "{drive}"
        );
    }

    #[test]
    fn the_guest_does_not_start_again_by_itself() {
        assert!(machine().arguments().contains(&"-no-reboot".into()));
    }
}
