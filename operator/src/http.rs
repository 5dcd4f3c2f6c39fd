//! `/livez`, `/readyz`, `/metrics` and `/plan/<policy>`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use prometheus_client::registry::Registry;

use crate::context::{Context, whole_seconds};
use crate::engine::Leave;
use crate::report::Report;

/// What the answers are made from.
#[derive(Clone)]
pub struct Served {
    /// What is known.
    pub context: Arc<Context>,
    /// What is counted.
    pub registry: Arc<Registry>,
    /// Whether this replica works.
    pub leave: Leave,
}

/// The routes.
pub fn router(served: Served) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/plan/{policy}", get(plan))
        .with_state(served)
}

async fn ready(State(served): State<Served>) -> Response {
    let mut troubles = Vec::new();
    for kind in served.context.stores.incomplete() {
        troubles.push(format!("{kind}: not read in full yet"));
    }
    if let crate::admission::Admission::NotInForce(why) = &*served.leave.admission.borrow() {
        troubles.push(format!("nothing is written: {why}"));
    }
    if troubles.is_empty() {
        let role = if *served.leave.leader.borrow() { "leader" } else { "standby" };
        return format!("ok: {role}\n").into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, troubles.join("\n") + "\n").into_response()
}

async fn metrics(State(served): State<Served>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &served.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn plan(State(served): State<Served>, Path(policy): Path<String>) -> Response {
    let context = &served.context;
    if !context.stores.incomplete().is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, "not everything has been read yet\n").into_response();
    }
    let now = whole_seconds(Timestamp::now());
    let Some(view) = crate::observe::view(&context.stores, &context.sights, &context.gates, &policy, now)
    else {
        return (StatusCode::NOT_FOUND, format!("there is no PatchPolicy {policy}\n")).into_response();
    };
    match serde_json::to_string_pretty(&Report::of(&context.stores, &view, now)) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
