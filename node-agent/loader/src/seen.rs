//! What the kernel shows of live patches and of our modules.

use std::fs;
use std::io;
use std::path::Path;

use invivo_terms::{Level, ModuleName};

use crate::running::{Folders, has_livepatch};

/// One folder of `/sys/kernel/livepatch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// The module's name.
    pub name: String,
    /// The patch is on, or on its way.
    pub enabled: bool,
    /// Tasks are still moving.
    pub transition: bool,
}

/// One of our modules in the kernel's list of modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resident {
    /// Its name.
    pub name: ModuleName,
    /// How many references are held on it.
    pub references: u32,
    /// Its load has not ended.
    pub loading: bool,
}

/// What the kernel shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Every live patch, foreign ones too.
    pub patches: Vec<Patch>,
    /// Our modules.
    pub modules: Vec<Resident>,
}

impl Patch {
    /// Applied means applied.
    pub const fn is_applied(&self) -> bool {
        self.enabled && !self.transition
    }

    /// The name as one of ours; none for a foreign patch.
    pub fn ours(&self) -> Option<ModuleName> {
        self.name.parse().ok()
    }
}

impl Seen {
    /// The patch of this name.
    pub fn patch(&self, name: &ModuleName) -> Option<&Patch> {
        self.patches.iter().find(|patch| patch.name == name.as_str())
    }

    /// Our patches.
    pub fn ours(&self) -> impl Iterator<Item = (ModuleName, &Patch)> {
        self.patches.iter().filter_map(|patch| Some((patch.ours()?, patch)))
    }

    /// The first patch that is not ours.
    pub fn foreign(&self) -> Option<&str> {
        self.patches.iter().find(|patch| patch.ours().is_none()).map(|patch| patch.name.as_str())
    }

    /// Our applied patch; the one with the highest level should there ever be two.
    pub fn applied(&self) -> Option<ModuleName> {
        self.ours()
            .filter(|(_, patch)| patch.is_applied())
            .map(|(name, _)| name)
            .max_by_key(ModuleName::level)
    }

    /// The level that is applied.
    pub fn level(&self) -> Level {
        self.applied().map_or(Level::UNPATCHED, |name| name.level())
    }

    /// Our patch whose tasks are moving, one way or the other. The kernel moves them for one patch at a
    /// time, and takes no other meanwhile.
    pub fn moving(&self) -> Option<(ModuleName, &Patch)> {
        self.ours().find(|(_, patch)| patch.transition)
    }

    /// Tasks may run code of ours.
    pub fn runs_ours(&self) -> bool {
        self.ours().any(|(_, patch)| patch.enabled || patch.transition)
    }

    /// Our modules that no patch needs any more.
    pub fn leftovers(&self) -> impl Iterator<Item = &ModuleName> {
        self.modules
            .iter()
            .filter(|module| {
                module.references == 0 && self.patch(&module.name).is_none_or(|p| !p.enabled && !p.transition)
            })
            .map(|module| &module.name)
    }
}

/// Looks. A kernel without livepatch has neither patches nor modules of ours.
///
/// # Errors
///
/// If the kernel's files cannot be read; a mount that is missing must not look like a kernel
/// without patches. A patch that goes away while it is looked at is not there.
pub fn observe(folders: &Folders) -> io::Result<Seen> {
    let mut patches = Vec::new();
    let entries = match fs::read_dir(&folders.livepatch) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !has_livepatch(folders)? => {
            return Ok(Seen::default());
        }
        read => read?,
    };
    for entry in entries {
        let entry = entry?;
        let flags = (flag(&entry.path().join("enabled"))?, flag(&entry.path().join("transition"))?);
        if let (Some(enabled), Some(transition)) = flags {
            patches.push(Patch {
                name: entry.file_name().to_string_lossy().into_owned(),
                enabled,
                transition,
            });
        }
    }
    patches.sort_by(|a, b| a.name.cmp(&b.name));
    let modules = module_list(folders)?.lines().filter_map(resident).collect();
    Ok(Seen { patches, modules })
}

/// A kernel built without modules has no list of them.
fn module_list(folders: &Folders) -> io::Result<String> {
    match fs::read_to_string(folders.proc.join("modules")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

/// A file that says `0` or `1`; none if it went away.
fn flag(path: &Path) -> io::Result<Option<bool>> {
    const ENODEV: i32 = 19;
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim() == "1")),
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ENODEV) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// `name size references users state ...`
fn resident(line: &str) -> Option<Resident> {
    let mut words = line.split_whitespace();
    let name = words.next()?.parse().ok()?;
    let references = words.nth(1)?.parse().ok()?;
    let loading = words.nth(1) == Some("Loading");
    Some(Resident { name, references, loading })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(root: &Path) -> Folders {
        let folders = Folders::below(root);
        for folder in [&folders.sys, &folders.proc, &folders.livepatch] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(folders.proc.join("modules"), "").unwrap();
        folders
    }

    #[test]
    fn our_patches_are_known_by_their_names_and_foreign_ones_by_theirs() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        for (name, enabled, transition) in [
            ("invivo_l1_0123456789abcdef", "1", "0"),
            ("invivo_l2_0123456789abcdef", "1", "1"),
            ("kpatch_foo", "0", "0"),
        ] {
            let folder = folders.livepatch.join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("enabled"), enabled).unwrap();
            fs::write(folder.join("transition"), transition).unwrap();
        }
        fs::write(
            folders.proc.join("modules"),
            "invivo_l1_0123456789abcdef 16384 1 - Live 0x0 (OEK)\nvirtio 1 0 - Live 0x0\ninvivo_l0_0123456789abcdef 16384 0 - Live 0x0\n",
        )
        .unwrap();
        let seen = observe(&folders).unwrap();
        assert_eq!(seen.level(), Level(1));
        assert_eq!(seen.foreign(), Some("kpatch_foo"));
        assert_eq!(
            seen.leftovers().map(ModuleName::as_str).collect::<Vec<_>>(),
            ["invivo_l0_0123456789abcdef"]
        );
    }

    #[test]
    fn a_missing_mount_is_an_error_unless_the_kernel_has_no_livepatch() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        fs::remove_dir(&folders.livepatch).unwrap();
        assert_eq!(observe(&folders).unwrap(), Seen::default());
        fs::create_dir_all(folders.sys.join("kernel/livepatch")).unwrap();
        assert_eq!(observe(&folders).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
