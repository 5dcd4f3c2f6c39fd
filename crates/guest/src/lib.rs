//! A QEMU guest as a plain process: start it, read its serial console, run commands on it, cut its
//! power.
//!
//! Nothing here knows of Kubernetes or of Invivo. The lab's nodes are such guests, and so is the
//! small machine in which a patch module is loaded once before it is published.
//!
//! - [`machine`]: what a guest is made of, and its start.
//! - [`process`]: processes that outlive the one that started them, found again without mistakes.
//! - [`serial`]: the guest's first serial port, a log file.
//! - [`console`]: the guest's second serial port, on which commands run.
//! - [`initramfs`]: the small archive that a kernel starts from.
//! - [`accelerator`]: whether the processor helps, and what a guest's kernel must be told if not.

pub mod accelerator;
pub mod console;
pub mod initramfs;
pub mod machine;
pub mod process;
pub mod serial;
mod tsc;

pub use accelerator::Accelerator;
pub use console::{Console, Output};
pub use initramfs::Initramfs;
pub use machine::{Disk, Format, Machine, Tap};
pub use process::{PidFile, Process};
pub use serial::Serial;
