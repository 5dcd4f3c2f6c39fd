//! Input that cannot work: each is named with what to do, and no node notices.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use invivo_terms::Hold;
use jiff::Timestamp;

use super::{AT_ONCE, CANARIES, NODES, STAGES, Trial};
use crate::swarm::gate::{Gate, Manner};
use crate::swarm::stand::SETS;

/// What is written, and the hold that follows for so many nodes.
type Bad = (&'static str, String, String, (Hold, usize));

pub(super) fn table(trial: &Trial<'_>) -> anyhow::Result<()> {
    trial.policy(SETS[0], AT_ONCE, "", "")?;
    trial.complete(SETS[0])?;
    let query = format!(
        "  gates:\n  - prometheus: {{address: \"{}\", query: \"errors > 0\", for: 1s}}\n",
        Gate::address()
    );
    let now = Timestamp::now();
    let always = format!(
        "  blackouts: [{{from: \"{now}\", until: \"{}\", reason: for ever}}]\n",
        now + Duration::from_hours(24 * 365)
    );
    let never = format!(
        "  windows: [{{days: [{}], start: \"00:00\", duration: 1m}}]\n",
        // In the middle of the week after the day after tomorrow it opens; not now.
        now.to_zoned(jiff::tz::TimeZone::UTC).checked_add(jiff::Span::new().days(3))?.strftime("%a")
    );
    let typo = STAGES.replace("invivo.dev/canary", "invivo.dev/canery");
    let usual = STAGES.to_owned();
    let job = "  gates:\n  - job: {deadline: 5m, template: {image: \"example.com/never\"}}\n".to_owned();
    let bad: Vec<Bad> = vec![
        ("a canary label with a typo", typo, String::new(), (Hold::EmptyStage, NODES)),
        ("a window that is not open", usual.clone(), never, (Hold::OutsideWindow, CANARIES)),
        ("a blackout without end", usual.clone(), always, (Hold::Blackout, CANARIES)),
        ("a Job that never ends", usual.clone(), job, (Hold::GateUnknown, NODES)),
    ];
    for (what, stages, spec, (hold, count)) in bad {
        trial.policy(SETS[1], &stages, "", &spec)?;
        trial.held(hold, count)?;
        trial.nothing_moves()?;
        println!("  {what}: {hold}: {}", trial.status()?.next_action.unwrap_or_default());
    }
    for (manner, what) in [
        (Manner::Down, "a Prometheus that answers 503"),
        (Manner::Slow, "a Prometheus that takes a minute"),
        (Manner::Nonsense, "a Prometheus that answers nonsense"),
    ] {
        trial.gate.set(manner);
        // Another question, so that nothing that was answered before answers it.
        trial.policy(SETS[1], STAGES, "", &query.replace("errors", &format!("errors_{}", manner as u8)))?;
        trial.held(Hold::GateUnknown, NODES)?;
        let status = trial.wait("the gate's words", |status| {
            let asked = status.gates.iter().find(|gate| gate.name == "prometheus");
            asked.and_then(|gate| gate.message.as_ref()).is_some_and(|message| message != "not asked yet")
        })?;
        trial.nothing_moves()?;
        let said = status.gates.iter().find(|gate| gate.name == "prometheus").context("no gate")?;
        println!("  {what}: {}", said.message.as_deref().unwrap_or_default());
    }
    trial.gate.set(Manner::Well);
    trial.policy("2030-01-01.1", STAGES, "", "")?;
    trial.held(Hold::TargetMissing, NODES)?;
    trial.nothing_moves()?;
    println!("  a set that is not there: {}", trial.status()?.next_action.unwrap_or_default());
    let zone = "  windows: [{days: [Mon], start: \"02:00\", duration: 1h, timeZone: Atlantis/Poseidonis}]\n";
    trial.policy(SETS[1], STAGES, "", zone)?;
    println!("  an unknown time zone: {}", trial.reason("InvalidTimeZone")?);
    trial.nothing_moves()?;
    for (what, stages) in [
        ("0 %", STAGES.replace("maxParallel: 2", "maxParallel: 0%")),
        ("101 %", STAGES.replace("maxParallel: 2", "maxParallel: 101%")),
        ("two stages of one name", STAGES.replace("name: rest", "name: canary")),
    ] {
        let refused =
            trial.policy(SETS[1], &stages, "", "").err().with_context(|| format!("{what} was taken"))?;
        println!("  {what}: {}", format!("{refused:#}").lines().last().unwrap_or_default());
    }
    ensure!(trial.ledger()?.taken_back().count() == 0, "something was taken off");
    // What works is taken again.
    trial.policy(SETS[1], AT_ONCE, "", "")?;
    trial.complete(SETS[1])
}
