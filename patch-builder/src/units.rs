//! What is edited and what is compiled are two things: a header is compiled in every C file that uses it, and a
//! C file may be a part of another. A unit is a C file that is compiled, with all edited files that are
//! compiled in it.

use std::collections::{BTreeMap, BTreeSet};

use crate::judge::Code;
use crate::object::resolve::VMLINUX;
use crate::part::{self, Edit, Handed, Made, Workshop};
use crate::progress::Progress;
use crate::refusal::{Gate, Refusal};
use crate::select::{self, Keys};

/// A file that is edited.
#[derive(Debug, Clone)]
pub struct Edited<'e> {
    /// What is wanted of it.
    pub edit: Edit<'e>,
    /// The C files that it is compiled in.
    pub units: BTreeSet<&'e str>,
    /// The functions that recipes name of it.
    pub named: Vec<&'e str>,
    /// What may become of its code.
    pub may: Code,
}

/// What came of all units.
#[derive(Debug, Clone, Default)]
pub struct Units {
    /// The parts, in the order of their paths.
    pub made: Vec<Made>,
    /// The units in which nothing differs, or which are not in the kernel build.
    pub nothing: Vec<(String, Refusal)>,
}

impl Units {
    /// Makes a part of each unit of `files` in which anything differs.
    ///
    /// # Errors
    ///
    /// A gate refuses, or something cannot be read or compiled.
    pub fn make(shop: &Workshop, files: &[Edited], progress: Progress) -> Result<Self, part::Error> {
        let mut units = Self::default();
        let handed = handed(shop, files)?;
        let all: BTreeSet<&str> = files.iter().flat_map(|file| file.units.iter().copied()).collect();
        for unit in all {
            let within: Vec<&Edited> = files.iter().filter(|file| file.units.contains(unit)).collect();
            let edits: Vec<Edit> = within.iter().map(|file| file.edit.clone()).collect();
            // A function of a file with more units may differ in another of them.
            let alone = within.iter().filter(|file| file.units.len() == 1);
            let named: Vec<&str> = alone.flat_map(|file| file.named.iter().copied()).collect();
            let may = within.iter().map(|file| file.may).max().unwrap_or_default();
            let of_unit = handed.of(unit);
            match shop.make(unit, &edits, &named, may, &of_unit, progress) {
                Ok(made) => units.made.push(made),
                Err(part::Error::Refused(refusal))
                    if matches!(refusal.gate, Gate::Changed | Gate::FileBuilt) =>
                {
                    units.nothing.push((unit.to_owned(), refusal));
                }
                Err(other) => return Err(other),
            }
        }
        units.handed()?;
        Ok(units)
    }

    /// Whether each new function that one part has for others is called by one, and is there whenever it is.
    fn handed(&self) -> Result<(), Refusal> {
        for made in &self.made {
            let is_taken = |name: &&String| self.made.iter().any(|other| other.takes.contains(*name));
            if let Some(name) = made.only_for_others.iter().find(|name| !is_taken(name)) {
                return Err(Refusal::new(Gate::Reached, format!("{}: {name}", made.seen.path)));
            }
            for name in &made.takes {
                let mut givers = self.made.iter().filter(|other| other.gives.contains(name));
                let giver = givers.next().filter(|_| givers.next().is_none());
                let giver = giver.map(|other| other.seen.object.as_str());
                // Only livepatch knows when a module's own references are filled in.
                if giver.is_none_or(|object| object != VMLINUX && object != made.seen.object) {
                    let what =
                        format!("{name} of {} is called in {}", giver.unwrap_or("nothing"), made.seen.object);
                    return Err(Refusal::new(Gate::OneSymbol, what));
                }
            }
        }
        Ok(())
    }

    /// Whether anything came of a file that is compiled in `units`.
    pub fn has(&self, units: &BTreeSet<&str>) -> bool {
        self.of(units).next().is_some()
    }

    /// Whether a function of a file that is compiled in `units` came out the same in all of them.
    pub fn is_unchanged(&self, units: &BTreeSet<&str>, function: &str) -> bool {
        self.of(units).all(|made| made.seen.unchanged.iter().any(|name| name == function))
    }

    fn of<'u>(&'u self, units: &'u BTreeSet<&str>) -> impl Iterator<Item = &'u Made> {
        self.made.iter().filter(|made| units.contains(made.seen.path.as_str()))
    }

    /// Whether every file has changed something, and every function that is named of it.
    ///
    /// # Errors
    ///
    /// The first that has not.
    pub fn complete(&self, files: &[Edited]) -> Result<(), Refusal> {
        for Edited { edit, units, named, .. } in files {
            let own = self.nothing.iter().find(|(unit, _)| unit == edit.path);
            if let Some((_, refusal)) = own {
                return Err(refusal.clone());
            }
            if !self.has(units) {
                let why = self.nothing.iter().find(|(unit, _)| units.contains(unit.as_str()));
                let none = || Refusal::new(Gate::Changed, format!("{}: no function", edit.path));
                return Err(why.map_or_else(none, |(_, refusal)| refusal.clone()));
            }
            if let Some(name) = named.iter().find(|name| self.is_unchanged(units, name)) {
                return Err(Refusal::new(Gate::Changed, format!("{}: {name}", edit.path)));
            }
        }
        Ok(())
    }
}

/// The new functions that one unit has and another calls.
#[derive(Default)]
struct AllHanded {
    /// The unit that has each.
    given: BTreeMap<String, String>,
    /// Those that each unit calls.
    taken: BTreeMap<String, BTreeSet<String>>,
}

impl AllHanded {
    fn of(&self, unit: &str) -> Handed {
        let all = |is_own: bool| self.given.iter().filter(move |(_, giver)| (*giver == unit) == is_own);
        let taken = self.taken.get(unit);
        let gives = all(true).map(|(name, _)| name.clone()).collect();
        let takes = all(false).map(|(name, _)| name.clone());
        Handed {
            gives,
            takes: takes.filter(|name| taken.is_some_and(|taken| taken.contains(name))).collect(),
        }
    }
}

fn handed(shop: &Workshop, files: &[Edited]) -> Result<AllHanded, Refusal> {
    let mut texts = Vec::new();
    for file in files {
        texts.push((file, shop.original(file.edit.path)?, shop.edited(&file.edit, Keys::AsWritten)?));
    }
    let mut all = AllHanded::default();
    for (file, own, text) in texts.iter().filter(|(file, ..)| file.units.contains(file.edit.path)) {
        for name in select::new_functions(own, text) {
            for (other, _, text) in texts.iter().filter(|(other, ..)| other.edit.path != file.edit.path) {
                if select::is_called(text, &name) {
                    let path = file.edit.path.to_owned();
                    if let Some(another) =
                        all.given.insert(name.clone(), path).filter(|p| p != file.edit.path)
                    {
                        let what = format!("{name} is new in {another} and in {}", file.edit.path);
                        return Err(Refusal::new(Gate::OneSymbol, what));
                    }
                    for unit in &other.units {
                        all.taken.entry((*unit).to_owned()).or_default().insert(name.clone());
                    }
                }
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Seen;

    fn made(path: &str, unchanged: &[&str]) -> Made {
        let unchanged = unchanged.iter().map(|name| (*name).to_owned()).collect();
        Made {
            bytes: Vec::new(),
            replaced: Vec::new(),
            build_id: None,
            code: Code::Goes,
            gives: BTreeSet::new(),
            only_for_others: BTreeSet::new(),
            takes: BTreeSet::new(),
            seen: Seen {
                path: path.to_owned(),
                object: "vmlinux".to_owned(),
                replaced: Vec::new(),
                added: Vec::new(),
                compared: 1,
                same: 1,
                unchanged,
                notes: Vec::new(),
            },
        }
    }

    fn edited<'e>(path: &'e str, units: &[&'e str], named: &[&'e str]) -> Edited<'e> {
        Edited {
            edit: Edit { path, wishes: Vec::new() },
            units: units.iter().copied().collect(),
            named: named.to_vec(),
            may: Code::Goes,
        }
    }

    fn units(made: Vec<Made>, nothing: &[(&str, Gate)]) -> Units {
        let of = |(unit, gate): &(&str, Gate)| ((*unit).to_owned(), Refusal::new(*gate, *unit));
        Units { made, nothing: nothing.iter().map(of).collect() }
    }

    #[test]
    fn a_header_must_change_something_in_one_of_its_units_and_not_in_all() {
        let files = [edited("h.h", &["a.c", "b.c"], &["get"]), edited("a.c", &["a.c"], &[])];
        let some = units(vec![made("a.c", &[])], &[("b.c", Gate::Changed)]);
        some.complete(&files).unwrap();
        let none = units(Vec::new(), &[("a.c", Gate::Changed), ("b.c", Gate::FileBuilt)]);
        assert_eq!(none.complete(&files[..1]).unwrap_err().gate, Gate::Changed);
        assert_eq!(none.complete(&files[1..]).unwrap_err(), Refusal::new(Gate::Changed, "a.c"));
    }

    #[test]
    fn a_new_function_for_others_is_called_by_one_whenever_it_is_there() {
        let of = |path: &str, object: &str, gives: &str, takes: &str| {
            let names = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
            let mut made = made(path, &[]);
            made.seen.object = object.to_owned();
            made.gives = names(gives).into_iter().collect();
            (made.only_for_others, made.takes) =
                (names(gives).into_iter().collect(), names(takes).into_iter().collect());
            made
        };
        let gate = |made: Vec<Made>| units(made, &[]).handed().map_err(|refusal| refusal.gate);
        let kernel = || of("a.c", "vmlinux", "fresh", "");
        assert_eq!(gate(vec![kernel(), of("b.c", "nfsd", "", "fresh")]), Ok(()));
        assert_eq!(gate(vec![of("a.c", "nfsd", "fresh", ""), of("b.c", "nfsd", "", "fresh")]), Ok(()));
        let apart = vec![of("a.c", "nfsd", "fresh", ""), of("b.c", "vmlinux", "", "fresh")];
        assert_eq!(gate(apart), Err(Gate::OneSymbol));
        assert_eq!(gate(vec![kernel(), of("b.c", "nfsd", "", "")]), Err(Gate::Reached));
        let twice = vec![kernel(), of("c.c", "vmlinux", "fresh", ""), of("b.c", "nfsd", "", "fresh")];
        assert_eq!(gate(twice), Err(Gate::OneSymbol));
        assert_eq!(gate(vec![of("b.c", "nfsd", "", "fresh")]), Err(Gate::OneSymbol));
    }

    #[test]
    fn a_function_of_a_header_must_not_come_out_the_same_everywhere() {
        let files = [edited("h.h", &["a.c", "b.c"], &["get"])];
        let once = units(vec![made("a.c", &["get"]), made("b.c", &[])], &[]);
        once.complete(&files).unwrap();
        let same = units(vec![made("a.c", &["get"]), made("b.c", &["get"])], &[]);
        assert_eq!(same.complete(&files).unwrap_err(), Refusal::new(Gate::Changed, "h.h: get"));
    }
}
