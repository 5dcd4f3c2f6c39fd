//! The instructions of a decision, until it is known of each whether it was written.
//!
//! The policy's status counts them before the first is written. One whose write had no clear answer
//! is written again as it was decided: its slot is taken anyway, and the write is bound to the
//! NodePatch that was seen. One that will certainly never be written, because its NodePatch is
//! another by now, is taken off the count again, bound to the very count that it was put on. Both
//! only while nothing else was decided about the policy; what is left over then, or when this
//! process ends, stays counted until its deadline.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, stream};
use invivo_api::{
    Apply, HoldInstruction, NodePatchSpec, OnNode, PatchPolicy, PatchPolicyStatus, RollBack, RolloutStatus,
};
use invivo_rollout::Instruction;
use invivo_terms::{HumanDuration, Level, Revision};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::context::Context;
use crate::error::{Category, Error};
use crate::observe::Decision;
use crate::seen::SeenPatch;
use crate::store::Entry;
use crate::write;

/// How many instructions are written at the same time.
const WRITES_AT_ONCE: usize = 16;

/// How often one instruction is tried within one decision.
const ATTEMPTS: u32 = 3;

/// What is not through of the decisions about one policy.
#[derive(Default)]
pub struct Wave {
    counted: Option<Count>,
    open: Vec<Order>,
    lost: u32,
}

/// The count in a policy's status that a wave is part of.
#[derive(PartialEq)]
struct Count {
    uid: String,
    generation: Option<i64>,
    rollout: Option<RolloutStatus>,
}

/// One instruction.
struct Order {
    node: String,
    /// The NodePatch exactly as it was when this was decided.
    planned: Entry<SeenPatch>,
    instruction: Instruction,
    /// It was counted; else it goes on with what was counted before.
    starts: bool,
    /// It was tried before, and the status says by now that it was not seen.
    late: bool,
}

/// What became of a write.
enum Outcome {
    /// It stands there.
    Written(Revision),
    /// Not known, or to be had by trying again.
    Open(Error),
    /// It does not stand there and never will.
    Never(Error),
}

impl Count {
    fn of(policy: &Entry<PatchPolicy>, status: Option<&PatchPolicyStatus>) -> Self {
        Self {
            uid: policy.uid.clone(),
            generation: policy.value.metadata.generation,
            rollout: status.and_then(|status| status.rollout.clone()),
        }
    }

    fn in_store(policy: &Entry<PatchPolicy>) -> Self {
        Self::of(policy, policy.value.status.as_ref())
    }

    /// Whether the planner counts off what it does not see.
    fn is_over(&self, now: Timestamp) -> bool {
        let deadline = self.rollout.as_ref().and_then(|rollout| rollout.deadline.as_ref());
        deadline.is_none_or(|deadline| deadline.0 <= now)
    }
}

impl Wave {
    /// What is still to be seen to: nothing if anything else was decided since, or it is too late.
    #[must_use]
    pub fn still(mut self, policy: &Entry<PatchPolicy>, now: Timestamp) -> Self {
        let stands = self
            .counted
            .as_ref()
            .is_some_and(|count| *count == Count::in_store(policy) && !count.is_over(now));
        if !stands {
            return Self::default();
        }
        self.open.retain(|order| order.deadline() > Some(now));
        self
    }

    /// Takes in a decision whose count, `status`, has just been written.
    pub fn add(&mut self, policy: &Entry<PatchPolicy>, status: &PatchPolicyStatus, decision: &Decision) {
        self.counted = Some(Count::of(policy, Some(status)));
        for (node, instruction) in &decision.plan.actions {
            if let Some(planned) = decision.patches.get(node) {
                self.open.push(Order {
                    node: node.clone(),
                    planned: planned.clone(),
                    instruction: instruction.clone(),
                    starts: decision.plan.starts.contains(node),
                    late: false,
                });
            }
        }
    }

    /// Writes what is open and takes what will never be written off the count. Says whether the
    /// policy is to be planned again at once: there is room, or a node moves after all.
    ///
    /// # Errors
    ///
    /// The first write that did not happen; what can be tried again stays in the wave.
    pub async fn write(&mut self, context: &Context, policy: &Entry<PatchPolicy>) -> Result<bool, Error> {
        let orders = std::mem::take(&mut self.open).into_iter();
        let writes = orders.map(|order| async move {
            let outcome = order.write(context, policy).await;
            (order, outcome)
        });
        let ended: Vec<(Order, Outcome)> =
            stream::iter(writes).buffer_unordered(WRITES_AT_ONCE).collect().await;
        let mut again = false;
        let mut trouble = None;
        for (mut order, outcome) in ended {
            match outcome {
                Outcome::Written(revision) => {
                    again |= order.late;
                    tracing::info!(policy = policy.name, order.node, revision = revision.0, "instructed");
                }
                Outcome::Open(error) => {
                    order.late = true;
                    self.open.push(order);
                    trouble.get_or_insert(error);
                }
                Outcome::Never(error) => {
                    self.lost = self.lost.saturating_add(u32::from(order.starts));
                    trouble.get_or_insert(error);
                }
            }
        }
        let freed = self.take_back(context, &policy.name).await;
        trouble.map_or_else(|| Ok(freed? || again), Err)
    }

    /// Says whether that made room.
    async fn take_back(&mut self, context: &Context, name: &str) -> Result<bool, Error> {
        if self.lost == 0 {
            return Ok(false);
        }
        let policy = context.stores.policies.get(name);
        let counted = policy.filter(|policy| self.counted.as_ref() == Some(&Count::in_store(policy)));
        let Some((policy, mut status)) =
            counted.and_then(|policy| Some((policy.clone(), policy.value.status.clone()?)))
        else {
            self.lost = 0;
            return Ok(false);
        };
        if let Some(rollout) = &mut status.rollout {
            rollout.started = rollout.started.saturating_sub(self.lost);
        }
        write::policy_status(&context.client, &context.stores, &policy, &status).await?;
        self.counted = Some(Count::of(&policy, Some(&status)));
        self.lost = 0;
        Ok(true)
    }
}

impl Order {
    const fn deadline(&self) -> Option<Timestamp> {
        match &self.instruction {
            Instruction::Apply(apply) => Some(apply.deadline),
            Instruction::RollBack { deadline, .. } => Some(*deadline),
            Instruction::Hold => None,
        }
    }

    /// Gives the node its instruction. The node's agent writes to the same object, so that the
    /// first attempt may meet another version; as long as nothing that the decision rests on is
    /// different, it is made again. An answer that was lost is looked up.
    async fn write(&self, context: &Context, policy: &Entry<PatchPolicy>) -> Outcome {
        let mut patch = self.planned.clone();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let spec = self.spec(policy, &patch);
            let error = match write::instruct(&context.client, &context.stores, &patch, &spec).await {
                Ok(()) => return Outcome::Written(spec.revision),
                Err(error) => error,
            };
            match error.category() {
                Category::Conflict | Category::NoAnswer | Category::ServerError if attempt < ATTEMPTS => {}
                Category::NotFound => return Outcome::Never(error),
                Category::Conflict
                | Category::NoAnswer
                | Category::ServerError
                | Category::Forbidden
                | Category::Invalid
                | Category::Throttled => return Outcome::Open(error),
            }
            let found = match write::read_patch(&context.client, &context.stores, &patch.name).await {
                Ok(found) => found,
                Err(error) if error.category() == Category::NotFound => return Outcome::Never(error),
                Err(error) => return Outcome::Open(error),
            };
            if found.uid == patch.uid && found.value.spec == spec {
                return Outcome::Written(spec.revision);
            }
            if !is_as_planned(&self.planned, &found) {
                return Outcome::Never(error);
            }
            patch = found;
        }
    }

    /// The spec that gives this instruction, with the next revision.
    fn spec(&self, policy: &Entry<PatchPolicy>, patch: &Entry<SeenPatch>) -> NodePatchSpec {
        let observed = patch.value.status.as_ref().map_or(Revision(0), |status| status.observed_revision);
        let mut spec = NodePatchSpec {
            revision: patch.value.spec.revision.max(observed).next(),
            policy: Some(policy.name.clone()),
            feed: Some(policy.value.spec.feed.clone()),
            apply: None,
            roll_back: None,
            hold: None,
        };
        match &self.instruction {
            Instruction::Apply(apply) => {
                let (level, set) = apply.from.clone();
                spec.apply = Some(Apply {
                    build_id: apply.build_id.clone(),
                    level: apply.level,
                    set: apply.set.clone(),
                    digest: apply.digest.clone(),
                    manifest: apply.manifest.clone(),
                    mechanism: apply.mechanism,
                    deadline: Time(apply.deadline),
                    settle_after: HumanDuration::from_secs(apply.settle_after.as_secs()),
                    allow_partial: apply.allow_partial,
                    from: Some(OnNode { level, set }),
                    attempt: apply.attempt,
                });
            }
            Instruction::RollBack { to, deadline, attempt } => {
                let (level, set) = to.clone();
                let to = (level > Level::UNPATCHED).then_some(OnNode { level, set });
                spec.roll_back = Some(RollBack { to, deadline: Time(*deadline), attempt: *attempt });
            }
            Instruction::Hold => spec.hold = Some(HoldInstruction {}),
        }
        spec
    }
}

/// Whether what a decision rests on is still so: the same object with the same instruction, on a
/// node that has neither booted nor changed its level since.
fn is_as_planned(planned: &Entry<SeenPatch>, found: &Entry<SeenPatch>) -> bool {
    let facts = |entry: &Entry<SeenPatch>| {
        let status = entry.value.status.clone().unwrap_or_default();
        (status.boot_id, status.kernel.map(|kernel| kernel.build_id), status.level, status.set, status.state)
    };
    planned.uid == found.uid
        && planned.value.owner == found.value.owner
        && planned.value.spec == found.value.spec
        && facts(planned) == facts(found)
}

/// The waves that are not through, by policy. They are this process's alone: another one knows
/// only what is counted.
#[derive(Default)]
pub struct Waves(Mutex<BTreeMap<String, Wave>>);

impl Waves {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Wave>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is not through for this policy; it is kept no longer.
    pub fn take(&self, policy: &str) -> Wave {
        self.lock().remove(policy).unwrap_or_default()
    }

    /// Keeps what is not through.
    pub fn keep(&self, policy: &str, wave: Wave) {
        if !wave.open.is_empty() || wave.lost > 0 {
            self.lock().insert(policy.to_owned(), wave);
        }
    }
}
