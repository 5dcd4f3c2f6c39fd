//! `approve`, `reject`, `withdraw`: a person's own decision about a set, bound to the set's digest.

use std::collections::BTreeSet;

use clap::Args;
use invivo_terms::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::change::{Act, Change, Reason, Write};
use super::object::Object;
use super::{Call, Writing};
use crate::exit::Failure;

/// `approve`, `reject`
#[derive(Debug, Args)]
pub struct ApproveArguments {
    /// The set: the PatchSet's name, or the set's own where one feed alone has it.
    pub(super) set: String,
    /// Why, for those who read the decision later.
    #[arg(long)]
    pub(super) reason: Reason,
    /// Refuse unless the set has this digest: that of the set which was tested.
    #[arg(long)]
    pub(super) digest: Option<Digest>,
    #[command(flatten)]
    pub(super) writing: Writing,
    #[command(flatten)]
    pub(super) call: Call,
}

/// `withdraw`
#[derive(Debug, Args)]
pub struct WithdrawArguments {
    /// The set: the PatchSet's name, or the set's own where one feed alone has it.
    pub(super) set: String,
    #[command(flatten)]
    pub(super) writing: Writing,
    #[command(flatten)]
    pub(super) call: Call,
}

/// What a person decides about a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Decision {
    /// It may be rolled out.
    Approve,
    /// It may not; this outweighs every approval.
    Reject,
}

/// One person's decision, as it stands in `spec.approvals`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Approval {
    /// Who. The API server admits an entry only from this very user.
    pub user: String,
    /// What.
    pub decision: Decision,
    /// Of which content.
    pub digest: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// An approval that stood when the set was quarantined.
#[derive(Debug, Deserialize)]
struct Stood {
    user: String,
    reason: String,
}

/// The set that is meant by `name`.
///
/// # Errors
///
/// None is; several feeds have it.
pub(super) fn find<'a>(sets: &'a [Object], name: &str) -> Result<&'a Object, Failure> {
    if let Some(exact) = sets.iter().find(|set| set.name() == name) {
        return Ok(exact);
    }
    let matching: Vec<&Object> = sets.iter().filter(|set| set.text("/spec/set") == Some(name)).collect();
    match matching.as_slice() {
        [] => Err(Failure::missing(format!("there is no PatchSet {name}; see `kubectl get patchsets`"))),
        [one] => Ok(one),
        several => {
            let names: Vec<_> = several.iter().map(|set| set.name()).collect();
            Err(Failure::error(format!("set {name} is in several feeds; name one of: {}", names.join(", "))))
        }
    }
}

/// The caller's decision about `set` becomes `decision`; nobody else's is touched.
///
/// # Errors
///
/// The set has another digest than the one that was tested.
pub(super) fn decide(
    act: Act<'_>,
    set: &Object,
    feed: Option<&Object>,
    decision: Decision,
    asked: &ApproveArguments,
) -> Result<Change, Failure> {
    let name = set.name();
    let digest = set.text("/spec/digest").unwrap_or_default();
    if let Some(tested) = asked.digest.as_ref().filter(|tested| tested.as_str() != digest) {
        return Err(Failure::refused(format!(
            "PatchSet {name} has digest {digest}, not {tested}: it is not what was tested; nothing was changed"
        )));
    }
    let entries: Vec<Approval> = set.read("/spec/approvals").unwrap_or_default();
    let user = act.person.user();
    let own = Approval {
        user: user.to_owned(),
        decision,
        digest: digest.to_owned(),
        reason: asked.reason.as_str().to_owned(),
    };
    let before = entries.iter().find(|entry| entry.user == user);
    let write = if before == Some(&own) {
        Write::Nothing
    } else {
        let resource = set.kind.resource();
        Write::Apply(json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": {"name": name, "uid": set.uid()?},
            "spec": {"approvals": [own]},
        }))
    };
    let (done, already) = match decision {
        Decision::Approve => ("approved", "had approved"),
        Decision::Reject => ("rejected", "had rejected"),
    };
    let next = next(set, feed, &entries, &own);
    let change = act.change(set.kind, name, "/spec/approvals", (json!(before), json!(own)), write).said(
        &format!("{user} {done} PatchSet {name} (digest {digest})."),
        &format!("{user} {already} PatchSet {name} in these words already; nothing was changed."),
        next,
    );
    Ok(change)
}

/// The caller's decision about `set` goes, whatever wrote it; nobody else's is touched.
///
/// # Errors
///
/// The object has no uid, so it did not come from an API server.
pub(super) fn withdraw(act: Act<'_>, set: &Object, feed: Option<&Object>) -> Result<Change, Failure> {
    let (name, user) = (set.name(), act.person.user());
    // As they are: what a later version writes into an entry is not lost.
    let entries = set.at("/spec/approvals").as_array().cloned().unwrap_or_default();
    let (own, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry["user"] == user);
    let own = own.into_iter().next();
    let write = if own.is_some() {
        // Of exactly the list that was read: a colleague's entry of this moment is not lost.
        Write::Merge(json!({
            "metadata": {"uid": set.uid()?, "resourceVersion": set.resource_version()?},
            "spec": {"approvals": others},
        }))
    } else {
        Write::Nothing
    };
    let rejected = own.as_ref().is_some_and(|entry| entry["decision"] == json!(Decision::Reject));
    let word = if rejected { "rejection" } else { "approval" };
    let digest = set.text("/spec/digest").unwrap_or_default();
    let others: Vec<Approval> =
        others.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect();
    let mut next = waits(set, feed, others.iter().filter(|entry| entry.digest == digest));
    let mut evidence = set.at("/status/evidence").as_array().into_iter().flatten();
    if !rejected && evidence.any(|evidence| evidence["overruledBy"] == user) {
        next += " The evidence that it overruled keeps no weight; `kubectl invivo reject` stops the set.";
    }
    let change = act.change(set.kind, name, "/spec/approvals", (json!(own), Value::Null), write).said(
        &format!("{user} took back their {word} of PatchSet {name}."),
        &format!("{user} has decided nothing about PatchSet {name}; nothing was changed."),
        next,
    );
    Ok(change)
}

/// What the set waits for with these decisions about its present content.
fn waits<'a>(set: &Object, feed: Option<&Object>, entries: impl Iterator<Item = &'a Approval>) -> String {
    let (rejected, approved): (Vec<_>, Vec<_>) =
        entries.partition(|entry| entry.decision == Decision::Reject);
    if !rejected.is_empty() {
        let users: Vec<_> = rejected.iter().map(|entry| entry.user.as_str()).collect();
        return format!("It stays rejected by {}; a rejection outweighs approvals.", users.join(", "));
    }
    if let Some(since) = set.text("/status/quarantine/since") {
        return format!("It is quarantined since {since}.");
    }
    let manual = feed.and_then(|feed| feed.text("/spec/approval/mode")) == Some("Manual");
    if !manual {
        return "Its feed asks for no approval: channel and delay alone decide when it is eligible."
            .to_owned();
    }
    let required = feed.and_then(|feed| feed.number("/spec/approval/required")).unwrap_or(1);
    let users: BTreeSet<&str> = approved.iter().map(|entry| entry.user.as_str()).collect();
    let have = u64::try_from(users.len()).unwrap_or(u64::MAX);
    if have < required {
        return format!(
            "{have} of {required} approvals; it waits for {} more (AwaitingApproval).",
            required - have
        );
    }
    format!("{have} of {required} approvals: it is eligible as soon as channel and delay let it.")
}

/// What the set waits for once `own` stands.
fn next(set: &Object, feed: Option<&Object>, entries: &[Approval], own: &Approval) -> String {
    let name = set.text("/spec/set").unwrap_or_default();
    if own.decision == Decision::Reject {
        return format!(
            "Nobody starts to apply {name} any more, whatever others approve; nodes that have it keep it. \
             `kubectl invivo rollback <policy>` takes it off."
        );
    }
    let others = || entries.iter().filter(|entry| entry.user != own.user && entry.digest == own.digest);
    let rejected = others().any(|entry| entry.decision == Decision::Reject);
    if let Some(since) = set.text("/status/quarantine/since").filter(|_| !rejected) {
        let stood: Vec<Stood> = set.read("/status/quarantine/approvals").unwrap_or_default();
        let old = stood.iter().any(|stood| stood.user == own.user && stood.reason == own.reason);
        return if old {
            format!(
                "It stays quarantined since {since}: this approval stood before and lifts nothing. \
                 Another person's does, or yours with another reason."
            )
        } else {
            format!("This overrules the evidence against it and lifts the quarantine since {since}.")
        };
    }
    waits(set, feed, others().chain([own]))
}

#[cfg(test)]
mod tests {
    use super::super::object::Kind;
    use super::super::person::Person;
    use super::*;

    fn set(feed: &str, approvals: &Value) -> Object {
        Object::new(
            Kind::Set,
            json!({"metadata": {"name": format!("{feed}.2026-11-21.1"), "uid": "u", "resourceVersion": "7"},
                "spec": {"feed": feed, "set": "2026-11-21.1", "digest": "c".repeat(64), "approvals": approvals}}),
        )
    }

    fn manual(required: u64) -> Object {
        Object::new(
            Kind::Feed,
            json!({"metadata": {"name": "f"}, "spec": {"approval": {"mode": "Manual", "required": required}}}),
        )
    }

    fn asked(digest: Option<&str>) -> ApproveArguments {
        ApproveArguments {
            set: "2026-11-21.1".to_owned(),
            reason: "ran a week on staging".parse().unwrap(),
            digest: digest.map(|text| text.parse().unwrap()),
            writing: Writing::default(),
            call: Call::default(),
        }
    }

    fn entry(user: &str, decision: &str) -> Value {
        json!({"user": user, "decision": decision, "digest": "c".repeat(64), "reason": "ran a week on staging"})
    }

    #[test]
    fn an_approval_is_the_callers_own_entry_bound_to_the_sets_digest() {
        let ada = Person::new("ada@example.com");
        let act = Act { command: "approve", person: &ada };
        let set = set("production", &json!([entry("bob", "Approve")]));
        let change = decide(act, &set, Some(&manual(3)), Decision::Approve, &asked(None)).unwrap();
        let wanted = json!({
            "apiVersion": "invivo.dev/v1alpha1", "kind": "PatchSet",
            "metadata": {"name": "production.2026-11-21.1", "uid": "u"},
            "spec": {"approvals": [entry("ada@example.com", "Approve")]},
        });
        assert_eq!(change.write, Write::Apply(wanted), "no one else's entry is in it");
        assert_eq!(change.answer.next, "2 of 3 approvals; it waits for 1 more (AwaitingApproval).");
        let change = decide(act, &set, Some(&manual(2)), Decision::Approve, &asked(None)).unwrap();
        assert!(change.answer.next.starts_with("2 of 2 approvals: it is eligible"));
    }

    #[test]
    fn an_approval_of_another_content_does_not_count() {
        let ada = Person::new("ada");
        let mut old = entry("bob", "Approve");
        old["digest"] = json!("d".repeat(64));
        let act = Act { command: "approve", person: &ada };
        let change =
            decide(act, &set("f", &json!([old])), Some(&manual(2)), Decision::Approve, &asked(None)).unwrap();
        assert!(change.answer.next.starts_with("1 of 2"), "{}", change.answer.next);
    }

    #[test]
    fn a_rejection_outweighs_approvals() {
        let ada = Person::new("ada");
        let act = Act { command: "approve", person: &ada };
        let rejected = set("f", &json!([entry("bob", "Reject")]));
        let change = decide(act, &rejected, Some(&manual(1)), Decision::Approve, &asked(None)).unwrap();
        assert!(change.answer.next.contains("stays rejected by bob"), "{}", change.answer.next);
        let change = decide(act, &rejected, None, Decision::Reject, &asked(None)).unwrap();
        assert!(change.answer.next.contains("whatever others approve"));
    }

    #[test]
    fn only_an_approval_made_after_it_lifts_a_quarantine() {
        let ada = Person::new("ada");
        let act = Act { command: "approve", person: &ada };
        let quarantined = |reason: &str| {
            let set = set("f", &Value::Null);
            let mut value = json!({"metadata": set.at("/metadata"), "spec": set.at("/spec")});
            value["status"]["quarantine"] = json!({"since": "2026-11-21T11:00:00Z",
                "approvals": [{"user": "ada", "reason": reason}]});
            Object::new(Kind::Set, value)
        };
        let next = |reason: &str| {
            decide(act, &quarantined(reason), None, Decision::Approve, &asked(None)).unwrap().answer.next
        };
        assert!(next("an older word").contains("lifts the quarantine"));
        assert!(next("ran a week on staging").contains("lifts nothing"));
    }

    #[test]
    fn the_same_decision_again_writes_nothing_and_the_opposite_replaces_it() {
        let ada = Person::new("ada");
        let act = Act { command: "reject", person: &ada };
        let set = set("f", &json!([entry("ada", "Reject")]));
        assert_eq!(decide(act, &set, None, Decision::Reject, &asked(None)).unwrap().write, Write::Nothing);
        let change = decide(act, &set, None, Decision::Approve, &asked(None)).unwrap();
        assert_eq!(change.answer.before["decision"], "Reject");
        assert_eq!(change.answer.after["decision"], "Approve");
    }

    #[test]
    fn who_withdraws_takes_their_own_entry_alone_out_of_the_list_that_was_read() {
        let ada = Person::new("ada");
        let act = Act { command: "withdraw", person: &ada };
        let mut bob = entry("bob", "Approve");
        bob["later"] = json!("a field of a later version");
        let both = set("f", &json!([entry("ada", "Approve"), bob]));
        let change = withdraw(act, &both, Some(&manual(2))).unwrap();
        let Write::Merge(patch) = &change.write else { panic!("{:?}", change.write) };
        assert_eq!(patch["spec"]["approvals"], json!([bob]));
        assert_eq!(patch["metadata"], json!({"uid": "u", "resourceVersion": "7"}));
        assert_eq!(change.answer.next, "1 of 2 approvals; it waits for 1 more (AwaitingApproval).");
        assert_eq!(change.answer.done, "ada took back their approval of PatchSet f.2026-11-21.1.");
        let bobs = set("f", &json!([entry("bob", "Reject")]));
        let change = withdraw(act, &bobs, Some(&manual(2))).unwrap();
        assert_eq!(change.write, Write::Nothing);
        assert!(change.answer.next.contains("stays rejected by bob"), "{}", change.answer.next);
    }

    #[test]
    fn a_set_that_is_not_the_one_that_was_tested_is_not_approved() {
        let ada = Person::new("ada");
        let act = Act { command: "approve", person: &ada };
        let tested = "d".repeat(64);
        let failure =
            decide(act, &set("f", &Value::Null), None, Decision::Approve, &asked(Some(&tested))).unwrap_err();
        assert_eq!(failure.exit, crate::Exit::Refused);
        let tested = "c".repeat(64);
        assert!(decide(act, &set("f", &Value::Null), None, Decision::Approve, &asked(Some(&tested))).is_ok());
    }

    #[test]
    fn a_set_is_found_by_its_own_name_only_where_one_feed_has_it() {
        let sets = [set("production", &Value::Null), set("staging", &Value::Null)];
        assert_eq!(find(&sets, "staging.2026-11-21.1").unwrap().text("/spec/feed"), Some("staging"));
        let failure = find(&sets, "2026-11-21.1").unwrap_err();
        assert!(failure.message.contains("production.2026-11-21.1, staging.2026-11-21.1"));
        assert_eq!(find(&sets[..1], "2026-11-21.1").unwrap().text("/spec/feed"), Some("production"));
        assert_eq!(find(&sets, "2026-11-22.1").unwrap_err().exit, crate::Exit::Missing);
    }
}
