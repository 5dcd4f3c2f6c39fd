//! Which kernel runs here, and what it demands of modules.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use invivo_terms::{Arch, BuildId, Mechanism};
use invivo_wire::{Kernel, Signing};

/// Why the running kernel is not known.
#[derive(Debug, thiserror::Error)]
pub enum RunningError {
    /// A file of the kernel could not be read.
    #[error("reading {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The notes hold no build id.
    #[error("the kernel's notes hold no GNU build id")]
    NoBuildId,
    /// Not an architecture that Invivo has patches for.
    #[error("architecture {0} is not supported")]
    Architecture(String),
}

/// The machine as this boot has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Changes with every boot.
    pub boot_id: String,
    /// The kernel.
    pub kernel: Kernel,
}

/// Where the kernel's files are seen.
#[derive(Debug, Clone)]
pub struct Folders {
    /// `/sys` as the container has it: read-only.
    pub sys: PathBuf,
    /// `/proc` of the host, read-only.
    pub proc: PathBuf,
    /// `/sys/kernel/livepatch` of the host, writable, mounted outside `/sys`.
    pub livepatch: PathBuf,
    /// Where the host keeps records of panics, read-only: `/sys/fs/pstore` and
    /// `/var/lib/systemd/pstore`.
    pub records: Vec<PathBuf>,
    /// `/lib/modules` of the host, read-only.
    pub modules: PathBuf,
    /// `/sys/kernel/tracing` of the host, read-only; it need not be there.
    pub tracing: PathBuf,
    /// `/sys/kernel/security` of the host, read-only, mounted outside `/sys`; it need not be there.
    pub security: PathBuf,
}

#[cfg(test)]
impl Folders {
    /// All of them below one, for tests.
    pub(crate) fn below(root: &Path) -> Self {
        let at = |name: &str| root.join(name);
        Self {
            sys: at("sys"),
            proc: at("proc"),
            livepatch: at("livepatch"),
            records: Vec::new(),
            modules: at("modules"),
            tracing: at("tracing"),
            security: at("security"),
        }
    }
}

/// What `uname` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// `-r`
    pub release: String,
    /// `-v`
    pub version: String,
    /// `-m`
    pub machine: String,
}

impl Names {
    /// Of the running kernel.
    pub fn now() -> Self {
        let uname = rustix::system::uname();
        let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
        Self {
            release: text(uname.release()),
            version: text(uname.version()),
            machine: text(uname.machine()),
        }
    }
}

/// Reads which kernel runs.
///
/// # Errors
///
/// `Read`, `NoBuildId`, `Architecture`.
pub fn observe(folders: &Folders, names: &Names) -> Result<Running, RunningError> {
    let arch = match names.machine.as_str() {
        "x86_64" => Arch::X86_64,
        other => return Err(RunningError::Architecture(other.to_owned())),
    };
    let notes_path = folders.sys.join("kernel/notes");
    let notes = read(&notes_path)?;
    let build_id = build_id(&notes).ok_or(RunningError::NoBuildId)?;
    let boot_id = text(&folders.proc.join("sys/kernel/random/boot_id"))?;
    let supports = match has_livepatch(folders) {
        Ok(true) => vec![Mechanism::Livepatch],
        Ok(false) => Vec::new(),
        Err(source) => return Err(RunningError::Read { path: livepatch_in_sys(folders), source }),
    };
    Ok(Running {
        boot_id,
        kernel: Kernel {
            build_id,
            release: names.release.clone(),
            version: distribution_version(&names.version),
            arch,
            supports,
            signing: signing(folders),
        },
    })
}

/// Whether the kernel has livepatch; then `/sys` shows its folder from the start, patches or not.
/// The writable mount outside `/sys` is not asked: it can be missing for reasons of its own.
///
/// # Errors
///
/// If it cannot be known.
pub fn has_livepatch(folders: &Folders) -> io::Result<bool> {
    match fs::metadata(livepatch_in_sys(folders)) {
        Ok(found) => Ok(found.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn livepatch_in_sys(folders: &Folders) -> PathBuf {
    folders.sys.join("kernel/livepatch")
}

fn read(path: &Path) -> Result<Vec<u8>, RunningError> {
    fs::read(path).map_err(|source| RunningError::Read { path: path.to_owned(), source })
}

fn text(path: &Path) -> Result<String, RunningError> {
    Ok(String::from_utf8_lossy(&read(path)?).trim().to_owned())
}

/// The note of owner `GNU` and type 3. The notes are walked, not searched: the same bytes can stand
/// in another note's description.
pub(crate) fn build_id(notes: &[u8]) -> Option<BuildId> {
    const BUILD_ID_NOTE: u32 = 3;
    let word = |at: usize| {
        let bytes: [u8; 4] = notes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    let padded = |length: u32| usize::try_from(length).ok()?.checked_next_multiple_of(4);
    let mut at = 0;
    loop {
        let (owner_length, length, kind) = (word(at)?, word(at + 4)?, word(at + 8)?);
        let owner_at = at + 12;
        let at_description = owner_at.checked_add(padded(owner_length)?)?;
        let end = at_description.checked_add(usize::try_from(length).ok()?)?;
        let owner = notes.get(owner_at..owner_at.checked_add(usize::try_from(owner_length).ok()?)?)?;
        let description = notes.get(at_description..end)?;
        if owner == b"GNU\0" && kind == BUILD_ID_NOTE {
            return hex(description).parse().ok();
        }
        at = at_description.checked_add(padded(length)?)?;
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot go wrong.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `6.1.170-3` of `#1 SMP PREEMPT_DYNAMIC Debian 6.1.170-3 (2026-05-08)`.
fn distribution_version(uname_v: &str) -> Option<String> {
    let mut words = uname_v.split_whitespace();
    words.find(|word| *word == "Debian")?;
    let version = words.next()?;
    version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
}

/// Lockdown, else enforced signatures. What cannot be read counts as off: the kernel itself has the
/// last word at the load.
fn signing(folders: &Folders) -> Signing {
    let words = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let lockdown = words(folders.security.join("lockdown"));
    let command_line = words(folders.proc.join("cmdline"));
    let locked = if lockdown.is_empty() {
        command_line
            .split_whitespace()
            .any(|w| matches!(w, "lockdown=integrity" | "lockdown=confidentiality"))
    } else {
        !lockdown.contains("[none]")
    };
    let enforced = words(folders.sys.join("module/module/parameters/sig_enforce")).starts_with('Y');
    match (locked, enforced) {
        (true, _) => Signing::Lockdown,
        (false, true) => Signing::Enforced,
        (false, false) => Signing::Off,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(owner: &[u8], kind: u32, description: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(owner.len()).unwrap().to_le_bytes());
        bytes.extend(u32::try_from(description.len()).unwrap().to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        for part in [owner, description] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn the_build_id_is_found_behind_other_notes_and_not_inside_them() {
        let decoy = note(b"GNU\0", 3, &[0xee; 20]);
        let notes =
            [note(b"Linux\0", 257, &decoy), note(b"Xen\0", 3, &[9; 20]), note(b"GNU\0", 3, &[0xab; 20])];
        assert_eq!(build_id(&notes.concat()).unwrap().as_str(), "ab".repeat(20));
    }

    #[test]
    fn notes_cut_short_or_with_wild_lengths_hold_no_build_id() {
        let whole = [note(b"Linux\0", 1, b"x"), note(b"GNU\0", 3, &[0xab; 20])].concat();
        for cut in 0..whole.len() {
            assert_eq!(build_id(&whole[..cut]), None, "cut at {cut}");
        }
        assert_eq!(build_id(&[0xff; 64]), None);
        assert_eq!(build_id(&note(b"GNU\0", 3, &[1; 19])), None);
    }

    #[test]
    fn debian_says_its_version_in_uname_v() {
        let text = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.170-3 (2026-05-08)";
        assert_eq!(distribution_version(text).as_deref(), Some("6.1.170-3"));
        assert_eq!(distribution_version("#1 SMP PREEMPT_DYNAMIC @0"), None);
        assert_eq!(distribution_version("#1 Debian"), None);
    }

    #[test]
    fn what_the_kernel_has_is_asked_of_the_kernel_and_not_of_the_mount() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders::below(folder.path());
        let names = Names { release: "r".to_owned(), version: "v".to_owned(), machine: "x86_64".to_owned() };
        fs::create_dir_all(folders.sys.join("kernel")).unwrap();
        fs::write(folders.sys.join("kernel/notes"), note(b"GNU\0", 3, &[0xab; 20])).unwrap();
        fs::create_dir_all(folders.proc.join("sys/kernel/random")).unwrap();
        fs::write(folders.proc.join("sys/kernel/random/boot_id"), "boot\n").unwrap();
        assert!(observe(&folders, &names).unwrap().kernel.supports.is_empty());
        fs::create_dir(folders.sys.join("kernel/livepatch")).unwrap();
        assert_eq!(observe(&folders, &names).unwrap().kernel.supports, [Mechanism::Livepatch]);
    }

    #[test]
    fn lockdown_and_enforced_signatures_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders::below(folder.path());
        assert_eq!(signing(&folders), Signing::Off);
        let parameters = folders.sys.join("module/module/parameters");
        fs::create_dir_all(&parameters).unwrap();
        fs::write(parameters.join("sig_enforce"), "Y\n").unwrap();
        assert_eq!(signing(&folders), Signing::Enforced);
        fs::create_dir_all(&folders.security).unwrap();
        fs::write(folders.security.join("lockdown"), "none [integrity] confidentiality\n").unwrap();
        assert_eq!(signing(&folders), Signing::Lockdown);
        fs::write(folders.security.join("lockdown"), "[none] integrity confidentiality\n").unwrap();
        assert_eq!(signing(&folders), Signing::Enforced);
    }
}
