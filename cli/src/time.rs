//! Times for people.

use jiff::Timestamp;

/// How far `then` is from `now`: `5m ago`, `in 6d`.
pub fn relative(now: Timestamp, then: Timestamp) -> String {
    let seconds = then.as_second().saturating_sub(now.as_second());
    let length = length(seconds.unsigned_abs());
    if seconds > 0 { format!("in {length}") } else { format!("{length} ago") }
}

fn length(seconds: u64) -> String {
    // Rounded, so that what was made for seven days a second ago still says seven.
    let in_units = |unit: u64| seconds.saturating_add(unit / 2) / unit;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", in_units(60)),
        7_200..172_800 => format!("{}h", in_units(3_600)),
        _ => format!("{}d", in_units(86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_said_in_the_unit_that_people_would_use() {
        let now: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
        for (then, words) in [
            ("2026-11-21T00:00:00Z", "0s ago"),
            ("2026-11-20T23:58:30Z", "90s ago"),
            ("2026-11-21T00:05:00Z", "in 5m"),
            ("2026-11-20T18:00:00Z", "6h ago"),
            ("2026-11-28T00:00:00Z", "in 7d"),
            ("2026-11-27T23:59:00Z", "in 7d"),
        ] {
            assert_eq!(relative(now, then.parse().unwrap()), words);
        }
    }
}
