//! The modules of the guest: compiled in one go, since Kbuild takes longer to start than to compile
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};

use invivo_patch_builder::facts::Kernel;
use invivo_patch_builder::modinfo::Modinfo;
use invivo_patch_builder::{
    Cache, KernelLock, PatchedObject, cc, fetch,
    judge::Code,
    resolve,
    template::{self, Fill},
};
use invivo_terms::{Digest, Level, ModuleName};

const TGT: &str = include_str!("../../../kmod/tests/parts/tgt.c");
const HOLD: &str = include_str!("../../../kmod/tests/parts/hold.c");
const PKTGEN: &str = include_str!("../../../kmod/tests/parts/pktgen.c");
const CMDLINE: &str = include_str!("../../../kmod/tests/parts/cmdline.c");

const PLAIN: [(&str, &str); 4] = [
    ("tgt", include_str!("../../../kmod/tests/tgt.c")),
    ("hold", include_str!("../../../kmod/tests/hold.c")),
    ("foreign", include_str!("../../../kmod/tests/foreign.c")),
    ("probe", include_str!("../../../kmod/tests/probe.c")),
];

/// What patches change: object, function, and how.
pub(crate) const OBJECTS: [(&str, &str, &str); 4] = [
    ("tgt", "tgt_value", TGT),
    ("hold", "hold_wait", HOLD),
    ("pktgen", "pgctrl_show", PKTGEN),
    ("vmlinux", "cmdline_proc_show", CMDLINE),
];

/// A patch made by hand: its level (and number), the number that it adds to tgt's, how many of
/// [`OBJECTS`] it has, whether it has tgt's clones as well, and a line of its own for Kbuild.
struct Patch {
    level: u32,
    adds: u32,
    objects: usize,
    clones: bool,
    kbuild: &'static str,
}

const NO_CLONES: Patch = Patch { level: 0, adds: 0, objects: 2, clones: false, kbuild: "" };

/// As `kmod/tests/cases.c` names them.
const PATCHES: [Patch; 4] = [
    Patch { level: 1, adds: 100, ..NO_CLONES },
    Patch { level: 2, adds: 200, ..NO_CLONES },
    Patch { level: 3, adds: 300, objects: 4, clones: true, kbuild: "" },
    // As if the kernel did it: so the clear is left out.
    Patch { level: 4, adds: 100, kbuild: "CFLAGS_targets.o := -DHAVE_KLP_CLEAR_RELOCS\n", ..NO_CLONES },
];

/// The name of a clone of tgt; its sources have this name wherever tgt's have tgt's.
fn clone(number: usize) -> String {
    format!("{TARGET}{number:02}")
}

const TARGET: &str = "tgt";

impl Patch {
    fn name(&self) -> Result<ModuleName, Box<dyn Error>> {
        Ok(format!("invivo_l{0}_{0:016x}", self.level).parse()?)
    }

    fn sources(&self, lock: &KernelLock, clones: usize) -> Result<BTreeMap<String, String>, Box<dyn Error>> {
        let own = OBJECTS.iter().take(self.objects);
        let own = own.map(|(name, function, text)| [name, function, text].map(|one| (*one).to_owned()));
        let [(_, function, text), ..] = OBJECTS;
        let more = (0..if self.clones { clones } else { 0 })
            .map(|number| [TARGET, function, text].map(|one| one.replace(TARGET, &clone(number))));
        let (mut objects, mut parts) = (Vec::new(), Vec::new());
        for [name, function, text] in own.chain(more) {
            objects.push(PatchedObject { name, functions: vec![function] });
            parts.push(format!("#define ADDED {}\n{text}", self.adds));
        }
        let mut sources = template::sources(&Fill {
            name: &self.name()?,
            level: Level(self.level),
            set: &format!("2026-11-21.{}", self.level).parse()?,
            build_id: &lock.build_id,
            inputs: &Digest::from_bytes(&[0; 32]),
            fixes: "",
            code: Code::Goes,
            namespaces: &BTreeSet::new(),
            objects: &objects,
            parts: &parts.iter().map(String::as_str).collect::<Vec<_>>(),
        });
        sources.entry("name.mk".to_owned()).or_default().push_str(self.kbuild);
        Ok(sources)
    }
}

/// The modules, by the names of their files in the guest.
pub(crate) struct Modules(BTreeMap<String, Vec<u8>>);

impl Modules {
    /// With so many clones of tgt.
    pub(crate) fn build(
        cache: &Cache,
        lock: &KernelLock,
        kernel: &Kernel,
        tree: &Path,
        clones: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let mut modules = compile(cache, lock, tree, clones)?;
        for patch in &PATCHES {
            let module = modules.get_mut(&file(patch.name()?.as_str())).ok_or("not compiled")?;
            *module = resolve(module, tree, &kernel.symbols)?.0.bytes;
            let features = Modinfo::of(module)?;
            let features = features.get("invivo_features").ok_or("has no invivo_features")?;
            assert!(features.ends_with("heal,skip,pin"), "{features}");
        }
        let tgt = modules.get(&file("tgt")).ok_or("not compiled")?.clone();
        modules.insert(file("tgt-nofunction"), renamed(&tgt, "tgt_value", "tgt_other")?);
        modules.insert(file("tgt-nosymbol"), renamed(&tgt, "tgt_data", "tgt_date")?);
        let pktgen = pktgen(cache, lock)?;
        modules.insert(file("pktgen-changed"), replaced(&pktgen, b"\0license=", b"\0licence=")?);
        modules.insert(file("pktgen"), pktgen);
        Ok(Self(modules))
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }
}

fn file(module: &str) -> String {
    format!("{module}.ko")
}

fn compile(
    cache: &Cache,
    lock: &KernelLock,
    tree: &Path,
    clones: usize,
) -> Result<BTreeMap<String, Vec<u8>>, Box<dyn Error>> {
    cc::check_compiler(cache, lock, &mut |_, _| ())?;
    let mut sources = BTreeMap::new();
    let mut names = Vec::new();
    let plain = PLAIN.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let more = (0..clones).map(|number| {
        let [(name, text), ..] = PLAIN;
        (name.replace(TARGET, &clone(number)), text.replace(TARGET, &clone(number)))
    });
    for (name, text) in plain.into_iter().chain(more) {
        sources.insert(format!("{name}/{name}.c"), text);
        sources.insert(format!("{name}/Kbuild"), format!("obj-m := {name}.o\nccflags-y := -Werror\n"));
        names.push(name);
    }
    for patch in &PATCHES {
        let name = patch.name()?.to_string();
        sources.extend(
            patch.sources(lock, clones)?.into_iter().map(|(path, text)| (format!("{name}/{path}"), text)),
        );
        names.push(name);
    }
    sources.insert("Kbuild".to_owned(), format!("obj-m := {}/\n", names.join("/ ")));

    let work = tempfile::tempdir()?;
    cc::compile(tree, work.path(), "tgt/tgt", &sources)?;
    let read = |name: &String| Ok((file(name), std::fs::read(work.path().join(name).join(file(name)))?));
    names.iter().map(read).collect()
}

/// The distribution's module, as its package has it.
fn pktgen(cache: &Cache, lock: &KernelLock) -> Result<Vec<u8>, Box<dyn Error>> {
    let package = fetch::package(cache, &lock.packages.image, &mut |_, _| ())?;
    let mut files =
        Command::new("dpkg-deb").arg("--fsys-tarfile").arg(package).stdout(Stdio::piped()).spawn()?;
    let tar = Command::new("tar")
        .args(["--extract", "--to-stdout", "--wildcards", "*/net/core/pktgen.ko*"])
        .stdin(files.stdout.take().ok_or("no pipe")?)
        .output()?;
    files.wait()?;
    if tar.stdout.starts_with(b"\x7fELF") {
        return Ok(tar.stdout);
    }
    let packed = tempfile::NamedTempFile::new()?;
    std::fs::write(packed.path(), &tar.stdout)?;
    let unpacked = Command::new("xz").args(["--decompress", "--stdout"]).stdin(packed.reopen()?).output()?;
    if unpacked.stdout.starts_with(b"\x7fELF") {
        Ok(unpacked.stdout)
    } else {
        Err("no pktgen in the package".into())
    }
}

/// Another build of a module, in which a symbol has another name. Names share their ends, so that
/// nothing can be said of what stands before one.
fn renamed(module: &[u8], from: &str, to: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    replaced(module, format!("{from}\0").as_bytes(), format!("{to}\0").as_bytes())
}

/// `from` stands in `module` once and becomes `to`, which is as long.
fn replaced(module: &[u8], from: &[u8], to: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let places: Vec<_> =
        module.windows(from.len()).enumerate().filter(|(_, w)| *w == from).map(|(at, _)| at).collect();
    let [at] = places.as_slice() else {
        return Err(format!("{} stands there {} times", from.escape_ascii(), places.len()).into());
    };
    let rest = module.get(at + from.len()..).unwrap_or_default();
    Ok([module.get(..*at).unwrap_or_default(), to, rest].concat())
}
