//! Downloads through the machine's own apt.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::{fs, io};

use super::Error;
use crate::cache::Cache;
use crate::command::{self, clean};
use crate::lock::Package;

/// Where the machine says which archives it uses.
const SOURCES: &str = "/etc/apt";

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
        let lists = cache.apt();
        let options = own_lists(&lists, package.is_source())
            .map_err(|source| Error::File { path: lists.clone(), source })?;
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

/// Options for lists of our own in `folder`. Those of source packages are read from wherever the machine
/// has its packages from: few machines ask for them.
fn own_lists(folder: &Path, sources: bool) -> io::Result<Vec<OsString>> {
    let lists = folder.join(if sources { "lists-of-sources" } else { "lists" });
    let cache = folder.join("cache");
    fs::create_dir_all(lists.join("partial"))?;
    fs::create_dir_all(cache.join("archives/partial"))?;
    let mut options = vec![option("Dir::State::Lists=", &lists), option("Dir::Cache=", &cache)];
    if sources {
        let own = folder.join("sources");
        copy_as_sources(Path::new(SOURCES), &own)?;
        options.push(option("Dir::Etc::SourceList=", &own.join("sources.list")));
        options.push(option("Dir::Etc::SourceParts=", &own.join("sources.list.d")));
    }
    Ok(options)
}

/// The lists of archives in `from`, asking for source packages, into `to`.
fn copy_as_sources(from: &Path, to: &Path) -> io::Result<()> {
    let parts = from.join("sources.list.d");
    fs::create_dir_all(to.join("sources.list.d"))?;
    let mut files = vec![from.join("sources.list")];
    if parts.is_dir() {
        files.extend(fs::read_dir(&parts)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?);
    }
    for file in files.iter().filter(|file| file.is_file()) {
        let inside = file.strip_prefix(from).unwrap_or(file);
        fs::write(to.join(inside), as_sources(&fs::read_to_string(file)?))?;
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
