//! An API server small enough to reason about: it keeps objects and versions, honours
//! preconditions, and can be told to fail. It has no memory of who called in which order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use kube::Client;
use kube::runtime::events::Recorder;
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::context::Context;
use crate::gate::GateSights;
use crate::metrics::Metrics;
use crate::observe::{Sights, Stores};
use crate::seen::Seen;
use crate::shown::Shown;
use crate::store::Store;
use crate::watch::heed;
use crate::wave::Waves;

#[derive(Default)]
struct Kept {
    objects: BTreeMap<String, Value>,
    version: u64,
    broken: Option<(&'static str, u16)>,
    losing: Option<&'static str>,
    changes: usize,
    events: Vec<Value>,
}

/// The API server.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<Kept>>);

const CRD: &str = "/apis/invivo.dev/v1alpha1";

impl Fake {
    /// Puts an object there, as somebody else would.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let mut kept = self.0.lock().unwrap();
        kept.version += 1;
        let name = path.rsplit('/').next().unwrap();
        object["metadata"]["name"] = json!(name);
        object["metadata"]["resourceVersion"] = json!(kept.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-of-{name}"));
        }
        kept.objects.insert(path.to_owned(), object);
    }

    /// An object as it is.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.0.lock().unwrap().objects.get(path).cloned().unwrap_or(Value::Null)
    }

    /// A NodePatch as it is.
    pub(crate) fn node_patch(&self, node: &str) -> Value {
        self.get(&format!("{CRD}/nodepatches/{node}"))
    }

    /// A policy as it is.
    pub(crate) fn policy(&self, name: &str) -> Value {
        self.get(&format!("{CRD}/patchpolicies/{name}"))
    }

    /// Somebody else writes the object, so that it has another version.
    pub(crate) fn touch(&self, path: &str) {
        let object = self.get(path);
        self.put(path, object);
    }

    /// Requests whose path contains `part` get a 500 and do nothing.
    pub(crate) fn break_down(&self, part: Option<&'static str>) {
        self.0.lock().unwrap().broken = part.map(|part| (part, 500));
    }

    /// Requests whose path contains `part` get this code and do nothing.
    pub(crate) fn refuse(&self, part: &'static str, code: u16) {
        self.0.lock().unwrap().broken = Some((part, code));
    }

    /// Writes to paths that contain `part` happen, but their answers get lost.
    pub(crate) fn lose_answers(&self, part: Option<&'static str>) {
        self.0.lock().unwrap().losing = part;
    }

    /// How many writes have changed something, Events aside.
    pub(crate) fn changes(&self) -> usize {
        self.0.lock().unwrap().changes
    }

    /// The Events about an object that were made: reason and note.
    pub(crate) fn events(&self, about: &str) -> Vec<(String, String)> {
        let kept = self.0.lock().unwrap();
        let about = kept.events.iter().filter(|event| event["regarding"]["name"] == about);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        about.map(|event| (text(&event["reason"]), text(&event["note"]))).collect()
    }

    fn each<T: Seen>(&self, plural: &str, store: &Store<T>)
    where
        T::Object: DeserializeOwned,
    {
        let events = {
            let kept = self.0.lock().unwrap();
            let of_kind = kept.objects.iter().filter(|(path, _)| path.rsplit('/').nth(1) == Some(plural));
            let told =
                of_kind.map(|(_, object)| Event::InitApply(serde_json::from_value(object.clone()).unwrap()));
            std::iter::once(Event::Init).chain(told).chain([Event::InitDone]).collect::<Vec<_>>()
        };
        for event in events {
            heed(store, event);
        }
    }

    /// An operator that has just started and read everything.
    pub(crate) fn operator(&self) -> Context {
        let router = Router::new().fallback(answer).with_state(self.clone());
        let client = Client::new(router, "default");
        let stores = Stores::default();
        stores.stop.set(false);
        self.refresh(&stores);
        Context {
            recorder: Recorder::new(client.clone(), "test".into()),
            reporter: "test".into(),
            client,
            stores: Arc::new(stores),
            sights: Arc::new(Sights::default()),
            gates: Arc::new(GateSights::default()),
            waves: Waves::default(),
            shown: Shown::default(),
            fleet: tokio::sync::Mutex::default(),
            recording: tokio::sync::Mutex::default(),
            metrics: Arc::new(Metrics::default()),
        }
    }

    /// The watches deliver everything.
    pub(crate) fn refresh(&self, stores: &Stores) {
        self.each("patchfeeds", &stores.feeds);
        self.each("patchpolicies", &stores.policies);
        self.each("patchsets", &stores.sets);
        self.each("nodepatches", &stores.patches);
        self.each("nodes", &stores.nodes);
    }
}

fn refusal(code: u16, reason: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": reason, "message": reason});
    (StatusCode::from_u16(code).unwrap(), status.to_string()).into_response()
}

/// The forms of a patch that the operator sends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Apply,
    Merge,
    Replace,
}

/// What a patch brings, as an object.
fn given(headers: &HeaderMap, body: &Bytes) -> (Value, Form) {
    let given: Value = serde_json::from_slice(body).unwrap();
    match headers["content-type"].to_str().unwrap() {
        "application/apply-patch+yaml" => (given, Form::Apply),
        "application/json-patch+json" => {
            let mut object = json!({"metadata": {}});
            for operation in given.as_array().unwrap() {
                assert_eq!(operation["op"], "replace");
                match operation["path"].as_str().unwrap() {
                    "/metadata/resourceVersion" => {
                        object["metadata"]["resourceVersion"] = operation["value"].clone();
                    }
                    "/spec" => object["spec"] = operation["value"].clone(),
                    other => panic!("replaces {other}"),
                }
            }
            (object, Form::Replace)
        }
        _ => (given, Form::Merge),
    }
}

async fn answer(
    State(fake): State<Fake>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut kept = fake.0.lock().unwrap();
    let path = uri.path();
    if let Some((_, code)) = kept.broken.filter(|(part, _)| path.contains(part)) {
        return refusal(code, "Broken");
    }
    if method == Method::POST {
        let event: Value = serde_json::from_slice(&body).unwrap();
        if kept.events.iter().any(|known| known["metadata"]["name"] == event["metadata"]["name"]) {
            return refusal(409, "AlreadyExists");
        }
        kept.events.push(event);
        return (StatusCode::CREATED, Body::from(body)).into_response();
    }
    let (path, status) = path.strip_suffix("/status").map_or((path, false), |path| (path, true));
    let present = kept.objects.get(path).cloned();
    if method == Method::GET {
        return present.map_or_else(|| refusal(404, "NotFound"), |object| object.to_string().into_response());
    }
    if method == Method::DELETE {
        let wanted: Value = serde_json::from_slice(&body).unwrap_or_default();
        let wanted = &wanted["preconditions"]["resourceVersion"];
        return match present {
            None => refusal(404, "NotFound"),
            Some(object) if !wanted.is_null() && object["metadata"]["resourceVersion"] != *wanted => {
                refusal(409, "Conflict")
            }
            Some(object) => {
                kept.objects.remove(path);
                kept.changes += 1;
                object.to_string().into_response()
            }
        };
    }
    let (given, form) = given(&headers, &body);
    let apply = form == Form::Apply;
    let differs = |field: &str| {
        let wanted = &given["metadata"][field];
        !wanted.is_null() && present.as_ref().is_none_or(|object| object["metadata"][field] != *wanted)
    };
    if differs("resourceVersion") || differs("uid") {
        return refusal(409, "Conflict");
    }
    if present.is_none() && (status || !apply) {
        return refusal(404, "NotFound");
    }
    let name = path.rsplit('/').next().unwrap();
    let mut object = present.clone().unwrap_or_else(|| {
        json!({"apiVersion": given["apiVersion"], "kind": given["kind"],
            "metadata": {"name": name, "uid": format!("uid-of-{name}"), "resourceVersion": "0"}})
    });
    if status && form == Form::Merge {
        for (field, value) in given["status"].as_object().unwrap() {
            object["status"][field] = value.clone();
        }
    } else if status {
        object["status"] = given["status"].clone();
    } else if form != Form::Merge {
        object["spec"] = given["spec"].clone();
        if let Some(owners) = given["metadata"].get("ownerReferences") {
            object["metadata"]["ownerReferences"] = owners.clone();
        }
    } else {
        for (label, value) in given["metadata"]["labels"].as_object().into_iter().flatten() {
            object["metadata"]["labels"][label] = value.clone();
        }
        if let Some(finalizers) = given["metadata"].get("finalizers") {
            object["metadata"]["finalizers"] = finalizers.clone();
        }
    }
    let (before, after) =
        (present.as_ref().map(|p| p["spec"]["revision"].as_i64()), object["spec"]["revision"].as_i64());
    if before.is_some_and(|before| before > after) {
        return refusal(422, "Invalid");
    }
    if present.as_ref() != Some(&object) {
        kept.version += 1;
        kept.changes += 1;
        object["metadata"]["resourceVersion"] = json!(kept.version.to_string());
        kept.objects.insert(path.to_owned(), object.clone());
    }
    let metadata = &object["metadata"];
    if !metadata["deletionTimestamp"].is_null() && metadata["finalizers"].as_array().is_none_or(Vec::is_empty)
    {
        kept.objects.remove(path);
    }
    if kept.losing.is_some_and(|part| uri.path().contains(part)) {
        return refusal(504, "Timeout");
    }
    object.to_string().into_response()
}
