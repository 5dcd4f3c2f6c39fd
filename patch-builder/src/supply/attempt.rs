//! One change: where it is, what of it becomes a module, and what refuses.

use std::fs;
use std::path::Path;
use std::time::Instant;

use invivo_terms::{Level, SetName};

use super::candidate::{Candidate, Found, How, Place};
use super::changelog::Change;
use super::headers::Headers;
use super::{Bench, Error, Outcome, Todo, Verdict, changes, words};
use crate::build::{self, Built, finish};
use crate::judge::Code;
use crate::lock::Package;
use crate::part;
use crate::progress::{Progress, Step};
use crate::recipe::{Fix, FromHeader, Recipe, SourceFile};
use crate::refusal::{Gate, Refusal};
use crate::select::{self, Wish};

/// What was taken of one file.
struct Taken {
    file: SourceFile,
    part: part::Made,
    /// Functions that differ and were not taken.
    left: Vec<String>,
}

/// What of the file is tried.
#[derive(Clone, PartialEq, Eq)]
struct What {
    functions: Vec<String>,
    /// What differs outside of functions as well, and not only what they name of it.
    outside: bool,
    /// What is left out.
    left: Vec<String>,
}

impl What {
    fn all(place: &Place) -> Self {
        Self { functions: place.functions.clone(), outside: true, left: Vec::new() }
    }

    fn without(&self, place: &Place, is_left: impl Fn(&String) -> bool) -> Self {
        let is_left = |name: &String| self.left.contains(name) || is_left(name);
        let (left, functions) = place.functions.iter().cloned().partition(is_left);
        Self { functions, left, ..self.clone() }
    }

    /// What is left out, for people.
    fn told(&self, texts: &Texts) -> Vec<String> {
        let outside = !self.outside && !select::outside(&texts.own, &texts.fixed).is_empty();
        let outside = outside.then(|| "what is outside of functions".to_owned());
        let removed = select::removed(&texts.own, &texts.fixed);
        let removed = removed.into_iter().map(|name| format!("the removal of {name}"));
        self.left.iter().cloned().chain(outside).chain(removed).collect()
    }

    fn without_others(&self, place: &Place) -> Self {
        let less = self.without(place, |name| place.of_others.contains(name));
        Self { outside: self.outside && !place.outside_of_others, ..less }
    }
}

/// The forms of one file.
struct Texts {
    /// The kernel's own.
    own: String,
    /// At the beginning of the step.
    older: String,
    /// At its end.
    fixed: String,
    /// What was put into that from headers.
    brought: Vec<FromHeader>,
}

impl Texts {
    /// Puts what is missing into the fixed file, as far as a newer header has it; whether that was
    /// anything.
    fn bring(&mut self, headers: &Headers, missing: &[String]) -> bool {
        let is_there = |name: &str| self.brought.iter().any(|header| header.names.iter().any(|n| n == name));
        let wanted: Vec<&String> = missing.iter().filter(|name| !is_there(name)).collect();
        let found: Vec<_> = wanted.into_iter().filter_map(|name| Some((name, headers.find(name)?))).collect();
        for (name, (path, text)) in &found {
            self.fixed = select::headers::put_in(&self.fixed, text);
            // In this order: what was asked for later may be what the earlier needs.
            if let Some(header) = self.brought.last_mut().filter(|header| header.path == *path) {
                header.names.push((*name).clone());
            } else {
                let names = vec![(*name).clone()];
                self.brought.push(FromHeader { path: (*path).to_owned(), names });
            }
        }
        !found.is_empty()
    }

    /// `functions`, and all others that differ from the kernel's own but those in `left`, if one of
    /// `functions` has changed before the step as well: its earlier change may need theirs.
    fn with_earlier(&self, functions: &[String], left: &[String]) -> Vec<String> {
        let earlier = changes::of_file(&self.own, &self.older).changed;
        if !functions.iter().any(|name| earlier.contains_key(name)) {
            return functions.to_vec();
        }
        let all = changes::of_file(&self.own, &self.fixed).changed;
        all.into_keys().filter(|name| !left.contains(name)).collect()
    }
}

/// Why nothing was taken.
enum End {
    Refused(Refusal),
    Unclear(String),
    Error(Box<Error>),
}

/// The set that modules of a trial carry; it is never published.
const SET: &str = "2000-01-01.1";

/// A recipe for a person to read, complete and approve.
fn recipe(change: &Change, taken: &[Taken], source: &Package) -> Recipe {
    let file = |Taken { file, part, .. }: &Taken| {
        let mut file = file.clone();
        // What came out the same is no part of the patch.
        file.functions.retain(|name| !part.seen.unchanged.contains(name));
        if file.functions.is_empty() {
            let plain = |name: &String| name.split('.').next().unwrap_or(name).to_owned();
            file.functions = part.seen.replaced.iter().map(plain).collect();
        }
        file
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
        source: Some(source.clone()),
        patch: None,
        files: taken.iter().map(file).collect(),
        never_unload: taken.iter().any(|taken| taken.part.code == Code::Stays),
        check: None,
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
                Found::Here(mut candidate) => {
                    outcome.how = Some(candidate.how);
                    outcome.paths = candidate.places.iter().map(|place| place.path.clone()).collect();
                    if self.leave_out_what_is_the_same(todo, &mut candidate)? {
                        let (verdict, built) = self.make(n, todo, &candidate, progress)?;
                        outcome.verdict = verdict;
                        made = built;
                    } else {
                        let why =
                            "it is in the kernel as it is after the fix: the flaw came later".to_owned();
                        outcome.verdict = Verdict::NotAffected { why };
                    }
                }
            }
        }
        outcome.ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        progress(Step::Gates, &format!("{}: {}", change.cves.join(" "), words(&outcome.verdict)));
        Ok((outcome, made))
    }

    /// A change of a later version may only undo what came after the kernel: of the candidate's functions
    /// those stay that differ from the kernel's own. Whether anything does.
    fn leave_out_what_is_the_same(&self, todo: Todo, candidate: &mut Candidate) -> Result<bool, Error> {
        let mut differing = Vec::new();
        for mut place in std::mem::take(&mut candidate.places) {
            let Texts { own, fixed, .. } = self.texts(todo, &place.path)?;
            let had_functions = !place.functions.is_empty();
            let changed = changes::of_file(&own, &fixed).changed;
            place.functions.retain(|name| changed.contains_key(name));
            if own != fixed && had_functions != place.functions.is_empty() {
                differing.push(place);
            }
        }
        candidate.places = differing;
        Ok(!candidate.places.is_empty())
    }

    fn texts(&self, todo: Todo, path: &str) -> Result<Texts, Error> {
        let own = self.shop.source.join(path);
        // What is not kept of another version is the kernel's own.
        let read = |tree: Option<&Path>| {
            let kept = tree.map(|tree| tree.join(path)).filter(|file| file.is_file());
            let path = kept.as_deref().unwrap_or(&own);
            fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })
        };
        let step = todo.step;
        Ok(Texts {
            own: read(None)?,
            older: read(step.older.as_deref())?,
            fixed: read(Some(&step.newer))?,
            brought: Vec::new(),
        })
    }

    /// A module of all files that the change is in.
    fn make(
        &self,
        n: usize,
        todo: Todo,
        candidate: &Candidate,
        progress: Progress,
    ) -> Result<(Verdict, Option<Built>), Error> {
        let mut taken = Vec::new();
        let mut nothing = None;
        for place in &candidate.places {
            match self.part(todo, place, candidate.how, progress) {
                Ok(part) => taken.push(part),
                // What differs in this file is not compiled, or comes out the same.
                Err(End::Refused(refusal)) if matches!(refusal.gate, Gate::FileBuilt | Gate::Changed) => {
                    nothing = Some(refusal);
                }
                Err(End::Refused(Refusal { gate, what, .. })) => {
                    return Ok((Verdict::Refused { gate: gate.to_string(), what }, None));
                }
                Err(End::Unclear(why)) => return Ok((Verdict::NeedsPerson { why }, None)),
                Err(End::Error(e)) => return Err(*e),
            }
        }
        if let Some(refusal) = nothing.filter(|_| taken.is_empty()) {
            let verdict = match refusal.gate {
                Gate::FileBuilt => Verdict::NotAffected { why: format!("{} is not built", refusal.what) },
                gate => Verdict::Refused { gate: gate.to_string(), what: refusal.what },
            };
            return Ok((verdict, None));
        }
        let whole = taken.iter().any(|taken| taken.file.whole);
        let left = taken.iter().flat_map(|taken| taken.left.clone()).collect();
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

    /// The part for one file: of all that differs; if that is refused, without what clearly belongs to
    /// other changes; and without functions that need more than this file to compile, as no part of a fix
    /// does whose record names all of its files. Tells the refusal of the first.
    fn part(&self, todo: Todo, place: &Place, how: How, progress: Progress) -> Result<Taken, End> {
        let mut texts = self.texts(todo, &place.path).map_err(|e| End::Error(Box::new(e)))?;
        let mut what = What::all(place);
        let mut first = None;
        loop {
            let end = self.try_part(todo, place, &texts, &what, progress);
            let Err(End::Refused(refusal)) = end else { return end };
            progress(Step::Select, &format!("{}: {refusal}", place.path));
            if first.is_none() && matches!(refusal.gate, Gate::FileBuilt | Gate::Changed) {
                return Err(End::Refused(refusal));
            }
            if texts.bring(todo.headers, &refusal.missing) {
                continue;
            }
            let less = if first.is_none() && what.without_others(place) != what {
                what.without_others(place)
            } else if how == How::ByRecord && refusal.gate == Gate::Compiles {
                let foreign = select::in_need_of(&texts.own, &texts.fixed, &refusal.within);
                let less = what.without(place, |name| foreign.contains(name) && !place.surely.contains(name));
                // If no function is to blame, it is what is outside of them.
                What { outside: what.outside && !refusal.within.is_empty(), ..less }
            } else {
                what.clone()
            };
            let first = first.get_or_insert(refusal);
            if less == what || less.functions.is_empty() {
                return Err(End::Refused(first.clone()));
            }
            what = less;
        }
    }

    /// First the functions with what they name and what changed together with them; the whole file if that
    /// does not compile and nothing was left out.
    fn try_part(
        &self,
        todo: Todo,
        place: &Place,
        texts: &Texts,
        what: &What,
        progress: Progress,
    ) -> Result<Taken, End> {
        let path = place.path.as_str();
        let Texts { own, fixed, .. } = texts;
        let (functions, mut also) =
            select::related(own, fixed, &texts.with_earlier(&what.functions, &what.left));
        if what.outside {
            also.extend(select::outside(own, fixed));
        }
        let whole = functions.is_empty();
        let file = |whole| SourceFile {
            path: path.to_owned(),
            functions: functions.clone(),
            also: also.clone(),
            headers: texts.brought.clone(),
            whole,
        };
        let mut tries = vec![file(whole)];
        if !whole && what.left.is_empty() && what.outside {
            tries.push(SourceFile { also: Vec::new(), ..file(true) });
        }
        let mut refusal = None;
        for file in tries {
            let version = Some(todo.step.package.version.as_str());
            let wish = Wish::of(&todo.change.title, fixed, version, &file);
            let workshop = self.shop.workshop(self.vmlinux, self.names);
            let made = workshop.make(path, &[wish], &[], Code::Stays, progress);
            match made {
                Ok(part) => {
                    let left = if file.whole { Vec::new() } else { what.told(texts) };
                    return Ok(Taken { file, part, left });
                }
                Err(part::Error::Refused(found)) => {
                    let again = found.gate == Gate::Compiles;
                    refusal.get_or_insert(found);
                    if !again {
                        break;
                    }
                }
                // The file is in the kernel build, and the kernel's own text of it does not compile here.
                Err(part::Error::Compile(e)) => {
                    return Err(End::Unclear(format!("{path} does not compile without the fix: {e}")));
                }
                Err(other) => return Err(End::Error(Box::new(build::Error::from(other).into()))),
            }
        }
        let nothing = || Refusal::new(Gate::Changed, path);
        Err(End::Refused(refusal.unwrap_or_else(nothing)))
    }

    /// Puts the parts together, and writes the recipe that a person may approve.
    fn finish(
        &self,
        n: usize,
        todo: Todo,
        taken: Vec<Taken>,
        progress: Progress,
    ) -> Result<Built, build::Error> {
        let change = todo.change;
        let recipe = recipe(change, &taken, &todo.step.package);
        let level = Level(u32::try_from(n + 1).unwrap_or(u32::MAX));
        let set: SetName = SET.parse()?;
        let out = self.order.out.join("modules");
        let recipe_folder = self.order.out.join("recipes").join(change.cves.join("-"));
        let text = serde_json::to_string_pretty(&recipe)?;
        let parts = taken.into_iter().map(|taken| taken.part).collect();
        let built = finish(self.shop, vec![recipe], parts, level, &set, &out, progress)?;
        let written = fs::create_dir_all(&recipe_folder)
            .and_then(|()| fs::write(recipe_folder.join(crate::recipe::FILE), text));
        written.map_err(|source| build::Error::Write { path: recipe_folder, source })?;
        Ok(built)
    }
}
