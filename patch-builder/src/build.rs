//! One fix, one kernel build, one module.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use invivo_terms::{Digest, Level, ModuleName, SetName};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::cache::{self, Cache};
use crate::facts::{self, Facts};
use crate::gates::{self, Passed};
use crate::kallsyms::Symbols;
use crate::klp::{self, Converted, KlpSymbol};
use crate::lock::{self, KernelLock, Package};
use crate::progress::{Progress, Step};
use crate::recipe::Recipe;
use crate::select::{self, Selection};
use crate::{cc, template, tree, unpack};

/// A module was not built. What it is of is in the source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe or the kernel's lock cannot be used.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// The kernel's image does not tell what it is, or is another one than the lock says.
    #[error("facts")]
    Facts(#[from] facts::Error),
    /// The kernel's headers cannot be laid out.
    #[error("tree")]
    Tree(#[from] tree::Error),
    /// The fix cannot be cut out of the source.
    #[error("select")]
    Select(#[from] select::Error),
    /// The module does not compile.
    #[error("compile")]
    Compile(#[from] cc::Error),
    /// The module cannot be made a livepatch.
    #[error("klp")]
    Klp(#[from] klp::Error),
    /// The module is not what it must be.
    #[error("gates")]
    Gates(#[from] gates::Error),
    /// A file of the headers cannot be read.
    #[error(transparent)]
    Headers(#[from] unpack::Error),
    /// The module's name would be none.
    #[error(transparent)]
    Name(#[from] invivo_terms::InvalidName),
    /// Level 0 is the unpatched kernel.
    #[error("level 0 means unpatched: a patch begins at level 1")]
    Level,
    /// The module cannot be written.
    #[error("write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The evidence cannot be put into words.
    #[error("evidence")]
    Evidence(#[from] serde_json::Error),
}

/// What a module was made of and how it was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evidence {
    /// The packages, by the role they played; `fixed` is the one with the fix.
    pub packages: BTreeMap<String, Package>,
    /// The compiler, as its `--version` begins.
    pub compiler: String,
    /// What was taken from each source file.
    pub sources: Vec<Selection>,
    /// What the kernel resolves when it loads the module.
    pub klp_symbols: Vec<KlpSymbol>,
    /// The gates that the module went through.
    pub gates: Vec<Passed>,
}

/// The object that is the kernel itself.
pub const VMLINUX: &str = "vmlinux";

/// One object of the kernel and the functions that are replaced in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchedObject {
    /// `vmlinux`, or a module's name.
    pub name: String,
    /// The functions.
    pub functions: Vec<String>,
}

/// A patch module, built and judged.
#[derive(Debug, Clone)]
pub struct Built {
    /// The module's name in the kernel.
    pub name: ModuleName,
    /// The level it brings.
    pub level: Level,
    /// The set it was built for.
    pub set: SetName,
    /// The module.
    pub bytes: Vec<u8>,
    /// SHA-256 of the module.
    pub sha256: Digest,
    /// Where the module was written: `<out>/<name>.ko`.
    pub path: PathBuf,
    /// SHA-256 of everything that it was made from; the module's name carries its beginning.
    pub inputs: Digest,
    /// The kernel build that it is for.
    pub kernel: Facts,
    /// The distribution's version of that kernel.
    pub package_version: String,
    /// The distribution, such as `debian`.
    pub distribution: String,
    /// What it replaces.
    pub objects: Vec<PatchedObject>,
    /// What it closes, with words for people.
    pub recipe: Recipe,
    /// How it came to be.
    pub evidence: Evidence,
    /// The kernel's image, for a boot test.
    pub image: PathBuf,
}

impl Built {
    /// Length of the module in bytes.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }
}

/// What decides how a module comes out. Its digest names the module, so that the same name never
/// means two things.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inputs<'a> {
    kernel: &'a KernelLock,
    recipe: &'a Recipe,
    flags: &'static str,
    /// SHA-256 of each source file of the module, as it is while the module has no name yet.
    sources: BTreeMap<&'a str, Digest>,
}

impl Inputs<'_> {
    fn digest(&self) -> Result<Digest, serde_json::Error> {
        Ok(sha256(&serde_json::to_vec(self)?))
    }
}

/// Builds the module that brings `level` of `set` to the kernel build that the lock file `lock`
/// pins, from the recipe in the folder `recipe`, into the folder `out`.
///
/// Packages come from the cache or through apt. Everything unpacked stays in the cache, so that the
/// next build takes seconds.
///
/// # Errors
///
/// Whatever stands in the way of an honest module; nothing is written then.
pub fn build(
    cache: &Cache,
    recipe: &Path,
    lock: &Path,
    level: Level,
    set: &SetName,
    out: &Path,
    progress: Progress,
) -> Result<Built, Error> {
    if level == Level::UNPATCHED {
        return Err(Error::Level);
    }
    let (recipe, lock) = (Recipe::read(recipe)?, KernelLock::read(lock)?);
    cc::check_compiler(&lock.compiler)?;
    let kernel = facts::read(cache, &lock, progress)?;
    let mut passed = vec![
        Passed::new("compiler", &lock.compiler),
        Passed::new("kernel", format!("the image has build id {}", kernel.facts.build_id)),
        gates::functions(recipe.functions(), &kernel.symbols)?,
    ];
    let selections = select::all(cache, &lock, &recipe, progress)?;
    passed.push(Passed::new(
        "source",
        "every replaced function differs from the original, with the same declaration",
    ));
    let tree = tree::make(cache, &lock, progress)?;

    let (name, inputs, sources) = name(&lock, &recipe, &selections, level, set)?;
    progress(Step::Compile, &format!("compiling {name}"));
    let compiled = compile(cache, &tree, &name, &sources)?;
    progress(Step::Compile, "compiling it once more elsewhere, to compare");
    passed.push(gates::reproducible(&compiled, &compile(cache, &tree, &name, &sources)?)?);
    let (converted, seen) = resolve(&compiled, &tree, &kernel.symbols)?;
    progress(Step::Klp, &format!("{} symbols through livepatch", converted.symbols.len()));
    passed.extend(seen);
    let level_text = level.to_string();
    passed.push(gates::fields(
        &converted.bytes,
        &[
            ("name", name.as_str()),
            ("livepatch", "Y"),
            ("license", "GPL"),
            ("depends", ""),
            ("vermagic", &kernel.facts.vermagic),
            ("invivo_abi", template::ABI),
            ("invivo_level", &level_text),
            ("invivo_set", set.as_str()),
            ("invivo_build_id", kernel.facts.build_id.as_str()),
            ("invivo_inputs", inputs.as_str()),
            ("invivo_fixes", &template::fixes(&recipe)),
        ],
    )?);
    for gate in &passed {
        progress(Step::Gates, &format!("{}: {}", gate.gate, gate.seen));
    }

    let path = out.join(format!("{name}.ko"));
    fs::create_dir_all(out)
        .and_then(|()| fs::write(&path, &converted.bytes))
        .map_err(|source| Error::Write { path: path.clone(), source })?;
    let mut packages: BTreeMap<String, Package> =
        lock.packages.each().into_iter().map(|(role, package)| (role.to_owned(), package.clone())).collect();
    packages.insert("fixed".to_owned(), recipe.source.clone());
    Ok(Built {
        name,
        level,
        set: set.clone(),
        sha256: sha256(&converted.bytes),
        bytes: converted.bytes,
        path,
        inputs,
        kernel: kernel.facts,
        package_version: lock.package_version,
        distribution: lock.distribution,
        objects: objects(&recipe),
        recipe,
        evidence: Evidence {
            packages,
            compiler: lock.compiler,
            sources: selections,
            klp_symbols: converted.symbols,
            gates: passed,
        },
        image: kernel.image,
    })
}

/// Leaves to livepatch what the `compiled` module needs and the kernel does not export: the kernel
/// whose headers are in `tree` and which has `symbols`. Also returns the gates that this went
/// through.
///
/// # Errors
///
/// The module needs what the kernel does not have, or where it cannot be had.
pub fn resolve(compiled: &[u8], tree: &Path, symbols: &Symbols) -> Result<(Converted, Vec<Passed>), Error> {
    let symvers = String::from_utf8_lossy(&unpack::read(&tree.join("Module.symvers"))?).into_owned();
    let exports = gates::exports(&symvers)?;
    let unexported = gates::unexported(&klp::undefined(compiled)?, &exports, symbols)?;
    let converted = klp::convert(compiled, &unexported)?;
    let passed = vec![
        gates::references(&converted.bytes, &exports, &converted.symbols)?,
        gates::targets(&converted.bytes)?,
    ];
    Ok((converted, passed))
}

fn compile(
    cache: &Cache,
    tree: &Path,
    name: &ModuleName,
    sources: &BTreeMap<String, String>,
) -> Result<Vec<u8>, Error> {
    let work = cache.scratch()?;
    Ok(cc::compile(tree, work.path(), name.as_str(), sources)?)
}

/// What a recipe replaces.
fn objects(recipe: &Recipe) -> Vec<PatchedObject> {
    let functions = recipe.functions().map(str::to_owned).collect();
    vec![PatchedObject { name: VMLINUX.to_owned(), functions }]
}

type Named = (ModuleName, Digest, BTreeMap<String, String>);

/// The module's name, the digest that it carries, and the module's sources, which carry both.
fn name(
    lock: &KernelLock,
    recipe: &Recipe,
    selections: &[Selection],
    level: Level,
    set: &SetName,
) -> Result<Named, Error> {
    let (objects, fixes) = (objects(recipe), template::fixes(recipe));
    let parts: Vec<_> = selections.iter().map(|selection| selection.text.as_str()).collect();
    let with = |inputs: &Digest| -> Result<(ModuleName, BTreeMap<String, String>), Error> {
        let hex = inputs.as_str().get(..16).unwrap_or_default();
        let name = format!("invivo_l{level}_{hex}").parse()?;
        let build_id = &lock.build_id;
        let sources = template::sources(&template::Fill {
            name: &name,
            level,
            set,
            build_id,
            inputs,
            fixes: &fixes,
            objects: &objects,
            parts: &parts,
        });
        Ok((name, sources))
    };
    let (_, nameless) = with(&Digest::from_bytes(&[0; 32]))?;
    let sources = nameless.iter().map(|(file, text)| (file.as_str(), sha256(text.as_bytes()))).collect();
    let inputs = Inputs { kernel: lock, recipe, flags: cc::FLAGS, sources }.digest()?;
    let (name, sources) = with(&inputs)?;
    Ok((name, inputs, sources))
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_bytes(&Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(level: u32, set: &str, change: impl Fn(&mut KernelLock, &mut Recipe)) -> Named {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
        let mut lock = KernelLock::read(&root.join("kernels/6.1.0-47-cloud-amd64.yaml")).unwrap();
        let mut recipe = Recipe::read(&root.join("CVE-2026-53249")).unwrap();
        change(&mut lock, &mut recipe);
        name(&lock, &recipe, &[], Level(level), &set.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_name_carries_the_level_and_the_beginning_of_the_digest() {
        let (name, inputs, sources) = named(7, "2026-11-21.1", |_, _| ());
        assert_eq!(name.as_str(), format!("invivo_l7_{}", &inputs.as_str()[..16]));
        assert!(sources["name.mk"].contains(name.as_str()) && sources["build.h"].contains(inputs.as_str()));
        let id = "0x4f, 0x61, 0xd8, 0xf6, 0x40, 0x5b";
        assert!(sources["build.h"].contains(id), "{}", sources["build.h"]);
    }

    #[test]
    fn any_other_input_gives_another_name_and_the_same_the_same() {
        let plain = || named(1, "2026-11-21.1", |_, _| ());
        assert_eq!(plain().0, plain().0);
        let others = [
            named(2, "2026-11-21.1", |_, _| ()),
            named(1, "2026-11-21.2", |_, _| ()),
            named(1, "2026-11-21.1", |lock, _| lock.packages.headers.sha256 = Digest::from_bytes(&[1; 32])),
            named(1, "2026-11-21.1", |_, recipe| recipe.fixed = "6.1.177-1".to_owned()),
        ];
        assert!(others.iter().all(|other| other.1 != plain().1));
    }
}
