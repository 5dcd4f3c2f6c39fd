//! Boot after boot on one disk, each ended by a power cut at a random moment.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use invivo_terms::{Level, NodeState, Revision};

use crate::boot::{Guest, Rig};
use crate::bundles::GENERATIONS;
use crate::chance::Chance;
use crate::disk::{Cut, Disk};
use crate::judge::{Due, Promised};
use crate::plan::{Bytes, End, Plan, Said, Step};

/// Short, so that some levels have settled when the power goes and some have not.
const SETTLE_AFTER_SECONDS: u64 = 1;
/// A boot and what is done in it was seen to take some 150 requests to write, and 4 s.
const MOST_WRITES: u64 = 180;
/// Thousandths of the time that it took to the first of those, which goes by the machine's speed.
const LATEST: u64 = 1_000;
/// Where the moment does not come: after everything was done, and if all is slow.
const REST: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_mins(10);
/// Levels that are convicted stay so; then a new node tells more.
const BOOTS_OF_A_DISK: u32 = 12;
const LEVELS: u64 = 3;
const STRANGERS: Level = Level(4);

/// How often things happened.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<String, u32>);

impl Tally {
    fn count(&mut self, what: impl fmt::Display) {
        *self.0.entry(what.to_string()).or_default() += 1;
    }

    pub(crate) fn of(&self, what: &str) -> u32 {
        self.0.get(what).copied().unwrap_or_default()
    }

    pub(crate) fn add(mut self, other: Self) -> Self {
        for (what, count) in other.0 {
            *self.0.entry(what).or_default() += count;
        }
        self
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(out, "{count:6} {what}"))
    }
}

/// When the power goes.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// At this request to write since it came on: in the middle of something, since at rest little is
    /// written.
    Write(u64),
    /// So many thousandths of the time from power on to the first request to write after it; before it
    /// a boot has done nothing.
    After(u32),
}

impl Moment {
    fn draw(chance: &mut Chance) -> Self {
        match chance.below(2) {
            0 => Self::Write(1 + chance.below(MOST_WRITES)),
            _ => Self::After(u32::try_from(chance.below(LATEST)).unwrap_or(u32::MAX)),
        }
    }
}

/// Cuts the power `count` times; every promise that is broken is an error.
pub(crate) fn run(rig: &Rig, name: &str, seed: u64, count: u32) -> Result<Tally, Box<dyn Error>> {
    let image = rig.bundles.file_system.image()?;
    let mut chance = Chance::new(seed);
    let disk = Disk::serve(Arc::clone(&image))?;
    let mut tally = Tally::default();
    let mut promised = Promised::new(rig.bundles.facts());
    let mut boots = 0;
    for number in 1..=count {
        let all_convicted = (1..=LEVELS).all(|level| promised.is_convicted(of(level)));
        if boots == BOOTS_OF_A_DISK || (all_convicted && chance.below(2) == 0) {
            disk.renew(Arc::clone(&image));
            (promised, boots) = (Promised::new(rig.bundles.facts()), 0);
        }
        boots += 1;
        let steps = steps(&mut chance.split(), promised.asked(), all_convicted);
        let settle_after_seconds = SETTLE_AFTER_SECONDS;
        let plan = Plan { settle_after_seconds, end: End::Cut, ..crate::plan(rig, steps) };
        let moment = Moment::draw(&mut chance);
        let (cut, guest) = one(rig, name, &disk, &plan, moment, &mut chance)?;
        let said = guest.said();
        let wrong: Vec<_> = said.iter().flat_map(|said| hear(&mut promised, said, &mut tally)).collect();
        let last = said.last().map_or_else(|| "nothing".to_owned(), short);
        eprintln!("{name} {number:3} {moment:?}: {cut:?}, after {:?}, last {last}", guest.age());
        tally.count("cuts");
        if !said.iter().any(|said| matches!(said, Said::Up(_))) {
            tally.count("cuts before the loader had come up");
        }
        if promised.power_cut() {
            tally.count("cuts in the middle of an instruction");
        }
        if !wrong.is_empty() {
            return Err(
                format!("seed {seed}, cut {number}: {wrong:#?}\n{plan:?}\n{}", guest.console()).into()
            );
        }
    }
    Ok(tally)
}

/// One boot and its end.
fn one(
    rig: &Rig,
    name: &str,
    disk: &Disk,
    plan: &Plan,
    moment: Moment,
    chance: &mut Chance,
) -> Result<(Cut, Guest), Box<dyn Error>> {
    let mut chance = chance.split();
    let (at_write, after) = match moment {
        Moment::Write(number) => (Some((number, chance)), None),
        Moment::After(after) => (None, Some(after)),
    };
    disk.power_on(at_write);
    let guest = rig.boot(name, disk, plan, "")?;
    let (mut first_write, mut done) = (None, None);
    while disk.is_on() && guest.age() < LIMIT {
        if !guest.runs() {
            return Err(format!("the guest has ended:\n{}", guest.console()).into());
        }
        if first_write.is_none() && disk.writes() > 0 {
            first_write = Some(guest.age());
        }
        if done.is_none() && guest.has_said(|said| matches!(said, Said::Done(_))) {
            done = Some(guest.age());
        }
        let passed =
            |since: Option<Duration>, length| since.is_some_and(|since| guest.age() > since + length);
        let after = after.zip(first_write).map(|(after, took)| took * after / 1000);
        if passed(done, REST) || after.is_some_and(|after| passed(first_write, after)) {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let late = guest.age() >= LIMIT;
    let cut = disk.cut(&mut chance);
    guest.kill()?;
    if late {
        return Err(format!("nothing came of it within {LIMIT:?}:\n{}", guest.console()).into());
    }
    Ok((cut, guest))
}

fn hear(promised: &mut Promised, said: &Said, tally: &mut Tally) -> Vec<String> {
    match said {
        Said::Up(look) => {
            tally.count("loaders that came up");
            match look.state.state {
                NodeState::Settled => tally.count("levels brought back"),
                NodeState::Suspected => tally.count("suspicions"),
                NodeState::Convicted => tally.count("convictions"),
                _ => {}
            }
        }
        Said::Asks(step) => match promised.due(step) {
            Due::Heard => {}
            due => tally.count(format!("instructions due {due:?}")),
        },
        Said::Answered(..) => tally.count("answers"),
        Said::Looks(_)
        | Said::Sleeps(_)
        | Said::Began(_)
        | Said::LoaderEnded(_)
        | Said::Case(_)
        | Said::Cycled(_)
        | Said::Compared(_)
        | Said::Done(_) => {}
    }
    promised.hear(said)
}

fn short(said: &Said) -> String {
    match said {
        Said::Up(look) => format!("up, {:?} {}", look.state.state, look.state.level),
        Said::Asks(step) => format!("asks {step:?}"),
        Said::Answered(_, look) => format!("answered, {:?} {}", look.state.state, look.state.level),
        Said::Looks(look) => format!("looks, {:?} {}", look.state.state, look.state.level),
        Said::LoaderEnded(status) => format!("the loader has ended, {status}"),
        Said::Sleeps(_)
        | Said::Began(_)
        | Said::Case(_)
        | Said::Cycled(_)
        | Said::Compared(_)
        | Said::Done(_) => "done".to_owned(),
    }
}

fn of(level: u64) -> Level {
    Level(u32::try_from(level).unwrap_or(u32::MAX))
}

/// What is done in one boot: honest instructions in any order, and what an attacker would pass.
fn steps(chance: &mut Chance, known: Revision, all_convicted: bool) -> Vec<Step> {
    let mut revision = known;
    let mut next = || {
        revision = Revision(revision.0 + 1);
        revision
    };
    let mut steps: Vec<_> = all_convicted.then_some(Step::ClearVerdicts).into_iter().collect();
    let count = 3 + chance.below(4);
    let restless = chance.below(2) == 0;
    for _ in 0..count {
        // One level more often than the others, and boots in which none settles: so that some are
        // convicted.
        let level = of(if chance.below(2) == 0 { LEVELS } else { 1 + chance.below(LEVELS) });
        let generation = u32::try_from(chance.below(u64::from(GENERATIONS))).unwrap_or_default();
        let apply = |level, generation, revision, bytes| Step::Apply { level, generation, revision, bytes };
        steps.push(match chance.below(100) {
            // What is applied settles now and then, or nothing would ever be back after a boot.
            _ if !restless && matches!(steps.last(), Some(Step::Apply { .. })) && chance.below(3) == 0 => {
                Step::Settle
            }
            // The newest documents most of the time: whatever was seen before, these are taken.
            0..35 => apply(level, GENERATIONS - 1, next(), Bytes::Good),
            35..45 => apply(level, generation, next(), Bytes::Good),
            45..50 => apply(level, GENERATIONS - 1, next(), Bytes::Changed),
            50..55 => apply(STRANGERS, 0, next(), Bytes::Good),
            55..68 => Step::RollBack { revision: next() },
            68..76 => Step::Hold { revision: next() },
            76..80 => Step::Hold { revision: Revision(revision_before(known)) },
            _ if restless => Step::Hold { revision: next() },
            _ => Step::Settle,
        });
    }
    steps
}

fn revision_before(known: Revision) -> i64 {
    (known.0 - 1).max(0)
}
