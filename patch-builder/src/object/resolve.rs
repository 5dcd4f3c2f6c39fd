//! Where a symbol that a patch needs will come from when the patch is loaded.

use std::collections::{BTreeSet, HashMap};

use super::kernel::{Names, NotFound};
use crate::refusal::{Gate, Refusal};

/// The object that is the kernel itself.
pub const VMLINUX: &str = "vmlinux";

/// What an object of the kernel can refer to.
pub struct World<'w> {
    /// `vmlinux`, or the name of the module that is patched.
    pub object: &'w str,
    /// The symbols of that object.
    pub own: &'w Names<'w>,
    /// Each exported symbol and who exports it: `vmlinux`, or a module's name.
    pub exports: &'w HashMap<String, String>,
    /// Whether the object that is patched keeps a module loaded, since it needs it or what it needs does.
    pub holds: &'w dyn Fn(&str) -> bool,
    /// The position of a symbol that another module exports.
    pub of_module: &'w dyn Fn(&str, &str) -> Result<u32, NotFound>,
    /// New functions that other parts of the patch have.
    pub takes: &'w BTreeSet<String>,
    /// Whether objtool runs again when the module is linked.
    pub objtool_at_link: bool,
    /// Whether a task may be stopped anywhere in the kernel. Livepatch looks for the functions that a task sleeps
    /// in by their own places, and not by those of their code out of line.
    pub is_preemptible: bool,
}

/// A place for a symbol that is not in the patch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Exported by the kernel.
    Export,
    /// Found by livepatch in the object that is patched.
    Own(u32),
    /// New, and in another part of the patch.
    Patch,
    /// Found by livepatch in another module, when the object that is patched is loaded.
    Module(String, u32),
}

impl World<'_> {
    /// Where the symbol `name` of another source file comes from.
    ///
    /// # Errors
    ///
    /// It comes from nowhere, or from several places.
    pub fn external(&self, name: &str) -> Result<Source, Refusal> {
        let refuse = |e: NotFound| Refusal::new(Gate::OneSymbol, format!("{name}: {e}"));
        match self.exports.get(name).map(String::as_str) {
            Some(VMLINUX) => Ok(Source::Export),
            Some(module) if module != self.object && !(self.holds)(module) => {
                // Nothing would keep it there while it is called.
                let what = format!("{name} is of {module}, which {} does not need", self.object);
                Err(Refusal::new(Gate::OneSymbol, what))
            }
            Some(module) if module != self.object => {
                let position = (self.of_module)(module, name).map_err(refuse)?;
                Ok(Source::Module(module.to_owned(), position))
            }
            _ => {
                // The kernel knows the variable that each processor has of its own by its place among them, which
                // is what code refers to.
                match self.own.global(name) {
                    Err(NotFound::Absent) if self.takes.contains(name) => Ok(Source::Patch),
                    found => Ok(Source::Own(found.map_err(refuse)?.position)),
                }
            }
        }
    }

    /// The name under which the patch is linked with a symbol from `source`; `klp` reads it.
    pub fn link_name(&self, name: &str, source: &Source) -> String {
        match source {
            Source::Export => name.to_owned(),
            Source::Patch => given_symbol(name),
            Source::Own(position) => format!("__klpsym_{}__{name}__{position}", self.object),
            Source::Module(module, position) => {
                format!("__klpsym_{}:{module}__{name}__{position}", self.object)
            }
        }
    }
}

/// The global symbol of a new function that other parts of the patch call.
pub(super) fn given_symbol(name: &str) -> String {
    format!("invivo_given_{name}")
}
