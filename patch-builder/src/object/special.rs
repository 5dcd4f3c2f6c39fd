//! Sections that say something about code elsewhere: where the kernel patches, where it may fault,
//! how a stack is unwound. Each is a table; an entry belongs to the function that its first
//! reference names.

use std::borrow::Cow;

use super::target::{Reference, Target};
use super::{Object, Relocation, Section};

/// How the entries of one section are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The section's name.
    pub name: &'static str,
    /// How long an entry is in the kernels that are known, in bytes. It cannot be reckoned: three references in
    /// 12 bytes look like two in 8.
    sizes: &'static [usize],
    /// Where its references are; the first is to the code.
    places: &'static [u64],
    /// How many of them there are at least.
    least: usize,
    /// How long the last entry may be, where what follows is nothing but padding to the next.
    last: Option<usize>,
    /// Made by objtool, which makes it again when the module is linked where the kernel was built
    /// that way.
    pub by_objtool: bool,
}

const fn table(name: &'static str, sizes: &'static [usize], places: &'static [u64]) -> Layout {
    Layout { name, sizes, places, least: places.len(), last: None, by_objtool: false }
}

const fn objtool(name: &'static str, sizes: &'static [usize], places: &'static [u64]) -> Layout {
    Layout { by_objtool: true, ..table(name, sizes, places) }
}

const fn remark(name: &'static str) -> Layout {
    table(name, &[4, 8], &[0])
}

/// The places of static keys.
pub const JUMPS: Layout = table(JUMP_LABELS, &[16], &[0, 4, 8]);

/// The tables whose entries go with a function.
pub const TABLES: [Layout; 15] = [
    // Since 6.3 the number of a feature has four bytes.
    table(ALTERNATIVES, &[12, 14], &[0, 4]),
    table("__bug_table", &[12], &[0, 4]),
    JUMPS,
    // Before 5.16 the third is to the handler; a number stands there since.
    Layout { least: 2, ..table("__ex_table", &[12], &[0, 4, 8]) },
    // In 5.10 the last entry is not filled up.
    Layout { last: Some(12), ..table(".parainstructions", &[16], &[0]) },
    table(".smp_locks", &[4], &[0]),
    objtool(".static_call_sites", &[8], &[0, 4]),
    objtool(".return_sites", &[4], &[0]),
    objtool(".retpoline_sites", &[4], &[0]),
    objtool(".call_sites", &[4], &[0]),
    objtool(".cfi_sites", &[4], &[0]),
    objtool(".ibt_endbr_seal", &[4], &[0]),
    objtool(UNWIND_PLACES, &[4], &[0]),
    table("_kprobe_blacklist", &[8], &[0]),
    // The compiler's own (CONFIG_FTRACE_MCOUNT_USE_CC), also where objtool works on what is linked.
    table("__mcount_loc", &[8], &[0]),
];

/// Remarks for objtool. They are not loaded, and are kept only where objtool will run again.
pub const REMARKS: [Layout; 12] = [
    remark(".discard.reachable"),
    remark(".discard.unreachable"),
    remark(".discard.retpoline_safe"),
    remark(".discard.instr_begin"),
    remark(".discard.instr_end"),
    remark(".discard.intra_function_calls"),
    remark(".discard.ignore_alts"),
    remark(".discard.noendbr"),
    remark(".discard.annotate_insn"),
    remark(".discard.validate_unret"),
    remark(".discard.unret"),
    remark(".discard.func_stack_frame_non_standard"),
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
/// How long an entry of [`UNWIND`] is, in bytes.
const UNWIND_SIZE: usize = 6;
/// Places that the kernel patches as it boots, or as the module comes.
pub const ALTERNATIVES: &str = ".altinstructions";
/// What `.altinstructions` puts in place of code.
pub const REPLACEMENT: &str = ".altinstr_replacement";
/// Code out of line that a test of the processor's features jumps to.
pub const AUXILIARY: &str = ".altinstr_aux";
/// Code out of line that the kernel goes on at where other code has faulted; since 5.17 none is left.
pub const FIXUP: &str = ".fixup";

/// Whether a section has pieces of functions, without symbols, which are taken with the functions.
pub fn is_out_of_line(section: &str) -> bool {
    [AUXILIARY, FIXUP].contains(&section)
}

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
    /// Its bytes, as they are in the object, filled up if it is the last.
    pub bytes: Cow<'a, [u8]>,
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

impl Layout {
    /// How many references each entry of `section` has, if all of them have `size` bytes, the same number of
    /// references, and these where they should be.
    fn references(&self, section: &Section, size: usize) -> Option<usize> {
        let rest = section.data.len() % size;
        if rest != 0 && Some(rest) != self.last {
            return None;
        }
        let number = section.data.len().div_ceil(size);
        let each = section.relocations.len().checked_div(number)?;
        let is_whole = section.relocations.len() == each * number;
        let is_there = |(n, relocation): (usize, &Relocation)| {
            let place = self.places.get(n % each).copied();
            place.map(|place| (n / each * size) as u64 + place) == Some(relocation.offset)
        };
        let fits = is_whole && (self.least..=self.places.len()).contains(&each);
        (fits && section.relocations.iter().enumerate().all(is_there)).then_some(each)
    }
}

/// The entries of the table `section`, which is laid out as `layout` says.
///
/// # Errors
///
/// It is not.
pub fn entries<'a>(
    object: &Object<'a>,
    section: &Section<'a>,
    layout: &Layout,
) -> Result<Vec<Entry<'a>>, Irregular> {
    let irregular = || Irregular(section.name.to_owned());
    if section.relocations.is_empty() && section.size == 0 {
        return Ok(Vec::new());
    }
    let fitting = layout.sizes.iter().find_map(|size| Some((*size, layout.references(section, *size)?)));
    let (size, each) = fitting.ok_or_else(irregular)?;
    let number = section.relocations.len() / each;
    let unwind = match section.name {
        UNWIND_PLACES => object.section(UNWIND).ok_or_else(irregular)?.data,
        _ => &[],
    };
    let unwind_size = if section.name == UNWIND_PLACES { UNWIND_SIZE } else { 0 };
    if unwind.len() != number * unwind_size {
        return Err(irregular());
    }
    let mut entries = Vec::with_capacity(number);
    for (n, relocations) in section.relocations.chunks(each).enumerate() {
        let rest = section.data.get(n * size..).ok_or_else(irregular)?;
        let bytes = if let Some(bytes) = rest.get(..size) {
            Cow::Borrowed(bytes)
        } else {
            let mut bytes = rest.to_vec();
            bytes.resize(size, 0);
            Cow::Owned(bytes)
        };
        let start = (n * size) as u64;
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
