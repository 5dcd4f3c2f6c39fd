//! The symbols of a kernel or of one of its modules, as livepatch will count them when it looks for
//! one: the position of a symbol is its place among those of the same name.

use std::collections::HashMap;

use super::{Kind, Object, Place, Symbol};

/// One symbol of a linked kernel or module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'a> {
    /// Its address, or offset in a module's section.
    pub value: u64,
    /// Length in bytes.
    pub size: u64,
    /// What it is of.
    pub kind: Kind,
    /// Seen only within its source file.
    pub is_local: bool,
    /// May have been overruled.
    pub is_weak: bool,
    /// The source file of a local symbol.
    pub file: Option<&'a str>,
    /// The section it is in; empty for a number.
    pub section: &'a str,
}

/// A symbol that livepatch will find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// From 1; 0 if it is the only one of its name.
    pub position: u32,
    /// The symbol.
    pub named: Named<'a>,
}

/// Why a symbol cannot be named to livepatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// There is none of this name.
    #[error("no such symbol")]
    Absent,
    /// There are several that it could be.
    #[error("{0} symbols that it could be")]
    Ambiguous(usize),
}

/// All symbols of one object of the kernel.
#[derive(Debug, Clone, Default)]
pub struct Names<'a> {
    by_name: HashMap<&'a str, Vec<Named<'a>>>,
}

impl<'a> Names<'a> {
    /// Of the kernel itself: its table is in the order of addresses.
    pub fn of_vmlinux(vmlinux: &Object<'a>) -> Self {
        let mut names = Self::collect(vmlinux);
        for list in names.by_name.values_mut() {
            list.sort_by_key(|named| named.value);
        }
        names
    }

    /// Of a module: the table of the `shipped` file counts, in its own order, and that of the file
    /// for debuggers, `debug`, knows which source file a symbol is of.
    pub fn of_module(debug: &Object<'a>, shipped: &Object) -> Self {
        let mut names = Self::collect(debug);
        let mut order: HashMap<(&str, &str, u64), usize> = HashMap::new();
        for (n, symbol) in shipped.symbols.iter().enumerate() {
            let section = shipped.section_of(symbol).map_or("", |s| s.name);
            order.entry((symbol.name, section, symbol.value)).or_insert(n);
        }
        for (name, list) in &mut names.by_name {
            list.sort_by_key(|n| order.get(&(*name, n.section, n.value)).copied().unwrap_or(usize::MAX));
        }
        names
    }

    fn collect(object: &Object<'a>) -> Self {
        let mut by_name: HashMap<&str, Vec<Named>> = HashMap::new();
        for symbol in &object.symbols {
            let is_named = !matches!(symbol.kind, Kind::Section | Kind::File) && !symbol.name.is_empty();
            if !is_named || symbol.place == Place::Undefined {
                continue;
            }
            by_name.entry(symbol.name).or_default().push(Named {
                value: symbol.value,
                size: symbol.size,
                kind: symbol.kind,
                is_local: symbol.is_local,
                is_weak: symbol.is_weak,
                file: symbol.file,
                section: object.section_of(symbol).map_or("", |s| s.name),
            });
        }
        Self { by_name }
    }

    /// How many symbols have this name.
    pub fn count(&self, name: &str) -> usize {
        self.by_name.get(name).map_or(0, Vec::len)
    }

    /// The symbol that `symbol` of an object made from the source file `file` became.
    ///
    /// # Errors
    ///
    /// There is none, or more than one that it could be.
    pub fn of(&self, symbol: &Symbol, file: &str) -> Result<Found<'a>, NotFound> {
        if symbol.is_local { self.local(symbol.name, file) } else { self.global(symbol.name) }
    }

    /// The global symbol of this name.
    ///
    /// # Errors
    ///
    /// There is none, or there are several.
    pub fn global(&self, name: &str) -> Result<Found<'a>, NotFound> {
        self.only(name, |named| !named.is_local)
    }

    /// The local symbol of this name in this source file.
    ///
    /// # Errors
    ///
    /// There is none, or there are several.
    pub fn local(&self, name: &str, file: &str) -> Result<Found<'a>, NotFound> {
        self.only(name, |named| named.is_local && named.file == Some(file))
    }

    fn only(&self, name: &str, is_it: impl Fn(&Named) -> bool) -> Result<Found<'a>, NotFound> {
        let list = self.by_name.get(name).ok_or(NotFound::Absent)?;
        let mut fitting = list.iter().enumerate().filter(|(_, named)| is_it(named));
        let (n, named) = fitting.next().ok_or(NotFound::Absent)?;
        let others = fitting.count();
        if others > 0 {
            return Err(NotFound::Ambiguous(others + 1));
        }
        let position = if list.len() == 1 { 0 } else { u32::try_from(n + 1).unwrap_or(u32::MAX) };
        Ok(Found { position, named: *named })
    }

    /// The names of local symbols of a source file that `fits`.
    pub fn locals_of(&self, file: &str, fits: impl Fn(&str) -> bool) -> Vec<&'a str> {
        let of_file = |list: &Vec<Named>| list.iter().any(|n| n.is_local && n.file == Some(file));
        self.by_name
            .iter()
            .filter(|(name, list)| fits(name) && of_file(list))
            .map(|(name, _)| *name)
            .collect()
    }
}
