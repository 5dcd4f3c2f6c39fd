//! The ELF step: references to symbols that the kernel does not export become livepatch
//! relocations, which the kernel's own module loader resolves (Documentation/livepatch/module-elf-format.rst).
//!
//! A symbol to be resolved so is an undefined one, either named as unexported by the caller (then it
//! is the kernel's only symbol of that name), or whose name says everything:
//! `__klpsym_OBJECT__NAME__POSITION`. It is renamed to `.klp.sym.OBJECT.NAME,POSITION`, gets the
//! section index that marks it, and its relocations move into sections of their own,
//! `.klp.rela.OBJECT.SECTION`.
//!
//! Symbols keep their numbers; nothing may be stripped afterwards, because `strip` renumbers
//! symbols and does not follow these relocations.

use std::collections::{BTreeMap, BTreeSet};

use object::elf::{
    self, FileHeader64, Rela64, SHF_ALLOC, SHF_INFO_LINK, SHT_RELA, SHT_SYMTAB, SectionHeader64, Sym64,
};
use object::pod;
use object::read::elf::FileHeader as _;
use object::{LittleEndian as LE, U16, U32, U64};
use serde::{Deserialize, Serialize};

/// A module cannot be converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not a kernel module for x86-64.
    #[error("not a module: {0}")]
    NotAModule(&'static str),
    /// It carries debug information, which would have to be stripped, which must come first.
    #[error("has debug information ({0})")]
    DebugInformation(String),
    /// A symbol's name does not say what it should.
    #[error("{0} does not name object, symbol and position")]
    Encoding(String),
    /// It has livepatch relocations already.
    #[error("was converted before")]
    Converted,
}

/// A symbol that the kernel resolves when it loads the module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KlpSymbol {
    /// `vmlinux`, or the name of the module that has the symbol.
    pub object: String,
    /// `vmlinux`, or the name of the module that is patched with it: the kernel resolves the
    /// symbol when it loads that.
    pub target: String,
    /// The symbol's name.
    pub name: String,
    /// Its position among the symbols of that name, from 1; 0 if it is the only one.
    pub position: u32,
}

/// A module with livepatch relocations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The module.
    pub bytes: Vec<u8>,
    /// What the kernel will resolve, sorted.
    pub symbols: Vec<KlpSymbol>,
}

const MARK: &str = "__klpsym_";

/// Whether the name of an undefined symbol says itself where it is to be taken from.
pub(crate) fn is_encoded(name: &str) -> bool {
    name.starts_with(MARK)
}

/// Section index of a livepatch symbol (include/uapi/linux/elf.h: `SHN_LIVEPATCH`).
const SHN_LIVEPATCH: u16 = 0xff20;
/// Flag of a section of livepatch relocations (`SHF_RELA_LIVEPATCH`).
const SHF_RELA_LIVEPATCH: u64 = 0x0010_0000;

const RELA: usize = size_of::<Rela64<LE>>();

/// The names of the symbols that `module` needs from elsewhere.
///
/// # Errors
///
/// It is not a module.
pub fn undefined(module: &[u8]) -> Result<BTreeSet<String>, Error> {
    let module = Module::parse(module)?;
    Ok(module.undefined().map(|(_, name)| name.to_owned()).collect())
}

/// The sections of livepatch relocations in `module`: the object whose symbols they need, and the
/// section that they are written into.
///
/// # Errors
///
/// It is not a module.
pub(crate) fn sections(module: &[u8]) -> Result<Vec<(String, String)>, Error> {
    let module = Module::parse(module)?;
    let split = |name: &str| {
        let (object, target) = name.strip_prefix(".klp.rela.")?.split_once('.')?;
        Some((object.to_owned(), target.to_owned()))
    };
    Ok(module.sections.iter().filter_map(|s| split(&s.name)).collect())
}

/// Converts `module`: every symbol in `unexported` is taken from the kernel itself, and every one
/// whose name is encoded from where that says.
///
/// # Errors
///
/// It is not a module, has debug information, was converted before, or a name is not well encoded.
pub fn convert(module: &[u8], unexported: &BTreeSet<String>) -> Result<Converted, Error> {
    let mut module = Module::parse(module)?;
    if module.sections.iter().any(|s| s.name.starts_with(".klp.")) {
        return Err(Error::Converted);
    }
    let mut wanted = BTreeMap::new();
    for (index, name) in module.undefined() {
        if let Some(encoded) = name.strip_prefix(MARK) {
            let symbol = decode(encoded).ok_or_else(|| Error::Encoding(name.to_owned()))?;
            wanted.insert(index, symbol);
        } else if unexported.contains(name) {
            let symbol = KlpSymbol {
                object: "vmlinux".to_owned(),
                target: "vmlinux".to_owned(),
                name: name.to_owned(),
                position: 0,
            };
            wanted.insert(index, symbol);
        }
    }
    module.rename(&wanted)?;
    module.move_relocations(&wanted)?;
    let mut symbols: Vec<_> = wanted.into_values().collect();
    symbols.sort();
    Ok(Converted { bytes: module.write()?, symbols })
}

/// `OBJECT__NAME__POSITION`; the object's name has no double underscore, the symbol's may. The object
/// is `TARGET:OBJECT` where the module that is patched needs a symbol of another one.
fn decode(encoded: &str) -> Option<KlpSymbol> {
    let (object, rest) = encoded.split_once("__")?;
    let (name, position) = rest.rsplit_once("__")?;
    let position = position.parse().ok()?;
    let (target, object) = object.split_once(':').unwrap_or((object, object));
    let is_name = |text: &str| !text.is_empty() && text.len() <= 55;
    let fits = is_name(target) && is_name(object) && !name.is_empty() && name.len() <= 511;
    fits.then(|| KlpSymbol {
        object: object.to_owned(),
        target: target.to_owned(),
        name: name.to_owned(),
        position,
    })
}

struct Section {
    header: SectionHeader64<LE>,
    name: String,
    /// New content; `None` as long as the old one stays.
    changed: Option<Vec<u8>>,
}

struct Module<'a> {
    file: &'a [u8],
    header: FileHeader64<LE>,
    sections: Vec<Section>,
    symbols: Vec<Sym64<LE>>,
    /// The index of the symbol table, of its strings, and of the sections' names.
    symtab: usize,
    strtab: usize,
    shstrtab: usize,
}

const DAMAGED: Error = Error::NotAModule("sections reach beyond the file");

impl<'a> Module<'a> {
    fn parse(file: &'a [u8]) -> Result<Self, Error> {
        let bad = |_| DAMAGED;
        let header = FileHeader64::<LE>::parse(file).map_err(|_| Error::NotAModule("not an ELF file"))?;
        if header.e_type.get(LE) != elf::ET_REL || header.e_machine.get(LE) != elf::EM_X86_64 {
            return Err(Error::NotAModule("not a relocatable file for x86-64"));
        }
        let table = header.sections(LE, file).map_err(bad)?;
        let mut sections = Vec::with_capacity(table.len());
        for section in table.iter() {
            let name = table.section_name(LE, section).map_err(bad)?;
            let name = String::from_utf8_lossy(name).into_owned();
            if name.starts_with(".debug_") || name.starts_with(".rela.debug_") {
                return Err(Error::DebugInformation(name));
            }
            sections.push(Section { header: *section, name, changed: None });
        }
        let mut symtabs = sections.iter().enumerate().filter(|(_, s)| s.header.sh_type.get(LE) == SHT_SYMTAB);
        let (Some((symtab, section)), None) = (symtabs.next(), symtabs.next()) else {
            return Err(Error::NotAModule("not one symbol table"));
        };
        let strtab = usize::try_from(section.header.sh_link.get(LE)).map_err(|_| DAMAGED)?;
        let shstrtab = header.section_strings_index(LE, file).map_err(bad)?.0;
        let mut module =
            Self { file, header: *header, sections, symbols: Vec::new(), symtab, strtab, shstrtab };
        let symbols = pod::slice_from_all_bytes(module.content(symtab)?).map_err(|()| DAMAGED)?;
        module.symbols = symbols.to_vec();
        Ok(module)
    }

    /// The content of a section as the file has it.
    fn content(&self, index: usize) -> Result<&'a [u8], Error> {
        let header = &self.sections.get(index).ok_or(DAMAGED)?.header;
        let number = |n: u64| usize::try_from(n).map_err(|_| DAMAGED);
        let start = number(header.sh_offset.get(LE))?;
        let end = start.checked_add(number(header.sh_size.get(LE))?).ok_or(DAMAGED)?;
        self.file.get(start..end).ok_or(DAMAGED)
    }

    fn symbol_name(&self, symbol: &Sym64<LE>) -> Option<&'a str> {
        let strings = self.content(self.strtab).ok()?;
        let rest = strings.get(usize::try_from(symbol.st_name.get(LE)).ok()?..)?;
        std::str::from_utf8(rest.get(..rest.iter().position(|b| *b == 0)?)?).ok()
    }

    /// Named symbols that are defined elsewhere, with their numbers.
    fn undefined(&self) -> impl Iterator<Item = (usize, &'a str)> {
        self.symbols
            .iter()
            .enumerate()
            .filter(|(_, symbol)| symbol.st_shndx.get(LE) == elf::SHN_UNDEF)
            .filter_map(|(index, symbol)| Some((index, self.symbol_name(symbol)?)))
            .filter(|(_, name)| !name.is_empty())
    }

    fn rename(&mut self, wanted: &BTreeMap<usize, KlpSymbol>) -> Result<(), Error> {
        let mut strings = self.content(self.strtab)?.to_vec();
        for (index, klp) in wanted {
            let symbol = self.symbols.get_mut(*index).ok_or(DAMAGED)?;
            let name = u32::try_from(strings.len()).map_err(|_| DAMAGED)?;
            strings.extend_from_slice(
                format!(".klp.sym.{}.{},{}\0", klp.object, klp.name, klp.position).as_bytes(),
            );
            symbol.st_name = U32::new(LE, name);
            symbol.set_st_info(elf::STB_GLOBAL, elf::STT_NOTYPE);
            symbol.st_shndx = U16::new(LE, elf::SymbolSection(SHN_LIVEPATCH));
        }
        self.change(self.strtab, strings)?;
        let symbols = pod::bytes_of_slice(&self.symbols).to_vec();
        self.change(self.symtab, symbols)
    }

    fn move_relocations(&mut self, wanted: &BTreeMap<usize, KlpSymbol>) -> Result<(), Error> {
        let mut names = self.content(self.shstrtab)?.to_vec();
        for index in 0..self.sections.len() {
            let Some(section) = self.sections.get(index).filter(|s| s.header.sh_type.get(LE) == SHT_RELA)
            else {
                continue;
            };
            let mut header = section.header;
            let target = usize::try_from(header.sh_info.get(LE)).map_err(|_| DAMAGED)?;
            let target = self.sections.get(target).ok_or(DAMAGED)?.name.clone();
            let (mut kept, mut moved) = (Vec::new(), BTreeMap::<&str, Vec<u8>>::new());
            for bytes in self.content(index)?.chunks(RELA) {
                let (rela, _) = pod::from_bytes::<Rela64<LE>>(bytes).map_err(|()| DAMAGED)?;
                let symbol = usize::try_from(rela.r_sym(LE, false)).map_err(|_| DAMAGED)?;
                let place = match wanted.get(&symbol) {
                    Some(klp) => moved.entry(klp.target.as_str()).or_default(),
                    None => &mut kept,
                };
                place.extend_from_slice(bytes);
            }
            if moved.is_empty() {
                continue;
            }
            self.change(index, kept)?;
            header.sh_flags =
                U64::new(LE, elf::SectionFlags(SHF_ALLOC.0 | SHF_INFO_LINK.0 | SHF_RELA_LIVEPATCH));
            for (object, relocations) in moved {
                let name = format!(".klp.rela.{object}.{target}");
                header.sh_name = U32::new(LE, u32::try_from(names.len()).map_err(|_| DAMAGED)?);
                names.extend_from_slice(name.as_bytes());
                names.push(0);
                self.sections.push(Section { header, name, changed: Some(relocations) });
            }
        }
        self.change(self.shstrtab, names)
    }

    fn change(&mut self, index: usize, content: Vec<u8>) -> Result<(), Error> {
        self.sections.get_mut(index).ok_or(DAMAGED)?.changed = Some(content);
        Ok(())
    }

    /// The old file, with changed sections and the section table laid behind it in a fixed order.
    /// Old content stays where it was: every offset that did not change stays true.
    fn write(mut self) -> Result<Vec<u8>, Error> {
        const ALIGN: usize = 8;
        let number = |n: usize| u64::try_from(n).map_err(|_| DAMAGED);
        let mut out = self.file.to_vec();
        for section in &mut self.sections {
            let Some(content) = section.changed.take() else { continue };
            out.resize(out.len().next_multiple_of(ALIGN), 0);
            section.header.sh_offset = U64::new(LE, number(out.len())?);
            section.header.sh_size = U64::new(LE, number(content.len())?);
            out.extend_from_slice(&content);
        }
        out.resize(out.len().next_multiple_of(ALIGN), 0);
        let count = u16::try_from(self.sections.len()).ok().filter(|n| *n < elf::SHN_LORESERVE);
        self.header.e_shoff = U64::new(LE, number(out.len())?);
        self.header.e_shnum = U16::new(LE, count.ok_or(Error::NotAModule("too many sections"))?);
        for section in &self.sections {
            out.extend_from_slice(pod::bytes_of(&section.header));
        }
        let header = pod::bytes_of(&self.header);
        out.get_mut(..header.len()).ok_or(DAMAGED)?.copy_from_slice(header);
        Ok(out)
    }
}

#[cfg(test)]
pub(crate) mod tests;
