//! Takes the functions that differ out of the fixed object, with everything that they need and the
//! kernel does not have.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::compare::{Difference, blank, is_cold, is_init, may_be_copied};
use super::cut::{Cut, Fill, Key, Part, Replaced, To};
use super::instruction::{self, Use};
use super::kernel::NotFound;
use super::neighbours::PREFIX;
use super::resolve::{Source, World};
use super::special;
use super::target::{Reference, Target, base};
use super::{Kind, Object, Section, Symbol};
use crate::judge::UNTOUCHABLE;
use crate::refusal::{Gate, Refusal};

/// Takes what `difference` names out of `after`, and the new functions that it `gives` to other parts.
///
/// # Errors
///
/// Something cannot be taken, or needs what is nowhere.
pub fn extract(
    before: &Object,
    after: &Object,
    difference: &Difference,
    gives: &BTreeSet<String>,
    world: &World,
) -> Result<Cut, Refusal> {
    let mut walk = Walk::new(before, after, difference, world);
    walk.is_new_to_the_kernel(difference)?;
    walk.changed()?;
    while let Some(key) = walk.queue.pop_front() {
        walk.part(key)?;
    }
    walk.give(gives);
    loop {
        while let Some(key) = walk.queue.pop_front() {
            walk.part(key)?;
        }
        if !walk.tables()? {
            break;
        }
    }
    walk.unknown_sections()?;
    walk.reached(difference)?;
    Ok(walk.cut)
}

pub(super) struct Walk<'w, 'o> {
    before: &'w Object<'o>,
    pub(super) after: &'w Object<'o>,
    changed: BTreeSet<&'w str>,
    carried: BTreeSet<&'w str>,
    pub(super) world: &'w World<'w>,
    file: &'o str,
    pub(super) queue: VecDeque<Key>,
    pub(super) wanted: BTreeSet<Key>,
    /// Entries of tables that are in already, by table and place.
    pub(super) entered: BTreeSet<(&'static str, usize)>,
    pub(super) tables: BTreeMap<&'static str, Part>,
    /// Code out of line for which it is said how to unwind from its beginning.
    pub(super) blocks_unwound: BTreeSet<(usize, i64)>,
    pool: BTreeMap<Vec<u8>, usize>,
    pub(super) cut: Cut,
}

impl<'w, 'o> Walk<'w, 'o> {
    fn new(
        before: &'w Object<'o>,
        after: &'w Object<'o>,
        difference: &'w Difference,
        world: &'w World<'w>,
    ) -> Self {
        Self {
            before,
            after,
            changed: difference.changed.iter().map(String::as_str).collect(),
            carried: difference.carried.iter().map(String::as_str).collect(),
            world,
            file: after.file().unwrap_or_default(),
            queue: VecDeque::new(),
            wanted: BTreeSet::new(),
            entered: BTreeSet::new(),
            tables: BTreeMap::new(),
            blocks_unwound: BTreeSet::new(),
            pool: BTreeMap::new(),
            cut: Cut::default(),
        }
    }

    fn changed(&mut self) -> Result<(), Refusal> {
        for name in self.changed.clone() {
            let symbol = self.after.functions().find(|s| s.name == name);
            let Some(number) = symbol.and_then(|s| self.after.number(s)) else { continue };
            self.want(Key::Unit(number));
            if is_cold(name) {
                continue;
            }
            let original = self.before.functions().find(|s| s.name == name);
            let found = original.ok_or(NotFound::Absent).and_then(|s| self.world.own.of(s, self.file));
            let found = found.map_err(|e| Refusal::new(Gate::OneSymbol, format!("{name}: {e}")))?;
            self.cut.replaced.push(Replaced {
                name: name.to_owned(),
                position: found.position,
                size: found.named.size,
                symbol: new_symbol(self.world.object, name),
            });
        }
        Ok(())
    }

    /// What is new in the file must be new: a function of that name elsewhere would go on being called.
    fn is_new_to_the_kernel(&self, difference: &Difference) -> Result<(), Refusal> {
        for name in &difference.new {
            let is_open = self.after.functions().any(|s| s.name == name && (!s.is_local || s.is_weak));
            if is_open && (self.world.exports.contains_key(name) || self.world.own.global(name).is_ok()) {
                return Err(Refusal::new(Gate::OneSymbol, format!("{name} is in the kernel already")));
            }
        }
        Ok(())
    }

    /// New functions that other parts of the patch call.
    fn give(&mut self, names: &BTreeSet<String>) {
        for name in names {
            let symbol = self.after.functions().find(|s| s.name == name && !s.is_local && !s.is_weak);
            let Some(number) = symbol.and_then(|s| self.after.number(s)) else { continue };
            self.cut.gives.insert(name.clone());
            if !self.wanted.contains(&Key::Unit(number)) {
                self.cut.only_for_others.insert(name.clone());
            }
            self.want(Key::Unit(number));
        }
    }

    /// Everything that is new is there because something that is replaced needs it: else the fix does
    /// more than the patch would.
    fn reached(&self, difference: &Difference) -> Result<(), Refusal> {
        if self.cut.replaced.is_empty() && self.cut.gives.is_empty() {
            return Err(Refusal::new(Gate::Reached, "nothing is replaced"));
        }
        let taken: BTreeSet<&str> =
            self.cut.parts.values().filter_map(|part| Some(part.symbol.as_ref()?.0.as_str())).collect();
        let new = difference.new.iter().chain(&difference.new_data).map(String::as_str);
        // The bytes before a function go with it.
        let is_lost = |name: &&str| !taken.contains(name) && !name.starts_with(PREFIX);
        let lost: Vec<&str> = new.filter(is_lost).collect();
        if lost.is_empty() { Ok(()) } else { Err(Refusal::new(Gate::Reached, lost.join(", "))) }
    }

    fn want(&mut self, key: Key) -> To {
        if self.wanted.insert(key) {
            self.queue.push_back(key);
        }
        To::Part(key)
    }

    fn part(&mut self, key: Key) -> Result<(), Refusal> {
        let part = match key {
            Key::Unit(number) => {
                let Some(symbol) = self.after.symbols.get(number).copied() else { return Ok(()) };
                self.unit(number, &symbol)?
            }
            Key::Block(section, offset) => self.block(section, offset)?,
        };
        self.cut.parts.insert(key, part);
        Ok(())
    }

    fn unit(&mut self, number: usize, symbol: &Symbol<'o>) -> Result<Part, Refusal> {
        let after = self.after;
        let (Some(section), Some(index)) = (after.section_of(symbol), symbol.section()) else {
            return Err(Refusal::new(Gate::OneSymbol, symbol.name));
        };
        let is_code = symbol.kind == Kind::Function;
        // What is new there would lose the protection that its section gives.
        if is_code && UNTOUCHABLE.iter().any(|start| section.name.starts_with(start)) {
            return Err(Refusal::new(Gate::Context, format!("{}: {}", symbol.name, section.name)));
        }
        if is_code && is_init(section.name) {
            return Err(Refusal::new(Gate::InitCode, symbol.name));
        }
        let padding = if is_code { self.padding(symbol, index, section)? } else { 0 };
        let bytes = after.bytes_of(symbol);
        let place = |offset: u64| usize::try_from(offset).unwrap_or_default();
        let before = place(symbol.value.saturating_sub(padding))..place(symbol.value);
        let before = section.data.get(before).filter(|_| is_code).unwrap_or_default();
        let fields = is_code.then(|| instruction::fields(bytes));
        let mut fills = Vec::new();
        for relocation in after.relocations_of(symbol) {
            let known = fields.as_ref().is_none_or(|f| f.contains_key(&relocation.offset));
            if !known || super::width(relocation.kind).is_none() {
                let what = format!("{}+{:#x}", symbol.name, relocation.offset);
                return Err(Refusal::new(Gate::KnownCode, what));
            }
            let reference = after.reference(relocation, fields.as_ref());
            fills.push(self.fill(symbol.name, Some(number), &reference, padding)?);
        }
        let name = match symbol.kind {
            Kind::Function if is_cold(symbol.name) => format!(".text.unlikely.{}", symbol.name),
            Kind::Function => format!(".text.{}", symbol.name),
            _ if section.name.starts_with(".data.once") => ".data.once".to_owned(),
            _ => section.name.to_owned(),
        };
        // The kernel fills a place in once, and refuses one that is not empty.
        let mut bytes = if section.is_empty_in_file() { Vec::new() } else { [before, bytes].concat() };
        for fill in &fills {
            blank(&mut bytes, fill.offset, fill.kind);
        }
        Ok(Part {
            section: name,
            kind: section.kind,
            flags: section.flags,
            align: if is_code { section.align } else { section.align.max(8) },
            bytes,
            size: symbol.size.saturating_add(padding),
            padding,
            symbol: Some((symbol.name.to_owned(), symbol.kind, symbol.size)),
            fills,
        })
    }

    /// How many bytes before a function are for the tracer to use.
    fn padding(&self, symbol: &Symbol, index: usize, section: &Section) -> Result<u64, Refusal> {
        let Some(other) = self.after.shares(symbol) else {
            return Ok(if symbol.value <= 64 { symbol.value } else { 0 });
        };
        if self.after.has_unnamed(symbol) {
            let what = format!("{} and {} share {}", symbol.name, other.name, section.name);
            return Err(Refusal::new(Gate::OwnSection, what));
        }
        let refuse = |why: &str| Err(Refusal::new(Gate::OwnSection, format!("{}: {why}", symbol.name)));
        let own = self.after.functions().filter(|other| self.after.shares(other).is_none());
        let padding = own.map(|other| other.value).filter(|value| *value <= 64).max().unwrap_or_default();
        let start = symbol.value.checked_sub(padding);
        let range =
            start.and_then(|start| Some(usize::try_from(start).ok()?..usize::try_from(symbol.value).ok()?));
        let bytes = range.and_then(|range| section.data.get(range)).unwrap_or_default();
        let is_of_another = self.after.symbols_in(index).any(|s| {
            !s.name.starts_with(PREFIX) && s.size > 0 && Some(s.end()) > start && s.value < symbol.value
        });
        if bytes.len() as u64 != padding
            || bytes.iter().any(|byte| *byte != NOTHING)
            || (padding > 0 && is_of_another)
        {
            return refuse("what is before it is not what is before others");
        }
        Ok(padding)
    }

    /// The place `reference` in the patch; it is in `holder`, whose number is `own`.
    pub(super) fn fill(
        &mut self,
        holder: &str,
        own: Option<usize>,
        reference: &Reference,
        padding: u64,
    ) -> Result<Fill, Refusal> {
        let (to, offset) = self.to(holder, own, reference)?;
        let relocation = reference.relocation;
        Ok(Fill {
            offset: relocation.offset.saturating_add(padding),
            kind: relocation.kind,
            to,
            addend: offset.wrapping_sub(reference.tail),
        })
    }

    fn to(&mut self, holder: &str, own: Option<usize>, reference: &Reference) -> Result<(To, i64), Refusal> {
        Ok(match reference.target {
            Target::Text(bytes) => (To::Pool, self.pooled(bytes, 1)),
            Target::Constant(bytes, into) => {
                (To::Pool, self.pooled(bytes, bytes.len()).wrapping_add_unsigned(into))
            }
            Target::External(name, offset) => {
                let source = self.world.external(name)?;
                if source == Source::Patch {
                    self.cut.takes.insert(name.to_owned());
                    if reference.used == Use::Address {
                        self.cut.escapes.insert((name.to_owned(), holder.to_owned()));
                    }
                }
                (To::Symbol(self.world.link_name(name, &source)), offset)
            }
            Target::Unit(number, offset) => {
                (self.unit_of(holder, own, number, offset, reference.used)?, offset)
            }
            Target::Nameless(section, offset)
                if self.after.sections.get(section).is_some_and(|s| special::is_out_of_line(s.name)) =>
            {
                (self.want(Key::Block(section, offset)), 0)
            }
            Target::Nameless(section, offset) => {
                let name = self.after.sections.get(section).map_or("", |s| s.name);
                let what = format!("{holder} refers to {name}+{offset:#x}");
                return Err(Refusal::new(Gate::KnownSections, what));
            }
            Target::Number(number) => {
                return Err(Refusal::new(Gate::KnownCode, format!("{holder} refers to the number {number}")));
            }
        })
    }

    /// The place of `bytes` among the texts and constants.
    fn pooled(&mut self, bytes: &[u8], align: usize) -> i64 {
        let (pool, out) = (&mut self.pool, &mut self.cut.pool);
        let at = *pool.entry(bytes.to_vec()).or_insert_with(|| {
            out.resize(out.len().next_multiple_of(align.max(1)), 0);
            out.extend_from_slice(bytes);
            out.len() - bytes.len()
        });
        i64::try_from(at).unwrap_or(i64::MAX)
    }

    fn unit_of(
        &mut self,
        holder: &str,
        own: Option<usize>,
        number: usize,
        offset: i64,
        used: Use,
    ) -> Result<To, Refusal> {
        let Some(symbol) = self.after.symbols.get(number).copied() else {
            return Err(Refusal::new(Gate::KnownCode, holder));
        };
        let is_whole = used == Use::Address && offset == 0;
        match symbol.kind {
            Kind::Function if is_cold(symbol.name) => Ok(self.want(Key::Unit(number))),
            Kind::Function if self.carried.contains(symbol.name) => Ok(self.want(Key::Unit(number))),
            // Pointers outlive a patch: they lead to the original, which is redirected.
            Kind::Function if self.changed.contains(symbol.name) && is_whole => self.found(&symbol),
            Kind::Function if self.changed.contains(symbol.name) || (own == Some(number) && !is_whole) => {
                Ok(self.want(Key::Unit(number)))
            }
            Kind::Function => self.function(holder, number, &symbol, used, offset),
            Kind::Data => self.variable(holder, number, &symbol),
            _ => Err(Refusal::new(Gate::KnownCode, format!("{holder} refers to {}", symbol.name))),
        }
    }

    fn found(&self, symbol: &Symbol) -> Result<To, Refusal> {
        let found = self.world.own.of(symbol, self.file);
        let found = found.map_err(|e| Refusal::new(Gate::OneSymbol, format!("{}: {e}", symbol.name)))?;
        if is_init(found.named.section) {
            return Err(Refusal::new(Gate::InitCode, format!("refers to {}", symbol.name)));
        }
        Ok(To::Symbol(self.world.link_name(symbol.name, &Source::Own(found.position))))
    }

    fn function(
        &mut self,
        holder: &str,
        number: usize,
        symbol: &Symbol,
        used: Use,
        offset: i64,
    ) -> Result<To, Refusal> {
        let was_there = self.before.functions().any(|s| s.name == symbol.name);
        if was_there {
            match self.world.own.of(symbol, self.file) {
                // The original's code is not this code's.
                Ok(_) if used == Use::Branch && offset != 0 => {
                    let what = format!("{holder} goes on at {}+{offset:#x}", symbol.name);
                    return Err(Refusal::new(Gate::KnownCode, what));
                }
                Ok(_) => return self.found(symbol),
                Err(NotFound::Absent) if symbol.is_local => {
                    self.cut.notes.insert(format!("copied {}, which the kernel does not have", symbol.name));
                }
                Err(e) => return Err(Refusal::new(Gate::OneSymbol, format!("{}: {e}", symbol.name))),
            }
        }
        if used == Use::Address && offset == 0 {
            self.cut.escapes.insert((symbol.name.to_owned(), holder.to_owned()));
        }
        Ok(self.want(Key::Unit(number)))
    }

    fn variable(&mut self, holder: &str, number: usize, symbol: &Symbol) -> Result<To, Refusal> {
        let section = self.after.section_of(symbol);
        let name = section.map_or("", |s| s.name);
        if may_be_copied(symbol.name) || name.starts_with(".data.once") {
            return Ok(self.want(Key::Unit(number)));
        }
        let base_name = base(symbol.name);
        let olds: Vec<_> = self.before.defined(Kind::Data).filter(|s| base(s.name) == base_name).collect();
        let Some(only) = olds.first().filter(|_| olds.len() == 1) else {
            if olds.is_empty() || !section.is_some_and(Section::is_writable) {
                return Ok(self.constant(holder, number, symbol));
            }
            let what = format!("{} of {holder}: {} variables", symbol.name, olds.len());
            return Err(Refusal::new(Gate::OneSymbol, what));
        };
        if is_init(name) {
            return Err(Refusal::new(Gate::InitCode, format!("{holder} refers to {}", symbol.name)));
        }
        // The compiler that made the kernel gave out the numbers of the original object.
        match self.world.own.of(only, self.file) {
            Ok(found) => Ok(To::Symbol(self.world.link_name(only.name, &Source::Own(found.position)))),
            Err(_) if !section.is_some_and(Section::is_writable) => Ok(self.constant(holder, number, symbol)),
            Err(e) => Err(Refusal::new(Gate::OneSymbol, format!("{}: {e}", symbol.name))),
        }
    }

    /// A constant that only the patch has. A table of places is meant to be kept by somebody.
    fn constant(&mut self, holder: &str, number: usize, symbol: &Symbol) -> To {
        self.cut.notes.insert(format!("a copy of {}", symbol.name));
        if !self.after.relocations_of(symbol).is_empty() {
            self.cut.escapes.insert((symbol.name.to_owned(), holder.to_owned()));
        }
        self.want(Key::Unit(number))
    }
}

/// An instruction of one byte that does nothing.
const NOTHING: u8 = 0x90;

/// The global symbol of a new function: one in the whole patch.
fn new_symbol(object: &str, name: &str) -> String {
    format!("invivo_new_{object}_{}", name.replace('.', "_"))
}
