//! Every rule of the schemas, with an object that it lets pass and one that it refuses.
//!
//! `tests/rules/<Kind>.yaml` holds the table: a whole object, and per rule what is changed in it
//! (a JSON merge patch) to make it right or wrong, and what the refusal must say.

use invivo_api::{NodePatch, PatchFeed, PatchPolicy, PatchSet};
use serde::Deserialize;
use serde_json::Value;

use crate::server::{ApiServer, send};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Where the kind is served.
    plural: String,
    /// An object to change.
    base: Value,
    rules: Vec<RuleCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleCase {
    rule: String,
    /// For rules about a change: what was there before.
    #[serde(default)]
    before: Option<Value>,
    /// Written through `/status`.
    #[serde(default)]
    status: bool,
    right: Value,
    wrong: Value,
    /// What the refusal must contain.
    says: Vec<String>,
}

fn table(kind: &str) -> Table {
    let path = format!("{}/tests/rules/{kind}.yaml", env!("CARGO_MANIFEST_DIR"));
    serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap())
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// JSON merge patch (RFC 7386).
fn merge(base: &Value, patch: &Value) -> Value {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            let mut merged = base.clone();
            for (key, value) in patch {
                if value.is_null() {
                    merged.remove(key);
                } else {
                    let old = merged.get(key).cloned().unwrap_or(Value::Null);
                    merged.insert(key.clone(), merge(&old, value));
                }
            }
            Value::Object(merged)
        }
        (_, Value::Object(_)) => merge(&Value::Object(serde_json::Map::new()), patch),
        (_, other) => other.clone(),
    }
}

/// Creates `object`, or, over `before`, replaces it or its status. Leaves nothing behind.
async fn try_object(
    server: &ApiServer,
    path: &str,
    before: Option<&Value>,
    status: bool,
    object: &Value,
) -> (u16, String) {
    let admin = server.client(&[]);
    let json = "application/json";
    let mut object = object.clone();
    let name = before.unwrap_or(&object)["metadata"]["name"].as_str().unwrap().to_owned();
    let one = format!("{path}/{name}");
    let answer = if let Some(before) = before {
        let made = send(&admin, "POST", path, Some(before), json).await;
        assert_eq!(made.code, 200, "the object before: {}", made.text);
        object["metadata"]["resourceVersion"] = made.json()["metadata"]["resourceVersion"].clone();
        let target = if status { format!("{one}/status") } else { one.clone() };
        send(&admin, "PUT", &target, Some(&object), json).await
    } else {
        send(&admin, "POST", path, Some(&object), json).await
    };
    send(&admin, "DELETE", &one, None, "").await;
    (answer.code, answer.text)
}

#[tokio::test]
async fn every_rule_lets_the_right_object_pass_and_names_what_is_wrong_in_the_other() {
    let server = ApiServer::with_kinds().await;
    let mut unexpected = Vec::new();
    for kind in ["PatchFeed", "PatchPolicy", "PatchSet", "NodePatch"] {
        let table = table(kind);
        let path = format!("/apis/invivo.dev/v1alpha1/{}", table.plural);
        for case in &table.rules {
            let before = case.before.as_ref().map(|before| merge(&table.base, before));
            let before = before.or_else(|| case.status.then(|| table.base.clone()));
            let of = |change: &Value| merge(before.as_ref().unwrap_or(&table.base), change);
            let (code, text) =
                try_object(&server, &path, before.as_ref(), case.status, &of(&case.right)).await;
            if code != 200 {
                unexpected
                    .push(format!("{kind}, {}: the right object was refused: {code} {text}", case.rule));
            }
            let (code, text) =
                try_object(&server, &path, before.as_ref(), case.status, &of(&case.wrong)).await;
            if code != 422 || !case.says.iter().all(|part| text.contains(part.as_str())) {
                unexpected.push(format!("{kind}, {}: the wrong object: {code} {text}", case.rule));
            }
        }
    }
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
}

#[test]
fn every_rule_of_the_schemas_has_a_case() {
    for (kind, crd) in ["PatchFeed", "PatchPolicy", "PatchSet", "NodePatch"].into_iter().map(|kind| {
        (kind, invivo_api::all_kinds().into_iter().find(|(_, crd)| crd.spec.names.kind == kind).unwrap().1)
    }) {
        let cases = table(kind).rules;
        for (path, message) in messages(&serde_json::to_value(&crd).unwrap()) {
            // As `[0]` in what the API server says; a rule about the whole object has no path.
            let of_this_field = |said: &String| path.is_empty() || without_indices(said) == path;
            assert!(
                cases.iter().any(|case| case.says.contains(&message) && case.says.iter().any(of_this_field)),
                "no case in tests/rules/{kind}.yaml expects {message:?} of {path:?}"
            );
        }
    }
}

/// Every rule of a definition: where it stands, as `spec.rollout.stages[]`, and its message.
pub fn messages(crd: &Value) -> Vec<(String, String)> {
    fn collect(path: &str, schema: &Value, into: &mut Vec<(String, String)>) {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            into.push((
                path.to_owned(),
                rule["message"].as_str().expect("every rule has a message").to_owned(),
            ));
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let dot = if path.is_empty() { "" } else { "." };
            collect(&format!("{path}{dot}{name}"), property, into);
        }
        for inner in [schema.get("items"), schema.get("additionalProperties")].into_iter().flatten() {
            collect(&format!("{path}[]"), inner, into);
        }
    }
    let mut found = Vec::new();
    collect("", &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut found);
    found
}

/// `a[0].b` as `a[].b`.
fn without_indices(field: &str) -> String {
    let mut parts = field.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |path, part| format!("{path}[]{}", part.split_once(']').map_or("", |(_, rest)| rest)))
}

#[test]
fn what_the_schemas_accept_the_program_reads() {
    fn read<T: serde::de::DeserializeOwned>(kind: &str) {
        let table = table(kind);
        for case in &table.rules {
            let before = case.before.as_ref().map_or_else(|| table.base.clone(), |b| merge(&table.base, b));
            let object = merge(&before, &case.right);
            if let Err(error) = serde_json::from_value::<T>(object) {
                panic!("{kind}, {}: {error}", case.rule);
            }
        }
    }
    read::<PatchFeed>("PatchFeed");
    read::<PatchPolicy>("PatchPolicy");
    read::<PatchSet>("PatchSet");
    read::<NodePatch>("NodePatch");
}
