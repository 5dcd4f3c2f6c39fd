//! What Invivo's programs take of a node: memory, processor, wake-ups.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use invivo_terms::Level;

use crate::demo::{NODES, RECIPE};
use crate::fleet::{Fleet, Seen};
use crate::node::Node;
use crate::packages::Packages;
use crate::product::Product;
use crate::stage::PATIENCE;
use crate::{Cache, Lab, rebundle};

/// The two programs that every node runs.
const ON_A_NODE: [&str; 2] = ["invivo-agent", "invivo-loader"];
/// What most clusters run on every node already, to compare with.
const BESIDE: &str = "prometheus-node-exporter";
/// Where it is put on a node, and where it answers.
const BESIDE_FILE: &str = "/var/lib/prometheus-node-exporter";
const BESIDE_METRICS: &str = "http://127.0.0.1:9100/metrics";
/// The set of the large bundle.
const LARGE_SET: &str = "2026-11-24.1";
const LARGE: usize = 1 << 20;
/// How long wake-ups are counted.
const WATCHED: Duration = Duration::from_mins(2);
/// Longest that a script takes which does not wait.
const AT_ONCE: Duration = Duration::from_secs(30);

/// The file of the program to compare with. Nothing can be fetched from within the lab's network.
pub(crate) fn fetch_beside() -> anyhow::Result<PathBuf> {
    Ok(Packages::new(&Cache::open()?).unpacked(BESIDE)?.join("usr/bin").join(BESIDE))
}

/// Starts it on one node and scrapes it a few times.
pub(crate) fn start_beside(lab: &Lab, file: &Path) -> anyhow::Result<()> {
    let node = lab.node("node2")?;
    let copied = lab.copy_to(&node, file, BESIDE_FILE)?;
    ensure!(copied.success(), "copy {BESIDE}: {}", copied.text());
    let script = format!(
        "chmod +x {BESIDE_FILE} && systemd-run -q {BESIDE_FILE} && sleep 5 && \
         for i in 1 2 3; do curl -sSf -o /dev/null {BESIDE_METRICS} || exit 1; done"
    );
    let started = node.run(&script, AT_ONCE)?;
    ensure!(started.success(), "start {BESIDE}: {}", started.text());
    Ok(())
}

/// Resident memory of each program on each node that runs it.
pub(crate) fn memory(lab: &Lab) -> anyhow::Result<()> {
    for program in ["invivo-agent", "invivo-loader", "invivo-operator", "invivo-patch-server", BESIDE] {
        for node in lab.nodes()? {
            let script = format!("for p in $(pidof {program}); do grep VmRSS /proc/$p/status; done");
            let output = node.run(&script, AT_ONCE)?;
            let kib: Vec<u64> =
                output.text().split_whitespace().filter_map(|word| word.parse().ok()).collect();
            if !kib.is_empty() {
                let sum: u64 = kib.iter().sum();
                println!("| resident memory, {program} on {} | {sum} KiB |", node.name());
            }
        }
    }
    Ok(())
}

/// Ticks of processor time by node and program.
pub(crate) struct ProcessorTime(BTreeMap<(String, &'static str), u64>);

/// Processor time of agent and loader so far, user and system, in hundredths of a second.
pub(crate) fn processor_time(lab: &Lab) -> anyhow::Result<ProcessorTime> {
    let mut ticks = BTreeMap::new();
    for name in NODES {
        let node = lab.node(name)?;
        for program in ON_A_NODE {
            ticks.insert((name.to_owned(), program), ticks_of(&node, program)?);
        }
    }
    Ok(ProcessorTime(ticks))
}

impl ProcessorTime {
    /// The lab's Prometheus scrapes twelve times a minute, for the scenarios' sake; others do once or twice.
    pub(crate) fn tell_since(&self, before: &Self, length: Duration) {
        for (key, ticks) in &self.0 {
            let spent = ticks.saturating_sub(before.0.get(key).copied().unwrap_or_default());
            println!(
                "| processor at rest, {} on {}, probes and a scrape each 5 s within | {:.2} mCPU |",
                key.1,
                key.0,
                milli(spent, length)
            );
        }
    }
}

/// Processor time of a program on a node since it began, user and system, in hundredths of a second.
pub(crate) fn ticks_of(node: &Node, program: &str) -> anyhow::Result<u64> {
    // The name is in brackets and may hold anything; from the third field on there are none.
    sum(node, &format!("sed 's/.*) //' /proc/$(pidof {program})/stat | cut -d' ' -f12,13"))
}

/// How long so many hundredths of a second are.
pub(crate) fn time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 10)
}

/// Thousandths of a processor.
fn milli(ticks: u64, length: Duration) -> f64 {
    time(ticks).as_secs_f64() * 1000.0 / length.as_secs_f64()
}

/// A bundle of a MiB goes on: the most memory that both programs ever had, and their containers.
pub(crate) fn a_large_bundle(lab: &Lab, product: &Product<'_>, fleet: &Fleet) -> anyhow::Result<()> {
    let repository = product.old_repository("demo")?;
    let patch = product.build_patch(RECIPE)?;
    let bundle = rebundle::of_size(&patch, LARGE_SET, LARGE, &product.folder("large")?)?;
    let size = std::fs::metadata(&bundle)?.len();
    repository.add(product, &bundle, LARGE_SET, "test")?;
    product.apply(&product.policy_at_once(LARGE_SET))?;
    for name in NODES {
        fleet.wait(&format!("level 2 on {name}"), PATIENCE, || {
            let status = fleet.patches()?.remove(name).and_then(|patch| patch.status).unwrap_or_default();
            Ok(if status.level == Level(2) {
                Seen::Answer(())
            } else {
                Seen::NotYet(format!("{} {:?}", status.state, status.reason))
            })
        })?;
        let node = lab.node(name)?;
        for program in ON_A_NODE {
            let peak = sum(&node, &format!("grep VmHWM /proc/$(pidof {program})/status"))?;
            let group = format!("/sys/fs/cgroup$(cut -d: -f3 /proc/$(pidof {program})/cgroup)/memory.peak");
            let container = sum(&node, &format!("cat {group}"))? / 1024;
            println!(
                "| most resident memory with a bundle of {size} bytes, {program} on {name} | {peak} KiB; memory.peak {container} KiB |"
            );
        }
    }
    Ok(())
}

/// Wake-ups of each program on one node whose kubelet stands still and whose agent nobody scrapes.
pub(crate) fn wake_ups(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.node("node2")?;
    let quiet = node.run(
        "kill -STOP $(pidof kubelet) && nft -f - <<'END'
table inet invivo_lab_quiet {
  chain forward { type filter hook forward priority -300; tcp dport 9464 drop; }
}
END",
        AT_ONCE,
    )?;
    ensure!(quiet.success(), "make {} quiet: {}", node.name(), quiet.text());
    let counted = count_wake_ups(&node);
    let loud = node.run("nft delete table inet invivo_lab_quiet; kill -CONT $(pidof kubelet)", AT_ONCE)?;
    ensure!(loud.success(), "end the quiet of {}: {}", node.name(), loud.text());
    for Quiet { program, wakes, ticks } in counted? {
        let minutes = WATCHED.as_secs_f64() / 60.0;
        #[allow(clippy::cast_precision_loss, reason = "a handful")]
        let each = wakes as f64 / minutes;
        println!("| wake-ups per minute at rest, {program} | {each:.1} |");
        let spent = milli(ticks, WATCHED);
        println!("| processor at rest, {program}, no probes and no scrapes | {spent:.2} mCPU |");
    }
    Ok(())
}

/// What a program did while nobody asked it for anything.
struct Quiet {
    program: &'static str,
    wakes: u64,
    ticks: u64,
}

fn count_wake_ups(node: &Node) -> anyhow::Result<Vec<Quiet>> {
    std::thread::sleep(Duration::from_secs(5));
    let now = |program| anyhow::Ok((wake_ups_by_thread(node, program)?, ticks_of(node, program)?));
    let before = ON_A_NODE.map(now);
    std::thread::sleep(WATCHED);
    let mut counts = Vec::new();
    for (program, before) in ON_A_NODE.into_iter().zip(before) {
        let (before, ticks) = before?;
        let after = wake_ups_by_thread(node, program)?;
        // A thread that has ended takes its count along; one that has begun brings all of it.
        let since = |(thread, count): (&u64, &u64)| {
            count.saturating_sub(before.get(thread).copied().unwrap_or_default())
        };
        let ticks = ticks_of(node, program)?.saturating_sub(ticks);
        counts.push(Quiet { program, wakes: after.iter().map(since).sum(), ticks });
    }
    Ok(counts)
}

/// How often each thread of the program has waited, by the thread's number.
fn wake_ups_by_thread(node: &Node, program: &str) -> anyhow::Result<BTreeMap<u64, u64>> {
    let script =
        format!("cat /proc/$(pidof {program})/task/*/status | grep -E '^(Pid|voluntary_ctxt_switches):'");
    let output = node.run(&script, AT_ONCE)?;
    let text = output.text();
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let threads: BTreeMap<u64, u64> =
        numbers.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?))).collect();
    ensure!(output.success() && !threads.is_empty(), "{}: {script}: {text}", node.name());
    Ok(threads)
}

/// The sum of the numbers that a script prints.
fn sum(node: &Node, script: &str) -> anyhow::Result<u64> {
    let output = node.run(script, AT_ONCE)?;
    let numbers: Vec<u64> = output.text().split_whitespace().filter_map(|word| word.parse().ok()).collect();
    ensure!(output.success() && !numbers.is_empty(), "{}: {script}: {}", node.name(), output.text());
    numbers.into_iter().reduce(u64::saturating_add).context("no number")
}
