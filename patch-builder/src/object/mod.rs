//! Relocatable objects, modules and kernels as plain data: what is compared, cut and put together.
//!
//! Everything below is a pure function of bytes: no file is opened here.

use std::collections::BTreeMap;

use object::elf::{self, FileHeader64};
use object::read::SymbolIndex;
use object::read::elf::{FileHeader as _, Rela as _, SectionHeader as _, Sym as _};
use object::{LittleEndian as LE, SectionIndex};

pub mod carried;
pub mod compare;
pub mod cut;
pub mod emit;
pub mod extract;
pub mod instruction;
pub mod kernel;
mod neighbours;
mod outline;
pub mod resolve;
pub mod slim;
pub mod special;
mod tables;
pub mod target;

/// A file is not an ELF file that this crate can take apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an object for x86-64: {0}")]
pub struct Malformed(pub &'static str);

/// More than any section of a kernel has: a huge page.
const LARGEST_ALIGN: u64 = 1 << 21;

/// One file.
#[derive(Debug, Clone)]
pub struct Object<'a> {
    /// Its sections, by their numbers; 0 is the empty one.
    pub sections: Vec<Section<'a>>,
    /// Its symbols, by their numbers; 0 is the empty one.
    pub symbols: Vec<Symbol<'a>>,
    /// For each section the numbers of the symbols with a size or a type in it, by value.
    by_section: BTreeMap<usize, Vec<usize>>,
}

/// One section.
#[derive(Debug, Clone)]
pub struct Section<'a> {
    /// Its name.
    pub name: &'a str,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// Where it is in a linked file; 0 in an object.
    pub address: u64,
    /// Length in bytes, also of one without content.
    pub size: u64,
    /// Alignment in bytes.
    pub align: u64,
    /// Size of an entry, where it has entries of one size.
    pub entry: u64,
    /// Its content; empty where it has none in the file.
    pub data: &'a [u8],
    /// What is to be written into it, in the order of places.
    pub relocations: Vec<Relocation>,
}

impl Section<'_> {
    /// Whether it has no content in the file (`.bss`).
    pub fn is_empty_in_file(&self) -> bool {
        self.kind == elf::SHT_NOBITS.0
    }

    /// Whether it is read and written at run time.
    pub fn is_writable(&self) -> bool {
        self.flags & elf::SHF_WRITE.0 != 0
    }

    /// Whether it is code.
    pub fn is_code(&self) -> bool {
        self.flags & elf::SHF_EXECINSTR.0 != 0
    }

    /// Whether equal content may be stored once: texts if `strings`, else constants of one size.
    pub fn is_mergeable(&self, strings: bool) -> bool {
        self.flags & elf::SHF_MERGE.0 != 0 && (self.flags & elf::SHF_STRINGS.0 != 0) == strings
    }
}

/// Where a symbol is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Elsewhere.
    Undefined,
    /// In this section.
    Section(usize),
    /// A number, not a place.
    Absolute,
}

/// What a symbol is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A function.
    Function,
    /// A variable.
    Data,
    /// A section itself.
    Section,
    /// The name of a source file.
    File,
    /// Nothing said.
    Other,
}

/// One symbol.
#[derive(Debug, Clone, Copy)]
pub struct Symbol<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it is.
    pub place: Place,
    /// Offset in its section, or address in a linked file.
    pub value: u64,
    /// Length in bytes.
    pub size: u64,
    /// What it is of.
    pub kind: Kind,
    /// Seen only within its source file.
    pub is_local: bool,
    /// May be overruled by another of the same name.
    pub is_weak: bool,
    /// The source file whose local symbol it is.
    pub file: Option<&'a str>,
}

impl Symbol<'_> {
    /// Whether `offset` is within it; a symbol without a size covers its first byte.
    pub fn covers(&self, offset: u64) -> bool {
        offset.checked_sub(self.value).is_some_and(|into| into < self.size.max(1))
    }

    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.value.saturating_add(self.size)
    }

    /// Whether it is defined in a section.
    pub fn section(&self) -> Option<usize> {
        match self.place {
            Place::Section(section) => Some(section),
            Place::Undefined | Place::Absolute => None,
        }
    }
}

/// One place that the linker or the loader writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocation {
    /// Offset in the section.
    pub offset: u64,
    /// `r_type`.
    pub kind: u32,
    /// Number of the symbol.
    pub symbol: usize,
    /// What is added to it.
    pub addend: i64,
}

/// How many bytes a relocation writes; `None` for a type that kernels for x86-64 do not have.
pub fn width(kind: u32) -> Option<u64> {
    Some(match elf::RelocationType(kind) {
        elf::R_X86_64_64 | elf::R_X86_64_PC64 => 8,
        elf::R_X86_64_PC32 | elf::R_X86_64_PLT32 | elf::R_X86_64_32 | elf::R_X86_64_32S => 4,
        _ => return None,
    })
}

/// Whether a relocation writes a distance from its own place.
pub fn is_relative(kind: u32) -> bool {
    [elf::R_X86_64_PC32.0, elf::R_X86_64_PLT32.0, elf::R_X86_64_PC64.0].contains(&kind)
}

impl<'a> Object<'a> {
    /// Takes `bytes` apart.
    ///
    /// # Errors
    ///
    /// It is not an ELF file for x86-64, or its tables reach beyond it.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let bad = |what| move |_: object::Error| Malformed(what);
        let header = FileHeader64::<LE>::parse(bytes).map_err(bad("not an ELF file"))?;
        if header.e_machine.get(LE) != elf::EM_X86_64 || !header.is_little_endian() {
            return Err(Malformed("for another machine"));
        }
        let table = header.sections(LE, bytes).map_err(bad("its sections"))?;
        let mut sections = Vec::with_capacity(table.len());
        for section in table.iter() {
            let name = table.section_name(LE, section).map_err(bad("the name of a section"))?;
            let align = section.sh_addralign.get(LE);
            if align > LARGEST_ALIGN || (align > 0 && !align.is_power_of_two()) {
                return Err(Malformed("the alignment of a section"));
            }
            sections.push(Section {
                name: std::str::from_utf8(name).map_err(|_| Malformed("the name of a section"))?,
                kind: section.sh_type.get(LE).0,
                flags: section.sh_flags.get(LE).0,
                address: section.sh_addr.get(LE),
                size: section.sh_size.get(LE),
                align,
                entry: section.sh_entsize.get(LE),
                data: section.data(LE, bytes).map_err(bad("the content of a section"))?,
                relocations: Vec::new(),
            });
        }
        let raw = table.symbols(LE, bytes, elf::SHT_SYMTAB).map_err(bad("its symbols"))?;
        let mut symbols = Vec::with_capacity(raw.len());
        let mut file = None;
        for (n, symbol) in raw.iter().enumerate() {
            let name = symbol.name(LE, raw.strings()).map_err(bad("the name of a symbol"))?;
            let name = std::str::from_utf8(name).map_err(|_| Malformed("the name of a symbol"))?;
            let place = if symbol.st_shndx.get(LE) == elf::SHN_UNDEF {
                Place::Undefined
            } else {
                match raw.symbol_section(LE, symbol, SymbolIndex(n)).map_err(bad("a symbol's section"))? {
                    Some(SectionIndex(index)) if index < sections.len() => Place::Section(index),
                    Some(_) => return Err(Malformed("a symbol's section")),
                    None => Place::Absolute,
                }
            };
            let kind = match symbol.st_type() {
                elf::STT_FUNC => Kind::Function,
                elf::STT_OBJECT => Kind::Data,
                elf::STT_SECTION => Kind::Section,
                elf::STT_FILE => Kind::File,
                _ => Kind::Other,
            };
            if kind == Kind::File {
                file = Some(name);
            }
            let is_local = symbol.st_bind() == elf::STB_LOCAL;
            symbols.push(Symbol {
                name,
                place,
                value: symbol.st_value.get(LE),
                size: symbol.st_size.get(LE),
                kind,
                is_local,
                is_weak: symbol.st_bind() == elf::STB_WEAK,
                file: file.filter(|_| is_local),
            });
        }
        for section in table.iter() {
            let Some((relocations, _)) = section.rela(LE, bytes).map_err(bad("its relocations"))? else {
                continue;
            };
            let target = usize::try_from(section.sh_info.get(LE)).unwrap_or_default();
            if target == 0 {
                continue;
            }
            let relocations = read_relocations(relocations, symbols.len())?;
            let target = sections.get_mut(target).ok_or(Malformed("its relocations"))?;
            target.relocations.extend(relocations);
            target.relocations.sort_by_key(|relocation| relocation.offset);
        }
        let mut object = Self { sections, symbols, by_section: BTreeMap::new() };
        object.index();
        if header.e_type.get(LE) == elf::ET_REL {
            object.name_neighbours();
        }
        Ok(object)
    }

    fn index(&mut self) {
        for (n, symbol) in self.symbols.iter().enumerate() {
            let counts = match symbol.kind {
                Kind::Function | Kind::Data => true,
                Kind::Other => symbol.size > 0,
                Kind::Section | Kind::File => false,
            };
            if let Some(section) = symbol.section().filter(|_| counts && !symbol.name.is_empty()) {
                self.by_section.entry(section).or_default().push(n);
            }
        }
        for numbers in self.by_section.values_mut() {
            numbers.sort_by_key(|n| self.symbols.get(*n).map(|s| (s.value, s.size)));
        }
    }

    /// The section of this name that has content of its own.
    pub fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|s| s.name == name && s.kind != elf::SHT_RELA.0)
    }

    /// The symbols in a section, by their values.
    pub fn symbols_in(&self, section: usize) -> impl DoubleEndedIterator<Item = &Symbol<'a>> {
        self.by_section.get(&section).into_iter().flatten().filter_map(|n| self.symbols.get(*n))
    }

    /// The symbol that covers `offset` of a section; the last of several.
    pub fn symbol_at(&self, section: usize, offset: u64) -> Option<&Symbol<'a>> {
        self.symbols_in(section).take_while(|s| s.value <= offset).filter(|s| s.covers(offset)).last()
    }

    /// The functions defined in it that have a size.
    pub fn functions(&self) -> impl Iterator<Item = &Symbol<'a>> {
        self.defined(Kind::Function).filter(|s| s.size > 0)
    }

    /// The symbols of one kind that are defined in a section.
    pub fn defined(&self, kind: Kind) -> impl Iterator<Item = &Symbol<'a>> {
        self.symbols.iter().filter(move |s| s.kind == kind && s.section().is_some() && !s.name.is_empty())
    }

    /// The source file of an object made from one.
    pub fn file(&self) -> Option<&'a str> {
        self.symbols.iter().find(|s| s.kind == Kind::File).map(|s| s.name)
    }

    /// The section that `symbol` is in.
    pub fn section_of(&self, symbol: &Symbol) -> Option<&Section<'a>> {
        self.sections.get(symbol.section()?)
    }

    /// The bytes of `symbol`; empty if it has none in the file.
    pub fn bytes_of(&self, symbol: &Symbol) -> &'a [u8] {
        let bytes = || {
            let section = self.section_of(symbol)?;
            let start = usize::try_from(symbol.value.checked_sub(section.address)?).ok()?;
            let size = usize::try_from(symbol.size).ok()?;
            section.data.get(start..start.checked_add(size)?)
        };
        bytes().unwrap_or_default()
    }

    /// The relocations within `symbol`, with offsets from its beginning. Objects only.
    pub fn relocations_of(&self, symbol: &Symbol) -> Vec<Relocation> {
        let all = self.section_of(symbol).map_or(&[][..], |s| s.relocations.as_slice());
        let from = all.partition_point(|r| r.offset < symbol.value);
        all.get(from..)
            .unwrap_or_default()
            .iter()
            .take_while(|r| r.offset < symbol.end())
            .map(|r| Relocation { offset: r.offset - symbol.value, ..*r })
            .collect()
    }
}

fn read_relocations(raw: &[elf::Rela64<LE>], symbols: usize) -> Result<Vec<Relocation>, Malformed> {
    raw.iter()
        // Where objtool has already done what would have been written.
        .filter(|rela| rela.r_type(LE, false) != elf::R_X86_64_NONE)
        .map(|rela| {
            let symbol = usize::try_from(rela.r_sym(LE, false)).ok().filter(|s| *s < symbols);
            Ok(Relocation {
                offset: rela.r_offset(LE),
                kind: rela.r_type(LE, false).0,
                symbol: symbol.ok_or(Malformed("a relocation's symbol"))?,
                addend: rela.r_addend(LE),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
