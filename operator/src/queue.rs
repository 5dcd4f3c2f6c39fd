//! What is to be done when. One key is worked on by one worker at a time; a key that failed comes
//! back later each time.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// First delay after a failure.
const FIRST: Duration = Duration::from_millis(200);
/// Longest delay after failures.
const LONGEST: Duration = Duration::from_mins(1);

/// How many urgent keys are worked on at most at the same time: others must get their turn too.
const URGENT_AT_ONCE: usize = 12;

/// A queue of keys by the instant that they are due.
#[derive(Debug)]
pub struct Queue<K> {
    urgent: fn(&K) -> bool,
    due: BTreeMap<K, Instant>,
    /// Urgent ones, and all others.
    order: [BTreeSet<(Instant, K)>; 2],
    running: BTreeMap<K, Option<Instant>>,
    failures: BTreeMap<K, u32>,
}

impl<K: Ord + Clone> Queue<K> {
    /// An empty queue. Of the keys that are due, urgent ones go before all others.
    pub fn new(urgent: fn(&K) -> bool) -> Self {
        Self {
            urgent,
            due: BTreeMap::new(),
            order: [BTreeSet::new(), BTreeSet::new()],
            running: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    fn lane(&mut self, key: &K) -> &mut BTreeSet<(Instant, K)> {
        let [urgent, others] = &mut self.order;
        if (self.urgent)(key) { urgent } else { others }
    }

    /// Adds a key, or moves it forward.
    pub fn add(&mut self, key: K, at: Instant) {
        if let Some(again) = self.running.get_mut(&key) {
            *again = Some(again.map_or(at, |before| before.min(at)));
            return;
        }
        match self.due.get(&key) {
            Some(before) if *before <= at => return,
            Some(before) => {
                let known = (*before, key.clone());
                self.lane(&key).remove(&known);
            }
            None => {}
        }
        self.lane(&key).insert((at, key.clone()));
        self.due.insert(key, at);
    }

    /// When the next key is due that may be taken.
    pub fn next(&self) -> Option<Instant> {
        self.order.iter().skip(self.closed_lanes()).filter_map(|lane| lane.first()).map(|(at, _)| *at).min()
    }

    /// The lane of urgent keys, while enough of them are worked on.
    fn closed_lanes(&self) -> usize {
        let running = self.running.keys().filter(|key| (self.urgent)(key)).count();
        usize::from(running >= URGENT_AT_ONCE)
    }

    /// Takes a key that is due; it counts as being worked on until [`Queue::done`].
    pub fn take(&mut self, now: Instant) -> Option<K> {
        let closed = self.closed_lanes();
        let mut lanes = self.order.iter_mut().skip(closed);
        let lane = lanes.find(|lane| lane.first().is_some_and(|(at, _)| *at <= now))?;
        let (_, key) = lane.pop_first()?;
        self.due.remove(&key);
        self.running.insert(key.clone(), None);
        Some(key)
    }

    /// The work on a key has ended well; it is due again at `wake`.
    pub fn done(&mut self, key: K, wake: Option<Instant>) {
        self.failures.remove(&key);
        let again = self.running.remove(&key).flatten();
        if let Some(at) = again.into_iter().chain(wake).min() {
            self.add(key, at);
        }
    }

    /// The work on a key has failed; it is due again after a while, twice as long each time.
    pub fn failed(&mut self, key: K, now: Instant) {
        self.running.remove(&key);
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let delay = FIRST.saturating_mul(2_u32.saturating_pow(*failures)).min(LONGEST);
        *failures = failures.saturating_add(1);
        self.add(key, now + jittered(delay));
    }
}

/// Between half of a delay and all of it.
pub fn jittered(delay: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 512;
    let half = delay / 2;
    half + half.mul_f64(f64::from(u32::try_from(random).unwrap_or(0)) / 512.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_worked_on_is_not_taken_twice() {
        let mut queue = Queue::new(|_| false);
        let now = Instant::now();
        queue.add("a", now);
        assert_eq!(queue.take(now), Some("a"));
        queue.add("a", now);
        assert_eq!(queue.take(now), None);
        queue.done("a", None);
        assert_eq!(queue.take(now), Some("a"));
        queue.done("a", None);
        assert_eq!(queue.take(now), None);
    }

    #[test]
    fn what_is_urgent_goes_before_what_was_due_earlier_but_not_before_it_is_due() {
        let mut queue = Queue::new(|key| *key == "urgent");
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        queue.add("a", now);
        queue.add("b", now);
        queue.add("urgent", later);
        assert_eq!(queue.take(now), Some("a"));
        assert_eq!(queue.take(later), Some("urgent"));
        assert_eq!(queue.take(later), Some("b"));
    }

    #[test]
    fn however_much_is_urgent_the_others_get_their_turn() {
        let mut queue = Queue::new(|key: &u32| *key > 0);
        let now = Instant::now();
        for key in 0..=20 {
            queue.add(key, now);
        }
        let taken: Vec<u32> = std::iter::from_fn(|| queue.take(now)).collect();
        assert_eq!(taken, (1..=12).chain([0]).collect::<Vec<_>>());
        assert_eq!(queue.next(), None, "nothing that may be taken is due");
        queue.done(5, None);
        assert_eq!((queue.next(), queue.take(now)), (Some(now), Some(13)));
    }

    #[test]
    fn failures_wait_longer_each_time_up_to_a_minute() {
        let mut queue = Queue::new(|_| false);
        let now = Instant::now();
        let mut last = Duration::ZERO;
        for _ in 0..12 {
            queue.add("a", now);
            let _ = queue.take(queue.next().unwrap());
            queue.failed("a", now);
            last = queue.next().unwrap() - now;
            assert_eq!(queue.take(now), None);
        }
        assert!(last >= Duration::from_secs(30) && last <= Duration::from_mins(1), "{last:?}");
    }

    #[test]
    fn the_earlier_of_two_instants_counts() {
        let mut queue = Queue::new(|_| false);
        let now = Instant::now();
        queue.add("a", now + Duration::from_secs(9));
        queue.add("a", now + Duration::from_secs(3));
        queue.add("a", now + Duration::from_secs(6));
        assert_eq!(queue.next(), Some(now + Duration::from_secs(3)));
    }
}
