//! What becomes of the PatchSets of a feed.

use super::*;
use crate::sight::tests::verified;

#[tokio::test]
async fn a_set_that_cannot_be_made_does_not_keep_the_others_from_it() {
    let fake = crate::fake::Fake::default();
    fake.refuse("production.2026-11-20.1", 422);
    let sets = [
        ("2026-11-19.1", "stable", "active"),
        ("2026-11-20.1", "stable", "active"),
        ("2026-11-21.1", "stable", "active"),
    ];
    let catalogue = verified(&sets, &"b".repeat(40));
    let context = fake.operator();
    let error = reconcile_all(&context, "production", &catalogue, &Blocks::new(), Timestamp::UNIX_EPOCH)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("2026-11-20.1"), "{error}");
    for (set, made) in [("2026-11-19.1", true), ("2026-11-20.1", false), ("2026-11-21.1", true)] {
        let object = fake.get(&format!("/apis/invivo.dev/v1alpha1/patchsets/production.{set}"));
        assert_eq!(object["status"]["conditions"][0]["reason"] == "Eligible", made, "{set}");
    }
}

#[test]
fn an_attempt_that_says_nothing_counts_nothing_against_the_set() {
    let stores = Stores::default();
    for (node, state, reason) in [
        ("a", "Failed", "LoadRefused"),
        ("b", "Failed", "Unreachable"),
        ("c", "Suspected", "RebootedUnsettled"),
        ("d", "Blocked", "TransitionStuck"),
    ] {
        let patch = serde_json::from_value(serde_json::json!({
            "apiVersion": "invivo.dev/v1alpha1", "kind": "NodePatch", "metadata": {"name": node},
            "spec": {"revision": 2, "policy": "workers", "feed": "production", "apply": {
                "buildId": "b".repeat(40), "level": 1, "set": "2026-11-21.1", "digest": "e".repeat(64),
                "manifest": "c".repeat(64), "mechanism": "Livepatch", "deadline": "2026-11-22T12:10:00Z",
                "settleAfter": "30m"}},
            "status": {"observedRevision": 2, "state": state, "reason": reason},
        }));
        stores.patches.wrote(crate::store::Entry::of(patch.unwrap()));
    }
    let counts = nodes(&stores, "production");
    assert_eq!(counts[&"2026-11-21.1".parse().unwrap()].failed, 1);
}

#[test]
fn a_set_says_why_latest_may_not_choose_it() {
    let catalogue = verified(&[("2026-11-19.1", "stable", "active")], &"b".repeat(40));
    let until: Timestamp = "2026-11-22T00:00:00Z".parse().unwrap();
    for (why, truth, reason, part) in [
        (None, "True", "Eligible", "Latest may choose it"),
        (Some(Ineligible::Withdrawn), "False", "Withdrawn", "its author withdrew it"),
        (Some(Ineligible::TestOnly), "False", "TestOnly", "spec.channel"),
        (Some(Ineligible::AfterDate), "False", "AfterDate", "spec.asOf"),
        (Some(Ineligible::Delayed(until)), "False", "Delayed", "2026-11-22T00:00:00Z"),
        (Some(Ineligible::AwaitingApproval), "False", "AwaitingApproval", "kubectl invivo approve"),
        (Some(Ineligible::Rejected), "False", "Rejected", "a person rejected it"),
        (Some(Ineligible::Quarantined), "False", "Quarantined", "status.evidence"),
    ] {
        let status = status(
            &catalogue.index.sets[0],
            &catalogue,
            why,
            SetNodes::default(),
            &PatchSetStatus::default(),
            Some(1),
            Timestamp::UNIX_EPOCH,
        );
        let condition = &status.conditions[0];
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), (truth, reason));
        assert!(condition.message.contains(part), "{}", condition.message);
        assert_eq!(
            (status.conditions[1].type_.as_str(), status.conditions[1].reason.as_str()),
            ("Quarantined", "NoEvidence")
        );
    }
}

/// The sets of a feed that have an object after a look at a catalogue.
async fn objects(fake: &crate::fake::Fake, sets: &[(&str, &str, &str)], blocks: &Blocks) -> Vec<String> {
    let context = fake.operator();
    let catalogue = verified(sets, &"b".repeat(40));
    reconcile_all(&context, "production", &catalogue, blocks, Timestamp::UNIX_EPOCH).await.unwrap();
    context.stores.sets.all().into_iter().map(|set| set.value.spec.set.to_string()).collect()
}

fn path(set: &str) -> String {
    format!("/apis/invivo.dev/v1alpha1/patchsets/production.{set}")
}

const SETS: [(&str, &str, &str); 3] = [
    ("2026-11-19.1", "stable", "active"),
    ("2026-11-20.1", "stable", "active"),
    ("2026-11-21.1", "stable", "active"),
];

#[tokio::test]
async fn an_object_is_made_for_what_may_come_and_removed_when_nobody_has_a_use_for_it() {
    let fake = crate::fake::Fake::default();
    let block = |set: &str, why| (set.parse().unwrap(), why);
    let until = Timestamp::MAX;
    let soon = Blocks::from([
        block("2026-11-20.1", Ineligible::Delayed(until)),
        block("2026-11-21.1", Ineligible::AwaitingApproval),
    ]);
    assert_eq!(objects(&fake, &SETS, &soon).await, ["2026-11-19.1", "2026-11-20.1", "2026-11-21.1"]);
    for why in [Ineligible::TestOnly, Ineligible::AfterDate, Ineligible::Withdrawn] {
        let never = Blocks::from([block("2026-11-20.1", why)]);
        assert_eq!(objects(&fake, &SETS, &never).await, ["2026-11-19.1", "2026-11-21.1"], "{why}");
    }
    // The index does not have it any more.
    assert_eq!(objects(&fake, &SETS[1..], &Blocks::new()).await, ["2026-11-20.1", "2026-11-21.1"]);
}

#[tokio::test]
async fn what_people_or_evidence_decided_and_what_is_on_a_node_is_kept() {
    let fake = crate::fake::Fake::default();
    assert_eq!(objects(&fake, &SETS, &Blocks::new()).await.len(), 3);
    let mut rejected = fake.get(&path("2026-11-19.1"));
    rejected["spec"]["approvals"] = serde_json::json!([
        {"user": "ada", "decision": "Reject", "digest": "e".repeat(64), "reason": "broke staging"}]);
    fake.put(&path("2026-11-19.1"), rejected);
    let mut suspect = fake.get(&path("2026-11-20.1"));
    suspect["status"]["evidence"] = serde_json::json!([
        {"nodeUid": "a", "time": "2026-11-22T12:00:00Z", "verdict": "Convicted"}]);
    fake.put(&path("2026-11-20.1"), suspect);
    fake.put(
        "/apis/invivo.dev/v1alpha1/nodepatches/a",
        serde_json::json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "NodePatch", "metadata": {},
            "spec": {"revision": 2, "policy": "workers", "feed": "production", "hold": {}},
            "status": {"observedRevision": 2, "state": "Settled", "level": 3, "set": "2026-11-21.1"}}),
    );
    assert_eq!(objects(&fake, &[], &Blocks::new()).await, ["2026-11-19.1", "2026-11-20.1", "2026-11-21.1"]);
    // Nor does the end of the feed take anything.
    let context = fake.operator();
    prune_all(&context, "production").await.unwrap();
    assert_eq!(context.stores.sets.len(), 3);
}

#[tokio::test]
async fn a_decision_made_while_an_object_is_removed_keeps_it() {
    let fake = crate::fake::Fake::default();
    objects(&fake, &SETS[..1], &Blocks::new()).await;
    let context = fake.operator();
    fake.touch(&path("2026-11-19.1"));
    let error = prune_all(&context, "production").await.unwrap_err();
    assert_eq!(error.category(), crate::error::Category::Conflict);
    assert!(!fake.get(&path("2026-11-19.1")).is_null());
}

#[tokio::test]
async fn an_object_about_another_set_of_the_same_name_is_left_alone() {
    let fake = crate::fake::Fake::default();
    objects(&fake, &SETS[..1], &Blocks::new()).await;
    let mut other = fake.get(&path("2026-11-19.1"));
    other["spec"]["digest"] = serde_json::json!("f".repeat(64));
    other["status"] = serde_json::Value::Null;
    fake.put(&path("2026-11-19.1"), other);
    objects(&fake, &SETS[..1], &Blocks::new()).await;
    assert!(fake.get(&path("2026-11-19.1"))["status"].is_null());
}

#[test]
fn what_a_set_fixes_is_named_up_to_two_hundred_and_counted_beyond() {
    let build = "b".repeat(40);
    let mut catalogue = verified(&[("2026-11-19.1", "stable", "active")], &build);
    for (fixes, more) in [(200, None), (203, Some(3))] {
        let fix =
            |number: usize| serde_json::json!({"cve": format!("CVE-2026-{number:05}"), "title": "a hole"});
        let file = |letter: &str| serde_json::json!({"length": 1, "sha256": letter.repeat(64)});
        let document = serde_json::json!({
            "kernel": {"buildId": build, "release": "6.1.0-47", "version": "6.1.170-3", "arch": "x86_64",
                "distribution": "debian"},
            "levels": [{"level": 1, "set": "2026-11-19.1", "released": "2026-11-19T00:00:00Z",
                "mechanisms": ["livepatch"], "manifest": file("c"), "modules": [], "bundle": file("d"),
                "fixes": (0..fixes).map(fix).collect::<Vec<_>>()}]});
        catalogue.kernels.insert(build.parse().unwrap(), serde_json::from_value(document).unwrap());
        let (entry, old) = (&catalogue.index.sets[0], PatchSetStatus::default());
        let status =
            status(entry, &catalogue, None, SetNodes::default(), &old, Some(1), Timestamp::UNIX_EPOCH);
        assert_eq!((status.fixes.len(), status.more_fixes), (200, more));
    }
}
