//! One change: where it is, what of it becomes a module, and what refuses.

use std::collections::BTreeSet;
use std::fs;
use std::time::Instant;

use invivo_terms::{Level, SetName};

use super::candidate::{Candidate, Found, How, Place};
use super::changelog;
use super::commits::{Fixed, Sources};
use super::group::{End, Taken};
use super::leads::Trees;
use super::work::{self, Differs, Texts};
use super::{Bench, Error, Outcome, Todo, Verdict, changes, commits, words};
use crate::build::{self, Built, finish};
use crate::judge::Code;
use crate::lock::Package;
use crate::progress::{Progress, Step};
use crate::recipe::{Fix, Recipe, SourceFile, is_header};
use crate::refusal::{Gate, Refusal};

/// The set that modules of a trial carry; it is never published.
const SET: &str = "2000-01-01.1";

/// The patch of a recipe, where that says better than a newer source what was taken.
const PATCH: &str = "fix.patch";

/// A recipe for a person to read, complete and approve.
fn recipe(change: &changelog::Change, taken: &Taken, source: &Package) -> Recipe {
    let file = |file: &SourceFile| {
        let mut file = file.clone();
        let mut functions = std::mem::take(&mut file.functions);
        // What came out the same is no part of the patch.
        let units: BTreeSet<&str> = file.units().collect();
        functions.retain(|name| !taken.units.is_unchanged(&units, name));
        if functions.is_empty() && file.compiled_in.is_empty() {
            let plain = |name: &String| name.split('.').next().unwrap_or(name).to_owned();
            let own = taken.units.made.iter().filter(|made| made.seen.path == file.path);
            functions = own.flat_map(|made| &made.seen.replaced).map(plain).collect();
        }
        if taken.is_rebased {
            // The patch has all that is taken.
            let whole = functions.is_empty();
            return SourceFile { functions, also: Vec::new(), headers: Vec::new(), whole, ..file };
        }
        SourceFile { functions, ..file }
    };
    Recipe {
        title: change.title.clone(),
        summary: "To be written by the person who approves it.".to_owned(),
        fixes: change
            .cves
            .iter()
            .map(|cve| Fix {
                cve: cve.clone(),
                cvss: None,
                severity: None,
                title: change.title.clone(),
                url: format!("https://security-tracker.debian.org/tracker/{cve}"),
            })
            .collect(),
        fixed: change.version.clone(),
        source: (!taken.is_rebased).then(|| source.clone()),
        patch: taken.is_rebased.then(|| PATCH.to_owned()),
        files: taken.files.iter().map(file).collect(),
        never_unload: taken.units.made.iter().any(|made| made.code == Code::Stays),
        check: None,
    }
}

/// What was tried of a change.
struct Tried {
    how: How,
    paths: Vec<String>,
}

/// The candidate as its commit has it. All files that it fixes must be the candidate's, unless `is_unbuilt`, and of
/// these it may only change functions that the step changed.
fn by_commit(
    candidate: &Candidate,
    fixed: &Fixed,
    sources: &impl Sources,
    is_unbuilt: impl Fn(&str) -> bool,
) -> Option<Candidate> {
    let of_candidate = |path: &String| candidate.places.iter().any(|place| place.path == *path);
    if !fixed.files.keys().all(|path| of_candidate(path) || is_unbuilt(path)) {
        return None;
    }
    let place = |place: &Place| {
        let path = place.path.as_str();
        let changes = changes::of_file(&sources.own(path)?, fixed.files.get(path)?);
        let is_of_step = changes.changed.keys().all(|name| place.functions.contains(name));
        is_of_step.then(|| Place::all(path, changes))
    };
    let places = candidate.places.iter().map(place).collect::<Option<Vec<_>>>()?;
    Some(Candidate { places, how: fixed.how })
}

/// Places that are compiled together: each alone, unless one of them `is_shared`.
fn together(places: &[Place], is_shared: impl Fn(&Place) -> bool) -> Vec<Vec<&Place>> {
    if places.iter().any(is_shared) {
        vec![places.iter().collect()]
    } else {
        places.iter().map(|place| vec![place]).collect()
    }
}

impl Bench<'_> {
    pub(super) fn one(
        &self,
        n: usize,
        todo: Todo,
        progress: Progress,
    ) -> Result<(Outcome, Option<Built>), Error> {
        let start = Instant::now();
        let change = todo.change;
        let mut outcome = Outcome {
            cves: change.cves.clone(),
            title: change.title.clone(),
            version: change.version.clone(),
            how: None,
            paths: Vec::new(),
            others: self.closing(change).filter(|title| *title != change.title).map(str::to_owned).collect(),
            verdict: Verdict::NotAffected { why: format!("for {}", change.machines.join(", ")) },
            ms: 0,
        };
        let mut made = None;
        if change.is_for_us() {
            match todo.finder.find(todo.number) {
                Found::NotBuilt(path) => {
                    outcome.verdict = Verdict::NotAffected { why: format!("{path} is not built") }
                }
                Found::Unclear(why) => outcome.verdict = Verdict::NeedsPerson { why },
                Found::NotCode(path) => {
                    let gate = Gate::OnlyCode.to_string();
                    outcome.verdict = Verdict::Refused { gate, what: path.clone() };
                    outcome.paths = vec![path];
                }
                Found::Here(candidate) => {
                    let (tried, verdict, built) = self.here(n, todo, candidate, progress)?;
                    outcome.how = Some(tried.how);
                    outcome.paths = tried.paths;
                    outcome.verdict = verdict;
                    made = built;
                }
            }
        }
        outcome.ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        progress(Step::Gates, &format!("{}: {}", change.cves.join(" "), words(&outcome.verdict)));
        Ok((outcome, made))
    }

    /// By its commit, if one is there and fits. Otherwise, or if that does not compile without what came before it,
    /// by what differs within its step.
    fn here(
        &self,
        n: usize,
        todo: Todo,
        candidate: Candidate,
        progress: Progress,
    ) -> Result<(Tried, Verdict, Option<Built>), Error> {
        let sources = Trees::of(&self.shop.source, todo.step);
        let is_unbuilt = |path: &str| !is_header(path) && !todo.finder.is_built(path);
        if let Some(fixed) = commits::fitting(todo.commits, &sources)
            && let Some(exact) = by_commit(&candidate, &fixed, &sources, is_unbuilt)
        {
            let ended = self.tried(n, Todo { fixed: Some(&fixed), ..todo }, exact, progress)?;
            if !ended.1.is_refused_by(Gate::Compiles) {
                return Ok(ended);
            }
        }
        self.tried(n, todo, candidate, progress)
    }

    fn tried(
        &self,
        n: usize,
        todo: Todo,
        mut candidate: Candidate,
        progress: Progress,
    ) -> Result<(Tried, Verdict, Option<Built>), Error> {
        let paths = candidate.places.iter().map(|place| place.path.clone()).collect();
        let tried = Tried { how: candidate.how, paths };
        if self.leave_out_what_is_the_same(todo, &mut candidate)? {
            let (verdict, built) = self.make(n, todo, &candidate, progress)?;
            return Ok((tried, verdict, built));
        }
        let why = "it is in the kernel as it is after the fix: the flaw came later".to_owned();
        Ok((tried, Verdict::NotAffected { why }, None))
    }

    /// The titles of all changes that close these flaws.
    fn closing(&self, change: &changelog::Change) -> impl Iterator<Item = &str> {
        self.closing.get(change.cves.as_slice()).into_iter().flatten().copied()
    }

    /// A change of a later version may only undo what came after the kernel: of the candidate's functions
    /// those stay that differ from the kernel's own. Whether anything does.
    fn leave_out_what_is_the_same(&self, todo: Todo, candidate: &mut Candidate) -> Result<bool, Error> {
        let (mut differing, mut declared_only) = (Vec::new(), true);
        for mut place in std::mem::take(&mut candidate.places) {
            let Texts { own, fixed, .. } = self.texts(todo, &place)?;
            let had_functions = !place.functions.is_empty();
            let found = changes::of_file(&own, &fixed);
            let is_other = |name: &String| {
                found.changed.contains_key(name) || (is_header(&place.path) && found.new.contains_key(name))
            };
            place.functions.retain(is_other);
            let differs = if is_header(&place.path) {
                work::of_header(&place.path, &own, &fixed)
            } else if own != fixed && had_functions != place.functions.is_empty() {
                Differs::InCode
            } else {
                Differs::Nowhere
            };
            if differs != Differs::Nowhere {
                declared_only &= differs == Differs::Declared;
                differing.push(place);
            }
        }
        // Prototypes alone change no code.
        if declared_only {
            differing.clear();
        }
        candidate.places = differing;
        Ok(!candidate.places.is_empty())
    }

    /// A module of all files that the change is in.
    fn make(
        &self,
        n: usize,
        todo: Todo,
        candidate: &Candidate,
        progress: Progress,
    ) -> Result<(Verdict, Option<Built>), Error> {
        let mut taken = Taken::default();
        for places in together(&candidate.places, |place| self.is_shared(place)) {
            match self.group(todo, &places, candidate.how, progress) {
                Ok(more) => taken.add(more),
                // What differs in these files is not compiled, or comes out the same.
                Err(End::Refused(refusal)) if matches!(refusal.gate, Gate::FileBuilt | Gate::Changed) => {
                    taken.units.nothing.push((refusal.what.clone(), refusal));
                }
                Err(End::Refused(Refusal { gate, what, .. })) => {
                    return Ok((Verdict::Refused { gate: gate.to_string(), what }, None));
                }
                Err(End::Unclear(why)) => return Ok((Verdict::NeedsPerson { why }, None)),
                Err(End::Error(e)) => return Err(*e),
            }
        }
        if taken.units.made.is_empty() {
            let refusal = taken.units.nothing.pop().map(|(_, refusal)| refusal);
            let verdict = match refusal.unwrap_or_else(|| Refusal::new(Gate::Changed, "no function")) {
                Refusal { gate: Gate::FileBuilt, what, .. } => {
                    Verdict::NotAffected { why: format!("{what} is not built") }
                }
                // All that differs in all of its files was tried, and compiles to the same.
                Refusal { gate: Gate::Changed, what, .. } if candidate.how.knows_all_files() => {
                    let why = format!("{what}: what differs is not compiled for this kernel build");
                    Verdict::NotAffected { why }
                }
                Refusal { gate, what, .. } => Verdict::Refused { gate: gate.to_string(), what },
            };
            return Ok((verdict, None));
        }
        let whole = taken.files.iter().any(|file| file.whole);
        let (left, beside) = (taken.left.clone(), taken.beside.clone());
        match self.finish(n, todo, taken, progress) {
            Ok(built) => {
                let names = |object: &build::Changed| {
                    let of = |f: &String| format!("{}: {f}", object.name);
                    object.functions.iter().map(of).collect::<Vec<_>>()
                };
                let verdict = Verdict::Made {
                    module: built.name.to_string(),
                    replaced: built.objects.iter().flat_map(names).collect(),
                    whole,
                    left,
                    beside,
                    stays: built.code == Code::Stays,
                    boot: None,
                };
                Ok((verdict, Some(built)))
            }
            Err(build::Error::Gates(e)) => {
                Ok((Verdict::Refused { gate: Gate::OneSymbol.to_string(), what: e.to_string() }, None))
            }
            Err(build::Error::Compile(e)) => {
                let what = format!("link: {e}");
                Ok((Verdict::Refused { gate: Gate::Compiles.to_string(), what }, None))
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Puts the parts together, and writes the recipe that a person may approve.
    fn finish(&self, n: usize, todo: Todo, taken: Taken, progress: Progress) -> Result<Built, build::Error> {
        let change = todo.change;
        let recipe = recipe(change, &taken, &todo.step.package);
        let level = Level(u32::try_from(n + 1).unwrap_or(u32::MAX));
        let set: SetName = SET.parse()?;
        let out = self.order.out.join("modules");
        // Each part of a fix that is several changes has a folder of its own.
        let part = self.closing(change).position(|title| title == change.title).filter(|part| *part > 0);
        let part = part.map_or_else(String::new, |part| format!("-{}", part + 1));
        let recipe_folder = self.order.out.join("recipes").join(change.cves.join("-") + &part);
        let text = serde_json::to_string_pretty(&recipe)?;
        let patch = recipe.patch.is_some().then(|| taken.patch());
        let parts = taken.units.made;
        let built = finish(self.shop, vec![recipe], parts, level, &set, &out, progress)?;
        let written = fs::create_dir_all(&recipe_folder)
            .and_then(|()| fs::write(recipe_folder.join(crate::recipe::FILE), text))
            .and_then(|()| patch.map_or(Ok(()), |patch| fs::write(recipe_folder.join(PATCH), patch)));
        written.map_err(|source| build::Error::Write { path: recipe_folder, source })?;
        Ok(built)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two functions in each of two files.
    struct Files;

    impl Sources for Files {
        fn own(&self, path: &str) -> Option<String> {
            let own = "int one(void)\n{\n\treturn 1;\n}\nint two(void)\n{\n\treturn 1;\n}\n";
            path.starts_with("net/").then(|| own.to_owned())
        }
        fn newer(&self, path: &str) -> Option<String> {
            self.own(path)
        }
    }

    /// `one()` of `net/a.c`, as far as the step tells.
    fn candidate() -> Candidate {
        let place = Place {
            path: "net/a.c".to_owned(),
            functions: vec!["one".to_owned()],
            of_others: vec!["one".to_owned()],
            outside_of_others: true,
            surely: Vec::new(),
        };
        Candidate { places: vec![place], how: How::ByRecord }
    }

    /// The files with another number in the last or the first function.
    fn fixed(files: &[(&str, &str)]) -> Fixed {
        let file = |(path, function): &(&str, &str)| {
            let own = Files.own(path).unwrap();
            let at = own.find(function).unwrap();
            (path.to_string(), own[..at].to_owned() + &own[at..].replacen("return 1", "return 2", 1))
        };
        Fixed { files: files.iter().map(file).collect(), how: How::ByMerge }
    }

    #[test]
    fn of_a_commit_all_is_its_own() {
        let found = by_commit(&candidate(), &fixed(&[("net/a.c", "one")]), &Files, |_| false).unwrap();
        let [place] = &found.places[..] else { panic!("{found:?}") };
        assert_eq!((place.functions.as_slice(), &place.of_others[..]), (&["one".to_owned()][..], &[][..]));
        assert_eq!((found.how, place.outside_of_others), (How::ByMerge, false));
    }

    #[test]
    fn half_of_a_commit_is_not_taken_and_a_file_that_is_not_built_may_stay() {
        let both = fixed(&[("net/a.c", "one"), ("net/b.c", "one")]);
        assert_eq!(by_commit(&candidate(), &both, &Files, |_| false), None);
        assert!(by_commit(&candidate(), &both, &Files, |path| path == "net/b.c").is_some());
        assert_eq!(by_commit(&candidate(), &fixed(&[("net/b.c", "one")]), &Files, |_| true), None);
    }

    #[test]
    fn a_commit_that_fits_another_function_than_the_step_changed_is_not_taken() {
        assert_eq!(by_commit(&candidate(), &fixed(&[("net/a.c", "two")]), &Files, |_| false), None);
    }
}
