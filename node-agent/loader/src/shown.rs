//! What the kernel shows of a patch's targets, and the one thing that can be done for them.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use invivo_terms::{ModuleName, TargetName};

use crate::running::Folders;
use crate::targets::Shown;

/// Looks at these targets of a patch that is loaded. What is not there counts as no: a patch without
/// targets has no parameters, and one that has left a target out has no folder for it.
pub fn observe<'a>(
    folders: &Folders,
    patch: &ModuleName,
    targets: impl Iterator<Item = &'a TargetName>,
) -> BTreeMap<TargetName, Shown> {
    let parameter = |name: &str| {
        let file = folders.sys.join("module").join(patch.as_str()).join("parameters").join(name);
        fs::read_to_string(file).unwrap_or_default()
    };
    let (skip, pinned) = (parameter("skip"), parameter("pin").trim() == "Y");
    // Not shown while livepatch is at work: seen at the next look.
    let needing = fs::read_to_string(folders.livepatch.join(patch.as_str()).join("heal")).unwrap_or_default();
    let patched = |target: &TargetName| {
        let folder = folders.livepatch.join(patch.as_str()).join(target.as_str());
        match fs::read_to_string(folder.join("patched")) {
            Ok(text) => text.trim() == "1",
            // Before 6.1 the kernel does not tell. It refuses the load of a module that it cannot patch.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                folder.is_dir() && is_live(folders, target)
            }
            Err(_) => false,
        }
    };
    targets
        .map(|target| {
            let skipped = skip.trim().split(',').any(|name| name == target.as_str());
            let needs_heal = needing.lines().any(|name| name == target.as_str());
            (target.clone(), Shown { patched: patched(target), skipped, pinned, needs_heal })
        })
        .collect()
}

/// Whether a module is loaded, neither on its way in nor out.
fn is_live(folders: &Folders, target: &TargetName) -> bool {
    let state = folders.sys.join("module").join(target.as_str()).join("initstate");
    fs::read_to_string(state).is_ok_and(|state| state.trim() == "live")
}

/// Clears what a refused load of a target has left in a patch.
///
/// # Errors
///
/// The kernel's, of `kmod/README.md`; `NotFound` for a patch that cannot heal.
pub fn heal(folders: &Folders, patch: &ModuleName, target: &TargetName) -> io::Result<()> {
    // Opened and not made: where there is no such file a write must not leave one.
    let place = folders.livepatch.join(patch.as_str()).join("heal");
    let mut file = fs::OpenOptions::new().write(true).open(place)?;
    io::Write::write_all(&mut file, target.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn put(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn before_6_1_a_target_that_is_loaded_is_patched() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::below(root.path());
        let patch: ModuleName = "invivo_l3_0123456789abcdef".parse().unwrap();
        let names: Vec<TargetName> =
            ["absent", "coming", "left", "live"].map(|name| name.parse().unwrap()).into();
        for name in ["absent", "coming", "live"] {
            fs::create_dir_all(folders.livepatch.join(patch.as_str()).join(name)).unwrap();
        }
        for (name, state) in [("coming", "coming\n"), ("left", "live\n"), ("live", "live\n")] {
            put(&folders.sys.join("module").join(name).join("initstate"), state);
        }
        let seen = observe(&folders, &patch, names.iter());
        let patched: Vec<&str> =
            seen.iter().filter(|(_, shown)| shown.patched).map(|(name, _)| name.as_str()).collect();
        assert_eq!(patched, ["live"]);
        // What is there and cannot be read says nothing.
        fs::create_dir(folders.livepatch.join(patch.as_str()).join("live/patched")).unwrap();
        assert!(observe(&folders, &patch, names.iter()).values().all(|shown| !shown.patched));
    }

    #[test]
    fn targets_are_told_apart_by_the_kernels_files_and_healing_names_one() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::below(root.path());
        let patch: ModuleName = "invivo_l3_0123456789abcdef".parse().unwrap();
        let names: Vec<TargetName> = ["on", "off", "left", "on_too"].map(|name| name.parse().unwrap()).into();
        let livepatch = folders.livepatch.join(patch.as_str());
        for (name, patched) in [("on", "1\n"), ("off", "0\n"), ("on_too", "1\n")] {
            put(&livepatch.join(name).join("patched"), patched);
        }
        let parameters = folders.sys.join("module").join(patch.as_str()).join("parameters");
        let look = || observe(&folders, &patch, names.iter()).into_values().collect::<Vec<_>>();
        let no = Shown::default();
        let on = Shown { patched: true, ..no };
        assert_eq!(look(), [no, no, on, on], "in the order of their names: left, off, on, on_too");
        put(&parameters.join("skip"), "other,left\n");
        put(&parameters.join("pin"), "N\n");
        assert_eq!(look(), [Shown { skipped: true, ..no }, no, on, on]);
        put(&parameters.join("pin"), "Y\n");
        assert!(look().iter().all(|shown| shown.pinned));
        assert_eq!(heal(&folders, &patch, &names[1]).unwrap_err().kind(), io::ErrorKind::NotFound);
        put(&livepatch.join("heal"), "on_too\noff\n");
        let needs = |at: usize| look()[at].needs_heal;
        assert_eq!([needs(0), needs(1), needs(2), needs(3)], [false, true, false, true]);
        put(&livepatch.join("heal"), "");
        heal(&folders, &patch, &names[1]).unwrap();
        assert_eq!(fs::read_to_string(livepatch.join("heal")).unwrap(), "off");
    }
}
