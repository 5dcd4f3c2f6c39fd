//! Files of one change that are compiled together: how much of what differs in them is taken, and what comes
//! with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::candidate::{How, Place};
use super::changes::Changes;
use super::prerequisites::{Wanted, needed};
use super::work::{Texts, What, Work};
use super::{Bench, Error, Todo};
use crate::build;
use crate::judge::Code;
use crate::part;
use crate::progress::{Progress, Step};
use crate::recipe::{SourceFile, is_header};
use crate::refusal::{Gate, Refusal};
use crate::select;
use crate::select::rebase::unified;
use crate::units::{Edited, Units};

/// What was taken of files that are compiled together.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) files: Vec<SourceFile>,
    pub(super) units: Units,
    /// Functions that differ and were not taken.
    pub(super) left: Vec<String>,
    /// Files beside those of the fix that it does not compile without.
    pub(super) beside: Vec<String>,
    /// The kernel's own text of each file, and with what was taken.
    texts: Vec<[String; 2]>,
    /// Some of that is not as in the newer source, which has more.
    pub(super) is_rebased: bool,
}

impl Taken {
    pub(super) fn add(&mut self, other: Self) {
        self.files.extend(other.files);
        self.units.made.extend(other.units.made);
        self.units.nothing.extend(other.units.nothing);
        self.left.extend(other.left);
        self.beside.extend(other.beside);
        self.texts.extend(other.texts);
        self.is_rebased |= other.is_rebased;
    }

    /// What was taken, as a patch of the kernel's own source.
    pub(super) fn patch(&self) -> String {
        let one = |(file, [own, taken]): (&SourceFile, &[String; 2])| unified(&file.path, own, taken);
        self.files.iter().zip(&self.texts).map(one).collect()
    }
}

/// Why nothing was taken.
pub(super) enum End {
    Refused(Refusal),
    Unclear(String),
    Error(Box<Error>),
}

impl Bench<'_> {
    pub(super) fn texts(&self, todo: Todo, place: &Place) -> Result<Texts, Error> {
        let path = place.path.as_str();
        let own = self.shop.source.join(path);
        // What is not kept of another version is the kernel's own.
        let read = |tree: Option<&Path>| {
            let kept = tree.map(|tree| tree.join(path)).filter(|file| file.is_file());
            let path = kept.as_deref().unwrap_or(&own);
            fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })
        };
        if let Some(fixed) = todo.fixed.and_then(|fixed| fixed.files.get(path)) {
            return Ok(Texts::of_commit(read(None)?, fixed.clone()));
        }
        let step = todo.step;
        let forms = [read(None)?, read(step.older.as_deref())?, read(Some(&step.newer))?];
        Ok(Texts::of(forms, &place.functions))
    }

    /// Whether a file is compiled in others.
    pub(super) fn is_shared(&self, place: &Place) -> bool {
        is_header(&place.path) || self.index.is_part_of_another(&place.path)
    }

    /// The parts for files that are compiled together: with less than all that differs, or else with what that
    /// needs of other files.
    pub(super) fn group(
        &self,
        todo: Todo,
        places: &[&Place],
        how: How,
        progress: Progress,
    ) -> Result<Taken, End> {
        let first = match self.with_less(todo, places, how, progress) {
            Err(End::Refused(refusal)) if how == How::ByRecord && refusal.gate == Gate::Compiles => refusal,
            other => return other,
        };
        match self.with_more(todo, places, &first, progress) {
            Err(End::Refused(_)) => Err(End::Refused(first)),
            other => other,
        }
    }

    fn works(&self, todo: Todo, places: &[&Place]) -> Result<Vec<Work>, End> {
        let work = |place: &&Place| {
            let texts = self.texts(todo, place).map_err(|e| End::Error(Box::new(e)))?;
            Ok(Work { texts, what: What::all(place), place: (*place).clone(), is_beside: false })
        };
        let mut works = places.iter().map(work).collect::<Result<Vec<_>, End>>()?;
        take_what_others_call(&mut works);
        Ok(works)
    }

    /// All that differs, and the neighbours' changes of other files that it does not compile without.
    fn with_more(
        &self,
        todo: Todo,
        places: &[&Place],
        first: &Refusal,
        progress: Progress,
    ) -> Result<Taken, End> {
        let mut works = self.works(todo, places)?;
        let mut refusal = first.clone();
        while refusal.gate == Gate::Compiles
            && (bring(todo, &mut works, &refusal) || self.add_needed(todo, &mut works, &refusal))
        {
            match self.try_group(todo, &works, progress) {
                Err(End::Refused(next)) => refusal = next,
                Ok(taken) => {
                    let is_own = |path: &String| places.iter().any(|place| place.path == *path);
                    let beside =
                        taken.files.iter().map(|file| file.path.clone()).filter(|path| !is_own(path));
                    let beside = beside.collect();
                    return Ok(Taken { beside, ..taken });
                }
                other => return other,
            }
            let paths: Vec<_> = works.iter().map(|work| work.place.path.as_str()).collect();
            progress(Step::Select, &format!("{}: {refusal}", paths.join(" ")));
        }
        Err(End::Refused(refusal))
    }

    /// Adds what the step, or else one before it, changed elsewhere of what does not compile; whether that was
    /// anything.
    fn add_needed(&self, todo: Todo, works: &mut Vec<Work>, refusal: &Refusal) -> bool {
        let wanted = Wanted { missing: &refusal.missing, reshaped: &refusal.reshaped };
        let read = |path: &str| {
            let own = fs::read_to_string(self.shop.source.join(path)).ok()?;
            Some([own, fs::read_to_string(todo.step.newer.join(path)).ok()?])
        };
        let steps = [todo.step].into_iter().chain(todo.earlier.iter().rev());
        let is_built = |path: &str, changes: &Changes| self.index.is_built(path, &changes.functions);
        let mut found = steps.map(|step| (step, needed(&step.changes, &wanted, is_built, read)));
        let Some((step, all)) = found.find(|(_, needed)| !needed.is_empty()) else { return false };
        let is_now = std::ptr::eq(step, todo.step);
        let mut is_any = false;
        for mut needed in all {
            if let Some(work) = works.iter_mut().find(|work| work.place.path == needed.path) {
                // Of a file with its own step's change alone, what came before is not to be had in part.
                if !is_now && !is_header(&needed.path) && work.texts.is_rebased {
                    return false;
                }
                needed.functions.retain(|name| work.texts.differs(name));
                is_any |= work.what.add(needed);
                continue;
            }
            if works.len() == MOST {
                return false;
            }
            let place = Place {
                path: needed.path.clone(),
                functions: needed.functions.clone(),
                of_others: Vec::new(),
                outside_of_others: false,
                surely: needed.functions.clone(),
            };
            let texts = if is_now {
                self.texts(todo, &place).ok()
            } else {
                read(&place.path).map(|[own, newer]| Texts::of([own.clone(), own, newer], &place.functions))
            };
            // It came and went.
            let Some(texts) = texts else { return false };
            if !is_now && !is_header(&place.path) {
                // What came between may build on it: all of it, or nothing.
                needed.functions.extend(texts.changed());
            }
            needed.functions.retain(|name| texts.differs(name));
            let mut what =
                What { functions: Vec::new(), outside: false, pieces: Vec::new(), left: Vec::new() };
            what.add(needed);
            works.push(Work { texts, what, place, is_beside: true });
            is_any = true;
        }
        take_what_others_call(works);
        is_any
    }

    /// All that differs; if that is refused, without what clearly belongs to other changes; and without functions
    /// that need more than these files to compile, as no part of a fix does whose record names all of its files.
    /// Tells the refusal of the first.
    fn with_less(&self, todo: Todo, places: &[&Place], how: How, progress: Progress) -> Result<Taken, End> {
        let mut works = self.works(todo, places)?;
        let mut first = None;
        loop {
            let end = self.try_group(todo, &works, progress);
            let Err(End::Refused(refusal)) = end else { return end };
            let paths: Vec<_> = works.iter().map(|work| work.place.path.as_str()).collect();
            progress(Step::Select, &format!("{}: {refusal}", paths.join(" ")));
            if first.is_none() && matches!(refusal.gate, Gate::FileBuilt | Gate::Changed) {
                return Err(End::Refused(refusal));
            }
            if !how.is_exact() && bring(todo, &mut works, &refusal) {
                continue;
            }
            let all_less = |less: &dyn Fn(&Work) -> What| works.iter().map(less).collect::<Vec<_>>();
            let is_less = |all: &[What]| works.iter().zip(all).any(|(work, less)| work.what != *less);
            let mut less = all_less(&|work| work.what.without_others(&work.place));
            if first.is_some() || !is_less(&less) {
                less = if how == How::ByRecord && refusal.gate == Gate::Compiles {
                    all_less(&|work| work.without_foreign(&refusal.within))
                } else {
                    all_less(&|work| work.what.clone())
                };
            }
            let is_same = !is_less(&less);
            let first = first.get_or_insert(refusal);
            for (work, less) in works.iter_mut().zip(less) {
                work.what = less;
            }
            // Of a header all may belong to others.
            works.retain(|work| {
                !is_header(&work.place.path) || work.what.outside || !work.what.functions.is_empty()
            });
            let is_empty = |work: &Work| work.what.functions.is_empty() && !is_header(&work.place.path);
            if is_same || works.is_empty() || works.iter().any(is_empty) {
                return Err(End::Refused(first.clone()));
            }
        }
    }

    /// First the functions with what they name and what changed together with them; the whole files if that
    /// does not compile and nothing was left out.
    fn try_group(&self, todo: Todo, works: &[Work], progress: Progress) -> Result<Taken, End> {
        let plain: Vec<SourceFile> = works.iter().map(|work| work.file(false)).collect();
        let mut tries = Vec::new();
        let is_all = |work: &Work| work.what.left.is_empty() && work.what.outside && !work.texts.is_rebased;
        if !plain.iter().all(|file| file.whole) && works.iter().all(is_all) {
            tries.push(works.iter().map(|work| work.file(true)).collect());
        }
        tries.push(plain);
        let mut refusal = None;
        while let Some(files) = tries.pop() {
            match self.try_files(todo, works, files, progress) {
                Ok(taken) => return Ok(taken),
                Err(part::Error::Refused(found)) => {
                    let again = found.gate == Gate::Compiles;
                    refusal.get_or_insert(found);
                    if !again {
                        break;
                    }
                }
                // The file is in the kernel build, and the kernel's own text of it does not compile here.
                Err(part::Error::Compile(e)) => {
                    let paths: Vec<_> = works.iter().map(|work| work.place.path.as_str()).collect();
                    let paths = paths.join(", ");
                    return Err(End::Unclear(format!("{paths}: does not compile without the fix: {e}")));
                }
                Err(other) => return Err(End::Error(Box::new(build::Error::from(other).into()))),
            }
        }
        let nothing = || Refusal::new(Gate::Changed, "no function");
        Err(End::Refused(refusal.unwrap_or_else(nothing)))
    }

    /// The parts with `files` in these forms.
    fn try_files(
        &self,
        todo: Todo,
        works: &[Work],
        mut files: Vec<SourceFile>,
        progress: Progress,
    ) -> Result<Taken, part::Error> {
        let workshop = self.shop.workshop(self.vmlinux, self.names);
        // Whoever is compiled anyway is compiled with all that the change is in.
        let mut anyway: BTreeSet<String> = BTreeSet::new();
        let mut users = Vec::new();
        for (work, file) in works.iter().zip(&files) {
            let found = if self.is_shared(&work.place) {
                let change = workshop.change(&work.edit(todo, file))?;
                self.users.users(&file.path, &change)?
            } else {
                BTreeSet::new()
            };
            if !is_header(&file.path) {
                let own = found.is_empty().then(|| file.path.clone());
                anyway.extend(found.iter().cloned().chain(own));
            }
            users.push(found);
        }
        for ((work, file), users) in works.iter().zip(&mut files).zip(users) {
            if is_header(&file.path) {
                file.compiled_in = users.union(&anyway).cloned().collect();
            } else if self.is_shared(&work.place) {
                file.compiled_in = users.into_iter().collect();
            }
        }
        let edited: Vec<Edited> = works
            .iter()
            .zip(&files)
            .filter(|(_, file)| !is_header(&file.path) || !file.compiled_in.is_empty())
            .map(|(work, file)| Edited {
                edit: work.edit(todo, file),
                units: file.units().collect(),
                named: Vec::new(),
                may: Code::Stays,
            })
            .collect();
        let mut units = Units::make(&workshop, &edited, progress)?;
        if units.made.is_empty() {
            let paths: Vec<_> = works.iter().map(|work| work.place.path.as_str()).collect();
            let nothing = || Refusal::new(Gate::FileBuilt, format!("what uses {}", paths.join(", ")));
            return Err(units.nothing.pop().map_or_else(nothing, |(_, refusal)| refusal).into());
        }
        let taken = |file: &SourceFile| units.has(&file.units().collect());
        // The rest calls it as it would be.
        let is_needed =
            |(work, file): &(&Work, &SourceFile)| work.is_beside && !is_header(&file.path) && !taken(file);
        if let Some((_, file)) = works.iter().zip(&files).find(is_needed) {
            return Err(Refusal::new(Gate::Users, format!("{}: nothing of it is made", file.path)).into());
        }
        let is_own = |file: &SourceFile| !file.whole && taken(file);
        let left = works.iter().zip(&files).filter(|(_, file)| is_own(file));
        let left = left.flat_map(|(work, file)| {
            // What something else that is taken needs came back.
            let told = work.what.told(&work.texts, work.is_beside);
            told.into_iter().filter(|name| !file.functions.contains(name)).collect::<Vec<_>>()
        });
        let left = left.collect();
        let mut texts = Vec::new();
        for (work, file) in works.iter().zip(&files).filter(|(_, file)| taken(file)) {
            texts.push(work.taken(todo, file)?);
        }
        let is_rebased = works.iter().any(|work| work.texts.is_rebased);
        files.retain(|file| units.has(&file.units().collect()));
        Ok(Taken { files, units, left, beside: Vec::new(), texts, is_rebased })
    }
}

/// The most files that are compiled together.
const MOST: usize = 10;

/// New functions that another file calls are taken, though none of their own file names them.
fn take_what_others_call(works: &mut [Work]) {
    let all: Vec<Vec<String>> = works
        .iter()
        .enumerate()
        .map(|(n, work)| {
            let new = select::new_functions(&work.texts.own, &work.texts.fixed);
            let older = select::functions(&work.texts.older);
            let is_wanted = |name: &String| {
                // One that came before the step came with more than itself.
                if work.texts.is_rebased && older.contains(name) {
                    return false;
                }
                let mut others = works.iter().enumerate().filter(|(other, _)| *other != n);
                !is_header(&work.place.path)
                    && others.any(|(_, other)| select::is_called(&other.texts.fixed, name))
            };
            new.into_iter().filter(is_wanted).collect()
        })
        .collect();
    for (work, new) in works.iter_mut().zip(all) {
        work.what.functions.extend(new);
        work.what.functions.sort_unstable();
        work.what.functions.dedup();
    }
}

/// Puts into a file what its functions miss and one newer header alone has; whether that was anything.
fn bring(todo: Todo, works: &mut [Work], refusal: &Refusal) -> bool {
    // The file whose functions miss it, or else any.
    let missing = works.iter().position(|work| work.has(&refusal.within)).unwrap_or_default();
    works.get_mut(missing).is_some_and(|work| work.texts.bring(todo.headers, &refusal.missing))
}
