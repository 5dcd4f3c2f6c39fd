//! Writes what was taken out as an object that Kbuild links like any other.

use std::collections::BTreeMap;

use object::elf;
use object::write::{Object as Out, Relocation, SectionId, Symbol, SymbolId, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionFlags, SectionKind, SymbolFlags,
    SymbolKind, SymbolScope,
};

use super::Kind;
use super::cut::{Cut, Fill, Key, Part, To};
use super::resolve::given_symbol;

/// The object of `cut`, made from the source file `file`.
///
/// # Errors
///
/// It would be larger than an object can be.
pub fn emit(cut: &Cut, file: &str) -> Result<Vec<u8>, object::write::Error> {
    let mut out = Out::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    out.add_file_symbol(file.as_bytes().to_vec());
    let mut writer = Writer { out, parts: BTreeMap::new(), symbols: BTreeMap::new(), pool: None };
    for (key, part) in &cut.parts {
        let id = writer.section(part);
        writer.parts.insert(*key, (id, part.padding));
    }
    let tables: Vec<_> = cut.tables.iter().map(|part| (writer.section(part), part)).collect();
    if !cut.pool.is_empty() {
        let id = writer.out.add_section(Vec::new(), b".rodata.invivo".to_vec(), SectionKind::ReadOnlyData);
        writer.out.append_section_data(id, &cut.pool, 32);
        writer.pool = Some(id);
    }
    for (key, part) in &cut.parts {
        writer.name(*key, part, cut);
    }
    for (key, part) in &cut.parts {
        if let Some((id, _)) = writer.parts.get(key).copied() {
            writer.fill(id, &part.fills)?;
        }
    }
    for (id, part) in tables {
        writer.fill(id, &part.fills)?;
    }
    // Says that the stack need not be executable.
    writer.out.add_section(Vec::new(), b".note.GNU-stack".to_vec(), SectionKind::Other);
    writer.out.write()
}

struct Writer {
    out: Out<'static>,
    parts: BTreeMap<Key, (SectionId, u64)>,
    symbols: BTreeMap<String, SymbolId>,
    pool: Option<SectionId>,
}

impl Writer {
    fn section(&mut self, part: &Part) -> SectionId {
        let kind = match part.flags {
            flags if flags & elf::SHF_EXECINSTR.0 != 0 => SectionKind::Text,
            _ if part.kind == elf::SHT_NOBITS.0 => SectionKind::UninitializedData,
            flags if flags & elf::SHF_WRITE.0 != 0 => SectionKind::Data,
            _ => SectionKind::ReadOnlyData,
        };
        let id = self.out.add_section(Vec::new(), part.section.as_bytes().to_vec(), kind);
        // Order and merging were the object's that this was taken from.
        let kept = elf::SHF_WRITE.0 | elf::SHF_ALLOC.0 | elf::SHF_EXECINSTR.0;
        let section = self.out.section_mut(id);
        section.flags = SectionFlags::Elf {
            sh_type: elf::SectionType(part.kind),
            sh_flags: elf::SectionFlags(part.flags & kept),
        };
        if part.kind == elf::SHT_NOBITS.0 {
            section.append_bss(part.size, part.align.max(1));
        } else {
            section.append_data(&part.bytes, part.align.max(1));
        }
        id
    }

    /// A function has its own name, for whoever reads a stack; if it replaces another, also the one
    /// by which the patch's table knows it.
    fn name(&mut self, key: Key, part: &Part, cut: &Cut) {
        let (Some((name, kind, size)), Some((section, padding))) =
            (&part.symbol, self.parts.get(&key).copied())
        else {
            return;
        };
        let symbol = |name: &str, scope| Symbol {
            name: name.as_bytes().to_vec(),
            value: padding,
            size: *size,
            kind: if *kind == Kind::Function { SymbolKind::Text } else { SymbolKind::Data },
            scope,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        };
        self.out.add_symbol(symbol(name, SymbolScope::Compilation));
        if let Some(replaced) = cut.replaced.iter().find(|r| r.name == *name) {
            self.out.add_symbol(symbol(&replaced.symbol, SymbolScope::Dynamic));
        }
        if cut.gives.contains(name) {
            self.out.add_symbol(symbol(&given_symbol(name), SymbolScope::Dynamic));
        }
    }

    fn fill(&mut self, section: SectionId, fills: &[Fill]) -> Result<(), object::write::Error> {
        for fill in fills {
            let (symbol, more) = match &fill.to {
                To::Part(key) => {
                    let Some((id, padding)) = self.parts.get(key).copied() else { continue };
                    (self.out.section_symbol(id), padding)
                }
                To::Pool => match self.pool {
                    Some(id) => (self.out.section_symbol(id), 0),
                    None => continue,
                },
                To::Symbol(name) => (self.undefined(name), 0),
            };
            self.out.add_relocation(
                section,
                Relocation {
                    offset: fill.offset,
                    symbol,
                    addend: fill.addend.wrapping_add_unsigned(more),
                    flags: RelocationFlags::Elf { r_type: elf::RelocationType(fill.kind) },
                },
            )?;
        }
        Ok(())
    }

    fn undefined(&mut self, name: &str) -> SymbolId {
        if let Some(id) = self.symbols.get(name) {
            return *id;
        }
        let id = self.out.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value: 0,
            size: 0,
            kind: SymbolKind::Unknown,
            scope: SymbolScope::Unknown,
            weak: false,
            section: SymbolSection::Undefined,
            flags: SymbolFlags::None,
        });
        self.symbols.insert(name.to_owned(), id);
        id
    }
}
