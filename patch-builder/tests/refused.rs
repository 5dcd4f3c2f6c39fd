//! The negative set on files of a real kernel, and what a person may get wrong: each is refused in one
//! line that names the gate, and leaves everything as it was.
//!
//! Some minutes on a machine with packages and objects in the cache: run by `make bench-supply`.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

use invivo_patch_builder::judge::Code;
use invivo_patch_builder::object::{Object, kernel::Names};
use invivo_patch_builder::part::Edit;
use invivo_patch_builder::refusal::Gate;
use invivo_patch_builder::select::{What, Wish};
use invivo_patch_builder::shop::Shop;
use invivo_patch_builder::{Cache, KernelLock, Step, build, part};
use invivo_terms::Level;

const LOCK: &str = "kernels/6.1.0-47-cloud-amd64.yaml";
const UNIX: &str = "net/unix/af_unix.c";
const NAMEI: &str = "fs/namei.c";
const OPTIONS: &str = "net/ipv4/ip_options.c";

/// A harmless change of a function of [`UNIX`].
const TOUCH: [&str; 2] = ["amount = unix_outq_len(sk);", "amount = unix_outq_len(sk) + 1;"];
/// The head of that function.
const IOCTL: &str = "static int unix_ioctl(struct socket *sock, unsigned int cmd, unsigned long arg)\n{\n";

fn recipes(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes").join(path)
}

fn tell(step: Step, words: &str) {
    eprintln!("{step:8} {words}");
}

/// An edited file of the kernel, and the gate that must refuse it.
struct Case {
    path: &'static str,
    named: &'static [&'static str],
    edits: Vec<[String; 2]>,
    gate: Gate,
}

fn case(path: &'static str, edits: &[[&str; 2]], gate: Gate) -> Case {
    let edits = edits.iter().map(|[from, to]| [(*from).to_owned(), (*to).to_owned()]).collect();
    Case { path, named: &[], edits, gate }
}

fn cases() -> Vec<Case> {
    let begin = |before: &str, deed: &str| [IOCTL.to_owned(), format!("{before}\n{IOCTL}\t{deed}\n")];
    let unix = |edit: [String; 2], gate| Case { path: UNIX, named: &[], edits: vec![edit], gate };
    let init = "sizeof_field(struct sk_buff, cb));\n\n\tfor (i = 0; i < UNIX_HASH_SIZE / 2; i++)";
    let (get, put) =
        ("\tmntget(path->mnt);\n\tdget(path->dentry);\n", "\tdget(path->dentry);\n\tmntget(path->mnt);\n");
    vec![
        case(UNIX, &[TOUCH, ["\t.ioctl =\tunix_ioctl,", "\t.ioctl =\tsock_no_ioctl,"]], Gate::Operations),
        case(UNIX, &[[init, &init.replace("/ 2", "/ 4")]], Gate::InitCode),
        case(UNIX, &[TOUCH, [init, &init.replace("/ 2", "/ 4")]], Gate::InitCode),
        // Another configuration for everything that is included.
        case(
            UNIX,
            &[
                TOUCH,
                ["#include <linux/module.h>", "#undef CONFIG_NETWORK_SECMARK\n#include <linux/module.h>"],
            ],
            Gate::Layout,
        ),
        unix(begin("static int seen;", "sock->state += seen++;"), Gate::NewData),
        unix(
            begin("static void late(struct sock *sk) { sk->sk_err = 1; }", "sock->sk->sk_destruct = late;"),
            Gate::Escape,
        ),
        unix(begin("extern int nowhere(int);", "cmd += nowhere(1);"), Gate::OneSymbol),
        unix(begin("", "sock->nothing = 1;"), Gate::Compiles),
        Case { named: &["unix_shutdown"], ..case(UNIX, &[TOUCH], Gate::Changed) },
        case(UNIX, &[], Gate::Changed),
        case(
            NAMEI,
            &[[get, put], ["struct nameidata {\n", "struct nameidata {\n\tlong spare;\n"]],
            Gate::Layout,
        ),
        case(NAMEI, &[[get, put], ["EXPORT_SYMBOL(path_get);\n", ""]], Gate::Exports),
        case(
            "net/core/sock.c",
            &[
                ["\tWRITE_ONCE(sk->sk_lingertime, 0);\n", "\tWRITE_ONCE(sk->sk_lingertime, 1);\n"],
                [
                    "sysctl_wmem_max __read_mostly = SK_WMEM_MAX;",
                    "sysctl_wmem_max __read_mostly = 2 * SK_WMEM_MAX;",
                ],
            ],
            Gate::Data,
        ),
        case(
            "kernel/stop_machine.c",
            &[["arg, &done))\n\t\treturn -ENOENT;\n", "arg, &done))\n\t\treturn -EINVAL;\n"]],
            Gate::Context,
        ),
        case(
            "arch/x86/kernel/traps.c",
            &[[
                "DEFINE_IDTENTRY_RAW(exc_int3)\n{\n",
                "DEFINE_IDTENTRY_RAW(exc_int3)\n{\n\tif (regs->ip == 1)\n\t\treturn;\n",
            ]],
            Gate::Context,
        ),
        case(
            "kernel/trace/trace_seq.c",
            &[["\tif (TRACE_SEQ_BUF_LEFT(s) < 1) {", "\tif (TRACE_SEQ_BUF_LEFT(s) < 2) {"]],
            Gate::Traceable,
        ),
    ]
}

#[test]
#[ignore = "minutes; run by make bench-supply"]
fn nothing_that_must_not_become_a_patch_of_a_real_kernel_does() {
    let cache = Cache::from_env().unwrap();
    let lock = KernelLock::read(&recipes(LOCK)).unwrap();
    let shop = Shop::open(&cache, &lock, &mut tell).unwrap();
    let vmlinux = Object::parse(shop.vmlinux()).unwrap();
    let names = Names::of_vmlinux(&vmlinux);
    let workshop = shop.workshop(&vmlinux, &names);
    let mut wrong = Vec::new();
    let verdict = |case: &Case| {
        let mut text = fs::read_to_string(shop.source().join(case.path)).unwrap();
        for [from, to] in &case.edits {
            assert!(text.contains(from.as_str()), "{}: {from}", case.path);
            text = text.replacen(from.as_str(), to, 1);
        }
        let wish = Wish { fix: "a trial", fixed: &text, version: None, what: What::All };
        let edit = Edit { path: case.path, wishes: vec![wish] };
        workshop.make(case.path, &[edit], case.named, Code::Goes, &part::Handed::default(), &mut tell)
    };
    for case in cases() {
        match verdict(&case) {
            Err(part::Error::Refused(refusal)) if refusal.gate == case.gate => eprintln!("{refusal}"),
            Err(other) => wrong.push(format!("{:?}: {other}", case.edits)),
            Ok(made) => wrong.push(format!("{:?}: let pass: {:?}", case.edits, made.seen.replaced)),
        }
    }
    let harmless = verdict(&case(UNIX, &[TOUCH], Gate::Changed)).unwrap();
    assert_eq!(harmless.seen.replaced, ["unix_ioctl"]);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An error and all its causes, as the command line prints them.
fn line(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !line.ends_with(&words) {
            line = format!("{line}: {words}");
        }
        next = cause.source();
    }
    line
}

/// A recipe of the patch `text` for one function of one file, in its own folder below `root`.
fn recipe(root: &Path, name: &str, [path, function]: [&str; 2], text: &str) -> io::Result<PathBuf> {
    let folder = root.join(name);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("fix.patch"), text)?;
    let recipe = format!(
        "title: t\nsummary: s\nfixes:\n  - cve: CVE-2026-0001\n    title: t\n    url: u\nfixed: 6.1.176-1\n\
         patch: fix.patch\nfiles:\n  - path: {path}\n    functions: [{function}]\n"
    );
    fs::write(folder.join("recipe.yaml"), recipe)?;
    Ok(folder)
}

fn patch(path: &str, hunk: &str) -> String {
    format!("--- a/{path}\n+++ b/{path}\n{hunk}")
}

/// Every file below `folder`: length and time of its last change.
fn listing(folder: &Path) -> io::Result<BTreeMap<PathBuf, (u64, SystemTime)>> {
    let mut all = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let seen = entry.metadata()?;
            all.insert(entry.path(), (seen.len(), seen.modified()?));
            if seen.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(all)
}

#[test]
#[ignore = "minutes; run by make bench-supply"]
fn what_a_person_gets_wrong_is_told_in_one_line_and_leaves_the_tree_as_it_was() {
    let cache = Cache::from_env().unwrap();
    let good = KernelLock::read(&recipes(LOCK)).unwrap();
    let source = Shop::open(&cache, &good, &mut tell).unwrap().source().to_owned();
    let before = listing(&source.join("net")).unwrap();
    let root = tempfile::tempdir().unwrap();
    let hunk = "@@ -525,3 +525,3 @@\n \twhile (optlen & 3)\n-\t\topt->opt.__data[optlen++] = IPOPT_END;\n+\t\topt->opt.__data[optlen++] = IPOPT_NOP;\n \topt->opt.optlen = optlen;\n";
    let of = |name: &str, path: &str, function: &str, hunk: &str| {
        recipe(root.path(), name, [path, function], &patch(path, hunk)).unwrap()
    };
    let fine = of("fine", OPTIONS, "ip_options_get", hunk);
    let other = of("other", OPTIONS, "ip_options_get", &hunk.replace("NOP", "SEC"));
    let one_character = hunk.replace("while (optlen & 3)", "while (optlen & 4)");
    let of_other_file =
        |name: &str, path: &str| recipe(root.path(), name, [OPTIONS, "f"], &patch(path, hunk)).unwrap();
    let header = of_other_file("header", "include/net/ip.h");
    let assembly = of_other_file("assembly", "arch/x86/entry/entry_64.S");
    let kconfig = of_other_file("kconfig", "net/Kconfig");
    let radeon = "@@ -1,1 +1,1 @@\n-/*\n+/* x\n";
    let text = fs::read_to_string(recipes(LOCK)).unwrap();
    let lock = |name: &str, from: &str, to: &str| {
        let path = root.path().join(name);
        assert!(text.contains(from));
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        path
    };
    let sum = good.packages.image.sha256.to_string();
    let later = KernelLock::read(&recipes("kernels/6.12.117+deb12-cloud-amd64.yaml")).unwrap();
    let image = |lock: &KernelLock| {
        let package = &lock.packages.image;
        format!(
            "    name: {}\n    version: {}\n    architecture: amd64\n    sha256: {}\n",
            package.name, package.version, package.sha256
        )
    };
    let cases: Vec<(Vec<PathBuf>, PathBuf, &str)> = vec![
        (vec![of("context", OPTIONS, "ip_options_get", &one_character)], recipes(LOCK), "Applies: "),
        (vec![of("unbuilt", "drivers/gpu/drm/radeon/r100.c", "f", radeon)], recipes(LOCK), "FileBuilt: "),
        (vec![of("nowhere", "net/ipv4/nothing.c", "f", hunk)], recipes(LOCK), "FileBuilt: "),
        // A header may be fixed; one that the recipe does not name is touched behind a person's back.
        (vec![header], recipes(LOCK), "Applies: "),
        (vec![assembly], recipes(LOCK), "OnlyCode: "),
        (vec![kconfig], recipes(LOCK), "OnlyCode: "),
        (vec![fine.clone(), other], recipes(LOCK), "Conflict: "),
        (vec![of("named", OPTIONS, "ip_options_undo", hunk)], recipes(LOCK), "Changed: "),
        (
            vec![fine.clone()],
            lock(
                "compiler",
                "compiler: gcc-12 (Debian 12.2.0-14+deb12u1)",
                "compiler: gcc-12 (Debian 12.2.0-13)",
            ),
            "gcc-12",
        ),
        (vec![fine.clone()], lock("image", &sum, &"0".repeat(64)), "sha256"),
        (vec![fine.clone()], lock("version", "2026-05-08", "2026-05-09"), "version: the lock says"),
        (vec![fine.clone()], lock("flavour", &image(&good), &image(&later)), "release: the lock says"),
    ];
    for (folders, lock, wanted) in cases {
        let folders: Vec<_> = folders.iter().map(PathBuf::as_path).collect();
        let out = root.path().join("out");
        let set = "2026-11-21.1".parse().unwrap();
        let error = build(&cache, &folders, &lock, Level(1), &set, &out, &mut tell).unwrap_err();
        let line = line(&error);
        eprintln!("{line}");
        assert!(line.contains(wanted) && !line.contains('\n'), "{wanted}: {line}");
        assert!(!out.exists(), "{line}");
    }
    assert!(before == listing(&source.join("net")).unwrap(), "the source tree is not as it was");
    let set = "2026-11-21.1".parse().unwrap();
    build(&cache, &[&fine], &recipes(LOCK), Level(1), &set, &root.path().join("out"), &mut tell).unwrap();
}
