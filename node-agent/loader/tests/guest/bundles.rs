//! Patches by hand for the guest's own kernel, published and signed as an author does it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};

use invivo_feed::{Clocks, Floors, verify_proof};
use invivo_guest::Initramfs;
use invivo_patch_builder::{
    Cache, KernelLock, PatchedObject, cc, facts,
    judge::Code,
    resolve,
    template::{self, Fill},
    tree,
};
use invivo_terms::{Digest, Level, ModuleName};
use jiff::Timestamp;
use object::{Object as _, ObjectSection as _};

use crate::file_system::FileSystem;
use crate::plan::{Facts, Generation, Offer};
use crate::repository::{Author, Bundle};
use crate::signer::Signer;

/// The kernel of every guest here.
const RELEASE: &str = "6.1.0-47-cloud-amd64";

/// How often the repository's documents are renewed; a node that has seen a later one takes no earlier.
pub(crate) const GENERATIONS: u32 = 6;

/// What is different in each module.
struct Made {
    level: u32,
    /// What it redirects.
    functions: &'static [&'static str],
    /// It has a signature for the kernel's own check, by a key that no kernel knows.
    signed: bool,
    /// It is never unloaded.
    stays: bool,
    /// What happens as it is loaded.
    at_load: &'static str,
    /// What its code does before it answers.
    first: &'static str,
    /// Its code, where that is no answer to a reader.
    code: Option<&'static str>,
}

/// The second redirects more than those before and after it.
const OURS: [Made; 11] = [
    Made { level: 1, ..PLAIN },
    Made { level: 2, functions: &[CMDLINE, VERSION], ..PLAIN },
    Made { level: 3, ..PLAIN },
    Made { level: SIGNED, signed: true, ..PLAIN },
    Made { level: WARNS, first: "WARN_ON_ONCE(1);", ..HARMFUL },
    Made { level: DIES, first: "BUG();", ..HARMFUL },
    Made { level: DIES_LATER, first: DIE_LATER, ..HARMFUL },
    Made { level: SPINS, first: SPIN, ..HARMFUL },
    Made { level: FORKS, functions: &["__x64_sys_vfork"], code: Some(FORK), ..PLAIN },
    Made { level: STAYS, stays: true, ..PLAIN },
    Made { level: DIES_AT_LOAD, at_load: "BUG();", ..PLAIN },
];
const PLAIN: Made =
    Made { level: 0, functions: &[CMDLINE], signed: false, stays: false, at_load: "", first: "", code: None };
/// Of what the guest's first process never calls, which must not die.
const HARMFUL: Made = Made { functions: &[LOADAVG], ..PLAIN };
/// The level whose module is signed.
pub(crate) const SIGNED: u32 = 5;
/// The level whose code the kernel warns of.
pub(crate) const WARNS: u32 = 6;
/// The level that dies of being called.
pub(crate) const DIES: u32 = 7;
/// The level that does so half a minute after the first call.
pub(crate) const DIES_LATER: u32 = 8;
const DIE_LATER: &str = "static time64_t first;
\tif (!first)
\t\tfirst = ktime_get_seconds();
\tBUG_ON(ktime_get_seconds() >= first + 30);";
/// The level that keeps a processor to itself for some seconds, once.
pub(crate) const SPINS: u32 = 9;
const SPIN: &str = "static bool spun;
	if (!spun) {
		ktime_t end = ktime_add_ms(ktime_get(), 7000);

		spun = true;
		preempt_disable();
		while (ktime_before(ktime_get(), end))
			cpu_relax();
		preempt_enable();
	}";
/// The level that forks as the kernel does.
pub(crate) const FORKS: u32 = 10;
const FORK: &str = include_str!("../../../../kmod/tests/parts/vfork.c");
/// The level whose module stays in memory when it was taken off.
pub(crate) const STAYS: u32 = 11;
/// The level that dies before it is on.
pub(crate) const DIES_AT_LOAD: u32 = 12;
/// By an author whom nobody pinned.
const STRANGERS: Made = Made { level: 4, ..PLAIN };

const CMDLINE: &str = "cmdline_proc_show";
const VERSION: &str = "version_proc_show";
const LOADAVG: &str = "loadavg_proc_show";

impl Made {
    fn name(&self) -> Result<ModuleName, Box<dyn Error>> {
        Ok(format!("invivo_l{0}_{0:016x}", self.level).parse()?)
    }

    fn set(&self) -> String {
        format!("2026-11-21.{}", self.level)
    }

    fn part(&self, function: &str) -> String {
        if let Some(code) = self.code {
            return code.to_owned();
        }
        format!(
            "// SPDX-License-Identifier: GPL-2.0\n#include <linux/bug.h>\n#include <linux/ktime.h>\n\
             #include <linux/preempt.h>\n#include <linux/processor.h>\n#include <linux/seq_file.h>\n\n\
             static int {function}(struct seq_file *seq, void *v)\n{{\n\t{}\n\
             \tseq_puts(seq, \"level {}\\n\");\n\treturn 0;\n}}\n\n\
             extern typeof({function}) invivo_new_{function} __alias({function});\n",
            self.first, self.level
        )
    }

    fn sources(&self, lock: &KernelLock) -> Result<BTreeMap<String, String>, Box<dyn Error>> {
        let parts: Vec<_> = self.functions.iter().map(|function| self.part(function)).collect();
        let objects = [PatchedObject {
            name: "vmlinux".to_owned(),
            functions: self.functions.iter().map(|function| (*function).to_owned()).collect(),
        }];
        let mut sources = template::sources(&Fill {
            name: &self.name()?,
            level: Level(self.level),
            set: &self.set().parse()?,
            build_id: &lock.build_id,
            inputs: &Digest::from_bytes(&[0; 32]),
            fixes: "",
            code: if self.stays { Code::Stays } else { Code::Goes },
            namespaces: &BTreeSet::new(),
            objects: &objects,
            parts: &parts.iter().map(String::as_str).collect::<Vec<_>>(),
        });
        let main = sources.get_mut("main.c").ok_or("no main.c")?;
        let first = "\tret = invivo_check_build_id();\n";
        assert!(main.contains(first));
        *main = main.replace(first, &format!("\t{}\n{first}", self.at_load));
        Ok(sources)
    }
}

/// What every guest has: a kernel, and bundles for it.
pub(crate) struct Bundles {
    pub(crate) image: PathBuf,
    /// The same kernel, not packed.
    vmlinux: PathBuf,
    signer: Signer,
    pub(crate) root: Digest,
    pub(crate) offers: Vec<Offer>,
    pub(crate) file_system: FileSystem,
    files: BTreeMap<String, Vec<u8>>,
}

impl Bundles {
    /// Builds and publishes them.
    pub(crate) fn make() -> Result<Self, Box<dyn Error>> {
        let cache = Cache::from_env()?;
        let mut tell = |step, words: &str| eprintln!("{step:8} {words}");
        let lock =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../recipes/kernels/{RELEASE}.yaml"));
        let lock = KernelLock::read(&lock)?;
        let kernel = facts::read(&cache, &lock, &mut tell)?;
        let tree = tree::make(&cache, &lock, &mut tell)?;
        let mut modules = compile(&cache, &lock, &tree)?;
        let vmlinux = kernel.image.with_file_name("vmlinux");
        let signer = Signer::for_kernel(&std::fs::read(&vmlinux)?)?;
        for made in OURS.iter().chain([&STRANGERS]) {
            let module = modules.get_mut(&made.level).ok_or("not compiled")?;
            *module = resolve(module, &tree, &kernel.symbols)?.0.bytes;
            if made.signed {
                *module = signer.sign(&tree, module)?;
            }
        }
        let take = |made: &Made| modules.get(&made.level).cloned().ok_or("not compiled");

        let now = Timestamp::now();
        let (ours, stranger) = (Author::new("example", now), Author::new("stranger", now));
        let publish = |author: &Author, made: &Made| -> Result<Bundle, Box<dyn Error>> {
            Ok(author.publish_made(&lock.build_id, &made.set(), made.name()?, take(made)?))
        };
        let published = OURS.iter().map(|made| publish(&ours, made)).collect::<Result<Vec<_>, _>>()?;
        let strange = publish(&stranger, &STRANGERS)?;

        let file_system = FileSystem::from_env()?;
        let mut files = BTreeMap::new();
        for (path, bytes) in file_system.modules().iter().zip(file_system.module_files(&cache, &lock)?) {
            files.insert(file_name(path).to_owned(), bytes);
        }
        let mut offers = Vec::new();
        for bundle in published.iter().chain([&strange]) {
            files.insert(module_file(bundle.level), bundle.module.clone());
            offers.push(offer(bundle)?);
        }
        for number in 0..GENERATIONS {
            ours.refresh();
            for (bundle, offer) in published.iter().zip(&mut offers) {
                let bundle = ours.of_now(bundle);
                offer.generations.push(Generation { floors: floors(&bundle, &ours.root(), now)? });
                files.insert(proof_file(bundle.level, number), bundle.proof);
            }
        }
        if let Some(offer) = offers.last_mut() {
            offer.generations.push(Generation { floors: floors(&strange, &stranger.root(), now)? });
            files.insert(proof_file(strange.level, 0), strange.proof);
        }
        Ok(Self { image: kernel.image, vmlinux, signer, root: ours.root(), offers, file_system, files })
    }

    /// The kernel as `image`, but that it trusts whoever signed [`SIGNED`] in its builder's place; its
    /// build id is the same. QEMU takes it as it is.
    pub(crate) fn trusting(&self, image: &Path) -> Result<(), Box<dyn Error>> {
        let mut vmlinux = std::fs::read(&self.vmlinux)?;
        self.signer.be_trusted(&mut vmlinux)?;
        Ok(std::fs::write(image, vmlinux)?)
    }

    /// Adds them to what a guest begins with.
    pub(crate) fn pack(&self, archive: Initramfs) -> Initramfs {
        self.files.iter().fold(archive, |archive, (name, bytes)| archive.file(name, 0o444, bytes))
    }

    pub(crate) fn facts(&self) -> Facts {
        Facts { root: self.root.clone(), offers: self.offers.clone(), file_system: self.file_system }
    }
}

/// Where a guest has one of its kernel's own modules.
pub(crate) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Where a guest has a module.
pub(crate) fn module_file(level: Level) -> String {
    format!("l{level}.ko")
}

/// Where a guest has a proof.
pub(crate) fn proof_file(level: Level, generation: u32) -> String {
    format!("l{level}-{generation}.proof")
}

fn offer(bundle: &Bundle) -> Result<Offer, Box<dyn Error>> {
    let elf = object::File::parse(bundle.module.as_slice())?;
    let note = elf.section_by_name(".note.gnu.build-id").ok_or("a module without a build id")?;
    Ok(Offer {
        build_id: bundle.build_id.clone(),
        level: bundle.level,
        set: bundle.set.clone(),
        set_digest: bundle.set_digest.clone(),
        manifest: bundle.manifest_digest(),
        module: invivo_feed::digest(&bundle.module),
        note: note.data()?.to_vec(),
        generations: Vec::new(),
    })
}

fn floors(bundle: &Bundle, root: &Digest, now: Timestamp) -> Result<Floors, Box<dyn Error>> {
    let proof = serde_json::from_slice(&bundle.proof)?;
    let proven = verify_proof(&proof, root, &Floors::default(), Clocks { own: now, server: None })?;
    Ok(proven.catalogue.floors().clone())
}

fn compile(cache: &Cache, lock: &KernelLock, tree: &Path) -> Result<BTreeMap<u32, Vec<u8>>, Box<dyn Error>> {
    cc::check_compiler(cache, lock, &mut |_, _| ())?;
    let mut sources = BTreeMap::new();
    let all: Vec<_> = OURS.iter().chain([&STRANGERS]).collect();
    let mut folders = String::new();
    for made in &all {
        let name = made.name()?;
        sources.extend(made.sources(lock)?.into_iter().map(|(path, text)| (format!("{name}/{path}"), text)));
        folders = format!("{folders} {name}/");
    }
    sources.insert("Kbuild".to_owned(), format!("obj-m :={folders}\n"));
    let work = tempfile::tempdir()?;
    let first = all.first().ok_or("no modules")?.name()?;
    cc::compile(tree, work.path(), &format!("{first}/{first}"), &sources)?;
    let read = |made: &&Made| {
        let name = made.name()?;
        Ok((made.level, std::fs::read(work.path().join(format!("{name}/{name}.ko")))?))
    };
    all.iter().map(read).collect()
}
