//! Every constraint of every field, with an object that breaks it and what a user is told.
//!
//! `tests/samples/<Kind>.yaml` has objects that keep all of them and together have a value in every
//! field; [`breaches`] breaks one constraint after another in them.

use invivo_api::{NodePatch, PatchFeed, PatchPolicy, PatchSet};
use serde_json::{Value, json};

use crate::breach::{Breach, breaches};
use crate::rules::messages;
use crate::server::{Answer, ApiServer, send};

const JSON: &str = "application/json";

fn samples(kind: &str) -> Vec<Value> {
    let path = format!("{}/tests/samples/{kind}.yaml", env!("CARGO_MANIFEST_DIR"));
    serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap())
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What is wrong with the answer to a breach.
fn unexpected(breach: &Breach, answer: &Answer, rules: &[String]) -> Option<String> {
    // What follows from it: rules that read the field too, or that were not asked.
    let follows = |message: &str| {
        message.contains("some validation rules were not checked")
            || rules.iter().any(|rule| message.contains(rule.as_str()))
    };
    let causes: Vec<_> = answer.causes.iter().filter(|(_, message)| !follows(message)).collect();
    let told = causes.iter().any(|(_, message)| message.contains(&breach.says));
    let alone = causes.iter().all(|(field, _)| *field == breach.field);
    let fits = answer.code == 422 && told && alone;
    (!fits).then(|| {
        let text: String = answer.text.chars().take(400).collect();
        format!(
            "{}: wanted {} at {}, got {} {:?} {text}",
            breach.constraint, breach.says, breach.field, answer.code, causes
        )
    })
}

#[tokio::test]
async fn every_constraint_of_every_field_refuses_an_object_and_says_where_and_why() {
    let server = ApiServer::with_kinds().await;
    let admin = server.client(&[]);
    let mut wrong = Vec::new();
    for (_, crd) in invivo_api::all_kinds() {
        let kind = &crd.spec.names.kind;
        let schema = serde_json::to_value(&crd).unwrap();
        let rules: Vec<String> = messages(&schema).into_iter().map(|(_, message)| message).collect();
        let schema = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let samples = samples(kind);
        let path = format!("/apis/invivo.dev/v1alpha1/{}", crd.spec.names.plural);
        let dry = format!("{path}?dryRun=All");
        let (of_status, of_spec): (Vec<_>, Vec<_>) = breaches(schema, &samples)
            .into_iter()
            .partition(|breach| breach.field == "status" || breach.field.starts_with("status."));
        for breach in &of_spec {
            let answer = send(&admin, "POST", &dry, Some(&breach.object), JSON).await;
            wrong.extend(unexpected(breach, &answer, &rules).map(|what| format!("{kind}{what}")));
        }
        let mut versions = std::collections::BTreeMap::new();
        for sample in &samples {
            let name = sample["metadata"]["name"].as_str().unwrap();
            let made = send(&admin, "POST", &path, Some(sample), JSON).await;
            assert_eq!(made.code, 200, "{kind} {name}: {}", made.text);
            versions.insert(name.to_owned(), made.json()["metadata"]["resourceVersion"].clone());
        }
        let report = async |object: &Value| {
            let name = object["metadata"]["name"].as_str().unwrap();
            let mut object = object.clone();
            object["metadata"]["resourceVersion"] = versions[name].clone();
            send(&admin, "PUT", &format!("{path}/{name}/status?dryRun=All"), Some(&object), JSON).await
        };
        for sample in samples.iter().filter(|sample| !sample["status"].is_null()) {
            let answer = report(sample).await;
            assert_eq!(answer.code, 200, "{kind}, the status of the sample: {}", answer.text);
            assert_eq!(
                answer.json()["status"],
                sample["status"],
                "{kind}: the status as the API server keeps it"
            );
        }
        for breach in &of_status {
            let answer = report(&breach.object).await;
            wrong.extend(unexpected(breach, &answer, &rules).map(|what| format!("{kind}{what}")));
        }
    }
    assert!(wrong.is_empty(), "{} constraints:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_program_reads_and_writes_every_field_of_the_samples() {
    fn check<T: serde::de::DeserializeOwned + serde::Serialize>(kind: &str) {
        for sample in samples(kind) {
            let read: T =
                serde_json::from_value(sample.clone()).unwrap_or_else(|error| panic!("{kind}: {error}"));
            assert_has(kind, &serde_json::to_value(&read).unwrap(), &sample);
        }
    }
    check::<PatchFeed>("PatchFeed");
    check::<PatchPolicy>("PatchPolicy");
    check::<PatchSet>("PatchSet");
    check::<NodePatch>("NodePatch");
}

/// `written` has what `sample` has; defaults may stand beside it or be left out.
fn assert_has(path: &str, written: &Value, sample: &Value) {
    match (written, sample) {
        (Value::Object(written), Value::Object(sample)) => {
            for (key, value) in sample {
                let there = written.get(key).unwrap_or(&Value::Null);
                if *there != Value::Null || !is_default(value) {
                    assert_has(&format!("{path}.{key}"), there, value);
                }
            }
        }
        (Value::Array(written), Value::Array(sample)) if written.len() == sample.len() => {
            for (index, (written, sample)) in written.iter().zip(sample).enumerate() {
                assert_has(&format!("{path}[{index}]"), written, sample);
            }
        }
        _ => assert_eq!(written, sample, "{path}"),
    }
}

fn is_default(value: &Value) -> bool {
    *value == json!(false) || *value == json!(0)
}
