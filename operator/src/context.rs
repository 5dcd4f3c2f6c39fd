//! What every reconcile is given.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};

use crate::gate::GateSights;
use crate::metrics::Metrics;
use crate::observe::{Sights, Stores};
use crate::shown::Shown;
use crate::wave::Waves;

/// The ends where IO happens, and what is known.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What was seen of it.
    pub stores: Arc<Stores>,
    /// What is known of the feeds.
    pub sights: Arc<Sights>,
    /// How the gates that are asked outside stand.
    pub gates: Arc<GateSights>,
    /// The instructions of which it is not known yet whether they are written.
    pub waves: Waves,
    /// When policies' statuses were written.
    pub shown: Shown,
    /// Held from a decision until its count is written, where the whole fleet has a limit: two
    /// policies decided at once would each take what is left of it.
    pub fleet: tokio::sync::Mutex<()>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Held while evidence against sets is written down.
    pub recording: tokio::sync::Mutex<()>,
    /// Where Events go.
    pub recorder: Recorder,
    /// Who tells them.
    pub reporter: Reporter,
}

/// How a reconcile ended well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// When to look again even if nothing changes.
    pub wake: Option<Duration>,
    /// The policies should look again: what their feed offers has changed.
    pub policies: bool,
}

impl Done {
    /// Looks again at this instant.
    pub fn wake_at(instant: Option<Timestamp>, now: Timestamp) -> Self {
        // Never at once: an instant that has passed must not make a busy loop.
        let until = |instant: Timestamp| Duration::try_from(instant.duration_since(now)).unwrap_or_default();
        let wake = instant.map(|instant| until(instant).max(Duration::from_secs(1)));
        Self { wake, policies: false }
    }
}

/// How precise the present is for decisions.
pub const PRECISION: Duration = Duration::from_secs(1);

/// The present, in whole seconds: statuses hold no more, and what is read back must be equal.
pub fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
