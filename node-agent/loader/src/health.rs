//! What the kernel says of its own health, and what that says about a patch that is new on it.

use std::fs;
use std::io;
use std::path::Path;

use invivo_wire::Fault;
use serde::{Deserialize, Serialize};

use crate::running::Folders;

/// Bits of `/proc/sys/kernel/tainted` (kernel documentation, "Tainted kernels").
const DIED: u64 = 1 << 7;
const WARNED: u64 = 1 << 9;
const LOCKED_UP: u64 = 1 << 14;

/// Counters and marks that only rise within a boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `/sys/kernel/oops_count`; kernels before 6.2 need not have it.
    pub oopses: Option<u64>,
    /// `/sys/kernel/warn_count`; the same.
    pub warnings: Option<u64>,
    /// `/proc/sys/kernel/tainted`
    pub tainted: u64,
}

/// What happened since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// What a patch is undone for.
    Harm(Harm),
    /// The kernel warned of something. Whose fault it is the counters do not tell.
    Warning,
}

/// What a patch is undone for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// A thread died in the kernel.
    Oops,
    /// A processor was stuck.
    Lockup,
    /// The kernel's log names it in the trace of a warning.
    Warning,
}

impl Harm {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Oops, Self::Lockup, Self::Warning];

    /// Its name on the wire.
    pub const fn fault(self) -> Fault {
        match self {
            Self::Oops => Fault::KernelOops,
            Self::Lockup => Fault::KernelLockup,
            Self::Warning => Fault::WarningNamesPatch,
        }
    }

    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Oops => "the kernel oopsed",
            Self::Lockup => "a processor was stuck",
            Self::Warning => "the kernel warned in its code",
        }
    }
}

/// The worst that happened between `before` and `now`. Where a counter is missing its mark tells,
/// once: a mark that was set before says nothing more.
pub fn trouble(before: Health, now: Health) -> Option<Trouble> {
    let marked = |bit: u64| before.tainted & bit == 0 && now.tainted & bit != 0;
    let counted = |before: Option<u64>, now: Option<u64>| before.zip(now).is_some_and(|(b, n)| n > b);
    if counted(before.oopses, now.oopses) || marked(DIED) {
        Some(Trouble::Harm(Harm::Oops))
    } else if marked(LOCKED_UP) {
        Some(Trouble::Harm(Harm::Lockup))
    } else if counted(before.warnings, now.warnings) || marked(WARNED) {
        Some(Trouble::Warning)
    } else {
        None
    }
}

/// Looks.
///
/// # Errors
///
/// If the kernel's files cannot be read; counters that it does not have are no error.
pub(crate) fn observe(folders: &Folders) -> io::Result<Health> {
    let counter = |name: &str| match number(&folders.sys.join("kernel").join(name)) {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    Ok(Health {
        oopses: counter("oops_count")?,
        warnings: counter("warn_count")?,
        tainted: number(&folders.proc.join("sys/kernel/tainted"))?,
    })
}

fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that carries a livepatch, an unsigned one.
    const PATCHED: u64 = 45056;

    fn health(oopses: u64, warnings: u64, tainted: u64) -> Health {
        Health { oopses: Some(oopses), warnings: Some(warnings), tainted }
    }

    #[test]
    fn the_worst_that_happened_since_is_told() {
        let before = health(1, 3, PATCHED | DIED | WARNED);
        assert_eq!(trouble(before, before), None);
        assert_eq!(trouble(before, health(2, 4, before.tainted)), Some(Trouble::Harm(Harm::Oops)));
        assert_eq!(
            trouble(before, health(1, 4, before.tainted | LOCKED_UP)),
            Some(Trouble::Harm(Harm::Lockup))
        );
        assert_eq!(trouble(before, health(1, 4, before.tainted)), Some(Trouble::Warning));
        assert_eq!(trouble(health(0, 0, 0), health(0, 0, PATCHED)), None);
    }

    #[test]
    fn a_kernel_without_counters_tells_by_its_marks_once() {
        let marks = |tainted| Health { tainted, ..Health::default() };
        assert_eq!(trouble(marks(0), marks(PATCHED | DIED)), Some(Trouble::Harm(Harm::Oops)));
        assert_eq!(trouble(marks(0), marks(WARNED)), Some(Trouble::Warning));
        assert_eq!(trouble(marks(DIED), marks(DIED)), None);
    }

    #[test]
    fn counters_that_are_not_there_are_no_error_and_others_that_cannot_be_read_are() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::below(root.path());
        assert!(observe(&folders).is_err());
        fs::create_dir_all(folders.proc.join("sys/kernel")).unwrap();
        fs::create_dir_all(folders.sys.join("kernel")).unwrap();
        fs::write(folders.proc.join("sys/kernel/tainted"), "45056\n").unwrap();
        assert_eq!(observe(&folders).unwrap(), Health { tainted: PATCHED, ..Health::default() });
        fs::write(folders.sys.join("kernel/oops_count"), "2\n").unwrap();
        fs::write(folders.sys.join("kernel/warn_count"), "7\n").unwrap();
        assert_eq!(observe(&folders).unwrap(), health(2, 7, PATCHED));
        fs::write(folders.sys.join("kernel/warn_count"), "many\n").unwrap();
        assert!(observe(&folders).is_err());
    }
}
