//! A file without its debug information, which is nine tenths of a kernel built for debugging.

use object::elf::{self, FileHeader64, SectionHeader64};
use object::pod;
use object::read::ReadRef;
use object::read::elf::{FileHeader as _, SectionHeader as _};
use object::{LittleEndian as LE, U16, U64};

use super::Malformed;

/// `file` with the content of all sections but those for a debugger. Sections keep their numbers,
/// and so everything that refers to them stays true; those dropped are empty.
///
/// # Errors
///
/// It is not an ELF file.
pub fn slim<'data>(file: impl ReadRef<'data>) -> Result<Vec<u8>, Malformed> {
    let bad = |_| Malformed("its sections");
    let header = FileHeader64::<LE>::parse(file).map_err(bad)?;
    let table = header.sections(LE, file).map_err(bad)?;
    let mut out = vec![0; size_of::<FileHeader64<LE>>()];
    let mut headers: Vec<SectionHeader64<LE>> = Vec::with_capacity(table.len());
    for section in table.iter() {
        let name = table.section_name(LE, section).map_err(bad)?;
        let mut header = *section;
        if name.starts_with(b".debug") || name.starts_with(b".rela.debug") {
            header.sh_size = U64::new(LE, 0);
            header.sh_offset = U64::new(LE, out.len() as u64);
        } else if section.sh_type.get(LE) != elf::SHT_NOBITS && section.sh_type.get(LE) != elf::SHT_NULL {
            let data = section.data(LE, file).map_err(bad)?;
            out.resize(out.len().next_multiple_of(8), 0);
            header.sh_offset = U64::new(LE, out.len() as u64);
            out.extend_from_slice(data);
        }
        headers.push(header);
    }
    out.resize(out.len().next_multiple_of(8), 0);
    let mut header = *header;
    header.e_shoff = U64::new(LE, out.len() as u64);
    // Segments are for loading, and nothing is loaded from here.
    header.e_phoff = U64::new(LE, 0);
    header.e_phnum = U16::new(LE, 0);
    out.extend_from_slice(pod::bytes_of_slice(&headers));
    let header = pod::bytes_of(&header);
    out.get_mut(..header.len()).ok_or(Malformed("its header"))?.copy_from_slice(header);
    Ok(out)
}
