//! What has changed and was not looked at yet.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Something that changed. Told twice before it is looked at, it is looked at once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// A PatchFeed.
    Feed(String),
    /// What is known of a feed's repository.
    Sight(String),
    /// A PatchPolicy.
    Policy(String),
    /// A PatchSet.
    Set(String),
    /// A NodePatch.
    Patch(String),
    /// A Node.
    Node(String),
    /// How a gate of this PatchPolicy stands.
    Gate(String),
}

/// The signals that wait.
#[derive(Debug, Default)]
pub struct Signals {
    waiting: Mutex<BTreeSet<Signal>>,
    bell: Notify,
}

impl Signals {
    /// Something changed.
    pub fn tell(&self, signal: Signal) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(signal);
        self.bell.notify_one();
    }

    /// Takes what waits.
    pub fn take(&self) -> BTreeSet<Signal> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns once something has changed.
    pub async fn heard(&self) {
        self.bell.notified().await;
    }
}
