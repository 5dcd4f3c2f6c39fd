//! When to look again. Pure: chance comes in as a number.

use std::time::Duration;

/// The first wait after an attempt that brought nothing.
const FIRST_RETRY: Duration = Duration::from_secs(5);

/// How long to wait after an attempt: the poll interval where it brought the current repository,
/// else 5 s doubling up to the poll interval; always within a tenth of that, by `noise`, so that
/// many servers do not come at once.
pub(crate) fn wait(poll: Duration, failures: u32, noise: u64) -> Duration {
    let base = match failures {
        0 => poll,
        n => FIRST_RETRY.saturating_mul(1u32.checked_shl(n.min(20) - 1).unwrap_or(u32::MAX)).min(poll),
    };
    // 900 to 1,100 thousandths.
    let thousandths = 900 + u32::try_from(noise % 201).unwrap_or(100);
    base.saturating_mul(thousandths) / 1000
}

/// A number by chance; only spreads requests, so the standard library's hash seed is good enough.
pub(crate) fn noise() -> u64 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(0u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_stay_within_a_tenth_of_the_interval() {
        let hour = Duration::from_hours(1);
        for noise in 0..500 {
            let wait = wait(hour, 0, noise);
            assert!(wait >= Duration::from_mins(54) && wait <= Duration::from_mins(66), "{wait:?}");
        }
    }

    #[test]
    fn failures_double_the_wait_up_to_the_interval() {
        let hour = Duration::from_hours(1);
        let middle = 100;
        assert_eq!(wait(hour, 1, middle), Duration::from_secs(5));
        assert_eq!(wait(hour, 2, middle), Duration::from_secs(10));
        assert_eq!(wait(hour, 4, middle), Duration::from_secs(40));
        assert_eq!(wait(hour, u32::MAX, middle), hour);
        assert_eq!(wait(Duration::from_secs(10), 9, middle), Duration::from_secs(10));
    }
}
