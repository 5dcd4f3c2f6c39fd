//! Whether the admission policies that fence the operator in hold. While they do not, it writes
//! nothing: with them a stolen operator can do little, without them much.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::observe::Stores;
use crate::queue::jittered;
use crate::write::MANAGER;

/// The policy whose refusal is tried.
pub const NODES_POLICY: &str = "invivo-operator-nodes";

/// The label that must be refused.
const DENIED_LABEL: &str = "invivo.dev/canary-denial";

/// How often it is tried again once it holds.
const EVERY: Duration = Duration::from_hours(1);
/// How soon a first Node is looked for again.
const NODE_RETRY: Duration = Duration::from_millis(200);
/// How often while it does not.
const RETRY: Duration = Duration::from_secs(5);

/// Whether the policies hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// They do.
    InForce,
    /// They do not, or nobody knows; why, and what to do.
    NotInForce(String),
}

impl Admission {
    /// Whether they hold.
    pub const fn in_force(&self) -> bool {
        match self {
            Self::InForce => true,
            Self::NotInForce(_) => false,
        }
    }
}

/// Checks for ever, and says so through `say`.
pub async fn keep_checking(
    client: Client,
    stores: Arc<Stores>,
    policies: Vec<String>,
    metrics: Arc<Metrics>,
    say: watch::Sender<Admission>,
) {
    loop {
        if !stores.nodes.is_complete() {
            tokio::time::sleep(NODE_RETRY).await;
            continue;
        }
        let node = stores.nodes.all().into_iter().next();
        let (found, wait) = match node {
            None => (
                Admission::NotInForce("there is no Node to try the admission policies on".to_owned()),
                NODE_RETRY,
            ),
            Some(node) => match check(&client, &node.name, &policies).await {
                Admission::InForce => (Admission::InForce, EVERY),
                Admission::NotInForce(why) => (Admission::NotInForce(why), RETRY),
            },
        };
        metrics.admission(found.in_force());
        let changed = say.send_if_modified(|before| {
            let changed = *before != found;
            *before = found.clone();
            changed
        });
        match &found {
            Admission::InForce if changed => tracing::info!("admission policies are in force"),
            Admission::NotInForce(why) if changed => tracing::error!(why, "nothing is written"),
            Admission::InForce | Admission::NotInForce(_) => {}
        }
        tokio::time::sleep(jittered(wait)).await;
    }
}

/// Tries whether `node` can be given a label that nobody may give it, and reads the policies back.
pub async fn check(client: &Client, node: &str, policies: &[String]) -> Admission {
    for name in policies {
        if let Err(why) = read_back(client, name).await {
            return Admission::NotInForce(why);
        }
    }
    let nodes: Api<Node> = Api::all(client.clone());
    let params =
        PatchParams { dry_run: true, field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let body = json!({"metadata": {"labels": {DENIED_LABEL: "x"}}});
    match nodes.patch(node, &params, &Patch::Merge(&body)).await {
        Ok(_) => Admission::NotInForce(format!(
            "the label {DENIED_LABEL} would be accepted on a Node: install the chart's admission policies"
        )),
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains(NODES_POLICY) => {
            Admission::InForce
        }
        Err(error) => Admission::NotInForce(format!(
            "the label {DENIED_LABEL} was refused, but not by {NODES_POLICY}: {error}"
        )),
    }
}

async fn read_back(client: &Client, name: &str) -> Result<(), String> {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let policy = policies.get(name).await.map_err(|error| {
        format!("ValidatingAdmissionPolicy {name}: {error}: install the chart's admission policies")
    })?;
    let binding = bindings.get(name).await.map_err(|error| {
        format!("ValidatingAdmissionPolicyBinding {name}: {error}: install the chart's admission policies")
    })?;
    judge(name, &policy, &binding)
}

/// What would open a policy silently.
fn judge(
    name: &str,
    policy: &ValidatingAdmissionPolicy,
    binding: &ValidatingAdmissionPolicyBinding,
) -> Result<(), String> {
    let loosened =
        |what: &str| Err(format!("ValidatingAdmissionPolicy {name}: {what}: install the chart again"));
    let Some(spec) = &policy.spec else { return loosened("it has no spec") };
    if spec.failure_policy.as_deref().is_some_and(|policy| policy != "Fail") {
        return loosened("its failurePolicy is not Fail");
    }
    if spec.validations.as_ref().is_none_or(Vec::is_empty) {
        return loosened("it has no validations");
    }
    let narrowed = |selector: Option<&LabelSelector>| {
        selector.is_some_and(|selector| *selector != LabelSelector::default())
    };
    if spec.match_constraints.as_ref().is_some_and(|match_| narrowed(match_.object_selector.as_ref())) {
        return loosened("its objectSelector leaves objects out");
    }
    let Some(binding) = &binding.spec else { return loosened("its binding has no spec") };
    if binding.policy_name.as_deref() != Some(name) {
        return loosened("its binding names another policy");
    }
    if !binding.validation_actions.iter().flatten().any(|action| action == "Deny") {
        return loosened("its binding does not deny");
    }
    if binding.match_resources.as_ref().is_some_and(|match_| narrowed(match_.object_selector.as_ref())) {
        return loosened("its binding's objectSelector leaves objects out");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn judged(change: impl Fn(&mut Value, &mut Value)) -> Result<(), String> {
        let mut policy = json!({"metadata": {"name": "p"}, "spec": {"failurePolicy": "Fail",
            "validations": [{"expression": "false"}]}});
        let mut binding = json!({"metadata": {"name": "p"}, "spec": {"policyName": "p",
            "validationActions": ["Deny", "Audit"]}});
        change(&mut policy, &mut binding);
        judge("p", &serde_json::from_value(policy).unwrap(), &serde_json::from_value(binding).unwrap())
    }

    #[test]
    fn what_the_chart_installs_is_in_force() {
        assert_eq!(judged(|_, _| {}), Ok(()));
    }

    #[test]
    fn every_way_of_loosening_is_seen() {
        assert!(judged(|_, b| b["spec"]["validationActions"] = json!(["Warn"])).is_err());
        assert!(judged(|_, b| b["spec"]["policyName"] = json!("other")).is_err());
        assert!(
            judged(
                |_, b| b["spec"]["matchResources"] = json!({"objectSelector": {"matchLabels": {"a": "b"}}})
            )
            .is_err()
        );
        assert!(judged(|p, _| p["spec"]["failurePolicy"] = json!("Ignore")).is_err());
        assert!(judged(|p, _| p["spec"]["validations"] = json!([])).is_err());
        assert!(
            judged(
                |p, _| p["spec"]["matchConstraints"] = json!({"objectSelector": {"matchLabels": {"a": "b"}}})
            )
            .is_err()
        );
    }
}
