//! Functions that share a section, as those of `.sched.text` do. The assembler has filled in where one calls
//! another: the places are found in the code, and are relocations from then on, as between functions of
//! sections of their own.

use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind};
use object::elf;

use super::{Kind, Object, Relocation, Symbol};

/// A place in a function that refers to another place of its section, and that nothing names.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Offset in the section.
    offset: u64,
    /// Length in bytes.
    length: usize,
    /// Bytes from there to the end of the instruction.
    tail: u64,
    /// What is referred to, by its offset in the section.
    to: u64,
}

impl<'a> Object<'a> {
    /// Adds the relocations between functions that share a section.
    pub(super) fn name_neighbours(&mut self) {
        let mut named = Vec::new();
        for function in self.functions().filter(|function| self.shares(function).is_some()) {
            let Some(section) = function.section() else { continue };
            for place in self.unnamed(function).filter(|place| place.length == 4) {
                let Some(symbol) = self.symbol_at(section, place.to).filter(|s| s.kind == Kind::Function)
                else {
                    continue;
                };
                let Some(number) = self.number(symbol) else { continue };
                let addend =
                    place.to.cast_signed().wrapping_sub_unsigned(symbol.value.wrapping_add(place.tail));
                let kind = elf::R_X86_64_PLT32.0;
                named.push((section, Relocation { offset: place.offset, kind, symbol: number, addend }));
            }
        }
        // Several names of one function have the same places.
        named.sort_by_key(|(section, relocation)| (*section, relocation.offset));
        named.dedup_by_key(|(section, relocation)| (*section, relocation.offset));
        for (section, relocation) in named {
            if let Some(section) = self.sections.get_mut(section) {
                section.relocations.push(relocation);
            }
        }
        for section in &mut self.sections {
            section.relocations.sort_by_key(|relocation| relocation.offset);
        }
    }

    /// Another function in the section of `function`; the name of the bytes before one is none.
    pub(super) fn shares(&self, function: &Symbol) -> Option<&Symbol<'a>> {
        let mut others = self
            .symbols_in(function.section()?)
            .filter(|s| s.kind == Kind::Function && s.size > 0 && !s.name.starts_with(PREFIX));
        others.find(|s| (s.value, s.size) != (function.value, function.size))
    }

    /// Whether `function` refers to a place of its section outside of it that no relocation names.
    pub(super) fn has_unnamed(&self, function: &Symbol) -> bool {
        self.unnamed(function).next().is_some()
    }

    /// Those places of `function`, by their offsets in it, with what they refer to.
    pub(super) fn unnamed_targets(&self, function: &Symbol) -> Vec<(u64, &'a str, i64)> {
        let Some(section) = function.section() else { return Vec::new() };
        let target = |place: Place| {
            let symbol = self.symbol_at(section, place.to);
            let of = |symbol: &Symbol<'a>| {
                (symbol.name, place.to.cast_signed().wrapping_sub_unsigned(symbol.value))
            };
            let (name, into) = symbol.map_or(("", place.to.cast_signed()), of);
            (place.offset.wrapping_sub(function.value), name, into)
        };
        self.unnamed(function).map(target).collect()
    }

    fn unnamed(&self, function: &Symbol) -> impl Iterator<Item = Place> {
        let named: Vec<u64> =
            self.relocations_of(function).iter().map(|r| r.offset.wrapping_add(function.value)).collect();
        let (start, end) = (function.value, function.end());
        let address = self.section_of(function).map_or(0, |section| section.address);
        let mut decoder =
            Decoder::with_ip(64, self.bytes_of(function), start.wrapping_sub(address), DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        std::iter::from_fn(move || {
            decoder.can_decode().then(|| {
                decoder.decode_out(&mut instruction);
                let at = decoder.get_constant_offsets(&instruction);
                let (field, length, to) = if instruction.op0_kind() == OpKind::NearBranch64 {
                    (at.immediate_offset(), at.immediate_size(), instruction.near_branch64())
                } else if instruction.is_ip_rel_memory_operand() {
                    (at.displacement_offset(), at.displacement_size(), instruction.ip_rel_memory_address())
                } else {
                    return None;
                };
                let tail = (instruction.len() - field) as u64;
                Some(Place { offset: instruction.ip().wrapping_add(field as u64), length, tail, to })
            })
        })
        .flatten()
        .filter(move |place| !named.contains(&place.offset) && !(start..end).contains(&place.to))
    }
}

/// What the name of the bytes before a function begins with, where objtool gives them one.
pub(super) const PREFIX: &str = "__pfx_";

#[cfg(test)]
mod tests {
    use crate::object::Object;
    use crate::sample::compile;

    const SHARED: &str = "#define SCHED __attribute__((noinline, section(\".sched.text\")))\n\
        void far(int n);\nSCHED static int low(int n) { far(n); return n + 1; }\n\
        SCHED int high(int n) { far(2); return low(n) + low(n + 2); }\n";

    #[test]
    fn a_call_within_a_section_is_named() {
        let compiled = compile(SHARED, &[]);
        let object = Object::parse(&compiled.object).unwrap();
        let function = |name: &str| object.functions().find(|s| s.name == name).unwrap();
        let (low, high) = (function("low"), function("high"));
        assert_eq!(object.shares(high).unwrap().name, "low");
        let to_low = object.relocations_of(high).into_iter().filter(|r| Some(r.symbol) == object.number(low));
        let to_low: Vec<i64> = to_low.map(|relocation| relocation.addend).collect();
        assert_eq!(to_low, [-4, -4]);
        assert!(!object.has_unnamed(high) && !object.has_unnamed(low));
    }

    #[test]
    fn a_jump_too_short_to_be_moved_has_no_name() {
        let text = format!("{SHARED}SCHED int last(int n) {{ return low(n); }}\n");
        let compiled = compile(&text, &[]);
        let object = Object::parse(&compiled.object).unwrap();
        let last = object.functions().find(|s| s.name == "last").unwrap();
        assert!(object.has_unnamed(last));
    }
}
