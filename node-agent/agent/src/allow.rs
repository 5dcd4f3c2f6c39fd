//! Whether policy and feed allow an instruction. The operator decides when and where; what may
//! come in at all was decided by people, in objects that the operator cannot write.

use invivo_api::{Apply, PatchFeed, PatchPolicy};
use invivo_feed::document::{Index, KernelDocument, LevelEntry, SetStatus};
use invivo_feed::{Document, Rejection, eligible};
use invivo_terms::{Refusal, TargetSet};
use kube::ResourceExt;

/// Why an instruction is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// The instruction names no policy or no feed.
    #[error("the instruction names no {0}")]
    Unnamed(&'static str),
    /// The policy takes from another feed.
    #[error("policy {policy} takes from feed {takes}, not from {feed}")]
    OtherFeed {
        /// The policy.
        policy: String,
        /// The feed that it names.
        takes: String,
        /// The feed of the instruction.
        feed: String,
    },
    /// The policy demands whole patches.
    #[error("policy {0} does not allow to leave modules out")]
    Partial(String),
    /// The policy aims at something else.
    #[error("policy {policy} aims at {target}, not at {set}")]
    OtherTarget {
        /// The policy.
        policy: String,
        /// What it aims at.
        target: String,
        /// The set of the instruction.
        set: String,
    },
}

/// Judges by policy and feed alone, before anything is fetched.
///
/// # Errors
///
/// Why not.
pub fn by_policy(apply: &Apply, policy: &PatchPolicy, feed: &PatchFeed) -> Result<(), Forbidden> {
    let feed_name = feed.name_any();
    if policy.spec.feed != feed_name {
        return Err(Forbidden::OtherFeed {
            policy: policy.name_any(),
            takes: policy.spec.feed.clone(),
            feed: feed_name,
        });
    }
    if apply.allow_partial && !policy.spec.allow_partial {
        return Err(Forbidden::Partial(policy.name_any()));
    }
    let allowed = match &policy.spec.target.set {
        TargetSet::Latest => true,
        TargetSet::None => false,
        TargetSet::Named(set) => *set == apply.set,
    };
    if allowed {
        return Ok(());
    }
    Err(Forbidden::OtherTarget {
        policy: policy.name_any(),
        target: policy.spec.target.set.to_string(),
        set: apply.set.to_string(),
    })
}

/// Judges by the verified index: the set is the instruction's, may be rolled out, and brings this
/// level to the build.
///
/// # Errors
///
/// `MixAndMatch`, `Withdrawn`.
pub fn by_index(apply: &Apply, target: &TargetSet, index: &Index) -> Result<(), Rejection> {
    let refuse = |refusal, detail: String| Err(Rejection::new(refusal, Document::Index, detail));
    let Some(set) = index.set(&apply.set) else {
        return refuse(Refusal::MixAndMatch, format!("it has no set {}", apply.set));
    };
    if set.digest() != apply.digest {
        return refuse(
            Refusal::MixAndMatch,
            format!("its set {} is not the one of the instruction", apply.set),
        );
    }
    match set.status {
        SetStatus::Active => {}
        SetStatus::Withdrawn => return refuse(Refusal::Withdrawn, format!("set {}", apply.set)),
    }
    if *target == TargetSet::Latest
        && let Err(why) = eligible(set)
    {
        return refuse(Refusal::MixAndMatch, format!("set {} is not eligible for Latest: {why}", apply.set));
    }
    match index.level_at(&apply.set, &apply.build_id) {
        Some(offer) if offer.kernel.level == apply.level && offer.kernel.manifest == apply.manifest => Ok(()),
        Some(offer) => {
            refuse(Refusal::MixAndMatch, format!("set {} brings level {}", apply.set, offer.kernel.level))
        }
        None => refuse(Refusal::WrongKernel, format!("set {} brings nothing to this build", apply.set)),
    }
}

/// The instruction's level in the build's document.
///
/// # Errors
///
/// `MixAndMatch`.
pub fn by_kernel<'a>(apply: &Apply, kernel: &'a KernelDocument) -> Result<&'a LevelEntry, Rejection> {
    kernel.level(apply.level).filter(|level| level.manifest.sha256 == apply.manifest).ok_or_else(|| {
        let detail = format!("it has no level {} with the instruction's manifest", apply.level);
        Rejection::new(Refusal::MixAndMatch, Document::Kernel, detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use crate::instruction::What;
    use serde_json::json;

    fn apply() -> Apply {
        match fixtures::apply() {
            What::Apply(apply) => *apply,
            What::RollBack { .. } | What::Hold => unreachable!(),
        }
    }

    fn policy(feed: &str, target: &str) -> PatchPolicy {
        serde_json::from_value(json!({
            "apiVersion": "invivo.dev/v1alpha1", "kind": "PatchPolicy", "metadata": {"name": "workers"},
            "spec": {"feed": feed, "target": {"set": target}}
        }))
        .unwrap()
    }

    fn feed(name: &str) -> PatchFeed {
        serde_json::from_value(json!({
            "apiVersion": "invivo.dev/v1alpha1", "kind": "PatchFeed", "metadata": {"name": name},
            "spec": {"source": {"repository": {"url": "http://x/"}}, "trust": {"rootSha256": "0".repeat(64)}}
        }))
        .unwrap()
    }

    #[test]
    fn modules_are_left_out_only_where_the_policy_allows_it() {
        let (whole, feed) = (apply(), feed("production"));
        let partial = Apply { allow_partial: true, ..apply() };
        let strict = policy("production", "Latest");
        let mut lenient = strict.clone();
        lenient.spec.allow_partial = true;
        assert_eq!(by_policy(&partial, &strict, &feed), Err(Forbidden::Partial("workers".to_owned())));
        for (apply, policy) in [(&whole, &strict), (&whole, &lenient), (&partial, &lenient)] {
            assert_eq!(by_policy(apply, policy, &feed), Ok(()));
        }
    }

    #[test]
    fn only_the_policys_own_feed_and_target_are_allowed() {
        let (apply, feed) = (apply(), feed("production"));
        assert_eq!(by_policy(&apply, &policy("production", "Latest"), &feed), Ok(()));
        assert_eq!(by_policy(&apply, &policy("production", "2026-11-21.1"), &feed), Ok(()));
        assert!(matches!(
            by_policy(&apply, &policy("other", "Latest"), &feed),
            Err(Forbidden::OtherFeed { .. })
        ));
        for target in ["None", "2026-11-20.1"] {
            assert!(
                matches!(
                    by_policy(&apply, &policy("production", target), &feed),
                    Err(Forbidden::OtherTarget { .. })
                ),
                "{target}"
            );
        }
    }
}
