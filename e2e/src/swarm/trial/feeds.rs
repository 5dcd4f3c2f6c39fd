//! What a feed lets through, and what follows from what it does not.

use std::time::Duration;

use anyhow::ensure;
use invivo_terms::{Block, Hold};
use jiff::{Timestamp, ToSpan as _, tz::TimeZone};

use super::{AT_ONCE, NODES, STAGES, Trial, policy};
use crate::fleet::Seen;
use crate::product::{FEED, POLICY};
use crate::swarm::agents::Pace;
use crate::swarm::stand::{LATEST, LATEST_TEST, SETS};

const OVER: &str = "weekly";

/// A feed over another one.
fn over(name: &str, source: &str, spec: &str) -> String {
    format!(
        "apiVersion: invivo.dev/v1alpha1\nkind: PatchFeed\nmetadata: {{name: {name}}}\nspec:\n  \
         source: {{feed: {source}}}\n{spec}"
    )
}

pub(super) fn over_another(trial: &Trial<'_>) -> anyhow::Result<()> {
    let product = trial.product()?;
    // It would take what is being tested, but what it comes from does not.
    product.apply(&over(OVER, FEED, "  channel: Test\n"))?;
    product.apply(&policy(POLICY, OVER, "Latest", AT_ONCE, "", ""))?;
    trial.complete(LATEST)?;
    trial.stand.feed("  channel: Test\n")?;
    trial.complete(LATEST_TEST)?;
    println!("  {OVER} over {FEED}: {LATEST}, and {LATEST_TEST} once both take it");
    trial.stand.feed("  channel: Test\n  suspend: true\n")?;
    product.apply(&policy(POLICY, OVER, SETS[0], AT_ONCE, "", ""))?;
    trial.reason(Hold::FeedSuspended.as_str())?;
    trial.nothing_moves()?;
    product.kubectl(&["delete", "patchpolicy", POLICY])?;
    product.kubectl(&["delete", "patchfeed", OVER])?;
    trial.stand.feed("")
}

pub(super) fn withheld(trial: &Trial<'_>) -> anyhow::Result<()> {
    let yesterday = Timestamp::now().to_zoned(TimeZone::UTC).checked_sub(1.day())?.date();
    let every = [
        ("  delay: 1d\n".to_owned(), Some(Block::Delayed), Hold::Delayed),
        (format!("  asOf: \"{yesterday}\"\n"), Some(Block::AfterDate), Hold::TargetMissing),
        (
            "  approval: {mode: Manual, required: 2}\n".to_owned(),
            Some(Block::AwaitingApproval),
            Hold::AwaitingApproval,
        ),
        ("  suspend: true\n".to_owned(), None, Hold::FeedSuspended),
    ];
    for (spec, block, hold) in &every {
        trial.stand.feed(spec)?;
        trial.policy("Latest", AT_ONCE, "", "")?;
        if let Some(block) = block {
            trial.stand.fleet().wait(&format!("{} withheld", block.as_str()), super::PATIENCE, || {
                let blocked = trial.feed_status(FEED)?.blocked;
                let found =
                    blocked.iter().any(|found| found.set.as_str() == LATEST && found.reason == *block);
                Ok(if found { Seen::Answer(()) } else { Seen::NotYet(format!("{blocked:?}")) })
            })?;
        }
        trial.held(*hold, NODES)?;
        trial.nothing_moves()?;
        println!("  {}: {hold}: {}", spec.trim(), trial.status()?.next_action.unwrap_or_default());
    }
    trial.stand.feed("")?;
    trial.complete(LATEST)?;
    // What is on stays, whatever the feed withholds by now.
    for (spec, ..) in &every {
        trial.stand.feed(spec)?;
        trial.nothing_moves()?;
    }
    ensure!(trial.ledger()?.taken_back().count() == 0, "something was taken off");
    Ok(())
}

pub(super) fn circle(trial: &Trial<'_>) -> anyhow::Result<()> {
    let product = trial.product()?;
    product.apply(&over("one", "two", ""))?;
    product.apply(&over("two", "one", ""))?;
    for name in ["one", "two"] {
        let message = trial.stand.fleet().wait_feed(name, "False", "FeedCycle", super::PATIENCE)?;
        println!("  {name}: FeedCycle: {message}");
    }
    product.apply(&policy(POLICY, "one", "Latest", AT_ONCE, "", ""))?;
    trial.held(Hold::FeedStalled, NODES)?;
    trial.nothing_moves()?;
    let itself = product.apply(&over("itself", "itself", "")).err();
    ensure!(
        itself.is_some_and(|error| format!("{error:#}").contains("a feed cannot take from itself")),
        "a feed from itself was taken"
    );
    product.kubectl(&["delete", "patchpolicy", POLICY])?;
    product.kubectl(&["delete", "patchfeed", "one", "two"]).map(|_| ())
}

pub(super) fn deleted(trial: &Trial<'_>) -> anyhow::Result<()> {
    trial.swarm.set_pace(Pace { apply: Duration::from_millis(900), settle: Duration::from_secs(1) });
    let product = trial.product()?;
    product.apply(&over(OVER, FEED, ""))?;
    product.apply(&policy(POLICY, OVER, "Latest", STAGES, "", ""))?;
    trial.wait("the rest to begin", |status| {
        status.stage.as_ref().is_some_and(|stage| stage.name == "rest" && stage.nodes.in_flight > 0)
    })?;
    product.kubectl(&["delete", "patchfeed", OVER])?;
    println!("  {}", trial.reason("FeedNotFound")?);
    trial.nothing_moves()?;
    let ledger = trial.ledger()?;
    let told = ledger.told(LATEST).len();
    ensure!(told < NODES, "every node had been told");
    ensure!(ledger.taken_back().count() == 0, "something was taken off");
    product.apply(&over(OVER, FEED, ""))?;
    trial.complete(LATEST)?;
    println!("  {told} of {NODES} had been told; with the feed again the others were");
    product.kubectl(&["delete", "patchpolicy", POLICY])?;
    product.kubectl(&["delete", "patchfeed", OVER]).map(|_| ())
}
