//! An API server that knows one NodePatch, one policy, feeds and sets; and a static patch server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use http::{Method, Request, Response, StatusCode};
use invivo_api::NodePatch;
use invivo_terms::Digest;
use kube::client::Body;
use serde_json::{Value, json};

use super::killed::{Reaper, Side};
use super::repository::Bundle;

struct World {
    object: Value,
    policy_feed: String,
    feeds: BTreeMap<String, Value>,
    sets: BTreeMap<String, Value>,
    writes: usize,
    reads: usize,
    fence_down: bool,
    fence_tries: usize,
    reaper: Reaper,
}

#[derive(Clone)]
pub(super) struct FakeApi(Arc<Mutex<World>>);

impl FakeApi {
    pub(super) fn new(root: &Digest, reaper: Reaper) -> Self {
        let object = json!({
            "apiVersion": "invivo.dev/v1alpha1", "kind": "NodePatch",
            "metadata": {"name": "node1", "uid": "uid-1", "resourceVersion": "1"},
            "spec": {"revision": 1, "hold": {}},
        });
        Self(Arc::new(Mutex::new(World {
            object,
            policy_feed: "production".to_owned(),
            feeds: BTreeMap::from([(
                "production".to_owned(),
                json!({
                    "source": {"repository": {"url": "http://elsewhere.example/"}},
                    "trust": {"rootSha256": root},
                }),
            )]),
            sets: BTreeMap::new(),
            writes: 0,
            reads: 0,
            fence_down: false,
            fence_tries: 0,
            reaper,
        })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    pub(super) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let dies = api.world().reaper.request();
                if dies == Some(Side::Before) {
                    std::future::pending::<()>().await;
                }
                let (status, answer) = api.answer(&head.method, head.uri.path(), &body);
                if dies == Some(Side::After) {
                    std::future::pending::<()>().await;
                }
                let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(answer).unwrap())
            }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let mut world = self.world();
        match (method, path.trim_start_matches("/apis/invivo.dev/v1alpha1/")) {
            (&Method::PATCH, "nodepatches/invivo-canary/status") => {
                world.fence_tries += 1;
                if world.fence_down {
                    (StatusCode::OK, world.object.clone())
                } else {
                    failure(403, "ValidatingAdmissionPolicy 'invivo-agent' denied request")
                }
            }
            (&Method::PATCH, "nodepatches/node1/status") => {
                let sent: Value = serde_json::from_slice(body).unwrap();
                assert_eq!(sent["metadata"]["uid"], "uid-1");
                world.object["status"] = sent["status"].clone();
                world.writes += 1;
                (StatusCode::OK, world.object.clone())
            }
            (&Method::GET, "patchpolicies/workers") => {
                world.reads += 1;
                let feed = world.policy_feed.clone();
                (
                    StatusCode::OK,
                    json!({
                        "apiVersion": "invivo.dev/v1alpha1", "kind": "PatchPolicy", "metadata": {"name": "workers"},
                        "spec": {"feed": feed},
                    }),
                )
            }
            (&Method::GET, other) => {
                let (plural, name) = other.split_once('/').unwrap_or_default();
                let found = match plural {
                    "patchfeeds" => world.feeds.get(name).map(|spec| {
                        json!({"apiVersion": "invivo.dev/v1alpha1", "kind": "PatchFeed",
                            "metadata": {"name": name}, "spec": spec})
                    }),
                    "patchsets" => world.sets.get(name).cloned(),
                    _ => None,
                };
                found.map_or_else(|| failure(404, &format!("no {other}")), |found| (StatusCode::OK, found))
            }
            (_, other) => failure(404, &format!("no {other}")),
        }
    }

    pub(super) fn object(&self) -> NodePatch {
        serde_json::from_value(self.world().object.clone()).unwrap()
    }

    pub(super) fn set_spec(&self, spec: Value) {
        self.world().object["spec"] = spec;
    }

    pub(super) fn policy_takes_from(&self, feed: &str) {
        feed.clone_into(&mut self.world().policy_feed);
    }

    /// A feed asks for something else, or for something at all.
    pub(super) fn feed(&self, name: &str, change: &Value) {
        let mut world = self.world();
        let spec = world.feeds.entry(name.to_owned()).or_insert_with(|| json!({}));
        for (key, value) in change.as_object().unwrap() {
            spec[key] = value.clone();
        }
    }

    /// What people decided about a set and what the operator wrote down.
    pub(super) fn set(&self, feed: &str, bundle: &Bundle, approvals: &Value, status: &Value) {
        let name = format!("{feed}.{}", bundle.set);
        let object = json!({
            "apiVersion": "invivo.dev/v1alpha1", "kind": "PatchSet", "metadata": {"name": name},
            "spec": {"feed": feed, "repository": "example", "set": bundle.set, "digest": bundle.set_digest,
                "approvals": approvals},
            "status": status,
        });
        self.world().sets.insert(name, object);
    }

    pub(super) fn fence_is_down(&self, down: bool) {
        let mut world = self.world();
        (world.fence_down, world.fence_tries) = (down, 0);
    }

    pub(super) fn fence_tries(&self) -> usize {
        self.world().fence_tries
    }

    pub(super) fn writes(&self) -> usize {
        self.world().writes
    }

    pub(super) fn reads(&self) -> usize {
        self.world().reads
    }
}

fn failure(code: u16, message: &str) -> (StatusCode, Value) {
    let reason = if code == 404 { "NotFound" } else { "Forbidden" };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
    });
    (StatusCode::from_u16(code).unwrap(), status)
}

/// Serves a repository's files as the mirror of the feed `production`; gives the address.
pub(super) async fn serve(tree: PathBuf) -> String {
    let files = move |axum::extract::Path(path): axum::extract::Path<String>| {
        let tree = tree.clone();
        async move { std::fs::read(tree.join(path)).map_err(|_| StatusCode::NOT_FOUND) }
    };
    let router = axum::Router::new().route("/feeds/production/{*path}", axum::routing::get(files));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}
