//! Patches by hand of kernel modules by hand, on real kernels: builds are compared before a load,
//! targets come and go, and one that the kernel refused is healed. Downloads some 90 MB once; with
//! them in the cache it takes a minute or two under emulation.

use std::error::Error;
use std::path::Path;
use std::process::Command;

use invivo_feed::Floors;
use invivo_feed::document::{KernelFacts, PatchedObject};
use invivo_guest::{Accelerator, Initramfs};
use invivo_loader::installed::in_module;
use invivo_patch_builder::modinfo::Modinfo;
use invivo_patch_builder::{Cache, KernelLock, Step, facts, tree};
use invivo_terms::{Mechanism, Revision};
use invivo_wire::{ApplyRequest, Order};
use jiff::Timestamp;

use crate::boot::{self, Parts};
use crate::modules::{Modules, OBJECTS};
use crate::plan::Said;
use crate::repository::{Author, Bundle, Publication};
use crate::{PATIENCE, rig, there_is_time};

const OLDEST: &str = "5.10.0-43-cloud-amd64";
const OLD: &str = "6.1.0-47-cloud-amd64";
const NEW: &str = "6.12.117+deb12-cloud-amd64";

/// The oldest QEMU whose emulation these kernels survive.
const QEMU: u32 = 10;

/// The levels and what they change, as `modules` makes them.
const LEVELS: [(u32, &[&str]); 2] = [(1, &["tgt", "hold"]), (3, &["tgt", "hold", "pktgen", "vmlinux"])];

/// What the guest must say, on every kernel.
const SAID: [&str; 13] = [
    "1 all right: Settled level 1, tgt Absent hold Absent",
    "1 comes and goes: ok Patched 114, ok Absent, ok Patched 114",
    "2 wrong build: EINVAL, right ENOEXEC, NeedsHeal, woken Absent, right ok Patched 114",
    "2 by itself: EINVAL, then Absent, right ok Patched 314",
    "3 foreign on disk: Refused ForeignTarget level 0, nothing is loaded",
    "3 allowed: Applied level 3, tgt Skipped hold Absent pktgen Absent, foreign ok Skipped 14, hold ok Patched",
    "3 nothing else: Refused ForeignTarget level 0",
    "4 foreign is loaded: Refused ForeignTarget level 0, allowed Applied level 3",
    "4 foreign with all names comes later: ok ForeignBuild 314",
    "5 packed: Applied level 3, damaged Refused ForeignTarget level 0",
    "6 pinned by hand: Pinned, unload EAGAIN",
    "7 a livepatch of others: Refused ForeignLivepatch level 0, its function works, gone Applied level 3",
    "8 a kprobe has a function: Failed LoadRefused level 0, EBUSY and cmdline_proc_show is held by a kprobe, nothing is loaded, gone Applied level 3",
];

/// And where there is time.
const SAID_LATER: [&str; 2] = [
    "9 sleepers in old and in new code: Failed CannotReverse level 1, names old alone, left as it is",
    "9 the one in new code is gone: reversed, Applied level 1",
];

#[test]
fn the_loader_minds_targets_on_a_kernel_that_leaves_their_relocations() {
    try_on(OLD).unwrap();
}

#[test]
fn the_loader_minds_targets_on_a_kernel_that_clears_their_relocations() {
    try_on(NEW).unwrap();
}

#[test]
fn the_loader_minds_targets_on_a_kernel_that_does_not_tell_which_are_patched() {
    if there_is_time() {
        try_on(OLDEST).unwrap();
    } else {
        eprintln!("SKIP: INVIVO_ALL is not set, nothing was tried on 5.10");
    }
}

/// The first number of QEMU's version.
fn qemu() -> Option<u32> {
    let said = Command::new("qemu-system-x86_64").arg("--version").output().ok()?.stdout;
    String::from_utf8(said).ok()?.split_once("version ")?.1.split('.').next()?.parse().ok()
}

fn try_on(release: &str) -> Result<(), Box<dyn Error>> {
    let Some(_rig) = rig() else { return Ok(()) };
    if qemu().is_none_or(|version| version < QEMU) {
        eprintln!("SKIP: no qemu-system-x86_64 from version {QEMU} on, nothing was tried");
        return Ok(());
    }
    let mut tell = |step: Step, words: &str| eprintln!("{step:8} {words}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../recipes/kernels/{release}.yaml"));
    let lock = KernelLock::read(&path)?;
    let cache = Cache::from_env()?.with_archives(&lock.archives);
    let kernel = facts::read(&cache, &lock, &mut tell)?;
    let tree = tree::make(&cache, &lock, &mut tell)?;
    let modules = Modules::build(&cache, &lock, &kernel, &tree, 0)?;
    let later = if there_is_time() { SAID_LATER.as_slice() } else { &[] };
    let folder = tempfile::tempdir()?;
    let parts = Parts {
        name: release,
        image: &kernel.image,
        archive: fill(boot::first_process()?, &lock, &modules)?,
        append: if later.is_empty() { "INVIVO_GUEST=targets" } else { "INVIVO_GUEST=targets INVIVO_ALL=1" },
        cpus: Accelerator::detect().processors(),
        disks: Vec::new(),
    };
    let guest = boot::start(folder.path(), parts)?;
    let mut said = guest.ends(PATIENCE)?;
    for said in &said {
        eprintln!("{release}: {said:?}");
    }
    assert_eq!(said.pop(), Some(Said::Done(Vec::new())), "{}", guest.console());
    let wanted: Vec<_> = SAID.iter().chain(later).map(|case| Said::Case((*case).to_owned())).collect();
    assert_eq!(said, wanted, "{}", guest.console());
    Ok(())
}

/// What the guest's half reads.
fn fill(archive: Initramfs, lock: &KernelLock, modules: &Modules) -> Result<Initramfs, Box<dyn Error>> {
    let of = |name: &str| {
        let file = format!("{name}.ko");
        let found = modules.files().find(|(name, _)| *name == file);
        found.map(|(_, bytes)| bytes.to_vec()).ok_or(format!("no {file}"))
    };
    let author = Author::new("example", Timestamp::now());
    let publish = |level: u32, names: &[&str]| -> Result<Bundle, Box<dyn Error>> {
        let name = format!("invivo_l{level}_{level:016x}");
        let module = of(&name)?;
        let mut objects = Vec::new();
        for name in names {
            let build_id = match *name {
                "vmlinux" => None,
                target => Some(in_module(of(target)?.as_slice()).ok_or("no build id")?),
            };
            let (_, function, _) = OBJECTS.iter().find(|(object, ..)| object == name).ok_or("no function")?;
            objects.push(PatchedObject {
                name: (*name).to_owned(),
                build_id,
                functions: vec![(*function).to_owned()],
            });
        }
        Ok(author.publish_module(Publication {
            kernel: KernelFacts {
                build_id: lock.build_id.clone(),
                release: lock.release.clone(),
                version: lock.package_version.clone(),
                arch: lock.arch,
                distribution: lock.distribution.clone(),
            },
            vermagic: Modinfo::of(&module)?.get("vermagic").ok_or("no vermagic")?.to_owned(),
            name: name.parse()?,
            set: format!("2026-11-21.{level}").parse()?,
            module,
            objects,
            complete: None,
        }))
    };
    let bundles: Vec<Bundle> =
        LEVELS.iter().map(|(level, names)| publish(*level, names)).collect::<Result<_, _>>()?;
    let mut archive = archive.file("root", 0o444, author.root().as_str().as_bytes());
    for bundle in &bundles {
        let request = ApplyRequest {
            order: Order { object: "uid".to_owned(), revision: Revision(0) },
            build_id: bundle.build_id.clone(),
            level: bundle.level,
            set: bundle.set.clone(),
            digest: bundle.set_digest.clone(),
            manifest: bundle.manifest_digest(),
            mechanism: Mechanism::Livepatch,
            deadline: Timestamp::MAX,
            settle_after_seconds: 3600,
            allow_partial: false,
            floors: Floors::default(),
            server_date: None,
        };
        let level = bundle.level;
        archive = archive
            .file(&format!("request{level}"), 0o444, &serde_json::to_vec(&request)?)
            // All under the documents of the last: the loader goes back to none before them.
            .file(&format!("proof{level}"), 0o444, &author.proof_of_today(bundle))
            .file(&format!("patch{level}.ko"), 0o444, &bundle.module);
    }
    let tgt = of("tgt")?;
    let packed = tempfile::NamedTempFile::new()?;
    std::fs::write(packed.path(), &tgt)?;
    let xz = ["--check=crc32", "--lzma2=dict=1MiB", "--stdout"];
    let packed = Command::new("xz").args(xz).arg(packed.path()).output()?.stdout;
    Ok(archive
        .file("tgt.ko", 0o444, &tgt)
        .file("tgt.ko.xz", 0o444, &packed)
        .file("tgt-nofunction.ko", 0o444, &of("tgt-nofunction")?)
        .file("tgt-foreign.ko", 0o444, &rebuilt(&tgt)?)
        .file("foreign.ko", 0o444, &of("foreign")?)
        .file("probe.ko", 0o444, &of("probe")?)
        .file("hold.ko", 0o444, &of("hold")?)
        .file("pktgen.ko", 0o444, &of("pktgen")?))
}

/// The same module with another build id.
fn rebuilt(module: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let id = in_module(module).ok_or("no build id")?;
    let bytes: Vec<u8> = (0..20)
        .map(|at| u8::from_str_radix(id.as_str().get(2 * at..2 * at + 2).unwrap_or_default(), 16))
        .collect::<Result<_, _>>()?;
    let at = module.windows(20).position(|window| window == bytes).ok_or("its build id is not in it")?;
    let mut other = module.to_vec();
    other[at] ^= 0xff;
    Ok(other)
}
