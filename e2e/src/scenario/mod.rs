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

use std::time::Instant;

use crate::Lab;
use crate::stage::Stage;

/// A sentence and how it is shown.
type Scenario = (&'static str, fn(&Stage) -> anyhow::Result<()>);

/// If all are wanted, or by name, before any node was told anything: a node's next deadline is later than its
/// last one, and nobody starts whose deadline a window would cut.
const FIRST: Scenario =
    ("a_window_that_closes_in_the_middle_leaves_the_rest_for_the_next", cautious::window_closes);

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
];

/// Whatever else is run: a node that comes back from another policy leaves a slot taken until its deadline.
const LAST: Scenario =
    ("a_second_policy_takes_a_node_over_by_priority_and_gives_it_back", cautious::priority);

/// The ones that take long and go the way of others: only if all are wanted, or by name. Levels of patches
/// by hand rise in this order.
const MORE: &[Scenario] = &[
    ("a_gate_that_prometheus_answers_stops_a_rollout_whose_canary_breaks_what_it_watches", gates::prometheus),
    ("a_prometheus_behind_tls_and_a_password_is_asked_with_both", gates::guarded_prometheus),
    ("a_job_that_fails_holds_all_and_one_that_succeeds_lets_them_go", gates::job),
    ("two_people_approve_and_nobody_writes_in_anothers_name", decisions::two_people_approve),
    (
        "a_new_node_goes_straight_to_the_proven_level_and_one_that_vanishes_halts_the_rollout",
        cautious::newcomer_and_vanished,
    ),
    ("a_node_that_loses_its_power_five_times_says_what_its_kernel_is_and_can_be_patched", faults::power_cuts),
    ("an_agent_that_the_kernel_kills_for_memory_loses_nothing", faults::agent_out_of_memory),
    ("a_node_keeps_its_level_while_the_api_server_is_gone", faults::api_server_gone),
    ("a_set_that_brings_two_nodes_down_is_quarantined_and_moves_no_third", verdicts::two_nodes_panic),
    (
        "a_patch_taken_off_by_hand_is_told_within_a_minute_and_put_back_once_if_it_is_still_wanted",
        verdicts::taken_off_by_hand,
    ),
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
    let every = all || filter.is_some();
    let (first, more) = if every { (&[FIRST][..], MORE) } else { (&[][..], &[][..]) };
    for (name, scenario) in first.iter().chain(SCENARIOS).chain(more).chain([&LAST]) {
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
