//! Why the builder does not make a patch of a fix. Each refusal has a name that reports, tests and
//! documents share (`docs/supply.md`).

use std::fmt;

/// A refusal: its gate, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{gate}: {what}")]
pub struct Refusal {
    /// The gate that refused.
    pub gate: Gate,
    /// What it found: names of functions, symbols, files.
    pub what: String,
    /// The functions that do not compile.
    pub within: Vec<String>,
    /// The names that they use and nothing declares.
    pub missing: Vec<String>,
    /// The functions that they call with arguments that these do not have.
    pub reshaped: Vec<String>,
}

impl Refusal {
    /// A refusal by `gate` because of `what`.
    pub fn new(gate: Gate, what: impl Into<String>) -> Self {
        Self { gate, what: what.into(), within: Vec::new(), missing: Vec::new(), reshaped: Vec::new() }
    }
}

/// Everything that a fix and a module go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gate {
    /// The fix does not apply, or not exactly where it should.
    Applies,
    /// The fix touches something other than C files and headers: Kconfig, assembly.
    OnlyCode,
    /// Every C file of the kernel build that uses what changed in a header is compiled with it.
    Users,
    /// The file is compiled into this kernel build.
    FileBuilt,
    /// Two fixes want different things of one function.
    Conflict,
    /// The fixed source compiles.
    Compiles,
    /// What is compiled here from the original source is what the kernel runs.
    Reproduced,
    /// Every function that the recipe names changed, and something did.
    Changed,
    /// No type's layout differs.
    Layout,
    /// No variable or table differs.
    Data,
    /// No table of functions differs.
    Operations,
    /// No variable is added.
    NewData,
    /// What differs does not run once at the start.
    InitCode,
    /// The kernel can redirect the function.
    Traceable,
    /// The function may be replaced while it could run in a context that livepatch does not see.
    Context,
    /// Jump labels and static calls have their keys in the kernel itself.
    StaticKeys,
    /// No address of code in the patch is given away.
    Escape,
    /// No function is removed whose address others may have.
    Gone,
    /// Everything that is new is needed by what is replaced.
    Reached,
    /// Every symbol named to the kernel is one symbol of it.
    OneSymbol,
    /// No weak symbol is replaced.
    Weak,
    /// A function has a section of its own.
    OwnSection,
    /// Every section that says something about a function is understood.
    KnownSections,
    /// Every instruction with a reference is understood.
    KnownCode,
    /// What the file exports, and its checksums, stay the same.
    Exports,
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One word, as in the code: what a person reads in a table they can look for.
        f.pad(&format!("{self:?}"))
    }
}
