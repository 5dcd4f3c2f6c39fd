//! What a gate asks: it answers every query like a Prometheus, with nothing while all is well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use crate::network::HOST;

const PORT: u16 = 9091;

/// The server; it answers for as long as the runtime runs that it was started on.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(Arc<AtomicBool>);

impl Gate {
    /// Starts it.
    ///
    /// # Errors
    /// When the port is taken.
    pub(super) async fn serve() -> anyhow::Result<Self> {
        let gate = Self::default();
        let listener =
            tokio::net::TcpListener::bind((HOST, PORT)).await.context("listen for the gate's questions")?;
        let router = Router::new().route("/api/v1/query", get(answer)).with_state(gate.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(gate)
    }

    /// What a policy is told to ask.
    pub(super) fn address() -> String {
        format!("http://{HOST}:{PORT}")
    }

    /// From now on something is wrong, or nothing any more.
    pub(super) fn fail(&self, failing: bool) {
        self.0.store(failing, Ordering::Relaxed);
    }
}

async fn answer(State(gate): State<Gate>) -> Response {
    let series = if gate.0.load(Ordering::Relaxed) {
        json!([{"metric": {"__name__": "errors", "service": "shop"}, "value": [0, "7"]}])
    } else {
        json!([])
    };
    let reply = json!({"status": "success", "data": {"resultType": "vector", "result": series}});
    ([(CONTENT_TYPE, "application/json")], reply.to_string()).into_response()
}
