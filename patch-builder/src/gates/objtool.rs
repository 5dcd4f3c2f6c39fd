//! The tables that objtool makes of code. It leaves a file alone that has one of them already: a part
//! that brought its own would leave the rest of the module without, and the kernel would neither patch
//! the rest's returns nor be able to tell who sleeps in it.

use std::collections::{BTreeMap, BTreeSet};

use object::read::elf::{ElfFile64, ElfSection64};
use object::{
    LittleEndian as LE, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SymbolKind,
};

use super::{Error, Passed};
use crate::klp;
use crate::object::instruction::{NOTHING_FOR_2, NOTHING_FOR_5};
use crate::object::special::{JUMP_LABELS, NO_JUMP};

/// A call and the table in which each of its places stands.
const CALLS: [(&str, &str); 2] = [("__x86_return_thunk", ".return_sites"), ("__fentry__", "__mcount_loc")];
/// How to unwind the stack of code.
const UNWIND: &str = ".orc_unwind_ip";
/// Code that the kernel copies elsewhere.
const COPIED: &str = ".altinstr";

/// A section's number and a place in it.
type Place = (usize, i64);

/// What objtool makes is there for all of the module's code.
pub(crate) fn tables(module: &[u8]) -> Result<Passed, Error> {
    let file = ElfFile64::<LE>::parse(module).map_err(|_| klp::Error::NotAModule("not an ELF file"))?;
    let mut seen = Vec::new();
    for (call, table) in CALLS {
        let listed = listed(&file, table);
        let places = code(&file).flat_map(|section| calls(&file, &section, call));
        let places: BTreeSet<_> = places.collect();
        if let Some(place) = places.difference(&listed).next() {
            return Err(missing(&file, table, *place));
        }
        seen.push(format!("{} in {table}", places.len()));
    }
    let unwound = listed(&file, UNWIND);
    for section in code(&file).filter(|section| section.size() > 0) {
        let number = section.index();
        let own =
            file.symbols().filter(|s| s.section_index() == Some(number) && s.kind() == SymbolKind::Text);
        let first = own.filter(|s| s.size() > 0).map(|s| s.address().cast_signed()).min();
        // From the first function's first place on.
        if !unwound.iter().any(|(of, at)| *of == number.0 && first.is_none_or(|first| *at <= first)) {
            return Err(missing(&file, UNWIND, (number.0, first.unwrap_or_default())));
        }
    }
    for (section, at) in switched_off(&file) {
        let code =
            file.section_by_index(object::SectionIndex(section)).and_then(|s| s.data()).unwrap_or_default();
        let code = usize::try_from(at).ok().and_then(|at| code.get(at..)).unwrap_or_default();
        if !code.starts_with(&NOTHING_FOR_2) && !code.starts_with(&NOTHING_FOR_5) {
            return Err(missing(&file, JUMP_LABELS, (section, at)));
        }
    }
    Ok(Passed::new("objtool", seen.join(", ")))
}

/// The places of static keys at which objtool makes nothing of a jump.
fn switched_off(file: &ElfFile64<'_, LE>) -> Vec<Place> {
    let Some(table) = file.section_by_name(JUMP_LABELS) else { return Vec::new() };
    // An entry is three places: of the code, of where it jumps to, of the key.
    let mut entries: BTreeMap<u64, (Option<Place>, bool)> = BTreeMap::new();
    for (offset, relocation) in table.relocations() {
        let entry = entries.entry(offset / 16).or_default();
        match offset % 16 {
            0 => entry.0 = place(file, &relocation),
            8 => entry.1 = relocation.addend() & NO_JUMP != 0,
            _ => {}
        }
    }
    entries.into_values().filter(|(_, is_off)| *is_off).filter_map(|(place, _)| place).collect()
}

fn missing(file: &ElfFile64<'_, LE>, table: &'static str, (section, at): Place) -> Error {
    let section = file.section_by_index(object::SectionIndex(section));
    let section = section.ok().and_then(|section| Some(section.name().ok()?.to_owned())).unwrap_or_default();
    Error::Table { table, section, at }
}

fn code<'d, 'f>(file: &'f ElfFile64<'d, LE>) -> impl Iterator<Item = ElfSection64<'d, 'f, LE>> {
    file.sections().filter(|section| {
        section.kind() == object::SectionKind::Text
            && section.name().is_ok_and(|name| !name.starts_with(COPIED))
    })
}

/// Where the code in `section` calls or jumps to `callee`: one byte before the address.
fn calls(file: &ElfFile64<'_, LE>, section: &ElfSection64<'_, '_, LE>, callee: &str) -> Vec<Place> {
    let named = |target| match target {
        RelocationTarget::Symbol(index) => {
            file.symbol_by_index(index).is_ok_and(|symbol| symbol.name() == Ok(callee))
        }
        _ => false,
    };
    let calls = section.relocations().filter(|(_, relocation)| named(relocation.target()));
    calls.map(|(at, _)| (section.index().0, at.cast_signed() - 1)).collect()
}

/// The places in code that the entries of a table name.
fn listed(file: &ElfFile64<'_, LE>, table: &str) -> BTreeSet<Place> {
    let Some(table) = file.section_by_name(table) else { return BTreeSet::new() };
    table.relocations().filter_map(|(_, relocation)| place(file, &relocation)).collect()
}

/// What a relocation refers to.
fn place(file: &ElfFile64<'_, LE>, relocation: &object::Relocation) -> Option<Place> {
    let RelocationTarget::Symbol(index) = relocation.target() else { return None };
    let symbol = file.symbol_by_index(index).ok()?;
    Some((symbol.section_index()?.0, symbol.address().cast_signed().checked_add(relocation.addend())?))
}

#[cfg(test)]
mod tests {
    use object::write::{Object, Relocation, Symbol, SymbolSection};
    use object::{
        Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolScope, elf,
    };

    use super::*;

    /// Two functions of one module, which both return by the kernel's thunk, and what the tables have
    /// of them.
    fn module(tables: &[(&str, &[u64])]) -> Vec<u8> {
        let mut out = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let text = out.add_section(vec![], b".text".to_vec(), SectionKind::Text);
        let mut code = [0xcc; 64];
        code[56..58].copy_from_slice(&NOTHING_FOR_2);
        out.append_section_data(text, &code, 16);
        for (call, at) in [("__fentry__", 0), ("__x86_return_thunk", 16), ("__x86_return_thunk", 48)] {
            let symbol = out.add_symbol(Symbol {
                name: call.as_bytes().to_vec(),
                value: 0,
                size: 0,
                kind: SymbolKind::Unknown,
                scope: SymbolScope::Unknown,
                weak: false,
                section: SymbolSection::Undefined,
                flags: SymbolFlags::None,
            });
            let flags = RelocationFlags::Elf { r_type: elf::R_X86_64_PLT32 };
            out.add_relocation(text, Relocation { offset: at + 1, symbol, addend: -4, flags }).unwrap();
        }
        let code = out.section_symbol(text);
        for (name, places) in tables {
            let table = out.add_section(vec![], name.as_bytes().to_vec(), SectionKind::ReadOnlyData);
            out.append_section_data(table, &vec![0; 8 * places.len()], 4);
            for (n, place) in places.iter().enumerate() {
                let flags = RelocationFlags::Elf { r_type: elf::R_X86_64_PC32 };
                let addend = place.cast_signed();
                let offset = 8 * n as u64;
                out.add_relocation(table, Relocation { offset, symbol: code, addend, flags }).unwrap();
            }
        }
        out.write().unwrap()
    }

    const FENTRY: (&str, &[u64]) = ("__mcount_loc", &[0]);
    const RETURNS: (&str, &[u64]) = (".return_sites", &[16, 48]);
    const ORC: (&str, &[u64]) = (UNWIND, &[0, 20]);

    #[test]
    fn a_module_whose_tables_cover_all_its_code_is_taken() {
        let seen = tables(&module(&[FENTRY, RETURNS, ORC])).unwrap().seen;
        assert_eq!(seen, "2 in .return_sites, 1 in __mcount_loc");
    }

    #[test]
    fn a_jump_that_objtool_should_have_made_nothing_of_is_refused() {
        // The code's place, and what is added to the key.
        let with = |entry: &[u64]| tables(&module(&[FENTRY, RETURNS, ORC, (JUMP_LABELS, entry)]));
        with(&[56, 2]).unwrap();
        with(&[40, 1]).unwrap();
        assert!(matches!(with(&[40, 2]), Err(Error::Table { table: JUMP_LABELS, at: 40, .. })));
    }

    #[test]
    fn a_module_one_part_of_which_brought_its_own_tables_is_refused() {
        let refused = |tables: &[(&str, &[u64])]| match super::tables(&module(tables)).unwrap_err() {
            Error::Table { table, section, at } => (table, section, at),
            other => panic!("{other}"),
        };
        let text = || ".text".to_owned();
        for returns in [vec![16_u64], vec![16, 32, 50]] {
            assert_eq!(refused(&[FENTRY, (".return_sites", &returns), ORC]), (".return_sites", text(), 48));
        }
        assert_eq!(refused(&[FENTRY, ORC]), (".return_sites", text(), 16));
        assert_eq!(refused(&[RETURNS, ORC]), ("__mcount_loc", text(), 0));
        assert_eq!(refused(&[FENTRY, RETURNS]), (UNWIND, text(), 0));
    }
}
