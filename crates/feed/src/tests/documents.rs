//! What the documents mean.

use invivo_terms::Level;
use serde_json::json;

use super::{House, addition, at, bundle, days, now};
use crate::document::{Channel, Index, SetStatus};
use crate::{Clocks, Floors, Ineligible, eligible};

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

#[test]
fn a_set_that_does_not_touch_a_build_means_the_highest_level_before_it() {
    let index = three_sets();
    let (a, b) = (crate::sample::build_id('a').unwrap(), crate::sample::build_id('b').unwrap());
    let level = |set: &str, build| {
        index
            .level_at(&set.parse().unwrap(), build)
            .map(|offer| (offer.set.name.to_string(), offer.kernel.level))
    };
    assert_eq!(level("2026-11-22.2", &a), Some(("2026-11-22.1".to_owned(), Level(1))));
    assert_eq!(level("2026-11-22.3", &a), Some(("2026-11-22.3".to_owned(), Level(2))));
    assert_eq!(level("2026-11-22.3", &b), Some(("2026-11-22.2".to_owned(), Level(1))));
    assert_eq!(level("2026-11-22.1", &b), None);
    assert_eq!(level("2026-11-22.9", &a), None);
    assert_eq!(index.latest_level(&a).map(|offer| offer.kernel.level), Some(Level(2)));
}

#[test]
fn withdrawn_and_test_sets_are_not_offered_nor_leaned_on() {
    let mut index = three_sets();
    let a = crate::sample::build_id('a').unwrap();
    index.sets[2].status = SetStatus::Withdrawn;
    assert_eq!(eligible(&index.sets[2]), Err(Ineligible::Withdrawn));
    assert_eq!(index.latest().map(|set| set.name.as_str()), Some("2026-11-22.2"));
    assert_eq!(index.latest_level(&a).map(|offer| offer.kernel.level), Some(Level(1)));
    index.sets[0].channel = Channel::Test;
    assert_eq!(eligible(&index.sets[0]), Err(Ineligible::TestOnly));
    assert_eq!(index.latest_level(&a), None);
    index.sets[1].status = SetStatus::Withdrawn;
    assert_eq!(index.latest(), None);
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
