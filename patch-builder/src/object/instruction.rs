//! What the places in code mean that a linker fills in.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};

/// What an instruction does with the place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Goes there: a call or a jump.
    Branch,
    /// Reads, writes or computes the address.
    Address,
}

/// A field of an instruction that can hold an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Bytes from the field's beginning to the end of its instruction: a processor counts from there.
    pub tail: u8,
    /// What for.
    pub used: Use,
}

/// The fields of all instructions of a function, by their offsets.
pub type Fields = BTreeMap<u64, Field>;

/// Decodes `code`. Where the decoder loses its way the fields that follow are missing, and the
/// references in them will be refused.
pub fn fields(code: &[u8]) -> Fields {
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut fields = Fields::new();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let at = decoder.get_constant_offsets(&instruction);
        let used = if instruction.op0_kind() == OpKind::NearBranch64 { Use::Branch } else { Use::Address };
        let length = instruction.len();
        let places = [
            (at.has_displacement(), at.displacement_offset(), Use::Address),
            (at.has_immediate(), at.immediate_offset(), used),
        ];
        for (_, offset, used) in places.into_iter().filter(|(there, ..)| *there) {
            let tail = u8::try_from(length.saturating_sub(offset)).unwrap_or_default();
            fields.insert(instruction.ip() + offset as u64, Field { tail, used });
        }
    }
    fields
}

/// The length of `code` up to and with its first jump that has no condition; `None` if there is
/// none.
pub fn block(code: &[u8]) -> Option<usize> {
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    decoder.iter().find(|i| i.mnemonic() == Mnemonic::Jmp)?;
    Some(decoder.position())
}

/// Whether `code` is understood, and its jumps and calls that no relocation fills in, at the places `named`, lead
/// nowhere else.
pub fn stays(code: &[u8], named: &BTreeSet<u64>) -> bool {
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let at = decoder.get_constant_offsets(&instruction);
        let is_named = named.contains(&instruction.ip().wrapping_add(at.immediate_offset() as u64));
        let leaves = instruction.op0_kind() == OpKind::NearBranch64
            && !is_named
            && instruction.near_branch64() >= code.len() as u64;
        if instruction.is_invalid() || leaves {
            return false;
        }
    }
    true
}

/// Writes over the jump at `at` of `code` what objtool does (tools/objtool/arch/x86/decode.c, `arch_nop_insn`);
/// how long it is, 0 if there is no such jump.
pub fn make_nothing(code: &mut [u8], at: usize) -> usize {
    let nothing: &[u8] = match code.get(at) {
        Some(0xeb) => &NOTHING_FOR_2,
        Some(0xe9) => &NOTHING_FOR_5,
        _ => return 0,
    };
    let Some(jump) = code.get_mut(at..at + nothing.len()) else { return 0 };
    jump.copy_from_slice(nothing);
    nothing.len()
}

/// Instructions of two and of five bytes that do nothing.
pub const NOTHING_FOR_2: [u8; 2] = [0x66, 0x90];
/// As above.
pub const NOTHING_FOR_5: [u8; 5] = [0x0f, 0x1f, 0x44, 0, 0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_before_an_immediate_is_counted_to_the_instructions_end() {
        // cmpb $0x0,0x0(%rip); movl $0x1,0x0(%rip); lea 0x0(%rip),%rax; call; jne
        let code = [
            &[0x80, 0x3d, 0, 0, 0, 0, 0][..],
            &[0xc7, 0x05, 0, 0, 0, 0, 1, 0, 0, 0],
            &[0x48, 0x8d, 0x05, 0, 0, 0, 0],
            &[0xe8, 0, 0, 0, 0],
            &[0x0f, 0x85, 0, 0, 0, 0],
        ]
        .concat();
        let found = fields(&code);
        let at = |offset| found.get(&offset).copied();
        assert_eq!(at(2), Some(Field { tail: 5, used: Use::Address }));
        assert_eq!(at(9), Some(Field { tail: 8, used: Use::Address }));
        assert_eq!(at(20), Some(Field { tail: 4, used: Use::Address }));
        assert_eq!(at(25), Some(Field { tail: 4, used: Use::Branch }));
        assert_eq!(at(31), Some(Field { tail: 4, used: Use::Branch }));
    }

    #[test]
    fn an_address_as_a_number_is_an_address() {
        // mov $0x0,%rdi (sign-extended); jmp *0x0(,%rax,8)
        let found = fields(&[0x48, 0xc7, 0xc7, 0, 0, 0, 0, 0xff, 0x24, 0xc5, 0, 0, 0, 0]);
        assert_eq!(found.get(&3), Some(&Field { tail: 4, used: Use::Address }));
        assert_eq!(found.get(&10), Some(&Field { tail: 4, used: Use::Address }));
    }
}
