//! Kernel modules as targets of a patch (`kmod/patch/targets.c`), on real kernels: patches by hand
//! from `kmod/tests/`, tried by the cases of `kmod/tests/cases.c` in one guest per kernel. Downloads
//! some 90 MB once; with them in the cache it takes a minute under emulation. `INVIVO_ALL=1` tries a patch
//! of very many modules as well, and 5.10.

mod modules;

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use invivo_patch_builder::build::VMLINUX;
use invivo_patch_builder::judge::Code;
use invivo_patch_builder::template::{self, Entry, Fill, Table};
use invivo_patch_builder::{Cache, KernelLock, Step, boot, cc, facts, gates, resolve, tree};
use invivo_terms::{Digest, Level};

use modules::Modules;

/// Kernels that clear nothing themselves.
const OLDEST: &str = "5.10.0-43-cloud-amd64";
const OLD: &str = "6.1.0-47-cloud-amd64";
const NEW: &str = "6.12.117+deb12-cloud-amd64";

/// Longest life of a guest: many times what it needs under emulation, since machines are busy.
const PATIENCE: Duration = Duration::from_mins(40);

/// The biggest patch of all changes 35 objects, where there is time.
const CLONES: usize = 31;

/// What each case must say. Where it differs between the kernels, the old one's comes first.
const CASES: [(&str, &str); 20] = [
    (
        "1 without clear: ok, again ENOEXEC, heal ok, then ok with 114",
        "1 without clear: ok, again ok, heal ok, then ok with 114",
    ),
    same("2 reloads: 60, refused 0, unpatched 0, a reader saw new code, old code 0"),
    same("3 init fails: ENODEV, then ok with 114"),
    same("4 no such function: EINVAL, right ENOEXEC, heal ok, right ok with 114"),
    same("4 needs heal: before no, refused yes, healed no, loaded no"),
    same("4 heal: loaded EBUSY, unknown ENOENT, after the patch ENOENT"),
    same("4 no such symbol: EINVAL, right ok with 114"),
    same("5 patch first: init patched yes, exit patched yes"),
    same("6 reloads while loading: 8, then 114"),
    same("6 reloads while replacing: 8, then 214, old ok"),
    same("6 reloads while reversing: 8, then 14, old ok"),
    same("7 rollback, loaded: cleared 0, 14, patch ok"),
    (
        "7 rollback, absent: cleared 1, patch ok, target ok with 14",
        "7 rollback, absent: cleared 0, patch ok, target ok with 14",
    ),
    same("8 pin, replace: references 1, 2, 1, 0"),
    same("9 pin: unload EAGAIN, failed init ENODEV, again ok, references 1, 0, unload ok"),
    same("11 another module during a rollback: ok, within 10 s yes"),
    same(
        "12 wrong one is loaded: EINVAL, skip ok, target 14, its object none, the others patched yes, new code yes",
    ),
    same("12 skip: right one ok with 14, heal ENOENT, unknown ESRCH, all ENODATA, reads tgt,hold"),
    same("14 signed and changed: EKEYREJECTED, as it was ok"),
    same("17 foreign patch: ok, at work yes, after ours no"),
];

const fn same(line: &'static str) -> (&'static str, &'static str) {
    (line, line)
}

/// The same of the biggest patch, which changes tgt, hold, pktgen, the kernel and tgt's clones.
fn many(clones: usize) -> [String; 2] {
    let (objects, tgts) = (4 + clones, 1 + clones);
    [
        format!(
            "10 {objects} objects, twice: refused 0, patched {objects}, {objects}, hooks {objects}, {objects}, new code {tgts}, {tgts}, distribution's 2"
        ),
        format!("10 reverted: ok, hooks 0, old code {tgts}"),
    ]
}

/// Must be said after all cases, on every kernel.
const END: [&str; 2] = ["end: left behind 0", "18 complaints of the kernel: 0"];

fn lock(release: &str) -> Result<KernelLock, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../recipes/kernels/{release}.yaml"));
    Ok(KernelLock::read(&path)?)
}

/// Whatever a guest with this kernel says.
fn console(release: &str, clones: usize) -> Result<String, Box<dyn Error>> {
    let mut tell = |step: Step, words: &str| eprintln!("{step:8} {words}");
    let lock = lock(release)?;
    let cache = Cache::from_env()?.with_archives(&lock.archives);
    let kernel = facts::read(&cache, &lock, &mut tell)?;
    let tree: PathBuf = tree::make(&cache, &lock, &mut tell)?;
    let modules = Modules::build(&cache, &lock, &kernel, &tree, clones)?;
    let sources = [
        ("cases.c", include_str!("../../../kmod/tests/cases.c")),
        ("guest.c", include_str!("../../../kmod/tests/guest.c")),
        ("guest.h", include_str!("../../../kmod/tests/guest.h")),
    ];
    let archive = modules
        .files()
        .fold(boot::program(&cache, &sources)?, |archive, (name, bytes)| archive.file(name, 0o444, bytes));
    Ok(boot::console(&cache, &kernel.image, archive, PATIENCE)?)
}

/// Compares what the guest said with `wanted`; every difference is shown before the first one fails.
fn judge(console: &str, wanted: &[&str]) {
    let said: Vec<_> = console.lines().filter_map(|line| line.split_once("invivo-case: ")).collect();
    let said: Vec<_> = said.iter().map(|(_, case)| case.trim()).collect();
    let missing: Vec<_> = wanted.iter().filter(|line| !said.contains(line)).collect();
    assert!(missing.is_empty(), "not said: {missing:#?}\n{console}");
    assert_eq!(said.len(), wanted.len(), "{console}");
}

/// Whether there is time for what is tried before a release and not at every change.
fn there_is_time() -> bool {
    std::env::var("INVIVO_ALL").is_ok_and(|value| value == "1")
}

type Choice = fn(&(&'static str, &'static str)) -> &'static str;

/// The oldest QEMU whose emulation these kernels survive: before, transitions of 6.12 end in an oops
/// that is QEMU's.
const QEMU: u32 = 10;

/// The first number of QEMU's version.
fn qemu() -> Option<u32> {
    let said = Command::new("qemu-system-x86_64").arg("--version").output().ok()?.stdout;
    let said = String::from_utf8(said).ok()?;
    said.split_once("version ")?.1.split('.').next()?.parse().ok()
}

fn try_on(release: &str, choose: Choice) -> Result<(), Box<dyn Error>> {
    if qemu().is_none_or(|version| version < QEMU) {
        eprintln!("SKIP: no qemu-system-x86_64 from version {QEMU} on, nothing was tried");
        return Ok(());
    }
    let clones = if there_is_time() { CLONES } else { 0 };
    let (console, many) = (console(release, clones)?, many(clones));
    let wanted: Vec<_> = CASES.iter().map(choose).chain(many.iter().map(String::as_str)).chain(END).collect();
    for line in console.lines().filter(|line| line.contains("invivo-")) {
        eprintln!("{line}");
    }
    judge(&console, &wanted);
    Ok(())
}

#[test]
fn targets_come_and_go_on_a_kernel_that_leaves_their_relocations() {
    try_on(OLD, |(old, _)| old).unwrap();
}

#[test]
fn targets_come_and_go_on_the_oldest_kernel() {
    if !there_is_time() {
        eprintln!("SKIP: INVIVO_ALL is not 1, nothing was tried on 5.10");
        return;
    }
    try_on(OLDEST, |(old, _)| old).unwrap();
}

#[test]
fn targets_come_and_go_on_a_kernel_that_clears_their_relocations() {
    try_on(NEW, |(_, new)| new).unwrap();
}

/// A patch of this kernel whose only part is an object that objtool has worked on.
fn with_a_part_that_has_tables(release: &str) -> Result<invivo_patch_builder::Error, Box<dyn Error>> {
    let cache = Cache::from_env()?;
    let mut tell = |step: Step, words: &str| eprintln!("{step:8} {words}");
    let lock = lock(release)?;
    let kernel = facts::read(&cache, &lock, &mut tell)?;
    let tree = tree::make(&cache, &lock, &mut tell)?;
    // A module of one file is one object, which objtool has worked on before it is linked.
    let text = concat!(
        include_str!("../../../kmod/tests/parts/cmdline.c"),
        "#include <linux/module.h>\nMODULE_LICENSE(\"GPL\");\nMODULE_DESCRIPTION(\"one file\");\n"
    );
    let sources = [("part.c", text), ("Kbuild", "obj-m := part.o\n")];
    let work = tempfile::tempdir()?;
    cc::compile(
        &tree,
        work.path(),
        "part",
        &sources.map(|(n, text)| (n.to_owned(), text.to_owned())).into(),
    )?;
    let object = work.path().join("part.o");
    // It would name the places before functions once more.
    let names = ["--wildcard", "--strip-symbol=__pfx_*"];
    assert!(Command::new("objcopy").args(names).arg(&object).status()?.success());
    let object = std::fs::read(object)?;

    let (function, symbol) = ("cmdline_proc_show".to_owned(), "invivo_new_cmdline_proc_show".to_owned());
    let table = Table::from([(VMLINUX.to_owned(), vec![Entry { name: function, position: 0, symbol }])]);
    let name = "invivo_l1_0000000000000001".parse()?;
    let fill = Fill {
        name: &name,
        level: Level(1),
        set: &"2026-11-21.1".parse()?,
        build_id: &lock.build_id,
        inputs: &Digest::from_bytes(&[0; 32]),
        fixes: "",
        code: Code::Goes,
        namespaces: &BTreeSet::new(),
        objects: &[],
        parts: &[],
    };
    let work = tempfile::tempdir()?;
    let sources = template::around_objects(&fill, &table, 1);
    let linked = cc::link(&tree, work.path(), name.as_str(), &sources, &[&object])?;
    resolve(&linked, &tree, &kernel.symbols).err().ok_or_else(|| "it was taken".into())
}

/// Case 13 (e): the kernel would warn of the first return in the patch's own code.
#[test]
fn a_part_that_brings_its_own_tables_is_refused_where_objtool_works_on_what_is_linked() {
    if !there_is_time() {
        eprintln!("SKIP: INVIVO_ALL is not 1, no part with tables was linked for 6.12");
        return;
    }
    let error = with_a_part_that_has_tables(NEW).unwrap();
    let refused = matches!(
        &error,
        invivo_patch_builder::Error::Gates(gates::Error::Table { table: ".return_sites", .. })
    );
    assert!(refused, "{error:?}");
}
