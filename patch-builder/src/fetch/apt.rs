//! Downloads through the machine's own apt: from the archives that it uses, else also from those that a lock names.

use std::ffi::OsString;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use super::Error;
use crate::build::sha256;
use crate::cache::Cache;
use crate::command::{self, clean};
use crate::lock::Package;

/// Where the machine says which archives it uses.
const SOURCES: &str = "/etc/apt";

/// The keys with which Debian signs its archives, from the package `debian-archive-keyring`.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Downloads beside the final place, so that a broken download never has the package's name.
pub(super) fn download(cache: &Cache, package: &Package, path: &Path) -> Result<(), Error> {
    let scratch = cache.scratch()?;
    let wanted = if package.is_source() {
        format!("{}={}", package.name, package.version)
    } else {
        format!("{}:{}={}", package.name, package.architecture, package.version).replacen(":all=", "=", 1)
    };
    let failed = |source| Error::Download { package: wanted.clone(), path: path.to_owned(), source };
    let download = |mut apt: Command| {
        let order: &[&str] =
            if package.is_source() { &["source", "--download-only", "--only-source"] } else { &["download"] };
        command::run(apt.args(order).arg(&wanted))
    };

    if download(apt(scratch.path(), &[])).is_err() {
        // The machine's lists may be missing or old, and are not ours to refresh. That some source
        // of the machine is unreachable does not matter if the package is found.
        let options = own_lists(Path::new(SOURCES), &cache.apt(), cache.archives(), package.is_source())
            .map_err(|(path, source)| Error::File { path, source })?;
        let refreshed = command::run(apt(scratch.path(), &options).arg("update"));
        download(apt(scratch.path(), &options)).map_err(|e| failed(refreshed.err().unwrap_or(e)))?;
    }

    let name = package.file_name();
    keep(scratch.path(), &cache.debs(), &name).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// Moves what was downloaded to the other packages; the file that stands for it last.
fn keep(from: &Path, to: &Path, last: &str) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name() != last {
            fs::rename(entry.path(), to.join(entry.file_name()))?;
        }
    }
    fs::rename(from.join(last), to.join(last))
}

/// Options for lists of our own in `folder`: of the archives that the machine uses, as `machine` says, and of
/// `archives` beside them. Its lists of source packages are read from wherever it has its packages from: few
/// machines ask for them.
fn own_lists(
    machine: &Path,
    folder: &Path,
    archives: &[String],
    sources: bool,
) -> Result<Vec<OsString>, (PathBuf, io::Error)> {
    let folder = match archives {
        [] => folder.to_owned(),
        _ => folder.join(sha256(archives.join("\n").as_bytes()).as_str()),
    };
    let lists = folder.join(if sources { "lists-of-sources" } else { "lists" });
    let cache = folder.join("cache");
    for folder in [lists.join("partial"), cache.join("archives/partial")] {
        fs::create_dir_all(&folder).map_err(|e| (folder, e))?;
    }
    let mut options = vec![option("Dir::State::Lists=", &lists), option("Dir::Cache=", &cache)];
    if sources || !archives.is_empty() {
        let (own, form): (_, fn(&str) -> String) = if sources {
            (folder.join("sources"), as_sources)
        } else {
            (folder.join("packages"), str::to_owned)
        };
        copy_lists(machine, &own, form)?;
        let parts = own.join("sources.list.d");
        if !archives.is_empty() {
            let list = parts.join(ARCHIVES);
            fs::write(&list, as_list(archives)).map_err(|e| (list, e))?;
        }
        options.push(option("Dir::Etc::SourceList=", &own.join("sources.list")));
        options.push(option("Dir::Etc::SourceParts=", &parts));
    }
    Ok(options)
}

/// The list of the archives that a lock names: no machine is likely to have one of this name.
const ARCHIVES: &str = "invivo-archives-of-the-lock.list";

/// The list with which apt asks `archives` for packages of both kinds.
fn as_list(archives: &[String]) -> String {
    let lines =
        |archive: &String| ["deb", "deb-src"].map(|kind| format!("{kind} [signed-by={KEYS}] {archive}\n"));
    archives.iter().flat_map(lines).collect()
}

/// The lists of archives in `from`, each in the form that `form` gives it, into `to`.
fn copy_lists(from: &Path, to: &Path, form: fn(&str) -> String) -> Result<(), (PathBuf, io::Error)> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| (path, source)
    };
    // An archive that the machine uses no more is asked no more.
    match fs::remove_dir_all(to) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err((to.to_owned(), e)),
        _ => {}
    }
    // Lists may have passwords in them.
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(0o700).create(to.join("sources.list.d")).map_err(at(to))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).map_err(at(to))?;
    let parts = from.join("sources.list.d");
    let mut files = vec![from.join("sources.list")];
    if parts.is_dir() {
        for entry in fs::read_dir(&parts).map_err(at(&parts))? {
            files.push(entry.map_err(at(&parts))?.path());
        }
    }
    for file in files.iter().filter(|file| file.is_file()) {
        let copy = to.join(file.strip_prefix(from).unwrap_or(file));
        let text = fs::read(file).map_err(at(file))?;
        fs::write(&copy, form(&String::from_utf8_lossy(&text))).map_err(at(&copy))?;
    }
    Ok(())
}

/// A list of archives, in either form that apt reads (sources.list(5)), asking for source packages.
fn as_sources(list: &str) -> String {
    let line = |line: &str| match line.split_once(char::is_whitespace) {
        Some(("deb", rest)) => format!("deb-src {rest}\n"),
        Some(("deb-src", _)) => String::new(),
        Some((field, _)) if field.eq_ignore_ascii_case("types:") => "Types: deb-src\n".to_owned(),
        _ => format!("{line}\n"),
    };
    list.lines().map(line).collect()
}

fn apt(folder: &Path, options: &[OsString]) -> Command {
    let mut command = clean("apt-get");
    command.current_dir(folder).args(["--quiet", "--option", "APT::Sandbox::User=root"]);
    // The environment's proxies are the person's way to the archive.
    for name in ["http_proxy", "https_proxy", "no_proxy", "APT_CONFIG"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    for option in options {
        command.arg("--option").arg(option);
    }
    command
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_asked_for_source_packages_in_either_form_of_list() {
        assert_eq!(
            as_sources("# main\ndeb [signed-by=/k] http://a b c\ndeb-src http://a b c\n"),
            "# main\ndeb-src [signed-by=/k] http://a b c\n"
        );
        assert_eq!(as_sources("Types: deb deb-src\nURIs: http://a\n"), "Types: deb-src\nURIs: http://a\n");
    }

    #[test]
    fn archives_of_a_lock_are_asked_beside_the_machines_and_must_be_signed_by_debian() {
        let archives = ["http://a/debian bullseye main".to_owned()];
        let list = as_list(&archives);
        assert_eq!(list.lines().count(), 2);
        assert!(
            list.lines().all(|line| line.ends_with(&format!("[signed-by={KEYS}] {}", archives[0]))),
            "{list}"
        );
        let root = tempfile::tempdir().unwrap();
        let machine = root.path().join("etc");
        fs::create_dir_all(machine.join("sources.list.d")).unwrap();
        fs::write(machine.join("sources.list"), "deb http://c/debian bookworm main\n").unwrap();
        let of = |archives: &[String], sources| own_lists(&machine, root.path(), archives, sources).unwrap();
        let value = |options: &[OsString], name: &str| {
            let find = |option: &OsString| Some(PathBuf::from(option.to_str()?.strip_prefix(name)?));
            options.iter().find_map(find)
        };
        for (sources, kind) in [(true, "deb-src"), (false, "deb")] {
            let options = of(&archives, sources);
            let own = fs::read_to_string(value(&options, "Dir::Etc::SourceList=").unwrap()).unwrap();
            assert_eq!(own, format!("{kind} http://c/debian bookworm main\n"));
            let parts = value(&options, "Dir::Etc::SourceParts=").unwrap();
            assert_eq!(fs::read_to_string(parts.join(ARCHIVES)).unwrap(), list);
            let others = of(&["http://b/debian bullseye main".to_owned()], sources);
            assert_ne!(options[0], others[0], "each has lists of its own");
        }
        // Without any, the machine's own lists do.
        assert_eq!(value(&of(&[], false), "Dir::Etc::SourceList="), None);
    }

    #[test]
    fn lists_are_copied_anew_and_for_nobody_else_to_read() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::create_dir_all(from.join("sources.list.d")).unwrap();
        fs::write(from.join("sources.list"), "deb http://a b c\n").unwrap();
        let other = from.join("sources.list.d/other.list");
        fs::write(&other, "deb http://user:word@d e f\n").unwrap();
        copy_lists(&from, &to, as_sources).unwrap();
        assert!(fs::read_to_string(to.join("sources.list.d/other.list")).unwrap().starts_with("deb-src"));
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o700);
        fs::remove_file(other).unwrap();
        copy_lists(&from, &to, as_sources).unwrap();
        assert!(to.join("sources.list").is_file() && !to.join("sources.list.d/other.list").exists());
    }

    #[test]
    fn the_file_that_stands_for_a_package_is_there_only_with_all_others() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::write(from.join("a.tar.xz"), "a").unwrap();
        assert!(keep(&from, &to, "a.dsc").is_err());
        assert!(to.join("a.tar.xz").is_file() && !to.join("a.dsc").exists());
        fs::write(from.join("a.dsc"), "d").unwrap();
        keep(&from, &to, "a.dsc").unwrap();
        assert!(to.join("a.dsc").is_file());
    }
}
