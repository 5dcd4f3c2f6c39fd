//! What a fix changes in a file that others include, name by name.

use std::collections::{BTreeMap, BTreeSet};

use crate::refusal::{Gate, Refusal};
use crate::select::split::{self, Part, Piece, identifiers};

/// What a fix changes in a file that others include.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Change {
    /// Inline functions, prototypes and variables of elsewhere that are others.
    pub functions: BTreeSet<String>,
    /// Macros and constants of enumerations that are others: types may be laid out by them.
    pub values: BTreeSet<String>,
    /// Types that are others: wherever they are compiled, their layout is compared.
    pub types: BTreeSet<String>,
    /// What only the fixed file declares: nothing can have used it.
    pub declared: BTreeSet<String>,
    /// Macros that only one of the two forms has.
    pub toggled: BTreeSet<String>,
    /// It has code or data of its own that is another: it is wherever the file is included.
    pub is_code: bool,
}

impl Change {
    /// What of `fixed` is not as in `original`, but for comments and blanks.
    ///
    /// # Errors
    ///
    /// A file is not in the kernel's style.
    pub fn of(path: &str, original: &str, fixed: &str) -> Result<Self, Refusal> {
        let parts =
            |text| split::parts(text).map_err(|e| Refusal::new(Gate::Applies, format!("{path}: {e}")));
        let (old, new) = (parts(original)?, parts(fixed)?);
        let (before, after) = (meanings(&old), meanings(&new));
        let mut change = Self::default();
        for ((kind, name), meaning) in &after {
            match before.get(&(*kind, name.clone())) {
                Some(other) if other == meaning => {}
                // A new name may be one that others have a meaning of their own for.
                None if matches!(kind, Kind::Declaration | Kind::Type) => {
                    change.declared.insert(name.clone());
                }
                None => change.toggle(*kind, name),
                Some(_) => change.add(*kind, name),
            }
        }
        for (kind, name) in before.keys().filter(|key| !after.contains_key(key)) {
            change.toggle(*kind, name);
        }
        Ok(change)
    }

    fn add(&mut self, kind: Kind, name: &str) {
        let list = match kind {
            Kind::Value => &mut self.values,
            Kind::Type => &mut self.types,
            Kind::Function | Kind::Declaration => &mut self.functions,
            Kind::Code => {
                self.is_code = true;
                return;
            }
        };
        list.insert(name.to_owned());
    }

    /// A name that only one of the two forms has.
    fn toggle(&mut self, kind: Kind, name: &str) {
        self.add(kind, name);
        if kind == Kind::Value {
            self.toggled.insert(name.to_owned());
        }
    }

    /// Whether nothing differs but comments and blanks.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing that is compiled differs, but for what is declared.
    pub fn is_declared_only(&self) -> bool {
        *self == Self { declared: self.declared.clone(), ..Self::default() }
    }
}

/// What others see of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// An inline function.
    Function,
    /// A macro or a constant.
    Value,
    Type,
    /// A prototype, or a variable that is elsewhere.
    Declaration,
    /// A function that is not inline, a variable, or something that a macro makes.
    Code,
}

pub(super) fn kind(part: &Part) -> Option<Kind> {
    let text = part.text.trim_start();
    match &part.piece {
        Piece::Comment => None,
        Piece::Preprocessor { .. } => Some(Kind::Value),
        Piece::Type { .. } if text.starts_with("enum") && text.contains('{') => Some(Kind::Value),
        // That there is a type of this name says nothing of it.
        Piece::Type { .. } => (text.contains('{') || text.starts_with("typedef")).then_some(Kind::Type),
        Piece::Prototype { .. } => Some(Kind::Declaration),
        // Of more than one line, such a macro makes code.
        Piece::Data { .. }
            if text.starts_with("extern ")
                || (text.starts_with("DECLARE_") && text.trim_end().lines().count() == 1) =>
        {
            Some(Kind::Declaration)
        }
        Piece::Function(function) => {
            let is_inline = identifiers(function.head())
                .any(|word| word.contains("inline") && !word.contains("noinline"));
            Some(if is_inline { Kind::Function } else { Kind::Code })
        }
        Piece::Other if identifiers(text).next().is_some_and(|word| word.ends_with("tatic_assert")) => None,
        Piece::Data { .. } | Piece::Other => Some(Kind::Code),
    }
}

/// What each name stands for, with the conditions under which it does.
fn meanings(parts: &[Part]) -> BTreeMap<(Kind, String), Vec<String>> {
    let mut meanings: BTreeMap<(Kind, String), Vec<String>> = BTreeMap::new();
    let mut conditions: Vec<String> = Vec::new();
    for part in parts {
        let Some(kind) = kind(part) else { continue };
        let text = plain(part.text);
        for (name, text) in inner(part) {
            let meaning = format!("{} {text}", conditions.join(" "));
            meanings.entry((Kind::Value, name)).or_default().push(meaning);
        }
        match directive(part) {
            Some("if" | "ifdef" | "ifndef") => conditions.push(text),
            Some("elif" | "else") => {
                if let Some(last) = conditions.last_mut() {
                    last.push_str(&text);
                }
            }
            Some("endif") => drop(conditions.pop()),
            // What is included more is for what else is new; `#line` only keeps the places of all else.
            Some("include" | "error" | "warning" | "line") => {}
            _ => {
                let whole = format!("{} {text}", conditions.join(" "));
                for name in names(part) {
                    let meaning = constant(part, &name).unwrap_or_else(|| whole.clone());
                    meanings.entry((kind, name)).or_default().push(meaning);
                }
            }
        }
    }
    meanings
}

/// The macros that are defined within a type or a function, where lines for the preprocessor are a part of it.
pub(super) fn inner(part: &Part) -> Vec<(String, String)> {
    if matches!(part.piece, Piece::Preprocessor { .. }) || !part.text.contains("define") {
        return Vec::new();
    }
    let joined = part.text.replace("\\\n", " ");
    let lines = joined.lines().filter(|line| is_for_preprocessor(line)).map(plain);
    let defines = lines.filter(|line| identifiers(line).next() == Some("define"));
    defines.filter_map(|line| Some((identifiers(&line).nth(1)?.to_owned(), line.clone()))).collect()
}

fn is_for_preprocessor(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The text of a piece without such lines, if it is not one itself.
pub(super) fn body(part: &Part) -> String {
    if matches!(part.piece, Piece::Preprocessor { .. }) {
        return plain(part.text);
    }
    let joined = part.text.replace("\\\n", " ");
    plain(&joined.lines().filter(|line| !is_for_preprocessor(line)).collect::<Vec<_>>().join("\n"))
}

/// What a line for the preprocessor does.
pub(super) fn directive<'a>(part: &Part<'a>) -> Option<&'a str> {
    part.directive().map(|(word, _)| word)
}

/// The names that a piece is about.
pub(super) fn names(part: &Part) -> BTreeSet<String> {
    let text = plain(part.text);
    let body = text.split_once('{').map_or("", |(_, body)| body);
    let names: Vec<&str> = match (&part.piece, directive(part)) {
        (_, Some("define" | "undef")) => identifiers(&text).skip(1).take(1).collect(),
        (_, Some(_)) | (Piece::Other, _) => identifiers(&text).collect(),
        (Piece::Type { .. }, _) if is_enumeration(part) => identifiers(body).collect(),
        _ => part.defines().collect(),
    };
    names.into_iter().map(str::to_owned).collect()
}

fn is_enumeration(part: &Part) -> bool {
    matches!(part.piece, Piece::Type { .. }) && part.text.trim_start().starts_with("enum")
}

/// What a constant of an enumeration depends on: all that is before it, and its own value. One that comes
/// after it changes nothing.
fn constant(part: &Part, name: &str) -> Option<String> {
    if !is_enumeration(part) {
        return None;
    }
    let mut before = String::new();
    for one in plain(part.text).split(',') {
        before.push_str(one.trim_end_matches(['}', ';', ' ']));
        before.push(',');
        if identifiers(one).any(|word| word == name) {
            break;
        }
    }
    Some(before)
}

/// A text without its comments, each gap as one blank.
fn plain(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['"', '\'', '/']) {
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
        code.push_str(before);
        let length = if from.starts_with("/*") {
            code.push(' ');
            from.find("*/").map_or(from.len(), |end| end + 2)
        } else if from.starts_with("//") {
            from.find('\n').unwrap_or(from.len())
        } else {
            let length = if from.starts_with('/') { 1 } else { quoted(from) };
            code.push_str(from.get(..length).unwrap_or_default());
            length
        };
        rest = from.get(length..).unwrap_or_default();
    }
    code.push_str(rest);
    code.replace("\\\n", " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// How long the text or character is that begins with the first of `from`, a quote.
fn quoted(from: &str) -> usize {
    let mut characters = from.char_indices();
    let quote = characters.next().map(|(_, quote)| quote);
    while let Some((at, c)) = characters.next() {
        if c == '\\' {
            characters.next();
        } else if Some(c) == quote || c == '\n' {
            return at + 1;
        }
    }
    from.len()
}
