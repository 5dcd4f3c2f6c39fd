//! To which policy a node belongs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::core::{Selector, SelectorExt};

/// A policy that may want nodes.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// The policy's name.
    pub name: String,
    /// Which of several that want a node has it.
    pub priority: i32,
    /// When it was made.
    pub created: Timestamp,
    /// Which nodes it wants; none if that cannot be read now. Such a policy takes no new node and
    /// loses none: a slip in a selector must not hand a fleet to another policy.
    pub selector: Option<Selector>,
}

/// The policy that has a node with these labels: of those of the highest priority that want it the
/// one that it is `bound` to, else the oldest, else the first by name.
pub fn claim<'a>(
    labels: &BTreeMap<String, String>,
    bound: Option<&str>,
    claimants: &'a [Claimant],
) -> Option<&'a Claimant> {
    let is_bound = |claimant: &Claimant| bound == Some(claimant.name.as_str());
    let wants = |claimant: &&Claimant| match &claimant.selector {
        Some(selector) => selector.matches(labels),
        None => is_bound(claimant),
    };
    let mut wanting: Vec<&Claimant> = claimants.iter().filter(wants).collect();
    wanting.sort_by(|a, b| {
        (b.priority.cmp(&a.priority))
            .then(is_bound(b).cmp(&is_bound(a)))
            .then(a.created.cmp(&b.created))
            .then_with(|| a.name.cmp(&b.name))
    });
    wanting.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimant(name: &str, created: i64, selector: Option<&str>) -> Claimant {
        Claimant {
            name: name.into(),
            priority: 0,
            created: Timestamp::from_second(created).unwrap(),
            selector: selector.map(|key| {
                if key.is_empty() {
                    Selector::default()
                } else {
                    kube::core::Expression::Exists(key.into()).into()
                }
            }),
        }
    }

    fn labels(keys: &[&str]) -> BTreeMap<String, String> {
        keys.iter().map(|key| ((*key).to_owned(), String::new())).collect()
    }

    fn name(claimant: Option<&Claimant>) -> Option<&str> {
        claimant.map(|c| c.name.as_str())
    }

    #[test]
    fn a_node_goes_to_the_older_policy_and_between_equals_by_name() {
        let policies =
            [claimant("young", 9, Some("")), claimant("b", 1, Some("")), claimant("a", 1, Some(""))];
        assert_eq!(name(claim(&labels(&[]), None, &policies)), Some("a"));
    }

    #[test]
    fn a_node_stays_where_it_is_while_that_policy_wants_it() {
        let policies = [claimant("old", 1, Some("")), claimant("young", 9, Some("gpu"))];
        assert_eq!(name(claim(&labels(&["gpu"]), Some("young"), &policies)), Some("young"));
        assert_eq!(name(claim(&labels(&[]), Some("young"), &policies)), Some("old"));
        assert_eq!(name(claim(&labels(&[]), Some("deleted"), &policies)), Some("old"));
    }

    #[test]
    fn a_higher_priority_takes_a_node_over_and_an_equal_one_does_not() {
        let mut policies = [claimant("old", 1, Some("")), claimant("young", 9, Some("gpu"))];
        policies[1].priority = 1;
        assert_eq!(name(claim(&labels(&["gpu"]), Some("old"), &policies)), Some("young"));
        assert_eq!(name(claim(&labels(&[]), Some("young"), &policies)), Some("old"));
        policies[0].priority = 1;
        for bound in ["old", "young"] {
            assert_eq!(name(claim(&labels(&["gpu"]), Some(bound), &policies)), Some(bound));
        }
    }

    #[test]
    fn a_policy_that_cannot_be_read_keeps_its_nodes_and_takes_no_other() {
        let policies = [claimant("broken", 1, None), claimant("other", 9, Some(""))];
        assert_eq!(name(claim(&labels(&[]), Some("broken"), &policies)), Some("broken"));
        assert_eq!(name(claim(&labels(&[]), None, &policies)), Some("other"));
    }

    #[test]
    fn a_node_that_no_policy_selects_belongs_to_none() {
        assert_eq!(name(claim(&labels(&[]), None, &[claimant("a", 1, Some("gpu"))])), None);
    }
}
