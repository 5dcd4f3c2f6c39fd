//! One change of one field of one object. It is decided here and in the commands, from what was
//! read; the connection carries it out.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use super::object::{Kind, Object};
use super::person::Person;
use crate::exit::Failure;
use crate::table::printable;

/// What has to be written for a change.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Nothing: it is so already.
    Nothing,
    /// These fields of the object, as a merge patch that also names its uid: an object that was
    /// made again meanwhile is another one.
    Merge(Value),
    /// The caller's own entry of a list, by server-side apply.
    Apply(Value),
    /// The object, which must not be there yet.
    Create(Value),
    /// The object with this uid goes.
    Delete(String),
}

/// A change, decided.
#[derive(Debug)]
pub struct Change {
    /// The kind of the object.
    pub kind: Kind,
    /// What has to be written.
    pub write: Write,
    /// What is said of it.
    pub answer: Changed,
}

/// What a command changed.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// The command.
    pub command: &'static str,
    /// The kind of the object.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// The field.
    pub field: &'static str,
    /// Whether it was written; not where it was so already.
    pub changed: bool,
    /// Nothing was kept: the API server was only asked whether it would take it.
    pub dry_run: bool,
    /// What stood there.
    pub before: Value,
    /// What stands there now.
    pub after: Value,
    /// Who did it.
    pub by: String,
    /// What was done, for people.
    pub done: String,
    /// What happens next, for people.
    pub next: String,
}

/// What a command is, and in whose name it acts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act<'a> {
    /// Its name.
    pub command: &'static str,
    /// The caller.
    pub person: &'a Person,
}

impl Act<'_> {
    /// Sets `field` (a JSON pointer) of `object` to `after`, `Null` for taking it away. `absent` is
    /// what it means where the field is left out.
    ///
    /// # Errors
    ///
    /// The object has no uid, so it did not come from an API server.
    pub(super) fn set(
        self,
        object: &Object,
        field: &'static str,
        absent: Value,
        after: Value,
    ) -> Result<Change, Failure> {
        let before = Some(object.at(field)).filter(|value| !value.is_null()).cloned().unwrap_or(absent);
        let write = if before == after {
            Write::Nothing
        } else {
            let keys = field.trim_start_matches('/').rsplit('/').map(|key| key.replace("~1", "/"));
            let body = keys.fold(after.clone(), |inner, key| json!({ key: inner }));
            Write::Merge(with_uid(body, object.uid()?))
        };
        Ok(self.change(object.kind, object.name(), field, (before, after), write))
    }

    /// A change of an object that is written as `write` says.
    pub(super) fn change(
        self,
        kind: Kind,
        name: &str,
        field: &'static str,
        (before, after): (Value, Value),
        write: Write,
    ) -> Change {
        let answer = Changed {
            command: self.command,
            kind: kind.as_str(),
            name: name.to_owned(),
            field,
            changed: write != Write::Nothing,
            dry_run: false,
            before,
            after,
            by: self.person.user().to_owned(),
            done: String::new(),
            next: String::new(),
        };
        Change { kind, write, answer }
    }
}

/// The patch, of the object with this uid only.
fn with_uid(mut patch: Value, uid: &str) -> Value {
    let fields = patch.as_object_mut();
    let metadata = fields.map(|fields| fields.entry("metadata").or_insert_with(|| json!({})));
    if let Some(metadata) = metadata.and_then(Value::as_object_mut) {
        metadata.insert("uid".to_owned(), json!(uid));
    }
    patch
}

impl Change {
    /// With the words for it: `already` where nothing had to be written.
    #[must_use]
    pub fn said(mut self, done: &str, already: &str, next: impl Into<String>) -> Self {
        let words = if self.answer.changed { done } else { already };
        words.clone_into(&mut self.answer.done);
        self.answer.next = next.into();
        self
    }
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let note = if self.dry_run { "dry run, nothing is kept: " } else { "" };
        writeln!(f, "{note}{}", printable(&self.done))?;
        writeln!(f, "  {}", printable(&self.next))
    }
}

/// Why, in a person's words, for those who read it later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason(String);

impl Reason {
    /// The words.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Reason {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let length = text.chars().count();
        if !(1..=256).contains(&length) || text.chars().any(char::is_control) {
            return Err("a reason is 1 to 256 characters in one line");
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Object {
        Object::new(
            Kind::Policy,
            json!({"metadata": {"name": "workers", "uid": "u1"}, "spec": {"paused": false}}),
        )
    }

    #[test]
    fn a_change_names_one_field_and_the_very_object() {
        let person = Person::new("ada");
        let act = Act { command: "pause", person: &person };
        let change = act.set(&policy(), "/spec/paused", json!(false), json!(true)).unwrap();
        assert_eq!(change.write, Write::Merge(json!({"spec": {"paused": true}, "metadata": {"uid": "u1"}})));
        assert_eq!((change.answer.before, change.answer.after), (json!(false), json!(true)));
    }

    #[test]
    fn a_slash_in_a_key_is_part_of_the_key() {
        let person = Person::new("ada");
        let act = Act { command: "unhold", person: &person };
        let node = Object::new(
            Kind::Node,
            json!({"metadata": {"name": "n", "uid": "u2", "annotations": {"invivo.dev/hold": "x"}}}),
        );
        let change =
            act.set(&node, "/metadata/annotations/invivo.dev~1hold", Value::Null, Value::Null).unwrap();
        let wanted = json!({"metadata": {"uid": "u2", "annotations": {"invivo.dev/hold": null}}});
        assert_eq!(change.write, Write::Merge(wanted));
        assert_eq!(change.answer.before, json!("x"));
    }

    #[test]
    fn what_is_so_already_is_not_written() {
        let person = Person::new("ada");
        let act = Act { command: "resume", person: &person };
        let change = act.set(&policy(), "/spec/paused", json!(false), json!(false)).unwrap();
        let change = change.said("done", "already", "next");
        assert_eq!(change.write, Write::Nothing);
        assert!(!change.answer.changed);
        assert_eq!(change.answer.to_string(), "already\n  next\n");
        let bare =
            Object::new(Kind::Policy, json!({"metadata": {"name": "workers", "uid": "u1"}, "spec": {}}));
        assert_eq!(act.set(&bare, "/spec/paused", json!(false), json!(false)).unwrap().write, Write::Nothing);
    }

    #[test]
    fn a_reason_is_said_in_one_line() {
        assert_eq!("  ran a week ".parse::<Reason>().unwrap().as_str(), "ran a week");
        for bad in ["", "  ", "two\nlines", &"x".repeat(257)] {
            assert!(bad.parse::<Reason>().is_err(), "{bad:?} was accepted");
        }
    }
}
