//! One C file that is compiled, and what fixes want of it and of what it includes: from source to the object
//! that goes into the patch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use invivo_terms::BuildId;
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::complaints::{first_error, functions_with_errors, reshaped, undeclared};
use crate::debug::{self, Debug};
use crate::judge::{self, Case, Code};
use crate::object::cut::Replaced;
use crate::object::extract::extract;
use crate::object::kernel::{Names, NotFound};
use crate::object::resolve::{VMLINUX, World};
use crate::object::{Kind, Malformed, Object, compare, emit};
use crate::progress::{Progress, Step};
use crate::refusal::{Gate, Refusal};
use crate::reproduce::reproduce;
use crate::select::split::{self, Part};
use crate::select::{self, Keys, Wish};
use crate::users::{self, Change, Known};
use crate::{cc, command, compile};

/// A part was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It must not be made.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The original does not compile, or the fixed file for reasons that are not the fix's.
    #[error(transparent)]
    Compile(#[from] compile::Error),
    /// The kernel's symbols cannot be read.
    #[error(transparent)]
    Debug(#[from] debug::Error),
    /// The compiler's object, or the kernel, cannot be taken apart.
    #[error(transparent)]
    Object(#[from] Malformed),
    /// The part cannot be written as an object.
    #[error("write the object")]
    Write(#[from] object::write::Error),
    /// The compiler is another one.
    #[error(transparent)]
    Compiler(#[from] cc::Error),
    /// A file of the source cannot be read.
    #[error("{path}")]
    Source {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl From<users::Error> for Error {
    fn from(error: users::Error) -> Self {
        match error {
            users::Error::Refused(refusal) => Self::Refused(refusal),
            users::Error::Read { path, source } => Self::Source { path, source },
        }
    }
}

/// What fixes want of one file that is edited.
#[derive(Debug, Clone)]
pub struct Edit<'e> {
    /// The file within the source.
    pub path: &'e str,
    /// What each fix wants.
    pub wishes: Vec<Wish<'e>>,
}

/// What was made of one file that is compiled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Seen {
    /// The file within the source.
    pub path: String,
    /// `vmlinux`, or the module that it is a part of.
    pub object: String,
    /// Functions replaced.
    pub replaced: Vec<String>,
    /// Functions that the fix adds.
    pub added: Vec<String>,
    /// Functions of the file compared with the kernel's, and how many were the same.
    pub compared: usize,
    /// How many of them are the same byte for byte.
    pub same: usize,
    /// Functions that a fix changed and that came out the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unchanged: Vec<String>,
    /// What a person who approves the patch should know.
    pub notes: Vec<String>,
}

/// A part of a patch.
#[derive(Debug, Clone)]
pub struct Made {
    /// The object for the linker.
    pub bytes: Vec<u8>,
    /// The functions it replaces.
    pub replaced: Vec<Replaced>,
    /// The build id of the module that it patches; `None` for the kernel.
    pub build_id: Option<BuildId>,
    /// What becomes of its code when the patch was taken off.
    pub code: Code,
    /// New functions that it has for other parts.
    pub gives: BTreeSet<String>,
    /// Those of them that nothing of its own needs.
    pub only_for_others: BTreeSet<String>,
    /// New functions of other parts that it calls.
    pub takes: BTreeSet<String>,
    /// What was seen.
    pub seen: Seen,
}

/// What is the same for all files of a kernel build.
pub struct Workshop<'w> {
    /// Where things are kept.
    pub cache: &'w Cache,
    /// The kernel's source tree.
    pub tree: &'w Path,
    /// Its symbols.
    pub debug: &'w Debug,
    /// Each exported symbol and who exports it.
    pub exports: &'w HashMap<String, String>,
    /// Whether objtool runs when a module is linked.
    pub objtool_at_link: bool,
    /// Whether a task may be stopped anywhere in the kernel.
    pub is_preemptible: bool,
    /// The kernel, taken apart.
    pub vmlinux: &'w Object<'w>,
    /// Its symbols by name.
    pub names: &'w Names<'w>,
}

/// New functions of a patch that one part has and another calls, by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handed {
    /// Those that the part has.
    pub gives: BTreeSet<String>,
    /// Those that others have.
    pub takes: BTreeSet<String>,
}

/// What is asked of one C file.
struct Asked<'a> {
    path: &'a str,
    /// The files that differ.
    edited: &'a [&'a str],
    /// Functions that must differ.
    named: &'a [&'a str],
    /// Functions that fixes want.
    wished: &'a [&'a str],
    /// Types that fixes define otherwise.
    types: &'a BTreeSet<String>,
    handed: &'a Handed,
    may: Code,
}

impl Workshop<'_> {
    /// The kernel's own text of a file.
    ///
    /// # Errors
    ///
    /// The source does not have it.
    pub fn original(&self, path: &str) -> Result<String, Refusal> {
        std::fs::read_to_string(self.tree.join(path))
            .map_err(|_| Refusal::new(Gate::FileBuilt, format!("{path}: not in the source")))
    }

    /// The text of a file with all that is wanted of it.
    ///
    /// # Errors
    ///
    /// The source does not have the file, or what is wanted cannot be put in.
    pub fn edited(&self, edit: &Edit, keys: Keys) -> Result<String, Refusal> {
        select::compose(edit.path, &self.original(edit.path)?, &edit.wishes, keys)
    }

    /// What an edit changes for those who include the file.
    ///
    /// # Errors
    ///
    /// The source does not have the file, or what is wanted cannot be put in.
    pub fn change(&self, edit: &Edit) -> Result<Change, Refusal> {
        Change::of(edit.path, &self.original(edit.path)?, &self.edited(edit, Keys::AsWritten)?)
    }

    /// Whether every C file of the kernel build that uses what an edit changes is one of `units`.
    ///
    /// # Errors
    ///
    /// One is not, or what changes must not be changed at all.
    pub fn has_all_users(&self, edit: &Edit, units: &BTreeSet<&str>, known: &Known) -> Result<(), Error> {
        let users = known.users(edit.path, &self.change(edit)?)?;
        Ok(users::are_units(edit.path, &users, units)?)
    }

    /// Makes the part for the C file `path`, in which all `edits` are compiled. The recipes name the functions
    /// `named` of it. Its code may stay in memory if they say so. It has, or calls, the new functions `handed`.
    ///
    /// # Errors
    ///
    /// A gate refuses, or something cannot be read or compiled.
    pub fn make(
        &self,
        path: &str,
        edits: &[Edit],
        named: &[&str],
        may: Code,
        handed: &Handed,
        progress: Progress,
    ) -> Result<Made, Error> {
        let original = self.original(path)?;
        progress(Step::Compile, &format!("{path}, without the fix and with it"));
        let before = match compile::original(self.cache, self.tree, path) {
            Ok(before) => before,
            // What is in the kernel compiles; a file for another configuration may not.
            Err(e) if is_of_the_file(&e) && !self.has_file(path, &original)? => {
                let why = e.to_string();
                return Err(Refusal::new(Gate::FileBuilt, format!("{path}: {}", first_error(&why))).into());
            }
            Err(e) => return Err(e.into()),
        };
        let wished: Vec<&str> =
            edits.iter().flat_map(|edit| &edit.wishes).flat_map(Wish::functions).copied().collect();
        let edited: Vec<&str> = edits.iter().map(|edit| edit.path).collect();
        let mut with = |keys| {
            let composed = edits.iter().map(|edit| Ok((edit.path, self.edited(edit, keys)?)));
            let texts = composed.collect::<Result<BTreeMap<_, _>, Refusal>>()?;
            let after = match compile::fixed(self.cache, self.tree, path, &texts).map_err(refused_by_compiler)
            {
                Err(Error::Refused(refusal)) => {
                    // What is not in the kernel build need not compile.
                    let old = Object::parse(&before.object)?;
                    let is_there = self.is_anywhere(&old, old.file().unwrap_or_default())?;
                    let elsewhere =
                        || Refusal::new(Gate::FileBuilt, format!("{path}: its functions are in no object"));
                    return Err(if is_there { refusal } else { elsewhere() }.into());
                }
                other => other?,
            };
            let mut types = BTreeSet::new();
            for (path, text) in &texts {
                types.extend(Change::of(path, &self.original(path)?, text)?.types);
            }
            let asked = Asked { path, edited: &edited, named, wished: &wished, types: &types, handed, may };
            let mut made = self.judge_and_cut(&asked, [&before, &after], progress)?;
            for (path, text) in &texts {
                let redefined = select::redefined(&self.original(path)?, text).into_iter();
                made.seen.notes.extend(redefined.map(|name| format!("{name} stands for something else")));
            }
            Ok(made)
        };
        match with(Keys::AsWritten) {
            // The cure is known: the key is read instead.
            Err(Error::Refused(Refusal { gate: Gate::StaticKeys, what, .. })) => {
                let mut made = with(Keys::Plain)?;
                made.seen.notes.push(format!("static keys are read, not patched in, because of {what}"));
                Ok(made)
            }
            other => other,
        }
    }

    fn judge_and_cut(
        &self,
        &Asked { path, edited, named, wished, types, handed, may }: &Asked,
        [before, after]: [&compile::Compiled; 2],
        progress: Progress,
    ) -> Result<Made, Error> {
        let (old, new) = (Object::parse(&before.object)?, Object::parse(&after.object)?);
        let file = old.file().unwrap_or_default();
        let module = match &before.module {
            None => None,
            Some(name) => Some((
                name.as_str(),
                self.debug.module(name)?.ok_or_else(|| {
                    Refusal::new(Gate::FileBuilt, format!("{path}: there is no module {name}"))
                })?,
            )),
        };
        let object = module.as_ref().map_or(VMLINUX, |(name, _)| *name);
        let files = match &module {
            None => None,
            Some((_, module)) => Some((Object::parse(&module.debug)?, Object::parse(&module.shipped)?)),
        };
        let of_module = files.as_ref().map(|(debug, shipped)| Names::of_module(debug, shipped));
        let symbols = of_module.as_ref().unwrap_or(self.names);
        let kernel = files.as_ref().map_or(self.vmlinux, |(debug, _)| debug);

        let irregular = |e: crate::object::special::Irregular| Refusal::new(Gate::KnownSections, e.0);
        let difference = compare::compare(&old, &new).map_err(irregular)?;
        let report = reproduce(&old, kernel, file);
        if report.absent * 2 > report.total() && !self.is_anywhere(&old, file)? {
            // Another file of this last name is.
            let what = format!("{path}: {} of {} functions are in no object", report.absent, report.total());
            return Err(Refusal::new(Gate::FileBuilt, what).into());
        }
        judge::difference(&Case {
            path,
            edited,
            named,
            before: (before, &old),
            after: (after, &new),
            difference: &difference,
            report: &report,
            names: symbols,
            types,
            gives: &handed.gives,
        })?;
        let held = match &module {
            None => BTreeSet::new(),
            Some((name, _)) => self.debug.held_by(name)?,
        };
        let dependency = |module: &str, symbol: &str| self.position(module, symbol);
        let world = World {
            object,
            own: symbols,
            exports: self.exports,
            holds: &|module| held.contains(module),
            of_module: &dependency,
            takes: &handed.takes,
            objtool_at_link: self.objtool_at_link,
            is_preemptible: self.is_preemptible,
        };
        let cut = extract(&old, &new, &difference, &handed.gives, &world)?;
        let code = judge::cut(&cut, may)?;
        let mut notes: Vec<String> = cut.notes.iter().cloned().collect();
        let is_new = |name: &&String| difference.new.contains(name);
        let exported = |name: &String| format!("{name} is exported to nobody: only the patch calls it");
        notes.extend(difference.exports.iter().filter(is_new).map(exported));
        let carried =
            |name: &String| format!("{name} cannot be replaced: its callers are, and carry it along");
        notes.extend(difference.carried.iter().map(carried));
        if code == Code::Stays {
            let stays = |(function, holder): &(String, String)| {
                format!("{holder} gives away the address of {function}: the patch is never unloaded")
            };
            notes.extend(cut.escapes.iter().map(stays));
        }
        let replaced: Vec<_> = cut.replaced.iter().map(|r| r.name.clone()).collect();
        progress(Step::Extract, &format!("{object}: {}", replaced.join(", ")));
        Ok(Made {
            bytes: emit::emit(&cut, file)?,
            build_id: module.as_ref().map(|(_, module)| module.build_id.clone()),
            seen: Seen {
                path: path.to_owned(),
                object: object.to_owned(),
                replaced,
                added: difference.new.clone(),
                compared: report.total(),
                same: report.same.len(),
                unchanged: wished
                    .iter()
                    .filter(|name| judge::is_unchanged(&difference, &old, &new, name))
                    .map(|name| (*name).to_owned())
                    .collect(),
                notes,
            },
            replaced: cut.replaced,
            code,
            gives: cut.gives,
            only_for_others: cut.only_for_others,
            takes: cut.takes,
        })
    }

    /// Whether the source file with this text has left anything in the kernel or a module of it: a file of
    /// its last name, and some of its functions there.
    fn has_file(&self, path: &str, text: &str) -> Result<bool, Error> {
        let file = path.rsplit('/').next().unwrap_or(path);
        let parts = split::parts(text).unwrap_or_default();
        let functions: BTreeSet<&str> = parts.iter().filter_map(Part::function).collect();
        self.any_object(|object| {
            let has_name = object.symbols.iter().any(|s| s.kind == Kind::File && s.name == file);
            has_name && has_some(object.functions().map(|symbol| symbol.name), &functions)
        })
    }

    /// Whether the kernel or a module of it has most functions of `compiled`, of the source file `file`.
    fn is_anywhere(&self, compiled: &Object, file: &str) -> Result<bool, Error> {
        self.any_object(|object| {
            let report = reproduce(compiled, object, file);
            report.absent * 2 <= report.total()
        })
    }

    fn any_object(&self, is_wanted: impl Fn(&Object) -> bool) -> Result<bool, Error> {
        if is_wanted(self.vmlinux) {
            return Ok(true);
        }
        for name in self.debug.modules()? {
            if let Some(module) = self.debug.module(&name)?
                && is_wanted(&Object::parse(&module.debug)?)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The position of a symbol that another module exports.
    fn position(&self, module: &str, symbol: &str) -> Result<u32, NotFound> {
        let module = self.debug.module(module).ok().flatten().ok_or(NotFound::Absent)?;
        let parse = |bytes| Object::parse(bytes).map_err(|_| NotFound::Absent);
        let (debug, shipped) = (parse(&module.debug)?, parse(&module.shipped)?);
        Names::of_module(&debug, &shipped).global(symbol).map(|found| found.position)
    }
}

/// Whether of `functions` of a source file a fourth or more are `there`: most are compiled into their callers,
/// but files for other configurations share single names with others.
fn has_some<'s>(there: impl Iterator<Item = &'s str>, functions: &BTreeSet<&str>) -> bool {
    let plain = |name: &'s str| name.split('.').next().unwrap_or(name);
    let found: BTreeSet<&str> = there.map(plain).filter(|name| functions.contains(name)).collect();
    found.len() * 4 >= functions.len()
}

/// Whether a file was not compiled for what is in it: not for a program of this machine that makes nothing of
/// what the compiler has made.
fn is_of_the_file(error: &compile::Error) -> bool {
    !matches!(error, compile::Error::Types(_))
}

/// What the compiler says of a fixed file is a refusal: the original was compiled just now.
fn refused_by_compiler(error: compile::Error) -> Error {
    match error {
        compile::Error::Command(command::Error::Failed { words, .. }) => {
            let refusal = Refusal::new(Gate::Compiles, first_error(&words));
            let (within, missing) = (functions_with_errors(&words), undeclared(&words));
            Refusal { within, missing, reshaped: reshaped(&words), ..refusal }.into()
        }
        beside @ compile::Error::Beside { .. } => Refusal::new(Gate::Compiles, beside.to_string()).into(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_if_a_fourth_of_its_functions_are() {
        let functions = BTreeSet::from(["a", "b", "c", "d", "e"]);
        assert!(has_some(["a.cold", "b", "z"].into_iter(), &functions));
        assert!(!has_some(["a", "a.part.0", "z"].into_iter(), &functions));
        assert!(has_some(std::iter::empty(), &BTreeSet::new()), "one of data alone");
    }

    #[test]
    fn a_fixed_file_whose_types_cannot_be_described_is_an_error_and_one_that_does_not_compile_is_refused() {
        let failed = |program: &str| command::Error::Failed {
            program: program.to_owned(),
            status: "exit status: 1".to_owned(),
            words: "a.c:7:3: error: odd".to_owned(),
        };
        let refused = refused_by_compiler(failed("make").into());
        assert!(matches!(&refused, Error::Refused(refusal) if refusal.gate == Gate::Compiles), "{refused:?}");
        let types = compile::Error::Types(failed("pahole"));
        assert!(!is_of_the_file(&types));
        let error = refused_by_compiler(types);
        assert!(matches!(&error, Error::Compile(compile::Error::Types(_))), "{error:?}");
    }
}
