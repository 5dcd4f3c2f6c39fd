//! The whole way with real packages, a real compiler and a real kernel. Downloads some 320 MB once;
//! with them in the cache it takes seconds to build and half a minute to boot under emulation.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use invivo_patch_builder::modinfo::Modinfo;
use invivo_patch_builder::{Built, Cache, KernelLock, Step, boot, build};
use invivo_terms::Level;

const RECIPE: &str = "CVE-2026-53249";
/// Four levels' worth of fixes, in the order in which the distribution made them.
const ALL: [&str; 5] = [RECIPE, "CVE-2026-53236", "CVE-2026-52928", "CVE-2026-98022", "CVE-2026-72379"];
const LOCK: &str = "kernels/6.1.0-47-cloud-amd64.yaml";
const LOCK_5_10: &str = "kernels/5.10.0-43-cloud-amd64.yaml";

fn recipes(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes").join(path)
}

fn build_into(out: &Path, lock: &Path, names: &[&str]) -> Result<Built, Box<dyn Error>> {
    let folders: Vec<_> = names.iter().map(|name| recipes(name)).collect();
    build_of(out, lock, &folders)
}

fn build_of(out: &Path, lock: &Path, folders: &[PathBuf]) -> Result<Built, Box<dyn Error>> {
    let mut tell = |step: Step, words: &str| eprintln!("{step:8} {words}");
    let (cache, set) = (Cache::from_env()?, "2026-11-21.1".parse()?);
    let folders: Vec<_> = folders.iter().map(PathBuf::as_path).collect();
    Ok(build(&cache, &folders, lock, Level(1), &set, out, &mut tell)?)
}

/// What the guest must see is seen there.
fn boot(built: &Built, folders: &[PathBuf]) -> Result<(), Box<dyn Error>> {
    if has_qemu() {
        let folders: Vec<_> = folders.iter().map(PathBuf::as_path).collect();
        let mut tell = |step: Step, words: &str| eprintln!("{step:8} {words}");
        boot::test(&Cache::from_env()?, &folders, built, &built.modules, &mut tell)?;
    }
    Ok(())
}

/// Whether there is a QEMU; the absence is said.
fn has_qemu() -> bool {
    let there = Command::new("qemu-system-x86_64").arg("--version").output().is_ok();
    if !there {
        eprintln!("SKIP: no qemu-system-x86_64, the module was not tried");
    }
    there
}

/// Whether there is time for what is tried before a release and not at every change.
fn there_is_time() -> bool {
    std::env::var("INVIVO_ALL").is_ok_and(|value| value == "1")
}

#[test]
fn a_recipe_becomes_a_module_that_says_what_it_is() {
    let out = tempfile::tempdir().unwrap();
    let built = build_into(out.path(), &recipes(LOCK), &[RECIPE]).unwrap();
    assert_eq!(std::fs::read(&built.path).unwrap(), built.bytes);
    assert_eq!(built.objects[0].functions, ["ip_options_get"]);
    let info = Modinfo::of(&built.bytes).unwrap();
    assert_eq!(info.get("name"), Some(built.name.as_str()));
    assert_eq!(info.get("invivo_build_id"), Some(built.kernel.build_id.as_str()));
    // What patches of kernel modules need would cost this one time at every load.
    assert_eq!(info.get("invivo_features"), None);
    let symbols: Vec<_> = built.evidence.klp_symbols.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(symbols, ["__ip_options_compile", "vmlinux_build_id"]);
    let part = &built.evidence.parts[0];
    assert_eq!((part.compared, part.same), (10, 10));
}

#[test]
fn five_recipes_become_one_module_that_closes_all_holes_and_gives_everything_back() {
    let out = tempfile::tempdir().unwrap();
    let built = build_into(out.path(), &recipes(LOCK), &ALL).unwrap();
    let functions =
        ["dev_change_tx_queue_len", "ip_options_get", "sk_setsockopt", "unix_ioctl", "vfs_tmpfile"];
    assert_eq!(built.objects[0].functions, functions);
    let (same, compared) = built.evidence.parts.iter().fold((0, 0), |(s, c), p| (s + p.same, c + p.compared));
    // What the design's own measurement found, and no less.
    assert!(same * 1000 >= compared * 995 && compared > 600, "{same} of {compared}");
    boot(&built, &ALL.map(recipes)).unwrap();
}

#[test]
fn a_recipe_becomes_a_module_for_a_kernel_in_which_objtool_works_on_what_is_linked() {
    // Its packages are 670 MB.
    if !there_is_time() {
        eprintln!("SKIP: INVIVO_ALL is not 1, no module of a fix was made for 6.12");
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let recipe = [recipes("CVE-2026-98022-6.12")];
    let lock = recipes("kernels/6.12.107+deb12-cloud-amd64.yaml");
    let built = build_of(out.path(), &lock, &recipe).unwrap();
    assert_eq!(built.objects[0].functions, ["dev_change_tx_queue_len"]);
    let part = &built.evidence.parts[0];
    assert!(part.same * 1000 >= part.compared * 995, "{} of {}", part.same, part.compared);
    boot(&built, &recipe).unwrap();
}

/// Whether there is time for 5.10, whose packages are 550 MB; the absence is said.
fn has_time_for_5_10() -> bool {
    let has_time = there_is_time();
    if !has_time {
        eprintln!("SKIP: INVIVO_ALL is not 1, no module of a fix was made for 5.10");
    }
    has_time
}

#[test]
fn a_recipe_becomes_a_module_for_a_kernel_whose_compiler_its_lock_brings_along() {
    if !has_time_for_5_10() {
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let recipe = [recipes("CVE-2026-53249-5.10")];
    let built = build_of(out.path(), &recipes(LOCK_5_10), &recipe).unwrap();
    assert_eq!(built.objects[0].functions, ["ip_options_get"]);
    let symbols: Vec<_> = built.evidence.klp_symbols.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(symbols, ["__ip_options_compile", "__start_notes", "__stop_notes"]);
    let part = &built.evidence.parts[0];
    assert_eq!((part.compared, part.same), (10, 10));
    boot(&built, &recipe).unwrap();
}

#[test]
fn new_code_goes_on_where_it_should_after_a_fault_and_comes_back() {
    if !has_time_for_5_10() {
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let recipe = [Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults")];
    let built = build_of(out.path(), &recipes(LOCK_5_10), &recipe).unwrap();
    assert_eq!(built.objects[0].functions, ["do_futex"]);
    boot(&built, &recipe).unwrap();
}

#[test]
fn a_variable_that_each_processor_has_is_the_kernels_own_in_the_patch() {
    let out = tempfile::tempdir().unwrap();
    let recipe = [Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/per-processor")];
    let built = build_of(out.path(), &recipes(LOCK), &recipe).unwrap();
    assert_eq!(built.objects[0].functions, ["__d_alloc", "proc_nr_dentry"]);
    assert!(built.evidence.klp_symbols.iter().any(|symbol| symbol.name == "nr_dentry"));
    // Both forms count, and the one that was patched in counts above.
    boot(&built, &recipe).unwrap();
}

#[test]
fn a_lock_that_names_another_kernel_than_the_image_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("lock.yaml");
    let id = KernelLock::read(&recipes(LOCK)).unwrap().build_id;
    let text = std::fs::read_to_string(recipes(LOCK)).unwrap();
    std::fs::write(&lock, text.replace(id.as_str(), &"ab".repeat(20))).unwrap();
    let out = folder.path().join("out");
    let error = build_into(&out, &lock, &[RECIPE]).unwrap_err();
    let named = error.downcast_ref::<invivo_patch_builder::Error>();
    assert!(matches!(named, Some(invivo_patch_builder::Error::Facts(_))), "{error}");
    assert!(!out.exists());
}
