//! Debian's Prometheus, run as a plain process. It scrapes every container port named `metrics`;
//! which those are it is told by [`targets`], for Debian builds it without its own
//! discovery in Kubernetes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::cache::Cache;
use crate::network::HOST;
use crate::packages::{self, Packages};
use crate::progress;
use crate::state::{self, State, listens};
use crate::targets;

const GUARDED: &str = "prometheus-guarded";
const GUARDED_PORT: u16 = 9443;
/// What the guarded one wants: `invivo:abc`, as HTTP says it.
pub(crate) const CREDENTIALS: &str = "aW52aXZvOmFiYw==";
/// bcrypt of `abc`; from the test vectors of jBCrypt.
const PASSWORD: &str = "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its package.
    #[error(transparent)]
    Packages(#[from] packages::Error),
    /// Its process.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The question could not be asked.
    #[error("ask Prometheus: {0}")]
    Http(#[from] reqwest::Error),
    /// It did not like the question.
    #[error("Prometheus refuses the query: {0}")]
    Query(String),
}

/// The Prometheus of a lab.
#[derive(Debug, Clone, Copy)]
pub struct Prometheus<'a> {
    /// Where its package is kept.
    pub cache: &'a Cache,
    /// Its pid file, log and data.
    pub state: &'a State,
}

impl Prometheus<'_> {
    /// Where people and programs reach it, in the lab's network.
    pub fn address() -> String {
        format!("http://{HOST}:9090")
    }

    /// Gets its package; does not start it.
    ///
    /// # Errors
    /// When the package cannot be had.
    pub fn fetch(self) -> Result<std::path::PathBuf, Error> {
        Ok(Packages::new(self.cache).unpacked("prometheus")?)
    }

    /// Starts it, if it does not run.
    ///
    /// # Errors
    /// When it cannot be had, started or does not get ready.
    pub(crate) fn up(self) -> Result<(), Error> {
        let package = self.fetch()?;
        let step = progress::begin("start Prometheus");
        let configuration = include_str!("../prometheus.yaml").replace("@TARGETS@", targets::ADDRESS);
        let configuration = self.state.write("prometheus.yaml", configuration)?;
        let data = self.state.folder("prometheus")?;
        let address = format!("{HOST}:9090");
        self.state.service(
            "prometheus",
            Command::new(package.join("usr/bin/prometheus"))
                .arg(format!("--config.file={}", configuration.display()))
                .arg(format!("--storage.tsdb.path={}", data.display()))
                .arg(format!("--web.listen-address={address}")),
        )?;
        self.state.wait_ready("prometheus", Duration::from_secs(30), || listens(&address))?;
        step.done();
        Ok(())
    }

    /// Where the one is that wants a password.
    pub(crate) fn guarded_address() -> String {
        format!("https://{HOST}:{GUARDED_PORT}")
    }

    /// Starts another one, which scrapes nothing, with this certificate and [`CREDENTIALS`].
    ///
    /// # Errors
    /// When it cannot be had, started or does not get ready.
    pub(crate) fn guarded_up(self, certificate: &Path, key: &Path) -> Result<(), Error> {
        let package = self.fetch()?;
        let configuration = self.state.write("prometheus-guarded.yaml", "global: {}\n")?;
        let web = format!(
            "tls_server_config: {{cert_file: {}, key_file: {}}}\nbasic_auth_users: {{invivo: '{PASSWORD}'}}\n",
            certificate.display(),
            key.display()
        );
        let web = self.state.write("prometheus-web.yaml", web)?;
        let data = self.state.folder("prometheus-guarded")?;
        let address = format!("{HOST}:{GUARDED_PORT}");
        self.state.service(
            GUARDED,
            Command::new(package.join("usr/bin/prometheus"))
                .arg(format!("--config.file={}", configuration.display()))
                .arg(format!("--web.config.file={}", web.display()))
                .arg(format!("--storage.tsdb.path={}", data.display()))
                .arg(format!("--web.listen-address={address}")),
        )?;
        self.state.wait_ready(GUARDED, Duration::from_secs(30), || listens(&address))?;
        Ok(())
    }

    /// Stops them and what tells the usual one whom to scrape.
    ///
    /// # Errors
    /// When one does not end.
    pub fn down(self) -> Result<(), Error> {
        for name in ["prometheus", GUARDED, "serve-targets"] {
            self.state.pid_file(name).stop(Duration::from_secs(5)).map_err(state::Error::from)?;
        }
        Ok(())
    }

    /// The answer to a query, now: the `result` of Prometheus' own API.
    ///
    /// # Errors
    /// When it cannot be reached or refuses the query.
    pub async fn query(promql: &str) -> Result<Value, Error> {
        let answer: Value = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .no_proxy()
            .build()?
            .get(format!("{}/api/v1/query", Self::address()))
            .query(&[("query", promql)])
            .send()
            .await?
            .json()
            .await?;
        if answer.get("status").and_then(Value::as_str) == Some("success") {
            Ok(answer.pointer("/data/result").cloned().unwrap_or_default())
        } else {
            let error = answer.get("error").and_then(Value::as_str);
            Err(Error::Query(error.unwrap_or("no reason given").to_owned()))
        }
    }
}
