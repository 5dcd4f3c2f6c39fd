//! When to try again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Waits that double up to half a minute, each shortened by up to a third at random, so that a
/// fleet does not come back in step.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    tries: u32,
}

impl Pace {
    /// It worked.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// How often it did not work in a row.
    pub const fn tries(&self) -> u32 {
        self.tries
    }

    /// How long to wait now.
    pub fn wait(&mut self) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.tries.min(5)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        // A fresh hasher is keyed at random: that is all the randomness a pause needs.
        let random = RandomState::new().build_hasher().finish() % 1000;
        whole.mul_f64(1.0 - f64::from(u16::try_from(random).unwrap_or(0)) / 3000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_half_a_minute_and_begin_anew_after_success() {
        let mut pace = Pace::default();
        let waits: Vec<_> = (0..20).map(|_| pace.wait()).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST / 2);
        assert!(waits.iter().all(|wait| *wait <= LONGEST));
        assert!(waits[19] >= LONGEST / 2);
        pace.reset();
        assert!(pace.wait() <= FIRST);
    }
}
