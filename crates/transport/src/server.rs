//! A web server with bad manners, for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// How a path is answered.
#[derive(Debug, Clone)]
pub(crate) enum Manner {
    /// Well: with Range and ETag.
    File(Vec<u8>),
    /// Well, but every answer breaks off after so many bytes.
    Cut(Vec<u8>, usize),
    /// As `Cut`, and each time it is another file of the same length.
    CutAndChanged(Vec<u8>, usize),
    /// With a length that is not the body's.
    Claims(u64, Vec<u8>),
    /// With chunks that never end.
    Endless,
    /// A byte now and then.
    Drip(Vec<u8>),
    /// Not at all.
    Silent,
    /// With a status.
    Status(u16),
    /// With a status the first time, well after that.
    Once(u16, Vec<u8>),
    /// With another place.
    Elsewhere(String),
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) head: String,
}

/// The server; it ends with the test's runtime.
#[derive(Debug, Clone, Default)]
pub(crate) struct Server {
    paths: Arc<Mutex<BTreeMap<String, Manner>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

pub(crate) const DATE: &str = "Sun, 22 Nov 2026 13:00:00 GMT";

impl Server {
    /// Answers this path, below `/r/`, in this manner.
    pub(crate) fn set(&self, path: &str, manner: Manner) {
        self.paths.lock().unwrap().insert(format!("/r/{path}"), manner);
    }

    /// Answers nothing at this path any more.
    pub(crate) fn unset(&self, path: &str) {
        self.paths.lock().unwrap().remove(&format!("/r/{path}"));
    }

    /// Every request so far; forgotten by asking.
    pub(crate) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Begins; gives the base to ask at.
    pub(crate) async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/r/", listener.local_addr().unwrap());
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move { server.talk(stream).await });
            }
        });
        base
    }

    /// One connection.
    pub(crate) async fn talk(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap().to_owned();
            self.seen.lock().unwrap().push(Seen { path: path.clone(), head: head.to_ascii_lowercase() });
            if self.answer(&mut stream, &path, &head.to_ascii_lowercase()).await.is_none() {
                return;
            }
        }
    }

    /// One answer; `None` ends the connection.
    async fn answer(&self, to: &mut (impl AsyncWrite + Unpin), path: &str, head: &str) -> Option<()> {
        let manner = self.paths.lock().unwrap().get(path).cloned().unwrap_or(Manner::Status(404));
        match manner {
            Manner::File(bytes) => file(to, head, &bytes, "one", usize::MAX).await,
            Manner::Cut(bytes, after) => file(to, head, &bytes, "one", after).await,
            Manner::CutAndChanged(bytes, after) => {
                let count = self.seen.lock().unwrap().iter().filter(|seen| seen.path == path).count();
                let changed: Vec<_> =
                    bytes.iter().map(|byte| byte.wrapping_add(u8::try_from(count).unwrap())).collect();
                let whole = if count > 1 { usize::MAX } else { after };
                file(to, head, &changed, &count.to_string(), whole).await
            }
            Manner::Claims(length, bytes) => {
                say(to, "200 OK", &format!("content-length: {length}\r\n")).await?;
                to.write_all(&bytes).await.ok()?;
                None
            }
            Manner::Endless => {
                say(to, "200 OK", "transfer-encoding: chunked\r\n").await?;
                loop {
                    to.write_all(b"400\r\n").await.ok()?;
                    to.write_all(&[b' '; 1024]).await.ok()?;
                    to.write_all(b"\r\n").await.ok()?;
                }
            }
            Manner::Drip(bytes) => {
                say(to, "200 OK", &format!("content-length: {}\r\n", bytes.len())).await?;
                for byte in bytes {
                    to.write_all(&[byte]).await.ok()?;
                    to.flush().await.ok()?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Some(())
            }
            Manner::Silent => std::future::pending().await,
            Manner::Status(status) => say(to, &format!("{status} So"), "content-length: 0\r\n").await,
            Manner::Once(status, bytes) => {
                self.paths.lock().unwrap().insert(path.to_owned(), Manner::File(bytes));
                say(to, &format!("{status} So"), "content-length: 0\r\n").await
            }
            Manner::Elsewhere(to_where) => {
                say(to, "302 Found", &format!("location: {to_where}\r\ncontent-length: 0\r\n")).await
            }
        }
    }
}

async fn say(to: &mut (impl AsyncWrite + Unpin), status: &str, headers: &str) -> Option<()> {
    to.write_all(format!("HTTP/1.1 {status}\r\ndate: {DATE}\r\n{headers}\r\n").as_bytes()).await.ok()?;
    to.flush().await.ok()
}

/// A file, from where it is asked for, up to so many bytes at once.
async fn file(
    to: &mut (impl AsyncWrite + Unpin),
    head: &str,
    bytes: &[u8],
    version: &str,
    most: usize,
) -> Option<()> {
    let etag =
        format!("\"{version}-{}-{}\"", bytes.len(), bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>());
    let field = |name: &str| head.split("\r\n").find_map(|line| line.strip_prefix(&format!("{name}: ")));
    if field("if-none-match") == Some(&etag) {
        return say(to, "304 Not Modified", &format!("etag: {etag}\r\n")).await;
    }
    let same = field("if-range").is_none_or(|known| known == etag);
    let from = field("range").filter(|_| same).and_then(|range| range.strip_prefix("bytes="));
    let from = from.and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
    let rest = &bytes[from.unwrap_or(0)..];
    let (status, range) = match from {
        Some(from) => {
            let (last, all) = (bytes.len() - 1, bytes.len());
            ("206 Partial Content", format!("content-range: bytes {from}-{last}/{all}\r\n"))
        }
        None => ("200 OK", String::new()),
    };
    let headers = format!("etag: {etag}\r\ncontent-length: {}\r\n{range}", rest.len());
    say(to, status, &headers).await?;
    to.write_all(&rest[..rest.len().min(most)]).await.ok()?;
    to.flush().await.ok()?;
    (rest.len() <= most).then_some(())
}
