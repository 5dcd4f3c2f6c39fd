//! The CRDs as YAML.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use crate::{NodePatch, PatchFeed, PatchPolicy, PatchSet};

/// Every kind with the name of its file.
pub fn all_kinds() -> Vec<(&'static str, CustomResourceDefinition)> {
    let mut kinds = vec![
        ("patchfeeds.yaml", PatchFeed::crd()),
        ("patchpolicies.yaml", PatchPolicy::crd()),
        ("patchsets.yaml", PatchSet::crd()),
        ("nodepatches.yaml", NodePatch::crd()),
    ];
    let versions = kinds.iter_mut().flat_map(|(_, crd)| &mut crd.spec.versions);
    let schemas = versions.filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut());
    schemas.for_each(bound);
    kinds
}

/// Says in a number what `uint32` says in a word that API servers do not know. They would take a
/// larger number, and no program could read the object.
fn bound(schema: &mut JSONSchemaProps) {
    if schema.format.as_deref() == Some("uint32") && schema.maximum.is_none() {
        schema.maximum = Some(f64::from(u32::MAX));
    }
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(bound);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        bound(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        bound(values);
    }
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

/// One kind as the chart `invivo-crds` has it: it stays when the release is uninstalled.
///
/// # Errors
///
/// See [`yaml`].
pub fn chart_yaml(mut crd: CustomResourceDefinition) -> Result<String, serde_json::Error> {
    let pair = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    crd.metadata.annotations = Some(pair("helm.sh/resource-policy", "keep"));
    crd.metadata.labels = Some(pair("app.kubernetes.io/part-of", "invivo"));
    yaml(&crd)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_committed_kinds_are_the_ones_these_types_give() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (file, crd) in all_kinds() {
            for (path, wanted) in [
                (here.join(file), yaml(&crd).unwrap()),
                (here.join("../charts/invivo-crds/templates").join(file), chart_yaml(crd.clone()).unwrap()),
            ] {
                let committed = std::fs::read_to_string(&path).unwrap();
                assert!(committed == wanted, "{} is stale: cargo run -p invivo-api", path.display());
            }
        }
    }

    #[test]
    fn nothing_in_a_kind_reads_as_a_template_of_helm() {
        for (file, crd) in all_kinds() {
            assert!(!yaml(&crd).unwrap().contains("{{"), "{file}");
        }
    }

    #[test]
    fn every_field_explains_itself() {
        fn walk(path: &str, schema: &serde_json::Value) {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                let here = format!("{path}.{name}");
                assert!(
                    property["description"].is_string() || here.ends_with(']'),
                    "{here} has no description"
                );
                walk(&here, property);
                walk(&format!("{here}[]"), &property["items"]);
            }
        }
        for (_, crd) in all_kinds() {
            let value = serde_json::to_value(&crd).unwrap();
            let schema = &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            for part in ["spec", "status"] {
                walk(&format!("{}.{part}", crd.spec.names.kind), &schema["properties"][part]);
            }
        }
    }
}
