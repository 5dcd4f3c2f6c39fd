//! One file, within limits.

use std::error::Error as _;
use std::time::Duration;

use invivo_feed::{Document, Rejection};
use invivo_terms::Refusal;
use jiff::Timestamp;
use reqwest::header::{CONTENT_RANGE, DATE, ETAG, HeaderMap, IF_NONE_MATCH, IF_RANGE, RANGE};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{Error, Options, tls};

/// Over how long the rate is judged.
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// The longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest wait for an answer to begin.
const ANSWER: Duration = Duration::from_secs(30);
/// How often a broken transfer is taken up again.
const RESUMPTIONS: u32 = 4;
/// The pause before that; doubles each time.
const PAUSE: Duration = Duration::from_millis(250);
/// The most redirects that are followed.
const REDIRECTS: usize = 3;
/// The longest ETag that is sent back.
const MAX_ETAG: usize = 256;

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// What it is, for the name of a refusal.
    pub(crate) document: Document,
    /// The path below the base.
    pub(crate) name: &'a str,
    /// Not a byte more.
    pub(crate) limit: u64,
    /// Not if it is still this.
    pub(crate) unless: Option<&'a str>,
    /// Whether the name alone says which bytes it is, so that any part of it fits any other.
    pub(crate) by_digest: bool,
}

/// What came.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// The server's `Date`.
    pub(crate) date: Option<Timestamp>,
    /// The rest.
    pub(crate) body: Body,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Body {
    /// All of it.
    Found {
        /// The bytes.
        bytes: Vec<u8>,
        /// For the next time.
        etag: Option<String>,
    },
    /// It is still the same.
    Unchanged,
    /// There is no such file.
    Absent(StatusCode),
}

/// Fetches files below one base.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher {
    client: Client,
    base: Url,
    minimum_rate: u64,
    deadline: Duration,
    window: Duration,
}

/// How one request ended.
enum End {
    /// With this.
    Done(Fetched),
    /// With the bytes got so far; the rest may be had by another request.
    Broken(String),
}

/// What is on hand of a file between requests.
#[derive(Default)]
struct Part {
    bytes: Vec<u8>,
    etag: Option<String>,
    date: Option<Timestamp>,
}

impl Fetcher {
    pub(crate) fn new(base: &str, options: &Options) -> Result<Self, Error> {
        let wrong = |detail: &str| Error::Unreachable { url: plain(base), detail: detail.to_owned() };
        let mut base = Url::parse(base).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(wrong("not an http or https URL"));
        }
        base.set_query(None);
        base.set_fragment(None);
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        let config = tls::config(options.extra_ca.as_deref()).map_err(|detail| wrong(&detail))?;
        let client = Client::builder()
            .tls_backend_preconfigured(config)
            .user_agent(concat!("invivo/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .pool_max_idle_per_host(1)
            .redirect(redirect::Policy::custom(follow))
            .build()
            .map_err(|error| wrong(&chain(&error)))?;
        let (minimum_rate, deadline) = (options.minimum_rate, options.deadline);
        Ok(Self { client, base, minimum_rate, deadline, window: RATE_WINDOW })
    }

    /// Judges the rate over another time.
    #[cfg(test)]
    pub(crate) fn with_window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Fetches one file: at most `limit` bytes, within the deadline, no slower than the minimum
    /// rate, taken up again where it breaks off.
    pub(crate) async fn get(&self, wanted: Wanted<'_>) -> Result<Fetched, Error> {
        let url =
            self.base.join(wanted.name).map_err(|error| self.unreachable(wanted.name, &error.to_string()))?;
        let by = Instant::now() + self.deadline;
        let mut part = Part::default();
        let mut pause = PAUSE;
        let mut broken = String::new();
        for _ in 0..=RESUMPTIONS {
            match timeout_at(by, self.request(&url, wanted, &mut part)).await {
                Err(_) => return Err(slow(wanted, "the deadline passed")),
                Ok(Err(error)) => return Err(error),
                Ok(Ok(End::Done(fetched))) => return Ok(fetched),
                Ok(Ok(End::Broken(detail))) => broken = detail,
            }
            tracing::debug!(file = wanted.name, got = part.bytes.len(), error = broken, "transfer broke off");
            if timeout_at(by, sleep(pause)).await.is_err() {
                break;
            }
            pause *= 2;
        }
        Err(self.unreachable(wanted.name, &broken))
    }

    /// One request, for all of the file or for what is missing of it.
    async fn request(&self, url: &Url, wanted: Wanted<'_>, part: &mut Part) -> Result<End, Error> {
        if part.etag.is_none() && !wanted.by_digest {
            part.bytes.clear();
        }
        let mut request = self.client.get(url.clone());
        if part.bytes.is_empty() {
            if let Some(etag) = wanted.unless {
                request = request.header(IF_NONE_MATCH, etag);
            }
        } else {
            request = request.header(RANGE, format!("bytes={}-", part.bytes.len()));
            if let Some(etag) = &part.etag {
                request = request.header(IF_RANGE, etag);
            }
        }
        let response = match timeout_at(Instant::now() + ANSWER, request.send()).await {
            Err(_) => return Err(slow(wanted, "no answer")),
            // A name that does not resolve, a closed port, a certificate not trusted: asking again at once is no use.
            Ok(Err(error)) if error.is_connect() || error.is_redirect() || error.is_builder() => {
                return Err(self.unreachable(wanted.name, &chain(&error)));
            }
            Ok(Err(error)) => return Ok(End::Broken(chain(&error))),
            Ok(Ok(response)) => response,
        };
        part.date = part.date.or_else(|| date(response.headers()));
        let done = |date, body| Ok(End::Done(Fetched { date, body }));
        match response.status() {
            StatusCode::OK => {
                part.bytes.clear();
                part.etag = etag(response.headers());
            }
            StatusCode::PARTIAL_CONTENT if continues(response.headers(), part.bytes.len()) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                *part = Part { date: part.date, ..Part::default() };
                return Ok(End::Broken("the server lost the place".to_owned()));
            }
            StatusCode::NOT_MODIFIED if wanted.unless.is_some() => return done(part.date, Body::Unchanged),
            status @ (StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN) => {
                return done(part.date, Body::Absent(status));
            }
            status if status.is_server_error() => return Ok(End::Broken(format!("HTTP {status}"))),
            status => return Err(self.unreachable(wanted.name, &format!("HTTP {status}"))),
        }
        if let Some(broken) = self.body(response, wanted, &mut part.bytes).await? {
            return Ok(End::Broken(broken));
        }
        let (bytes, etag) = (std::mem::take(&mut part.bytes), part.etag.take());
        done(part.date, Body::Found { bytes, etag })
    }

    /// Reads a body onto what is there. `Some` says why it broke off.
    async fn body(
        &self,
        mut response: Response,
        wanted: Wanted<'_>,
        bytes: &mut Vec<u8>,
    ) -> Result<Option<String>, Error> {
        let before = bytes.len() as u64;
        if response.content_length().is_some_and(|length| before.saturating_add(length) > wanted.limit) {
            return Err(endless(wanted));
        }
        let mut window = Instant::now() + self.window;
        let mut in_window: u64 = 0;
        loop {
            match timeout_at(window, response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    if bytes.len() as u64 + chunk.len() as u64 > wanted.limit {
                        return Err(endless(wanted));
                    }
                    bytes.extend_from_slice(&chunk);
                    in_window += chunk.len() as u64;
                }
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Ok(Some(chain(&error))),
                Err(_) => {}
            }
            if Instant::now() >= window {
                let least =
                    self.minimum_rate.saturating_mul(self.window.as_millis().try_into().unwrap_or(u64::MAX))
                        / 1_000;
                if in_window < least {
                    return Err(slow(
                        wanted,
                        &format!("{in_window} bytes in {:?}, {least} are the least", self.window),
                    ));
                }
                window = Instant::now() + self.window;
                in_window = 0;
            }
        }
    }

    /// The error for a file that was not got.
    pub(crate) fn unreachable(&self, name: &str, detail: &str) -> Error {
        let url = self.base.join(name).map_or_else(|_| name.to_owned(), |url| plain(url.as_str()));
        Error::Unreachable { url, detail: detail.chars().take(200).collect() }
    }
}

/// At most a few redirects, and never to a scheme that protects less.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from = attempt.previous().last().map_or("", Url::scheme);
    let allowed = attempt.url().scheme() == "https" || attempt.url().scheme() == from;
    if !allowed || !matches!(attempt.url().scheme(), "http" | "https") {
        let detail = format!("redirected from {from:?} to {:?}", attempt.url().scheme());
        return attempt.error(detail);
    }
    if attempt.previous().len() > REDIRECTS {
        return attempt.error("redirected too often");
    }
    attempt.follow()
}

/// Whether a part begins where the last one ended.
fn continues(headers: &HeaderMap, at: usize) -> bool {
    headers
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("bytes "))
        .and_then(|value| value.split_once('-'))
        .is_some_and(|(from, _)| from.parse() == Ok(at))
}

/// A strong ETag: a weak one does not promise the same bytes.
fn etag(headers: &HeaderMap) -> Option<String> {
    let etag = headers.get(ETAG)?.to_str().ok()?;
    (etag.len() <= MAX_ETAG && etag.starts_with('"')).then(|| etag.to_owned())
}

/// The server's clock.
pub(crate) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

fn endless(wanted: Wanted<'_>) -> Error {
    Rejection::new(
        Refusal::EndlessData,
        wanted.document,
        format!("{}: more than {} bytes", wanted.name, wanted.limit),
    )
    .into()
}

fn slow(wanted: Wanted<'_>, why: &str) -> Error {
    Rejection::new(Refusal::SlowRetrieval, wanted.document, format!("{}: {why}", wanted.name)).into()
}

/// A URL for messages: no credentials, no query.
fn plain(url: &str) -> String {
    let Ok(mut url) = Url::parse(url) else { return url.chars().take(80).collect() };
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
}

/// An error with its causes. The URL is left out: it may hold credentials.
fn chain(error: &reqwest::Error) -> String {
    let mut text = if error.is_connect() { "cannot connect".to_owned() } else { "transfer".to_owned() };
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
