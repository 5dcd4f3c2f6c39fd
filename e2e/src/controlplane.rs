//! The control plane: etcd, API server, controller manager and scheduler as plain processes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::command;
use crate::gotools::GoTools;
use crate::network::{HOST, SERVICES};
use crate::pki::Pki;
use crate::progress;
use crate::state::{self, State, listens};

/// How long a node may be silent before it is NotReady. Long enough for two busy processors.
const GRACE: &str = "24s";

/// How long a part may take until it is ready.
const PATIENCE: Duration = Duration::from_mins(1);

/// The parts, in the order in which they start.
pub const PARTS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// The control plane of a lab.
#[derive(Debug, Clone, Copy)]
pub struct ControlPlane<'a> {
    /// Where its programs are.
    pub tools: &'a GoTools,
    /// Its pid files and logs.
    pub state: &'a State,
    /// Its certificates.
    pub pki: &'a Pki,
}

impl ControlPlane<'_> {
    /// Starts what does not run, and waits until it is ready.
    ///
    /// # Errors
    /// When a part cannot be started or does not get ready.
    pub fn up(self) -> Result<(), state::Error> {
        let step = progress::begin("start the control plane");
        self.api_server_up()?;
        step.note("API server ready");
        self.state.service("kube-controller-manager", &mut self.controller_manager())?;
        self.state.service("kube-scheduler", &mut self.scheduler())?;
        self.state.wait_ready("kube-controller-manager", PATIENCE, || listens("127.0.0.1:10257"))?;
        self.state.wait_ready("kube-scheduler", PATIENCE, || listens("127.0.0.1:10259"))?;
        step.done();
        Ok(())
    }

    /// Starts etcd and the API server alone, and waits until that is ready.
    ///
    /// # Errors
    /// When a part cannot be started or does not get ready.
    pub fn api_server_up(self) -> Result<(), state::Error> {
        self.state.service("etcd", &mut self.etcd())?;
        let policy = self.state.write("audit-policy.yaml", include_str!("../audit-policy.yaml"))?;
        self.state.service("kube-apiserver", &mut self.api_server(&policy))?;
        self.state.wait_ready("kube-apiserver", PATIENCE, || self.api_ready())
    }

    fn api_ready(self) -> bool {
        // Asking kubectl before the port is open costs a fifth of a second of processor each time.
        let Ok(address) = format!("{HOST}:6443").parse::<SocketAddr>() else {
            return false;
        };
        listens(&address.to_string())
            && command::output(
                Command::new(self.tools.program("kubectl"))
                    .arg("--kubeconfig")
                    .arg(self.pki.path("admin.kubeconfig"))
                    .args(["get", "--raw", "/readyz", "--request-timeout=2s"]),
            )
            .is_ok()
    }

    fn etcd(self) -> Command {
        let mut command = Command::new(self.tools.program("etcd"));
        command.arg("--data-dir").arg(self.state.path("etcd")).args([
            "--name=lab",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380",
            "--initial-cluster=lab=http://127.0.0.1:2380",
            // The lab's data need not survive the machine's own crash.
            "--unsafe-no-fsync",
            "--auto-compaction-retention=1",
            "--log-level=warn",
        ]);
        command
    }

    fn api_server(self, policy: &std::path::Path) -> Command {
        let mut command = Command::new(self.tools.program("kube-apiserver"));
        let pki = |name: &str| self.pki.path(name);
        let files: [(&str, PathBuf); 13] = [
            ("tls-cert-file", pki("apiserver.crt")),
            ("tls-private-key-file", pki("apiserver.key")),
            ("client-ca-file", pki("ca.crt")),
            ("kubelet-certificate-authority", pki("ca.crt")),
            ("kubelet-client-certificate", pki("kubelet-client.crt")),
            ("kubelet-client-key", pki("kubelet-client.key")),
            ("service-account-key-file", pki("sa.pub")),
            ("service-account-signing-key-file", pki("sa.key")),
            ("requestheader-client-ca-file", pki("ca.crt")),
            ("proxy-client-cert-file", pki("front-proxy.crt")),
            ("proxy-client-key-file", pki("front-proxy.key")),
            ("audit-policy-file", policy.to_owned()),
            ("audit-log-path", self.state.path("log/audit.jsonl")),
        ];
        for (flag, file) in files {
            command.arg(format!("--{flag}={}", file.display()));
        }
        command
            .arg(format!("--advertise-address={HOST}"))
            .arg(format!("--service-cluster-ip-range={SERVICES}"))
            .args([
                "--etcd-servers=http://127.0.0.1:2379",
                "--bind-address=0.0.0.0",
                "--secure-port=6443",
                "--kubelet-preferred-address-types=InternalIP",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--requestheader-allowed-names=front-proxy",
                "--requestheader-username-headers=X-Remote-User",
                "--requestheader-group-headers=X-Remote-Group",
                "--requestheader-extra-headers-prefix=X-Remote-Extra-",
                // Webhooks and aggregated APIs are called at their pods' addresses.
                "--enable-aggregator-routing=true",
                "--allow-privileged=true",
                "--profiling=false",
                "--audit-log-format=json",
                // In MiB; one file for the whole life of a lab.
                "--audit-log-maxsize=4096",
            ]);
        command
    }

    fn controller_manager(self) -> Command {
        let mut command = Command::new(self.tools.program("kube-controller-manager"));
        self.account(&mut command, "controller-manager");
        for (flag, file) in [
            ("service-account-private-key-file", "sa.key"),
            ("root-ca-file", "ca.crt"),
            ("cluster-signing-cert-file", "ca.crt"),
            ("cluster-signing-key-file", "ca.key"),
        ] {
            command.arg(format!("--{flag}={}", self.pki.path(file).display()));
        }
        command.arg(format!("--node-monitor-grace-period={GRACE}")).args([
            "--node-monitor-period=2s",
            "--use-service-account-credentials=true",
            "--allocate-node-cidrs=false",
            "--cluster-name=lab",
        ]);
        command
    }

    fn scheduler(self) -> Command {
        let mut command = Command::new(self.tools.program("kube-scheduler"));
        self.account(&mut command, "scheduler");
        command
    }

    fn account(self, command: &mut Command, name: &str) {
        let file = self.pki.path(&format!("{name}.kubeconfig"));
        for flag in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
            command.arg(format!("--{flag}={}", file.display()));
        }
        command.args(["--bind-address=127.0.0.1", "--leader-elect=false", "--profiling=false"]);
    }
}
