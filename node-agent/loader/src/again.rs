//! When something that failed in passing is tried again. Pure.

use std::time::Duration;

use crate::journal::Outcome;

/// The first wait; each is twice as long as the one before.
const FIRST: Duration = Duration::from_secs(5);
/// The longest wait.
const LONGEST: Duration = Duration::from_mins(10);

/// What keeps the loader from coming up, until it is tried again. Not for the journal: the next
/// loader tries at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// As it is reported meanwhile.
    pub(crate) why: Outcome,
    /// When.
    pub(crate) again: Again,
}

/// The next try, and how many there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Again {
    tries: u32,
    /// On the clock that counts from boot.
    at: Duration,
}

impl Again {
    /// After a try that failed at `now`, and those before it.
    pub(crate) fn after(before: Option<Self>, now: Duration) -> Self {
        let tries = before.map_or(0, |before| before.tries.saturating_add(1));
        let wait = FIRST.saturating_mul(2_u32.saturating_pow(tries)).min(LONGEST);
        Self { tries, at: now.saturating_add(wait) }
    }

    /// How long until the next try; none once it is due.
    pub(crate) fn left(self, now: Duration) -> Option<Duration> {
        self.at.checked_sub(now).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_double_from_five_seconds_to_ten_minutes() {
        let (mut now, mut again) = (Duration::from_secs(100), None);
        let mut waits = Vec::new();
        for _ in 0..40 {
            let next = Again::after(again, now);
            waits.push(next.left(now).unwrap().as_secs());
            now = next.at;
            assert_eq!(next.left(now), None);
            again = Some(next);
        }
        assert_eq!(waits[..9], [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(waits[39], 600);
    }
}
