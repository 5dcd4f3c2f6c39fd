//! What must hold on real kernels: each scenario is a sentence, a function, and a line of the result.
//!
//! One lab serves them all, one after the other; each begins from a calm fleet (no patch on any
//! node) and leaves behind what the next one can calm.

mod cautious;
mod decisions;
mod faults;
mod gates;
mod hardened;
mod inputs;
mod module;
mod pages;
mod refusals;
pub(crate) mod rollout;
mod stuck;
mod tokens;
mod verdicts;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use invivo_terms::NodeState;
use jiff::Timestamp;

use crate::audit::{self, Event};
use crate::check::{Check, Hole};
use crate::demo::{CANARY, NODES, RECIPE};
use crate::fleet::Fleet;
use crate::node::Node;
use crate::product::{POLICY, Product, REPOSITORY_PORT, Repository};
use crate::rebundle::ByHand;
use crate::{Lab, network};

/// One node, from its start to its report, under emulation and with others at work.
pub(crate) const PATIENCE: Duration = Duration::from_mins(8);

/// A sentence and how it is shown.
type Scenario = (&'static str, fn(&Stage) -> anyhow::Result<()>);

/// In this order; the ones that end a node's life come last.
const SCENARIOS: &[Scenario] = &[
    ("canary_then_rest_and_nothing_of_the_rest_before_the_soak_ended", rollout::canary_then_rest),
    ("an_operator_killed_within_a_stage_starts_nothing_twice", rollout::operator_killed),
    ("agent_and_loader_killed_between_load_and_report_lose_nothing", faults::agent_and_loader_killed),
    ("a_node_reset_after_settling_comes_back_patched_by_itself", faults::reset_after_settling),
    ("a_stolen_agent_token_writes_no_other_node_and_reads_nothing_else", tokens::stolen_agent_token),
    ("a_bundle_with_one_byte_changed_is_refused_by_name", refusals::changed_bundle),
    ("an_index_with_one_signature_of_two_is_refused_by_name", refusals::one_signature),
    ("a_lying_patch_server_is_refused_by_agent_and_operator", refusals::lying_patch_server),
    ("a_corrupted_agent_gets_nothing_past_the_loader", refusals::corrupted_agent),
    ("a_full_disk_is_a_reason_and_the_rest_goes_on", inputs::full_disk),
    ("wrong_addresses_roots_and_names_are_conditions_with_a_remedy", inputs::feeds_that_cannot_work),
    ("a_module_that_the_kernel_refuses_stops_at_the_canary", inputs::module_that_the_kernel_refuses),
    (
        "power_lost_before_a_patch_settled_makes_it_suspected_and_one_new_instruction_applies",
        verdicts::power_cut_while_soaking,
    ),
    ("a_patch_that_panics_is_convicted_and_never_loaded_again_on_that_node", verdicts::panic_in_the_patch),
    ("an_emergency_stop_and_a_blackout_start_nothing_and_interrupt_nothing", cautious::brakes),
    ("a_node_held_by_a_person_is_left_alone_and_a_dry_run_touches_none", cautious::held_and_dry),
    ("every_command_and_object_of_the_how_tos_is_taken_by_the_cluster", pages::how_tos),
    ("a_policy_that_is_deleted_takes_its_patches_along_if_it_says_so", cautious::deleted_with_roll_back),
    ("a_kernel_that_the_repository_does_not_know_is_left_alone_and_others_go_on", rollout::unknown_kernel),
    // A node that comes back from another policy leaves a slot taken until its deadline: last.
    ("a_second_policy_takes_a_node_over_by_priority_and_gives_it_back", cautious::priority),
];

/// The ones that take long and go the way of others: only if all are wanted, or by name. Levels of patches
/// by hand rise in this order.
const MORE: &[Scenario] = &[
    ("a_gate_that_prometheus_answers_stops_a_rollout_whose_canary_breaks_what_it_watches", gates::prometheus),
    ("a_prometheus_behind_tls_and_a_password_is_asked_with_both", gates::guarded_prometheus),
    ("a_job_that_fails_holds_all_and_one_that_succeeds_lets_them_go", gates::job),
    ("a_window_that_closes_in_the_middle_leaves_the_rest_for_the_next", cautious::window_closes),
    ("two_people_approve_and_nobody_writes_in_anothers_name", decisions::two_people_approve),
    (
        "a_new_node_goes_straight_to_the_proven_level_and_one_that_vanishes_halts_the_rollout",
        cautious::newcomer_and_vanished,
    ),
    ("a_node_that_loses_its_power_five_times_says_what_its_kernel_is_and_can_be_patched", faults::power_cuts),
    ("a_set_that_brings_two_nodes_down_is_quarantined_and_moves_no_third", verdicts::two_nodes_panic),
    ("a_patch_taken_off_by_hand_is_told_within_a_minute_and_put_back_once", verdicts::taken_off_by_hand),
    ("a_thread_that_keeps_a_transition_from_ending_is_named_with_its_pod", stuck::thread_in_a_pod),
    ("a_node_under_apparmor_and_watchdog_is_patched_like_any_other", hardened::apparmor),
    ("a_node_that_enforces_signatures_says_that_a_key_is_missing", hardened::signatures),
    ("a_node_in_lockdown_says_so_and_nothing_is_loaded", hardened::lockdown),
    (
        "an_oops_that_the_kernel_survives_takes_the_patch_off_at_once_and_two_stop_the_set",
        verdicts::oops_survived,
    ),
    ("an_oops_is_told_in_the_kernels_own_words_where_its_log_may_be_read", verdicts::told_by_the_log),
    ("a_module_that_comes_and_goes_is_patched_each_time_and_told_at_once", module::comes_and_goes),
];

/// Which scenarios are run, and on what.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Choice {
    /// Also those that take long.
    #[arg(long)]
    all: bool,
    /// Leave the lab up.
    #[arg(long)]
    keep: bool,
    /// On the lab that an earlier run kept.
    #[arg(long)]
    again: bool,
}

/// Runs every scenario whose name contains `filter`.
///
/// # Errors
/// When the lab itself does not come up.
pub fn run(filter: Option<&str>, choice: Choice) -> anyhow::Result<bool> {
    let Choice { all, keep, again } = choice;
    let lab = Lab::build()?;
    let stage = if again {
        Stage::join(&lab)?
    } else {
        if lab.running() {
            Lab::down(lab.state(), false)?;
        }
        Stage::set(&lab)?
    };
    let (mut passed, mut failed) = (0, 0);
    let more = if all || filter.is_some() { MORE } else { &[] };
    for (name, scenario) in SCENARIOS.iter().chain(more) {
        if filter.is_some_and(|filter| !name.contains(filter)) {
            continue;
        }
        let start = Instant::now();
        println!("scenario {name} ...");
        let result = stage.calm().and_then(|()| scenario(&stage));
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                passed += 1;
                println!("scenario {name} ... ok ({seconds:.1} s)");
            }
            Err(error) => {
                failed += 1;
                println!("scenario {name} ... FAILED ({seconds:.1} s): {error:#}");
                stage.explain();
            }
        }
    }
    if !keep {
        Lab::down(lab.state(), false)?;
    }
    println!("{passed} passed, {failed} failed, 0 skipped");
    Ok(failed == 0 && passed > 0)
}

/// A lab with Invivo in it.
pub(crate) struct Stage<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) product: Product<'a>,
    pub(crate) fleet: Fleet,
    pub(crate) check: Check,
    pub(crate) repository: Repository,
    pub(crate) url: String,
}

impl<'a> Stage<'a> {
    fn set(lab: &'a Lab) -> anyhow::Result<Self> {
        let product = Product::new(lab)?;
        let bundle = product.build_patch(RECIPE)?;
        let repository = product.make_repository("test", &bundle)?;
        let check = Check::build(&product.recipe(RECIPE))?;
        lab.start(u8::try_from(NODES.len())?)?;
        product.push_images()?;
        lab.prometheus_up()?;
        let url = lab.serve("repository", repository.folder(), REPOSITORY_PORT)?;
        product.install(&repository.root()?)?;
        lab.wait_up()?;
        product.wait_installed()?;
        let stage = Self { lab, product, fleet: Fleet::open(lab)?, check, repository, url };
        stage.product.kubectl(&["label", "--overwrite", "node", CANARY, "invivo.dev/canary=true"])?;
        for node in NODES {
            stage.check.install(lab, &stage.node(node)?)?;
        }
        Ok(stage)
    }

    /// The stage that an earlier run left.
    fn join(lab: &'a Lab) -> anyhow::Result<Self> {
        network::enter()?;
        let product = Product::new(lab)?;
        let repository = product.old_repository("test")?;
        let check = Check::build(&product.recipe(RECIPE))?;
        let url = lab.serve("repository", repository.folder(), REPOSITORY_PORT)?;
        Ok(Self { lab, product, fleet: Fleet::open(lab)?, check, repository, url })
    }

    /// No patch on any node, agents at work, the feed believed.
    fn calm(&self) -> anyhow::Result<()> {
        self.product.apply(&self.product.feed(&self.url, &self.repository.root()?))?;
        self.target_at_once("None")?;
        self.fleet.wait_feed(crate::product::FEED, "True", "Verified", PATIENCE)?;
        self.fleet.wait_at_target(POLICY, "None", PATIENCE)?;
        for node in NODES {
            self.require(node, Hole::Open)?;
        }
        Ok(())
    }

    pub(crate) fn node(&self, name: &str) -> anyhow::Result<Node> {
        Ok(self.lab.node(name)?)
    }

    /// The kernel itself is asked.
    pub(crate) fn require(&self, node: &str, wanted: Hole) -> anyhow::Result<()> {
        let seen = self.check.run(&self.node(node)?)?;
        if seen == wanted { Ok(()) } else { bail!("{node} is {seen}, not {wanted}") }
    }

    pub(crate) fn target(&self, target: &str) -> anyhow::Result<()> {
        self.product.apply(&self.product.policy(target))
    }

    /// Publishes a patch by hand, in the test channel, so that only who names its set gets it.
    pub(crate) fn publish(&self, by_hand: &ByHand<'_>) -> anyhow::Result<()> {
        let folder = self.product.folder(&format!("by-hand-{}", by_hand.set))?;
        let bundle = by_hand.make(&self.product.build_patch(RECIPE)?, &folder)?;
        self.repository.add(&self.product, &bundle, by_hand.set, "test")
    }

    /// For all nodes at the same time: where the stages are not what is tried.
    pub(crate) fn target_at_once(&self, target: &str) -> anyhow::Result<()> {
        self.product.apply(&self.product.policy_at_once(target))
    }

    pub(crate) fn wait_closed(&self, nodes: &[&str]) -> anyhow::Result<()> {
        self.fleet.wait_states(nodes, &[NodeState::Applied, NodeState::Settled], PATIENCE)?;
        nodes.iter().try_for_each(|node| self.require(node, Hole::Closed))
    }

    /// What the API server was asked since `since`, and granted.
    pub(crate) fn audit(&self, since: Timestamp) -> anyhow::Result<Vec<Event>> {
        let log: PathBuf = self.lab.audit_log();
        Ok(audit::read(&log)
            .context("read the audit log")?
            .into_iter()
            .filter(|event| event.request_received_timestamp >= since && event.granted())
            .collect())
    }

    /// What a person would look at after a failure.
    fn explain(&self) {
        for arguments in [
            &["get", "pf,pp,np,ps", "-o", "wide"][..],
            &["get", "pods", "-n", "invivo-system", "-o", "wide"],
            &["get", "pp,pf", "-o", "jsonpath={range .items[*]}{.kind}{\" \"}{.status}{\"\\n\"}{end}"],
            &["logs", "-n", "invivo-system", "deploy/invivo-operator", "--tail=30"],
            &[
                "logs",
                "-n",
                "invivo-system",
                "ds/invivo-agent",
                "--all-containers",
                "--all-pods",
                "--tail=15",
            ],
        ] {
            match self.product.kubectl(arguments) {
                Ok(text) => println!("$ kubectl {}\n{text}", arguments.join(" ")),
                Err(error) => println!("$ kubectl {}: {error:#}", arguments.join(" ")),
            }
        }
    }
}
