//! Kernels that check signatures of modules: those that take none without one that they trust, and
//! those that do not mind.

use std::path::Path;

use invivo_terms::{Level, NodeState};
use invivo_wire::{Fault, Reason, Signing};

use crate::boot::Rig;
use crate::bundles::SIGNED;
use crate::plan::{Deed, Look, Plan, Step};
use crate::{apply, looks, new_disk, plan, rig, roll_back, to_its_end_on};

type Told = (Signing, NodeState, Option<Reason>, Option<Level>);

/// What became of an unsigned and of a signed level on a kernel that was told to be strict.
fn become_of(rig: &Rig, image: &Path, strict: &str, before: Vec<Deed>, steps: Vec<Step>) -> Vec<Told> {
    let plan = Plan { before, settle_after_seconds: 3600, ..plan(rig, steps) };
    let told = |look: &Look| {
        let runs = look.kernel.cmdline;
        assert_eq!(
            (look.kernel.modules.len(), look.state.level),
            (usize::from(runs.is_some()), runs.unwrap_or(Level::UNPATCHED))
        );
        (look.state.kernel.signing, look.state.state, look.state.reason, runs)
    };
    looks(to_its_end_on(image, rig, &new_disk(rig), &plan, strict)).iter().skip(1).map(told).collect()
}

/// Nothing is loaded, signed or not, by a kernel that trusts nobody of ours.
fn refused_by(strict: &str, before: Vec<Deed>) -> Vec<Told> {
    let Some(rig) = rig() else { return Vec::new() };
    become_of(&rig, &rig.bundles.image, strict, before, vec![apply(1, 1), apply(SIGNED, 2)])
}

const MISSING: Option<Reason> = Some(Reason::Fault(Fault::ModuleSigningKeyMissing));
const LOCKDOWN: Option<Reason> = Some(Reason::Fault(Fault::Lockdown));

#[test]
fn a_kernel_that_enforces_signatures_loads_nothing_and_the_missing_key_is_named() {
    for refused in refused_by("module.sig_enforce=1", Vec::new()) {
        assert_eq!(refused, (Signing::Enforced, NodeState::Refused, MISSING, None));
    }
}

#[test]
fn a_kernel_that_is_locked_down_loads_nothing_and_the_lockdown_is_named() {
    for refused in refused_by("lockdown=integrity", Vec::new()) {
        assert_eq!(refused, (Signing::Lockdown, NodeState::Refused, LOCKDOWN, None));
    }
}

/// Secure boot does it without a word on the command line, and a container has no securityfs.
#[test]
fn a_lockdown_that_cannot_be_seen_is_named_once_the_kernel_has_refused_a_load() {
    for (_, state, reason, runs) in refused_by("", vec![Deed::LockDown]) {
        assert_eq!((state, reason, runs), (NodeState::Refused, LOCKDOWN, None));
    }
}

#[test]
fn a_signed_level_is_taken_by_a_kernel_that_does_not_mind_who_signed_it() {
    let Some(rig) = rig() else { return };
    let steps = vec![apply(SIGNED, 1), roll_back(2)];
    let told = become_of(&rig, &rig.bundles.image, "", Vec::new(), steps);
    let on = (Signing::Off, NodeState::Applied, None, Some(Level(SIGNED)));
    assert_eq!(told, [on, (Signing::Off, NodeState::RolledBack, None, None)]);
}

/// The distribution's own kernel, in which the certificate that it was built with is another one.
#[test]
fn a_kernel_that_enforces_signatures_takes_a_level_that_is_signed_by_whom_it_trusts_and_no_other() {
    let Some(rig) = rig() else { return };
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("vmlinux");
    rig.bundles.trusting(&image).unwrap();
    for (strict, signing, refusal) in [
        ("module.sig_enforce=1", Signing::Enforced, MISSING),
        ("lockdown=integrity", Signing::Lockdown, LOCKDOWN),
    ] {
        let steps = vec![apply(1, 1), apply(SIGNED, 2), roll_back(3)];
        let told = become_of(&rig, &image, strict, Vec::new(), steps);
        assert_eq!(
            told,
            [
                (signing, NodeState::Refused, refusal, None),
                (signing, NodeState::Applied, None, Some(Level(SIGNED))),
                (signing, NodeState::RolledBack, None, None),
            ],
            "{strict}"
        );
    }
}
