//! Short rollouts, each on a few simulated nodes of its own: every field of a feed and of a policy does
//! on a real API server what its documentation says.

mod brakes;
mod failures;
mod feeds;
mod inputs;
mod targets;

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use invivo_api::{HoldCount, PatchFeedStatus, PatchPolicyStatus, PatchSetStatus};
use invivo_terms::Hold;

use super::agents::{Pace, Swarm};
use super::gate::Gate;
use super::ledger::Ledger;
use super::nodes::{self, Node};
use super::stand::Stand;
use crate::audit;
use crate::fleet::Seen;
use crate::product::{FEED, POLICY, Product};

/// Nodes of one trial: four canaries, three zones, six of each kernel build.
const NODES: usize = 12;
const CANARIES: usize = 4;
/// How long anything may take, on a busy machine; a node's deadline and a poll of the repository too.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long nothing is seen to happen, where nothing may.
const STILL: Duration = Duration::from_secs(4);
/// Slow enough that several nodes are on their way at once, where that may be.
const USUAL: Pace = Pace { apply: Duration::from_millis(300), settle: Duration::from_secs(1) };
/// Canaries at once, then the others two at a time.
const STAGES: &str = "    - {name: canary, nodeSelector: {matchLabels: {invivo.dev/canary: \"true\"}}, \
                      maxParallel: 100%}\n    - {name: rest, maxParallel: 2}\n";
/// All at once.
const AT_ONCE: &str = "    - {name: all, maxParallel: 100%}\n";

/// A sentence and how it is shown.
type Shown = (&'static str, fn(&Trial<'_>) -> anyhow::Result<()>);

/// The last ones leave a set behind that nothing rolls out any more.
const TRIALS: &[Shown] = &[
    ("a_failure_within_the_budget_goes_on_and_one_more_pauses", failures::budget),
    ("a_superseded_rollout_is_finished_or_begun_anew_as_its_policy_says", targets::superseded),
    ("a_new_node_gets_the_proven_level_at_once_and_another_kernel_build_does_not", targets::new_nodes),
    ("a_policy_over_a_feed_over_a_feed_gets_what_both_let_through", feeds::over_another),
    ("what_a_feed_withholds_is_named_and_nothing_is_taken_off", feeds::withheld),
    ("feeds_in_a_circle_are_named_and_load_nothing", feeds::circle),
    ("the_fleets_limit_counts_over_all_policies", brakes::fleet_limit),
    ("an_expedited_set_is_not_watched_and_any_other_is", brakes::expedited),
    ("input_that_cannot_work_is_named_and_nothing_moves", inputs::table),
    ("a_policy_deleted_in_the_middle_keeps_what_is_on", targets::deleted_and_kept),
    (
        "a_policy_deleted_in_the_middle_takes_its_patches_along_and_waits_for_no_dead_node",
        targets::deleted_and_taken_back,
    ),
    ("a_feed_deleted_in_the_middle_stops_what_has_not_begun", feeds::deleted),
    ("a_withdrawn_set_stays_or_is_taken_off_as_the_policy_says", targets::withdrawn),
    ("two_nodes_evidence_takes_a_rollout_back_and_nobody_else_moves", failures::taken_back),
];

/// Runs every trial whose name contains `filter`, one after the other.
///
/// # Errors
/// The ones that failed.
pub(super) fn run(stand: &Stand, swarm: &Swarm, gate: &Gate, filter: &str) -> anyhow::Result<()> {
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, shown) in TRIALS.iter().filter(|(name, _)| name.contains(filter)) {
        let start = Instant::now();
        println!("trial {name} ...");
        let result = Trial::begin(stand, swarm, gate).and_then(|trial| {
            let result = shown(&trial).and_then(|()| swarm.check());
            if result.is_err() {
                trial.explain();
            }
            trial.end().and(result)
        });
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                passed += 1;
                println!("trial {name} ... ok ({seconds:.1} s)");
            }
            Err(error) => {
                failed.push(*name);
                println!("trial {name} ... FAILED ({seconds:.1} s): {error:#}");
            }
        }
    }
    println!("{passed} passed, {} failed", failed.len());
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    ensure!(passed > 0, "no trial is called {filter}");
    Ok(())
}

/// A fleet and what may be asked of it.
pub(super) struct Trial<'a> {
    stand: &'a Stand,
    swarm: &'a Swarm,
    gate: &'a Gate,
    nodes: Vec<Node>,
    /// Length of the audit log when it began.
    begun: u64,
}

impl<'a> Trial<'a> {
    fn begin(stand: &'a Stand, swarm: &'a Swarm, gate: &'a Gate) -> anyhow::Result<Self> {
        stand.feed("")?;
        swarm.set_pace(USUAL);
        let mut nodes = nodes::make(stand, swarm, NODES)?;
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Self { stand, swarm, gate, nodes, begun: audit::length(&stand.audit_log())? })
    }

    fn end(self) -> anyhow::Result<()> {
        nodes::remove(self.stand, self.swarm)
    }

    /// One more node like this one.
    fn join(&self, name: &str, like: &Node) -> anyhow::Result<Node> {
        nodes::join(self.swarm, name, like)
    }

    fn product(&self) -> anyhow::Result<Product<'a>> {
        self.stand.product()
    }

    /// Writes the policy: its target, its stages, and what else there is, below `rollout` and below `spec`.
    fn policy(&self, target: &str, stages: &str, rollout: &str, spec: &str) -> anyhow::Result<()> {
        self.product()?.apply(&policy(POLICY, FEED, target, stages, rollout, spec))
    }

    fn status(&self) -> anyhow::Result<PatchPolicyStatus> {
        Ok(self.stand.fleet().policy(POLICY)?.status.unwrap_or_default())
    }

    fn feed_status(&self, name: &str) -> anyhow::Result<PatchFeedStatus> {
        Ok(self.stand.fleet().feed(name)?.status.unwrap_or_default())
    }

    /// What is known of a set that came through the usual feed.
    fn set_status(&self, set: &str) -> anyhow::Result<PatchSetStatus> {
        let name = format!("{FEED}.{set}");
        let sets = self.stand.fleet().sets()?;
        let found = sets.into_iter().find(|found| found.metadata.name.as_ref() == Some(&name));
        Ok(found.and_then(|found| found.status).unwrap_or_default())
    }

    /// Waits until the policy's rollout to this target is complete and every node has it.
    fn complete(&self, target: &str) -> anyhow::Result<()> {
        self.stand.wait_complete_within(target, self.nodes.len(), PATIENCE)
    }

    /// Waits until the policy's status is as wanted.
    fn wait(
        &self,
        what: &str,
        wanted: impl Fn(&PatchPolicyStatus) -> bool,
    ) -> anyhow::Result<PatchPolicyStatus> {
        self.stand.fleet().wait(what, PATIENCE, || {
            let status = self.status()?;
            Ok(if wanted(&status) {
                Seen::Answer(status)
            } else {
                let reasons: Vec<_> = status.conditions.iter().map(|condition| &condition.reason).collect();
                Seen::NotYet(format!("{:?} {:?} {reasons:?}", status.rollout, status.holds))
            })
        })
    }

    /// Waits until this many nodes are held for this reason.
    fn held(&self, reason: Hold, count: usize) -> anyhow::Result<HoldCount> {
        let of = |status: &PatchPolicyStatus| {
            let hold = status.holds.iter().find(|hold| hold.reason == reason).cloned();
            hold.filter(|hold| usize::try_from(hold.nodes).is_ok_and(|nodes| nodes == count))
        };
        let status = self.wait(&format!("{count} held as {reason}"), |status| of(status).is_some())?;
        of(&status).context("the hold that was just seen")
    }

    /// Waits until the policy's Ready condition has this reason; what it says.
    fn reason(&self, wanted: &str) -> anyhow::Result<String> {
        let of = |status: &PatchPolicyStatus| {
            let mut conditions = status.conditions.iter();
            conditions.find(|condition| condition.reason == wanted).map(|condition| condition.message.clone())
        };
        let status = self.wait(wanted, |status| of(status).is_some())?;
        of(&status).context("the condition that was just seen")
    }

    /// What was written since the trial began.
    fn ledger(&self) -> anyhow::Result<Ledger> {
        Ok(Ledger::of(&audit::read_from(&self.stand.audit_log(), self.begun)?))
    }

    /// Nothing is instructed while this is watched.
    fn nothing_moves(&self) -> anyhow::Result<()> {
        let told = |ledger: &Ledger| ledger.instructions().count() + ledger.taken_back().count();
        let before = told(&self.ledger()?);
        std::thread::sleep(STILL);
        let after = told(&self.ledger()?);
        ensure!(before == after, "{} instructions although nothing may move", after - before);
        Ok(())
    }

    /// What a person would look at after a failure.
    fn explain(&self) {
        for arguments in [
            &["get", "pf,pp,np"][..],
            &["get", "pp", "-o", "jsonpath={range .items[*]}{.status}{\"\\n\"}{end}"],
        ] {
            let said = self.product().and_then(|product| product.kubectl(arguments));
            println!(
                "$ kubectl {}\n{}",
                arguments.join(" "),
                said.unwrap_or_else(|error| format!("{error:#}"))
            );
        }
    }
}

/// A policy as a person writes it.
fn policy(name: &str, feed: &str, target: &str, stages: &str, rollout: &str, spec: &str) -> String {
    format!(
        "apiVersion: invivo.dev/v1alpha1\nkind: PatchPolicy\nmetadata: {{name: {name}}}\nspec:\n  feed: {feed}\n  \
         target: {{set: \"{target}\"}}\n{spec}  rollout:\n    nodeDeadline: 30s\n{rollout}    stages:\n{stages}"
    )
}
