//! Gates together: their names, their status, and a Prometheus on loopback.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use invivo_api::PrometheusGate;
use kube::Client;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::ask::ask;
use super::prometheus::Answer;
use super::*;

fn at(time: &str) -> Timestamp {
    format!("2026-11-22T{time}Z").parse().unwrap()
}

fn policy(gates: &Value) -> Entry<PatchPolicy> {
    let policy = json!({"metadata": {"name": "workers"}, "spec": {"feed": "f", "gates": gates}});
    let value = Arc::new(serde_json::from_value(policy).unwrap());
    Entry { name: "workers".into(), uid: "u".into(), resource_version: "1".into(), value }
}

fn wanted(stage: &str) -> Wanted {
    Wanted { rollout: 3, target: "2026-11-21.1".into(), stage: stage.into(), about: (3, 0) }
}

fn three() -> Value {
    json!([
        {"nodeReady": {}},
        {"prometheus": {"address": "http://p", "query": "a", "for": "5m"}},
        {"job": {"template": {"image": "x"}}},
        {"prometheus": {"address": "http://p", "query": "b", "for": "5m"}},
        {"job": {"template": {"image": "y"}, "perStage": true}},
    ])
}

#[test]
fn nodes_and_kernels_are_always_looked_at_and_every_gate_has_a_name() {
    let names = |gates: &Value| -> Vec<String> {
        let standing = verdicts(&GateSights::default(), &policy(gates), None, (&[], &[]), at("12:00:00"));
        standing.gates.into_iter().map(|gate| gate.name).collect()
    };
    assert_eq!(names(&json!([])), ["nodeReady", "kernelHealth"]);
    let all = ["nodeReady", "kernelHealth", "prometheus", "job", "prometheus-2", "job-2"];
    assert_eq!(names(&three()), all);
}

#[test]
fn what_was_not_asked_is_unknown() {
    let sights = GateSights::default();
    let verdict = |wanted: Option<&Wanted>| {
        verdicts(&sights, &policy(&three()), wanted, (&[], &[]), at("12:00:00")).gates[2].verdict.clone()
    };
    assert!(matches!(verdict(None), GateVerdict::Unknown { .. }));
    assert!(matches!(verdict(Some(&wanted("canary"))), GateVerdict::Unknown { .. }));
}

#[test]
fn a_gate_of_a_later_version_is_never_passed() {
    let gates = json!([{"sentiment": {"of": "everybody"}}]);
    let sights = GateSights::default();
    let standing = verdicts(&sights, &policy(&gates), Some(&wanted("canary")), (&[], &[]), at("12:00:00"));
    let gate = &standing.gates[2];
    assert_eq!(gate.name, "gate");
    assert!(matches!(&gate.verdict, GateVerdict::Unknown { message } if message.contains("spec.gates")));
}

#[test]
fn a_job_of_a_stage_is_another_one_for_the_next_and_one_of_the_rollout_is_not() {
    let sights = GateSights::default();
    let policy = policy(&three());
    let canary = questions(&policy, Some(&wanted("canary")));
    sights.want("workers", canary.clone());
    for question in &canary {
        sights.answer("workers", question, GateVerdict::Passed);
    }
    let passed = |stage: &str| -> Vec<String> {
        let standing = verdicts(&sights, &policy, Some(&wanted(stage)), (&[], &[]), at("12:00:00"));
        let passed = standing.gates.into_iter().filter(|gate| gate.verdict == GateVerdict::Passed);
        passed.map(|gate| gate.name).collect()
    };
    assert_eq!(passed("canary"), ["nodeReady", "kernelHealth", "prometheus", "job", "prometheus-2", "job-2"]);
    assert_eq!(passed("early"), ["nodeReady", "kernelHealth", "prometheus", "job", "prometheus-2"]);
    sights.want("workers", questions(&policy, Some(&wanted("early"))));
    assert_eq!(passed("early"), ["nodeReady", "kernelHealth", "prometheus", "job", "prometheus-2"]);
    // Once every stage is through nothing is asked any more.
    sights.want("workers", questions(&policy, None));
    assert_eq!(passed("early"), ["nodeReady", "kernelHealth"]);
}

#[test]
fn nothing_is_wanted_before_a_rollout() {
    let rollout = |complete: bool| RolloutMemory {
        number: 3,
        since: at("12:00:00"),
        from: None,
        cuts: Vec::new(),
        returning: false,
        evidence: Vec::new(),
        target: None,
        mechanism: invivo_terms::Mechanism::Livepatch,
        started: 0,
        finished: 0,
        failed: 0,
        stage: 1,
        stage_since: at("12:00:00"),
        soak_until: None,
        complete,
        before: None,
        deadline: None,
    };
    assert_eq!(Wanted::of(None, |_| "canary"), None);
    let wanted = Wanted { rollout: 3, target: "None".into(), stage: "early".into(), about: (3, 1) };
    let name = |index: usize| if index == 1 { "early" } else { "canary" };
    assert_eq!(Wanted::of(Some(&rollout(false)), name), Some(wanted.clone()));
    assert_eq!(Wanted::of(Some(&rollout(true)), name), Some(wanted));
}

#[test]
fn an_instant_stays_while_a_verdict_does_and_messages_fit() {
    let gate =
        |verdict: GateVerdict| [rollout::Gate { name: "job".into(), foreign: true, about: None, verdict }];
    let long = GateVerdict::Failed { message: "x".repeat(9999) };
    let first = status(&[], &gate(long.clone()), at("12:00:00"));
    assert_eq!(first[0].message.as_ref().map(String::len), Some(LONGEST_MESSAGE));
    assert_eq!(status(&first, &gate(long), at("12:30:00")), first);
    let passed = status(&first, &gate(GateVerdict::Passed), at("12:30:00"));
    assert_eq!((passed[0].since.0, &passed[0].message), (at("12:30:00"), &None));
}

/// A Prometheus that answers what it was told to.
#[derive(Clone)]
struct Prometheus {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    expects: Option<&'static str>,
}

impl Prometheus {
    fn says(status: u16, body: impl Into<Bytes>) -> Self {
        let status = StatusCode::from_u16(status).unwrap();
        Self { status, headers: HeaderMap::new(), body: body.into(), expects: None }
    }

    fn router(self) -> Router {
        async fn answer(State(this): State<Prometheus>, uri: Uri, headers: HeaderMap) -> Response {
            assert_eq!(uri.path(), "/prefix/api/v1/query");
            assert_eq!(uri.query(), Some("query=rate%28errors%5B5m%5D%29+%3E+0&limit=4"));
            let sent = headers.get("authorization").map(|value| value.to_str().unwrap());
            if sent != this.expects {
                return StatusCode::UNAUTHORIZED.into_response();
            }
            (this.status, this.headers, Body::from(this.body)).into_response()
        }
        Router::new().fallback(answer).with_state(self)
    }

    /// Serves on loopback; the address.
    async fn serve(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, self.router()).await });
        format!("http://{address}/prefix/")
    }
}

fn empty() -> Vec<u8> {
    json!({"status": "success", "data": {"resultType": "vector", "result": []}}).to_string().into_bytes()
}

fn gate(address: &str) -> PrometheusGate {
    let gate = json!({"address": address, "query": "rate(errors[5m]) > 0", "for": "5m"});
    serde_json::from_value(gate).unwrap()
}

/// An API server that has some Secrets and forbids others.
fn secrets(ca: &str) -> Client {
    let data = json!({"token": "c2VjcmV0Cg==", "broken": "AP8=",
        "ca.crt": serde_json::to_value(k8s_openapi::ByteString(ca.as_bytes().to_vec())).unwrap()});
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "prometheus"}, "data": data});
    let answer = move |uri: Uri| {
        let secret = secret.clone();
        async move {
            let status = |code: u16| {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                    "reason": "x", "message": "x"});
                (StatusCode::from_u16(code).unwrap(), status.to_string()).into_response()
            };
            match uri.path() {
                "/api/v1/namespaces/invivo-system/secrets/prometheus" => secret.to_string().into_response(),
                "/api/v1/namespaces/invivo-system/secrets/forbidden" => status(403),
                _ => status(404),
            }
        }
    };
    Client::new(Router::new().fallback(answer), "default")
}

async fn asked(gate: &PrometheusGate, ca: &str) -> Answer {
    let _ = rustls::crypto::ring::default_provider().install_default();
    ask(&secrets(ca), "invivo-system", gate, super::ask::ANSWER_WITHIN).await
}

fn why(answer: Answer) -> String {
    let Answer::None(why) = answer else { panic!("{answer:?}") };
    why
}

#[tokio::test]
async fn a_prometheus_that_answers_is_heard() {
    let address = Prometheus::says(200, empty()).serve().await;
    assert_eq!(asked(&gate(&address), "").await, Answer::Nothing);
    let something = json!({"status": "success", "data": {"resultType": "vector", "result":
        [{"metric": {"job": "api"}, "value": [1, "7"]}]}});
    let address = Prometheus::says(200, something.to_string()).serve().await;
    assert!(matches!(asked(&gate(&address), "").await, Answer::Something(_)));
}

#[tokio::test]
async fn a_prometheus_that_is_down_or_is_none_gives_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    assert!(why(asked(&gate(&address), "").await).contains("refused"));
    let address = Prometheus::says(200, "hello").serve().await;
    assert!(why(asked(&gate(&address), "").await).contains("no reply to a query"));
    let address = Prometheus::says(500, empty()).serve().await;
    assert!(why(asked(&gate(&address), "").await).contains("500"));
    // It breaks off.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{").await.unwrap();
    });
    assert!(!why(asked(&gate(&address), "").await).is_empty());
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let address = Prometheus::says(200, vec![b' '; 3 << 20]).serve().await;
    assert!(why(asked(&gate(&address), "").await).contains("longer than 1048576 bytes"));
}

#[tokio::test]
async fn a_prometheus_that_is_slow_gives_no_answer_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (_stream, _) = listener.accept().await.unwrap();
        std::future::pending::<()>().await;
    });
    let _ = rustls::crypto::ring::default_provider().install_default();
    let patience = Duration::from_millis(200);
    let answer = ask(&secrets(""), "invivo-system", &gate(&address), patience).await;
    assert_eq!(why(answer), "it took more than 200ms");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Prometheus::says(200, empty()).serve().await;
    let mut here = Prometheus::says(307, "");
    here.headers.insert("location", format!("{elsewhere}api/v1/query").parse().unwrap());
    let address = here.serve().await;
    assert!(why(asked(&gate(&address), "").await).contains("307"));
}

/// A Prometheus with a certificate of its own authority; its address, and the authority.
async fn with_tls(prometheus: Prometheus) -> (String, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let signed = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let inner = prometheus.serve().await;
    let inner = inner.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, inner) = (acceptor.clone(), inner.clone());
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(stream).await else { return };
                let mut inside = tokio::net::TcpStream::connect(inner).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    (format!("https://{address}/prefix"), signed.cert.pem())
}

fn with(gate: &PrometheusGate, fields: &Value) -> PrometheusGate {
    let mut whole = serde_json::to_value(gate).unwrap();
    whole.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(whole).unwrap()
}

#[tokio::test]
async fn a_certificate_counts_if_the_bundle_has_its_authority() {
    let (address, authority) = with_tls(Prometheus::says(200, empty())).await;
    let bundle = json!({"caBundle": {"secret": {"name": "prometheus", "key": "ca.crt"}}});
    let believing = with(&gate(&address), &bundle);
    assert_eq!(asked(&believing, &authority).await, Answer::Nothing);
    // Another authority, or the well-known ones.
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap().cert.pem();
    assert!(why(asked(&believing, &other).await).contains("certificate"));
    assert!(why(asked(&gate(&address), "").await).contains("certificate"));
    assert_eq!(why(asked(&believing, "no certificate").await), "caBundle holds no certificate in PEM");
}

#[tokio::test]
async fn credentials_come_from_a_secret_and_are_told_to_nobody_else() {
    let prometheus = Prometheus { expects: Some("Bearer secret"), ..Prometheus::says(200, empty()) };
    let (address, authority) = with_tls(prometheus).await;
    let with_key = |name: &str, key: &str| {
        with(
            &gate(&address),
            &json!({"caBundle": {"secret": {"name": "prometheus", "key": "ca.crt"}},
                "authorization": {"secret": {"name": name, "key": key}}}),
        )
    };
    assert_eq!(asked(&with_key("prometheus", "token"), &authority).await, Answer::Nothing);
    let cases = [
        ("missing", "token", "there is no Secret missing"),
        ("forbidden", "token", "name it in the chart's operator.secrets"),
        ("prometheus", "missing", "the Secret prometheus has no key missing"),
        ("prometheus", "broken", "what the Secret prometheus has at broken is no credential"),
    ];
    for (name, key, words) in cases {
        let why = why(asked(&with_key(name, key), &authority).await);
        assert!(why.contains(words), "{why}");
    }
}
