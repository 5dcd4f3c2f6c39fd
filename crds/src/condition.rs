//! Conditions in kstatus' polarity: `Ready` is good news, `Reconciling` and `Stalled` are not yet and not.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The condition types that every kind uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionType {
    /// The object is what its spec asks for.
    Ready,
    /// Work towards it is under way.
    Reconciling,
    /// It will not get there without a person.
    Stalled,
    /// A PatchSet may be rolled out.
    Eligible,
    /// There is evidence of several nodes against a PatchSet.
    Quarantined,
}

impl ConditionType {
    /// The name as it stands in `status.conditions[].type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Eligible => "Eligible",
            Self::Quarantined => "Quarantined",
        }
    }
}

/// One condition as of `now`; `message` is cut to 1,024 characters.
pub fn condition(
    kind: ConditionType,
    status: bool,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Time,
) -> Condition {
    Condition {
        type_: kind.as_str().to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.chars().take(1024).collect(),
        observed_generation: generation,
        last_transition_time: now,
    }
}

/// Takes over `new`, keeping the transition time of every condition whose status did not change.
pub fn set_conditions(old: &[Condition], new: Vec<Condition>) -> Vec<Condition> {
    new.into_iter()
        .map(|mut condition| {
            if let Some(before) =
                old.iter().find(|o| o.type_ == condition.type_ && o.status == condition.status)
            {
                condition.last_transition_time = before.last_transition_time.clone();
            }
            condition
        })
        .collect()
}
