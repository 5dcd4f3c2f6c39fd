//! `expedite`: an emergency. The soaks of one set's rollout are skipped for a while.

use clap::Args;
use invivo_terms::{HumanDuration, SetName};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::change::{Act, Change, Reason};
use super::hold::after;
use super::object::Object;
use super::{Call, Writing};
use crate::exit::Failure;
use crate::time::relative;

/// `expedite`
#[derive(Debug, Args)]
pub struct ExpediteArguments {
    /// The PatchPolicy.
    pub(super) policy: String,
    /// The set whose rollout is in a hurry.
    #[arg(long)]
    pub(super) set: SetName,
    /// Why, for those who read it later.
    #[arg(long)]
    pub(super) reason: Reason,
    /// For how long, such as 2h.
    #[arg(long = "for", value_name = "DURATION")]
    pub(super) length: HumanDuration,
    #[command(flatten)]
    pub(super) writing: Writing,
    #[command(flatten)]
    pub(super) call: Call,
}

/// The set must be known through the policy's feed.
///
/// # Errors
///
/// It is not.
pub(super) fn known(policy: &Object, sets: &[Object], set: &SetName) -> Result<(), Failure> {
    let feed = policy.text("/spec/feed").unwrap_or_default();
    let here: Vec<&str> = sets
        .iter()
        .filter(|s| s.text("/spec/feed") == Some(feed))
        .filter_map(|s| s.text("/spec/set"))
        .collect();
    if here.contains(&set.as_str()) {
        return Ok(());
    }
    let all = if here.is_empty() { "none".to_owned() } else { here.join(", ") };
    Err(Failure::missing(format!(
        "feed {feed} of PatchPolicy {} has no set {set}; it has: {all}. Nothing was changed",
        policy.name()
    )))
}

/// `spec.rollout.expedite` becomes what was asked for.
///
/// # Errors
///
/// The policy's feed has no such set; the end is out of reach.
pub(super) fn expedite(
    act: Act<'_>,
    policy: &Object,
    sets: &[Object],
    asked: &ExpediteArguments,
    now: Timestamp,
) -> Result<Change, Failure> {
    known(policy, sets, &asked.set)?;
    let until = after(now, asked.length)?;
    let name = policy.name();
    let value = json!({
        "set": asked.set, "reason": asked.reason.as_str(), "user": act.person.user(), "until": until,
    });
    let rolling = policy.text("/status/rollout/key/target");
    let first = if rolling == Some(asked.set.as_str()) {
        String::new()
    } else {
        let now = rolling.map_or_else(|| "nothing yet".to_owned(), str::to_owned);
        format!(" The policy rolls out {now} now: this counts once its target is {}.", asked.set)
    };
    let change = act.set(policy, "/spec/rollout/expedite", Value::Null, value)?;
    Ok(change.said(
        &format!("The rollout of {} in PatchPolicy {name} is expedited.", asked.set),
        &format!("The rollout of {} in PatchPolicy {name} was expedited so already.", asked.set),
        format!(
            "Until {until} ({}) its stages are not soaked; gates, budget and maxParallel hold as before.{first}",
            relative(now, until)
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::change::Write;
    use super::super::object::Kind;
    use super::super::person::Person;
    use super::*;

    fn policy() -> Object {
        Object::new(
            Kind::Policy,
            json!({"metadata": {"name": "workers", "uid": "u"},
                "spec": {"feed": "production", "rollout": {"nodeDeadline": "10m"}},
                "status": {"rollout": {"key": {"number": 2, "target": "2026-11-20.1"}}}}),
        )
    }

    fn sets() -> [Object; 2] {
        ["production", "staging"].map(|feed| {
            let set = if feed == "production" { "2026-11-21.1" } else { "2026-11-22.1" };
            Object::new(
                Kind::Set,
                json!({"metadata": {"name": format!("{feed}.{set}")}, "spec": {"feed": feed, "set": set}}),
            )
        })
    }

    fn asked(set: &str) -> ExpediteArguments {
        ExpediteArguments {
            policy: "workers".to_owned(),
            set: set.parse().unwrap(),
            reason: "exploited in the wild".parse().unwrap(),
            length: "2h".parse().unwrap(),
            writing: Writing::default(),
            call: Call::default(),
        }
    }

    #[test]
    fn an_emergency_names_set_reason_person_and_end_and_nothing_else() {
        let (ada, now) = (Person::new("ada"), "2026-11-21T12:00:00Z".parse().unwrap());
        let act = Act { command: "expedite", person: &ada };
        let change = expedite(act, &policy(), &sets(), &asked("2026-11-21.1"), now).unwrap();
        let wanted = json!({"metadata": {"uid": "u"}, "spec": {"rollout": {"expedite": {
            "set": "2026-11-21.1", "reason": "exploited in the wild", "user": "ada",
            "until": "2026-11-21T14:00:00Z"}}}});
        assert_eq!(change.write, Write::Merge(wanted));
        assert!(change.answer.next.contains("rolls out 2026-11-20.1 now"), "{}", change.answer.next);
    }

    #[test]
    fn a_set_that_only_another_feed_has_is_not_there() {
        let (ada, now) = (Person::new("ada"), "2026-11-21T12:00:00Z".parse().unwrap());
        let act = Act { command: "expedite", person: &ada };
        let failure = expedite(act, &policy(), &sets(), &asked("2026-11-22.1"), now).unwrap_err();
        assert_eq!(failure.exit, crate::Exit::Missing);
        assert!(failure.message.contains("it has: 2026-11-21.1"), "{}", failure.message);
    }
}
