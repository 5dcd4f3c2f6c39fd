//! A release at a time: what of the flaws that a distribution's newer kernel closes can be made a
//! patch of for an older one, with no hand at work. What comes out is a list for a person: nothing is
//! published by this.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use sha2::{Digest as _, Sha256};

use crate::build::{self, Built};
use crate::cache::Cache;
use crate::index;
use crate::lock::{self, KernelLock};
use crate::object::kernel::Names;
use crate::object::{Malformed, Object};
use crate::progress::{Progress, Step};
use crate::shop::Shop;
use crate::{boot, fetch, tree, users};

mod attempt;
pub mod candidate;
pub mod changelog;
pub mod changes;
pub mod commits;
pub mod fit;
mod group;
pub mod headers;
mod leads;
pub mod near;
mod outcome;
mod prerequisites;
pub mod records;
mod results;
pub mod steps;
mod work;

use candidate::{Finder, Told};
use changelog::Change;
use commits::{Commit, Commits, Fixed};
use leads::{Leads, Trees};
pub use outcome::{Outcome, Verdict, count, words};
use records::Records;
use results::Results;

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
    /// Records of flaws cannot be read.
    #[error("records")]
    Records(#[from] records::Error),
    /// Commits cannot be read.
    #[error("commits")]
    Commits(#[from] commits::Error),
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
    /// The folder has results of something else.
    #[error("{path}: results of something else: {before}")]
    OtherOrder {
        /// The file that says of what.
        path: PathBuf,
        /// Of what.
        before: String,
    },
    /// A line of the results of an earlier run is not one.
    #[error("{path}: line {line} is no result")]
    Results {
        /// The file.
        path: PathBuf,
        /// The line's number.
        line: usize,
        /// Why not.
        source: serde_json::Error,
    },
    /// A result cannot be put into words.
    #[error("write a result")]
    Words(#[from] serde_json::Error),
}

impl From<build::Error> for Error {
    fn from(error: build::Error) -> Self {
        Self::Build(Box::new(error))
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
    /// A folder with the flaws' records, which tell the files of each fix; titles alone if none.
    pub records: Option<PathBuf>,
    /// A folder with commits as patch files, which tell what each change is.
    pub commits: Option<PathBuf>,
    /// Only changes that close one of these flaws; all if none is named.
    pub only: Vec<String>,
    /// Stop after so many changes that touch the kernel build, drawn with this seed; all if none.
    pub sample: Option<(usize, String)>,
    /// Try what is made in a guest.
    pub boot: bool,
    /// How many changes are worked on at a time.
    pub jobs: usize,
    /// Where results and modules go; a run that was interrupted goes on there.
    pub out: PathBuf,
}

impl Order {
    /// What results are of: with another kernel, version, way or draw they would be others.
    fn words(&self, lock: &KernelLock) -> String {
        let through = self.through.join(" ");
        let records = if self.records.is_some() { "records" } else { "titles" };
        let commits = if self.commits.is_some() { ", commits" } else { "" };
        let seed = self.sample.as_ref().map_or("all", |(_, seed)| seed.as_str());
        let only = self.only.join(" ");
        format!(
            "{} {} to {} through {through}, {records}{commits}, {seed}, {only}\n",
            lock.release, lock.build_id, self.to
        )
    }
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
    let cache = &cache.with_archives(&lock.archives);
    let shop = Shop::open(cache, lock, progress)?;
    let name = &lock.packages.source.name;
    let way = [lock.package_version.as_str(), order.to.as_str()];
    let steps = steps::steps(cache, &shop.source, name, way, &order.through, progress)?;
    let mut index = index::Index::of(&shop.debug, shop.vmlinux())?;
    let differing = steps.iter().flat_map(|step| step.changes.keys());
    index
        .add_included(&shop.source, differing)
        .map_err(|source| Error::File { path: shop.source.clone(), source })?;
    let records = order.records.as_deref().map_or_else(|| Ok(Records::default()), Records::of)?;
    let commits = order.commits.as_deref().map_or_else(|| Ok(Commits::default()), Commits::of)?;
    if order.commits.is_some() {
        progress(Step::Select, &format!("{} titles of commits", commits.titles()));
    }
    let leads = steps.iter().map(|step| {
        let sources = Trees::of(&shop.source, step);
        let each = step.brought.iter().map(|change| Leads::of(change, &records, &commits, &sources));
        each.collect::<Result<Vec<_>, Error>>()
    });
    let leads = leads.collect::<Result<Vec<_>, _>>()?;
    let is_own = |path: &str| shop.source.join(path).is_file();
    let finders: Vec<_> = steps
        .iter()
        .zip(&leads)
        .map(|(step, leads)| {
            let all = step.brought.iter().zip(leads);
            let all = all.map(|(change, leads)| Told { title: &change.title, record: leads.record.as_ref() });
            Finder::new(&step.changes, all, &index, &is_own)
        })
        .collect();
    let headers = steps.iter().map(|step| {
        let failed = |source| Error::File { path: step.newer.clone(), source };
        headers::Headers::of(&shop.source, &step.newer, &shop.config).map_err(failed)
    });
    let headers = headers.collect::<Result<Vec<_>, _>>()?;
    let vmlinux = Object::parse(shop.vmlinux())?;
    let names = Names::of_vmlinux(&vmlinux);
    let users = users::Known::new(&shop.source, &index);
    let closing = closing(steps.iter().flat_map(|step| &step.brought));
    let bench = Bench {
        shop: &shop,
        vmlinux: &vmlinux,
        names: &names,
        index: &index,
        users: &users,
        closing: &closing,
        order,
    };
    let mut todo: Vec<Todo> = Vec::new();
    let each = steps.iter().zip(&leads).zip(&finders).zip(&headers);
    for (n, (((step, leads), finder), headers)) in each.enumerate() {
        let earlier = steps.get(..n).unwrap_or_default();
        let is_wanted = |cve: &String| order.only.is_empty() || order.only.contains(cve);
        let brought = step.brought.iter().zip(leads).enumerate();
        let flaws = brought.filter(|(_, (change, _))| change.cves.iter().any(is_wanted));
        todo.extend(flaws.map(|(number, (change, leads))| {
            let commits = &leads.commits;
            Todo { change, commits, fixed: None, number, step, earlier, finder, headers }
        }));
    }
    bench.work(&drawn(todo, order), progress)
}

/// The titles of all changes that close the same flaws, by their names.
type Closing<'c> = BTreeMap<&'c [String], Vec<&'c str>>;

fn closing<'c>(all: impl Iterator<Item = &'c Change>) -> Closing<'c> {
    let mut closing = Closing::new();
    for change in all.filter(|change| !change.cves.is_empty()) {
        closing.entry(&change.cves).or_default().push(&change.title);
    }
    closing
}

/// One change, and the step that brought it.
#[derive(Clone, Copy)]
struct Todo<'t> {
    change: &'t Change,
    /// The forms of its commit.
    commits: &'t [Commit],
    /// What the commit that is tried makes of the kernel's own files; none where what differs within the step is
    /// tried.
    fixed: Option<&'t Fixed>,
    /// Among all that the step brought.
    number: usize,
    step: &'t steps::Step,
    /// The steps before it, oldest first.
    earlier: &'t [steps::Step],
    finder: &'t Finder<'t>,
    headers: &'t headers::Headers,
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
    index: &'b index::Index,
    users: &'b users::Known<'b>,
    closing: &'b Closing<'b>,
    order: &'b Order,
}

impl Bench<'_> {
    fn work(&self, all: &[Todo], progress: Progress) -> Result<Vec<Outcome>, Error> {
        let mut results = Results::open(&self.order.out, &self.order.words(self.shop.lock))?;
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
}

/// Modules that are tried in one guest.
const BATCH: usize = 12;
