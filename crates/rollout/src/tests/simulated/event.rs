//! What may happen to a cluster.

use proptest::prelude::*;

/// How many policies there are.
pub(super) const POLICIES: usize = 2;

#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Pass(u64),
    Act(usize),
    /// A failure, a refusal or a conviction.
    Fail(usize, u8),
    Miss(usize, bool),
    Settle(usize),
    Boot(usize),
    Ready(usize, bool),
    /// To this policy; in this stage, with this kernel, in this zone.
    Join(usize, usize, u32, u8),
    Leave(usize),
    /// The node is gone and another of the same name is there.
    Replace(usize),
    Claim(usize, usize),
    Hold(usize, Option<u64>),
    Cordon(usize, bool),
    Refresh(bool),
    Decide {
        leader: bool,
        policy: usize,
        killed_after: Option<usize>,
    },
    Aim(usize, u8),
    Feed(u8),
    Brake(usize, Brake),
    EmergencyStop(bool),
    Gate(usize, u8),
    /// Every day, from so many minutes after the beginning, for so many minutes; none is always.
    Window(usize, Option<(u32, u32)>),
    Blackout(usize, u64, u64),
    Expedite(usize, u32, u64),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Brake {
    Paused(bool),
    DryRun(bool),
}

/// What may happen to a node.
fn to_a_node() -> impl Strategy<Value = Event> {
    let node = || 0..12_usize;
    prop_oneof![
        14 => node().prop_map(Event::Act),
        2 => (node(), 0..3_u8).prop_map(|(n, how)| Event::Fail(n, how)),
        2 => (node(), any::<bool>()).prop_map(|(n, blocked)| Event::Miss(n, blocked)),
        3 => node().prop_map(Event::Settle),
        1 => node().prop_map(Event::Boot),
        2 => (node(), prop::bool::weighted(0.7)).prop_map(|(n, ready)| Event::Ready(n, ready)),
        1 => (0..POLICIES, 0..4_usize, 1..4_u32, 0..3_u8).prop_map(|(p, s, k, z)| Event::Join(p, s, k, z)),
        1 => node().prop_map(Event::Leave),
        1 => node().prop_map(Event::Replace),
        1 => (node(), 0..POLICIES).prop_map(|(n, policy)| Event::Claim(n, policy)),
        1 => (node(), prop::option::of(1..3000_u64)).prop_map(|(n, until)| Event::Hold(n, until)),
        1 => (node(), any::<bool>()).prop_map(|(n, on)| Event::Cordon(n, on)),
    ]
}

/// What people do, and what is around the cluster.
fn around() -> impl Strategy<Value = Event> {
    let policy = || 0..POLICIES;
    let brake =
        prop_oneof![any::<bool>().prop_map(Brake::Paused), prop::bool::weighted(0.3).prop_map(Brake::DryRun)];
    let window = prop::option::weighted(0.6, (0..180_u32, 1..240_u32));
    prop_oneof![
        2 => (policy(), 0..6_u8).prop_map(|(p, aim)| Event::Aim(p, aim)),
        3 => (0..8_u8).prop_map(Event::Feed),
        2 => (policy(), brake).prop_map(|(p, brake)| Event::Brake(p, brake)),
        1 => prop::bool::weighted(0.4).prop_map(Event::EmergencyStop),
        3 => (policy(), 0..5_u8).prop_map(|(p, verdict)| Event::Gate(p, verdict)),
        1 => (policy(), window).prop_map(|(p, window)| Event::Window(p, window)),
        1 => (policy(), 0..3000_u64, 1..3000_u64).prop_map(|(p, from, length)| Event::Blackout(p, from, length)),
        1 => (policy(), 1..5_u32, 1..3000_u64).prop_map(|(p, set, until)| Event::Expedite(p, set, until)),
    ]
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    let kill = prop_oneof![8 => Just(None), 1 => (0..3_usize).prop_map(Some)];
    let decide =
        (any::<bool>(), prop::bool::weighted(0.25), kill).prop_map(|(leader, second, killed_after)| {
            Event::Decide { leader, policy: usize::from(second), killed_after }
        });
    prop_oneof![
        6 => prop_oneof![1..120_u64, 300..900_u64, 1500..2400_u64].prop_map(Event::Pass),
        28 => to_a_node(),
        8 => any::<bool>().prop_map(Event::Refresh),
        18 => decide,
        6 => around(),
    ]
}
