//! Times what stands between a fetched patch and its load, in agent and loader:
//! `cargo run --release -p invivo-bundle --example verify_proof`.
//!
//! The repository is like the demonstration's: three holders of whom two sign, one timestamp key,
//! one bundle of 100 kB that does not compress. Nothing waits for a network. Prints medians of 101
//! runs, each the first in a process of its own, since sequoia remembers signatures that it has
//! verified; and of as many in one process that has seen them.

use std::env;
use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::iter;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use invivo_bundle::{pack, unpack};
use invivo_feed::document::Channel;
use invivo_feed::publish::{Addition, SmallHouse};
use invivo_feed::sample::{kernel, sample};
use invivo_feed::{Client, Clocks, Floors, Proof, check_module, digest, verify_proof};
use invivo_terms::{BuildId, Digest, Level, ModuleName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const RUNS: usize = 101;
const MODULE: usize = 100_000;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    if let [part, path] = env::args().skip(1).collect::<Vec<_>>().as_slice() {
        return child(part, Path::new(path));
    }
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("served.json");
    fs::write(&path, serde_json::to_vec(&Served::new(folder.path())?)?)?;
    let served: Served = serde_json::from_slice(&fs::read(&path)?)?;
    let passed = serde_json::to_vec(&served.proof)?;
    let agent = (first("agent", &path)?, median(|| timed(|| agent(&served)))?);
    let loader = (first("loader", &path)?, median(|| timed(|| loader(&served, &passed)))?);
    let (bundle, proof) = (served.bundle.len() / 1000, passed.len() / 1000);
    println!(
        "agent: documents, bundle of {bundle} kB, module, proof written: {:.2} ms, again {:.2} ms",
        agent.0, agent.1
    );
    println!(
        "loader: proof of {proof} kB read and verified, module: {:.2} ms, again {:.2} ms",
        loader.0, loader.1
    );
    Ok(())
}

/// One run in a process of its own; prints nanoseconds.
fn child(part: &str, path: &Path) -> Outcome<()> {
    let served: Served = serde_json::from_slice(&fs::read(path)?)?;
    let passed = serde_json::to_vec(&served.proof)?;
    let time = match part {
        "agent" => timed(|| agent(&served))?,
        "loader" => timed(|| loader(&served, &passed))?,
        other => return Err(format!("neither agent nor loader: {other}").into()),
    };
    println!("{}", time.as_nanos());
    Ok(())
}

/// What a patch server has for one kernel build.
#[derive(Serialize, Deserialize)]
struct Served {
    root: Digest,
    now: Timestamp,
    build: BuildId,
    proof: Proof,
    bundle: Vec<u8>,
    name: ModuleName,
    module: Vec<u8>,
}

impl Served {
    fn new(folder: &Path) -> Outcome<Self> {
        let now = Timestamp::now();
        let name = "patches.example.com".parse()?;
        let house = SmallHouse::generate(&name, now)?;
        let desk = house.found(&folder.join("desk"), &name, now)?;
        let level = Level(1);
        let mut sample = sample(&name, &kernel('a')?, &"2026-11-22.1".parse()?, level)?;
        sample.module.extend(noise(MODULE));
        for module in &mut sample.manifest.modules {
            module.length = sample.module.len() as u64;
            module.sha256 = digest(&sample.module);
        }
        let manifest = serde_json::to_vec(&sample.manifest)?;
        let bundle = pack(&manifest, &[(&sample.name, &sample.module)])?;
        let addition =
            Addition { channel: Channel::Stable, summary: "", manifest: &manifest, bundle: &bundle };
        house.publish(&desk, &[addition], now)?;
        let (root, build) = (desk.root()?, sample.manifest.kernel.build_id);
        let look = desk.repository().look(&root, &Floors::default(), clocks(now))?;
        let proof = desk.repository().proof(&look, &build, level, manifest)?;
        Ok(Self { root, now, build, proof, bundle, name: sample.name, module: sample.module })
    }
}

/// The whole workflow of a client, as `node-agent/agent` does it, less the network.
fn agent(served: &Served) -> Outcome<Vec<u8>> {
    let documents = &served.proof;
    let (first, rest) = documents.trust.split_first().ok_or("no trust document")?;
    let begun = Client::begin(&served.root, &Floors::default(), clocks(served.now), first)?;
    let client = rest.iter().try_fold(begun, Client::rotate)?;
    let catalogue = client.timestamp(&documents.timestamp)?.index(&documents.index)?;
    let document = catalogue.kernel(&served.build, &documents.kernel)?;
    let level = document.level(Level(1)).ok_or("no level")?;
    if digest(&served.bundle) != level.bundle.sha256 {
        return Err("another bundle".into());
    }
    let bundle = unpack(&served.bundle)?;
    let manifest = catalogue.manifest(&document, level.level, &bundle.manifest)?;
    for module in &bundle.modules {
        check_module(&manifest, &module.name, &module.bytes)?;
    }
    Ok(serde_json::to_vec(&Proof { manifest: bundle.manifest, ..documents.clone() })?)
}

/// What `node-agent/loader` does with what an agent passed, up to the system call.
fn loader(served: &Served, passed: &[u8]) -> Outcome<()> {
    let proof: Proof = serde_json::from_slice(passed)?;
    let first = proof.trust.first().ok_or("no trust document")?;
    if digest(&first.document) != served.root {
        return Err("another root".into());
    }
    let proven = verify_proof(&proof, &served.root, &Floors::default(), clocks(served.now))?;
    Ok(proven.module(&served.name, &served.module)?)
}

fn clocks(now: Timestamp) -> Clocks {
    Clocks { own: now, server: Some(now) }
}

fn timed<T>(run: impl FnOnce() -> Outcome<T>) -> Outcome<Duration> {
    let start = Instant::now();
    black_box(run()?);
    Ok(start.elapsed())
}

/// The median of first runs.
fn first(part: &str, path: &Path) -> Outcome<f64> {
    let program = env::current_exe()?;
    median(|| {
        let output = Command::new(&program).arg(part).arg(path).output()?;
        Ok(Duration::from_nanos(String::from_utf8(output.stdout)?.trim().parse()?))
    })
}

/// The median of so many runs, in milliseconds.
fn median(run: impl Fn() -> Outcome<Duration>) -> Outcome<f64> {
    let mut times = iter::repeat_with(run).take(RUNS).collect::<Outcome<Vec<_>>>()?;
    times.sort_unstable();
    Ok(times.get(RUNS / 2).copied().unwrap_or_default().as_secs_f64() * 1e3)
}

/// So many bytes that do not compress (xorshift).
fn noise(length: usize) -> impl Iterator<Item = u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
}
