//! `invivo-loader`: runs as root with CAP_SYS_MODULE and CAP_DAC_READ_SEARCH and nothing else.
//!
//! Needs: an emptyDir for the socket (writable here, read-only in the agent; with `fsGroup` its
//! setgid bit gives the socket its group); hostPaths: `/var/lib/invivo` at `/host/state`,
//! `/sys/kernel/livepatch` at `/host/livepatch` (writable, outside `/sys`), and read-only `/proc`
//! at `/host/proc`, `/lib/modules` at `/host/modules`, `/sys/kernel/security` at `/host/security`,
//! `/sys/fs/pstore` at `/host/pstore`, `/var/lib/systemd/pstore` at `/host/pstore-archive`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use invivo_loader::{Folders, Settings, run};
use invivo_terms::Digest;

/// Verifies and loads kernel live patches for the agent beside it.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen for the agent.
    #[arg(long, env = "INVIVO_SOCKET", default_value = "/run/invivo/loader.sock")]
    socket: PathBuf,
    /// The state folder on the host; made root's alone.
    #[arg(long, env = "INVIVO_STATE", default_value = "/host/state")]
    state: PathBuf,
    /// The host's /sys/kernel/livepatch, writable.
    #[arg(long, env = "INVIVO_LIVEPATCH", default_value = "/host/livepatch")]
    livepatch: PathBuf,
    /// The host's /proc.
    #[arg(long, env = "INVIVO_PROC", default_value = "/host/proc")]
    proc: PathBuf,
    /// The host's /lib/modules, read only: the modules that a patch may change.
    #[arg(long, env = "INVIVO_MODULES", default_value = "/host/modules")]
    modules: PathBuf,
    /// The host's /sys/kernel/tracing, read only: who holds a function that a patch cannot have. It need
    /// not be there.
    #[arg(long, env = "INVIVO_TRACING", default_value = "/host/tracing")]
    tracing: PathBuf,
    /// The host's /sys/kernel/security, read only: whether the kernel is locked down. It need not be
    /// there: then only a kernel that is told so on its command line is known to be.
    #[arg(long, env = "INVIVO_SECURITY", default_value = "/host/security")]
    security: PathBuf,
    /// Any /sys, read only: the kernel's notes and what it demands of modules.
    #[arg(long, env = "INVIVO_SYS", default_value = "/sys")]
    sys: PathBuf,
    /// Where the host keeps records of panics. Repeated, or separated by commas.
    #[arg(
        long,
        env = "INVIVO_RECORDS",
        value_delimiter = ',',
        default_value = "/host/pstore,/host/pstore-archive"
    )]
    records: Vec<PathBuf>,
    /// SHA-256 of a repository's trust/1.json; the only roots of trust there are. Repeated, or
    /// separated by commas.
    #[arg(long = "root", env = "INVIVO_ROOTS", value_delimiter = ',', required = true)]
    roots: Vec<Digest>,
    /// Uid of the agent; root may speak too.
    #[arg(long, env = "INVIVO_AGENT_UID", default_value_t = 65532)]
    agent_uid: u32,
    /// Seconds of quiet before a level counts as settled, at least; the agent may ask for more.
    #[arg(long, env = "INVIVO_LEAST_SETTLING", default_value_t = 60)]
    least_settling: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().json().with_max_level(tracing::Level::INFO).with_writer(std::io::stderr).init();
    let settings = Settings {
        socket: arguments.socket,
        state: arguments.state,
        folders: Folders {
            sys: arguments.sys,
            proc: arguments.proc,
            livepatch: arguments.livepatch,
            records: arguments.records,
            modules: arguments.modules,
            tracing: arguments.tracing,
            security: arguments.security,
        },
        roots: arguments.roots.into_iter().collect(),
        agent: arguments.agent_uid,
        least_settling: Duration::from_secs(arguments.least_settling),
    };
    match run(settings) {
        Ok(never) => match never {},
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(error = %error, source, "loader stopped");
            ExitCode::FAILURE
        }
    }
}
