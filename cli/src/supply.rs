//! `invivo supply`: what of a newer kernel's fixes can be made patches of for an older one.

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use invivo_patch_builder::supply::{self, Order, Outcome};
use invivo_patch_builder::{Cache, KernelLock};
use serde::Serialize;

use crate::build::lock_in;
use crate::exit::Failure;
use crate::output::{self, Format};
use crate::table::Table;

/// `invivo supply`
#[derive(Debug, Args)]
pub struct SupplyArguments {
    /// The kernel's lock file, or its name in `kernels/` of the recipes (a release).
    #[arg(long)]
    kernel: PathBuf,
    /// The folder with all recipes.
    #[arg(long, default_value = "recipes")]
    recipes: PathBuf,
    /// The newer version of the distribution's source.
    #[arg(long)]
    to: String,
    /// Versions on the way there that the archive still has: the shorter the steps, the more changes are
    /// found.
    #[arg(long, value_delimiter = ',')]
    through: Vec<String>,
    /// A folder with the flaws' records, as the kernel's own list publishes them: they name the files of
    /// each fix. Without it there are titles alone.
    #[arg(long)]
    records: Option<PathBuf>,
    /// A folder with commits as patch files, one each, as `git format-patch` writes them and the stable kernels'
    /// queue keeps them. They are known by their titles, and what fits is taken as it is.
    #[arg(long)]
    commits: Option<PathBuf>,
    /// Only these flaws, such as CVE-2026-53249.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Make modules without trying them in a guest.
    #[arg(long)]
    no_boot: bool,
    /// Where results, modules and recipes go; a run that was interrupted goes on there.
    #[arg(long)]
    out: PathBuf,
    /// Draw until so many changes that touch the kernel build were seen, instead of taking all.
    #[arg(long, requires = "seed")]
    sample: Option<usize>,
    /// What to draw with.
    #[arg(long, requires = "sample")]
    seed: Option<String>,
    /// Form of the answer. Progress goes to standard error.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
#[serde(transparent)]
struct Answer(Vec<Outcome>);

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["FLAW", "FILES", "VERDICT"]);
        for outcome in self.0.iter().filter(|outcome| outcome.affects()) {
            let part = if outcome.others.is_empty() { "" } else { " (in part)" };
            let flaws = outcome.cves.join(" ") + part;
            table.row([flaws, outcome.paths.join(" "), supply::words(&outcome.verdict)]);
        }
        writeln!(f, "{table}")?;
        for (end, number) in supply::count(&self.0) {
            writeln!(f, "{number:5}  {end}")?;
        }
        Ok(())
    }
}

/// Works through a release and prints what came of it.
///
/// # Errors
///
/// The kernel build or the newer source cannot be had, or results cannot be kept.
pub fn run(arguments: &SupplyArguments) -> Result<(), Failure> {
    let cache = Cache::from_env().map_err(|e| Failure::of(&e))?;
    let lock = lock_in(&arguments.recipes.join("kernels"), &arguments.kernel);
    let lock = KernelLock::read(&lock).map_err(|e| Failure::of(&e))?;
    let order = Order {
        to: arguments.to.clone(),
        through: arguments.through.clone(),
        only: arguments.only.clone(),
        records: arguments.records.clone(),
        commits: arguments.commits.clone(),
        boot: !arguments.no_boot,
        jobs: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        sample: arguments.sample.zip(arguments.seed.clone()),
        out: arguments.out.clone(),
    };
    let mut progress = |step: invivo_patch_builder::Step, words: &str| eprintln!("{step:>8}  {words}");
    let outcomes = supply::run(&cache, &lock, &order, &mut progress)
        .map_err(|e| Failure::of(&e).while_doing("work through the release"))?;
    output::print(arguments.output, &Answer(outcomes))
}
