//! The lab's own network: one namespace, one bridge, one tap for each node.
//!
//! | addresses | whose |
//! | --- | --- |
//! | 10.77.0.1 | the machine: control plane, registry, file servers, Prometheus |
//! | 10.77.0.(10+I) | node I |
//! | 10.78.I.0/24 | pods of node I |
//! | 10.79.0.0/16 | Services |

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::command;

/// Name of the namespace.
pub const NAMESPACE: &str = "invivo-lab";
/// The machine's own address in it.
pub const HOST: &str = "10.77.0.1";
/// Addresses of Services.
pub const SERVICES: &str = "10.79.0.0/16";
/// Address of the Service `kubernetes`.
pub const API_SERVICE: &str = "10.79.0.1";
/// How many nodes there can be.
pub const NODE_LIMIT: u8 = 16;

/// Why the network is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `ip` refused.
    #[error(transparent)]
    Command(#[from] command::Error),
    /// There is no such namespace: the lab is down.
    #[error("the lab is down (no network namespace {NAMESPACE})")]
    Down,
    /// The namespace cannot be entered.
    #[error("enter the network namespace {path}: {source}")]
    Enter {
        /// The namespace's file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Address of node `index`.
pub fn node_address(index: u8) -> String {
    format!("10.77.0.{}", 10 + u16::from(index))
}

/// Name of the tap of node `index`.
pub fn tap(index: u8) -> String {
    format!("tap{index}")
}

/// Address of the network card of node `index`.
pub fn mac(index: u8) -> String {
    format!("52:54:00:77:00:{index:02x}")
}

/// Whether the namespace exists.
pub fn exists() -> bool {
    file().exists()
}

fn file() -> PathBuf {
    file_of(NAMESPACE)
}

fn file_of(namespace: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace)
}

/// Makes the namespace and what is in it; leaves alone what is there.
///
/// # Errors
/// When `ip` refuses, mostly because the caller is not root.
pub fn up() -> Result<(), Error> {
    if !exists() {
        ip(&["netns", "add", NAMESPACE])?;
    }
    let mut lines = vec!["link set lo up".to_owned()];
    if inside(&["link", "show", "br0"]).is_err() {
        lines.push("link add br0 type bridge stp_state 0 forward_delay 0".into());
    }
    lines.push(format!("address replace {HOST}/24 dev br0"));
    lines.push("link set br0 up".into());
    // The machine reaches every pod: scrapes, webhooks, port-forwards.
    for index in 1..=NODE_LIMIT {
        let node = node_address(index);
        lines.push(format!("route replace 10.78.{index}.0/24 via {node}"));
    }
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        inside(&words)?;
    }
    command::output(Command::new("ip").args(["netns", "exec", NAMESPACE]).args([
        "sysctl",
        "-qw",
        "net.ipv4.ip_forward=1",
    ]))?;
    Ok(())
}

/// Makes the tap of node `index`, if it is not there.
///
/// # Errors
/// When `ip` refuses.
pub fn tap_up(index: u8) -> Result<(), Error> {
    let tap = tap(index);
    if inside(&["link", "show", &tap]).is_err() {
        inside(&["tuntap", "add", &tap, "mode", "tap"])?;
    }
    inside(&["link", "set", &tap, "master", "br0", "up"])
}

/// Removes the namespace and all that is in it. Processes in it must have ended.
///
/// # Errors
/// When `ip` refuses.
pub fn down() -> Result<(), Error> {
    remove(NAMESPACE)
}

/// Moves the calling thread into the namespace; threads and processes that it starts follow.
/// Call it in `main` before anything else runs.
///
/// # Errors
/// When the lab is down, or the caller is not root.
pub fn enter() -> Result<(), Error> {
    enter_named(NAMESPACE)
}

/// Makes a namespace in which there is the machine's own address and nothing else, in place of an
/// earlier one of this name, and moves the calling thread into it.
///
/// # Errors
/// When `ip` refuses, mostly because the caller is not root.
pub fn enter_new(namespace: &str) -> Result<(), Error> {
    remove(namespace)?;
    ip(&["netns", "add", namespace])?;
    ip(&["-n", namespace, "link", "set", "lo", "up"])?;
    ip(&["-n", namespace, "address", "add", &format!("{HOST}/32"), "dev", "lo"])?;
    enter_named(namespace)
}

/// Removes a namespace, if it is there. Processes in it must have ended.
///
/// # Errors
/// When `ip` refuses.
pub fn remove(namespace: &str) -> Result<(), Error> {
    if file_of(namespace).exists() {
        ip(&["netns", "del", namespace])?;
    }
    Ok(())
}

fn enter_named(namespace: &str) -> Result<(), Error> {
    let path = file_of(namespace);
    let enter = |source| Error::Enter { path: path.clone(), source };
    let namespace = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Down),
        other => other.map_err(enter)?,
    };
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|errno| enter(errno.into()))
}

fn ip(arguments: &[&str]) -> Result<(), Error> {
    command::output(Command::new("ip").args(arguments))?;
    Ok(())
}

fn inside(arguments: &[&str]) -> Result<(), Error> {
    command::output(Command::new("ip").args(["-n", NAMESPACE]).args(arguments))?;
    Ok(())
}
