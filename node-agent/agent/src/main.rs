//! `invivo-agent`: runs as uid 65532 without privilege. Needs the projected account volume, the
//! loader's socket (its mount may be read-only) and nothing else of the node.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use invivo_agent::Settings;

/// Carries out the operator's instructions to this node, through the loader beside it.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where the loader listens.
    #[arg(long, env = "INVIVO_SOCKET", default_value = "/run/invivo/loader.sock")]
    socket: PathBuf,
    /// This node's name.
    #[arg(long, env = "NODE_NAME")]
    node: String,
    /// The patch server, such as http://10.79.0.20:8080.
    #[arg(long, env = "INVIVO_PATCH_SERVER")]
    patch_server: String,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "INVIVO_LISTEN", default_value = "0.0.0.0:9464")]
    listen: SocketAddr,
}

/// A thread's stack. The usual 2 MiB are just what the kernel makes one huge page of, and then all of
/// them count as memory of a node's.
const STACK: usize = 1 << 20;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().json().with_max_level(tracing::Level::INFO).with_writer(std::io::stderr).init();
    let settings = Settings {
        socket: arguments.socket,
        node: arguments.node,
        patch_server: arguments.patch_server,
        listen: arguments.listen,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().thread_stack_size(STACK).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(error = %error, "agent not started");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(Box::pin(invivo_agent::run(settings)));
    // What is under way is the loader's to end.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(error = %error, source, "agent stopped");
            ExitCode::FAILURE
        }
    }
}
