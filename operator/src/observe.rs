//! From the stores to what one decision rests on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use invivo_api::{NodePatchSpec, NodePatchStatus, PatchFeed, PatchPolicy, PatchSet};
use invivo_rollout as rollout;
use invivo_terms::{BuildId, Excuse, Hold, Level};
use jiff::Timestamp;
use kube::Resource;
use kube::core::SelectorExt;

use crate::claim::{Claimant, claim};
use crate::deletion::{self, Deletion};
use crate::departed::Departed;
use crate::gate::{self, GateSights};
use crate::loss::Losses;
use crate::memory;
pub use crate::offer::FeedView;
use crate::reason;
use crate::seen::{SeenNode, SeenPatch};
use crate::sight::{Own, Server, Sight, Verified};
use crate::stop::EmergencyStop;
use crate::store::{Entry, Store, Unreadable};
use crate::validate::{Checked, Invalid};

/// Every kind that is watched.
#[derive(Default)]
pub struct Stores {
    /// The feeds.
    pub feeds: Arc<Store<PatchFeed>>,
    /// The policies.
    pub policies: Arc<Store<PatchPolicy>>,
    /// The sets.
    pub sets: Arc<Store<PatchSet>>,
    /// The instructions and answers.
    pub patches: Arc<Store<SeenPatch>>,
    /// The nodes.
    pub nodes: Arc<Store<SeenNode>>,
    /// Whether people stopped everything.
    pub stop: Arc<EmergencyStop>,
    /// How many nodes may move at once in the whole fleet.
    pub fleet_limit: Option<u32>,
    /// Nodes that vanished before they had settled.
    pub losses: Arc<Losses>,
    /// The instructions of nodes that have gone.
    pub departed: Departed,
}

impl Stores {
    /// The kinds that have not been seen in full yet. Nothing is decided while there is one.
    pub fn incomplete(&self) -> Vec<&'static str> {
        [
            ("PatchFeed", self.feeds.is_complete()),
            ("PatchPolicy", self.policies.is_complete()),
            ("PatchSet", self.sets.is_complete()),
            ("NodePatch", self.patches.is_complete()),
            ("Node", self.nodes.is_complete()),
            ("ConfigMap invivo-emergency-stop", self.stop.is_known()),
        ]
        .into_iter()
        .filter_map(|(kind, complete)| (!complete).then_some(kind))
        .collect()
    }

    /// Every policy as one that may claim nodes.
    pub fn claimants(&self) -> Vec<Claimant> {
        self.policies.all().iter().map(claimant).collect()
    }

    /// The kernel builds that agents report, with `uname -r` and the number of nodes.
    pub fn builds(&self) -> BTreeMap<BuildId, (String, u32)> {
        let mut builds = BTreeMap::new();
        for patch in self.patches.all() {
            if let Some(kernel) = patch.value.status.as_ref().and_then(|status| status.kernel.as_ref()) {
                let entry =
                    builds.entry(kernel.build_id.clone()).or_insert_with(|| (kernel.release.clone(), 0));
                entry.1 += 1;
            }
        }
        builds
    }
}

fn claimant(policy: &Entry<PatchPolicy>) -> Claimant {
    let created = policy.value.meta().creation_timestamp.as_ref();
    Claimant {
        name: policy.name.clone(),
        priority: policy.value.spec.priority,
        created: created.map_or(Timestamp::MAX, |time| time.0),
        selector: Checked::of(&policy.value.spec).ok().map(|checked| checked.selector),
    }
}

/// What is known of every feed; written by the look-outs, read by decisions.
#[derive(Default)]
pub struct Sights(Mutex<BTreeMap<String, Sight>>);

impl Sights {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Sight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a feed.
    pub fn get(&self, feed: &str) -> Sight {
        self.lock().get(feed).cloned().unwrap_or_default()
    }

    /// Something new is known.
    pub fn put(&self, feed: &str, server: Server, own: Own, verified: Option<Arc<Verified>>) {
        let mut sights = self.lock();
        let sight = sights.entry(feed.to_owned()).or_default();
        sight.server = server;
        sight.own = own;
        if verified.is_none() {
            sight.stored = None;
        }
        sight.verified = verified;
    }

    /// The patch server's clock is this far behind ours; whether that is news.
    pub fn set_behind(&self, feed: &str, behind: Duration) -> bool {
        let mut sights = self.lock();
        let sight = sights.entry(feed.to_owned()).or_default();
        std::mem::replace(&mut sight.behind, behind) != behind
    }

    /// The floors of this catalogue stand in the feed's status: it may be used.
    pub fn stored(&self, feed: &str, verified: &Arc<Verified>) {
        if let Some(sight) = self.lock().get_mut(feed)
            && sight.verified.as_ref().is_some_and(|latest| latest.root == verified.root)
        {
            sight.stored = Some(Arc::clone(verified));
        }
    }

    /// Forgets the feeds that are gone.
    pub fn keep(&self, feeds: &BTreeSet<String>) {
        self.lock().retain(|feed, _| feeds.contains(feed));
    }
}

/// One policy with everything that was decided about it.
pub struct View {
    /// The policy as last seen.
    pub policy: Entry<PatchPolicy>,
    /// Its feed.
    pub feed: FeedView,
    /// The decision, or why there is none.
    pub decision: Result<Decision, Undecided>,
}

/// Why nothing is decided about a policy. What is remembered of it stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    /// Something is wrong with it.
    #[error("correct {0}")]
    Invalid(#[from] Invalid),
    /// Another one cannot be read, and may claim any of its nodes.
    #[error("{0}; until then it may claim any node: nothing starts, nothing is taken off")]
    Unclaimed(Unreadable),
}

impl Undecided {
    /// The condition reason.
    pub const fn reason(&self) -> reason::Policy {
        match self {
            Self::Invalid(invalid) => invalid.reason(),
            Self::Unclaimed(_) => reason::Policy::Unreadable,
        }
    }
}

/// A decision and what it rests on.
pub struct Decision {
    /// The policy, checked.
    pub checked: Checked,
    /// What was seen.
    pub world: rollout::World,
    /// What to do.
    pub plan: rollout::Plan,
    /// How the gates stood.
    pub gates: gate::Standing,
    /// What becomes of the policy where it is being deleted.
    pub deletion: Deletion,
    /// The NodePatches of the nodes to instruct, exactly as they were when that was decided.
    pub patches: BTreeMap<String, Entry<SeenPatch>>,
    /// The NodePatches of its nodes that cannot be read, by node.
    pub unreadable: BTreeMap<String, Unreadable>,
}

/// Looks at one policy at `now` and decides. Reads the stores, writes nothing.
pub fn view(
    stores: &Stores,
    sights: &Sights,
    gates: &GateSights,
    name: &str,
    now: Timestamp,
) -> Option<View> {
    let policy = stores.policies.get(name)?;
    let feed = FeedView::of(stores, sights, &policy.value.spec.feed, now);
    let readable = match stores.policies.unreadable().into_iter().next() {
        Some(unreadable) => Err(Undecided::Unclaimed(unreadable)),
        None => Checked::of(&policy.value.spec).map_err(Undecided::from),
    };
    let decision = readable.map(|checked| {
        let (mut nodes, mut patches) = nodes(stores, name, &checked, now);
        let unreadable = unreadable_of(stores, &nodes);
        let memory = memory::recall(policy.value.status.as_ref());
        let deletion = deletion::decide(&policy.value, &nodes, |node| unreadable.contains_key(node), now);
        let seen = (&patches, &unreadable);
        let gates = standing(stores, gates, &policy, &checked, &memory, seen, now);
        let wishes = match &deletion {
            Deletion::Alive { .. } => checked.policy.clone(),
            Deletion::RollingBack { given_up, .. } => {
                nodes.retain(|node, _| !given_up.contains(node));
                deletion::plan_with(&checked.policy)
            }
            Deletion::Leaving | Deletion::Over { .. } => {
                rollout::Policy { paused: true, ..checked.policy.clone() }
            }
        };
        let world = rollout::World {
            now,
            imprecision: crate::context::PRECISION,
            policy: wishes,
            offer: feed.offer(),
            memory,
            vanished: stores.losses.of(name, policy.value.status.as_ref()),
            brakes: rollout::Brakes {
                emergency_stop: stores.stop.is_on(),
                fleet: stores.fleet_limit.map(|limit| limit.saturating_sub(in_flight(stores, now))),
            },
            gates: gates.gates.clone(),
            nodes,
        };
        let mut plan = rollout::plan(&world);
        for node in unreadable.keys() {
            leave(&mut plan, node);
        }
        patches.retain(|node, _| plan.actions.contains_key(node));
        Decision { checked, world, plan, gates, deletion, patches, unreadable }
    });
    Some(View { policy, feed, decision })
}

/// The NodePatches of these nodes that are there and cannot be read.
fn unreadable_of(stores: &Stores, nodes: &BTreeMap<String, rollout::Node>) -> BTreeMap<String, Unreadable> {
    let governed = |name: &String| nodes.get(name).is_some_and(|node| !node.claimed_by_other);
    let unreadable = stores.patches.unreadable().into_iter();
    unreadable.filter(|patch| governed(&patch.name)).map(|patch| (patch.name.clone(), patch)).collect()
}

/// Leaves a node alone whose NodePatch cannot be read. Nothing starts there, as its hold says; what
/// moves there cannot be told to stop.
fn leave(plan: &mut rollout::Plan, node: &str) {
    if plan.actions.remove(node).is_some() {
        plan.in_flight.insert(node.to_owned());
    }
    if let Some(held) = plan.holds.get_mut(node).filter(|_| !plan.failed.contains(node)) {
        *held = rollout::Held { hold: Hold::StatusStale, until: None };
    }
}

/// How the gates stand for the stage that the policy's rollout was last seen in.
fn standing(
    stores: &Stores,
    sights: &GateSights,
    policy: &Entry<PatchPolicy>,
    checked: &Checked,
    memory: &rollout::Memory,
    (patches, unreadable): (&BTreeMap<String, Entry<SeenPatch>>, &BTreeMap<String, Unreadable>),
    now: Timestamp,
) -> gate::Standing {
    let rollout = memory.rollout.as_ref();
    let wanted = gate::Wanted::of(rollout, |stage| checked.stage_name(stage));
    let moved: Vec<gate::Moved> = patches
        .iter()
        .filter(|(_, patch)| patch.value.spec.policy.as_deref() == Some(policy.name.as_str()))
        .filter_map(|(name, patch)| gate::Moved::of(&stores.nodes.get(name)?, &patch.value, rollout))
        .collect();
    // What was last read of them may be that they moved; of those of which nothing was read, anything.
    let under_way = rollout.is_some_and(|rollout| !rollout.complete);
    let is_moved = |node: &String| moved.iter().any(|moved| moved.node == *node);
    let hidden = unreadable.keys().filter(|node| is_moved(node) || !patches.contains_key(*node));
    let hidden: Vec<String> = hidden.filter(|_| under_way).cloned().collect();
    gate::verdicts(sights, policy, wanted.as_ref(), (&moved, &hidden), now)
}

/// How many nodes are moving in the whole fleet, as the policies count them. What a policy has
/// started and does not see counts until its deadline: nothing begins after that.
fn in_flight(stores: &Stores, now: Timestamp) -> u32 {
    let of = |policy: Entry<PatchPolicy>| {
        let status = policy.value.status.as_ref()?;
        let rollout = status.rollout.as_ref()?;
        let seen = status.nodes.as_ref().map_or(0, |nodes| nodes.in_flight);
        let open = rollout.deadline.as_ref().is_some_and(|deadline| deadline.0 > now);
        let counted = if open { rollout.started.saturating_sub(rollout.finished) } else { 0 };
        Some(counted.max(seen))
    };
    stores.policies.all().into_iter().filter_map(of).fold(0, u32::saturating_add)
}

/// The nodes that a policy wants, as the planner sees them, and their NodePatches.
fn nodes(
    stores: &Stores,
    policy: &str,
    checked: &Checked,
    now: Timestamp,
) -> (BTreeMap<String, rollout::Node>, BTreeMap<String, Entry<SeenPatch>>) {
    let claimants = stores.claimants();
    let mut nodes = BTreeMap::new();
    let mut patches = BTreeMap::new();
    for node in stores.nodes.all() {
        if !checked.selector.matches(&node.value.labels) {
            continue;
        }
        let patch = patch_of(stores, &node);
        // As long as it cannot be read, it was last seen so, and it can be told nothing.
        let unreadable = stores.patches.unreadable_of(&node.name).is_some();
        let bound = patch.as_ref().and_then(|patch| patch.value.spec.policy.as_deref());
        let owner = claim(&node.value.labels, bound, &claimants);
        let status = patch.as_ref().and_then(|patch| patch.value.status.as_ref());
        let seen = rollout::Node {
            stage: checked.stage_of(&node.value.labels),
            ready: node.value.ready,
            cordoned: node.value.cordoned,
            held: if unreadable { Some(rollout::HeldByPerson { until: None }) } else { node.value.held },
            domains: domains(&checked.spread, &node.value.labels),
            claimed_by_other: owner.is_some_and(|owner| owner.name != policy),
            spec: patch.as_ref().map(|patch| instructed(policy, &patch.value.spec)),
            report: status.and_then(|status| report(status, now)),
        };
        nodes.insert(node.name.clone(), seen);
        patches.extend(patch.map(|patch| (node.name, patch)));
    }
    (nodes, patches)
}

fn domains(spread: &BTreeSet<String>, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let known = spread.iter().filter_map(|label| Some((label.clone(), labels.get(label)?.clone())));
    known.collect()
}

/// The NodePatch of this very node; one that an earlier node of the same name left is not it.
pub fn patch_of(stores: &Stores, node: &Entry<SeenNode>) -> Option<Entry<SeenPatch>> {
    stores
        .patches
        .get(&node.name)
        .filter(|patch| patch.value.owner.as_deref() == Some(node.value.uid.as_str()))
}

fn instructed(policy: &str, spec: &NodePatchSpec) -> rollout::Instructed {
    let instruction = match (&spec.apply, &spec.roll_back) {
        (Some(apply), _) => rollout::Instruction::Apply(rollout::Apply {
            build_id: apply.build_id.clone(),
            level: apply.level,
            set: apply.set.clone(),
            digest: apply.digest.clone(),
            manifest: apply.manifest.clone(),
            mechanism: apply.mechanism,
            deadline: apply.deadline.0,
            settle_after: apply.settle_after.get(),
            allow_partial: apply.allow_partial,
            from: apply.from.as_ref().map_or((Level::UNPATCHED, None), |from| (from.level, from.set.clone())),
            attempt: apply.attempt,
        }),
        (None, Some(roll_back)) => {
            let to = roll_back.to.as_ref();
            rollout::Instruction::RollBack {
                to: to.map_or((Level::UNPATCHED, None), |to| (to.level, to.set.clone())),
                deadline: roll_back.deadline.0,
                attempt: roll_back.attempt,
            }
        }
        (None, None) => rollout::Instruction::Hold,
    };
    let by_other = spec.policy.as_deref().is_some_and(|by| by != policy);
    rollout::Instructed { revision: spec.revision, instruction, by_other }
}

/// A report counts once it names the kernel. Without an instant it counts as of now, so that no
/// soak is cut short.
fn report(status: &NodePatchStatus, now: Timestamp) -> Option<rollout::Report> {
    let kernel = status.kernel.as_ref()?;
    Some(rollout::Report {
        observed: status.observed_revision,
        build_id: kernel.build_id.clone(),
        level: status.level,
        set: status.set.clone(),
        state: status.state,
        excuse: Excuse::of(status.state, status.reason.as_deref()),
        since: status.since.as_ref().map_or(now, |since| since.0),
        why: status.state.is_failure().then(|| why(status)).flatten(),
    })
}

/// Reason, message and what the node's log tells of it, as one line.
fn why(status: &NodePatchStatus) -> Option<String> {
    let excerpt = status.evidence.as_ref().map(|evidence| &evidence.excerpt);
    let words: Vec<&str> = [status.reason.as_ref(), status.message.as_ref(), excerpt]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .collect();
    (!words.is_empty()).then(|| words.join(": "))
}
