//! What differs between two compilations of one file: of functions and of data, by what they do and
//! not by where they lie.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::instruction::{self, Use};
use super::special::{self, Irregular, TABLES};
use super::target::{Reference, Target, base};
use super::{Kind, Object, Symbol, width};
use super::{carried, outline};

/// What differs, by name and sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Functions that are in both and not the same.
    pub changed: Vec<String>,
    /// Functions that are not the same and cannot be replaced; their callers are in `changed` for them.
    pub carried: Vec<String>,
    /// Functions that only the fixed object has.
    pub new: Vec<String>,
    /// Functions that only the original object has.
    pub gone: Vec<String>,
    /// Those of them whose address the original stores or passes on: others may have it.
    pub known: Vec<String>,
    /// Other names of functions in `changed`: at the same place in both objects.
    pub aliases: Vec<String>,
    /// Functions that differ, at a place that has another name in one of the objects which does not
    /// differ alike.
    pub shared: Vec<String>,
    /// Functions that are not the same and run once, at the start or the end.
    pub init: Vec<String>,
    /// Variables and tables that are in both and not the same; whether a table of functions.
    pub data: Vec<(String, bool)>,
    /// Variables and tables that only the fixed object has, without those that may be copied.
    pub new_data: Vec<String>,
    /// Symbols whose export came, went or changed.
    pub exports: Vec<String>,
}

/// A reference, as far as it must be the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Meaning {
    offset: u64,
    kind: u32,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Symbol(String, i64),
    Bytes(Vec<u8>, u64),
    Section(String, i64),
    Code(Vec<u8>),
    Number(i64),
    /// A table that the compiler has made for the code, or code out of line, by its content.
    Table(Box<Body>, i64),
}

/// What a function or a variable consists of: its bytes without the places that are filled in, and
/// what those mean.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Body {
    section: String,
    bytes: Vec<u8>,
    size: u64,
    meanings: Vec<Meaning>,
}

/// An entry of a table about a function: its name, the offset in the function, its bytes, and what
/// it refers to.
type Remark = (&'static str, i64, Vec<u8>, Vec<What>);

/// Compares the object of the original file with that of the fixed one.
///
/// # Errors
///
/// A table about code is not laid out as it should be.
pub fn compare(before: &Object, after: &Object) -> Result<Difference, Irregular> {
    let mut found = Difference::default();
    functions(before, after, &mut found)?;
    one_name_for_each_place(before, after, &mut found);
    carried::carry(before, after, &mut found);
    found.known = found.gone.iter().filter(|name| is_given_away(before, name)).cloned().collect();
    data(before, after, &mut found);
    let exports = |o: &Object| -> BTreeSet<String> { exported(o).map(str::to_owned).collect() };
    found.exports = exports(before).symmetric_difference(&exports(after)).cloned().collect();
    Ok(found)
}

fn functions(before: &Object, after: &Object, found: &mut Difference) -> Result<(), Irregular> {
    let (old_remarks, new_remarks) = (remarks(before)?, remarks(after)?);
    let by_name = |object: &Object| -> BTreeMap<String, usize> {
        let all = object.functions().filter_map(|s| Some((s.name.to_owned(), object.number(s)?)));
        all.collect()
    };
    let (old, new) = (by_name(before), by_name(after));
    for (name, number) in &new {
        let Some(symbol) = after.symbols.get(*number) else { continue };
        let section = after.section_of(symbol).map_or("", |s| s.name);
        let Some(original) = old.get(name).and_then(|n| before.symbols.get(*n)) else {
            found.new.push(name.clone());
            continue;
        };
        let same =
            body(before, original) == body(after, symbol) && old_remarks.get(name) == new_remarks.get(name);
        if !same && is_init(section) {
            found.init.push(name.clone());
        } else if !same {
            found.changed.push(name.clone());
        }
    }
    found.gone = old.into_keys().filter(|name| !new.contains_key(name)).collect();
    // What is hardly ever run of a function is a part of it.
    let cold = found.changed.iter().filter(|name| is_cold(name));
    let wholes: BTreeSet<String> =
        cold.filter_map(|name| Some(name.split_once(".cold")?.0.to_owned())).collect();
    for name in wholes.into_iter().filter(|name| new.contains_key(name)) {
        let section = new.get(&name).and_then(|n| after.section_of(after.symbols.get(*n)?));
        let list =
            if section.is_some_and(|s| is_init(s.name)) { &mut found.init } else { &mut found.changed };
        if let Err(place) = list.binary_search(&name) {
            list.insert(place, name);
        }
    }
    Ok(())
}

/// Whether a name is that of the part of a function that is hardly ever run.
pub fn is_cold(name: &str) -> bool {
    name.split('.').skip(1).any(|part| part == "cold")
}

/// The compiler, or `__alias`, may give one place several names. To the kernel that is one function.
fn one_name_for_each_place(before: &Object, after: &Object, found: &mut Difference) {
    let names = |object: &Object, name: &str| -> BTreeSet<String> {
        let place = |s: &Symbol| (s.section(), s.value);
        let Some(here) = object.functions().find(|s| s.name == name).map(place) else {
            return BTreeSet::new();
        };
        object.functions().filter(|s| place(s) == here).map(|s| s.name.to_owned()).collect()
    };
    for name in std::mem::take(&mut found.changed) {
        let (old, new) = (names(before, &name), names(after, &name));
        if old.len() == 1 && new.len() == 1 {
            found.changed.push(name);
        } else if old != new {
            found.shared.push(name);
        } else if after.functions().find(|s| s.name == name).is_some_and(|s| is_last_there(after, s)) {
            found.changed.push(name);
        } else {
            found.aliases.push(name);
        }
    }
}

/// Whether a place is taken for this symbol's, of all that are there.
fn is_last_there(object: &Object, symbol: &Symbol) -> bool {
    let last = symbol.section().and_then(|section| object.symbol_at(section, symbol.value));
    last.is_some_and(|last| last.name == symbol.name)
}

/// Whether the address of the function `name` is stored or passed on.
pub(super) fn is_given_away(object: &Object, name: &str) -> bool {
    let is_it = |reference: Reference| {
        let number = match reference.target {
            Target::Unit(number, 0) if reference.used == Use::Address => number,
            _ => return false,
        };
        object.symbols.get(number).is_some_and(|symbol| symbol.name == name)
    };
    let in_code = object.functions().any(|function| {
        let fields = instruction::fields(object.bytes_of(function));
        let relocations = object.relocations_of(function);
        relocations.into_iter().any(|r| is_it(object.reference(r, Some(&fields))))
    });
    let in_data = |symbol: &Symbol| {
        let is_tool = object.section_of(symbol).is_some_and(|s| is_for_tools(symbol, s.name));
        !is_tool && object.relocations_of(symbol).into_iter().any(|r| is_it(object.reference(r, None)))
    };
    in_code || object.defined(Kind::Data).any(in_data)
}

/// Whether a section's code runs once, when the kernel or a module comes or goes.
pub fn is_init(section: &str) -> bool {
    [".init", ".exit", ".meminit", ".cpuinit"].iter().any(|start| section.starts_with(start))
}

fn body(object: &Object, symbol: &Symbol) -> Body {
    body_with(object, symbol, true)
}

/// The same; `tables` tells whether tables are compared by content or by name.
fn body_with(object: &Object, symbol: &Symbol, tables: bool) -> Body {
    let section = object.section_of(symbol);
    let mut bytes = object.bytes_of(symbol).to_vec();
    let is_code = section.is_some_and(super::Section::is_code);
    let fields = is_code.then(|| instruction::fields(&bytes));
    let mut meanings = Vec::new();
    for relocation in object.relocations_of(symbol) {
        let reference = object.reference(relocation, fields.as_ref());
        blank(&mut bytes, relocation.offset, relocation.kind);
        meanings.push(Meaning {
            offset: relocation.offset,
            kind: relocation.kind,
            what: match reference.target {
                Target::Unit(number, offset) if tables => table(object, number, offset),
                _ => None,
            }
            .unwrap_or_else(|| what(object, &reference)),
        });
    }
    // What a short jump reaches is not in its bytes.
    if is_code {
        meanings.extend(object.unnamed_targets(symbol).into_iter().map(|(offset, name, into)| Meaning {
            offset,
            kind: 0,
            what: What::Symbol(base(name), into),
        }));
    }
    // `.rodata.x` and `.data.x` differ, `.rodata.x` and `.rodata.y` do not.
    let section = section.and_then(|s| s.name.split('.').nth(1)).unwrap_or_default().to_owned();
    Body { section, bytes, size: symbol.size, meanings }
}

/// A table that the compiler has made of a `switch`, which no name tells from another.
fn table(object: &Object, number: usize, offset: i64) -> Option<What> {
    let symbol = object.symbols.get(number).filter(|symbol| symbol.kind == Kind::Data)?;
    let is_made = base(symbol.name) == "CSWTCH" && !object.section_of(symbol)?.is_writable();
    is_made.then(|| What::Table(Box::new(body_with(object, symbol, false)), offset))
}

/// Sets the place that a relocation writes to 0.
pub(super) fn blank(bytes: &mut [u8], offset: u64, kind: u32) {
    let range = || {
        let start = usize::try_from(offset).ok()?;
        Some(start..start.checked_add(usize::try_from(width(kind)?).ok()?)?)
    };
    if let Some(field) = range().and_then(|range| bytes.get_mut(range)) {
        field.fill(0);
    }
}

fn what(object: &Object, reference: &Reference) -> What {
    match reference.target {
        Target::External(name, offset) => What::Symbol(base(name), offset),
        Target::Unit(number, offset) => {
            What::Symbol(object.symbols.get(number).map(|s| base(s.name)).unwrap_or_default(), offset)
        }
        Target::Text(bytes) => What::Bytes(bytes.to_vec(), 0),
        Target::Constant(bytes, offset) => What::Bytes(bytes.to_vec(), offset),
        Target::Number(number) => What::Number(number),
        Target::Nameless(number, offset) => {
            let Some(section) = object.sections.get(number) else { return What::Number(offset) };
            if section.name == special::AUXILIARY {
                return What::Code(auxiliary(object, section.name, offset).unwrap_or_default());
            }
            if let Some(body) = fixup(object, number, offset) {
                return What::Table(Box::new(body), 0);
            }
            What::Section(section.name.to_owned(), offset)
        }
    }
}

/// The code out of line at `offset`, up to its last jump.
fn auxiliary(object: &Object, section: &str, offset: i64) -> Option<Vec<u8>> {
    let rest = object.section(section)?.data.get(usize::try_from(offset).ok()?..)?;
    Some(rest.get(..instruction::block(rest)?)?.to_vec())
}

/// The code that the kernel goes on at after a fault, up to its last jump, and where that leads. Where that is not
/// all of it, everything that follows: rather too much differs than too little.
fn fixup(object: &Object, number: usize, offset: i64) -> Option<Body> {
    let section = object.sections.get(number).filter(|section| section.name == special::FIXUP)?;
    let (start, first) = (usize::try_from(offset).ok()?, u64::try_from(offset).ok()?);
    let rest = section.data.get(start..)?;
    let block = instruction::block(rest).and_then(|length| rest.get(..length));
    let whole = block.filter(|code| instruction::stays(code, &outline::named(section, start, code)));
    let mut bytes = whole.unwrap_or(rest).to_vec();
    let fields = instruction::fields(&bytes);
    let size = bytes.len() as u64;
    let mut meanings = Vec::new();
    for relocation in &section.relocations {
        let Some(into) = relocation.offset.checked_sub(first).filter(|into| *into < size) else { continue };
        let reference = object.reference(super::Relocation { offset: into, ..*relocation }, Some(&fields));
        blank(&mut bytes, into, relocation.kind);
        let what = match reference.target {
            Target::Nameless(_, at) => What::Section(section.name.to_owned(), at),
            _ => what(object, &reference),
        };
        meanings.push(Meaning { offset: into, kind: relocation.kind, what });
    }
    Some(Body { section: section.name.to_owned(), bytes, size, meanings })
}

/// What the tables say about each function.
fn remarks(object: &Object) -> Result<HashMap<String, Vec<Remark>>, Irregular> {
    // What objtool makes follows from the code and only doubles what is compared anyway.
    let made_elsewhere = ["__mcount_loc", ".return_sites", special::UNWIND_PLACES, ".call_sites"];
    let mut all: HashMap<String, Vec<Remark>> = HashMap::new();
    for layout in TABLES.iter().filter(|t| !made_elsewhere.contains(&t.name)) {
        let Some(section) = object.section(layout.name) else { continue };
        for entry in special::entries(object, section, layout)? {
            let Some((number, offset)) = entry.code() else { continue };
            let Some(function) = object.symbols.get(number) else { continue };
            let mut bytes = entry.bytes.to_vec();
            let mut targets = Vec::new();
            for (n, reference) in entry.references.iter().enumerate() {
                blank(&mut bytes, reference.relocation.offset, reference.relocation.kind);
                if n > 0 {
                    targets.push(remark_target(object, &entry, reference));
                }
            }
            if layout.name == "__bug_table" {
                // The line may move; the file and the flags may not.
                blank(&mut bytes, 6, object::elf::R_X86_64_32.0);
                bytes
                    .get_mut(10..)
                    .unwrap_or_default()
                    .copy_from_slice(entry.bytes.get(10..).unwrap_or_default());
            }
            all.entry(function.name.to_owned()).or_default().push((layout.name, offset, bytes, targets));
        }
    }
    for list in all.values_mut() {
        list.sort();
    }
    Ok(all)
}

fn remark_target(object: &Object, entry: &special::Entry, reference: &Reference) -> What {
    match reference.target {
        Target::Nameless(section, offset)
            if object.sections.get(section).is_some_and(|s| s.name == special::REPLACEMENT) =>
        {
            // Code that is put in place: what it is counts, not where it is kept.
            let length = entry.bytes.last().copied().map_or(0, usize::from);
            let code = object.sections.get(section).and_then(|s| {
                let start = usize::try_from(offset).ok()?;
                s.data.get(start..start.checked_add(length)?)
            });
            What::Code(code.unwrap_or_default().to_vec())
        }
        _ => what(object, reference),
    }
}

/// Names of data that each copy of a function may have of its own: what is printed, printed once,
/// or counted in order to print less; keys of lock checking; tables made from `switch`.
pub fn may_be_copied(name: &str) -> bool {
    const NAMES: [&str; 17] = [
        "__func__",
        "__FUNCTION__",
        "__PRETTY_FUNCTION__",
        "__key",
        "__warned",
        "__already_done",
        "_rs",
        "CSWTCH",
        "__print_once",
        "___done",
        "_entry",
        "_entry_ptr",
        "descriptor",
        "__ret_once",
        "__cond",
        "__msg",
        "__UNIQUE_ID_ddebug",
    ];
    NAMES.contains(&base(name).as_str())
}

/// Whether data of this name in this section is not the file's own, but written for a tool.
fn is_for_tools(symbol: &Symbol, section: &str) -> bool {
    section.starts_with(".discard")
        || section.starts_with(".modinfo")
        || section.starts_with(".export_symbol")
        || section.starts_with("__mcount")
        || section.contains("ksymtab")
        || symbol.name.starts_with("__UNIQUE_ID___addressable")
}

fn data(before: &Object, after: &Object, found: &mut Difference) {
    let collect = |object: &Object| {
        let mut all: BTreeMap<String, Vec<(String, Body, bool)>> = BTreeMap::new();
        for symbol in object.defined(Kind::Data) {
            let section = object.section_of(symbol).map_or("", |s| s.name);
            if is_for_tools(symbol, section) {
                continue;
            }
            let code = |r: &Meaning| matches!(&r.what, What::Symbol(name, 0) if is_function(object, name));
            let body = body(object, symbol);
            let is_table = body.meanings.iter().any(code);
            all.entry(base(symbol.name)).or_default().push((symbol.name.to_owned(), body, is_table));
        }
        all
    };
    let (mut old, new) = (collect(before), collect(after));
    for (base, list) in new {
        let left = old.entry(base).or_default();
        let was_there = !left.is_empty();
        for (name, body, is_table) in list {
            if let Some(same) = left.iter().position(|(_, old, _)| *old == body) {
                left.swap_remove(same);
            } else if may_be_copied(&name) {
            } else if was_there && !left.is_empty() {
                found.data.push((name, is_table));
            } else {
                found.new_data.push(name);
            }
        }
    }
}

fn is_function(object: &Object, name: &str) -> bool {
    object.symbols.iter().any(|s| s.name == name && matches!(s.kind, Kind::Function | Kind::Other))
}

/// The symbols that an object exports.
fn exported<'a>(object: &'a Object) -> impl Iterator<Item = &'a str> {
    object
        .symbols
        .iter()
        .filter_map(|s| s.name.strip_prefix("__ksymtab_").or_else(|| s.name.strip_prefix("__export_symbol_")))
}
