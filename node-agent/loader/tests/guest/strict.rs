//! Kernels that take no module without a signature that they trust.

use invivo_terms::NodeState;
use invivo_wire::{Fault, Reason, Signing};

use crate::bundles::SIGNED;
use crate::plan::{Deed, Look, Plan};
use crate::{apply, looks, new_disk, plan, rig, to_its_end};

/// What became of an unsigned and of a signed level on a kernel that was told to be strict; nothing is
/// loaded in any case.
fn refused_by(strict: &str, before: Vec<Deed>) -> Vec<(Signing, NodeState, Option<Reason>)> {
    let Some(rig) = rig() else { return Vec::new() };
    let plan = Plan { before, ..plan(&rig, vec![apply(1, 1), apply(SIGNED, 2)]) };
    let looks = looks(to_its_end(&rig, &new_disk(&rig), &plan, strict));
    assert!(
        looks.iter().all(|look| look.kernel.modules.is_empty() && look.kernel.on.is_empty()),
        "{looks:?}"
    );
    let told = |look: &Look| (look.state.kernel.signing, look.state.state, look.state.reason);
    looks.iter().skip(1).map(told).collect()
}

#[test]
fn a_kernel_that_enforces_signatures_loads_nothing_and_the_missing_key_is_named() {
    let missing = Some(Reason::Fault(Fault::ModuleSigningKeyMissing));
    for refused in refused_by("module.sig_enforce=1", Vec::new()) {
        assert_eq!(refused, (Signing::Enforced, NodeState::Refused, missing));
    }
}

#[test]
fn a_kernel_that_is_locked_down_loads_nothing_and_the_lockdown_is_named() {
    let lockdown = Some(Reason::Fault(Fault::Lockdown));
    for refused in refused_by("lockdown=integrity", Vec::new()) {
        assert_eq!(refused, (Signing::Lockdown, NodeState::Refused, lockdown));
    }
}

/// Secure boot does it without a word on the command line, and a container has no securityfs.
#[test]
fn a_lockdown_that_cannot_be_seen_is_named_once_the_kernel_has_refused_a_load() {
    let lockdown = Some(Reason::Fault(Fault::Lockdown));
    for (_, state, reason) in refused_by("", vec![Deed::LockDown]) {
        assert_eq!((state, reason), (NodeState::Refused, lockdown));
    }
}
