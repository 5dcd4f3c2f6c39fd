//! `stop`, `start`: the emergency stop of the whole fleet, a ConfigMap in the operator's namespace.

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::change::{Act, Change, Reason, Write};
use super::object::{Kind, Object};
use super::{Call, Writing};
use crate::exit::Failure;

/// The ConfigMap whose presence stops everything.
pub(super) const EMERGENCY_STOP: &str = "invivo-emergency-stop";

/// `stop`
#[derive(Debug, Args)]
pub struct StopArguments {
    /// Why, for those who find everything stopped.
    #[arg(long)]
    pub(super) reason: Option<Reason>,
    #[command(flatten)]
    pub(super) writing: Writing,
    #[command(flatten)]
    pub(super) call: Call,
}

/// `start`
#[derive(Debug, Args)]
pub struct StartArguments {
    #[command(flatten)]
    pub(super) writing: Writing,
    #[command(flatten)]
    pub(super) call: Call,
}

/// What stands in the ConfigMap, for people.
#[derive(Debug, Serialize)]
struct Stopped<'a> {
    user: &'a str,
    since: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Everything stops. `present` is the stop that is in force.
pub(super) fn stop(
    act: Act<'_>,
    present: Option<&Object>,
    namespace: &str,
    reason: Option<&Reason>,
    now: Timestamp,
) -> Change {
    let next = "Every policy is held (EmergencyStop): no new instruction, and what is not applied yet is \
                called back. Patches that are on stay on. `kubectl invivo start` goes on.";
    let (before, write, after) = if let Some(stop) = present {
        (stop.at("/data").clone(), Write::Nothing, stop.at("/data").clone())
    } else {
        let reason = reason.map(Reason::as_str);
        let data = json!(Stopped { user: act.person.user(), since: now, reason });
        let body = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": EMERGENCY_STOP, "namespace": namespace}, "data": data,
        });
        (Value::Null, Write::Create(body), data)
    };
    let already = format!("Everything is stopped already{}; nothing was changed.", told(&before));
    act.change(Kind::ConfigMap, EMERGENCY_STOP, "/data", (before, after), write).said(
        "Everything is stopped.",
        &already,
        next,
    )
}

/// Everything goes on.
///
/// # Errors
///
/// The stop did not come from an API server.
pub(super) fn start(act: Act<'_>, present: Option<&Object>) -> Result<Change, Failure> {
    let (before, write) = match present {
        Some(stop) => (stop.at("/data").clone(), Write::Delete(stop.uid()?.to_owned())),
        None => (Value::Null, Write::Nothing),
    };
    let done = format!("The emergency stop{} is lifted.", told(&before));
    Ok(act.change(Kind::ConfigMap, EMERGENCY_STOP, "/data", (before, Value::Null), write).said(
        &done,
        "Nothing was stopped; nothing was changed.",
        "Every policy goes on where it stood. `kubectl invivo status` shows them.",
    ))
}

/// Who stopped it, when and why, as far as it is known.
pub(super) fn told(data: &Value) -> String {
    let word = |key: &str, before: &str| {
        data.get(key).and_then(Value::as_str).map_or_else(String::new, |text| format!(" {before}{text}"))
    };
    format!("{}{}{}", word("user", "by "), word("since", "since "), word("reason", "because: "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::person::Person;

    fn present() -> Object {
        let data = json!({"user": "bob", "since": "2026-11-21T11:00:00Z", "reason": "nodes panic"});
        Object::new(Kind::ConfigMap, json!({"metadata": {"name": EMERGENCY_STOP, "uid": "u"}, "data": data}))
    }

    #[test]
    fn stopping_says_who_when_and_why() {
        let (ada, now) = (Person::new("ada"), "2026-11-21T12:00:00Z".parse().unwrap());
        let act = Act { command: "stop", person: &ada };
        let reason = "two canaries died".parse().unwrap();
        let change = stop(act, None, "invivo-system", Some(&reason), now);
        let Write::Create(body) = &change.write else { panic!("{change:?}") };
        assert_eq!(body["metadata"], json!({"name": "invivo-emergency-stop", "namespace": "invivo-system"}));
        let data = json!({"user": "ada", "since": "2026-11-21T12:00:00Z", "reason": "two canaries died"});
        assert_eq!(body["data"], data);
    }

    #[test]
    fn a_second_stop_keeps_the_first_ones_words() {
        let (ada, now) = (Person::new("ada"), "2026-11-21T12:00:00Z".parse().unwrap());
        let change =
            stop(Act { command: "stop", person: &ada }, Some(&present()), "invivo-system", None, now);
        assert_eq!(change.write, Write::Nothing);
        assert!(
            change.answer.done.contains("already by bob since 2026-11-21T11:00:00Z because: nodes panic")
        );
    }

    #[test]
    fn starting_lifts_the_very_stop_that_was_seen() {
        let ada = Person::new("ada");
        let act = Act { command: "start", person: &ada };
        assert_eq!(start(act, Some(&present())).unwrap().write, Write::Delete("u".to_owned()));
        assert_eq!(start(act, None).unwrap().write, Write::Nothing);
    }
}
