//! What a patch module says of itself, read from the very buffer that will be loaded.

use std::collections::BTreeMap;

use object::{Object, ObjectSection};

/// Why a buffer is not a module that can be judged.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// Not an ELF file, or a damaged one.
    #[error("not an ELF file")]
    Elf(#[from] object::Error),
    /// No `.modinfo`.
    #[error("no .modinfo section")]
    NoModinfo,
    /// A field that must be there once is missing or stands there twice.
    #[error("modinfo field {0} missing or repeated")]
    Field(&'static str),
}

/// The fields of `.modinfo` that Invivo's patch modules have; see `kmod/README.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modinfo {
    /// `name`
    pub name: String,
    /// `vermagic`
    pub vermagic: String,
    /// `livepatch`
    pub livepatch: String,
    /// `invivo_abi`
    pub abi: String,
    /// `invivo_level`
    pub level: String,
    /// `invivo_set`
    pub set: String,
    /// `invivo_build_id`
    pub build_id: String,
}

/// Ends every signed module.
const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";

/// Whether the module carries a signature for the kernel's own check.
pub fn is_signed(image: &[u8]) -> bool {
    image.ends_with(SIGNATURE_MARK)
}

/// Reads `.modinfo`.
///
/// # Errors
///
/// `Elf`, `NoModinfo`, `Field`.
pub fn modinfo(image: &[u8]) -> Result<Modinfo, ModuleError> {
    let file = object::File::parse(image)?;
    let section = file.section_by_name(".modinfo").ok_or(ModuleError::NoModinfo)?;
    let mut fields: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
    for entry in section.data()?.split(|byte| *byte == 0) {
        let mut halves = entry.splitn(2, |byte| *byte == b'=');
        if let (Some(key), Some(value)) = (halves.next(), halves.next()) {
            fields.entry(key).or_default().push(value);
        }
    }
    let one = |key: &'static str| match fields.get(key.as_bytes()).map(Vec::as_slice) {
        Some([value]) => Ok(String::from_utf8_lossy(value).into_owned()),
        Some(_) | None => Err(ModuleError::Field(key)),
    };
    Ok(Modinfo {
        name: one("name")?,
        vermagic: one("vermagic")?,
        livepatch: one("livepatch")?,
        abi: one("invivo_abi")?,
        level: one("invivo_level")?,
        set: one("invivo_set")?,
        build_id: one("invivo_build_id")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::module_with;

    #[test]
    fn the_fields_are_read_from_the_buffer() {
        let image = module_with(&[
            ("name", "invivo_l1_0123456789abcdef"),
            ("vermagic", "6.1.0-47-cloud-amd64 SMP"),
            ("livepatch", "Y"),
            ("invivo_abi", "1"),
            ("invivo_level", "1"),
            ("invivo_set", "2026-11-21.1"),
            ("invivo_build_id", "ab"),
        ]);
        let info = modinfo(&image).unwrap();
        assert_eq!((info.name.as_str(), info.level.as_str()), ("invivo_l1_0123456789abcdef", "1"));
        assert!(!is_signed(&image));
        assert!(is_signed(&[image.as_slice(), SIGNATURE_MARK].concat()));
    }

    #[test]
    fn a_field_said_twice_is_not_believed() {
        let image = module_with(&[("name", "a"), ("name", "b")]);
        assert!(matches!(modinfo(&image), Err(ModuleError::Field("name"))));
    }

    #[test]
    fn what_is_no_module_is_an_error() {
        assert!(matches!(modinfo(b""), Err(ModuleError::Elf(_))));
        assert!(matches!(modinfo(&[0x7f; 4096]), Err(ModuleError::Elf(_))));
    }
}
