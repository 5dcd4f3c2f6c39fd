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
use crate::gates::Passed;
use crate::judge::Code;
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

impl Report {
    /// The boot test as a gate that the module went through.
    pub fn passed(&self) -> Passed {
        Passed::new(
            "boot test",
            format!(
                "twice loaded and taken back in a guest; loaded in {} ms, every task patched {} ms later, back in {} ms",
                self.load_ms, self.transition_ms, self.reverse_ms
            ),
        )
    }
}

/// Longest life of the boot test's guest: some ten times what it needs under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_mins(3);

/// The same for a patch of many modules: its redirections take their time, and it is loaded three times.
fn patience(modules: &[GuestModule]) -> Duration {
    if modules.len() > 8 { LONG_PATIENCE } else { PATIENCE }
}

/// The same for several patches.
const LONG_PATIENCE: Duration = Duration::from_mins(10);

const EINVAL: i64 = 22;
const EAGAIN: i64 = 11;

/// What the guest must see, in the order in which it looks; `functions` are replaced, there are
/// `checks`, and `targets` come and go. What stays in memory is tried once, since it cannot be loaded
/// again.
fn wanted(functions: i64, checks: bool, targets: bool, code: Code) -> Vec<(&'static str, i64)> {
    // Without a check nothing is known of the hole, and the guest says so.
    let [open, closed] = if checks { [check::OPEN, check::CLOSED] } else { [-3, -3] };
    let (open, closed) = (i64::from(open), i64::from(closed));
    let mut wanted = vec![
        ("modules", 0),
        ("functions", functions),
        ("before", open),
        ("foreign", EINVAL),
        ("after-foreign", open),
        ("load", 0),
        ("enabled", 1),
        ("redirected", functions),
        ("patched", closed),
        ("disable", 0),
        ("unload", if code == Code::Stays { EAGAIN } else { 0 }),
        ("reverted", open),
        ("left", 0),
    ];
    if code == Code::Goes {
        wanted.extend([
            ("again", 0),
            ("again-patched", closed),
            ("again-disable", 0),
            ("again-unload", 0),
            ("again-left", 0),
        ]);
        let rounds = [
            ("rounds-load", 0),
            ("rounds-refused", 0),
            ("rounds-unpatched", 0),
            ("rounds-disable", 0),
            ("rounds-unload", 0),
            ("rounds-left", 0),
        ];
        wanted.extend(rounds.into_iter().filter(|_| targets));
    }
    wanted.extend([("complaints", 0), ("end", 0)]);
    wanted
}

/// A kernel module that is loaded in the guest before the patch.
#[derive(Debug, Clone)]
pub struct GuestModule {
    /// Its name.
    pub name: String,
    /// The module.
    pub bytes: Vec<u8>,
}

/// Tries `built`, whose recipes are in the folders `recipes`, in a guest in which `modules` are
/// loaded one after the other: what the patch changes, and what that needs.
///
/// # Errors
///
/// The guest cannot be made, does not end, or sees something else than it should.
pub fn test(
    cache: &Cache,
    recipes: &[&Path],
    built: &Built,
    modules: &[GuestModule],
    progress: Progress,
) -> Result<Report, Error> {
    let folder = cache.scratch()?;
    let mut checks = Vec::new();
    for recipe in recipes {
        let program = folder.path().join("check");
        match check::compile(recipe, &program) {
            Ok(()) => checks.push(read(&program)?),
            Err(check::Error::None) => {}
            Err(e) => return Err(e.into()),
        }
    }
    try_module(cache, built, &checks, modules, progress)
}

/// The same with the check programs themselves.
///
/// # Errors
///
/// The guest cannot be made, does not end, or sees something else than it should.
pub fn try_module(
    cache: &Cache,
    built: &Built,
    checks: &[Vec<u8>],
    modules: &[GuestModule],
    progress: Progress,
) -> Result<Report, Error> {
    let mut archive = program(cache, &[("init.c", include_str!("../guest/init.c"))])?
        .directory("modules.d")
        .file("name", 0o444, built.name.as_str().as_bytes())
        .file("patch.ko", 0o444, &built.bytes)
        .file("functions", 0o444, built.functions.as_bytes())
        .file("foreign.ko", 0o444, &foreign(&built.bytes, built.kernel.build_id.as_str())?);
    for (n, check) in checks.iter().enumerate() {
        archive = archive.file(&format!("check{n}"), 0o755, check);
    }
    let mut list = String::new();
    for module in modules {
        let path = format!("modules.d/{}.ko", module.name);
        archive = archive.file(&path, 0o444, &module.bytes);
        list.extend(["/", &path, "\n"]);
    }
    let mut archive = archive.file("modules", 0o444, list.as_bytes());
    if built.code == Code::Stays {
        archive = archive.file("stays", 0o444, b"");
    }
    progress(Step::Boot, &format!("loading {} in a guest with {}", built.name, built.kernel.release));
    let functions = i64::try_from(built.functions.lines().count()).unwrap_or_default();
    let report = judge(
        &console(cache, &built.image, archive, patience(modules))?,
        &wanted(functions, !checks.is_empty(), !modules.is_empty(), built.code),
    )?;
    let seen = if checks.is_empty() { "redirected and given back" } else { "open, closed, open again" };
    let often = if built.code == Code::Goes { "twice" } else { "once, and stays in memory" };
    progress(
        Step::Boot,
        &format!(
            "{seen}, {often}; loaded in {} ms, every task patched {} ms later, back in {} ms",
            report.load_ms, report.transition_ms, report.reverse_ms
        ),
    );
    Ok(report)
}

/// Tries several modules in one guest, one after the other: loaded, every task moved, taken back,
/// functions as they were. What each came to, by its name: `ok`, or the step that failed and what was
/// seen there.
///
/// # Errors
///
/// The guest cannot be made or started. One that ends early has reached fewer modules.
pub fn batch(cache: &Cache, built: &[&Built], progress: Progress) -> Result<BTreeMap<String, String>, Error> {
    let Some(first) = built.first() else { return Ok(BTreeMap::new()) };
    let mut archive = program(cache, &[("init.c", include_str!("../guest/init.c"))])?
        .directory("modules.d")
        .directory("patches.d");
    let (mut names, mut list) = (String::new(), String::new());
    let mut there = std::collections::BTreeSet::new();
    for one in built {
        let path = format!("patches.d/{}", one.name);
        archive = archive.file(&format!("{path}.ko"), 0o444, &one.bytes).file(
            &format!("{path}.functions"),
            0o444,
            one.functions.as_bytes(),
        );
        let stays = if one.code == Code::Stays { " stays" } else { "" };
        names.extend([one.name.as_str(), stays, "\n"]);
        for module in one.modules.iter().filter(|module| there.insert(module.name.clone())) {
            let path = format!("modules.d/{}.ko", module.name);
            archive = archive.file(&path, 0o444, &module.bytes);
            list.extend(["/", &path, "\n"]);
        }
    }
    let archive = archive.file("modules", 0o444, list.as_bytes()).file("names", 0o444, names.as_bytes());
    progress(Step::Boot, &format!("{} modules in a guest with {}", built.len(), first.kernel.release));
    let console = match console(cache, &first.image, archive, LONG_PATIENCE) {
        // What one that ended early had said until then still counts.
        Ok(console) | Err(Error::Unfinished { console, .. }) => console,
        Err(other) => return Err(other),
    };
    for complaint in console.lines().filter_map(|line| line.split_once("invivo-complaint: ")) {
        progress(Step::Boot, &format!("the guest: {}", complaint.1.trim()));
    }
    let said = console.lines().filter_map(|line| line.split_once("invivo-batch: ")?.1.trim().split_once(' '));
    Ok(said.map(|(name, words)| (name.to_owned(), words.to_owned())).collect())
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
    let accelerator = Accelerator::detect();
    Machine {
        name: "invivo-boot-test".to_owned(),
        uuid: None,
        accelerator,
        cpus: accelerator.processors(),
        memory_mib: 768,
        kernel: image.to_owned(),
        initrd: initrd.to_owned(),
        append: "console=ttyS0 quiet loglevel=4 panic=-1".to_owned(),
        disks: Vec::new(),
        nic: None,
        serial_log,
        second_port: None,
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
fn judge(console: &str, wanted: &[(&'static str, i64)]) -> Result<Report, Error> {
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
    if let Some((what, wanted)) = wanted.iter().copied().find(|(what, wanted)| number(what) != Some(*wanted))
    {
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

    const GOOD: &str = "open\r\ninvivo-boot: modules 0\ninvivo-boot: functions 1\ninvivo-boot: redirected 1\n\
        invivo-boot: left 0\ninvivo-boot: again 0\ninvivo-boot: again-patched 0\ninvivo-boot: again-disable 0\n\
        invivo-boot: again-unload 0\ninvivo-boot: again-left 0\ninvivo-boot: before 10\r\n[    5.1] x invivo-boot: foreign 22\ninvivo-boot: after-foreign 10\n\
        invivo-boot: load 0\ninvivo-boot: load-ms 359\ninvivo-boot: transition-ms 1033\ninvivo-boot: enabled 1\n\
        invivo-boot: patched 0\ninvivo-boot: disable 0\ninvivo-boot: reverse-ms 1104\ninvivo-boot: unload 0\n\
        invivo-boot: reverted 10\ninvivo-boot: complaints 0\ninvivo-boot: end 0\n";

    fn failed(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from));
        match judge(&GOOD.replacen(from, to, 1), &wanted(1, true, false, Code::Goes)).unwrap_err() {
            Error::Seen { what, .. } => what.to_owned(),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_hole_that_was_closed_and_given_back_passes() {
        let report = judge(GOOD, &wanted(1, true, false, Code::Goes)).unwrap();
        assert_eq!(report, Report { load_ms: 359, transition_ms: 1033, reverse_ms: 1104 });
    }

    #[test]
    fn what_stays_in_memory_is_tried_once_and_must_not_be_unloaded() {
        let stays = GOOD.replace("unload 0", "unload 11").replace("boot: again", "boot: not");
        judge(&stays, &wanted(1, true, false, Code::Stays)).unwrap();
        assert!(judge(GOOD, &wanted(1, true, false, Code::Stays)).is_err());
        assert!(judge(&stays, &wanted(1, true, false, Code::Goes)).is_err());
    }

    #[test]
    fn everything_else_is_named() {
        assert_eq!(failed("before 10", "before 0"), "before");
        assert_eq!(failed("foreign 22", "foreign 0"), "foreign");
        assert_eq!(failed("boot: patched 0", "boot: patched 10"), "patched");
        assert_eq!(failed("reverted 10", "reverted 0"), "reverted");
        assert_eq!(failed("complaints 0", "complaints 1"), "complaints");
        assert_eq!(failed("transition-ms 1033", "transition-ms -1"), "transition-ms");
        assert_eq!(failed("invivo-boot: unload 0\n", ""), "unload");
        assert_eq!(failed("redirected 1", "redirected 0"), "redirected");
        assert_eq!(failed("again-left 0", "again-left 1"), "again-left");
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
