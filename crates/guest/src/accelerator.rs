//! Whether the processor runs guests itself.

use std::fs;
use std::process::{Command, Stdio};

use crate::tsc;

/// What runs a guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU, by translation.
    Tcg,
}

impl Accelerator {
    /// KVM where it works, translation elsewhere.
    ///
    /// That `/dev/kvm` opens proves nothing (it does on machines without the extensions), so QEMU
    /// is asked to make a virtual machine with it. `INVIVO_ACCEL=tcg` takes the choice away.
    pub fn detect() -> Self {
        let forced = std::env::var("INVIVO_ACCEL").is_ok_and(|value| value == "tcg");
        if !forced && extensions() && kvm_starts() { Self::Kvm } else { Self::Tcg }
    }

    /// QEMU's own arguments.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => &["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max"],
        }
    }

    /// How many processors to give a guest that does not need more. With several of them QEMU 10 was seen,
    /// once in some dozens of boots, to end by an assertion of its own (`iotlb_to_section`) and a guest to
    /// stand still; that was not seen with one.
    pub fn processors(self) -> u8 {
        match self {
            Self::Kvm => 2,
            Self::Tcg => 1,
        }
    }

    /// What a guest's Linux must be told on its command line.
    ///
    /// Under translation the guest's counter is the machine's. Linux measures it at boot against an
    /// emulated timer, which goes wrong on a busy machine (a clock ten times too fast was seen), so
    /// it is told the rate instead; and it must not doubt the counter afterwards.
    pub fn kernel_arguments(self) -> String {
        match self {
            Self::Kvm => String::new(),
            Self::Tcg => {
                let rate = tsc::khz().map_or_else(String::new, |khz| format!(" tsc_early_khz={khz}"));
                format!("tsc=reliable no_timer_check{rate}")
            }
        }
    }
}

/// Whether the processor says that it can virtualise.
fn extensions() -> bool {
    fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
        text.lines()
            .filter(|line| line.starts_with("flags"))
            .any(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
    })
}

/// Whether QEMU can make a machine on KVM. The monitor leaves at the end of its (empty) input.
fn kvm_starts() -> bool {
    Command::new("timeout")
        .args(["10", "qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-M", "q35"])
        .args(["-m", "64", "-nodefaults", "-display", "none", "-S", "-monitor", "none"])
        .args(["-qmp", "stdio"])
        .stdin(quit())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Standard input that tells QEMU's monitor to leave.
fn quit() -> Stdio {
    Command::new("printf")
        .arg(r#"{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n"#)
        .stdout(Stdio::piped())
        .spawn()
        .ok()
        .and_then(|child| child.stdout)
        .map_or_else(Stdio::null, Stdio::from)
}
