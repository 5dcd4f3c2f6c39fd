//! What a module says of itself (its section `.modinfo`), readable without loading it.

use object::read::elf::ElfFile64;
use object::{LittleEndian, Object as _, ObjectSection as _};

/// A module's fields in their order; a name may occur more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modinfo(Vec<(String, String)>);

/// A module's fields cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("module has no readable .modinfo")]
pub struct Error;

impl Modinfo {
    /// The fields of `module`.
    ///
    /// # Errors
    ///
    /// It is not an ELF file, or has no such section.
    pub fn of(module: &[u8]) -> Result<Self, Error> {
        let file = ElfFile64::<LittleEndian>::parse(module).map_err(|_| Error)?;
        let data = file.section_by_name(".modinfo").and_then(|s| s.data().ok()).ok_or(Error)?;
        Ok(Self::parse(data))
    }

    fn parse(data: &[u8]) -> Self {
        let fields = data.split(|b| *b == 0).filter_map(|entry| {
            let (name, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        Self(fields.collect())
    }

    /// The value of a field that occurs exactly once.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter().filter(|(n, _)| n == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_occurs_twice_has_no_value() {
        let info = Modinfo::parse(b"name=x\0\0depends=\0alias=a\0alias=b\0vermagic=6.1 SMP \0");
        assert_eq!((info.get("name"), info.get("depends")), (Some("x"), Some("")));
        assert_eq!((info.get("alias"), info.get("absent")), (None, None));
        assert_eq!(info.get("vermagic"), Some("6.1 SMP "));
    }

    #[test]
    fn what_is_no_module_has_no_fields() {
        assert_eq!(Modinfo::of(b"text"), Err(Error));
    }
}
