//! What is taken out of a fixed object: its parts, by what they were there, and what the places in them refer to.

use std::collections::{BTreeMap, BTreeSet};

use super::Kind;

/// A function that is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// Its name in the kernel.
    pub name: String,
    /// Its position among the symbols of that name; 0 if it is the only one.
    pub position: u32,
    /// Length of the original in the kernel, in bytes.
    pub size: u64,
    /// The global symbol of the new function in the patch.
    pub symbol: String,
}

/// A part of the patch, by what it was in the fixed object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A function or a variable, by the number of its symbol.
    Unit(usize),
    /// Code out of line, by its section and offset.
    Block(usize, i64),
}

/// What a place in the patch refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// A part.
    Part(Key),
    /// The texts and constants.
    Pool,
    /// A symbol that is linked in or found by the kernel.
    Symbol(String),
}

/// A place that is filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// Offset in its section.
    pub offset: u64,
    /// `r_type`.
    pub kind: u32,
    /// What is written.
    pub to: To,
    /// What is added.
    pub addend: i64,
}

/// A section of the patch.
#[derive(Debug, Clone)]
pub struct Part {
    /// Name of the section.
    pub section: String,
    /// `sh_type`.
    pub kind: u32,
    /// `sh_flags`.
    pub flags: u64,
    /// Alignment.
    pub align: u64,
    /// Content; empty for one without content in the file.
    pub bytes: Vec<u8>,
    /// Length in bytes.
    pub size: u64,
    /// Bytes before the symbol.
    pub padding: u64,
    /// The symbol: name, kind, size.
    pub symbol: Option<(String, Kind, u64)>,
    /// The places in it.
    pub fills: Vec<Fill>,
}

/// What was taken out.
#[derive(Debug, Clone, Default)]
pub struct Cut {
    /// What is replaced.
    pub replaced: Vec<Replaced>,
    /// Functions and data.
    pub parts: BTreeMap<Key, Part>,
    /// Tables about them.
    pub tables: Vec<Part>,
    /// Texts and constants.
    pub pool: Vec<u8>,
    /// What a person should know.
    pub notes: BTreeSet<String>,
    /// Code of the patch whose address is given away: the function, and who does.
    pub escapes: BTreeSet<(String, String)>,
    /// New functions for other parts of the patch.
    pub gives: BTreeSet<String>,
    /// Those of them that nothing here needs.
    pub only_for_others: BTreeSet<String>,
    /// New functions of other parts.
    pub takes: BTreeSet<String>,
}
