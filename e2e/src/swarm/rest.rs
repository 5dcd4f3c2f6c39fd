//! What Invivo's own programs ask of the API server while nothing happens.

use std::time::Duration;

use anyhow::ensure;

use super::nodes::Node;
use super::stand::{NAMESPACE, Stand};
use super::table::Table;
use crate::audit;
use crate::fleet::Seen;
use crate::product::POLICY;

/// Until the last counts are written.
const CALM: Duration = Duration::from_secs(10);

/// Watches a fleet at rest.
///
/// # Errors
/// When anything was written or listed.
pub(super) fn watch(
    stand: &Stand,
    fleet: &[Node],
    length: Duration,
    table: &mut Table,
) -> anyhow::Result<()> {
    stand.fleet().wait("a policy at rest", super::PATIENCE, || {
        let status = stand.fleet().policy(POLICY)?.status.unwrap_or_default();
        let ready = status.conditions.iter().any(|c| c.type_ == "Ready" && c.reason == "AtTarget");
        Ok(if ready { Seen::Answer(()) } else { Seen::NotYet(format!("{:?}", status.next_action)) })
    })?;
    std::thread::sleep(CALM);
    let log = stand.audit_log();
    let begun = audit::length(&log)?;
    std::thread::sleep(length);
    let account = format!("system:serviceaccount:{NAMESPACE}:");
    let ours: Vec<audit::Event> = audit::read_from(&log, begun)?
        .into_iter()
        .filter(|event| event.user.username.starts_with(&account))
        .filter(|event| !event.concerns("leases") && !event.request_uri.contains("dryRun"))
        .collect();
    let of = |is: &dyn Fn(&audit::Event) -> bool| ours.iter().filter(|event| is(event)).count();
    let (writes, lists) = (of(&|event| event.writes()), of(&|event| event.verb == "list"));
    table.add(
        format!(
            "requests at rest, {} nodes, {} s, leases and the dry-run check aside",
            fleet.len(),
            length.as_secs()
        ),
        format!(
            "{writes} writes, {lists} lists ({} watches begun anew, {} reads)",
            of(&|event| event.verb == "watch"),
            of(&|event| event.verb == "get")
        ),
    );
    if let Some(kib) = stand.operator_memory() {
        table.add(format!("operator resident, {} nodes", fleet.len()), format!("{kib} KiB"));
    }
    let what: Vec<_> = ours
        .iter()
        .filter(|event| event.writes() || event.verb == "list")
        .map(|event| format!("{} {} by {}", event.verb, event.request_uri, event.user.username))
        .collect();
    ensure!(what.is_empty(), "not at rest: {}", what.join("; "));
    Ok(())
}
