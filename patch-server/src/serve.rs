//! The web server: GET and HEAD of verified files and of each feed's state, nothing else.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
    IF_NONE_MATCH, IF_RANGE, RANGE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::stream;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::MirrorPath;
use crate::library::{Library, Served};
use crate::metrics::Metrics;
use crate::range::{Part, part};
use crate::stock::{Content, Entry};

/// Bytes read from disk at once.
const CHUNK: u64 = 256 << 10;
/// Seconds after which a reader of what is not there yet may ask again.
const RETRY: &str = "5";

/// What is served of all feeds.
pub fn router(library: Library, metrics: Metrics) -> Router {
    Router::new().fallback(answer).with_state((library, metrics))
}

async fn answer(
    State((library, metrics)): State<(Library, Metrics)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let response = respond(&library, &method, uri.path(), &headers).await;
    let sent = if method == Method::HEAD { 0 } else { declared(&response) };
    metrics.answered(response.status().as_u16(), sent);
    response
}

fn declared(response: &Response) -> u64 {
    response
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

async fn respond(library: &Library, method: &Method, path: &str, headers: &HeaderMap) -> Response {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let asked = path.strip_prefix("/feeds/").and_then(|rest| rest.split_once('/'));
    let Some((feed, file)) = asked else {
        return text(StatusCode::NOT_FOUND, "ask for /feeds/<feed>/<file> or /feeds/<feed>/state");
    };
    let Some(served) = library.feed(feed) else { return text(StatusCode::NOT_FOUND, "no such feed") };
    if file == "state" {
        return state(&served, headers);
    }
    let Ok(path) = file.parse::<MirrorPath>() else {
        return text(StatusCode::NOT_FOUND, "not a file of a repository");
    };
    let Some(stock) = &served.stock else {
        // Not 404: that would say that the repository does not have the file.
        let why = served.state.as_ref().map_or("no attempt has ended yet", |s| s.reason.as_str());
        return later(&format!("nothing of this feed is verified: {why}"));
    };
    match stock.get(&path) {
        Some(entry) => file_response(&path, entry, method, headers).await,
        None => text(StatusCode::NOT_FOUND, "the repository does not have this file"),
    }
}

fn state(served: &Served, headers: &HeaderMap) -> Response {
    let Some(state) = &served.state else {
        return text(StatusCode::NOT_FOUND, "no attempt at this feed has ended yet");
    };
    let tag = state.tag(served.stock.as_ref().map(|s| s.timestamp_version));
    let mut response = if matches(headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        match serde_json::to_vec(&**state) {
            Ok(body) => whole(Bytes::from(body), "application/json"),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the state cannot be written"),
        }
    };
    set(&mut response, ETAG, &tag);
    set(&mut response, CACHE_CONTROL, "no-cache");
    response
}

async fn file_response(path: &MirrorPath, entry: &Entry, method: &Method, headers: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", entry.sha256);
    let wanted = match headers.get(IF_RANGE) {
        // Only a strong tag that still holds; a date never does here.
        Some(condition) if condition.as_bytes() != tag.as_bytes() => Part::Whole,
        _ if *method == Method::HEAD => Part::Whole,
        _ => part(headers.get(RANGE).and_then(|v| v.to_str().ok()), entry.length),
    };
    let mut response = if matches(headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let (status, start, length) = match wanted {
            Part::Whole => (StatusCode::OK, 0, entry.length),
            Part::Range { start, end } => (StatusCode::PARTIAL_CONTENT, start, end - start + 1),
            Part::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0),
        };
        let mut response = if *method == Method::HEAD || length == 0 {
            Body::empty().into_response()
        } else {
            match bytes(entry, start, length).await {
                Ok(body) => body.into_response(),
                Err(error) => {
                    tracing::error!(%path, %error, "a mirrored file cannot be read; it is fetched anew at the next poll");
                    return later("the file is being fetched anew");
                }
            }
        };
        *response.status_mut() = status;
        set(&mut response, CONTENT_LENGTH, &length.to_string());
        set(&mut response, CONTENT_TYPE, path.media_type());
        match wanted {
            Part::Whole => {}
            Part::Range { start, end } => {
                set(&mut response, CONTENT_RANGE, &format!("bytes {start}-{end}/{}", entry.length));
            }
            Part::Unsatisfiable => set(&mut response, CONTENT_RANGE, &format!("bytes */{}", entry.length)),
        }
        response
    };
    set(&mut response, ETAG, &tag);
    set(&mut response, ACCEPT_RANGES, "bytes");
    set(
        &mut response,
        CACHE_CONTROL,
        if path.is_immutable() { "public, max-age=31536000, immutable" } else { "no-cache" },
    );
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn bytes(entry: &Entry, start: u64, length: u64) -> io::Result<Body> {
    match &entry.content {
        Content::Memory(bytes) => {
            let (from, to) = (usize::try_from(start), usize::try_from(start.saturating_add(length)));
            let (Ok(from), Ok(to)) = (from, to) else { return Err(io::ErrorKind::InvalidInput.into()) };
            if to > bytes.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(Body::from(bytes.slice(from..to)))
        }
        Content::File(path) => {
            let end = start.saturating_add(length);
            let file = open(path.clone(), entry.length).await?;
            let chunks = stream::try_unfold((file, start), move |(file, at)| async move {
                if at >= end {
                    return Ok::<_, io::Error>(None);
                }
                let next = end.min(at.saturating_add(CHUNK));
                let chunk = read(file.clone(), at, next - at).await?;
                Ok(Some((chunk, (file, next))))
            });
            Ok(Body::from_stream(chunks))
        }
    }
}

/// Opens a mirrored file; one that was cut since is an error before anything is sent.
async fn open(path: PathBuf, length: u64) -> io::Result<Arc<File>> {
    let opened = tokio::task::spawn_blocking(move || whole_file(&path, length)).await;
    opened.map_err(io::Error::other)?.map(Arc::new)
}

fn whole_file(path: &Path, length: u64) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.len() == length { Ok(file) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn read(file: Arc<File>, at: u64, length: u64) -> io::Result<Bytes> {
    let read = tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut buffer, at)?;
        Ok::<_, io::Error>(Bytes::from(buffer))
    });
    read.await.map_err(io::Error::other)?
}

/// Whether an `If-None-Match` header names `tag` (weak comparison, as RFC 9110 asks for it).
fn matches(headers: &HeaderMap, tag: &str) -> bool {
    let bare = |t: &str| t.trim().trim_start_matches("W/").to_owned();
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|given| given.trim() == "*" || bare(given) == bare(tag))
}

fn whole(body: Bytes, media_type: &'static str) -> Response {
    let mut response = Body::from(body).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn text(status: StatusCode, message: &str) -> Response {
    (status, format!("{message}\n")).into_response()
}

fn later(message: &str) -> Response {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, message);
    set(&mut response, RETRY_AFTER, RETRY);
    response
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// `/livez`, `/readyz` and `/metrics`. Ready once the cluster's feeds are known.
pub fn health(registry: Registry, ready: watch::Receiver<bool>) -> Router {
    let registry = Arc::new(registry);
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route(
            "/readyz",
            get(async move || {
                if *ready.borrow() {
                    (StatusCode::OK, "ok\n")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "the list of PatchFeeds is not read yet\n")
                }
            }),
        )
        .route(
            "/metrics",
            get(async move || {
                let mut body = String::new();
                match prometheus_client::encoding::text::encode(&mut body, &registry) {
                    Ok(()) => {
                        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                        ([(CONTENT_TYPE, kind)], body).into_response()
                    }
                    Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                }
            }),
        )
}
