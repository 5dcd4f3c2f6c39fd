//! A release at a time: what of the flaws that a distribution's newer kernel closes can be made a
//! patch of for an older one, with no hand at work. What comes out is a list for a person: nothing is
//! published by this.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use invivo_terms::{Level, SetName};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::build::{self, Built, finish};
use crate::cache::Cache;
use crate::judge::Code;
use crate::lock::{self, KernelLock, Package};
use crate::object::kernel::Names;
use crate::object::{Malformed, Object};
use crate::part;
use crate::progress::{Progress, Step};
use crate::recipe::{Fix, Recipe, SourceFile};
use crate::refusal::{Gate, Refusal};
use crate::select::{self, Wish};
use crate::shop::Shop;
use crate::{boot, fetch, tree};

pub mod candidate;
pub mod changelog;
pub mod changes;
pub mod index;
pub mod near;
pub mod steps;

use candidate::{Candidate, Finder, Found, How};
use changelog::Change;

/// A release cannot be worked through.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel build cannot be opened.
    #[error(transparent)]
    Build(#[from] Box<build::Error>),
    /// The lock cannot be used.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The newer source cannot be had.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// The newer source cannot be unpacked.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// The kernel build cannot be read.
    #[error(transparent)]
    Index(#[from] index::Error),
    /// The kernel is not an object.
    #[error(transparent)]
    Object(#[from] Malformed),
    /// A source tree cannot be read, or a result not be kept.
    #[error("{path}")]
    File {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line of the results of an earlier run is not one.
    #[error("results of an earlier run")]
    Results(#[from] serde_json::Error),
}

impl From<build::Error> for Error {
    fn from(error: build::Error) -> Self {
        Self::Build(Box::new(error))
    }
}

/// What became of one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "verdict")]
pub enum Verdict {
    /// A module.
    Made {
        /// The module's name.
        module: String,
        /// The objects and functions that it replaces.
        replaced: Vec<String>,
        /// The whole file had to be taken, not the functions alone.
        whole: bool,
        /// It stays in memory when it was taken off, since the address of its code is stored.
        #[serde(default)]
        stays: bool,
        /// What the boot test saw: "ok", or what was wrong; none if there was no boot test.
        boot: Option<String>,
    },
    /// It is not in this kernel build.
    NotAffected {
        /// Why.
        why: String,
    },
    /// A gate refused.
    Refused {
        /// The gate.
        gate: String,
        /// What it found.
        what: String,
    },
    /// A person must say where the change is.
    NeedsPerson {
        /// What is unclear.
        why: String,
    },
}

/// One line of the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The flaws.
    pub cves: Vec<String>,
    /// The change's title.
    pub title: String,
    /// The version that has it.
    pub version: String,
    /// How its place was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<How>,
    /// The file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Milliseconds that it took to make or refuse, without the boot test.
    pub ms: u64,
}

impl Outcome {
    /// Whether it counts among those that touch the kernel build.
    pub fn affects(&self) -> bool {
        !matches!(self.verdict, Verdict::NotAffected { .. })
    }
}

/// What to work through.
#[derive(Debug, Clone)]
pub struct Order {
    /// The newer version of the distribution's source package.
    pub to: String,
    /// Versions of it on the way there that the archive still has: what came in between two of them is
    /// found more surely than between the first and the last.
    pub through: Vec<String>,
    /// Stop after so many changes that touch the kernel build, drawn with this seed; all if none.
    pub sample: Option<(usize, String)>,
    /// Try what is made in a guest.
    pub boot: bool,
    /// How many changes are worked on at a time.
    pub jobs: usize,
    /// Where results and modules go; a run that was interrupted goes on there.
    pub out: PathBuf,
}

/// The file of results in an order's folder, one line of JSON each.
pub const RESULTS: &str = "supply.jsonl";

/// Works through the changes between the version of the kernel build that `lock` pins and a newer one.
///
/// # Errors
///
/// The kernel build or the newer source cannot be had, or results cannot be kept.
pub fn run(
    cache: &Cache,
    lock: &KernelLock,
    order: &Order,
    progress: Progress,
) -> Result<Vec<Outcome>, Error> {
    let shop = Shop::open(cache, lock, progress)?;
    let name = &lock.packages.source.name;
    let way = [lock.package_version.as_str(), order.to.as_str()];
    let steps = steps::steps(cache, &shop.source, name, way, &order.through, progress)?;
    let index = index::Index::of(&shop.debug, shop.vmlinux())?;
    let finders: Vec<_> = steps
        .iter()
        .map(|step| Finder::new(&step.changes, step.brought.iter().map(|c| c.title.as_str()), &index))
        .collect();
    let vmlinux = Object::parse(shop.vmlinux())?;
    let names = Names::of_vmlinux(&vmlinux);
    let bench = Bench { shop: &shop, vmlinux: &vmlinux, names: &names, order };
    let mut todo: Vec<Todo> = Vec::new();
    for (step, finder) in steps.iter().zip(&finders) {
        let flaws = step.brought.iter().filter(|change| !change.cves.is_empty());
        todo.extend(flaws.map(|change| Todo { change, step, finder }));
    }
    bench.work(&drawn(todo, order), progress)
}

/// One change, and the step that brought it.
#[derive(Clone, Copy)]
struct Todo<'t> {
    change: &'t Change,
    step: &'t steps::Step,
    finder: &'t Finder<'t>,
}

/// The changes in the order in which they are worked through.
fn drawn<'t>(mut todo: Vec<Todo<'t>>, order: &Order) -> Vec<Todo<'t>> {
    if let Some((_, seed)) = &order.sample {
        let key = |todo: &Todo| {
            let mut hash = Sha256::new();
            hash.update(seed);
            hash.update(todo.change.cves.join(","));
            hash.finalize()
        };
        todo.sort_by_key(key);
    }
    todo
}

struct Bench<'b> {
    shop: &'b Shop<'b>,
    vmlinux: &'b Object<'b>,
    names: &'b Names<'b>,
    order: &'b Order,
}

impl Bench<'_> {
    fn work(&self, all: &[Todo], progress: Progress) -> Result<Vec<Outcome>, Error> {
        let mut results = Results::open(&self.order.out)?;
        let mut outcomes = Vec::new();
        let limit = self.order.sample.as_ref().map_or(usize::MAX, |(number, _)| *number);
        let mut waiting: Vec<(usize, Built)> = Vec::new();
        let mut affecting = 0;
        let numbered: Vec<(usize, Todo)> = all.iter().copied().enumerate().collect();
        for some in numbered.chunks(self.order.jobs.max(1)) {
            if affecting >= limit {
                break;
            }
            let unknown = some.iter().copied().filter(|(_, todo)| results.known(todo.change).is_none());
            let mut fresh = self.together(unknown, progress)?.into_iter();
            for (_, todo) in some {
                // The rest was worked on beside the last that was asked for.
                if affecting >= limit {
                    break;
                }
                let outcome = if let Some(outcome) = results.known(todo.change) {
                    outcome
                } else {
                    let Some((outcome, built)) = fresh.next() else { continue };
                    if let Some(built) = built.filter(|_| self.order.boot) {
                        waiting.push((outcomes.len(), built));
                    } else {
                        results.keep(&outcome)?;
                    }
                    outcome
                };
                affecting += usize::from(outcome.affects());
                outcomes.push(outcome);
            }
            if waiting.len() >= BATCH {
                self.boot(&mut waiting, &mut outcomes, &mut results, progress)?;
            }
        }
        self.boot(&mut waiting, &mut outcomes, &mut results, progress)?;
        Ok(outcomes)
    }

    /// Works on several changes at a time; what came of them, in their order.
    fn together<'t>(
        &self,
        some: impl Iterator<Item = (usize, Todo<'t>)>,
        progress: Progress,
    ) -> Result<Vec<(Outcome, Option<Built>)>, Error> {
        let (said, heard) = mpsc::channel();
        thread::scope(|scope| {
            let workers: Vec<_> = some
                .map(|(n, todo)| {
                    let said = said.clone();
                    scope.spawn(move || {
                        // Whoever listens is there as long as the workers are.
                        let mut tell = |step, words: &str| drop(said.send((step, words.to_owned())));
                        self.one(n, todo, &mut tell)
                    })
                })
                .collect();
            drop(said);
            for (step, words) in heard {
                progress(step, &words);
            }
            let joined = |worker: thread::ScopedJoinHandle<'_, _>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().map(joined).collect()
        })
    }

    /// Tries the modules made so far, all in one guest, one after the other.
    fn boot(
        &self,
        waiting: &mut Vec<(usize, Built)>,
        outcomes: &mut [Outcome],
        results: &mut Results,
        progress: Progress,
    ) -> Result<(), Error> {
        if waiting.is_empty() {
            return Ok(());
        }
        let modules: Vec<&Built> = waiting.iter().map(|(_, built)| built).collect();
        let seen = boot::batch(self.shop.cache, &modules, progress);
        for (n, built) in waiting.drain(..) {
            let Some(outcome) = outcomes.get_mut(n) else { continue };
            if let Verdict::Made { boot, .. } = &mut outcome.verdict {
                *boot = Some(match &seen {
                    Ok(seen) => {
                        seen.get(built.name.as_str()).cloned().unwrap_or_else(|| "not reached".to_owned())
                    }
                    Err(e) => format!("no guest: {e}"),
                });
            }
            results.keep(outcome)?;
        }
        Ok(())
    }

    fn one(&self, n: usize, todo: Todo, progress: Progress) -> Result<(Outcome, Option<Built>), Error> {
        let start = Instant::now();
        let change = todo.change;
        let mut outcome = Outcome {
            cves: change.cves.clone(),
            title: change.title.clone(),
            version: change.version.clone(),
            how: None,
            path: None,
            verdict: Verdict::NotAffected { why: format!("for {}", change.machines.join(", ")) },
            ms: 0,
        };
        let mut made = None;
        if change.is_for_us() {
            match todo.finder.find(&change.title) {
                Found::NotBuilt(path) => {
                    outcome.verdict = Verdict::NotAffected { why: format!("{path} is not built") }
                }
                Found::Unclear(why) => outcome.verdict = Verdict::NeedsPerson { why },
                Found::Header(path) => {
                    let gate = Gate::OnlyCode.to_string();
                    outcome.verdict = Verdict::Refused { gate, what: path.clone() };
                    outcome.path = Some(path);
                }
                Found::Here(mut candidate) => {
                    outcome.how = Some(candidate.how);
                    outcome.path = Some(candidate.path.clone());
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
    /// those stay that differ from the kernel's own. Whether any does.
    fn leave_out_what_is_the_same(&self, todo: Todo, candidate: &mut Candidate) -> Result<bool, Error> {
        let (original, fixed) = self.texts(todo, candidate)?;
        let changes = changes::of_file(&original, &fixed);
        if candidate.whole {
            return Ok(original != fixed);
        }
        candidate
            .functions
            .retain(|name| changes.changed.contains_key(name) || changes.new.contains_key(name));
        Ok(!candidate.functions.is_empty())
    }

    /// The kernel's own text of the candidate's file, and the fixed one.
    fn texts(&self, todo: Todo, candidate: &Candidate) -> Result<(String, String), Error> {
        let own = self.shop.source.join(&candidate.path);
        let newer = todo.step.newer.join(&candidate.path);
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })
        };
        // What is not kept of the newer version is the kernel's own.
        Ok((read(&own)?, read(if newer.is_file() { &newer } else { &own })?))
    }

    /// First the functions alone; then with what they need, and the whole file, each only if what was
    /// tried before does not compile.
    fn make(
        &self,
        n: usize,
        todo: Todo,
        candidate: &Candidate,
        progress: Progress,
    ) -> Result<(Verdict, Option<Built>), Error> {
        let mut refusal = None;
        for file in self.tries(todo, candidate)? {
            match self.try_to_make(n, todo, &file, progress) {
                Ok(built) => {
                    let replaced = built
                        .objects
                        .iter()
                        .flat_map(|object| {
                            object.functions.iter().map(move |f| format!("{}: {f}", object.name))
                        })
                        .collect();
                    let verdict = Verdict::Made {
                        module: built.name.to_string(),
                        replaced,
                        whole: file.whole,
                        stays: built.code == Code::Stays,
                        boot: None,
                    };
                    return Ok((verdict, Some(built)));
                }
                Err(build::Error::Part(part::Error::Refused(Refusal { gate: Gate::FileBuilt, what }))) => {
                    return Ok((Verdict::NotAffected { why: format!("{what} is not built") }, None));
                }
                Err(build::Error::Part(part::Error::Refused(found))) => {
                    let again = found.gate == Gate::Compiles;
                    refusal.get_or_insert(found);
                    if !again {
                        break;
                    }
                }
                Err(build::Error::Gates(e)) => {
                    refusal.get_or_insert(Refusal::new(Gate::OneSymbol, e.to_string()));
                    break;
                }
                Err(build::Error::Compile(e)) => {
                    refusal.get_or_insert(Refusal::new(Gate::Compiles, format!("link: {e}")));
                    break;
                }
                // The file is in the kernel build, and the kernel's own text of it does not compile here.
                Err(build::Error::Part(part::Error::Compile(e))) => {
                    let why = format!("{} does not compile without the fix: {e}", file.path);
                    return Ok((Verdict::NeedsPerson { why }, None));
                }
                Err(other) => return Err(other.into()),
            }
        }
        let (gate, what) = refusal.map_or_else(Default::default, |r| (r.gate.to_string(), r.what));
        Ok((Verdict::Refused { gate, what }, None))
    }

    /// What is tried of a file, one after the other.
    fn tries(&self, todo: Todo, candidate: &Candidate) -> Result<Vec<SourceFile>, Error> {
        let file = |functions: Vec<String>, also: Vec<String>, whole| SourceFile {
            path: candidate.path.clone(),
            functions,
            also,
            whole,
        };
        let whole = file(candidate.functions.clone(), Vec::new(), true);
        if candidate.whole {
            return Ok(vec![whole]);
        }
        let (original, fixed) = self.texts(todo, candidate)?;
        let plain = file(candidate.functions.clone(), Vec::new(), false);
        let (functions, also) = select::related(&original, &fixed, &candidate.functions);
        let related = file(functions, also, false);
        Ok(if related == plain { vec![plain, whole] } else { vec![plain, related, whole] })
    }

    fn try_to_make(
        &self,
        n: usize,
        todo: Todo,
        file: &SourceFile,
        progress: Progress,
    ) -> Result<Built, build::Error> {
        let change = todo.change;
        let path = todo.step.newer.join(&file.path);
        let fixed =
            fs::read_to_string(&path).map_err(|source| build::Error::Write { path: path.clone(), source })?;
        let wish = Wish::of(&change.title, &fixed, Some(&todo.step.package.version), file);
        let workshop = self.shop.workshop(self.vmlinux, self.names);
        let part = workshop.make(&file.path, &[wish], &[], Code::Stays, progress)?;
        let recipe = recipe(change, file, &part, &todo.step.package);
        let level = Level(u32::try_from(n + 1).unwrap_or(u32::MAX));
        let set: SetName = SET.parse()?;
        let out = self.order.out.join("modules");
        let recipe_folder = self.order.out.join("recipes").join(change.cves.join("-"));
        let text = serde_json::to_string_pretty(&recipe)?;
        let built = finish(self.shop, vec![recipe], vec![part], level, &set, &out, progress)?;
        let written = fs::create_dir_all(&recipe_folder)
            .and_then(|()| fs::write(recipe_folder.join(crate::recipe::FILE), text));
        written.map_err(|source| build::Error::Write { path: recipe_folder, source })?;
        Ok(built)
    }
}

/// Modules that are tried in one guest.
const BATCH: usize = 12;
/// The set that modules of a trial carry; it is never published.
const SET: &str = "2000-01-01.1";

/// A recipe for a person to read, complete and approve.
fn recipe(change: &Change, file: &SourceFile, part: &part::Made, source: &Package) -> Recipe {
    let mut file = file.clone();
    if file.functions.is_empty() {
        let plain = |name: &String| name.split('.').next().unwrap_or(name).to_owned();
        file.functions = part.seen.replaced.iter().map(plain).collect();
    }
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
        files: vec![file],
        never_unload: part.code == Code::Stays,
        check: None,
    }
}

/// A verdict in a few words.
pub fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Made { replaced, whole, stays, boot, .. } => {
            let whole = if *whole { ", the whole file" } else { "" };
            let stays = if *stays { ", never unloaded" } else { "" };
            let boot = boot.as_ref().map_or_else(String::new, |boot| format!(", boot test: {boot}"));
            format!("made: {}{whole}{stays}{boot}", replaced.join(", "))
        }
        Verdict::NotAffected { why } => format!("not affected: {why}"),
        Verdict::Refused { gate, what } => format!("refused: {gate}: {what}"),
        Verdict::NeedsPerson { why } => format!("needs a person: {why}"),
    }
}

/// How many of those that touch the kernel build came to which end, by a word for it.
pub fn count(outcomes: &[Outcome]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for outcome in outcomes {
        let key = match &outcome.verdict {
            Verdict::Made { boot: None, .. } => "made".to_owned(),
            Verdict::Made { boot: Some(boot), .. } if boot == "ok" => "made and boot-tested".to_owned(),
            Verdict::Made { .. } => "made, boot test failed".to_owned(),
            Verdict::NotAffected { .. } => "not affected".to_owned(),
            Verdict::Refused { gate, .. } => format!("refused by {gate}"),
            Verdict::NeedsPerson { .. } => "needs a person".to_owned(),
        };
        *counts.entry(key).or_default() += 1;
    }
    counts
}

/// What earlier runs found, and what this one finds.
struct Results {
    file: fs::File,
    path: PathBuf,
    known: BTreeMap<BTreeSet<String>, Outcome>,
}

impl Results {
    fn open(out: &Path) -> Result<Self, Error> {
        let path = out.join(RESULTS);
        let failed = |source| Error::File { path: path.clone(), source };
        fs::create_dir_all(out).map_err(failed)?;
        let mut known = BTreeMap::new();
        if path.exists() {
            for line in fs::read_to_string(&path).map_err(failed)?.lines() {
                let outcome: Outcome = serde_json::from_str(line)?;
                known.insert(outcome.cves.iter().cloned().collect(), outcome);
            }
        }
        let file = fs::OpenOptions::new().append(true).create(true).open(&path).map_err(failed)?;
        Ok(Self { file, path, known })
    }

    fn known(&self, change: &Change) -> Option<Outcome> {
        self.known.get(&change.cves.iter().cloned().collect::<BTreeSet<_>>()).cloned()
    }

    fn keep(&mut self, outcome: &Outcome) -> Result<(), Error> {
        let line = serde_json::to_string(outcome)?;
        let failed = |source| Error::File { path: self.path.clone(), source };
        writeln!(self.file, "{line}").and_then(|()| self.file.flush()).map_err(failed)
    }
}
