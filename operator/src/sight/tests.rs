use super::*;
use invivo_feed::Ineligible;
use invivo_terms::Block;
use serde_json::json;

/// A catalogue with these sets: name, channel, status; each brings its position + 1 as level.
pub(crate) fn verified(sets: &[(&str, &str, &str)], build: &str) -> Verified {
    let entries: Vec<_> = sets
        .iter()
        .enumerate()
        .map(|(position, (name, channel, status))| {
            json!({"name": name, "released": "2026-11-21T00:00:00Z", "channel": channel, "status": status,
                "summary": "", "kernels": {build: {"level": position + 1, "manifest": "c".repeat(64)}}})
        })
        .collect();
    let index: Index = serde_json::from_value(json!({"type": "index", "repository": "patches", "version": 5,
        "expires": "2027-01-01T00:00:00Z", "sets": entries,
        "kernels": {build: {"release": "6.1.0-47", "length": 1, "sha256": "d".repeat(64)}}}))
    .unwrap();
    let digests = index.sets.iter().map(|set| (set.name.clone(), "e".repeat(64).parse().unwrap())).collect();
    Verified {
        root: "a".repeat(64).parse().unwrap(),
        floors: Floors { repository: Some("patches".parse().unwrap()), trust: 1, index: 5, timestamp: 9 },
        expires: "2027-01-01T00:00:00Z".parse().unwrap(),
        warns: "2026-12-30T06:00:00Z".parse().unwrap(),
        index,
        digests,
        kernels: BTreeMap::new(),
    }
}

fn said(reason: &str) -> Server {
    let state = json!({"attempt": "2026-11-22T12:00:00Z", "verified": null, "reason": reason,
        "document": "index", "message": "details"});
    Server::Says(serde_json::from_value(state).unwrap())
}

fn sight(reason: &str) -> Sight {
    let build = "b".repeat(40);
    Sight {
        server: said(reason),
        own: Own::Held,
        verified: Some(Arc::new(verified(&[("2026-11-21.1", "stable", "active")], &build))),
        stored: None,
        behind: Duration::ZERO,
    }
}

fn now() -> Timestamp {
    "2026-11-22T12:00:01Z".parse().unwrap()
}

#[test]
fn every_refusal_of_the_patch_server_stops_loads_by_its_own_name() {
    for refusal in Refusal::ALL {
        let verdict = sight(refusal.as_str()).verdict(now());
        assert_eq!(verdict.reason(), refusal.as_str());
        assert!(!verdict.allows());
    }
}

#[test]
fn an_attempt_that_ends_like_the_last_is_no_news() {
    let says = |attempt: &str, reason: &str, message: &str| {
        let state = json!({"attempt": attempt, "verified": attempt, "reason": reason,
            "document": "timestamp", "message": message});
        Server::Says(serde_json::from_value(state).unwrap())
    };
    let late = |clock: &str| format!("at 2026-11-22T12:00:00Z; it is 2026-11-22T{clock}");
    let first = says("2026-11-22T12:00:01Z", "Expired", &late("12:00:01.5Z"));
    let (second, news) = says("2026-11-22T12:00:11Z", "Expired", &late("12:00:11Z")).after(&first);
    let Server::Says(state) = &second else { panic!("{second:?}") };
    assert_eq!((news, &state.message), (false, &late("12:00:01.5Z")));
    assert_eq!(state.attempt, "2026-11-22T12:00:11Z".parse().unwrap());
    assert!(says("2026-11-22T12:00:21Z", "Verified", "").after(&second).1);
    assert!(Server::NotMirrored.after(&second).1);
    let refused = |message: String| Own::Refused { refusal: Refusal::Expired, message };
    assert!(!refused(late("12:00:31Z")).after(&refused(late("12:00:01Z"))).1);
    assert!(Own::Held.after(&refused(late("12:00:01Z"))).1);
}

#[test]
fn a_patch_server_that_says_all_is_well_allows_nothing_that_we_refuse() {
    let mut lying = sight("Verified");
    lying.own = Own::Refused { refusal: Refusal::BelowThreshold, message: "one of two".into() };
    assert_eq!(lying.verdict(now()).reason(), "BelowThreshold");
    lying.own = Own::NotLooked;
    lying.verified = None;
    assert!(!lying.verdict(now()).allows());
}

#[test]
fn a_repository_that_does_not_answer_leaves_what_was_verified_until_it_expires() {
    let sight = sight("Unreachable");
    assert_eq!(sight.verdict(now()).reason(), "Unreachable");
    assert!(sight.verdict(now()).allows());
    let later = "2027-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(sight.verdict(later).reason(), "Expired");
    assert!(!sight.verdict(later).allows());
}

#[test]
fn without_a_patch_server_nothing_new_starts() {
    let mut down = sight("Verified");
    down.server = Server::Down { detail: "connection refused".into() };
    assert_eq!(down.verdict(now()).reason(), "Unreachable");
    assert!(!down.verdict(now()).allows());
}

#[test]
fn a_catalogue_that_ends_soon_is_told_before_it_does_and_still_allows_loads() {
    let sight = sight("Verified");
    let at = |text: &str| sight.verdict(text.parse().unwrap());
    assert_eq!(at("2026-12-30T05:59:59Z"), Verdict::Verified);
    let soon = at("2026-12-30T06:00:00Z");
    assert!(soon.reason() == "ExpiresSoon" && soon.allows());
    let Verdict::ExpiresSoon { message } = soon else { panic!() };
    assert!(message.contains("2027-01-01T00:00:00Z"), "{message}");
    assert_eq!(at("2027-01-01T00:00:00Z").reason(), "Expired");
}

#[test]
fn latest_is_the_newest_set_that_is_not_withheld() {
    let build = "b".repeat(40);
    let sets = [
        ("2026-11-19.1", "stable", "active"),
        ("2026-11-20.1", "stable", "withdrawn"),
        ("2026-11-21.1", "test", "active"),
    ];
    let verified = verified(&sets, &build);
    let blocks = Blocks::from([
        ("2026-11-20.1".parse().unwrap(), Ineligible::Withdrawn),
        ("2026-11-21.1".parse().unwrap(), Ineligible::TestOnly),
    ]);
    assert_eq!(verified.latest(&blocks).unwrap().name.as_str(), "2026-11-19.1");
    assert_eq!(verified.level(&build.parse().unwrap(), &blocks), Some(Level(1)));
    let offered = verified.sets(&blocks);
    assert_eq!(
        offered.iter().map(|set| set.blocked.map(|blocked| blocked.reason)).collect::<Vec<_>>(),
        [None, Some(Block::Withdrawn), Some(Block::TestOnly)]
    );
}
