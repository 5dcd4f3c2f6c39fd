//! How often a policy's status is written for people alone: counts, holds, words. A fleet that moves
//! changes them with every report.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

/// Decisions are made at whole seconds: three of them are more than two.
const EVERY: SignedDuration = SignedDuration::from_secs(3);

/// When this process wrote each policy's status last.
#[derive(Default)]
pub struct Shown(Mutex<BTreeMap<String, Timestamp>>);

impl Shown {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The policy's status was written.
    pub fn wrote(&self, policy: &str, now: Timestamp) {
        self.lock().insert(policy.to_owned(), now);
    }

    /// The policy is gone.
    pub fn forget(&self, policy: &str) {
        self.lock().remove(policy);
    }

    /// Until when what only shows is to wait; none if it may be written now. A clock that was set
    /// back keeps nothing waiting.
    pub fn not_before(&self, policy: &str, now: Timestamp) -> Option<Timestamp> {
        let last = *self.lock().get(policy)?;
        let until = last.checked_add(EVERY).ok()?;
        (last <= now && now < until).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_shows_waits_for_three_whole_seconds_and_for_no_clock_that_was_set_back() {
        let at = |second: i64| Timestamp::from_second(1_764_000_000 + second).unwrap();
        let shown = Shown::default();
        assert_eq!(shown.not_before("p", at(0)), None);
        shown.wrote("p", at(0));
        let waits = [-1, 0, 2, 3].map(|second| shown.not_before("p", at(second)));
        assert_eq!(waits, [None, Some(at(3)), Some(at(3)), None]);
        assert_eq!(shown.not_before("another", at(0)), None);
        shown.forget("p");
        assert_eq!(shown.not_before("p", at(0)), None);
    }
}
