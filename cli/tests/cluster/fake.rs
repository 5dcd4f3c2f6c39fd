//! An API server small enough to reason about, on loopback: it keeps objects, honours uids and
//! field managers, and knows callers by their tokens. It has no memory of who called in which order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Where Invivo's kinds are.
pub(crate) const CRD: &str = "/apis/invivo.dev/v1alpha1";
const REVIEW: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

#[derive(Default)]
struct Kept {
    objects: BTreeMap<String, Value>,
    /// Which users' approvals each field manager of a set owns.
    owned: BTreeMap<(String, String), Vec<String>>,
    forbidden: Vec<(String, &'static str)>,
    managers: Vec<String>,
}

/// The API server.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<Kept>>);

/// How the program ended.
pub(crate) struct Answer {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}{}", self.out, self.err))
    }
}

impl Fake {
    /// Puts an object there.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let name = path.rsplit('/').next().unwrap();
        if let Some(metadata) = object.get_mut("metadata") {
            metadata["name"] = json!(name);
            metadata["uid"] = json!(format!("uid-of-{name}"));
        }
        self.0.lock().unwrap().objects.insert(path.to_owned(), object);
    }

    /// An object as it is.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.0.lock().unwrap().objects.get(path).cloned().unwrap_or(Value::Null)
    }

    /// Requests of this user whose path contains `part` get a 403.
    pub(crate) fn forbid(&self, user: &str, part: &'static str) {
        self.0.lock().unwrap().forbidden.push((user.to_owned(), part));
    }

    /// The field managers of all writes.
    pub(crate) fn managers(&self) -> Vec<String> {
        self.0.lock().unwrap().managers.clone()
    }

    /// Listens on loopback until the test ends.
    pub(crate) fn serve(&self) -> SocketAddr {
        let (send, receive) = std::sync::mpsc::channel();
        let router = Router::new().fallback(answer).with_state(self.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                send.send(listener.local_addr().unwrap()).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        receive.recv().unwrap()
    }
}

/// The program as `user` runs it.
pub(crate) fn invivo(folder: &Path, server: SocketAddr, user: &str, line: &[&str]) -> Answer {
    let config = folder.join(format!("{user}.json"));
    let content = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{server}")}}],
        "users": [{"name": "u", "user": {"token": user}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    });
    std::fs::write(&config, content.to_string()).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_invivo")).env("KUBECONFIG", &config).args(line).output().unwrap();
    Answer {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn refusal(code: u16, reason: &str, name: &str) -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": reason, "message": format!("{name}: {reason}"), "details": {"name": name}});
    (StatusCode::from_u16(code).unwrap(), status.to_string()).into_response()
}

/// RFC 7396.
fn merge(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut into[key], value);
        }
    }
}

/// Server-side apply, as far as approvals go: what a manager does not repeat is taken away.
fn apply(kept: &mut Kept, path: &str, manager: &str, object: &mut Value, given: &Value) {
    let list = |value: &Value| value["spec"]["approvals"].as_array().cloned().unwrap_or_default();
    let user = |entry: &Value| entry["user"].as_str().unwrap().to_owned();
    let new = list(given);
    let owned = kept.owned.insert((path.to_owned(), manager.to_owned()), new.iter().map(user).collect());
    let gone = owned.unwrap_or_default();
    let mut all = list(object);
    all.retain(|entry| !gone.contains(&user(entry)) && !new.iter().any(|n| user(n) == user(entry)));
    all.extend(new);
    object["spec"]["approvals"] = json!(all);
}

async fn answer(
    State(fake): State<Fake>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut kept = fake.0.lock().unwrap();
    let path = uri.path().to_owned();
    let name = path.rsplit('/').next().unwrap().to_owned();
    let token = headers[header::AUTHORIZATION].to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
    if kept.forbidden.iter().any(|(user, part)| *user == token && path.contains(part)) {
        return refusal(403, "Forbidden", &name);
    }
    let query = uri.query().unwrap_or_default().to_owned();
    let parameter = |key: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(name, _)| *name == key).map(|(_, value)| value.replace("%40", "@")).next()
    };
    let dry = parameter("dryRun").is_some();
    if method != Method::GET && path != REVIEW {
        kept.managers.extend(parameter("fieldManager"));
    }
    let given: Value = serde_json::from_slice(&body).unwrap_or_default();
    if path == REVIEW {
        let mut review = given;
        review["status"] = json!({"userInfo": {"username": token}});
        return (StatusCode::CREATED, review.to_string()).into_response();
    }
    let present = kept.objects.get(&path).cloned();
    if method == Method::GET {
        if let Some(object) = present {
            return object.to_string().into_response();
        }
        let items: Vec<_> = kept
            .objects
            .iter()
            .filter(|(other, _)| other.rsplit_once('/').is_some_and(|(parent, _)| parent == path))
            .map(|(_, object)| object.clone())
            .collect();
        return if items.is_empty() {
            refusal(404, "NotFound", &name)
        } else {
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})
                .to_string()
                .into_response()
        };
    }
    if method == Method::POST {
        let path = format!("{path}/{}", given["metadata"]["name"].as_str().unwrap());
        drop(kept);
        if !dry {
            fake.put(&path, given.clone());
        }
        return (StatusCode::CREATED, given.to_string()).into_response();
    }
    let Some(mut object) = present else { return refusal(404, "NotFound", &name) };
    let uid = match method {
        Method::DELETE => &given["preconditions"]["uid"],
        _ => &given["metadata"]["uid"],
    };
    assert_eq!(*uid, object["metadata"]["uid"], "every write names the very object");
    if method == Method::DELETE {
        if !dry {
            kept.objects.remove(&path);
        }
        return json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})
            .to_string()
            .into_response();
    }
    match headers[header::CONTENT_TYPE].to_str().unwrap() {
        "application/apply-patch+yaml" => {
            let manager = parameter("fieldManager").unwrap();
            apply(&mut kept, &path, &manager, &mut object, &given);
        }
        "application/merge-patch+json" => merge(&mut object, &given),
        other => panic!("{other}"),
    }
    if !dry {
        kept.objects.insert(path, object.clone());
    }
    object.to_string().into_response()
}
