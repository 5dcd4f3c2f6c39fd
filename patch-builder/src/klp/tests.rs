use super::*;
use object::read::elf::ElfFile64;
use object::write::{Object, Relocation, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, Object as _, ObjectSection as _, ObjectSymbol as _,
    RelocationFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope, elf,
};

/// A module whose `.text` and whose section `other` call each of `calls` once, in this order.
pub(crate) fn module(calls: &[&str], other: &str) -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let sections =
        [".text", other].map(|name| object.add_section(vec![], name.as_bytes().to_vec(), SectionKind::Text));
    for section in &sections {
        object.append_section_data(*section, &vec![0xcc; 8 * calls.len()], 16);
    }
    for (n, call) in calls.iter().enumerate() {
        let symbol = object.add_symbol(Symbol {
            name: call.as_bytes().to_vec(),
            value: 0,
            size: 0,
            kind: SymbolKind::Unknown,
            scope: SymbolScope::Unknown,
            weak: false,
            section: SymbolSection::Undefined,
            flags: SymbolFlags::None,
        });
        for section in &sections {
            let flags = RelocationFlags::Elf { r_type: elf::R_X86_64_PLT32 };
            let relocation = Relocation { offset: 8 * n as u64, symbol, addend: -4, flags };
            object.add_relocation(*section, relocation).unwrap();
        }
    }
    object.write().unwrap()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// Section, target section and the names of the symbols of its relocations.
fn relocations(bytes: &[u8]) -> BTreeMap<String, Vec<(u64, String)>> {
    let file = ElfFile64::<LE>::parse(bytes).unwrap();
    let symbols: Vec<_> = file.symbols().map(|s| (s.index().0, s.name().unwrap().to_owned())).collect();
    let relas = file.sections().filter(|s| s.elf_section_header().sh_type.get(LE) == SHT_RELA);
    relas
        .map(|section| {
            let entries: &[Rela64<LE>] = pod::slice_from_all_bytes(section.data().unwrap()).unwrap();
            let named = entries.iter().map(|r| {
                let index = r.r_sym(LE, false) as usize;
                (r.r_offset.get(LE), symbols.iter().find(|(n, _)| *n == index).unwrap().1.clone())
            });
            (section.name().unwrap().to_owned(), named.collect())
        })
        .collect()
}

fn pair(offset: u64, name: &str) -> (u64, String) {
    (offset, name.to_owned())
}

#[test]
fn an_unexported_symbol_becomes_a_livepatch_symbol_and_the_rest_stays() {
    let converted =
        convert(&module(&["kfree", "secret", "printk"], ".init.text"), &set(&["secret"])).unwrap();
    let klp = KlpSymbol {
        object: "vmlinux".to_owned(),
        target: "vmlinux".to_owned(),
        name: "secret".to_owned(),
        position: 0,
    };
    assert_eq!(converted.symbols, [klp]);
    let found = relocations(&converted.bytes);
    for section in [".text", ".init.text"] {
        assert_eq!(found[&format!(".rela{section}")], [pair(0, "kfree"), pair(16, "printk")]);
        assert_eq!(found[&format!(".klp.rela.vmlinux.{section}")], [pair(8, ".klp.sym.vmlinux.secret,0")]);
    }
    assert_eq!(undefined(&converted.bytes), set(&["kfree", "printk"]));
}

fn undefined(bytes: &[u8]) -> BTreeSet<String> {
    super::undefined(bytes).unwrap()
}

#[test]
fn livepatch_symbols_and_sections_carry_the_kernels_marks() {
    let converted = convert(&module(&["secret"], ".init.text"), &set(&["secret"])).unwrap();
    let file = ElfFile64::<LE>::parse(converted.bytes.as_slice()).unwrap();
    let symbol = file.symbols().find(|s| s.name() == Ok(".klp.sym.vmlinux.secret,0")).unwrap();
    assert_eq!(symbol.elf_symbol().st_shndx.get(LE).0, SHN_LIVEPATCH);
    let section = file.section_by_name(".klp.rela.vmlinux..text").unwrap();
    let header = section.elf_section_header();
    assert_eq!(header.sh_flags.get(LE).0, SHF_RELA_LIVEPATCH | 0x2 | 0x40);
    let text = file.section_by_name(".text").unwrap().index().0;
    assert_eq!(header.sh_info.get(LE) as usize, text);
}

#[test]
fn an_encoded_name_says_object_name_and_position() {
    let converted = convert(&module(&["__klpsym_vmlinux____do_it__2"], ".init.text"), &set(&[])).unwrap();
    let klp = KlpSymbol {
        object: "vmlinux".to_owned(),
        target: "vmlinux".to_owned(),
        name: "__do_it".to_owned(),
        position: 2,
    };
    assert_eq!(converted.symbols, [klp]);
    for bad in ["__klpsym_vmlinux", "__klpsym_vmlinux__x", "__klpsym___x__1", "__klpsym_vmlinux__x__one"] {
        let error = convert(&module(&[bad], ".init.text"), &set(&[])).unwrap_err();
        assert_eq!(error, Error::Encoding(bad.to_owned()));
    }
}

#[test]
fn two_objects_get_sections_of_their_own() {
    let calls = ["__klpsym_vmlinux__a__0", "__klpsym_exfat__b__1", "kfree"];
    let found = relocations(&convert(&module(&calls, ".init.text"), &set(&[])).unwrap().bytes);
    assert_eq!(found[".klp.rela.exfat..text"], [pair(8, ".klp.sym.exfat.b,1")]);
    assert_eq!(found[".klp.rela.vmlinux..text"], [pair(0, ".klp.sym.vmlinux.a,0")]);
}

#[test]
fn a_module_that_needs_nothing_unexported_keeps_its_relocations() {
    let before = module(&["kfree"], ".init.text");
    let after = convert(&before, &set(&["secret"])).unwrap();
    assert!(after.symbols.is_empty());
    assert_eq!(relocations(&before), relocations(&after.bytes));
}

#[test]
fn the_same_module_is_always_converted_to_the_same_bytes() {
    let before = module(&["__klpsym_exfat__b__1", "secret", "kfree"], ".init.text");
    let convert = || convert(&before, &set(&["secret"])).unwrap().bytes;
    assert_eq!(convert(), convert());
}

#[test]
fn debug_information_is_refused() {
    let error = convert(&module(&["kfree"], ".debug_info"), &set(&[])).unwrap_err();
    assert_eq!(error, Error::DebugInformation(".debug_info".to_owned()));
}

#[test]
fn a_module_is_converted_once() {
    let once = convert(&module(&["secret"], ".init.text"), &set(&["secret"])).unwrap().bytes;
    assert_eq!(convert(&once, &set(&[])).unwrap_err(), Error::Converted);
}

#[test]
fn damaged_files_are_refused_and_never_a_panic() {
    assert!(matches!(convert(b"", &set(&[])), Err(Error::NotAModule(_))));
    let good = module(&["secret", "kfree"], ".init.text");
    for length in 0..good.len() {
        assert!(convert(&good[..length], &set(&["secret"])).is_err(), "cut at {length}");
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        let _ = convert(&bad, &set(&["secret"]));
    }
}
