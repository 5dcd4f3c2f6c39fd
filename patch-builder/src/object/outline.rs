//! Code out of line: pieces of functions that the assembler keeps elsewhere, without symbols, and that are taken
//! with the functions that come to them.

use std::collections::BTreeSet;

use super::cut::{Key, Part};
use super::extract::Walk;
use super::instruction;
use super::special::{self, Entry};
use super::target::Target;
use super::{Relocation, Section};
use crate::refusal::{Gate, Refusal};

impl<'o> Walk<'_, 'o> {
    /// Code out of line, up to its last jump.
    pub(super) fn block(&mut self, index: usize, offset: i64) -> Result<Part, Refusal> {
        let name = self.after.sections.get(index).map_or("", |section| section.name);
        if name == special::FIXUP && self.world.is_preemptible {
            let what = format!("{name}+{offset:#x}: on a preemptible kernel a task may sleep there unseen");
            return Err(Refusal::new(Gate::KnownCode, what));
        }
        let unknown = || Refusal::new(Gate::KnownCode, format!("{name}+{offset:#x}"));
        let section = self.after.sections.get(index).ok_or_else(unknown)?;
        let start = usize::try_from(offset).map_err(|_| unknown())?;
        let rest = section.data.get(start..).ok_or_else(unknown)?;
        let code = rest.get(..instruction::block(rest).ok_or_else(unknown)?).ok_or_else(unknown)?;
        if name == special::FIXUP
            && (!instruction::stays(code, &named(section, start, code)) || self.meets(index, offset, code))
        {
            return Err(unknown());
        }
        self.code(section, start as u64, code, name)
    }

    /// Whether a block that is taken already has a part of `code` in it: what the tables say of it could not be
    /// said of both.
    fn meets(&self, index: usize, offset: i64, code: &[u8]) -> bool {
        let end = |start: i64, size: u64| start.saturating_add_unsigned(size);
        self.cut.parts.range(Key::Block(index, i64::MIN)..=Key::Block(index, i64::MAX)).any(|(key, part)| {
            matches!(*key, Key::Block(_, start)
                if start < end(offset, code.len() as u64) && offset < end(start, part.size))
        })
    }

    /// A part made of `code`, which has no symbol and begins at `start` of `section`.
    pub(super) fn code(
        &mut self,
        section: &Section,
        start: u64,
        code: &[u8],
        name: &str,
    ) -> Result<Part, Refusal> {
        let fields = instruction::fields(code);
        let mut fills = Vec::new();
        for relocation in &section.relocations {
            let Some(into) = relocation.offset.checked_sub(start).filter(|o| *o < code.len() as u64) else {
                continue;
            };
            if !fields.contains_key(&into) {
                return Err(Refusal::new(Gate::KnownCode, format!("{name}+{:#x}", relocation.offset)));
            }
            let reference = self.after.reference(Relocation { offset: into, ..*relocation }, Some(&fields));
            fills.push(self.fill(name, None, &reference, 0)?);
        }
        Ok(Part {
            section: name.to_owned(),
            kind: section.kind,
            flags: section.flags,
            align: section.align,
            bytes: code.to_vec(),
            size: code.len() as u64,
            padding: 0,
            symbol: None,
            fills,
        })
    }

    /// Says how to unwind from the beginning of each block: where that is as before it, objtool has not said it
    /// again.
    pub(super) fn unwind_blocks(
        &mut self,
        section: &Section<'o>,
        entries: &[Entry<'o>],
    ) -> Result<(), Refusal> {
        let place = |entry: &Entry| match entry.references.first()?.target {
            Target::Nameless(section, at) => Some((section, at)),
            _ => None,
        };
        let of_fixup = |key: &Key| match *key {
            Key::Block(section, start) => {
                let section_name = self.after.sections.get(section).map_or("", |section| section.name);
                (section_name == special::FIXUP).then_some((section, start))
            }
            Key::Unit(_) => None,
        };
        let blocks: Vec<(usize, i64)> = self.cut.parts.keys().filter_map(of_fixup).collect();
        for (block, start) in blocks {
            let is_said = |entry: &Entry| place(entry) == Some((block, start));
            if entries.iter().any(is_said) || !self.blocks_unwound.insert((block, start)) {
                continue;
            }
            let before = |entry: &&Entry| place(entry).is_some_and(|(of, at)| of == block && at < start);
            let Some(last) = entries.iter().filter(before).max_by_key(|entry| place(entry)) else {
                let what = format!("{}+{start:#x}: nothing says how to unwind", special::FIXUP);
                return Err(Refusal::new(Gate::KnownCode, what));
            };
            self.unwind_as(last, Key::Block(block, start), section);
        }
        Ok(())
    }
}

/// The places in `code`, which begins at `start` of `section`, that a relocation fills in.
pub(super) fn named(section: &Section, start: usize, code: &[u8]) -> BTreeSet<u64> {
    let into = |relocation: &Relocation| relocation.offset.checked_sub(start as u64);
    section.relocations.iter().filter_map(into).filter(|into| *into < code.len() as u64).collect()
}
