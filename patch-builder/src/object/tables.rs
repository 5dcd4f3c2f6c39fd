//! The tables that say something about functions, as far as they are about those taken.

use super::Section;
use super::compare::may_be_copied;
use super::cut::{Fill, Key, Part, To};
use super::extract::Walk;
use super::instruction::{self, Use};
use super::resolve::Source;
use super::special::{self, Entry, TABLES, UNWIND};
use super::target::{Reference, Target};
use crate::refusal::{Gate, Refusal};

impl<'o> Walk<'_, 'o> {
    /// Enters what the tables say about the functions taken so far; whether that needed more.
    pub(super) fn tables(&mut self) -> Result<bool, Refusal> {
        let after = self.after;
        let regular = |e: special::Irregular| Refusal::new(Gate::KnownSections, e.0);
        for layout in TABLES.iter().filter(|t| !(t.by_objtool && self.world.objtool_at_link)) {
            let Some(section) = after.section(layout.name) else { continue };
            let entries = special::entries(after, section, layout).map_err(regular)?;
            for (n, entry) in entries.iter().enumerate() {
                self.enter(layout.name, n, section, entry)?;
            }
            if layout.name == special::UNWIND_PLACES {
                self.unwind_starts(section, &entries)?;
            }
        }
        if self.world.objtool_at_link {
            for layout in &special::REMARKS {
                let Some(section) = after.section(layout.name) else { continue };
                let entries = special::entries(after, section, layout).map_err(regular)?;
                for (n, entry) in entries.iter().enumerate() {
                    self.enter(layout.name, n, section, entry)?;
                }
            }
        }
        if self.queue.is_empty() {
            self.cut.tables = std::mem::take(&mut self.tables).into_values().collect();
            return Ok(false);
        }
        Ok(true)
    }

    /// Where one function ends as the next of its section begins, objtool says it once, and not for the next: the
    /// last entry before a function is the one for its beginning.
    fn unwind_starts(&mut self, section: &Section<'o>, entries: &[Entry<'o>]) -> Result<(), Refusal> {
        let after = self.after;
        let place = |entry: &Entry| {
            let (number, offset) = entry.code()?;
            let symbol = after.symbols.get(number)?;
            Some((symbol.section()?, symbol.value.checked_add_signed(offset)?))
        };
        let taken: Vec<usize> = self
            .cut
            .parts
            .keys()
            .filter_map(|key| match key {
                Key::Unit(number) => Some(*number),
                Key::Block(..) => None,
            })
            .collect();
        self.unwind_blocks(section, entries)?;
        for number in taken {
            let Some(symbol) = after.symbols.get(number).filter(|symbol| after.shares(symbol).is_some())
            else {
                continue;
            };
            if entries.iter().any(|entry| entry.code() == Some((number, 0)))
                || !self.entered.insert(("the beginning of a function", number))
            {
                continue;
            }
            let before = |entry: &&Entry| {
                place(entry)
                    .is_some_and(|(section, at)| Some(section) == symbol.section() && at < symbol.value)
            };
            let Some(last) = entries.iter().filter(before).max_by_key(|entry| place(entry)) else {
                let what = format!("{}: nothing says how to unwind from its beginning", symbol.name);
                return Err(Refusal::new(Gate::OwnSection, what));
            };
            self.unwind_as(last, Key::Unit(number), section);
        }
        Ok(())
    }

    /// Enters what `entry` says of how to unwind for the beginning of a part.
    pub(super) fn unwind_as(&mut self, entry: &Entry<'o>, key: Key, section: &Section<'o>) {
        let fills = entry.references.iter().map(|reference| Fill {
            offset: reference.relocation.offset,
            kind: reference.relocation.kind,
            to: To::Part(key),
            addend: 0,
        });
        let places = self
            .tables
            .entry(special::UNWIND_PLACES)
            .or_insert_with(|| empty(special::UNWIND_PLACES, section));
        append(places, &entry.bytes, fills.collect());
        let unwind = self.after.section(UNWIND).unwrap_or(section);
        append(self.tables.entry(UNWIND).or_insert_with(|| empty(UNWIND, unwind)), entry.unwind, Vec::new());
    }

    fn enter(
        &mut self,
        table: &'static str,
        n: usize,
        section: &Section<'o>,
        entry: &Entry<'o>,
    ) -> Result<(), Refusal> {
        let (key, offset) = match entry.code() {
            Some((number, offset)) => (Key::Unit(number), offset),
            None => match entry.references.first().map(|r| r.target) {
                Some(Target::Nameless(section, at)) => match self.block_around(section, at) {
                    Some((key, offset)) => (key, offset),
                    None => return Ok(()),
                },
                _ => return Ok(()),
            },
        };
        if !self.cut.parts.contains_key(&key) || self.entered.contains(&(table, n)) {
            return Ok(());
        }
        self.entered.insert((table, n));
        if self.skips_key(table, entry)? {
            if special::is_no_jump(table, entry) {
                self.make_nothing(key, offset);
            }
            return Ok(());
        }
        let holder = match key {
            Key::Unit(number) => self.after.symbols.get(number).map_or(table, |s| s.name),
            Key::Block(..) => table,
        };
        let mut fills = Vec::new();
        for (m, reference) in entry.references.iter().enumerate() {
            let fill = if m == 0 {
                let relocation = reference.relocation;
                Fill { offset: relocation.offset, kind: relocation.kind, to: To::Part(key), addend: offset }
            } else if let Some(fill) = self.replacement(entry, reference, (key, offset))? {
                fill
            } else {
                self.fill_of_table(holder, key, reference)?
            };
            fills.push(fill);
        }
        let part = self.tables.entry(table).or_insert_with(|| empty(table, section));
        append(part, &entry.bytes, fills);
        if !entry.unwind.is_empty() {
            let unwind = self.after.section(UNWIND);
            let part = self.tables.entry(UNWIND).or_insert_with(|| empty(UNWIND, unwind.unwrap_or(section)));
            append(part, entry.unwind, Vec::new());
        }
        Ok(())
    }

    /// Does at `offset` of a function what objtool would do if the place were in its table.
    fn make_nothing(&mut self, key: Key, offset: i64) {
        let Some(part) = self.cut.parts.get_mut(&key) else { return };
        let Some(start) = part.padding.checked_add_signed(offset) else { return };
        let Ok(at) = usize::try_from(start) else { return };
        let end = start + instruction::make_nothing(&mut part.bytes, at) as u64;
        part.fills.retain(|fill| !(start..end).contains(&fill.offset));
    }

    /// A reference of a table to code is to a place in it, not to the function.
    fn fill_of_table(&mut self, holder: &str, key: Key, reference: &Reference) -> Result<Fill, Refusal> {
        let relocation = reference.relocation;
        let inside = match (reference.target, key) {
            (Target::Unit(number, offset), Key::Unit(own)) if number == own => Some(offset),
            _ => None,
        };
        match inside {
            Some(addend) => {
                Ok(Fill { offset: relocation.offset, kind: relocation.kind, to: To::Part(key), addend })
            }
            // The kernel goes on there, or looks at what it finds there: as for a jump, another function's place
            // must be of the code that is meant.
            None if matches!(reference.target, Target::Unit(_, offset) if offset != 0) => {
                self.fill(holder, None, &Reference { used: Use::Branch, ..*reference }, 0)
            }
            None => self.fill(holder, None, reference, 0),
        }
    }

    /// The block out of line, of [`special::AUXILIARY`] or [`special::FIXUP`], already taken that covers an offset.
    fn block_around(&self, section: usize, offset: i64) -> Option<(Key, i64)> {
        if offset < 0 {
            return None;
        }
        let (key, part) =
            self.cut.parts.range(Key::Block(section, 0)..=Key::Block(section, offset)).next_back()?;
        let Key::Block(_, start) = *key else { return None };
        (offset - start < i64::try_from(part.size).ok()?).then_some((*key, offset - start))
    }

    /// Code that `.altinstructions` puts in place: copied, as long as the entry says. `own` is the place
    /// that the entry is about.
    fn replacement(
        &mut self,
        entry: &Entry,
        reference: &Reference,
        own: (Key, i64),
    ) -> Result<Option<Fill>, Refusal> {
        let Target::Nameless(index, offset) = reference.target else { return Ok(None) };
        let Some(section) = self.after.sections.get(index).filter(|s| s.name == special::REPLACEMENT) else {
            return Ok(None);
        };
        let length = entry.bytes.last().copied().map_or(0, usize::from);
        let relocation = reference.relocation;
        if length == 0 {
            // Nothing is read from there, and the next entry's code begins at the same place.
            let (key, addend) = own;
            let to = To::Part(key);
            return Ok(Some(Fill { offset: relocation.offset, kind: relocation.kind, to, addend }));
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let unknown = || Refusal::new(Gate::KnownCode, format!("{}+{offset:#x}", special::REPLACEMENT));
        let code = section.data.get(start..start.saturating_add(length)).ok_or_else(unknown)?;
        let key = Key::Block(index, offset);
        if self.wanted.insert(key) {
            let part = self.code(section, start as u64, code, special::REPLACEMENT)?;
            self.cut.parts.insert(key, part);
        }
        if self.cut.parts.get(&key).is_none_or(|part| part.size != length as u64) {
            return Err(unknown());
        }
        Ok(Some(Fill { offset: relocation.offset, kind: relocation.kind, to: To::Part(key), addend: 0 }))
    }

    /// The kernel reads keys when it loads the patch. Those of a module that is patched are found
    /// later: a tracepoint is left out and stays silent, anything else is refused.
    fn skips_key(&mut self, table: &str, entry: &Entry) -> Result<bool, Refusal> {
        if self.world.object == super::resolve::VMLINUX
            || ![special::JUMP_LABELS, ".static_call_sites"].contains(&table)
        {
            return Ok(false);
        }
        let key = match entry.references.last().map(|r| r.target) {
            Some(Target::External(name, _)) => match self.world.external(name)? {
                Source::Export => return Ok(false),
                Source::Own(_) | Source::Patch | Source::Module(..) => name,
            },
            Some(Target::Unit(number, _)) => match self.after.symbols.get(number) {
                Some(symbol) if may_be_copied(symbol.name) => return Ok(false),
                Some(symbol) => symbol.name,
                None => return Ok(false),
            },
            _ => return Ok(false),
        };
        if key.starts_with("__tracepoint_") || key.starts_with("__SCK__tp_func_") {
            self.cut.notes.insert(format!("{key} is silent in the new functions"));
            return Ok(true);
        }
        Err(Refusal::new(Gate::StaticKeys, format!("{key} of {}", self.world.object)))
    }

    /// Every section that refers to a function taken is one that is known.
    pub(super) fn unknown_sections(&self) -> Result<(), Refusal> {
        for (index, section) in self.after.sections.iter().enumerate() {
            let known = TABLES.iter().any(|t| t.name == section.name)
                || special::REMARKS.iter().any(|t| t.name == section.name)
                || special::is_out_of_line(section.name)
                || section.name == special::REPLACEMENT
                || special::is_of_the_original(section.name)
                || section.is_code();
            if known {
                continue;
            }
            for relocation in &section.relocations {
                // Data has symbols, and is taken or left as such.
                if self.after.symbol_at(index, relocation.offset).is_some() {
                    continue;
                }
                if let Target::Unit(number, _) = self.after.reference(*relocation, None).target
                    && self.wanted.contains(&Key::Unit(number))
                    && let Some(symbol) = self.after.symbols.get(number)
                {
                    let what = format!("{} says something about {}", section.name, symbol.name);
                    return Err(Refusal::new(Gate::KnownSections, what));
                }
            }
        }
        Ok(())
    }
}

fn empty(name: &str, section: &Section) -> Part {
    Part {
        section: name.to_owned(),
        kind: section.kind,
        flags: section.flags,
        align: section.align,
        bytes: Vec::new(),
        size: 0,
        padding: 0,
        symbol: None,
        fills: Vec::new(),
    }
}

fn append(part: &mut Part, bytes: &[u8], fills: Vec<Fill>) {
    let at = part.bytes.len() as u64;
    part.fills.extend(fills.into_iter().map(|fill| Fill { offset: fill.offset + at, ..fill }));
    part.bytes.extend_from_slice(bytes);
    part.size = part.bytes.len() as u64;
}
