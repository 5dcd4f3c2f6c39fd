//! A node with so many labels as an API server takes.

use invivo_api::PatchPolicySpec;
use invivo_operator::seen::{Seen, SeenNode};
use invivo_operator::validate::Checked;
use kube::core::SelectorExt;
use serde_json::json;

#[test]
fn among_ten_thousand_labels_the_selectors_find_the_one_that_they_ask_for() {
    let mut labels: serde_json::Map<_, _> =
        (0..10_000).map(|number| (format!("example.com/label-{number}"), json!("x"))).collect();
    labels.insert("team".to_owned(), json!("a"));
    labels.insert("canary".to_owned(), json!("true"));
    let node =
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a", "uid": "u", "labels": labels}});
    let seen = SeenNode::see(serde_json::from_value(node).unwrap());
    assert_eq!(seen.labels.len(), 10_002, "all are kept: people's selectors may ask for any");
    let spec: PatchPolicySpec = serde_json::from_value(json!({
        "feed": "production",
        "nodeSelector": {"matchLabels": {"team": "a"}},
        "rollout": {"stages": [
            {"name": "other", "nodeSelector": {"matchLabels": {"example.com/label-7": "y"}}},
            {"name": "canary", "nodeSelector": {"matchLabels": {"canary": "true"}}},
        ]},
    }))
    .unwrap();
    let checked = Checked::of(&spec).unwrap();
    assert!(checked.selector.matches(&seen.labels));
    assert_eq!(checked.stage_name(checked.stage_of(&seen.labels)), "canary");
}
