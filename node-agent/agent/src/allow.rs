//! Whether policy and feed allow an instruction. The operator decides when and where; what may
//! come in at all was decided by people, in objects that the operator cannot write.

use std::collections::BTreeMap;

use invivo_api::{Apply, PatchFeed, PatchPolicy, PatchSet};
use invivo_feed::document::{Index, KernelDocument, LevelEntry, SetEntry, SetStatus};
use invivo_feed::{Document, Ineligible, Rejection, Say, eligible};
use invivo_terms::{Refusal, SetName, TargetSet};
use jiff::Timestamp;
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
    /// One of the feeds on the way to the repository does not exist.
    #[error("there is no PatchFeed {0}")]
    NoFeed(String),
    /// The feeds on the way never come to a repository.
    #[error("PatchFeed {0} takes from itself by way of others")]
    Cycle(String),
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

/// Why an instruction is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is not what the signed index says.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The feed withholds its set now. The operator may have judged by an object that has changed
    /// since, or by another clock: it is looked at again until the deadline.
    #[error("PatchFeed withholds set {set}: {why}")]
    Withheld {
        /// The set.
        set: SetName,
        /// Why.
        why: Ineligible,
    },
}

/// What every feed on the way to the repository has to say about a set: the very set of this entry,
/// not another one that an object of its name is about.
pub fn says(entry: &SetEntry, feeds: &[PatchFeed], objects: &[Option<PatchSet>]) -> Vec<Say> {
    let digest = entry.digest();
    let say = |(feed, object): (&PatchFeed, &Option<PatchSet>)| {
        let object = object.as_ref().filter(|object| object.spec.digest == digest);
        let status = object.and_then(|object| object.status.as_ref());
        Say {
            rules: feed.rules(),
            decisions: object.map(|object| object.spec.decisions(&digest)).unwrap_or_default(),
            quarantined: status.is_some_and(|status| status.quarantine.is_some()),
        }
    };
    feeds.iter().zip(objects).map(say).collect()
}

/// Judges by the verified index: the set is the instruction's, may be rolled out at `now` (by the
/// earlier of two clocks), and brings this level to the build. `says` has what the feeds say about
/// the set and, where it does not touch the build, about those before it that do, up to the first
/// that is eligible.
///
/// # Errors
///
/// `MixAndMatch`, `Withdrawn`, `WrongKernel`; `Withheld`.
pub fn by_index(
    apply: &Apply,
    target: &TargetSet,
    index: &Index,
    says: &BTreeMap<SetName, Vec<Say>>,
    now: Timestamp,
) -> Result<(), Unfit> {
    let refuse = |refusal, detail: String| Err(Rejection::new(refusal, Document::Index, detail).into());
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
    let may = |set: &SetEntry| says.get(&set.name).map(|says| eligible(set, says, now));
    let Some(may_set) = may(set) else {
        return refuse(Refusal::MixAndMatch, format!("nothing is known of set {}", apply.set));
    };
    let named = *target != TargetSet::Latest;
    if let Err(why) = may_set
        && (!named || why.block().stops_named())
    {
        return Err(Unfit::Withheld { set: apply.set.clone(), why });
    }
    match index.level_at(&apply.set, &apply.build_id, |set| may(set).is_some_and(|may| may.is_ok())) {
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

    const BUILD: &str = "abababababababababababababababababababab";

    /// Three sets of the stable channel: 1 and 2 touch the build, 3 does not.
    fn index() -> Index {
        let kernels =
            |level: u32| json!({BUILD: {"level": level, "manifest": invivo_feed::digest(b"manifest")}});
        let set = |number: u32, kernels: serde_json::Value| {
            json!({"name": format!("2026-11-21.{number}"), "released": "2026-11-21T00:00:00Z",
                "channel": "stable", "status": "active", "summary": "", "kernels": kernels})
        };
        serde_json::from_value(json!({"type": "index", "repository": "example", "version": 1,
            "expires": "2027-01-01T00:00:00Z", "kernels": {},
            "sets": [set(1, kernels(1)), set(2, kernels(2)), set(3, json!({}))]}))
        .unwrap()
    }

    fn apply_of(index: &Index, number: usize, level: u32) -> Apply {
        let set = &index.sets[number - 1];
        Apply { set: set.name.clone(), digest: set.digest(), level: invivo_terms::Level(level), ..apply() }
    }

    fn all_say(index: &Index, change: impl Fn(&str, &mut Say)) -> BTreeMap<SetName, Vec<Say>> {
        let say = |set: &SetEntry| {
            let mut say = Say::default();
            change(set.name.as_str(), &mut say);
            (set.name.clone(), vec![say])
        };
        index.sets.iter().map(say).collect()
    }

    fn now() -> Timestamp {
        "2026-11-22T00:00:00Z".parse().unwrap()
    }

    fn named(index: &Index, number: usize) -> TargetSet {
        TargetSet::Named(index.sets[number - 1].name.clone())
    }

    #[test]
    fn what_the_feed_withholds_is_withheld_by_the_agent_too() {
        let index = index();
        let young = all_say(&index, |_, say| say.rules.delay = "30d".parse().unwrap());
        let apply = apply_of(&index, 2, 2);
        let judged = by_index(&apply, &TargetSet::Latest, &index, &young, now());
        assert!(matches!(judged, Err(Unfit::Withheld { why: Ineligible::Delayed(_), .. })), "{judged:?}");
        assert_eq!(by_index(&apply, &named(&index, 2), &index, &young, now()), Ok(()), "a person named it");
        let rejected = all_say(&index, |_, say| say.decisions.rejected = true);
        for target in [TargetSet::Latest, named(&index, 2)] {
            let judged = by_index(&apply, &target, &index, &rejected, now());
            assert!(matches!(judged, Err(Unfit::Withheld { why: Ineligible::Rejected, .. })), "{judged:?}");
        }
    }

    #[test]
    fn a_set_of_which_nothing_is_known_is_not_taken() {
        let index = index();
        let judged = by_index(&apply_of(&index, 2, 2), &TargetSet::Latest, &index, &BTreeMap::new(), now());
        assert!(judged.is_err());
    }

    #[test]
    fn a_named_set_that_does_not_touch_the_build_leans_on_the_last_eligible_one() {
        let index = index();
        let free = all_say(&index, |_, _| {});
        let target = named(&index, 3);
        assert_eq!(by_index(&apply_of(&index, 3, 2), &target, &index, &free, now()), Ok(()));
        let rejected = all_say(&index, |set, say| say.decisions.rejected = set == "2026-11-21.2");
        assert_eq!(by_index(&apply_of(&index, 3, 1), &target, &index, &rejected, now()), Ok(()));
        assert!(by_index(&apply_of(&index, 3, 2), &target, &index, &rejected, now()).is_err());
    }

    #[test]
    fn an_object_about_another_set_of_that_name_says_nothing() {
        let (index, feed) = (index(), feed("production"));
        let object = |digest: &invivo_terms::Digest| -> PatchSet {
            serde_json::from_value(json!({
                "apiVersion": "invivo.dev/v1alpha1", "kind": "PatchSet", "metadata": {},
                "spec": {"feed": "production", "repository": "example", "set": "2026-11-21.1", "digest": digest,
                    "approvals": [{"user": "ada", "decision": "Approve", "digest": digest, "reason": "tried"}]},
                "status": {"quarantine": {"since": "2026-11-22T12:00:00Z"}}
            }))
            .unwrap()
        };
        let set = &index.sets[0];
        let said = |digest: &invivo_terms::Digest| {
            says(set, std::slice::from_ref(&feed), &[Some(object(digest))])[0].clone()
        };
        let own = said(&set.digest());
        assert_eq!((own.decisions.approvals, own.quarantined), (1, true));
        assert_eq!(said(&invivo_feed::digest(b"other")), Say::default());
    }
}
