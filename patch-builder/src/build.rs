//! One fix, one kernel build, one module.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use invivo_terms::{BuildId, Digest, Level, ModuleName, SetName};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::cache::{self, Cache};
use crate::facts::{self, Facts};
use crate::gates::{self, Passed};
use crate::judge::Code;
use crate::kallsyms::Symbols;
use crate::klp::{self, Converted, KlpSymbol};
use crate::lock::{self, KernelLock, Package};
use crate::object::Malformed;
use crate::object::cut::Replaced;
use crate::part::{self, Made, Seen};
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::shop::{self, Shop};
use crate::{boot, cc, debug, fixed, index, tree, unpack};

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
    /// A fixed file cannot be had.
    #[error("select")]
    Fixed(#[from] fixed::Error),
    /// The kernel's symbols cannot be had.
    #[error("debug")]
    Debug(#[from] debug::Error),
    /// The fix must not become a patch, or cannot.
    #[error("refused")]
    Part(#[from] part::Error),
    /// It cannot be told who uses a header.
    #[error("users")]
    Index(#[from] index::Error),
    /// The kernel is not an object.
    #[error("vmlinux")]
    Vmlinux(#[from] Malformed),
    /// The package for debuggers is of another kernel than the image.
    #[error("the kernel in the debug package has build id {found}, the image {wanted}")]
    OtherKernel {
        /// What was found.
        found: String,
        /// What the image has.
        wanted: String,
    },
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
    /// What was made of each source file.
    pub parts: Vec<Seen>,
    /// What the kernel resolves when it loads the module.
    pub klp_symbols: Vec<KlpSymbol>,
    /// The gates that the module went through.
    pub gates: Vec<Passed>,
}

/// The object that is the kernel itself.
pub const VMLINUX: &str = crate::object::resolve::VMLINUX;

/// One object of the kernel and the functions that are replaced in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchedObject {
    /// `vmlinux`, or a module's name.
    pub name: String,
    /// The functions.
    pub functions: Vec<String>,
}

/// One object of the kernel and what is replaced in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Changed {
    /// `vmlinux`, or a module's name.
    pub name: String,
    /// That module's own build id; none for `vmlinux`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<BuildId>,
    /// The functions, sorted.
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
    pub objects: Vec<Changed>,
    /// What it closes, with words for people.
    pub recipes: Vec<Recipe>,
    /// What becomes of its code when it was taken off.
    pub code: Code,
    /// How it came to be.
    pub evidence: Evidence,
    /// The kernel's image, for a boot test.
    pub image: PathBuf,
    /// What is replaced: object, function and position, one a line.
    pub functions: String,
    /// The modules that are patched, and before each what it needs: for a boot test.
    pub modules: Vec<boot::GuestModule>,
}

impl Built {
    /// Length of the module in bytes.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }
}

/// Builds the module that brings `level` of `set` to the kernel build that the lock file `lock`
/// pins, from the recipes in the folders `recipes`, into the folder `out`.
///
/// Packages come from the cache or through apt. Everything unpacked stays in the cache, so that the
/// next build takes seconds.
///
/// # Errors
///
/// Whatever stands in the way of an honest module; nothing is written then.
pub fn build(
    cache: &Cache,
    recipes: &[&Path],
    lock: &Path,
    level: Level,
    set: &SetName,
    out: &Path,
    progress: Progress,
) -> Result<Built, Error> {
    if level == Level::UNPATCHED {
        return Err(Error::Level);
    }
    let lock = KernelLock::read(lock)?;
    let mut fixes = Vec::new();
    for folder in recipes {
        fixes.push((Recipe::read(folder)?, *folder));
    }
    let cache = cache.with_archives(&lock.archives);
    let shop = Shop::open(&cache, &lock, progress)?;
    let parts = shop.parts(&fixes, progress)?;
    let recipes: Vec<Recipe> = fixes.into_iter().map(|(recipe, _)| recipe).collect();
    finish(&shop, recipes, parts, level, set, out, progress)
}

/// Puts `parts`, made from `recipes`, together, and writes the module into the folder `out`.
///
/// # Errors
///
/// They do not link, a gate refuses the module, or it cannot be written.
pub fn finish(
    shop: &Shop,
    recipes: Vec<Recipe>,
    parts: Vec<Made>,
    level: Level,
    set: &SetName,
    out: &Path,
    progress: Progress,
) -> Result<Built, Error> {
    let lock = shop.lock;
    let assembled = shop.assemble(&recipes, &parts, level, set, progress)?;
    let path = out.join(format!("{}.ko", assembled.name));
    fs::create_dir_all(out)
        .and_then(|()| fs::write(&path, &assembled.bytes))
        .map_err(|source| Error::Write { path: path.clone(), source })?;
    let mut packages: BTreeMap<String, Package> =
        lock.packages.each().map(|(role, package)| (role.to_owned(), package.clone())).collect();
    for (n, recipe) in recipes.iter().enumerate() {
        packages.extend(recipe.source.iter().map(|package| (format!("fixed{n}"), package.clone())));
    }
    Ok(Built {
        name: assembled.name,
        level,
        set: set.clone(),
        sha256: sha256(&assembled.bytes),
        bytes: assembled.bytes,
        path,
        inputs: assembled.inputs,
        kernel: shop.kernel.facts.clone(),
        package_version: lock.package_version.clone(),
        distribution: lock.distribution.clone(),
        objects: objects(&parts),
        functions: lines(&parts),
        code: shop::code(&parts),
        modules: shop.guest_modules(&parts)?,
        recipes,
        evidence: Evidence {
            packages,
            compiler: lock.compiler.clone(),
            parts: parts.into_iter().map(|part| part.seen).collect(),
            klp_symbols: assembled.symbols,
            gates: assembled.passed,
        },
        image: shop.kernel.image.clone(),
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
        gates::tables(&converted.bytes)?,
    ];
    Ok((converted, passed))
}

/// What the parts replace, object by object.
fn objects(parts: &[Made]) -> Vec<Changed> {
    let mut objects: BTreeMap<&str, Changed> = BTreeMap::new();
    for part in parts.iter().filter(|part| !part.replaced.is_empty()) {
        let changed = objects.entry(&part.seen.object).or_insert_with(|| Changed {
            name: part.seen.object.clone(),
            build_id: part.build_id.clone(),
            functions: Vec::new(),
        });
        changed.functions.extend(part.replaced.iter().map(|r| r.name.clone()));
        changed.functions.sort();
    }
    objects.into_values().collect()
}

/// What the parts replace, as the boot test's guest reads it.
fn lines(parts: &[Made]) -> String {
    let line = |part: &Made| {
        let of = |r: &Replaced| format!("{} {} {}\n", part.seen.object, r.name, r.position);
        part.replaced.iter().map(of).collect::<String>()
    };
    parts.iter().map(line).collect()
}

/// SHA-256 of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::from_bytes(&Sha256::digest(bytes).into())
}
