//! Types as the compiler laid them out (BTF, Documentation/bpf/btf.rst), and whether two
//! compilations agree on them.
//!
//! The comparison of functions cannot see a struct that grew: every function that uses it is
//! compiled anew, and the objects that exist in the running kernel have the old size.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The section is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("types (BTF): {0}")]
pub struct Malformed(&'static str);

/// One type.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Type<'a> {
    Void,
    Integer {
        name: &'a str,
        size: u32,
        encoding: u32,
    },
    Pointer(u32),
    Array {
        of: u32,
        number: u32,
    },
    /// `struct` or `union`: name, size, members by name, type and place.
    Record {
        union: bool,
        name: &'a str,
        size: u32,
        members: Vec<(&'a str, u32, u32)>,
    },
    Enumeration {
        name: &'a str,
        size: u32,
        values: Vec<(&'a str, u64)>,
    },
    Forward(&'a str),
    /// Another name, or `const`, `volatile` and the like.
    Alias {
        name: &'a str,
        mark: &'static str,
        of: u32,
    },
    Prototype {
        returns: u32,
        parameters: Vec<u32>,
    },
    /// Functions and variables, which are compared as code.
    Other,
}

/// All types of one object.
#[derive(Debug, Clone)]
pub struct Types<'a> {
    types: Vec<Type<'a>>,
}

/// How deep a description goes into types without a name.
const DEPTH: u32 = 12;
/// Longer than the description of any type of a kernel, in bytes: one that holds itself without a pointer,
/// which no compiler writes, would have no end.
const LONGEST: usize = 1 << 20;
/// More types than any file of a kernel has.
const MOST: usize = 4_000_000;

struct Reader<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Reader<'a> {
    fn word(&mut self) -> Result<u32, Malformed> {
        let (word, rest) = self.types.split_first_chunk::<4>().ok_or(Malformed("ends within a type"))?;
        self.types = rest;
        Ok(u32::from_le_bytes(*word))
    }

    fn text(&self, offset: u32) -> Result<&'a str, Malformed> {
        let bad = Malformed("a name is not there");
        let rest = usize::try_from(offset).ok().and_then(|at| self.strings.get(at..)).ok_or(bad)?;
        let end = rest.iter().position(|b| *b == 0).ok_or(bad)?;
        std::str::from_utf8(rest.get(..end).unwrap_or_default()).map_err(|_| bad)
    }

    fn each<T>(
        &mut self,
        count: u32,
        mut one: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        (0..count).map(|_| one(self)).collect()
    }

    fn one(&mut self) -> Result<Type<'a>, Malformed> {
        let (name, info, size) = (self.word()?, self.word()?, self.word()?);
        let (kind, count, flag) = (info >> 24 & 0x1f, info & 0xffff, info >> 31 != 0);
        let name = self.text(name)?;
        Ok(match kind {
            1 => Type::Integer { name, size, encoding: self.word()? },
            2 => Type::Pointer(size),
            3 => {
                let (of, _, number) = (self.word()?, self.word()?, self.word()?);
                Type::Array { of, number }
            }
            4 | 5 => {
                let members = self.each(count, |r| {
                    let name = r.word()?;
                    Ok((r.text(name)?, r.word()?, r.word()?))
                })?;
                Type::Record { union: kind == 5, name, size, members }
            }
            6 => {
                let values = self.each(count, |r| {
                    let name = r.word()?;
                    Ok((r.text(name)?, u64::from(r.word()?)))
                })?;
                Type::Enumeration { name, size, values }
            }
            19 => {
                let values = self.each(count, |r| {
                    let name = r.word()?;
                    let (low, high) = (r.word()?, r.word()?);
                    Ok((r.text(name)?, u64::from(high) << 32 | u64::from(low)))
                })?;
                Type::Enumeration { name, size, values }
            }
            7 => Type::Forward(if flag { "union" } else { name }),
            8 => Type::Alias { name, mark: "", of: size },
            9 => Type::Alias { name: "", mark: "volatile ", of: size },
            10 => Type::Alias { name: "", mark: "const ", of: size },
            13 => {
                let parameters = self.each(count, |r| {
                    r.word()?;
                    r.word()
                })?;
                Type::Prototype { returns: size, parameters }
            }
            12 => Type::Other,
            14 | 17 => {
                self.word()?;
                Type::Other
            }
            15 => {
                self.each(count, |r| r.each(3, Self::word))?;
                Type::Other
            }
            16 => Type::Integer { name, size, encoding: 0 },
            11 | 18 => Type::Alias { name: "", mark: "", of: size },
            _ => return Err(Malformed("a kind of type that is not known")),
        })
    }
}

impl<'a> Types<'a> {
    /// Reads the content of a section `.BTF`.
    ///
    /// # Errors
    ///
    /// It is not one, or is damaged.
    pub fn parse(section: &'a [u8]) -> Result<Self, Malformed> {
        let word = |at: usize| {
            let bytes = section.get(at..at + 4).and_then(|b| b.try_into().ok());
            bytes.map(u32::from_le_bytes).and_then(|n| usize::try_from(n).ok())
        };
        let no_header = Malformed("no header");
        if section.get(..3) != Some(&[0x9f, 0xeb, 1]) {
            return Err(no_header);
        }
        let slice = |from: usize| {
            let start = word(4)?.checked_add(word(from)?)?;
            section.get(start..start.checked_add(word(from + 4)?)?)
        };
        let (types, strings) = slice(8).zip(slice(16)).ok_or(no_header)?;
        let mut reader = Reader { types, strings };
        let mut found = vec![Type::Void];
        while !reader.types.is_empty() {
            if found.len() > MOST {
                return Err(Malformed("too many types"));
            }
            found.push(reader.one()?);
        }
        Ok(Self { types: found })
    }

    /// The types that have a name, each described as far as its layout goes; what is longer than
    /// [`LONGEST`] is cut off.
    fn described(&self) -> BTreeMap<(&'static str, &'a str), String> {
        let mut all = BTreeMap::new();
        for kind in &self.types {
            let mut text = String::new();
            let key = match kind {
                Type::Record { union, name, .. } => {
                    self.record(kind, 0, &mut text);
                    (if *union { "union" } else { "struct" }, *name)
                }
                Type::Alias { name, of, .. } => {
                    self.name(*of, 0, &mut text);
                    ("typedef", *name)
                }
                _ => continue,
            };
            if !key.1.is_empty() {
                all.insert(key, text);
            }
        }
        all
    }

    fn record(&self, kind: &Type, depth: u32, text: &mut String) {
        let Type::Record { union, size, members, .. } = kind else { return };
        let _ = write!(text, "{}{size}{{", if *union { "union " } else { "" });
        for (name, of, place) in members {
            if text.len() > LONGEST {
                return;
            }
            let _ = write!(text, "{name}@{place}:");
            self.name(*of, depth + 1, text);
            text.push(';');
        }
        text.push('}');
    }

    fn name(&self, index: u32, depth: u32, text: &mut String) {
        if depth > DEPTH || text.len() > LONGEST {
            text.push_str("...");
            return;
        }
        let kind = usize::try_from(index).ok().and_then(|n| self.types.get(n));
        match kind {
            None | Some(Type::Void | Type::Other) => text.push_str("void"),
            Some(Type::Integer { name, size, encoding }) => {
                let _ = write!(text, "{name}.{size}.{encoding:x}");
            }
            Some(Type::Pointer(of)) => {
                text.push('*');
                self.name(*of, depth + 1, text);
            }
            Some(Type::Array { of, number }) => {
                let _ = write!(text, "[{number}]");
                self.name(*of, depth + 1, text);
            }
            Some(kind @ Type::Record { name: "", .. }) => self.record(kind, depth + 1, text),
            Some(Type::Enumeration { name, size, .. }) => {
                let _ = write!(text, "enum {name}.{size}");
            }
            Some(Type::Alias { name: "", mark, of }) => {
                text.push_str(mark);
                self.name(*of, depth + 1, text);
            }
            Some(Type::Record { name, .. } | Type::Forward(name) | Type::Alias { name, .. }) => {
                text.push_str(name);
            }
            Some(Type::Prototype { returns, parameters }) => {
                text.push('(');
                for parameter in parameters {
                    self.name(*parameter, depth + 1, text);
                    text.push(',');
                }
                text.push_str(")->");
                self.name(*returns, depth + 1, text);
            }
        }
    }

    /// The constants of all enumerations.
    fn constants(&self) -> BTreeMap<&'a str, u64> {
        let lists = self.types.iter().filter_map(|kind| match kind {
            Type::Enumeration { values, .. } => Some(values),
            _ => None,
        });
        lists.flatten().copied().collect()
    }
}

/// What two compilations of a file do not agree on: types of one name with two layouts, and
/// constants with two values. What only one of them has is no contradiction.
pub fn contradictions(before: &Types, after: &Types) -> Vec<String> {
    let (old, new) = (before.described(), after.described());
    // Of what was cut off, the rest may differ.
    let unlike = |one: &String, other: &String| one != other || one.len() > LONGEST;
    let differ = new.iter().filter(|(key, text)| old.get(*key).is_some_and(|other| unlike(other, text)));
    let mut found: Vec<_> = differ.map(|((kind, name), _)| format!("{kind} {name}")).collect();
    let (old, new) = (before.constants(), after.constants());
    let differ = new.iter().filter(|(name, value)| old.get(*name).is_some_and(|other| other != *value));
    found.extend(differ.map(|(name, _)| format!("constant {name}")));
    found
}

/// Those of the types `changed` that only the later compilation describes: the compiler leaves out what a file does
/// not use, so nothing tells what layout they had.
pub fn unseen(before: &Types, after: &Types, changed: &BTreeSet<String>) -> Vec<String> {
    let (old, new) = (before.described(), after.described());
    let is_unseen = |key: &&(&str, &str)| changed.contains(key.1) && !old.contains_key(*key);
    new.keys()
        .filter(is_unseen)
        .map(|(kind, name)| format!("{kind} {name}, which the original does not use"))
        .collect()
}

/// How many types of a name there are in `types`.
pub fn count(types: &Types) -> usize {
    types.described().len()
}

#[cfg(test)]
mod tests;
