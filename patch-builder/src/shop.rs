//! Everything that is the same for all patches of one kernel build, opened once; and the last step,
//! which puts a module together from its parts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use invivo_terms::{Digest, Level, ModuleName, SetName};
use serde::Serialize;

use crate::boot::GuestModule;
use crate::build::{Error, resolve, sha256};
use crate::cache::Cache;
use crate::debug::{self, Debug};
use crate::facts::{self, Kernel};
use crate::gates::{self, Passed};
use crate::index::Index;
use crate::judge::Code;
use crate::klp::{self, KlpSymbol};
use crate::lock::KernelLock;
use crate::modinfo::Modinfo;
use crate::object::Object;
use crate::object::cut::Replaced;
use crate::object::kernel::Names;
use crate::part::{Edit, Made, Workshop};
use crate::progress::{Progress, Step};
use crate::recipe::{FromHeader, Recipe, SourceFile};
use crate::refusal::{Gate, Refusal};
use crate::select::{What, Wish, headers, patch};
use crate::template::{self, Entry, Table};
use crate::units::{Edited, Units};
use crate::users::Known;
use crate::{cc, compile, fixed, part, tree, unpack};

/// One kernel build, ready to make patches for.
pub struct Shop<'s> {
    pub(crate) cache: &'s Cache,
    pub(crate) lock: &'s KernelLock,
    pub(crate) kernel: Kernel,
    /// The whole source.
    pub(crate) source: PathBuf,
    /// What modules are linked with.
    pub(crate) headers: PathBuf,
    pub(crate) debug: Debug,
    vmlinux: Vec<u8>,
    exports: HashMap<String, String>,
    /// Each exported symbol whose users must name its namespace.
    namespaces: HashMap<String, String>,
    objtool_at_link: bool,
    /// How the kernel is configured.
    pub(crate) config: headers::Config,
}

/// A module, put together.
pub struct Assembled {
    /// Its name in the kernel.
    pub name: ModuleName,
    /// The module.
    pub bytes: Vec<u8>,
    /// Digest of everything that it was made from.
    pub inputs: Digest,
    /// What the kernel will resolve.
    pub symbols: Vec<KlpSymbol>,
    /// The gates that it went through.
    pub passed: Vec<Passed>,
}

/// What decides how a module comes out. Its digest names the module, so that the same name never
/// means two things.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inputs<'a> {
    kernel: &'a KernelLock,
    recipes: &'a [Recipe],
    flags: [&'static str; 2],
    /// SHA-256 of each source file of the module, as it is while the module has no name yet.
    sources: BTreeMap<&'a str, Digest>,
    /// SHA-256 of each object that was taken out of a fixed file.
    parts: Vec<Digest>,
}

impl<'s> Shop<'s> {
    /// Opens the kernel build that `lock` pins; what is missing in the cache is fetched and unpacked.
    ///
    /// # Errors
    ///
    /// This machine has another compiler, a package cannot be had, or packages do not fit together.
    pub fn open(cache: &'s Cache, lock: &'s KernelLock, progress: Progress) -> Result<Self, Error> {
        cc::check_compiler(cache, lock, progress)?;
        let kernel = facts::read(cache, lock, progress)?;
        let source = tree::source(cache, lock, progress)?;
        let headers = tree::make(cache, lock, progress)?;
        let debug = Debug::of(cache, lock, progress)?;
        let vmlinux = debug.vmlinux()?;
        let found = debug::build_id(&vmlinux)?;
        if found.as_ref() != Some(&kernel.facts.build_id) {
            return Err(Error::OtherKernel {
                found: found.map_or_else(|| "none".to_owned(), |id| id.to_string()),
                wanted: kernel.facts.build_id.to_string(),
            });
        }
        let symvers = String::from_utf8_lossy(&unpack::read(&headers.join("Module.symvers"))?).into_owned();
        let module = |owner: &str| owner.rsplit('/').next().unwrap_or(owner).replace('-', "_");
        let exports = gates::exports(&symvers)?;
        let exports = exports.into_iter().map(|(name, owner)| (name.to_owned(), module(owner))).collect();
        let namespaces = gates::namespaces(&symvers).into_iter();
        let namespaces = namespaces.map(|(name, space)| (name.to_owned(), space.to_owned())).collect();
        let config = headers::Config::of(&String::from_utf8_lossy(&unpack::read(&source.join(".config"))?));
        // scripts/Makefile.build: with either, objtool works on what is linked.
        let objtool_at_link =
            ["CONFIG_X86_KERNEL_IBT", "CONFIG_LTO_CLANG"].into_iter().any(|name| config.is_built_in(name));
        Ok(Self {
            cache,
            lock,
            kernel,
            source,
            headers,
            debug,
            vmlinux,
            exports,
            namespaces,
            objtool_at_link,
            config,
        })
    }

    /// Makes the parts for all files that the recipes name, in the order of their paths.
    ///
    /// # Errors
    ///
    /// A fixed file cannot be had, or a gate refuses.
    pub fn parts(&self, fixes: &[(Recipe, &Path)], progress: Progress) -> Result<Vec<Made>, Error> {
        let mut by_path: BTreeMap<&str, Vec<Wanted>> = BTreeMap::new();
        for (recipe, folder) in fixes {
            for file in &recipe.files {
                let text = self.fixed(recipe, folder, file, progress)?;
                by_path.entry(&file.path).or_default().push(Wanted {
                    recipe,
                    file,
                    text,
                    name: recipe.name(),
                });
            }
        }
        self.each(&by_path, progress)
    }

    fn each(&self, files: &BTreeMap<&str, Vec<Wanted>>, progress: Progress) -> Result<Vec<Made>, Error> {
        let vmlinux = Object::parse(&self.vmlinux)?;
        let names = Names::of_vmlinux(&vmlinux);
        let shop = self.workshop(&vmlinux, &names);
        let files: Vec<Edited> = files.iter().map(|(path, wanted)| edited(path, wanted)).collect();
        let mut shared = files.iter().filter(|file| file.units.iter().any(|unit| *unit != file.edit.path));
        if let Some(first) = shared.next() {
            progress(Step::Select, &format!("looking for what uses {}", first.edit.path));
            let index = Index::of(&self.debug, &self.vmlinux)?;
            let known = Known::new(&self.source, &index);
            for file in [first].into_iter().chain(shared) {
                shop.has_all_users(&file.edit, &file.units, &known)?;
            }
        }
        let units = Units::make(&shop, &files, progress)?;
        units.complete(&files).map_err(part::Error::from)?;
        Ok(units.made)
    }

    /// The modules that `parts` patch, each after those that it needs.
    ///
    /// # Errors
    ///
    /// One of them cannot be read.
    pub fn guest_modules(&self, parts: &[Made]) -> Result<Vec<GuestModule>, Error> {
        let mut modules = Vec::new();
        for part in parts.iter().filter(|part| part.build_id.is_some()) {
            self.with_needed(&part.seen.object, &mut modules)?;
        }
        Ok(modules)
    }

    fn with_needed(&self, name: &str, modules: &mut Vec<GuestModule>) -> Result<(), Error> {
        if modules.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let Some(module) = self.debug.module(name)? else { return Ok(()) };
        for name in module.needs().map_err(gates::Error::from)? {
            self.with_needed(&name, modules)?;
        }
        modules.push(GuestModule { name: name.to_owned(), bytes: module.shipped });
        Ok(())
    }

    /// A place to make parts in, from the kernel taken apart.
    pub fn workshop<'w>(&'w self, vmlinux: &'w Object<'w>, names: &'w Names<'w>) -> Workshop<'w> {
        Workshop {
            cache: self.cache,
            tree: &self.source,
            debug: &self.debug,
            exports: &self.exports,
            objtool_at_link: self.objtool_at_link,
            is_preemptible: self.config.is_preemptible(),
            vmlinux,
            names,
        }
    }

    /// The folder with the whole source.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// The modules of the kernel build with all their symbols.
    pub fn debug(&self) -> &Debug {
        &self.debug
    }

    /// The kernel with all its symbols.
    pub fn vmlinux(&self) -> &[u8] {
        &self.vmlinux
    }

    fn fixed(
        &self,
        recipe: &Recipe,
        folder: &Path,
        file: &SourceFile,
        progress: Progress,
    ) -> Result<String, Error> {
        let Some(name) = &recipe.patch else {
            let package = recipe.source.as_ref().ok_or_else(|| {
                part::Error::from(Refusal::new(Gate::Applies, format!("{}: no source", file.path)))
            })?;
            let mut text = fixed::of_package(self.cache, package, &self.source, &file.path, progress)?;
            for FromHeader { path, names } in &file.headers {
                let header = fixed::of_package(self.cache, package, &self.source, path, progress)?;
                let all = headers::pieces(&header, &self.config);
                for name in names {
                    let lacks = || Refusal::new(Gate::Applies, format!("{path} does not have {name}"));
                    let piece = all.get(name.as_str()).ok_or_else(lacks).map_err(part::Error::from)?;
                    text = headers::put_in(&text, piece);
                }
            }
            return Ok(text);
        };
        let text = fixed::text(&folder.join(name), name)?;
        let refused = |refusal| Error::from(part::Error::from(refusal));
        let path = self.source.join(&file.path);
        if !path.is_file() {
            return Err(refused(Refusal::new(Gate::FileBuilt, format!("{}: not in the source", file.path))));
        }
        let original = fixed::text(&path, &file.path)?;
        // A commit brings its tests and documents along.
        let patches = patch::parse_some(&text, |path| !unpack::is_elsewhere(path)).map_err(refused)?;
        let named = |path: &str| recipe.files.iter().any(|file| file.path == path);
        if let Some(other) = patches.iter().find(|patch| !named(patch.path)) {
            return Err(refused(Refusal::new(Gate::Applies, format!("{} is not named", other.path))));
        }
        let patch = patches.iter().find(|patch| patch.path == file.path).ok_or_else(|| {
            refused(Refusal::new(Gate::Applies, format!("{name} does not touch {}", file.path)))
        })?;
        patch.apply(&original).map_err(refused)
    }

    /// Links `parts` with the template, twice, and judges the module.
    ///
    /// # Errors
    ///
    /// It does not link, or a gate refuses it.
    pub fn assemble(
        &self,
        recipes: &[Recipe],
        parts: &[Made],
        level: Level,
        set: &SetName,
        progress: Progress,
    ) -> Result<Assembled, Error> {
        let (name, inputs, sources) = self.name(recipes, parts, level, set)?;
        let objects: Vec<&[u8]> = parts.iter().map(|part| part.bytes.as_slice()).collect();
        let link = || -> Result<Vec<u8>, Error> {
            let work = self.cache.scratch()?;
            Ok(cc::link(&self.headers, work.path(), name.as_str(), &sources, &objects)?)
        };
        progress(Step::Link, &format!("linking {name}"));
        let linked = link()?;
        progress(Step::Link, "linking it once more elsewhere, to compare");
        let mut passed = self.passed(parts);
        let shared = recipes.iter().flat_map(|recipe| &recipe.files).filter(|f| !f.compiled_in.is_empty());
        passed.extend(shared.map(|file| {
            let units = file.compiled_in.join(", ");
            Passed::new("users", format!("{}: all that use what changes in it are among {units}", file.path))
        }));
        passed.push(gates::reproducible(&linked, &link()?)?);
        let (converted, seen) = resolve(&linked, &self.headers, &self.kernel.symbols)?;
        progress(Step::Klp, &format!("{} symbols through livepatch", converted.symbols.len()));
        passed.extend(seen);
        passed.push(gates::fields(
            &converted.bytes,
            &[
                ("name", name.as_str()),
                ("livepatch", "Y"),
                ("license", "GPL"),
                ("depends", ""),
                ("vermagic", &self.kernel.facts.vermagic),
                ("invivo_abi", template::ABI),
                ("invivo_level", &level.to_string()),
                ("invivo_set", set.as_str()),
                ("invivo_build_id", self.kernel.facts.build_id.as_str()),
                ("invivo_inputs", inputs.as_str()),
                ("invivo_fixes", &template::fixes(recipes)),
                ("invivo_unload", template::unload(code(parts))),
            ],
        )?);
        let info = Modinfo::of(&converted.bytes).map_err(gates::Error::from)?;
        if let Some(features) = info.get("invivo_features") {
            passed.push(Passed::new("reload", format!("targets come and go; the patch can {features}")));
        }
        for gate in &passed {
            progress(Step::Gates, &format!("{}: {}", gate.gate, gate.seen));
        }
        Ok(Assembled { name, bytes: converted.bytes, inputs, symbols: converted.symbols, passed })
    }

    /// The gates that the parts went through before they became parts.
    fn passed(&self, parts: &[Made]) -> Vec<Passed> {
        let mut passed = vec![
            Passed::new("compiler", &self.lock.compiler),
            Passed::new("kernel", format!("image and symbols have build id {}", self.kernel.facts.build_id)),
        ];
        for Made { seen, replaced, build_id, .. } in parts {
            let of = |r: &Replaced| format!("{} (position {}, {} bytes)", r.name, r.position, r.size);
            let list = replaced.iter().map(of).collect::<Vec<_>>().join(", ");
            let id = build_id.as_ref().map_or_else(String::new, |id| format!(" with build id {id}"));
            passed.push(Passed::new("replaced", format!("{}{id}: {list}", seen.object)));
            passed.push(Passed::new(
                "reproduced",
                format!(
                    "{}: {} of {} functions are the kernel's own byte for byte, among them every one replaced",
                    seen.path, seen.same, seen.compared
                ),
            ));
            passed
                .extend(seen.notes.iter().map(|note| Passed::new("note", format!("{}: {note}", seen.path))));
        }
        passed.push(Passed::new("layout", "no type and no constant differs"));
        passed.push(Passed::new("data", "no variable and no table differs, none is added"));
        passed
    }

    /// The module's name, the digest that it carries, and the module's sources, which carry both.
    fn name(&self, recipes: &[Recipe], parts: &[Made], level: Level, set: &SetName) -> Result<Named, Error> {
        let table = table(parts);
        let mut namespaces = BTreeSet::new();
        for part in parts {
            let undefined = klp::undefined(&part.bytes)?;
            namespaces.extend(undefined.iter().filter_map(|name| self.namespaces.get(name).cloned()));
        }
        let of = Naming {
            namespaces: &namespaces,
            lock: self.lock,
            flags: compile::flags(&self.source).map_err(part::Error::from)?,
            recipes,
            table: &table,
            parts: parts.iter().map(|part| sha256(&part.bytes)).collect(),
            code: code(parts),
            level,
            set,
        };
        of.name()
    }
}

type Named = (ModuleName, Digest, BTreeMap<String, String>);

/// What a module's name depends on.
struct Naming<'a> {
    lock: &'a KernelLock,
    /// With which files are compiled.
    flags: &'static str,
    recipes: &'a [Recipe],
    table: &'a Table,
    namespaces: &'a BTreeSet<String>,
    parts: Vec<Digest>,
    code: Code,
    level: Level,
    set: &'a SetName,
}

impl Naming<'_> {
    fn name(&self) -> Result<Named, Error> {
        let fixes = template::fixes(self.recipes);
        let with = |inputs: &Digest| -> Result<(ModuleName, BTreeMap<String, String>), Error> {
            let hex = inputs.as_str().get(..16).unwrap_or_default();
            let name = format!("invivo_l{}_{hex}", self.level).parse()?;
            let fill = template::Fill {
                name: &name,
                level: self.level,
                set: self.set,
                build_id: &self.lock.build_id,
                inputs,
                fixes: &fixes,
                code: self.code,
                namespaces: self.namespaces,
                objects: &[],
                parts: &[],
            };
            let sources = template::around_objects(&fill, self.table, self.parts.len());
            Ok((name, sources))
        };
        let (_, nameless) = with(&Digest::from_bytes(&[0; 32]))?;
        let sources = nameless.iter().map(|(file, text)| (file.as_str(), sha256(text.as_bytes()))).collect();
        let inputs = Inputs {
            kernel: self.lock,
            recipes: self.recipes,
            flags: [cc::FLAGS, self.flags],
            sources,
            parts: self.parts.clone(),
        };
        let inputs = sha256(&serde_json::to_vec(&inputs)?);
        let (name, sources) = with(&inputs)?;
        Ok((name, inputs, sources))
    }
}

/// The patch's table: `vmlinux` and the modules, each with what is replaced in it.
fn table(parts: &[Made]) -> Table {
    let mut table = Table::new();
    // Of a part that others call alone, nothing is redirected.
    for part in parts.iter().filter(|part| !part.replaced.is_empty()) {
        let entries = table.entry(part.seen.object.clone()).or_default();
        entries.extend(part.replaced.iter().map(|r| Entry {
            name: r.name.clone(),
            position: r.position,
            symbol: r.symbol.clone(),
        }));
    }
    table
}

/// What becomes of a patch's code: it stays if one of its parts has to.
pub(crate) fn code(parts: &[Made]) -> Code {
    parts.iter().map(|part| part.code).max().unwrap_or_default()
}

/// A file that is edited, from what all recipes want of it.
fn edited<'e>(path: &'e str, wanted: &'e [Wanted]) -> Edited<'e> {
    let stays = wanted.iter().any(|w| w.recipe.never_unload);
    Edited {
        edit: Edit { path, wishes: wanted.iter().map(Wanted::wish).collect() },
        units: wanted.iter().flat_map(|w| w.file.units()).collect(),
        named: wanted.iter().flat_map(|w| w.file.functions.iter().map(String::as_str)).collect(),
        may: if stays { Code::Stays } else { Code::Goes },
    }
}

/// What one recipe wants of one file.
struct Wanted<'a> {
    recipe: &'a Recipe,
    file: &'a SourceFile,
    text: String,
    name: String,
}

impl Wanted<'_> {
    fn wish(&self) -> Wish<'_> {
        let version = self.recipe.source.as_ref().map(|source| source.version.as_str());
        let wish = Wish::of(&self.name, &self.text, version, self.file);
        // A patch has nothing but the fix.
        if self.recipe.patch.is_some() { Wish { what: What::All, ..wish } } else { wish }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(level: u32, set: &str, change: impl Fn(&mut KernelLock, &mut Recipe)) -> Named {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
        let mut lock = KernelLock::read(&root.join("kernels/6.1.0-47-cloud-amd64.yaml")).unwrap();
        let mut recipe = Recipe::read(&root.join("CVE-2026-53249")).unwrap();
        change(&mut lock, &mut recipe);
        let (set, table) = (set.parse().unwrap(), Table::new());
        Naming {
            lock: &lock,
            flags: compile::FLAGS,
            recipes: &[recipe],
            table: &table,
            namespaces: &BTreeSet::new(),
            code: Code::Goes,
            parts: Vec::new(),
            level: Level(level),
            set: &set,
        }
        .name()
        .unwrap()
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

    #[test]
    fn where_packages_come_from_is_no_input() {
        let elsewhere = named(1, "2026-11-21.1", |lock, _| {
            lock.archives = vec!["http://a/debian bullseye main".to_owned()];
        });
        let plain = named(1, "2026-11-21.1", |_, _| ());
        assert_eq!((elsewhere.0, elsewhere.1), (plain.0, plain.1));
    }
}
