//! How things stand, in the words of the wire: kernel first, journal second.

use std::time::Duration;

use invivo_terms::{Level, NodeState, effective_version};
use invivo_wire::{Kernel, State, Target};
use jiff::Timestamp;

use crate::journal::{Active, Journal, Outcome};
use crate::running::Running;
use crate::seen::Seen;

/// The answer to "how do things stand". `waiting` is what keeps the loader from coming up; an
/// instruction that has ended badly is told before it. The state folder is not looked at.
pub fn state(
    journal: &Journal,
    waiting: Option<&Outcome>,
    running: &Running,
    seen: &Seen,
    targets: Vec<Target>,
    since_boot: Duration,
    now: Timestamp,
) -> State {
    let applied = seen.applied();
    // Nothing is off before the last task has left it, and before nothing is on.
    let on = applied.clone().or_else(|| seen.moving().map(|(name, _)| name));
    let boot_id = running.boot_id.as_str();
    let known = journal.active_in(boot_id);
    let active = known.filter(|active| applied.as_ref() == Some(&active.loaded.module));
    let known = [known.map(|known| &known.loaded), journal.leaving_in(boot_id), journal.stray_in(boot_id)];
    let loaded = known.into_iter().flatten().find(|loaded| on.as_ref() == Some(&loaded.module));
    let ended = journal.outcome.as_ref();
    let outcome = ended.filter(|ended| ended.state.is_failure()).or(waiting).or(ended);
    let known = match outcome.map(|outcome| outcome.state) {
        _ if journal.task.is_some() => Some(NodeState::Working),
        // Tasks move, by nobody's instruction.
        Some(NodeState::Applied | NodeState::Settled | NodeState::Idle | NodeState::RolledBack) | None
            if applied.is_none() && on.is_some() =>
        {
            Some(NodeState::Working)
        }
        // It was on, and somebody has taken it off.
        Some(NodeState::Applied | NodeState::Settled) if applied.is_none() => None,
        known => known,
    };
    State {
        boot_id: running.boot_id.clone(),
        kernel: running.kernel.clone(),
        order: journal.order.clone(),
        level: on.map_or(Level::UNPATCHED, |name| name.level()),
        set: loaded.map(|loaded| loaded.set.clone()),
        manifest: loaded.map(|loaded| loaded.manifest.clone()),
        effective: effective_version(
            version(&running.kernel),
            seen.level(),
            active.and_then(|active| active.loaded.complete.as_deref()).filter(|_| is_whole(&targets)),
        ),
        state: known.unwrap_or_else(|| at_rest(seen.level(), active)),
        since: outcome.map_or(now, |outcome| outcome.since),
        settles_in_seconds: active.and_then(|active| settles_in(active, since_boot)),
        unpatched_seconds: journal
            .unpatched
            .as_ref()
            .filter(|unpatched| unpatched.boot_id == running.boot_id)
            .map(|unpatched| unpatched.seconds),
        reason: outcome.and_then(|outcome| outcome.reason),
        message: outcome.and_then(|outcome| outcome.message.clone()),
        evidence: outcome.and_then(|outcome| outcome.evidence.clone()),
        blockers: outcome.map(|outcome| outcome.blockers.clone()).unwrap_or_default(),
        switch_millis: outcome.and_then(|outcome| outcome.switch_millis),
        targets,
        room: None,
        floors: journal.last_root.as_ref().map(|root| journal.floors_of(root)).unwrap_or_default(),
    }
}

/// The author's claim is about the whole patch.
fn is_whole(targets: &[Target]) -> bool {
    targets.iter().all(|target| target.state.is_well())
}

fn version(kernel: &Kernel) -> &str {
    kernel.version.as_deref().unwrap_or(&kernel.release)
}

/// The state of a node that has nothing to do and nothing to complain about.
pub fn at_rest(level: Level, active: Option<&Active>) -> NodeState {
    match (level, active) {
        (Level::UNPATCHED, _) => NodeState::Idle,
        (_, Some(Active { settled: true, .. })) => NodeState::Settled,
        (_, Some(_) | None) => NodeState::Applied,
    }
}

/// Seconds until an applied level counts as settled; none once it does.
pub fn settles_in(active: &Active, since_boot: Duration) -> Option<u64> {
    let at = active.since_boot_seconds.saturating_add(active.loaded.settle_after_seconds);
    (!active.settled).then(|| at.saturating_sub(since_boot.as_secs()))
}
