//! What a reader gets: ranges, conditions, and nothing that is not a file of the repository.

use crate::support::{Author, Mirror, Static, client, get};
use invivo_feed::{digest, paths};
use reqwest::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG, HeaderMap, IF_NONE_MATCH,
    IF_RANGE, RANGE,
};
use reqwest::{Method, StatusCode};

const FEED: &str = "production";

struct House {
    mirror: Mirror,
    bundle: Vec<u8>,
    _data: tempfile::TempDir,
    _author: Author,
}

async fn house() -> House {
    let author = Author::new("acme");
    let bundle = author.publish(1);
    let source = Static::new(author.desk.tree()).await;
    let data = tempfile::tempdir().unwrap();
    let mut mirror = Mirror::new(data.path()).await;
    mirror.follow(FEED, &source.url, &author.root());
    mirror.until(FEED, "Verified").await;
    House { mirror, bundle, _data: data, _author: author }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: impl reqwest::header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl House {
    fn bundle_url(&self) -> String {
        self.mirror.file(FEED, &paths::bundle(&digest(&self.bundle)))
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: &[(reqwest::header::HeaderName, &str)],
    ) -> Answer {
        let mut request = client().request(method, url);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let answer = request.send().await.unwrap();
        Answer {
            status: answer.status(),
            headers: answer.headers().clone(),
            body: answer.bytes().await.unwrap().to_vec(),
        }
    }
}

#[tokio::test]
async fn a_whole_file_comes_with_everything_that_a_cache_needs() {
    let house = house().await;
    let tag = format!("\"{}\"", digest(&house.bundle));
    let answer = house.ask(Method::GET, &house.bundle_url(), &[]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body, house.bundle);
    assert_eq!(answer.header(ETAG), tag);
    assert_eq!(answer.header(CONTENT_LENGTH), house.bundle.len().to_string());
    assert_eq!(answer.header(ACCEPT_RANGES), "bytes");
    assert!(answer.header(CACHE_CONTROL).contains("immutable"));
    assert!(!answer.header(DATE).is_empty());

    let head = house.ask(Method::HEAD, &house.bundle_url(), &[]).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(head.header(CONTENT_LENGTH), house.bundle.len().to_string());
    assert_eq!(head.header(ETAG), tag);

    let timestamp = house.ask(Method::GET, &house.mirror.file(FEED, paths::TIMESTAMP), &[]).await;
    assert_eq!(timestamp.header(CACHE_CONTROL), "no-cache");
}

#[tokio::test]
async fn a_range_resumes_a_download() {
    let house = house().await;
    let (url, length) = (house.bundle_url(), house.bundle.len());
    for (range, from, to) in [
        ("bytes=0-0".to_owned(), 0, 1),
        ("bytes=300000-".to_owned(), 300_000, length),
        ("bytes=-10".to_owned(), length - 10, length),
        ("bytes=100-999999999".to_owned(), 100, length),
    ] {
        let answer = house.ask(Method::GET, &url, &[(RANGE, &range)]).await;
        assert_eq!(answer.status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(answer.body, &house.bundle[from..to], "{range}");
        assert_eq!(answer.header(CONTENT_RANGE), format!("bytes {from}-{}/{length}", to - 1));
    }
    let answer = house.ask(Method::GET, &url, &[(RANGE, &format!("bytes={length}-"))]).await;
    assert_eq!(answer.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(answer.header(CONTENT_RANGE), format!("bytes */{length}"));
    assert!(answer.body.is_empty());
    let answer = house.ask(Method::GET, &url, &[(RANGE, "bytes=0-1,5-6")]).await;
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, length));
    let answer =
        house.ask(Method::GET, &house.mirror.file(FEED, paths::TIMESTAMP), &[(RANGE, "bytes=0-0")]).await;
    assert_eq!((answer.status, answer.body.as_slice()), (StatusCode::PARTIAL_CONTENT, &b"{"[..]));
}

#[tokio::test]
async fn a_range_of_another_version_sends_the_whole_file() {
    let house = house().await;
    let tag = format!("\"{}\"", digest(&house.bundle));
    let url = house.bundle_url();
    let same = house.ask(Method::GET, &url, &[(RANGE, "bytes=5-"), (IF_RANGE, &tag)]).await;
    assert_eq!(same.status, StatusCode::PARTIAL_CONTENT);
    for other in ["\"other\"", "W/\"x\"", "Sat, 21 Nov 2026 00:00:00 GMT"] {
        let answer = house.ask(Method::GET, &url, &[(RANGE, "bytes=5-"), (IF_RANGE, other)]).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, house.bundle.len()), "{other}");
    }
}

#[tokio::test]
async fn what_the_reader_has_is_not_sent_again() {
    let house = house().await;
    let tag = format!("\"{}\"", digest(&house.bundle));
    for header in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
        let answer = house.ask(Method::GET, &house.bundle_url(), &[(IF_NONE_MATCH, &header)]).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::NOT_MODIFIED, 0), "{header}");
        assert_eq!(answer.header(ETAG), tag);
    }
    let answer = house.ask(Method::GET, &house.bundle_url(), &[(IF_NONE_MATCH, "\"other\"")]).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn the_state_can_be_asked_for_on_condition() {
    let house = house().await;
    let url = house.mirror.file(FEED, "state");
    let answer = house.ask(Method::GET, &url, &[]).await;
    let state: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(state["reason"], "Verified");
    assert_eq!(state["document"], serde_json::Value::Null);
    let tag = answer.header(ETAG).to_owned();
    house.mirror.next(FEED).await;
    let again = house.ask(Method::GET, &url, &[(IF_NONE_MATCH, &tag)]).await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED, "another attempt that ended alike");
}

#[tokio::test]
async fn nothing_but_files_of_a_known_feed_can_be_had() {
    let house = house().await;
    for path in [
        "/",
        "/feeds",
        "/feeds/",
        "/feeds/production",
        "/feeds/production/",
        "/feeds/nowhere/timestamp.json",
        "/feeds/production/trust/2.json",
        "/feeds/production/trust/01.json",
        "/feeds/production/records/production.json",
        "/feeds/production/%2e%2e/%2e%2e/records/production.json",
        "/feeds/..%2f..%2frecords/production.json",
        "/feeds/production/bundles/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/feeds/production//timestamp.json",
        "/records/production.json",
    ] {
        assert_eq!(get(&format!("{}{path}", house.mirror.url)).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn only_reading_is_answered() {
    let house = house().await;
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        let answer = house.ask(method.clone(), &house.bundle_url(), &[]).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(answer.header(ALLOW), "GET, HEAD");
    }
}
