//! The symbol table that a kernel carries within itself (kallsyms): what livepatch will find in the
//! running kernel, known before anything is loaded.
//!
//! The distribution's map file of an image package is a stub, and the debug package is ten times
//! the image. The kernel's own table is in its read-only data without any header (kernel/kallsyms.c,
//! scripts/kallsyms.c; this part is the same from Linux 6.1 to 6.12):
//!
//! ```text
//! number          u32, padded to 8
//! names           per symbol: length (7 bits, or 14 in two bytes), then that many token numbers
//! markers         u32 per 256 symbols: where its name begins
//! ...             (an order by name in some kernels)
//! token table     256 texts, each ended by 0
//! token index     u16 per token: where its text begins
//! ```
//!
//! A token number stands for one or more characters; the first character of a name is its type.

use std::collections::HashMap;

/// The table was not found, or is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no token table.
    #[error("kernel symbols: no token table")]
    NoTokens,
    /// There is no list of names that fits to its markers.
    #[error("kernel symbols: no list of names")]
    NoNames,
}

/// A kernel's symbols.
#[derive(Debug, Clone, Default)]
pub struct Symbols {
    /// By name: the type of each symbol of that name, in the order of addresses.
    types: HashMap<String, Vec<char>>,
}

impl Symbols {
    /// The symbols of an uncompressed kernel.
    ///
    /// # Errors
    ///
    /// The table is not found.
    pub fn of_vmlinux(vmlinux: &[u8]) -> Result<Self, Error> {
        let (tokens, table_at) = tokens(vmlinux).ok_or(Error::NoTokens)?;
        let names = names(vmlinux, table_at).ok_or(Error::NoNames)?;
        let mut types: HashMap<String, Vec<char>> = HashMap::new();
        for name in names {
            let text: String = name.iter().filter_map(|n| tokens.get(usize::from(*n))).copied().collect();
            let mut rest = text.chars();
            if let Some(kind) = rest.next() {
                types.entry(rest.as_str().to_owned()).or_default().push(kind);
            }
        }
        Ok(Self { types })
    }

    /// How many symbols have exactly this name. Livepatch takes position 0 only where it is one.
    pub fn count(&self, name: &str) -> usize {
        self.types.get(name).map_or(0, Vec::len)
    }

    /// Whether a symbol of this name is code.
    pub fn is_code(&self, name: &str) -> bool {
        self.types.get(name).is_some_and(|types| types.iter().all(|t| matches!(t, 't' | 'T' | 'w' | 'W')))
    }
}

const TOKENS: usize = 256;
const PER_MARKER: usize = 256;
/// Fewer symbols than any kernel has: what claims less is not the table.
const FEWEST: usize = if cfg!(test) { 300 } else { 10_000 };
const MOST: usize = 2_000_000;

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    usize::try_from(u32::from_le_bytes(word)).ok()
}

/// The 256 texts, and where their table begins.
fn tokens(bytes: &[u8]) -> Option<(Vec<&str>, usize)> {
    // Digits occur alone in names, so that each keeps its own code as the number of its token.
    const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00";
    let mut from = 0;
    loop {
        let at = from + bytes.get(from..)?.windows(DIGITS.len()).position(|w| w == DIGITS)?;
        if let Some(found) = table_around(bytes, at) {
            return Some(found);
        }
        from = at + 1;
    }
}

/// The table whose token number 48 begins at `zero`, if its index agrees.
fn table_around(bytes: &[u8], zero: usize) -> Option<(Vec<&str>, usize)> {
    let mut start = zero;
    for _ in 0..usize::from(b'0') {
        let before = bytes.get(..start.checked_sub(1)?)?;
        start = before.iter().rposition(|b| *b == 0)? + 1;
    }
    // The first text has no 0 of a text before it where padding ends: its index decides.
    let mut at = start;
    let mut texts = Vec::with_capacity(TOKENS);
    let mut offsets = Vec::with_capacity(TOKENS);
    for _ in 0..TOKENS {
        let rest = bytes.get(at..)?;
        let length = rest.iter().take(512).position(|b| *b == 0)?;
        texts.push(std::str::from_utf8(rest.get(..length)?).ok()?);
        offsets.push(at - start);
        at += length + 1;
    }
    let index = at.next_multiple_of(8);
    let agrees = offsets.iter().enumerate().all(|(n, offset)| {
        let entry = bytes.get(index + 2 * n..index + 2 * n + 2).and_then(|e| e.try_into().ok());
        entry.map(u16::from_le_bytes).is_some_and(|e| usize::from(e) == *offset)
    });
    agrees.then_some((texts, start))
}

/// The names before `end`, as token numbers.
fn names(bytes: &[u8], end: usize) -> Option<Vec<&[u8]>> {
    let mut at = end.checked_sub(8)? & !7;
    while at >= 8 {
        if word(bytes, at + 4) == Some(0)
            && let Some(number) = word(bytes, at).filter(|n| (FEWEST..MOST).contains(n))
            && let Some(found) = names_at(bytes, at + 8, number, end)
        {
            return Some(found);
        }
        at -= 8;
    }
    None
}

/// `number` names from `start` on, if what follows them are their markers.
fn names_at(bytes: &[u8], start: usize, number: usize, end: usize) -> Option<Vec<&[u8]>> {
    let mut names = Vec::with_capacity(number);
    let mut markers = Vec::with_capacity(number / PER_MARKER + 1);
    let mut at = start;
    for n in 0..number {
        if n % PER_MARKER == 0 {
            markers.push(at - start);
        }
        let mut length = usize::from(*bytes.get(at)?);
        at += 1;
        if length & 0x80 != 0 {
            length = (length & 0x7f) | (usize::from(*bytes.get(at)?) << 7);
            at += 1;
        }
        if length == 0 || at + length > end {
            return None;
        }
        names.push(bytes.get(at..at + length)?);
        at += length;
    }
    let table = at.next_multiple_of(8);
    markers.iter().enumerate().all(|(n, marker)| word(bytes, table + 4 * n) == Some(*marker)).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of `symbols` (type and name in one), as scripts/kallsyms.c lays it out, with "ab"
    /// as a token of its own.
    fn image(symbols: &[String]) -> Vec<u8> {
        let mut out = vec![b'x'; 100];
        let pad = |out: &mut Vec<u8>| out.resize(out.len().next_multiple_of(8), 0);
        pad(&mut out);
        out.extend_from_slice(&0xffff_ffff_8100_0000_u64.to_le_bytes());
        out.extend_from_slice(&u64::try_from(symbols.len()).unwrap().to_le_bytes());
        let (start, mut markers) = (out.len(), Vec::new());
        for (n, symbol) in symbols.iter().enumerate() {
            if n % 256 == 0 {
                markers.push(u32::try_from(out.len() - start).unwrap());
            }
            let codes: Vec<u8> = symbol.replace("ab", "\u{1}").bytes().collect();
            match u8::try_from(codes.len()) {
                Ok(short @ 0..0x80) => out.push(short),
                _ => out.extend(
                    [(codes.len() & 0x7f) | 0x80, codes.len() >> 7].map(|n| u8::try_from(n).unwrap()),
                ),
            }
            out.extend(codes);
        }
        pad(&mut out);
        out.extend(markers.iter().flat_map(|m| m.to_le_bytes()));
        pad(&mut out);
        let (table, mut index) = (out.len(), Vec::new());
        for code in 0..=255u8 {
            index.push(u16::try_from(out.len() - table).unwrap());
            match code {
                1 => out.extend_from_slice(b"ab"),
                0x20..0x7f => out.push(code),
                _ => {}
            }
            out.push(0);
        }
        pad(&mut out);
        out.extend(index.iter().flat_map(|i| i.to_le_bytes()));
        out.extend([b'x'; 64]);
        out
    }

    fn symbols() -> Vec<String> {
        let mut symbols: Vec<_> = (0..600).map(|n| format!("tabc_{n}")).collect();
        symbols.extend(["tdouble", "ddouble", "Dsome_data"].map(str::to_owned));
        symbols.push(format!("T{}", "long".repeat(60)));
        symbols
    }

    #[test]
    fn every_symbol_is_found_with_its_type() {
        let found = Symbols::of_vmlinux(&image(&symbols())).unwrap();
        assert_eq!((found.count("abc_0"), found.count("abc_599"), found.count("abc_600")), (1, 1, 0));
        assert!(found.is_code("abc_5") && !found.is_code("some_data") && !found.is_code("absent"));
        assert_eq!(found.count(&"long".repeat(60)), 1);
    }

    #[test]
    fn a_name_that_two_symbols_have_is_counted_twice() {
        let found = Symbols::of_vmlinux(&image(&symbols())).unwrap();
        assert_eq!(found.count("double"), 2);
        assert!(!found.is_code("double"));
    }

    #[test]
    fn a_table_whose_markers_disagree_is_refused() {
        let good = image(&symbols());
        let mut bad = good.clone();
        let marker = good.windows(8).position(|w| w == [0, 0, 0, 0, 0, 8, 0, 0]).unwrap_or_default();
        // Damage the length of one name: everything after it shifts.
        let name = good.windows(4).position(|w| w == b"c_10").unwrap();
        bad[name - 3] ^= 1;
        assert_eq!(Symbols::of_vmlinux(&bad).unwrap_err(), Error::NoNames, "{marker}");
    }

    #[test]
    fn a_file_that_is_no_kernel_is_refused() {
        assert_eq!(Symbols::of_vmlinux(&[0; 4096]).unwrap_err(), Error::NoTokens);
        assert_eq!(Symbols::of_vmlinux(b"").unwrap_err(), Error::NoTokens);
    }
}
