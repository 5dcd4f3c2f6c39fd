//! `hold`, `unhold`: a person holds one node, by an annotation of the Node.

use clap::Args;
use invivo_terms::HumanDuration;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use super::change::{Act, Change, Reason};
use super::object::Object;
use super::{Call, Writing};
use crate::exit::Failure;
use crate::time::relative;

/// The annotation: JSON with `reason` and, where it ends by itself, `until`.
pub(super) const HOLD: &str = "invivo.dev/hold";
const FIELD: &str = "/metadata/annotations/invivo.dev~1hold";

/// `hold`
#[derive(Debug, Args)]
pub struct HoldArguments {
    /// The node.
    pub(super) node: String,
    /// Why, for those who ask `why` later.
    #[arg(long)]
    pub(super) reason: Reason,
    /// For how long, such as 12h; until `unhold` where it is left out.
    #[arg(long = "for", value_name = "DURATION")]
    pub(super) length: Option<HumanDuration>,
    #[command(flatten)]
    pub(super) writing: Writing,
    #[command(flatten)]
    pub(super) call: Call,
}

/// `unhold`
#[derive(Debug, Args)]
pub struct UnholdArguments {
    /// The node.
    pub(super) node: String,
    #[command(flatten)]
    pub(super) writing: Writing,
    #[command(flatten)]
    pub(super) call: Call,
}

/// What stands in the annotation.
#[derive(Debug, Serialize)]
struct Held<'a> {
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

/// `now` and so much later.
pub(super) fn after(now: Timestamp, length: HumanDuration) -> Result<Timestamp, Failure> {
    let seconds = i64::try_from(length.get().as_secs()).unwrap_or(i64::MAX);
    now.checked_add(SignedDuration::from_secs(seconds)).map_err(|e| Failure::of(&e))
}

/// The node is held.
///
/// # Errors
///
/// The end is out of reach; the node did not come from an API server.
pub(super) fn hold(
    act: Act<'_>,
    node: &Object,
    asked: &HoldArguments,
    now: Timestamp,
) -> Result<Change, Failure> {
    let until = asked.length.map(|length| after(now, length)).transpose()?;
    let value = json!(Held { reason: asked.reason.as_str(), until });
    let name = node.name();
    let end = until.map_or_else(
        || format!("Until `kubectl invivo unhold {name}`"),
        |until| format!("Until {until} ({}), or `kubectl invivo unhold {name}`,", relative(now, until)),
    );
    let change = act.set(node, FIELD, Value::Null, json!(value.to_string()))?;
    Ok(change.said(
        &format!("Node {name} is held."),
        &format!("Node {name} was held so already; nothing was changed."),
        format!("{end} it gets no new instruction; it keeps the level it runs, and what is under way ends."),
    ))
}

/// The node is not held any more.
///
/// # Errors
///
/// The node did not come from an API server.
pub(super) fn unhold(act: Act<'_>, node: &Object) -> Result<Change, Failure> {
    let name = node.name();
    let change = act.set(node, FIELD, Value::Null, Value::Null)?;
    Ok(change.said(
        &format!("Node {name} is not held by a person any more."),
        &format!("Node {name} was not held by a person; nothing was changed."),
        format!("It goes with its stage again. `kubectl invivo why {name}` says what else holds it."),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::change::Write;
    use super::super::object::Kind;
    use super::super::person::Person;
    use super::*;

    fn node(annotations: &Value) -> Object {
        Object::new(
            Kind::Node,
            json!({"metadata": {"name": "node-1", "uid": "u", "annotations": annotations}}),
        )
    }

    fn asked(length: Option<&str>) -> HoldArguments {
        HoldArguments {
            node: "node-1".to_owned(),
            reason: "a \"long\" run".parse().unwrap(),
            length: length.map(|text| text.parse().unwrap()),
            writing: Writing::default(),
            call: Call::default(),
        }
    }

    fn written(change: &Change) -> Value {
        let Write::Merge(body) = &change.write else { panic!("{change:?}") };
        assert_eq!(body["metadata"]["uid"], "u");
        body["metadata"]["annotations"][HOLD].clone()
    }

    #[test]
    fn a_hold_carries_reason_and_end_as_json() {
        let (ada, now) = (Person::new("ada"), "2026-11-21T12:00:00Z".parse().unwrap());
        let act = Act { command: "hold", person: &ada };
        let change = hold(act, &node(&json!({"other": "stays"})), &asked(Some("12h")), now).unwrap();
        let value: Value = serde_json::from_str(written(&change).as_str().unwrap()).unwrap();
        assert_eq!(value, json!({"reason": "a \"long\" run", "until": "2026-11-22T00:00:00Z"}));
        assert!(change.answer.next.contains("in 12h"), "{}", change.answer.next);

        let change = hold(act, &node(&Value::Null), &asked(None), now).unwrap();
        let value: Value = serde_json::from_str(written(&change).as_str().unwrap()).unwrap();
        assert_eq!(value, json!({"reason": "a \"long\" run"}));
    }

    #[test]
    fn letting_go_takes_the_annotation_away_where_there_is_one() {
        let ada = Person::new("ada");
        let act = Act { command: "unhold", person: &ada };
        assert_eq!(written(&unhold(act, &node(&json!({HOLD: "{}"}))).unwrap()), Value::Null);
        let change = unhold(act, &node(&json!({"other": "stays"}))).unwrap();
        assert_eq!(change.write, Write::Nothing);
        assert!(change.answer.done.contains("was not held"));
    }
}
