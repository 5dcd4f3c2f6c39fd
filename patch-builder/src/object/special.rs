//! Sections that say something about code elsewhere: where the kernel patches, where it may fault,
//! how a stack is unwound. Each is a table; an entry belongs to the function that its first
//! reference names.

use super::target::{Reference, Target};
use super::{Object, Relocation, Section};

/// How the entries of one section are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The section's name.
    pub name: &'static str,
    /// References in an entry; the first is to the code.
    pub references: usize,
    /// Made by objtool, which makes it again when the module is linked where the kernel was built
    /// that way.
    pub by_objtool: bool,
}

const fn table(name: &'static str, references: usize) -> Layout {
    Layout { name, references, by_objtool: false }
}

const fn objtool(name: &'static str, references: usize) -> Layout {
    Layout { name, references, by_objtool: true }
}

/// The tables whose entries go with a function.
pub const TABLES: [Layout; 15] = [
    table(ALTERNATIVES, 2),
    table("__bug_table", 2),
    table(JUMP_LABELS, 3),
    table("__ex_table", 2),
    table(".parainstructions", 1),
    table(".smp_locks", 1),
    objtool(".static_call_sites", 2),
    objtool(".return_sites", 1),
    objtool(".retpoline_sites", 1),
    objtool(".call_sites", 1),
    objtool(".cfi_sites", 1),
    objtool(".ibt_endbr_seal", 1),
    objtool(UNWIND_PLACES, 1),
    table("_kprobe_blacklist", 1),
    // The compiler's own (CONFIG_FTRACE_MCOUNT_USE_CC), also where objtool works on what is linked.
    table("__mcount_loc", 1),
];

/// Remarks for objtool. They are not loaded, and are kept only where objtool will run again.
pub const REMARKS: [&str; 12] = [
    ".discard.reachable",
    ".discard.unreachable",
    ".discard.retpoline_safe",
    ".discard.instr_begin",
    ".discard.instr_end",
    ".discard.intra_function_calls",
    ".discard.ignore_alts",
    ".discard.noendbr",
    ".discard.annotate_insn",
    ".discard.validate_unret",
    ".discard.unret",
    ".discard.func_stack_frame_non_standard",
];

/// The places of static keys.
pub const JUMP_LABELS: &str = "__jump_table";
/// What is added to the address of a key where objtool is to make nothing of the jump
/// (arch/x86/include/asm/jump_label.h, `objtool NOPs this`).
pub const NO_JUMP: i64 = 2;
/// Where the entries of [`UNWIND`] are for, one by one.
pub const UNWIND_PLACES: &str = ".orc_unwind_ip";
/// How to unwind from there.
pub const UNWIND: &str = ".orc_unwind";
/// Places that the kernel patches as it boots, or as the module comes.
pub const ALTERNATIVES: &str = ".altinstructions";
/// What `.altinstructions` puts in place of code.
pub const REPLACEMENT: &str = ".altinstr_replacement";
/// Code out of line that a test of the processor's features jumps to.
pub const AUXILIARY: &str = ".altinstr_aux";

/// Sections with references to functions that mean nothing for a copy of the function: what they
/// say stays true of the original, which callers still reach first.
const OF_THE_ORIGINAL: [&str; 17] = [
    ".discard.",
    ".BTF",
    ".debug_",
    ".modinfo",
    "__ksymtab",
    "___ksymtab",
    ".export_symbol",
    ".init",
    ".exit",
    ".initcall",
    "__patchable_function_entries",
    ".note",
    ".comment",
    "__kcrctab",
    ".gnu.linkonce",
    ".llvm",
    ".printk_index",
];

/// Whether the references in a section of this name say nothing about a copy of a function.
pub fn is_of_the_original(name: &str) -> bool {
    OF_THE_ORIGINAL.iter().any(|start| name.starts_with(start))
}

/// One entry of a table.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Its bytes, as they are in the object.
    pub bytes: &'a [u8],
    /// Its references, with offsets from its own beginning; the first is to the code.
    pub references: Vec<Reference<'a>>,
    /// The entry of [`UNWIND`] that goes with it.
    pub unwind: &'a [u8],
}

impl Entry<'_> {
    /// The number of the function's symbol, and the offset in the function.
    pub fn code(&self) -> Option<(usize, i64)> {
        match self.references.first()?.target {
            Target::Unit(number, offset) => Some((number, offset)),
            _ => None,
        }
    }
}

/// A table does not have the layout that it should have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("section {0} is not laid out as it should be")]
pub struct Irregular(pub String);

/// The entries of the table `section`, each with `count` references.
///
/// # Errors
///
/// References and size do not fit together.
pub fn entries<'a>(
    object: &Object<'a>,
    section: &Section<'a>,
    count: usize,
) -> Result<Vec<Entry<'a>>, Irregular> {
    let irregular = || Irregular(section.name.to_owned());
    let number = section.relocations.len() / count.max(1);
    if number == 0 && section.size == 0 {
        return Ok(Vec::new());
    }
    if number == 0
        || !section.relocations.len().is_multiple_of(count)
        || !section.data.len().is_multiple_of(number)
    {
        return Err(irregular());
    }
    let size = section.data.len() / number;
    let unwind = match section.name {
        UNWIND_PLACES => object.section(UNWIND).map_or(&[][..], |s| s.data),
        _ => &[],
    };
    if !unwind.len().is_multiple_of(number) {
        return Err(irregular());
    }
    let unwind_size = unwind.len() / number;
    let mut entries = Vec::with_capacity(number);
    for (n, relocations) in section.relocations.chunks(count).enumerate() {
        let bytes = section.data.get(n * size..(n + 1) * size).ok_or_else(irregular)?;
        let start = (n * size) as u64;
        let inside = |r: &Relocation| r.offset >= start && r.offset < start + size as u64;
        if !relocations.iter().all(inside) {
            return Err(irregular());
        }
        let references = relocations
            .iter()
            .enumerate()
            .map(|(m, r)| {
                let mut reference = object.reference(Relocation { offset: r.offset - start, ..*r }, None);
                if m == 0 && section.name == UNWIND_PLACES {
                    reference.target = end_of_code(object, r).unwrap_or(reference.target);
                }
                reference
            })
            .collect();
        let unwind = unwind.get(n * unwind_size..(n + 1) * unwind_size).unwrap_or_default();
        entries.push(Entry { bytes, references, unwind });
    }
    Ok(entries)
}

/// Whether objtool is to make nothing of the jump that an entry of `table` is about.
pub fn is_no_jump(table: &str, entry: &Entry) -> bool {
    let key = entry.references.get(2).filter(|_| table == JUMP_LABELS);
    key.is_some_and(|key| key.relocation.addend & NO_JUMP != 0)
}

/// The entry that ends a function's unwinding names the place behind it.
fn end_of_code<'a>(object: &Object<'a>, relocation: &Relocation) -> Option<Target<'a>> {
    let symbol = object.symbols.get(relocation.symbol)?;
    let (section, offset) = (symbol.section()?, relocation.addend.checked_add_unsigned(symbol.value)?);
    let at = u64::try_from(offset).ok()?;
    if object.symbol_at(section, at).is_some() {
        return None;
    }
    let last = object.symbols_in(section).rfind(|s| s.end() <= at)?;
    Some(Target::Unit(object.number(last)?, offset.checked_sub_unsigned(last.value)?))
}
