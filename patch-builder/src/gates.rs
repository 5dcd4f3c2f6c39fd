//! What a finished module must be, judged on its own bytes, never on how it was made.

mod objtool;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::kallsyms::Symbols;
use crate::klp::{self, KlpSymbol};
use crate::modinfo::{self, Modinfo};

pub(crate) use objtool::tables;

/// A module that must not leave the builder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The tree's list of exported symbols cannot be read.
    #[error("Module.symvers of the headers: line {0} is not understood")]
    Exports(usize),
    /// The module needs something that the kernel neither exports nor has.
    #[error("needs {symbol}, which the kernel does not export and has {count} times")]
    Unresolved {
        /// The symbol.
        symbol: String,
        /// How many symbols of that name the kernel has.
        count: usize,
    },
    /// The module needs something from another module, which it would pull in and pin.
    #[error("needs {symbol} of the module {module}")]
    OtherModule {
        /// The symbol.
        symbol: String,
        /// The module that exports it.
        module: String,
    },
    /// The kernel would resolve a reference to a target module's symbol in a place where it is too
    /// late or where nothing is any more.
    #[error("refers to a symbol of {object} in {section}: {why}")]
    Place {
        /// The target module.
        object: String,
        /// The section with the reference.
        section: String,
        /// What would go wrong.
        why: &'static str,
    },
    /// What objtool makes of code is not there for all of it.
    #[error("{section} at {at} is not in {table}, which objtool makes for all code")]
    Table {
        /// What it makes.
        table: &'static str,
        /// The section that has the code.
        section: String,
        /// The place in it.
        at: i64,
    },
    /// The module's fields cannot be read.
    #[error(transparent)]
    Modinfo(#[from] modinfo::Error),
    /// A field is not what it must be.
    #[error("modinfo {field} is {found:?} and must be {wanted:?}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value, none if it is missing or occurs twice.
        found: Option<String>,
        /// The value it must have.
        wanted: String,
    },
    /// The same inputs gave another module.
    #[error("two builds of the same inputs differ")]
    NotReproducible,
    /// The module cannot be read as such.
    #[error(transparent)]
    Elf(#[from] klp::Error),
}

/// A gate that a module went through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Passed {
    /// The gate's name.
    pub gate: String,
    /// What was seen.
    pub seen: String,
}

impl Passed {
    pub(crate) fn new(gate: &str, seen: impl Into<String>) -> Self {
        Self { gate: gate.to_owned(), seen: seen.into() }
    }
}

/// Each exported symbol and who exports it, from `Module.symvers`.
pub(crate) fn exports(symvers: &str) -> Result<BTreeMap<&str, &str>, Error> {
    let mut exports = BTreeMap::new();
    for (n, line) in symvers.lines().enumerate() {
        let mut fields = line.split('\t').skip(1);
        let (Some(symbol), Some(owner)) = (fields.next(), fields.next()) else {
            return Err(Error::Exports(n + 1));
        };
        exports.insert(symbol, owner);
    }
    Ok(exports)
}

/// Each exported symbol that only those may use who say so, and the namespace that they name.
pub(crate) fn namespaces(symvers: &str) -> BTreeMap<&str, &str> {
    let named = |line| {
        let mut fields = str::split(line, '\t').skip(1);
        let (symbol, namespace) = (fields.next()?, fields.nth(2)?);
        (!namespace.is_empty()).then_some((symbol, namespace))
    };
    symvers.lines().filter_map(named).collect()
}

/// The symbols among `undefined` that must come from the kernel itself because it does not export
/// them. Each must be its only one of that name. Those whose name says where they come from are
/// not among them.
pub(crate) fn unexported(
    undefined: &BTreeSet<String>,
    exports: &BTreeMap<&str, &str>,
    symbols: &Symbols,
) -> Result<BTreeSet<String>, Error> {
    let mut unexported = BTreeSet::new();
    for symbol in undefined.iter().filter(|s| !klp::is_encoded(s)) {
        match exports.get(symbol.as_str()) {
            Some(&"vmlinux") => {}
            Some(module) => {
                return Err(Error::OtherModule { symbol: symbol.clone(), module: (*module).to_owned() });
            }
            None => match symbols.count(symbol) {
                1 => {
                    unexported.insert(symbol.clone());
                }
                count => return Err(Error::Unresolved { symbol: symbol.clone(), count }),
            },
        }
    }
    Ok(unexported)
}

/// After the conversion nothing is undefined but what the kernel exports.
pub(crate) fn references(
    module: &[u8],
    exports: &BTreeMap<&str, &str>,
    klp: &[KlpSymbol],
) -> Result<Passed, Error> {
    let undefined = klp::undefined(module)?;
    if let Some(symbol) = undefined.iter().find(|s| exports.get(s.as_str()) != Some(&"vmlinux")) {
        return Err(Error::Unresolved { symbol: symbol.clone(), count: 0 });
    }
    let names: Vec<_> = klp.iter().map(|k| k.name.as_str()).collect();
    Ok(Passed::new(
        "references",
        format!("{} exported, {} through livepatch: {}", undefined.len(), klp.len(), names.join(", ")),
    ))
}

/// The kernel can resolve every reference to a symbol of a target module when it loads that target,
/// which may be long after it has loaded `module`.
pub(crate) fn targets(module: &[u8]) -> Result<Passed, Error> {
    let sections = klp::sections(module)?;
    let mut targets = BTreeSet::new();
    for (object, section) in sections.iter().filter(|(object, _)| object != "vmlinux") {
        if let Some((_, why)) = FORBIDDEN.iter().find(|(start, _)| section.starts_with(start)) {
            return Err(Error::Place { object: object.clone(), section: section.clone(), why });
        }
        targets.insert(object.as_str());
    }
    let names: Vec<_> = targets.into_iter().collect();
    let names = if names.is_empty() { "no module".to_owned() } else { names.join(", ") };
    Ok(Passed::new("targets", format!("refers to symbols of {names} in code and data that stay")))
}

/// Beginnings of the names of sections in which a target's symbols must not be needed.
const FORBIDDEN: [(&str, &str); 7] = [
    (".altinstr", "the kernel puts alternatives in place when it loads the patch"),
    (".parainstructions", "the kernel puts alternatives in place when it loads the patch"),
    (".init", "its memory is given back once the patch is loaded"),
    (".exit", "the patch may be removed while the target is not there"),
    ("__jump_table", "the kernel reads static keys when it loads the patch"),
    ("__ex_table", "the kernel sorts it when it loads the patch"),
    (".static_call_sites", "the kernel reads static calls when it loads the patch"),
];

/// The module says of itself what it was built for.
pub(crate) fn fields(module: &[u8], wanted: &[(&'static str, &str)]) -> Result<Passed, Error> {
    let info = Modinfo::of(module)?;
    for (field, wanted) in wanted {
        let found = info.get(field);
        if found != Some(*wanted) {
            return Err(Error::Field {
                field,
                found: found.map(str::to_owned),
                wanted: (*wanted).to_owned(),
            });
        }
    }
    let names: Vec<_> = wanted.iter().map(|(field, _)| *field).collect();
    Ok(Passed::new("modinfo", names.join(", ")))
}

/// Two builds in two places gave the same bytes.
pub(crate) fn reproducible(first: &[u8], second: &[u8]) -> Result<Passed, Error> {
    if first == second {
        return Ok(Passed::new("reproducible", "two builds in two folders are equal"));
    }
    Err(Error::NotReproducible)
}

#[cfg(test)]
mod tests {
    use object::write::Object;
    use object::{Architecture, BinaryFormat, Endianness, SectionKind};

    use super::*;

    const SYMVERS: &str =
        "0x1\tkfree\tvmlinux\tEXPORT_SYMBOL\t\n0x2\tkvm_get\tarch/x86/kvm/kvm\tEXPORT_SYMBOL_GPL\t\n";

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn the_namespace_of_an_export_is_told_if_it_has_one() {
        let more = "0x3\tcxl_get\tvmlinux\tEXPORT_SYMBOL_GPL\tCXL\n0x4\told\tvmlinux\tEXPORT_SYMBOL\n";
        let text = format!("{SYMVERS}{more}");
        assert_eq!(namespaces(&text), BTreeMap::from([("cxl_get", "CXL")]));
    }

    #[test]
    fn a_symbol_of_another_module_is_refused() {
        let exports = exports(SYMVERS).unwrap();
        let error = unexported(&set(&["kfree", "kvm_get"]), &exports, &Symbols::default()).unwrap_err();
        assert!(matches!(error, Error::OtherModule { .. }), "{error}");
    }

    #[test]
    fn a_symbol_that_the_kernel_does_not_have_is_refused() {
        let exports = exports(SYMVERS).unwrap();
        let error = unexported(&set(&["kfree", "kfrei"]), &exports, &Symbols::default()).unwrap_err();
        assert_eq!(error, Error::Unresolved { symbol: "kfrei".to_owned(), count: 0 });
    }

    #[test]
    fn a_symbol_whose_name_says_where_it_is_from_is_left_to_the_conversion() {
        let found = unexported(&set(&["__klpsym_exfat__x__1"]), &BTreeMap::new(), &Symbols::default());
        assert_eq!(found.unwrap(), set(&[]));
    }

    #[test]
    fn a_symbol_of_a_target_is_refused_where_the_kernel_would_come_too_late() {
        let gate = |symbol: &str, section: &str| {
            let before = klp::tests::module(&[symbol], section);
            targets(&klp::convert(&before, &set(&["secret"])).unwrap().bytes)
        };
        // The module calls the symbol in .text and in the section named.
        let seen = gate("__klpsym_exfat__x__0", ".text.unlikely").unwrap().seen;
        assert!(seen.contains("exfat"), "{seen}");
        assert!(gate("secret", ".init.text").unwrap().seen.contains("no module"));
        for section in [
            ".init.text",
            ".init.data",
            ".exit.text",
            "__jump_table",
            ".static_call_sites",
            "__ex_table",
            ".altinstr_replacement",
        ] {
            let error = gate("__klpsym_exfat__x__0", section).unwrap_err();
            assert!(matches!(&error, Error::Place { section: s, .. } if s == section), "{error}");
        }
    }

    #[test]
    fn a_module_that_would_pull_in_another_one_is_refused() {
        let gate = |depends: &str| {
            let mut module = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
            let info = module.add_section(vec![], b".modinfo".to_vec(), SectionKind::ReadOnlyData);
            module.append_section_data(info, format!("license=GPL\0depends={depends}\0").as_bytes(), 1);
            fields(&module.write().unwrap(), &[("license", "GPL"), ("depends", "")])
        };
        assert_eq!(gate("").unwrap().seen, "license, depends");
        let error = gate("kvm,irqbypass").unwrap_err();
        let (found, wanted) = (Some("kvm,irqbypass".to_owned()), String::new());
        assert_eq!(error, Error::Field { field: "depends", found, wanted });
    }

    #[test]
    fn a_list_of_exports_in_another_form_is_refused() {
        assert_eq!(exports("0x1 kfree vmlinux\n").unwrap_err(), Error::Exports(1));
    }

    #[test]
    fn one_different_byte_is_not_reproducible() {
        assert_eq!(reproducible(b"a", b"b"), Err(Error::NotReproducible));
    }
}
