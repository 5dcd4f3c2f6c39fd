//! The CRDs as YAML.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{NodePatch, PatchFeed, PatchPolicy, PatchSet};

/// Every kind with the name of its file.
pub fn all_kinds() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
        ("patchfeeds.yaml", PatchFeed::crd()),
        ("patchpolicies.yaml", PatchPolicy::crd()),
        ("patchsets.yaml", PatchSet::crd()),
        ("nodepatches.yaml", NodePatch::crd()),
    ]
}

/// One kind as it is committed.
///
/// # Errors
///
/// If the definition cannot be written as YAML, which a test rules out.
pub fn yaml(crd: &CustomResourceDefinition) -> Result<String, serde_json::Error> {
    let value = serde_json::to_value(crd)?;
    serde_saphyr::to_string(&value).map_err(serde::ser::Error::custom)
}
