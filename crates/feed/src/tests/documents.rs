//! What the documents mean.

use invivo_terms::{Decisions, FeedChannel, Level};
use jiff::Timestamp;
use serde_json::json;

use super::{House, addition, at, bundle, days, now};
use crate::document::{Channel, Index, SetEntry, SetStatus};
use crate::{Clocks, Floors, Ineligible, Say, eligible};

/// Sets 1 (build a, level 1), 2 (build b), 3 (build a, level 2).
fn three_sets() -> Index {
    let house = House::new();
    let (second, third) = (bundle('b', 2, 1), bundle('a', 3, 2));
    house
        .keys
        .publish(&house.desk, &[addition(&second, b"second"), addition(&third, b"third")], days(1))
        .unwrap();
    let look = house.desk.repository().look(&house.root(), &Floors::default(), at(days(1))).unwrap();
    look.catalogue.index().clone()
}

fn taken(set: &SetEntry) -> bool {
    eligible(set, [&Say::default()], days(9)).is_ok()
}

#[test]
fn a_set_that_does_not_touch_a_build_means_the_last_eligible_level_before_it() {
    let index = three_sets();
    let (a, b) = (crate::sample::build_id('a').unwrap(), crate::sample::build_id('b').unwrap());
    let level = |index: &Index, set: &str, build| {
        index
            .level_at(&set.parse().unwrap(), build, taken)
            .map(|offer| (offer.set.name.to_string(), offer.kernel.level))
    };
    assert_eq!(level(&index, "2026-11-22.2", &a), Some(("2026-11-22.1".to_owned(), Level(1))));
    assert_eq!(level(&index, "2026-11-22.3", &a), Some(("2026-11-22.3".to_owned(), Level(2))));
    assert_eq!(level(&index, "2026-11-22.3", &b), Some(("2026-11-22.2".to_owned(), Level(1))));
    assert_eq!(level(&index, "2026-11-22.1", &b), None);
    assert_eq!(level(&index, "2026-11-22.9", &a), None);
    let mut withdrawn = index.clone();
    withdrawn.sets[0].status = SetStatus::Withdrawn;
    assert_eq!(level(&withdrawn, "2026-11-22.2", &a), None, "what was withdrawn is not leaned on");
    withdrawn.sets[2].status = SetStatus::Withdrawn;
    assert_eq!(level(&withdrawn, "2026-11-22.3", &a).map(|(_, level)| level), Some(Level(2)));
    assert_eq!(withdrawn.latest(taken).map(|set| set.name.as_str()), Some("2026-11-22.2"));
}

/// A set of the stable channel, released at noon.
fn released(at: &str) -> SetEntry {
    SetEntry { released: at.parse().unwrap(), ..three_sets().sets[0].clone() }
}

fn say(change: impl FnOnce(&mut Say)) -> Say {
    let mut say = Say::default();
    change(&mut say);
    say
}

#[test]
fn a_test_set_is_only_for_feeds_that_ask_for_such() {
    let mut set = released("2026-11-22T12:00:00Z");
    let test = say(|say| say.rules.channel = FeedChannel::Test);
    for channel in [Channel::Stable, Channel::Test] {
        set.channel = channel;
        assert_eq!(eligible(&set, [&test], days(9)), Ok(()));
    }
    assert_eq!(eligible(&set, [&Say::default()], days(9)), Err(Ineligible::TestOnly));
}

#[test]
fn a_delay_is_counted_from_the_release_and_ends_to_the_second() {
    let set = released("2026-11-22T12:00:00Z");
    let slow = say(|say| say.rules.delay = "24h".parse().unwrap());
    let end: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
    let before = end - jiff::SignedDuration::from_secs(1);
    assert_eq!(eligible(&set, [&slow], before), Err(Ineligible::Delayed(end)));
    assert_eq!(eligible(&set, [&slow], end), Ok(()));
    // Withholding goes by the earlier clock: one that is ahead does not shorten it.
    let clocks = Clocks { own: end, server: Some(before) };
    assert_eq!(eligible(&set, [&slow], clocks.earlier()), Err(Ineligible::Delayed(end)));
}

#[test]
fn a_sticky_date_takes_what_was_released_on_that_day_in_utc_and_nothing_later() {
    let sticky = say(|say| say.rules.as_of = Some("2026-05-31".parse().unwrap()));
    for (at, taken) in [
        ("2026-05-31T23:59:59Z", Ok(())),
        ("2026-06-01T01:59:59+02:00", Ok(())),
        ("2026-06-01T00:00:00Z", Err(Ineligible::AfterDate)),
        ("2025-12-31T00:00:00Z", Ok(())),
    ] {
        assert_eq!(eligible(&released(at), [&sticky], days(9)), taken, "{at}");
    }
}

#[test]
fn approvals_are_counted_and_one_rejection_outweighs_them_all() {
    let set = released("2026-11-22T12:00:00Z");
    let with = |approvals, rejected| {
        say(|say| {
            say.rules.required = 2;
            say.decisions = Decisions { approvals, rejected };
        })
    };
    assert_eq!(eligible(&set, [&with(1, false)], days(9)), Err(Ineligible::AwaitingApproval));
    assert_eq!(eligible(&set, [&with(2, false)], days(9)), Ok(()));
    assert_eq!(eligible(&set, [&with(9, true)], days(9)), Err(Ineligible::Rejected));
    let automatic = say(|say| say.decisions.rejected = true);
    assert_eq!(eligible(&set, [&automatic], days(9)), Err(Ineligible::Rejected));
}

#[test]
fn of_several_reasons_the_gravest_is_told() {
    let mut set = released("2026-11-22T12:00:00Z");
    let mut strict = say(|say| {
        say.rules.delay = "366d".parse().unwrap();
        say.rules.as_of = Some("2026-01-01".parse().unwrap());
        say.rules.required = 1;
    });
    assert_eq!(eligible(&set, [&strict], days(9)), Err(Ineligible::AwaitingApproval));
    strict.decisions.rejected = true;
    assert_eq!(eligible(&set, [&strict], days(9)), Err(Ineligible::Rejected));
    strict.quarantined = true;
    assert_eq!(eligible(&set, [&strict], days(9)), Err(Ineligible::Quarantined));
    set.status = SetStatus::Withdrawn;
    assert_eq!(eligible(&set, [&strict], days(9)), Err(Ineligible::Withdrawn));
}

#[test]
fn every_feed_on_the_way_has_its_say() {
    let set = released("2026-11-22T12:00:00Z");
    let delay = |text: &str| say(|say| say.rules.delay = text.parse().unwrap());
    let now = "2026-11-22T13:00:00Z".parse().unwrap();
    let longest = Err(Ineligible::Delayed("2026-11-24T12:00:00Z".parse().unwrap()));
    assert_eq!(eligible(&set, &[delay("24h"), delay("48h")], now), longest);
    assert_eq!(eligible(&set, &[delay("48h"), delay("24h")], now), longest);
    let own = say(|say| say.quarantined = true);
    assert_eq!(eligible(&set, &[own, Say::default()], now), Err(Ineligible::Quarantined));
    assert_eq!(eligible(&set, &[Say::default(), Say::default()], now), Ok(()));
}

#[test]
fn a_sets_digest_covers_what_it_brings_and_not_what_is_said_of_it() {
    let set = three_sets().sets[0].clone();
    let mut same = set.clone();
    same.status = SetStatus::Withdrawn;
    same.channel = Channel::Test;
    same.summary = "other words".to_owned();
    assert_eq!(same.digest(), set.digest());
    let mut other = set.clone();
    other.released = days(1);
    assert_ne!(other.digest(), set.digest());
    let mut other = set.clone();
    other.kernels.values_mut().for_each(|kernel| kernel.level = Level(2));
    assert_ne!(other.digest(), set.digest());
}

#[test]
fn the_canonical_entry_is_what_the_documentation_says() {
    let set = three_sets().sets[0].clone();
    let (build, kernel) = set.kernels.first_key_value().unwrap();
    let text = format!(
        r#"{{"kernels":{{"{build}":{{"level":1,"manifest":"{}"}}}},"name":"2026-11-22.1","released":"2026-11-22T12:00:00Z"}}"#,
        kernel.manifest
    );
    assert_eq!(set.digest(), crate::digest(text.as_bytes()));
}

#[test]
fn the_later_clock_judges_expiry_and_the_earlier_one_withholding() {
    let clocks = Clocks { own: now(), server: Some(days(1)) };
    assert_eq!((clocks.later(), clocks.earlier()), (days(1), now()));
    assert_eq!((at(now()).later(), at(now()).earlier()), (now(), now()));
}

#[test]
fn what_a_module_changes_is_the_kernel_and_modules_with_builds_of_their_own() {
    let sample = bundle('a', 1, 1);
    let build = "b".repeat(40);
    let with = |objects: serde_json::Value| {
        let mut manifest = serde_json::to_value(&sample.manifest).unwrap();
        manifest["modules"][0]["objects"] = objects;
        crate::read::manifest(&serde_json::to_vec(&manifest).unwrap())
    };
    let object =
        |name: &str, build: Option<&str>| json!({"name": name, "buildId": build, "functions": ["f"]});
    let good = with(json!([object("vmlinux", None), object("nf_tables", Some(&build))])).unwrap();
    let targets: Vec<_> = good.modules[0].targets().map(|(name, build)| format!("{name} {build}")).collect();
    assert_eq!(targets, [format!("nf_tables {build}")]);
    let many = |count: usize| (0..count).map(|n| object(&format!("m{n}"), Some(&build))).collect();
    assert!(with(many(crate::MAX_OBJECTS)).is_ok());
    for bad in [
        many(crate::MAX_OBJECTS + 1),
        json!([object("nf_tables", None)]),
        json!([object("vmlinux", Some(&build))]),
        json!([object("nf-tables", Some(&build))]),
        json!([object("a,b", Some(&build))]),
        json!([object("a", Some(&build)), object("a", Some(&build))]),
        json!([object("a", Some("b"))]),
    ] {
        assert_eq!(with(bad.clone()).unwrap_err().refusal, invivo_terms::Refusal::Malformed, "{bad}");
    }
}
