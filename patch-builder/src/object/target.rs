//! What a place in an object refers to, in a form that two compilations of a file share.

use super::instruction::{Fields, Use};
use super::{Kind, Object, Place, Relocation, Symbol, is_relative};

/// What one relocation refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A symbol of another object, and an offset from it.
    External(&'a str, i64),
    /// A symbol of this object by its number, and an offset from it.
    Unit(usize, i64),
    /// A text of the string sections, with its end.
    Text(&'a [u8]),
    /// A constant that may be stored once for all, and an offset into it.
    Constant(&'a [u8], u64),
    /// A place in a section that belongs to no symbol.
    Nameless(usize, i64),
    /// A number.
    Number(i64),
}

/// A relocation with what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reference<'a> {
    /// Where, and how it is written. Its addend is that of the object.
    pub relocation: Relocation,
    /// What it refers to.
    pub target: Target<'a>,
    /// What must be taken from the target's offset to get the addend again.
    pub tail: i64,
    /// What for; data only ever holds addresses.
    pub used: Use,
}

impl<'a> Object<'a> {
    /// What `relocation` refers to. `fields` are those of the code that it is in, with the same
    /// offsets as the relocation has; none in data.
    pub fn reference(&self, relocation: Relocation, fields: Option<&Fields>) -> Reference<'a> {
        let field = fields.and_then(|fields| fields.get(&relocation.offset));
        let tail = match field {
            Some(field) if is_relative(relocation.kind) => i64::from(field.tail),
            // Data counts from the place itself.
            _ => 0,
        };
        Reference {
            relocation,
            target: self.target(relocation, tail),
            tail,
            used: field.map_or(Use::Address, |field| field.used),
        }
    }

    fn target(&self, relocation: Relocation, tail: i64) -> Target<'a> {
        let addend = relocation.addend.wrapping_add(tail);
        let Some(symbol) = self.symbols.get(relocation.symbol) else { return Target::Number(addend) };
        let section = match symbol.place {
            Place::Undefined if symbol.name.is_empty() => return Target::Number(addend),
            Place::Undefined => return Target::External(symbol.name, addend),
            Place::Absolute => return Target::Number(addend.wrapping_add_unsigned(symbol.value)),
            Place::Section(section) => section,
        };
        let offset = addend.wrapping_add_unsigned(symbol.value);
        if let Some(merged) = self.merged(section, offset) {
            return merged;
        }
        if matches!(symbol.kind, Kind::Function | Kind::Data) && symbol.size > 0 {
            return Target::Unit(relocation.symbol, addend);
        }
        self.unit_at(section, offset).unwrap_or(Target::Nameless(section, offset))
    }

    /// Content that the linker stores once, wherever it lies.
    fn merged(&self, section: usize, offset: i64) -> Option<Target<'a>> {
        let section = self.sections.get(section)?;
        let at = usize::try_from(offset).ok()?;
        if section.is_mergeable(true) && section.entry <= 1 {
            let rest = section.data.get(at..)?;
            return Some(Target::Text(rest.get(..=rest.iter().position(|b| *b == 0)?)?));
        }
        if section.is_mergeable(false) && section.entry > 0 {
            let entry = usize::try_from(section.entry).ok()?;
            let start = at / entry * entry;
            let bytes = section.data.get(start..start.checked_add(entry)?)?;
            return Some(Target::Constant(bytes, (at - start) as u64));
        }
        None
    }

    fn unit_at(&self, section: usize, offset: i64) -> Option<Target<'a>> {
        let at = u64::try_from(offset).ok()?;
        // One past the end of an array is a place that C code may name.
        let is_code = self.sections.get(section)?.is_code();
        let symbol = self
            .symbol_at(section, at)
            .or_else(|| self.symbol_at(section, at.checked_sub(1)?).filter(|_| !is_code))?;
        let number = self.number(symbol)?;
        Some(Target::Unit(number, offset.wrapping_sub_unsigned(symbol.value)))
    }

    /// The number of one of this object's own symbols.
    pub fn number(&self, symbol: &Symbol<'a>) -> Option<usize> {
        let here = |n: &usize| self.symbols.get(*n).is_some_and(|s| std::ptr::eq(s, symbol));
        self.by_section.get(&symbol.section()?)?.iter().copied().find(here)
    }
}

/// A name without the numbers that a compiler gives out in the order of a file: `__func__.12` and
/// `__func__.13` are the same to a person, and so are `f.isra.0` and `f.isra.1`.
pub fn base(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("__BTF_ID__") {
        let end = rest.rfind("__").unwrap_or(rest.len());
        return format!("__BTF_ID__{}", rest.get(..end).unwrap_or(rest));
    }
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<_> = name.split('.').collect();
    let (first, rest) = parts.split_first().unwrap_or((&name, &[]));
    let first = if first.starts_with("__UNIQUE_ID_") {
        first.trim_end_matches(|c: char| c.is_ascii_digit())
    } else {
        first
    };
    let kept: Vec<_> = rest.iter().copied().filter(|part| !is_number(part)).collect();
    [&[first], kept.as_slice()].concat().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_compiler_are_not_part_of_a_name() {
        for (name, without) in [
            ("__func__.12", "__func__"),
            ("f.isra.0", "f.isra"),
            ("f.constprop.0.cold", "f.constprop.cold"),
            ("__UNIQUE_ID_ddebug512.3", "__UNIQUE_ID_ddebug"),
            ("__BTF_ID__func__bpf_get__1234", "__BTF_ID__func__bpf_get"),
            ("plain_2", "plain_2"),
        ] {
            assert_eq!(base(name), without);
        }
    }
}
