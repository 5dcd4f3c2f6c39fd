//! Times one decision about 10,000 and about 100,000 nodes: `cargo run --release -p invivo-rollout --example planner_10k`.
//!
//! Prints the median of 21 decisions at four moments of a rollout.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use invivo_rollout::{
    Brakes, Instructed, Instruction, Memory, Node, Offer, Parallel, Policy, Readiness, Report, Set,
    SetKernel, Stage, World, plan,
};
use invivo_terms::{BuildId, Digest, InvalidName, Level, NodeState, Revision};
use jiff::Timestamp;

const BUILDS: u32 = 12;

fn main() -> Result<(), InvalidName> {
    for fleet in [10_000, 100_000] {
        measure(fleet)?;
    }
    Ok(())
}

fn measure(fleet: u32) -> Result<(), InvalidName> {
    let mut world = world(fleet)?;
    println!("planner, {fleet} nodes, {BUILDS} kernel builds, 3 stages");
    for moment in ["start", "canary watched", "rest under way", "complete"] {
        println!("{moment:>16}: {:.2} ms", median(&world).as_secs_f64() * 1e3);
        let mut quiet = 0;
        while quiet < 4 && world.memory.rollout.as_ref().is_none_or(|rollout| !rollout.complete) {
            let before = world.memory.rollout.as_ref().map(|rollout| rollout.stage);
            let acted = step(&mut world);
            let stage = world.memory.rollout.as_ref().map(|rollout| rollout.stage);
            if before.is_some() && before != stage {
                break;
            }
            quiet = if acted { 0 } else { quiet + 1 };
        }
    }
    Ok(())
}

/// Decides; everybody instructed obeys; half an hour passes.
fn step(world: &mut World) -> bool {
    let made = plan(world);
    world.memory = made.memory;
    let acted = !made.actions.is_empty();
    for (name, instruction) in made.actions {
        let Some(node) = world.nodes.get_mut(&name) else { continue };
        let revision = node.spec.as_ref().map_or(Revision(0), |spec| spec.revision).next();
        if let (Some(report), Instruction::Apply(apply)) = (&mut node.report, &instruction) {
            report.observed = revision;
            report.level = apply.level;
            report.set = Some(apply.set.clone());
            report.state = NodeState::Applied;
            report.since = world.now;
        }
        node.spec = Some(Instructed { revision, instruction, by_other: false });
    }
    world.now = world.now.checked_add(Duration::from_mins(30)).unwrap_or(world.now);
    acted
}

fn median(world: &World) -> Duration {
    let mut times: Vec<Duration> = (0..21)
        .map(|_| {
            let start = Instant::now();
            std::hint::black_box(plan(std::hint::black_box(world)));
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn world(fleet: u32) -> Result<World, InvalidName> {
    let build = |number: u32| format!("{number:040x}").parse::<BuildId>();
    let digest = |number: u32| format!("{number:064x}").parse::<Digest>();
    let stage = |name: &str, max_parallel, soak| Stage {
        max_parallel,
        soak: Duration::from_secs(soak),
        ..Stage::new(name)
    };
    let mut sets = Vec::new();
    for number in 1..=20 {
        let mut kernels = BTreeMap::new();
        for kernel in (0..BUILDS).filter(|kernel| (number + kernel) % 3 == 0) {
            kernels.insert(
                build(kernel)?,
                SetKernel { level: Level(number), manifest: digest(number * 100 + kernel)? },
            );
        }
        let name = format!("2026-01-{number:02}.1").parse()?;
        sets.push(Set { name, digest: digest(number)?, blocked: None, kernels });
    }
    let now = Timestamp::UNIX_EPOCH;
    let mut nodes = BTreeMap::new();
    for number in 0..fleet {
        let report = Report {
            observed: Revision(1),
            build_id: build(number % BUILDS)?,
            level: Level(0),
            set: None,
            state: NodeState::Idle,
            excuse: None,
            since: now,
            why: None,
        };
        let node = Node {
            stage: if number < 100 { 0 } else { usize::from(number >= 1000) + 1 },
            ready: Readiness::Ready,
            cordoned: false,
            held: None,
            domains: BTreeMap::new(),
            claimed_by_other: false,
            spec: Some(Instructed { revision: Revision(1), instruction: Instruction::Hold, by_other: false }),
            report: Some(report),
        };
        nodes.insert(format!("node-{number:05}.example.internal"), node);
    }
    let stages =
        vec![stage("canary", Parallel::Nodes(100), 1800), stage("early", Parallel::Percent(50), 1800)];
    Ok(World {
        now,
        imprecision: Duration::from_secs(1),
        policy: Policy { stages, rest: stage("rest", Parallel::Percent(25), 0), ..Policy::default() },
        offer: Offer::Sets(sets),
        memory: Memory::default(),
        nodes,
        gates: Vec::new(),
        brakes: Brakes::default(),
        vanished: BTreeSet::new(),
    })
}
