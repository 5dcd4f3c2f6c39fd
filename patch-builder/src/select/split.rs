//! Takes a C file in the kernel's style apart into what stands at its top level.
//!
//! Not a parser: it relies on the style that the kernel keeps to, in which a function's braces, and
//! no others, stand alone in the first column. What it does not recognise it refuses; what it
//! misjudges does not compile or fails a later gate.

use std::iter;

/// The file is not in the kernel's style.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not UTF-8.
    #[error("not text")]
    NotText,
    /// Something begins and does not end.
    #[error("what begins in line {0} does not end")]
    Unfinished(usize),
    /// A function whose name is not to be seen.
    #[error("line {0}: a function without a name")]
    Nameless(usize),
}

/// A function with its definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function<'a> {
    /// Its name.
    pub name: &'a str,
    /// The line on which it begins.
    pub line: usize,
    /// All of it.
    pub text: &'a str,
    /// Where the brace in the first column is.
    brace: usize,
}

impl<'a> Function<'a> {
    /// Everything before its brace.
    pub fn head(&self) -> &'a str {
        self.text.get(..self.brace).unwrap_or_default()
    }

    /// Everything from its brace on.
    pub fn body(&self) -> &'a str {
        self.text.get(self.brace..).unwrap_or_default()
    }
}

/// What stands at the top level of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Empty lines and comments.
    Comment,
    /// A line for the preprocessor, with those that continue it.
    Preprocessor {
        /// Its line.
        line: usize,
        /// All of it.
        text: &'a str,
    },
    /// A type without a variable.
    Type {
        /// The line on which it begins.
        line: usize,
        /// All of it.
        text: &'a str,
    },
    /// A function with its definition.
    Function(Function<'a>),
    /// A function without its definition.
    Prototype {
        /// The line on which it begins.
        line: usize,
        /// All of it.
        text: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// A variable.
    Data {
        /// Its name.
        name: &'a str,
    },
    /// Anything else: macros that export, register or describe.
    Other,
}

/// A piece with its place and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'a> {
    /// The line on which it begins.
    pub line: usize,
    /// All of it.
    pub text: &'a str,
    /// What it is.
    pub piece: Piece<'a>,
}

impl<'a> Part<'a> {
    /// The name of the function that it defines.
    pub fn function(&self) -> Option<&'a str> {
        match &self.piece {
            Piece::Function(function) => Some(function.name),
            _ => None,
        }
    }

    /// What a line for the preprocessor begins with, and the rest of it without a comment.
    pub fn directive(&self) -> Option<(&'a str, &'a str)> {
        let rest = self.text.trim_start().strip_prefix('#')?.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (word, rest) = rest.split_at_checked(end)?;
        let rest = rest.split_once("/*").map_or(rest, |(rest, _)| rest);
        Some((word, rest.trim()))
    }

    /// Whether it is another form of `other`: of the same kind, with the same first name.
    pub fn stands_for(&self, other: &Part) -> bool {
        let same_kind = std::mem::discriminant(&self.piece) == std::mem::discriminant(&other.piece);
        let name = self.defines().next();
        same_kind && name.is_some() && name == other.defines().next()
    }

    /// The names that it brings: of a function, a variable, a macro, a type, an included file.
    pub fn defines(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let text = self.text;
        let (named, list): (Option<&str>, Option<&str>) = match &self.piece {
            Piece::Function(function) => (Some(function.name), None),
            Piece::Prototype { name, .. } | Piece::Data { name } => (Some(*name), None),
            Piece::Preprocessor { .. } => {
                (text.trim_start().strip_prefix("#define").and_then(|rest| identifiers(rest).next()), None)
            }
            // All words of an enumeration may be its constants.
            Piece::Type { .. } if text.trim_start().starts_with("enum") => (None, Some(text)),
            Piece::Type { .. } => {
                (identifiers(text).find(|w| !["struct", "union", "typedef"].contains(w)), None)
            }
            Piece::Comment | Piece::Other => (None, None),
        };
        named.into_iter().chain(list.into_iter().flat_map(identifiers).filter(|w| *w != "enum"))
    }
}

/// Takes `text` apart.
///
/// # Errors
///
/// Something begins and does not end, or a function has no name.
pub fn parts(text: &str) -> Result<Vec<Part<'_>>, Error> {
    let mut pieces = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let length = extent(rest).ok_or(Error::Unfinished(line))?;
        let piece = rest.get(..length).ok_or(Error::Unfinished(line))?;
        pieces.push(Part { line, text: piece, piece: name(piece, line)? });
        line += piece.matches('\n').count();
        at += length;
    }
    Ok(pieces)
}

/// How long the piece at the start of `rest` is.
fn extent(rest: &str) -> Option<usize> {
    let first = rest.split_inclusive('\n').next()?;
    let trimmed = first.trim();
    if trimmed.is_empty() || trimmed.starts_with("//") {
        return Some(first.len());
    }
    if trimmed.starts_with("/*") {
        let end = rest.find("*/")? + 2;
        let tail = rest.get(end..)?;
        return Some(end + tail.find('\n').map_or(tail.len(), |n| n + 1));
    }
    let mut length = 0;
    if trimmed.starts_with('#') {
        for line in rest.split_inclusive('\n') {
            length += line.len();
            if !line.trim_end().ends_with('\\') {
                break;
            }
        }
        return with_comment(rest, length);
    }
    let mut in_function = false;
    for line in rest.split_inclusive('\n') {
        length += line.len();
        let end = code(line).trim_end();
        if in_function {
            // A macro within a function may end there too: `} while (0)`.
            if end.strip_prefix('}').is_some_and(|rest| !rest.trim_start().starts_with("while")) {
                return Some(length);
            }
        } else if line.trim_end() == "{" {
            in_function = true;
        } else if ends_declaration(end, rest.get(..length)?) {
            // A macro may also be the head of a function.
            let next = rest.get(length..)?.split_inclusive('\n').next().unwrap_or_default();
            if end.ends_with(';') || next.trim_end() != "{" {
                return with_comment(rest, length);
            }
        } else if end.ends_with('}') && is_compact(rest.get(..length)?) {
            return with_comment(rest, length);
        }
    }
    // Some files end with a macro that should have a semicolon and has none.
    (!in_function && is_balanced(rest)).then_some(length)
}

/// `length` of `rest`, and what is left of a comment that begins there at the end of a line.
fn with_comment(rest: &str, length: usize) -> Option<usize> {
    let piece = rest.get(..length)?;
    let begin = piece.rfind("/*").filter(|at| piece.get(*at..).is_some_and(|text| !text.contains("*/")));
    let line = |at: usize| piece.get(..at).and_then(|before| before.rsplit('\n').next()).unwrap_or_default();
    // Not one within a text.
    let Some(begin) = begin.filter(|at| line(*at).matches('"').count() % 2 == 0) else { return Some(length) };
    let end = begin + rest.get(begin..)?.find("*/")?;
    Some(rest.get(end..)?.find('\n').map_or(rest.len(), |more| end + more + 1))
}

/// Whether a text is a whole function whose first brace is at the end of its head, as small ones of headers
/// have it.
fn is_compact(text: &str) -> bool {
    compact_brace(text).is_some() && is_balanced(text)
}

/// The first brace of a function that is written like that.
fn compact_brace(text: &str) -> Option<usize> {
    let brace = text.find('{')?;
    let head = text.get(..brace)?;
    let is_head = head.trim_end().ends_with(')') && is_balanced(head) && !head.contains('=');
    (is_head && !head.trim_start().starts_with('#')).then_some(brace)
}

/// A line, or a declaration, without a comment at its end.
fn code(line: &str) -> &str {
    let begins = line.match_indices("/*").map(|(at, _)| at).find(|at| {
        let end = line.get(*at..).and_then(|rest| rest.split_once("*/"));
        end.is_none_or(|(_, rest)| rest.trim().is_empty())
    });
    let end = begins.or_else(|| line.find("//")).unwrap_or(line.len());
    line.get(..end).unwrap_or_default()
}

/// Whether as many braces and parentheses are closed as are opened, but for those in texts and comments.
fn is_balanced(text: &str) -> bool {
    let (mut braces, mut parentheses) = (0_i64, 0_i64);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '"' => text_length(rest),
            '\'' => character_length(rest),
            _ => c.len_utf8(),
        };
        match c {
            '{' => braces += 1,
            '}' => braces -= 1,
            '(' => parentheses += 1,
            ')' => parentheses -= 1,
            _ => {}
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    braces == 0 && parentheses == 0
}

/// How long the text is that begins with a quote; it ends with its line at the latest.
fn text_length(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => drop(characters.next()),
            '"' => return at + 1,
            '\n' => return at,
            _ => {}
        }
    }
    rest.len()
}

/// How long the character is that begins with a quote; that alone if it is none.
fn character_length(rest: &str) -> usize {
    let inner = rest.get(1..).unwrap_or_default();
    let inner = inner.strip_prefix('\\').unwrap_or(inner);
    let end = inner.char_indices().nth(1).filter(|(_, c)| *c == '\'');
    end.map_or(1, |(at, _)| rest.len() - inner.len() + at + 1)
}

/// Whether a declaration that is `so_far` ends with the line that ends with `end`.
fn ends_declaration(end: &str, so_far: &str) -> bool {
    let whole = is_balanced(so_far);
    // Macros that register or export may stand without a semicolon.
    let is_macro = || {
        let word: String = so_far.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        end.ends_with(')')
            && !word.is_empty()
            && so_far.get(word.len()..).is_some_and(|r| r.starts_with('('))
            && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
            && !word.contains("SYSCALL_DEFINE")
    };
    whole && (end.ends_with(';') || is_macro())
}

fn name(text: &str, line: usize) -> Result<Piece<'_>, Error> {
    let start = text.trim_start();
    if start.is_empty() || start.starts_with("/*") || start.starts_with("//") {
        return Ok(Piece::Comment);
    }
    if start.starts_with('#') {
        return Ok(Piece::Preprocessor { line, text });
    }
    let is_brace = |at: &usize| {
        let line = text.get(at + 1..).and_then(|rest| rest.lines().next());
        line.is_some_and(|line| line.trim_end() == "{")
    };
    if let Some(at) = text.find("\n{").filter(is_brace) {
        let head = text.get(..at).unwrap_or_default();
        // Some types and tables have their brace where functions have it.
        let bare = ["typedef ", "static "].iter().find_map(|word| head.trim_start().strip_prefix(word));
        let is_other = head.trim_end().ends_with('=') || is_type(code(bare.unwrap_or(head)), true);
        match function_name(head) {
            Some(name) if !is_other => {
                return Ok(Piece::Function(Function { name, line, text, brace: at + 1 }));
            }
            None if !is_other => return Err(Error::Nameless(line)),
            Some(_) | None => {}
        }
    } else if let Some(brace) = compact_brace(text).filter(|_| text.trim_end().ends_with('}'))
        && let Some(name) = function_name(text.get(..brace).unwrap_or_default())
    {
        return Ok(Piece::Function(Function { name, line, text, brace }));
    }
    let declared = code(text).split(['=', '{']).next().unwrap_or_default();
    // Constants of an enumeration may have values.
    let is_enumeration =
        start.starts_with("enum") && !declared.contains(';') && text.matches('{').count() == 1;
    let first = text.find(['=', '{']).and_then(|at| text.get(at..));
    let is_plain = !code(text).contains('=') || (is_enumeration && first.is_some_and(|r| r.starts_with('{')));
    let tail = text.rsplit('}').next().unwrap_or_default().trim();
    let body_ends_it = text.contains('}') && (tail == ";" || tail.starts_with("__"));
    if is_plain && (start.starts_with("typedef ") || is_type(code(declared), body_ends_it)) {
        return Ok(Piece::Type { line, text });
    }
    if is_plain
        && declared.trim_end().ends_with(");")
        && !DATA_MACROS.iter().any(|part| declared.contains(part))
        && let Some(name) = function_name(declared)
        && text.find(name).is_some_and(|at| !text.get(..at).unwrap_or_default().trim().is_empty())
    {
        return Ok(Piece::Prototype { line, text, name });
    }
    Ok(data_name(declared).map_or(Piece::Other, |name| Piece::Data { name }))
}

/// `struct x;`, or `struct x {...};` without a variable after it.
fn is_type(declared: &str, body_ends_it: bool) -> bool {
    let mut words = declared.split_whitespace();
    let keyword = words.next().is_some_and(|w| matches!(w, "struct" | "union" | "enum"));
    keyword && words.count() <= 1 && (body_ends_it || declared.trim_end().ends_with(';'))
}

/// Attributes that take arguments and may stand before a function's name.
const ATTRIBUTES: [&str; 4] = ["__printf", "__attribute__", "__section", "__aligned"];

/// The name before the first parenthesis that belongs to a function.
fn function_name(head: &str) -> Option<&str> {
    let mut depth = 0_usize;
    for (at, c) in head.char_indices() {
        match c {
            // What is returned is a pointer to a function: the name is within.
            '(' if head.get(at + 1..).is_some_and(|rest| rest.starts_with('*')) => {}
            '(' => {
                let before = head.get(..at)?.trim_end();
                let word = identifiers(before).last().filter(|w| before.ends_with(w));
                if depth == 0
                    && let Some(word) = word.filter(|w| !ATTRIBUTES.contains(w))
                {
                    return Some(word);
                }
                depth += 1;
            }
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// Parts of the names of macros that define data.
const DATA_MACROS: [&str; 4] = ["DEFINE_", "DECLARE_", "LIST_HEAD", "ATOMIC_"];

/// The variable's name: the last word before an array's bracket, or an argument of a macro that
/// defines data (`static DEFINE_MUTEX(name);`).
fn data_name(declared: &str) -> Option<&str> {
    let before = declared.split('[').next()?.trim_end().trim_end_matches(';').trim_end();
    match before.split_once('(') {
        Some((word, arguments)) => {
            let word = identifiers(word).last()?;
            if DATA_MACROS.iter().any(|part| word.contains(part)) {
                identifiers(arguments).last()
            } else {
                None
            }
        }
        None => identifiers(before).last(),
    }
}

/// The identifiers of a text; words within comments and strings count too, which can only refuse
/// too much.
pub fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    iter::from_fn(move || {
        loop {
            let start = rest.find(|c: char| c.is_ascii_alphanumeric() || c == '_')?;
            rest = rest.get(start..)?;
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            let word = rest.get(..end)?;
            rest = rest.get(end..)?;
            if !word.starts_with(|c: char| c.is_ascii_digit()) {
                return Some(word);
            }
        }
    })
}

#[cfg(test)]
mod tests;
