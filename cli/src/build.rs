//! `invivo build`: a recipe and a kernel's lock file become a bundle.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use invivo_feed::document::{
    BundleMechanism, Evidence, Fix, KernelFacts, Manifest, ManifestModule, PatchedObject, cap,
};
use invivo_patch_builder::{Built, Cache, Recipe, boot};
use invivo_terms::{BuildId, Digest, Level, ModuleName, RepositoryName, SetName};
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{self, Format};
use crate::repo::trouble;

/// `invivo build`
#[derive(Debug, Args)]
pub struct BuildArguments {
    /// The recipes' folders: one module brings all of them.
    #[arg(required = true)]
    recipes: Vec<PathBuf>,
    /// The kernel's lock file, or its name in `kernels/` beside the recipe (a release).
    #[arg(long)]
    kernel: PathBuf,
    /// The set that the bundle is for: YYYY-MM-DD.N
    #[arg(long)]
    set: SetName,
    /// The level it brings; higher than every level of this kernel build before.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    level: u32,
    /// The repository that it is for.
    #[arg(long)]
    repository: RepositoryName,
    /// Where the bundle goes.
    #[arg(long, required_unless_present = "check")]
    out: Option<PathBuf>,
    /// The author claims that *all* fixes up to this version are in.
    #[arg(long)]
    complete: Option<String>,
    /// Try the module in a guest of that very kernel before it is packed: loaded, every task moved,
    /// holes closed, taken back, twice.
    #[arg(long)]
    boot_test: bool,
    /// Build the module once more and compare it with the one in this bundle, which must be equal
    /// byte for byte; nothing is written.
    #[arg(long, value_name = "BUNDLE", conflicts_with = "out")]
    check: Option<PathBuf>,
    /// Form of the answer. Progress goes to standard error.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What was built.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BuiltBundle {
    /// The bundle's file.
    pub bundle: String,
    /// Its length in bytes.
    pub length: u64,
    /// Its digest.
    pub sha256: Digest,
    /// The module's name in the kernel.
    pub module: ModuleName,
    /// The kernel build.
    pub build_id: BuildId,
    /// Its release.
    pub release: String,
    /// The set.
    pub set: SetName,
    /// The level.
    pub level: Level,
    /// What it closes.
    pub fixes: Vec<String>,
    /// Digest of everything that it was made from.
    pub inputs: Digest,
}

impl std::fmt::Display for BuiltBundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}: {} bytes, sha256 {}", self.bundle, self.length, self.sha256)?;
        writeln!(
            f,
            "level {} of set {} for {} ({}): {}",
            self.level,
            self.set,
            self.release,
            self.build_id,
            self.fixes.join(" ")
        )
    }
}

/// Builds, tells how it goes on standard error, writes the bundle.
///
/// # Errors
///
/// Whatever stands in the way of an honest bundle; nothing is written then.
pub fn run(arguments: &BuildArguments) -> Result<(), Failure> {
    let cache = Cache::from_env().map_err(|e| Failure::of(&e))?;
    let recipes: Vec<&Path> = arguments.recipes.iter().map(PathBuf::as_path).collect();
    let lock = lock_file(recipes.first().copied().unwrap_or(Path::new(".")), &arguments.kernel);
    let scratch = scratch(arguments.out.as_deref().unwrap_or(Path::new(".")))?;
    let mut progress = |step: invivo_patch_builder::Step, words: &str| eprintln!("{step:>8}  {words}");
    let built = invivo_patch_builder::build(
        &cache,
        &recipes,
        &lock,
        Level(arguments.level),
        &arguments.set,
        scratch.path(),
        &mut progress,
    )
    .map_err(|e| Failure::of(&e).while_doing("build"))?;
    let mut built = built;
    if arguments.boot_test {
        let report = boot::test(&cache, &recipes, &built, &built.modules, &mut progress)
            .map_err(|e| Failure::of(&e).while_doing("try the module"))?;
        built.evidence.gates.push(report.passed());
    }
    if let Some(bundle) = &arguments.check {
        return same(&built, bundle);
    }
    let Some(out) = &arguments.out else { return Ok(()) };
    let manifest = manifest(&built, &arguments.repository, arguments.complete.clone());
    let mut text = serde_json::to_vec_pretty(&manifest).map_err(|e| Failure::of(&e))?;
    text.push(b'\n');
    if text.len() as u64 > cap::MANIFEST {
        return Err(Failure::error(format!(
            "the manifest has {} bytes, {} are allowed",
            text.len(),
            cap::MANIFEST
        )));
    }
    let bundle = invivo_bundle::pack(&text, &[(&built.name, &built.bytes)])?;
    invivo_feed::store::replace(out, &bundle, 0o644).map_err(|e| Failure::of(&e))?;
    output::print(
        arguments.output,
        &BuiltBundle {
            bundle: out.display().to_string(),
            length: bundle.len() as u64,
            sha256: invivo_feed::digest(&bundle),
            module: built.name,
            build_id: built.kernel.build_id,
            release: built.kernel.release,
            set: built.set,
            level: built.level,
            fixes: manifest.fixes.into_iter().map(|fix| fix.cve).collect(),
            inputs: built.inputs,
        },
    )
}

/// Whether the module in the file `bundle` is the one that was `built` from the same recipes.
fn same(built: &Built, bundle: &Path) -> Result<(), Failure> {
    let bytes = fs::read(bundle).map_err(|e| trouble("read", bundle, &e))?;
    let published = invivo_bundle::unpack(&bytes)?;
    let module = published.modules.iter().find(|module| module.name == built.name);
    let Some(module) = module else {
        return Err(Failure::error(format!(
            "{} has no module {}: it was made from something else",
            bundle.display(),
            built.name
        )));
    };
    if module.bytes != built.bytes {
        return Err(Failure::error(format!(
            "{}: {} differs from what was built",
            bundle.display(),
            built.name
        )));
    }
    println!("{}: {} is what its recipes give, byte for byte", bundle.display(), built.name);
    Ok(())
}

/// A path, or a release that has a lock file beside the recipe.
fn lock_file(recipe: &Path, kernel: &Path) -> PathBuf {
    lock_in(&recipe.join("../kernels"), kernel)
}

/// A path, or a release that has a lock file in the folder `kernels`.
pub(crate) fn lock_in(kernels: &Path, kernel: &Path) -> PathBuf {
    if kernel.exists() {
        return kernel.to_owned();
    }
    let mut name = kernel.as_os_str().to_owned();
    name.push(".yaml");
    let there = kernels.join(name);
    if there.exists() { there } else { kernel.to_owned() }
}

/// A folder beside the bundle for the module alone; it goes when the build ends.
fn scratch(out: &Path) -> Result<tempfile::TempDir, Failure> {
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(|e| trouble("make the folder", folder, &e))?;
    tempfile::Builder::new()
        .prefix(".invivo-build-")
        .tempdir_in(folder)
        .map_err(|e| trouble("make a folder in", folder, &e))
}

/// The manifest of what was built.
fn manifest(built: &Built, repository: &RepositoryName, complete: Option<String>) -> Manifest {
    let evidence = &built.evidence;
    Manifest {
        repository: repository.clone(),
        set: built.set.clone(),
        level: built.level,
        kernel: KernelFacts {
            build_id: built.kernel.build_id.clone(),
            release: built.kernel.release.clone(),
            version: built.package_version.clone(),
            arch: built.kernel.arch,
            distribution: built.distribution.clone(),
        },
        vermagic: built.kernel.vermagic.clone(),
        modules: vec![ManifestModule {
            name: built.name.clone(),
            length: built.bytes.len() as u64,
            sha256: built.sha256.clone(),
            objects: built
                .objects
                .iter()
                .map(|object| PatchedObject {
                    name: object.name.clone(),
                    build_id: object.build_id.clone(),
                    functions: object.functions.clone(),
                })
                .collect(),
        }],
        mechanisms: vec![BundleMechanism::Livepatch],
        complete,
        fixes: fixes(&built.recipes),
        evidence: Evidence {
            inputs: built.inputs.clone(),
            compiler: evidence.compiler.clone(),
            packages: evidence
                .packages
                .values()
                .map(|package| (format!("{}={}", package.name, package.version), package.sha256.clone()))
                .collect::<BTreeMap<_, _>>(),
            checks: evidence.gates.iter().map(|passed| format!("{}: {}", passed.gate, passed.seen)).collect(),
        },
    }
}

fn fixes(recipes: &[Recipe]) -> Vec<Fix> {
    recipes
        .iter()
        .flat_map(|recipe| &recipe.fixes)
        .map(|fix| Fix {
            cve: fix.cve.clone(),
            cvss: fix.cvss.map(|score| format!("{score:.1}")),
            severity: fix
                .severity
                .and_then(|severity| serde_json::to_value(severity).ok()?.as_str().map(str::to_owned)),
            title: fix.title.clone(),
            url: Some(fix.url.clone()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_stands_for_the_lock_file_beside_the_recipe() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = folder.path().join("CVE-2026-1");
        fs::create_dir_all(&recipe).unwrap();
        fs::create_dir_all(folder.path().join("kernels")).unwrap();
        let lock = folder.path().join("kernels/6.1.0-47-cloud-amd64.yaml");
        fs::write(&lock, "").unwrap();
        assert!(lock_file(&recipe, Path::new("6.1.0-47-cloud-amd64")).exists());
        assert_eq!(lock_file(&recipe, &lock), lock);
        assert_eq!(lock_file(&recipe, Path::new("nowhere.yaml")), Path::new("nowhere.yaml"));
    }
}
