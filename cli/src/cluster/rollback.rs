//! `rollback <policy>`: the policy aims at what its rollout came from, or at a set that a person names.

use std::collections::BTreeSet;

use clap::Args;
use invivo_terms::{SetName, TargetSet};
use serde_json::json;

use super::change::{Act, Change};
use super::object::Object;
use super::{Call, Writing, expedite};
use crate::exit::Failure;

/// `rollback`
#[derive(Debug, Args)]
pub struct RollbackArguments {
    /// The PatchPolicy.
    pub(super) policy: String,
    /// The set to go to, or None to take every patch off; what the rollout came from where it is
    /// left out. None is never guessed.
    #[arg(long, value_name = "SET", value_parser = named)]
    pub(super) to: Option<TargetSet>,
    #[command(flatten)]
    pub(super) writing: Writing,
    #[command(flatten)]
    pub(super) call: Call,
}

fn named(text: &str) -> Result<TargetSet, String> {
    match TargetSet::try_from(text.to_owned()) {
        Ok(TargetSet::Latest) => Err("Latest never lowers a node; name a set, or None".to_owned()),
        Ok(target @ (TargetSet::None | TargetSet::Named(_))) => Ok(target),
        Err(_) => Err("expected a set's name such as 2026-11-21.1, or None".to_owned()),
    }
}

/// `spec.target.set` becomes `to`, or what the rollout came from.
///
/// # Errors
///
/// It came from no set, or itself went back; the feed has no such set.
pub(super) fn roll_back(
    act: Act<'_>,
    policy: &Object,
    sets: &[Object],
    to: Option<&TargetSet>,
) -> Result<Change, Failure> {
    let name = policy.name();
    let target = match to {
        Some(target) => target.clone(),
        None => came_from(policy)?,
    };
    if let TargetSet::Named(set) = &target {
        expedite::known(policy, sets, set)?;
    }
    let was = policy.text("/spec/target/set").unwrap_or("Latest").to_owned();
    let change = act.set(policy, "/spec/target/set", json!("Latest"), json!(target))?;
    let what = match &target {
        TargetSet::None => "Every patch comes off its nodes".to_owned(),
        TargetSet::Latest | TargetSet::Named(_) => format!("Its nodes go to {target}"),
    };
    let paused = if policy.at("/spec/paused").as_bool() == Some(true) {
        format!(" It is paused: nothing moves before `kubectl invivo resume {name}`.")
    } else {
        String::new()
    };
    let again = if was == target.to_string() {
        String::new()
    } else {
        format!(" To go on later, set spec.target.set to {was} again.")
    };
    Ok(change.said(
        &format!("PatchPolicy {name} aims at {target}; it aimed at {was}."),
        &format!("PatchPolicy {name} aims at {target} already; nothing was changed."),
        format!(
            "{what} in the policy's own stages, as a new rollout. \
             `kubectl invivo watch {name}` shows it.{again}{paused}"
        ),
    ))
}

/// The set that the rollout under way, or the last one, came from.
fn came_from(policy: &Object) -> Result<TargetSet, Failure> {
    let name = policy.name();
    let Some(number) = policy.number("/status/rollout/key/number") else {
        return Err(Failure::missing(format!(
            "PatchPolicy {name} has had no rollout; there is nothing to go back from"
        )));
    };
    let target: Option<SetName> = policy.read("/status/rollout/key/target");
    let from: Option<SetName> = policy.read("/status/rollout/from");
    let Some(from) = from else {
        return Err(Failure::missing(format!(
            "rollout {number} of PatchPolicy {name} came from no set; \
             to go to another one say --to <SET>, to take every patch off --to None{}",
            proven(policy)
        )));
    };
    // The second of two calls must not undo the first.
    if target.as_ref().is_none_or(|target| order(&from) > order(target)) {
        let target = target.map_or_else(|| "no patch".to_owned(), |target| target.to_string());
        return Err(Failure::error(format!(
            "rollout {number} of PatchPolicy {name} itself went back, from {from} to {target}; \
             to go further say --to <SET> or --to None{}",
            proven(policy)
        )));
    }
    Ok(TargetSet::Named(from))
}

/// By date, then by number: `2026-11-21.10` came after `2026-11-21.9`.
fn order(set: &SetName) -> (&str, u32) {
    let (date, number) = set.as_str().split_once('.').unwrap_or((set.as_str(), ""));
    (date, number.parse().unwrap_or(0))
}

/// What every stage of the policy has been through, as a hint.
fn proven(policy: &Object) -> String {
    let levels = policy.at("/status/proven").as_array().into_iter().flatten();
    let sets: BTreeSet<&str> = levels.filter_map(|level| level.get("set")?.as_str()).collect();
    if sets.is_empty() {
        return String::new();
    }
    format!(". Proven in this policy: {}", sets.into_iter().collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::super::change::Write;
    use super::super::object::Kind;
    use super::super::person::Person;
    use super::*;
    use serde_json::json;

    fn policy(target: &str, from: Option<&str>) -> Object {
        Object::new(
            Kind::Policy,
            json!({"metadata": {"name": "workers", "uid": "u"},
                "spec": {"feed": "production", "target": {"set": "Latest"}},
                "status": {"rollout": {"key": {"number": 4, "target": target}, "from": from},
                    "proven": [{"buildId": "b", "level": 3, "set": "2026-11-20.1"}]}}),
        )
    }

    fn sets() -> Vec<Object> {
        ["2026-11-19.1", "2026-11-20.1", "2026-11-21.1"]
            .map(|set| Object::new(Kind::Set, json!({"spec": {"feed": "production", "set": set}})))
            .to_vec()
    }

    fn try_it(policy: &Object, to: Option<&str>) -> Result<Change, Failure> {
        let ada = Person::new("ada");
        let to = to.map(|text| named(text).unwrap());
        roll_back(Act { command: "rollback", person: &ada }, policy, &sets(), to.as_ref())
    }

    fn aims_at(set: &str) -> Write {
        Write::Merge(json!({"metadata": {"uid": "u"}, "spec": {"target": {"set": set}}}))
    }

    #[test]
    fn the_policy_aims_at_what_its_rollout_came_from() {
        let change = try_it(&policy("2026-11-21.1", Some("2026-11-20.1")), None).unwrap();
        assert_eq!(change.write, aims_at("2026-11-20.1"));
        assert!(change.answer.next.contains("set spec.target.set to Latest again"), "{}", change.answer.next);
    }

    #[test]
    fn taking_every_patch_off_must_be_said() {
        let first = policy("2026-11-21.1", None);
        let failure = try_it(&first, None).unwrap_err();
        assert_eq!(failure.exit, crate::Exit::Missing);
        assert!(
            failure.message.contains("--to None. Proven in this policy: 2026-11-20.1"),
            "{}",
            failure.message
        );
        assert_eq!(try_it(&first, Some("None")).unwrap().write, aims_at("None"));
    }

    #[test]
    fn a_second_call_does_not_undo_the_first() {
        for (target, from) in [("2026-11-20.9", "2026-11-20.10"), ("None", "2026-11-20.1")] {
            let failure = try_it(&policy(target, Some(from)), None).unwrap_err();
            assert!(failure.message.contains("itself went back"), "{}", failure.message);
        }
        let further = try_it(&policy("2026-11-20.1", Some("2026-11-21.1")), Some("2026-11-19.1")).unwrap();
        assert_eq!(further.write, aims_at("2026-11-19.1"));
    }

    #[test]
    fn a_policy_without_a_rollout_has_nothing_to_go_back_from() {
        let new = Object::new(Kind::Policy, json!({"metadata": {"name": "workers", "uid": "u"}}));
        assert!(try_it(&new, None).unwrap_err().message.contains("has had no rollout"));
    }

    #[test]
    fn a_set_that_the_feed_does_not_have_is_not_aimed_at() {
        let failure = try_it(&policy("2026-11-21.1", None), Some("2026-01-01.1")).unwrap_err();
        assert_eq!(failure.exit, crate::Exit::Missing);
        assert!(named("Latest").is_err() && named("yesterday").is_err());
    }
}
