//! A plain server of files: what patch authors would publish a repository on. It knows nothing of
//! what it serves.

use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::net::TcpListener;

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port.
    #[error("listen on {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The server.
    #[error("serve: {0}")]
    Serve(io::Error),
}

/// Serves the files below `root` on `address` until the process ends.
///
/// # Errors
/// When the port is taken.
pub async fn serve(root: PathBuf, address: &str) -> Result<(), Error> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address: address.to_owned(), source })?;
    axum::serve(listener, router(root)).await.map_err(Error::Serve)
}

/// The server's one route.
pub fn router(root: PathBuf) -> Router {
    Router::new().fallback(answer).with_state(root)
}

async fn answer(State(root): State<PathBuf>, request: Request) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let Some(path) = below(&root, request.uri().path()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let head = request.method() == Method::HEAD;
    match file(&path, request.headers(), head).await {
        Ok(response) => response,
        Err(error) if error.kind() == io::ErrorKind::NotFound => StatusCode::NOT_FOUND.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn file(path: &Path, headers: &HeaderMap, head: bool) -> io::Result<Response> {
    let mut file = File::open(path).await?;
    let metadata = file.metadata().await?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let size = metadata.len();
    let changed = metadata
        .modified()
        .ok()
        .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |since| since.as_nanos());
    let etag = format!("\"{size:x}-{changed:x}\"");
    let header = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if header(IF_NONE_MATCH).is_some_and(|known| known == "*" || known.contains(&etag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag)]).into_response());
    }
    let current = header(IF_RANGE).is_none_or(|known| known == etag);
    let range = header(RANGE).filter(|_| current).map(|text| range(text, size));
    let (status, from, length) = match range {
        None | Some(Range::Ignore) => (StatusCode::OK, 0, size),
        Some(Range::Part { from, length }) => (StatusCode::PARTIAL_CONTENT, from, length),
        Some(Range::Outside) => {
            let total = format!("bytes */{size}");
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, [(CONTENT_RANGE, total)]).into_response());
        }
    };
    let mut body = Vec::new();
    if !head {
        file.seek(io::SeekFrom::Start(from)).await?;
        file.take(length).read_to_end(&mut body).await?;
    }
    let mut response = (
        status,
        [(ETAG, etag), (ACCEPT_RANGES, "bytes".to_owned()), (CONTENT_LENGTH, length.to_string())],
        Body::from(body),
    )
        .into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        let last = from + length - 1;
        if let Ok(value) = format!("bytes {from}-{last}/{size}").parse() {
            response.headers_mut().insert(CONTENT_RANGE, value);
        }
    }
    Ok(response)
}

/// The file that an address names; nothing outside `root`.
fn below(root: &Path, address: &str) -> Option<PathBuf> {
    let mut path = root.to_owned();
    for part in address.split('/').filter(|part| !part.is_empty()) {
        let part = decode(part)?;
        if part == "." || part == ".." || part.contains('/') || part.contains('\0') {
            return None;
        }
        path.push(part);
    }
    Some(path)
}

/// Undoes `%41`.
fn decode(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    Part { from: u64, length: u64 },
    Outside,
    Ignore,
}

/// `bytes=FROM-TO`, `bytes=FROM-`, `bytes=-LAST`. Several ranges are answered with the whole file.
fn range(text: &str, size: u64) -> Range {
    let Some((from, to)) = text.strip_prefix("bytes=").and_then(|text| text.split_once('-')) else {
        return Range::Ignore;
    };
    let (from, end) = match (from.trim().parse::<u64>(), to.trim().parse::<u64>()) {
        (Ok(from), Ok(to)) if to >= from => (from, to.saturating_add(1).min(size)),
        (Ok(from), Err(_)) if to.trim().is_empty() => (from, size),
        (Err(_), Ok(last)) if from.trim().is_empty() => (size.saturating_sub(last), size),
        _ => return Range::Ignore,
    };
    if from >= end {
        return Range::Outside;
    }
    Range::Part { from, length: end - from }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_the_standard() {
        let part = |from, length| Range::Part { from, length };
        assert_eq!(range("bytes=0-9", 100), part(0, 10));
        assert_eq!(range("bytes=90-", 100), part(90, 10));
        assert_eq!(range("bytes=-10", 100), part(90, 10));
        assert_eq!(range("bytes=90-200", 100), part(90, 10));
        assert_eq!(range("bytes=100-", 100), Range::Outside);
        assert_eq!(range("bytes=0-1,3-4", 100), Range::Ignore);
        assert_eq!(range("lines=1-2", 100), Range::Ignore);
    }

    #[test]
    fn no_address_leads_out_of_the_folder() {
        let root = Path::new("/srv");
        assert_eq!(below(root, "/a/b%20c"), Some("/srv/a/b c".into()));
        for address in ["/../etc", "/%2e%2e/etc", "/a%2f..%2fb", "/%00", "/%zz"] {
            assert_eq!(below(root, address), None, "{address}");
        }
    }

    #[tokio::test]
    async fn a_part_of_a_file_is_served_and_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "0123456789").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, "bytes=2-4".parse().unwrap());
        let response = file(&dir.path().join("f"), &headers, false).await.unwrap();
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(response.headers()[CONTENT_RANGE], "bytes 2-4/10");
        let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
        assert_eq!(&body[..], b"234");
    }

    #[tokio::test]
    async fn what_the_client_has_is_not_sent_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "0123456789").unwrap();
        let first = file(&path, &HeaderMap::new(), true).await.unwrap();
        assert_eq!(first.headers()[CONTENT_LENGTH], "10");
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        let second = file(&path, &headers, false).await.unwrap();
        assert_eq!(second.status(), StatusCode::NOT_MODIFIED);
    }
}
