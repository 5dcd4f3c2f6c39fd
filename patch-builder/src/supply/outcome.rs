//! What became of each change of a release.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::candidate::How;
use crate::refusal::Gate;

/// What became of one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "verdict")]
pub enum Verdict {
    /// A module.
    Made {
        /// The module's name.
        module: String,
        /// The objects and functions that it replaces.
        replaced: Vec<String>,
        /// A whole file had to be taken, not the functions alone.
        whole: bool,
        /// What differs in these files and was left out: functions that a gate refuses and that belong to other
        /// changes, and what is removed outside of functions.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        left: Vec<String>,
        /// Files beside those of the fix that it does not compile without: a neighbour's change came with it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        beside: Vec<String>,
        /// It stays in memory when it was taken off, since the address of its code is stored.
        #[serde(default)]
        stays: bool,
        /// What the boot test saw: "ok", or what was wrong; none if there was no boot test.
        boot: Option<String>,
    },
    /// It is not in this kernel build.
    NotAffected {
        /// Why.
        why: String,
    },
    /// A gate refused.
    Refused {
        /// The gate.
        gate: String,
        /// What it found.
        what: String,
    },
    /// A person must say where the change is.
    NeedsPerson {
        /// What is unclear.
        why: String,
    },
}

impl Verdict {
    /// Whether `gate` refused.
    pub(super) fn is_refused_by(&self, gate: Gate) -> bool {
        matches!(self, Self::Refused { gate: by, .. } if *by == gate.to_string())
    }
}

/// One line of the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The flaws.
    pub cves: Vec<String>,
    /// The change's title.
    pub title: String,
    /// The version that has it.
    pub version: String,
    /// How its place was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub how: Option<How>,
    /// The files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// The titles of other changes that close the same flaws: this one is a part of the fix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// What became of it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Milliseconds that it took to make or refuse, without the boot test.
    pub ms: u64,
}

impl Outcome {
    /// Whether it counts among those that touch the kernel build.
    pub fn affects(&self) -> bool {
        !matches!(self.verdict, Verdict::NotAffected { .. })
    }
}

/// A verdict in a few words.
pub fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Made { replaced, whole, left, beside, stays, boot, .. } => {
            let whole = if *whole { ", the whole file" } else { "" };
            let left = if left.is_empty() { String::new() } else { format!(", without {}", left.join(", ")) };
            let beside =
                if beside.is_empty() { String::new() } else { format!(", with {}", beside.join(", ")) };
            let stays = if *stays { ", never unloaded" } else { "" };
            let boot = boot.as_ref().map_or_else(String::new, |boot| format!(", boot test: {boot}"));
            format!("made: {}{whole}{left}{beside}{stays}{boot}", replaced.join(", "))
        }
        Verdict::NotAffected { why } => format!("not affected: {why}"),
        Verdict::Refused { gate, what } => format!("refused: {gate}: {what}"),
        Verdict::NeedsPerson { why } => format!("needs a person: {why}"),
    }
}

/// How many of those that touch the kernel build came to which end, by a word for it.
pub fn count(outcomes: &[Outcome]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for outcome in outcomes {
        let key = match &outcome.verdict {
            Verdict::Made { boot: None, .. } => "made".to_owned(),
            Verdict::Made { boot: Some(boot), .. } if boot == "ok" => "made and boot-tested".to_owned(),
            Verdict::Made { .. } => "made, boot test failed".to_owned(),
            Verdict::NotAffected { .. } => "not affected".to_owned(),
            Verdict::Refused { gate, .. } => format!("refused by {gate}"),
            Verdict::NeedsPerson { .. } => "needs a person".to_owned(),
        };
        *counts.entry(key).or_default() += 1;
    }
    counts
}
