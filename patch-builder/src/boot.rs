//! The boot test: the module closes the hole in the very kernel it was built for, gives it back
//! when it goes, refuses to serve any other kernel, and the kernel has nothing to complain about.
//!
//! The guest is thrown away. Its only program is `guest/init.c`. Other programs can be had run in
//! such a guest too ([`program`], [`console`]); the tests of `kmod/` do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use invivo_guest::{Accelerator, Initramfs, Machine, PidFile, Serial, process, serial};
use serde::{Deserialize, Serialize};

use crate::build::Built;
use crate::cache::{self, Cache};
use crate::check;
use crate::command::{self, clean};
use crate::progress::{Progress, Step};

/// A module did not pass, or could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// The guest's program or the check cannot be compiled.
    #[error(transparent)]
    Command(#[from] command::Error),
    /// The recipe's check cannot be compiled.
    #[error(transparent)]
    Check(#[from] check::Error),
    /// A file of the guest cannot be read or written.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The guest cannot be started or ended.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The guest did not come to its end.
    #[error("{source}; its console ended with:\n{console}")]
    Unfinished {
        /// What was waited for.
        source: serial::Error,
        /// The end of what was said.
        console: String,
    },
    /// The module does not carry its build id once, so that no module for another kernel can be
    /// made of it.
    #[error("the module holds its build id {0} times")]
    BuildId(usize),
    /// The guest saw something else than it should.
    #[error("{what}: {found}, wanted {wanted}; the console:\n{console}")]
    Seen {
        /// What was looked at.
        what: &'static str,
        /// What was seen.
        found: String,
        /// What should have been.
        wanted: i64,
        /// What the guest said.
        console: String,
    },
}

/// What the guest saw. Times are wall time in the guest, which may be emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// Milliseconds that the load took.
    pub load_ms: i64,
    /// Milliseconds from there until every task ran the new code.
    pub transition_ms: i64,
    /// Milliseconds that going back took.
    pub reverse_ms: i64,
}

/// Longest life of the boot test's guest: some ten times what it needs under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_mins(3);

const EINVAL: i64 = 22;

/// What the guest must see, in the order in which it looks.
const WANTED: [(&str, i64); 11] = [
    ("before", check::OPEN as i64),
    ("foreign", EINVAL),
    ("after-foreign", check::OPEN as i64),
    ("load", 0),
    ("enabled", 1),
    ("patched", check::CLOSED as i64),
    ("disable", 0),
    ("unload", 0),
    ("reverted", check::OPEN as i64),
    ("complaints", 0),
    ("end", 0),
];

/// Tries `built`, whose recipe is in the folder `recipe`, in a guest.
///
/// # Errors
///
/// The guest cannot be made, does not end, or sees something else than it should.
pub fn test(cache: &Cache, recipe: &Path, built: &Built, progress: Progress) -> Result<Report, Error> {
    let folder = cache.scratch()?;
    let check = folder.path().join("check");
    check::compile(recipe, &check)?;
    let archive = program(cache, &[("init.c", include_str!("../guest/init.c"))])?
        .file("check", 0o755, &read(&check)?)
        .file("name", 0o444, built.name.as_str().as_bytes())
        .file("patch.ko", 0o444, &built.bytes)
        .file("foreign.ko", 0o444, &foreign(&built.bytes, built.kernel.build_id.as_str())?);
    progress(Step::Boot, &format!("loading {} in a guest with {}", built.name, built.kernel.release));
    let report = judge(&console(cache, &built.image, archive, PATIENCE)?)?;
    progress(
        Step::Boot,
        &format!(
            "open, closed, open again; loaded in {} ms, every task patched {} ms later, back in {} ms",
            report.load_ms, report.transition_ms, report.reverse_ms
        ),
    );
    Ok(report)
}

/// An initramfs whose first and only program is compiled from `sources` (name and text of each C
/// file and header). It says what it saw on the console, and says `invivo-boot: end` last.
///
/// # Errors
///
/// The program does not compile.
pub fn program(cache: &Cache, sources: &[(&str, &str)]) -> Result<Initramfs, Error> {
    let folder = cache.scratch()?;
    let init = folder.path().join("init");
    let mut gcc = clean("gcc");
    gcc.args(["-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&init);
    for (name, text) in sources {
        let path = folder.path().join(name);
        write(&path, text.as_bytes())?;
        if path.extension().is_some_and(|extension| extension == "c") {
            gcc.arg(path);
        }
    }
    command::run(&mut gcc)?;
    let archive = Initramfs::new().directory("proc").directory("sys").directory("dev");
    Ok(archive.file("init", 0o755, &read(&init)?))
}

/// Boots the kernel `image` with the initramfs `archive`, and returns all that was said on the
/// console.
///
/// # Errors
///
/// The guest cannot be started, or its program does not come to its end within `patience`.
pub fn console(cache: &Cache, image: &Path, archive: Initramfs, patience: Duration) -> Result<String, Error> {
    let folder = cache.scratch()?;
    let at = |name: &str| folder.path().join(name);
    write(&at("initrd"), &archive.finish())?;
    watch(&machine(image, &at("initrd"), at("console")), &at("qemu.pid"), &at("qemu.log"), patience)
}

fn machine(image: &Path, initrd: &Path, serial_log: PathBuf) -> Machine {
    Machine {
        name: "invivo-boot-test".to_owned(),
        uuid: None,
        accelerator: Accelerator::detect(),
        cpus: 2,
        memory_mib: 512,
        kernel: image.to_owned(),
        initrd: initrd.to_owned(),
        append: "console=ttyS0 quiet loglevel=4 panic=-1".to_owned(),
        disks: Vec::new(),
        nic: None,
        serial_log,
        console: None,
        error_records: None,
    }
}

/// Runs the guest to its end and returns what it said.
fn watch(machine: &Machine, pid_file: &Path, log: &Path, patience: Duration) -> Result<String, Error> {
    let pid_file = PidFile::new(pid_file);
    let guest = machine.start(&pid_file, log)?;
    let serial = Serial::new(&machine.serial_log);
    let ended = serial.wait_for(guest, "invivo-boot: end", patience);
    pid_file.kill()?;
    let console = serial.text();
    match ended {
        Ok(_) => Ok(console),
        Err(source) => {
            let words = fs::read_to_string(log).unwrap_or_default();
            Err(Error::Unfinished { source, console: last(&(console + &words)) })
        }
    }
}

fn last(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}

/// The same module for a kernel that does not exist: one bit of the build id is another.
fn foreign(module: &[u8], build_id: &str) -> Result<Vec<u8>, Error> {
    let id = hex::decode(build_id).unwrap_or_default();
    let places: Vec<_> =
        module.windows(id.len().max(1)).enumerate().filter(|(_, w)| *w == id).map(|(at, _)| at).collect();
    let mut foreign = module.to_vec();
    match (places.as_slice(), places.first().and_then(|at| foreign.get_mut(*at))) {
        ([_], Some(byte)) => *byte ^= 1,
        _ => return Err(Error::BuildId(places.len())),
    }
    Ok(foreign)
}

/// Compares what the guest saw with what it should see.
fn judge(console: &str) -> Result<Report, Error> {
    let seen: BTreeMap<&str, &str> = console
        .lines()
        .filter_map(|line| line.split_once("invivo-boot: ")?.1.trim().split_once(' '))
        .collect();
    let number = |what: &str| seen.get(what)?.parse::<i64>().ok();
    let differs = |what: &'static str, wanted| Error::Seen {
        what,
        found: seen.get(what).map_or("nothing", |found| found).to_owned(),
        wanted,
        console: console.to_owned(),
    };
    if let Some((what, wanted)) = WANTED.into_iter().find(|(what, wanted)| number(what) != Some(*wanted)) {
        return Err(differs(what, wanted));
    }
    let time = |what: &'static str| number(what).filter(|ms| *ms >= 0).ok_or_else(|| differs(what, 0));
    Ok(Report {
        load_ms: time("load-ms")?,
        transition_ms: time("transition-ms")?,
        reverse_ms: time("reverse-ms")?,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(|source| Error::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "open\r\ninvivo-boot: before 10\r\n[    5.1] x invivo-boot: foreign 22\ninvivo-boot: after-foreign 10\n\
        invivo-boot: load 0\ninvivo-boot: load-ms 359\ninvivo-boot: transition-ms 1033\ninvivo-boot: enabled 1\n\
        invivo-boot: patched 0\ninvivo-boot: disable 0\ninvivo-boot: reverse-ms 1104\ninvivo-boot: unload 0\n\
        invivo-boot: reverted 10\ninvivo-boot: complaints 0\ninvivo-boot: end 0\n";

    fn failed(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from));
        match judge(&GOOD.replacen(from, to, 1)).unwrap_err() {
            Error::Seen { what, .. } => what.to_owned(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_hole_that_was_closed_and_given_back_passes() {
        let report = judge(GOOD).unwrap();
        assert_eq!(report, Report { load_ms: 359, transition_ms: 1033, reverse_ms: 1104 });
    }

    #[test]
    fn everything_else_is_named() {
        assert_eq!(failed("before 10", "before 0"), "before");
        assert_eq!(failed("foreign 22", "foreign 0"), "foreign");
        assert_eq!(failed("patched 0", "patched 10"), "patched");
        assert_eq!(failed("reverted 10", "reverted 0"), "reverted");
        assert_eq!(failed("complaints 0", "complaints 1"), "complaints");
        assert_eq!(failed("transition-ms 1033", "transition-ms -1"), "transition-ms");
        assert_eq!(failed("invivo-boot: unload 0\n", ""), "unload");
    }

    #[test]
    fn a_module_for_no_kernel_differs_in_its_build_id_alone() {
        let id = "4f61d8f6405b1c6eed15a7a3e2e27067394202d3";
        let module = [b"head".as_slice(), &hex::decode(id).unwrap(), id.as_bytes()].concat();
        let made = foreign(&module, id).unwrap();
        let differing: Vec<_> = (0..module.len()).filter(|at| module[*at] != made[*at]).collect();
        assert_eq!(differing, [4]);
        assert!(matches!(foreign(b"nothing", id), Err(Error::BuildId(0))));
    }
}
