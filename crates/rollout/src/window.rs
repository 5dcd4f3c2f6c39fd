//! When nodes may start: windows and blackouts. Both stop starting and interrupt nothing.
//!
//! Days and times are those of the window's own time zone. A window that opens at a time which the
//! clocks leave out opens when they have gone forward; one at a time that they show twice opens the
//! first time. Its length is real time: a window of four hours is four hours long in every night.
//! Windows that touch or overlap are one.

use std::time::Duration;

use invivo_terms::Hold;
use jiff::{SignedDuration, Timestamp, ToSpan};

use crate::stage::after;
use crate::{Blackout, Policy, Window};

/// How many days a search looks ahead and back: every weekday is among them, so a window that is open
/// for a week is always open.
const DAYS: i32 = 8;

/// Whether nodes may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// They may, until then.
    Open {
        /// When no more may; none where no end is known.
        closes: Option<Timestamp>,
    },
    /// They may not.
    Closed {
        /// Why.
        hold: Hold,
        /// When that may end.
        until: Option<Timestamp>,
    },
}

/// Whether a policy lets nodes start at `now`.
pub(crate) fn opening(policy: &Policy, now: Timestamp) -> Opening {
    let blackout = policy.blackouts.iter().filter(|blackout| blackout.from <= now && now < blackout.until);
    if let Some(until) = blackout.map(|blackout| blackout.until).max() {
        return Opening::Closed { hold: Hold::Blackout, until: Some(until) };
    }
    let next_blackout = next_start(&policy.blackouts, now);
    if policy.windows.is_empty() {
        return Opening::Open { closes: next_blackout };
    }
    let mut spans: Vec<(Timestamp, Timestamp)> =
        policy.windows.iter().flat_map(|window| spans(window, now)).collect();
    spans.sort_unstable();
    let mut closes = None;
    for (opens, ends) in &spans {
        if *opens <= closes.unwrap_or(now) && *ends > closes.unwrap_or(now) {
            closes = Some(*ends);
        }
    }
    if let Some(closes) = closes {
        return Opening::Open { closes: Some(closes).into_iter().chain(next_blackout).min() };
    }
    let until = spans.iter().map(|(opens, _)| *opens).find(|opens| *opens > now);
    Opening::Closed { hold: Hold::OutsideWindow, until }
}

fn next_start(blackouts: &[Blackout], now: Timestamp) -> Option<Timestamp> {
    blackouts
        .iter()
        .filter(|blackout| blackout.until > blackout.from)
        .map(|blackout| blackout.from)
        .filter(|from| *from > now)
        .min()
}

/// The times around `now` at which a window is open.
fn spans(window: &Window, now: Timestamp) -> Vec<(Timestamp, Timestamp)> {
    let today = now.to_zoned(window.zone.clone()).date();
    (-DAYS..=DAYS)
        .filter_map(|offset| {
            let date = today.checked_add(offset.days()).ok()?;
            let opens = date.to_datetime(window.start).to_zoned(window.zone.clone()).ok()?.timestamp();
            window.days.contains(&date.weekday()).then(|| (opens, after(opens, window.duration)))
        })
        .collect()
}

/// How much of a window is left at least when a node starts: the shortest node deadline.
pub(crate) const LEAST: Duration = Duration::from_secs(30);

/// Whether a node may still start that must be through by `closes`.
pub(crate) fn has_room(closes: Timestamp, now: Timestamp) -> bool {
    SignedDuration::try_from(LEAST).is_ok_and(|least| closes.duration_since(now) >= least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::{Weekday, time};
    use jiff::tz::TimeZone;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn window(days: &[Weekday], hour: i8, hours: u64, zone: &TimeZone) -> Window {
        Window {
            days: days.to_vec(),
            start: time(hour, 0, 0, 0),
            duration: Duration::from_secs(hours * 3600),
            zone: zone.clone(),
        }
    }

    fn policy(windows: Vec<Window>) -> Policy {
        Policy { windows, ..Policy::default() }
    }

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    fn open(closes: &str) -> Opening {
        Opening::Open { closes: Some(at(closes)) }
    }

    fn closed(until: &str) -> Opening {
        Opening::Closed { hold: Hold::OutsideWindow, until: Some(at(until)) }
    }

    #[test]
    fn without_windows_it_is_always_open() {
        assert_eq!(opening(&policy(vec![]), at("2026-11-22T12:00:00Z")), Opening::Open { closes: None });
    }

    #[test]
    fn a_window_is_open_from_its_first_to_before_its_last_moment() {
        let weekend = policy(vec![window(&[Weekday::Saturday, Weekday::Sunday], 2, 4, &berlin())]);
        assert_eq!(opening(&weekend, at("2026-11-21T00:59:59Z")), closed("2026-11-21T01:00:00Z"));
        assert_eq!(opening(&weekend, at("2026-11-21T01:00:00Z")), open("2026-11-21T05:00:00Z"));
        assert_eq!(opening(&weekend, at("2026-11-21T04:59:59Z")), open("2026-11-21T05:00:00Z"));
        assert_eq!(opening(&weekend, at("2026-11-21T05:00:00Z")), closed("2026-11-22T01:00:00Z"));
        assert_eq!(opening(&weekend, at("2026-11-23T12:00:00Z")), closed("2026-11-28T01:00:00Z"));
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_opens() {
        let friday = policy(vec![window(&[Weekday::Friday], 22, 6, &TimeZone::UTC)]);
        assert_eq!(opening(&friday, at("2026-11-21T03:00:00Z")), open("2026-11-21T04:00:00Z"));
        assert_eq!(opening(&friday, at("2026-11-20T03:00:00Z")), closed("2026-11-20T22:00:00Z"));
    }

    #[test]
    fn windows_that_touch_are_one() {
        let two = policy(vec![
            window(&[Weekday::Saturday], 2, 2, &TimeZone::UTC),
            window(&[Weekday::Saturday], 4, 3, &TimeZone::UTC),
            window(&[Weekday::Saturday], 9, 1, &TimeZone::UTC),
        ]);
        assert_eq!(opening(&two, at("2026-11-21T02:30:00Z")), open("2026-11-21T07:00:00Z"));
        assert_eq!(opening(&two, at("2026-11-21T07:00:00Z")), closed("2026-11-21T09:00:00Z"));
    }

    #[test]
    fn a_time_that_the_clocks_leave_out_is_the_one_after_they_went_forward() {
        let sunday = policy(vec![window(&[Weekday::Sunday], 2, 1, &berlin())]);
        // 2027-03-28: 02:00 does not exist in Berlin; 03:00 CEST is 01:00 UTC.
        assert_eq!(opening(&sunday, at("2027-03-28T00:59:59Z")), closed("2027-03-28T01:00:00Z"));
        assert_eq!(opening(&sunday, at("2027-03-28T01:00:00Z")), open("2027-03-28T02:00:00Z"));
    }

    #[test]
    fn a_time_that_they_show_twice_is_the_first_and_the_length_is_real_time() {
        let sunday = policy(vec![window(&[Weekday::Sunday], 2, 2, &berlin())]);
        // 2026-10-25: 02:00 CEST is 00:00 UTC, 02:00 CET is 01:00 UTC.
        assert_eq!(opening(&sunday, at("2026-10-25T00:00:00Z")), open("2026-10-25T02:00:00Z"));
        assert_eq!(opening(&sunday, at("2026-10-25T02:00:00Z")), closed("2026-11-01T01:00:00Z"));
    }

    #[test]
    fn a_blackout_wins_and_cuts_a_window_short() {
        let mut weekend = policy(vec![window(&[Weekday::Saturday], 2, 4, &TimeZone::UTC)]);
        weekend.blackouts =
            vec![Blackout { from: at("2026-11-21T03:00:00Z"), until: at("2026-11-21T05:00:00Z") }];
        assert_eq!(opening(&weekend, at("2026-11-21T02:00:00Z")), open("2026-11-21T03:00:00Z"));
        let held = Opening::Closed { hold: Hold::Blackout, until: Some(at("2026-11-21T05:00:00Z")) };
        assert_eq!(opening(&weekend, at("2026-11-21T03:00:00Z")), held);
        assert_eq!(opening(&weekend, at("2026-11-21T05:00:00Z")), open("2026-11-21T06:00:00Z"));
    }

    #[test]
    fn a_window_without_length_does_not_open() {
        let weekend = policy(vec![window(&[Weekday::Saturday, Weekday::Sunday], 2, 0, &TimeZone::UTC)]);
        assert_eq!(opening(&weekend, at("2026-11-21T02:00:00Z")), closed("2026-11-22T02:00:00Z"));
    }

    #[test]
    fn a_blackout_without_length_shuts_nothing() {
        let mut weekend = policy(vec![window(&[Weekday::Saturday], 2, 4, &TimeZone::UTC)]);
        let at_three = at("2026-11-21T03:00:00Z");
        weekend.blackouts = vec![Blackout { from: at_three, until: at_three }];
        assert_eq!(opening(&weekend, at("2026-11-21T02:00:00Z")), open("2026-11-21T06:00:00Z"));
    }

    #[test]
    fn a_window_of_a_week_is_never_closed() {
        let always = policy(vec![window(&[Weekday::Monday], 0, 7 * 24, &TimeZone::UTC)]);
        for now in ["2026-11-22T23:59:59Z", "2026-11-23T00:00:00Z", "2026-11-26T12:00:00Z"] {
            assert!(matches!(opening(&always, at(now)), Opening::Open { .. }), "{now}");
        }
    }
}
