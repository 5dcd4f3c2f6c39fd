//! Asks a Prometheus, within limits.

use std::time::Duration;

use invivo_api::{Authorization, PrometheusGate, SecretKey};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Certificate, Url, redirect};

use super::prometheus::{Answer, read};

/// How long one answer may take, from the Secrets to the last byte.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The longest answer, in bytes.
const LONGEST: usize = 1 << 20;
/// The most series that are asked for; one is enough to fail.
const SERIES: &str = "4";

/// Asks once, with `patience`. Secrets are read for this question alone, and never told to anybody
/// but the server.
pub(super) async fn ask(
    client: &Client,
    namespace: &str,
    gate: &PrometheusGate,
    patience: Duration,
) -> Answer {
    let question = async {
        let secrets = Secrets { api: Api::namespaced(client.clone(), namespace) };
        let authorization = match &gate.authorization {
            Some(authorization) => Some(secrets.header(authorization).await?),
            None => None,
        };
        let roots = match &gate.ca_bundle {
            Some(bundle) => Some(secrets.read(&bundle.secret).await?),
            None => None,
        };
        query(gate, authorization, roots.as_deref()).await
    };
    match tokio::time::timeout(patience, question).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => Answer::None(why),
        Err(_) => Answer::None(format!("it took more than {patience:?}")),
    }
}

/// The Secrets of the operator's own namespace.
struct Secrets {
    api: Api<Secret>,
}

impl Secrets {
    async fn read(&self, key: &SecretKey) -> Result<Vec<u8>, String> {
        let name = &key.name;
        let secret = self.api.get(name).await.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 404 => format!("there is no Secret {name}"),
            kube::Error::Api(status) if status.code == 403 => {
                format!(
                    "the operator may not read the Secret {name}: name it in the chart's operator.secrets"
                )
            }
            _ => format!("the Secret {name} cannot be read now"),
        })?;
        let value = secret.data.and_then(|mut data| data.remove(&key.key));
        value.map(|value| value.0).ok_or_else(|| format!("the Secret {name} has no key {}", key.key))
    }

    async fn header(&self, authorization: &Authorization) -> Result<HeaderValue, String> {
        let key = &authorization.secret;
        let wrong = || format!("what the Secret {} has at {} is no credential", key.name, key.key);
        let credentials = String::from_utf8(self.read(key).await?).map_err(|_| wrong())?;
        let text = format!("{} {}", authorization.scheme.as_str(), credentials.trim());
        let mut header = HeaderValue::from_str(&text).map_err(|_| wrong())?;
        header.set_sensitive(true);
        Ok(header)
    }
}

/// The client of one question: no proxy, for it may be anybody's, and no redirect, for credentials
/// are for one server.
fn client(roots: Option<&[u8]>) -> Result<reqwest::Client, String> {
    let builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .user_agent(concat!("invivo/", env!("CARGO_PKG_VERSION")));
    let builder = match roots {
        Some(pem) => {
            let certificates = Certificate::from_pem_bundle(pem).map_err(|_| NO_CERTIFICATE.to_owned())?;
            if certificates.is_empty() {
                return Err(NO_CERTIFICATE.to_owned());
            }
            builder.tls_certs_only(certificates)
        }
        None => builder.tls_backend_preconfigured(invivo_transport::tls_config(None)?),
    };
    builder.build().map_err(|error| chain(&error))
}

const NO_CERTIFICATE: &str = "caBundle holds no certificate in PEM";

async fn query(
    gate: &PrometheusGate,
    authorization: Option<HeaderValue>,
    roots: Option<&[u8]>,
) -> Result<Answer, String> {
    let mut url = Url::parse(&gate.address).map_err(|error| format!("address: {error}"))?;
    url.set_path(&format!("{}/api/v1/query", url.path().trim_end_matches('/')));
    url.query_pairs_mut().append_pair("query", &gate.query).append_pair("limit", SERIES);
    let mut request = client(roots)?.get(url);
    if let Some(header) = authorization {
        request = request.header(AUTHORIZATION, header);
    }
    let mut answer = request.send().await.map_err(|error| chain(&error.without_url()))?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| chain(&error.without_url()))? {
        body.extend_from_slice(&chunk);
        if body.len() > LONGEST {
            return Err(format!("its answer is longer than {LONGEST} bytes"));
        }
    }
    Ok(read(answer.status().as_u16(), &body))
}

/// An error with its causes.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    super::plain(&text, 300)
}
