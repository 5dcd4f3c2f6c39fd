//! A real API server on loopback, with its own etcd, for the length of one test.
//!
//! The programs are looked for in the folders of `INVIVO_TOOLS` (separated like `PATH`): etcd,
//! kube-apiserver, kubectl, helm.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Request};
use kube::{Client, Config};

const TOKEN: &str = "only-on-loopback";
const PATIENCE: Duration = Duration::from_secs(90);

/// One of the Go programs.
pub fn tool(name: &str) -> PathBuf {
    let folders = std::env::var_os("INVIVO_TOOLS")
        .expect("INVIVO_TOOLS is not set: the folders with etcd, kube-apiserver, kubectl and helm (`make test` sets it)");
    std::env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no {name} in INVIVO_TOOLS={}", folders.display()))
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What the chart gives, with a trust root and a fixed address of the patch server.
pub fn render(chart: &str) -> String {
    let output = Command::new(tool("helm"))
        .args(["template", chart])
        .arg(root().join("charts").join(chart))
        .args(["--namespace", "invivo-system", "--kube-version", "1.34.4"])
        .args([
            "--set",
            &format!("trust.roots[0]={}", "a".repeat(64)),
            "--set",
            "patchServer.clusterIP=10.96.0.80",
            "--set",
            "operator.secrets[0]=prometheus",
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An answer: the HTTP status and the body, or the message of a refusal.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// The body, or the message of a refusal.
    pub text: String,
    /// Of a refusal: the fields that are wrong, and how.
    pub causes: Vec<(String, String)>,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{} {}", self.code, self.text))
    }
}

/// etcd and kube-apiserver; both end with it.
pub struct ApiServer {
    url: String,
    folder: tempfile::TempDir,
    processes: Vec<Child>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl ApiServer {
    /// Starts both and waits until the API server is ready.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let [client_port, peer_port, api_port] = free_ports();
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(file("sa.key"), key.serialize_pem()).unwrap();
        std::fs::write(file("sa.pub"), key.public_key_pem()).unwrap();
        std::fs::write(file("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n")).unwrap();
        let etcd_url = format!("http://127.0.0.1:{client_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let mut server = Self { url: format!("https://127.0.0.1:{api_port}"), processes: Vec::new(), folder };
        let log = |name: &str| std::fs::File::create(server.folder.path().join(name)).unwrap();
        let etcd = Command::new(tool("etcd"))
            .args(["--unsafe-no-fsync", "--log-level=error", "--data-dir"])
            .arg(server.folder.path().join("etcd"))
            .args(["--listen-client-urls", &etcd_url, "--advertise-client-urls", &etcd_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}")])
            .stdout(Stdio::null())
            .stderr(log("etcd.log"))
            .spawn()
            .unwrap();
        server.processes.push(etcd);
        let path = |name: &str| server.folder.path().join(name).display().to_string();
        let api = Command::new(tool("kube-apiserver"))
            .args([
                &format!("--etcd-servers={etcd_url}"),
                &format!("--secure-port={api_port}"),
                &format!("--cert-dir={}", path("certs")),
                &format!("--token-auth-file={}", path("tokens.csv")),
                &format!("--service-account-key-file={}", path("sa.pub")),
                &format!("--service-account-signing-key-file={}", path("sa.key")),
            ])
            .args([
                "--bind-address=127.0.0.1",
                "--service-account-issuer=https://kubernetes.default.svc",
                // So large that the patch server's address is among those that are not given out at random.
                "--service-cluster-ip-range=10.96.0.0/16",
                "--authorization-mode=Node,RBAC",
                "--disable-admission-plugins=ServiceAccount",
                "--endpoint-reconciler-type=none",
            ])
            .stdout(Stdio::null())
            .stderr(log("kube-apiserver.log"))
            .spawn()
            .unwrap();
        server.processes.push(api);
        let admin = server.client(&[]);
        let deadline = Instant::now() + PATIENCE;
        while get(&admin, "/readyz").await.code != 200 {
            let ended = server.processes.iter_mut().any(|process| process.try_wait().unwrap().is_some());
            if ended || Instant::now() > deadline {
                let log = std::fs::read_to_string(server.folder.path().join("kube-apiserver.log"))
                    .unwrap_or_default();
                let tail: Vec<_> = log.lines().rev().take(20).collect();
                panic!(
                    "kube-apiserver did not get ready:\n{}",
                    tail.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        server
    }

    /// The administrator, speaking with these headers (`Impersonate-…`).
    pub fn client(&self, headers: &[(String, String)]) -> Client {
        self.client_with(TOKEN, headers)
    }

    /// Whoever this token is of.
    pub fn client_with(&self, token: &str, headers: &[(String, String)]) -> Client {
        let mut config = Config::new(self.url.parse().unwrap());
        config.accept_invalid_certs = true;
        config.default_retry = false;
        config.auth_info.token = Some(token.to_owned().into());
        config.headers = headers
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
            })
            .collect();
        Client::try_from(config).unwrap()
    }

    /// `kubectl apply`, tried again while the kinds it needs are not served yet.
    pub async fn apply(&self, yaml: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut kubectl = Command::new(tool("kubectl"))
                .args([
                    "--server",
                    &self.url,
                    "--token",
                    TOKEN,
                    "--insecure-skip-tls-verify",
                    "apply",
                    "-f",
                    "-",
                ])
                .env("HOME", self.folder.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            kubectl.stdin.take().unwrap().write_all(yaml.as_bytes()).unwrap();
            let output = kubectl.wait_with_output().unwrap();
            if output.status.success() {
                return;
            }
            assert!(Instant::now() < deadline, "kubectl apply: {}", String::from_utf8_lossy(&output.stderr));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// The four kinds, as the chart has them.
    pub async fn with_kinds() -> Self {
        let server = Self::start().await;
        server.apply(&render("invivo-crds")).await;
        let admin = server.client(&[]);
        for plural in ["patchfeeds", "patchpolicies", "patchsets", "nodepatches"] {
            let path = format!("/apis/invivo.dev/v1alpha1/{plural}");
            wait_for(plural, async || get(&admin, &path).await.code == 200).await;
        }
        server
    }
}

/// Asks until the answer is yes.
pub async fn wait_for(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look().await {
        assert!(Instant::now() < deadline, "waited {} s for {what}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One GET.
pub async fn get(client: &Client, path: &str) -> Answer {
    send(client, "GET", path, None, "").await
}

/// One request; a body is JSON of the given content type.
pub async fn send(
    client: &Client,
    method: &str,
    path: &str,
    body: Option<&serde_json::Value>,
    content_type: &str,
) -> Answer {
    let bytes = body.map(|body| serde_json::to_vec(body).unwrap()).unwrap_or_default();
    let mut request = Request::builder().method(method).uri(path);
    if body.is_some() {
        request = request.header("Content-Type", content_type);
    }
    match client.request_text(request.body(bytes).unwrap()).await {
        Ok(text) => Answer { code: 200, text, causes: Vec::new() },
        Err(kube::Error::Api(status)) => {
            let causes = status.details.iter().flat_map(|details| &details.causes);
            Answer {
                code: status.code,
                text: status.message.clone(),
                causes: causes.map(|cause| (cause.field.clone(), cause.message.clone())).collect(),
            }
        }
        Err(error) => Answer { code: 0, text: error.to_string(), causes: Vec::new() },
    }
}

/// Three ports that nothing listens on now.
fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
