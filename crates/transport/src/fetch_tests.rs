use std::sync::Arc;

use invivo_terms::Refusal;

use super::*;
use crate::server::{Manner, Server};

const QUICK: Duration = Duration::from_millis(200);

fn options() -> Options {
    Options { minimum_rate: 1_000, deadline: Duration::from_secs(20), extra_ca: None }
}

fn wanted(name: &str, limit: u64) -> Wanted<'_> {
    Wanted { document: Document::Bundle, name, limit, unless: None, by_digest: false }
}

async fn get(server: &Server, limit: u64) -> Result<Fetched, Error> {
    let base = server.start().await;
    Fetcher::new(&base, &options()).unwrap().with_window(QUICK).get(wanted("file", limit)).await
}

fn found(fetched: Result<Fetched, Error>) -> Vec<u8> {
    match fetched.unwrap().body {
        Body::Found { bytes, .. } => bytes,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_category<T>(result: Result<T, Error>, category: &str) -> String {
    let error = result.err().unwrap();
    assert_eq!(error.category(), category, "{error}");
    error.to_string()
}

fn bytes() -> Vec<u8> {
    (0..50_000u32).flat_map(u32::to_le_bytes).collect()
}

#[tokio::test]
async fn a_file_comes_whole_with_the_servers_clock() {
    let server = Server::default();
    server.set("file", Manner::File(bytes()));
    let fetched = get(&server, 200_000).await.unwrap();
    assert_eq!(fetched.date, Some("2026-11-22T13:00:00Z".parse().unwrap()));
    assert_eq!(found(Ok(fetched)), bytes());
}

#[tokio::test]
async fn endless_data_is_cut_off_at_the_cap_with_and_without_a_length() {
    let server = Server::default();
    for manner in [Manner::Endless, Manner::File(bytes()), Manner::Claims(1 << 40, vec![0; 10])] {
        server.set("file", manner);
        let message = assert_category(get(&server, 199_999).await, "EndlessData");
        assert!(message.contains("199999"), "{message}");
    }
}

#[tokio::test]
async fn slow_retrieval_below_the_least_rate_or_with_no_end_in_time() {
    let server = Server::default();
    server.set("file", Manner::Drip(bytes()));
    assert_category(get(&server, 200_000).await, "SlowRetrieval");
    server.set("file", Manner::Silent);
    let base = server.start().await;
    let short = Options { deadline: QUICK, ..options() };
    let started = Instant::now();
    assert_category(Fetcher::new(&base, &short).unwrap().get(wanted("file", 1)).await, "SlowRetrieval");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_transfer_that_breaks_off_is_taken_up_where_it_ended() {
    let server = Server::default();
    server.set("file", Manner::Cut(bytes(), 90_000));
    assert_eq!(found(get(&server, 200_000).await), bytes());
    let seen = server.take_seen();
    assert_eq!(seen.len(), 3);
    assert!(seen[0].head.find("range:").is_none());
    for (request, from) in seen[1..].iter().zip([90_000, 180_000]) {
        assert!(request.head.contains(&format!("\r\nrange: bytes={from}-\r\n")), "{}", request.head);
        assert!(request.head.contains("\r\nif-range: \""), "{}", request.head);
    }
}

#[tokio::test]
async fn a_transfer_is_begun_again_where_the_file_changed_meanwhile() {
    let server = Server::default();
    server.set("file", Manner::CutAndChanged(vec![1; 1_000], 500));
    assert_eq!(found(get(&server, 1_000).await), vec![3; 1_000]);
}

#[tokio::test]
async fn a_server_that_always_breaks_off_is_given_up() {
    let server = Server::default();
    server.set("file", Manner::Cut(bytes(), 10));
    assert_category(get(&server, 200_000).await, "Unreachable");
    assert_eq!(server.take_seen().len(), 5);
}

#[tokio::test]
async fn an_overloaded_server_is_asked_again() {
    let server = Server::default();
    server.set("file", Manner::Once(503, bytes()));
    assert_eq!(found(get(&server, 200_000).await), bytes());
}

#[tokio::test]
async fn what_is_not_there_is_said_so_and_what_is_unchanged_too() {
    let server = Server::default();
    assert!(matches!(get(&server, 1).await.unwrap().body, Body::Absent(StatusCode::NOT_FOUND)));
    server.set("file", Manner::Status(400));
    assert!(assert_category(get(&server, 1).await, "Unreachable").contains("HTTP 400"));
    server.set("file", Manner::File(bytes()));
    let base = server.start().await;
    let fetcher = Fetcher::new(&base, &options()).unwrap();
    let Body::Found { etag, .. } = fetcher.get(wanted("file", 200_000)).await.unwrap().body else { panic!() };
    let again = Wanted { unless: etag.as_deref(), ..wanted("file", 200_000) };
    assert!(matches!(fetcher.get(again).await.unwrap().body, Body::Unchanged));
}

#[tokio::test]
async fn a_redirect_is_followed_on_the_web_and_nowhere_else() {
    let server = Server::default();
    let base = server.start().await;
    server.set("other", Manner::File(bytes()));
    let fetcher = Fetcher::new(&base, &options()).unwrap();
    server.set("file", Manner::Elsewhere(format!("{base}other")));
    assert_eq!(found(fetcher.get(wanted("file", 200_000)).await), bytes());
    for place in ["ftp://127.0.0.1/x", "file:///etc/passwd", "/r/file"] {
        server.set("file", Manner::Elsewhere(place.to_owned()));
        assert_category(fetcher.get(wanted("file", 200_000)).await, "Unreachable");
    }
}

#[tokio::test]
async fn a_url_that_cannot_be_is_unreachable_and_credentials_are_not_told() {
    for base in ["ftp://example.com/", "not a url", "file:///srv", "/srv"] {
        assert_category(Fetcher::new(base, &options()), "Unreachable");
    }
    let fetcher = Fetcher::new("http://ada:secret@127.0.0.1:1/r?token=secret", &options()).unwrap();
    let message = assert_category(fetcher.get(wanted("file", 1)).await, "Unreachable");
    assert!(!message.contains("secret"), "{message}");
    assert!(message.starts_with("http://127.0.0.1:1/r/file: cannot connect"), "{message}");
}

#[tokio::test]
async fn a_certificate_counts_only_if_somebody_trusts_it() {
    let server = Server::default();
    server.set("file", Manner::File(bytes()));
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://localhost:{}/r/", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, server) = (acceptor.clone(), server.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    server.talk(stream).await;
                }
            });
        }
    });
    let stranger = Fetcher::new(&base, &options()).unwrap();
    let message = assert_category(stranger.get(wanted("file", 200_000)).await, "Unreachable");
    assert!(message.contains("certificate"), "{message}");
    let trusting = Options { extra_ca: Some(own.cert.pem().into_bytes()), ..options() };
    assert_eq!(found(Fetcher::new(&base, &trusting).unwrap().get(wanted("file", 200_000)).await), bytes());
    for nonsense in [&b"nonsense"[..], b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let options = Options { extra_ca: Some(nonsense.to_vec()), ..options() };
        assert_category(Fetcher::new(&base, &options), "Unreachable");
    }
}

#[test]
fn a_refusal_keeps_its_own_name() {
    let error = Error::from(Rejection::new(Refusal::WrongRoot, Document::Trust, "other"));
    assert_eq!(error.category(), "WrongRoot");
}
