//! How the operator is started.

use std::net::SocketAddr;

/// Decides which node goes to which patch level when, and writes that down.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "invivo-operator", version)]
pub struct Options {
    /// Base URL of the patch server in the cluster, such as `http://invivo-patch-server`. Plain HTTP:
    /// signatures, not the connection, decide what is believed.
    #[arg(long, env = "INVIVO_PATCH_SERVER", value_parser = plain_http)]
    pub patch_server: String,
    /// Where /livez, /readyz, /metrics and /plan/<policy> are served.
    #[arg(long, env = "INVIVO_LISTEN", default_value = "0.0.0.0:9464")]
    pub listen: SocketAddr,
    /// The namespace of the lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "invivo-system")]
    pub namespace: String,
    /// The name of the lease.
    #[arg(long, env = "INVIVO_LEASE_NAME", default_value = "invivo-operator")]
    pub lease_name: String,
    /// Who holds the lease, and who says so in Events.
    #[arg(long, env = "POD_NAME", default_value = "invivo-operator")]
    pub identity: String,
    /// Admission policies that must be in force before anything is written.
    #[arg(
        long,
        env = "INVIVO_ADMISSION_POLICIES",
        value_delimiter = ',',
        default_value = "invivo-agent,invivo-approvals,invivo-operator-nodes"
    )]
    pub admission_policies: Vec<String>,
    /// How many nodes may move at once, over all policies; no limit where it is left out. Two leaders
    /// at once, which leases make rare, may exceed it by what one of them starts.
    #[arg(long, env = "INVIVO_FLEET_MAX_IN_FLIGHT")]
    pub fleet_max_in_flight: Option<u32>,
    /// What is logged: a level, or directives such as `info,invivo_operator=debug`.
    #[arg(long, env = "INVIVO_LOG", default_value = "info")]
    pub log: String,
}

fn plain_http(url: &str) -> Result<String, String> {
    match url.strip_prefix("http://") {
        Some(host) if !host.is_empty() => Ok(url.trim_end_matches('/').to_owned()),
        Some(_) | None => Err("expected http:// and the patch server's Service".to_owned()),
    }
}
