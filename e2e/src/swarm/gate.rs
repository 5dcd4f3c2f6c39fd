//! What a gate asks: it answers every query like a Prometheus, with nothing while all is well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use crate::network::HOST;

const PORT: u16 = 9091;

/// How it answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Manner {
    /// Nothing is wrong.
    #[default]
    Well,
    /// Something is wrong.
    Failing,
    /// It cannot tell.
    Down,
    /// After a minute.
    Slow,
    /// With words that no Prometheus has.
    Nonsense,
}

const MANNERS: [Manner; 5] = [Manner::Well, Manner::Failing, Manner::Down, Manner::Slow, Manner::Nonsense];

/// The server; it answers for as long as the runtime runs that it was started on.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(Arc<AtomicU8>);

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

    /// How it answers from now on.
    pub(super) fn set(&self, manner: Manner) {
        self.0.store(manner as u8, Ordering::Relaxed);
    }

    fn manner(&self) -> Manner {
        let now = self.0.load(Ordering::Relaxed);
        MANNERS.into_iter().find(|manner| *manner as u8 == now).unwrap_or_default()
    }
}

async fn answer(State(gate): State<Gate>) -> Response {
    let errors = || json!([{"metric": {"__name__": "errors", "service": "shop"}, "value": [0, "7"]}]);
    let series = match gate.manner() {
        Manner::Well => json!([]),
        Manner::Failing => errors(),
        Manner::Slow => {
            tokio::time::sleep(Duration::from_mins(1)).await;
            errors()
        }
        Manner::Down => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Manner::Nonsense => return "<html>this is not the page that you are looking for".into_response(),
    };
    let reply = json!({"status": "success", "data": {"resultType": "vector", "result": series}});
    ([(CONTENT_TYPE, "application/json")], reply.to_string()).into_response()
}
