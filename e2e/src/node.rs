//! A node: a guest with an identity, a kernel and a disk that it keeps over resets.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use invivo_guest::machine::Port;
use invivo_guest::{Accelerator, Console, Disk, Machine, Output, Process, Serial, Tap, console};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::command;
use crate::image::{Kernel, RootImage};
use crate::network::{self, NODE_LIMIT};
use crate::pki::{self, Pki};
use crate::state::{self, State};

/// Memory of a node in MiB.
const MEMORY: u32 = 1536;

/// Why something could not be done with a node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lab's state.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The guest's process.
    #[error(transparent)]
    Process(#[from] invivo_guest::process::Error),
    /// The guest's console.
    #[error(transparent)]
    Console(#[from] console::Error),
    /// Its certificates.
    #[error(transparent)]
    Pki(#[from] pki::Error),
    /// Its network.
    #[error(transparent)]
    Network(#[from] network::Error),
    /// Its disk.
    #[error(transparent)]
    Command(#[from] command::Error),
    /// A file of it.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no such node.
    #[error("there is no node {0:?}")]
    Unknown(String),
    /// Its description makes no sense.
    #[error("the description of node {name}: {source}")]
    Description {
        /// The node.
        name: String,
        /// Why.
        source: serde_json::Error,
    },
    /// There are as many as there can be.
    #[error("there are already {NODE_LIMIT} nodes")]
    Full,
    /// It must be off for that.
    #[error("node {0} is on")]
    On(String),
    /// It must be on for that.
    #[error("node {0} is off")]
    Off(String),
    /// A guest did not end by itself.
    #[error("node {name} still runs {waited:?} after {what}")]
    StillOn {
        /// The node.
        name: String,
        /// What should have ended it.
        what: &'static str,
        /// How long was waited.
        waited: Duration,
    },
}

/// What is written down about a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Description {
    /// Its name in the cluster.
    pub name: String,
    /// Its number, from which its addresses follow.
    pub index: u8,
    /// Release of its kernel.
    pub kernel: String,
    /// What its kernel is told besides; [`USUAL`] for most.
    #[serde(default = "usual")]
    pub parameters: String,
}

/// Nobody limits these here, and kubelet reads each controller's folders and files every other second:
/// a fifth of what an emulated node does at rest.
const SPARED: &str = "cgroup_disable=hugetlb,rdma,misc,io,pressure";
/// What the kernels of nodes are told, so that they boot quickly under emulation.
pub const USUAL: &str = "apparmor=0 nowatchdog";

fn usual() -> String {
    USUAL.to_owned()
}

/// One node of the lab.
#[derive(Debug, Clone)]
pub struct Node {
    /// Who it is.
    pub description: Description,
    state: State,
}

/// All nodes, by number.
///
/// # Errors
/// When a description cannot be read.
pub fn all(state: &State) -> Result<Vec<Node>, Error> {
    let folder = state.folder("nodes")?;
    let mut nodes = Vec::new();
    for entry in fs::read_dir(&folder).map_err(|source| Error::File { path: folder.clone(), source })? {
        let Ok(entry) = entry else { continue };
        if let Some(name) = entry.file_name().to_str() {
            nodes.push(find(state, name)?);
        }
    }
    nodes.sort_by_key(|node| node.description.index);
    Ok(nodes)
}

/// The node of that name.
///
/// # Errors
/// When there is none.
pub fn find(state: &State, name: &str) -> Result<Node, Error> {
    let path = state.path(&format!("nodes/{name}/node.json"));
    let bytes = fs::read(&path).map_err(|_| Error::Unknown(name.to_owned()))?;
    let description = serde_json::from_slice(&bytes)
        .map_err(|source| Error::Description { name: name.to_owned(), source })?;
    Ok(Node { description, state: state.clone() })
}

/// Writes down a new node; `name` is `nodeI` if left out. It is off.
///
/// # Errors
/// When there are too many, or files cannot be written.
pub fn add(
    state: &State,
    pki: &Pki,
    kernel: &str,
    name: Option<&str>,
    parameters: &str,
) -> Result<Node, Error> {
    let taken: Vec<u8> = all(state)?.iter().map(|node| node.description.index).collect();
    let index = (1..=NODE_LIMIT).find(|index| !taken.contains(index)).ok_or(Error::Full)?;
    let name = name.map_or_else(|| format!("node{index}"), ToOwned::to_owned);
    if let Ok(node) = find(state, &name) {
        return Ok(node);
    }
    let (kernel, parameters) = (kernel.to_owned(), parameters.to_owned());
    let description = Description { name: name.clone(), index, kernel, parameters };
    pki.node(&name, &network::node_address(index))?;
    state.folder(&format!("nodes/{name}"))?;
    let node = Node { description, state: state.clone() };
    node.write_identity(pki)?;
    let json = serde_json::to_vec_pretty(&node.description)
        .map_err(|source| Error::Description { name: name.clone(), source })?;
    state.write(&format!("nodes/{name}/node.json"), json)?;
    Ok(node)
}

impl Node {
    /// Its name in the cluster.
    pub fn name(&self) -> &str {
        &self.description.name
    }

    /// Its guest, if it is on.
    pub fn process(&self) -> Option<Process> {
        self.state.pid_file(self.name()).process()
    }

    /// Its first serial port.
    pub fn serial(&self) -> Serial {
        Serial::new(self.state.path(&format!("log/{}.serial.log", self.name())))
    }

    /// Boots it, on the disk that it has. Does not wait until it is Ready.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn power_on(&self, accelerator: Accelerator, root: &RootImage, kernel: &Kernel) -> Result<(), Error> {
        if self.process().is_some() {
            return Ok(());
        }
        let Description { name, index, parameters, .. } = &self.description;
        network::tap_up(*index)?;
        let disk = self.file("disk.qcow2");
        if !disk.exists() {
            command::output(
                Command::new("qemu-img")
                    .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
                    .arg(root.template())
                    .arg(&disk),
            )?;
        }
        self.keep_serial_log()?;
        let machine_id = machine_id(name);
        let machine = Machine {
            name: name.clone(),
            uuid: Some(uuid(&machine_id)),
            accelerator,
            cpus: 2,
            memory_mib: MEMORY,
            kernel: kernel.image(),
            initrd: kernel.initrd(),
            append: format!(
                "console=ttyS0 quiet loglevel=4 panic=1 mitigations=off audit=0 {SPARED} {parameters} \
                 systemd.machine_id={machine_id} systemd.show_status=0"
            ),
            disks: vec![
                Disk::shared(root.root()),
                Disk::own(disk),
                Disk::shared(self.file("identity.tar")),
                Disk::shared(kernel.modules()),
            ],
            nic: Some(Tap { interface: network::tap(*index), mac: network::mac(*index) }),
            serial_log: self.serial().path().to_owned(),
            second_port: Some(Port::Socket(self.file("console"))),
            error_records: Some(self.file("error-records")),
        };
        machine.start(&self.state.pid_file(name), &self.emulator_log())?;
        Ok(())
    }

    /// QEMU's own last words, where the emulator itself has failed: an assertion, and not the end of
    /// the guest, which leaves no word.
    pub fn emulator_failure(&self) -> Option<String> {
        if self.process().is_some() {
            return None;
        }
        let said = fs::read_to_string(self.emulator_log()).ok()?;
        said.lines().find(|line| line.contains("Assertion")).map(str::to_owned)
    }

    fn emulator_log(&self) -> PathBuf {
        self.state.log(&format!("{}.qemu", self.name()))
    }

    /// Cuts its power: what it had not written is lost.
    ///
    /// # Errors
    /// When the guest does not end.
    pub fn power_off(&self) -> Result<(), Error> {
        Ok(self.state.pid_file(self.name()).kill()?)
    }

    /// Panics its kernel, and waits until the guest has gone. It stays off.
    ///
    /// # Errors
    /// When it is off, or survives.
    pub fn crash(&self) -> Result<(), Error> {
        self.crash_by("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger")
    }

    /// Runs what makes its kernel panic, and waits until the guest has gone. It stays off.
    ///
    /// # Errors
    /// When it is off, or survives.
    pub fn crash_by(&self, script: &str) -> Result<(), Error> {
        let process = self.process().ok_or_else(|| Error::Off(self.name().to_owned()))?;
        // kubelet makes the kernel wait ten seconds after a panic.
        self.leave("echo -1 > /proc/sys/kernel/panic", script)?;
        self.gone(process, "a panic")
    }

    /// Shuts it down in order, and waits until it is off.
    ///
    /// # Errors
    /// When it is off already or does not end.
    pub fn shut_down(&self) -> Result<(), Error> {
        let process = self.process().ok_or_else(|| Error::Off(self.name().to_owned()))?;
        self.leave("true", "systemctl poweroff")?;
        self.gone(process, "a shut-down")
    }

    /// Runs `script` in a root shell on it.
    ///
    /// # Errors
    /// When it is off, does not answer or does not end in time.
    pub fn run(&self, script: &str, patience: Duration) -> Result<Output, Error> {
        if self.process().is_none() {
            return Err(Error::Off(self.name().to_owned()));
        }
        Ok(self.console().run(script, patience)?)
    }

    /// Forgets that there was such a node. It must be off.
    ///
    /// # Errors
    /// When it is on, or files cannot be removed.
    pub fn remove(&self) -> Result<(), Error> {
        if self.process().is_some() {
            return Err(Error::On(self.name().to_owned()));
        }
        let folder = self.state.path(&format!("nodes/{}", self.name()));
        fs::remove_dir_all(&folder).map_err(|source| Error::File { path: folder, source })
    }

    /// Forgets its disk. It must be off.
    ///
    /// # Errors
    /// When it is on.
    pub fn wipe(&self) -> Result<(), Error> {
        if self.process().is_some() {
            return Err(Error::On(self.name().to_owned()));
        }
        for file in ["disk.qcow2", "error-records"] {
            self.state.remove(&format!("nodes/{}/{file}", self.name()))?;
        }
        Ok(())
    }

    /// Runs `now`, and `then` when the console has answered: it cannot after that.
    fn leave(&self, now: &str, then: &str) -> Result<(), Error> {
        let script = format!("{now}; (sleep 0.3; {then}) > /dev/null 2>&1 &");
        self.console().run(&script, Duration::from_secs(30))?;
        Ok(())
    }

    fn gone(&self, process: Process, what: &'static str) -> Result<(), Error> {
        let waited = Duration::from_secs(40);
        if process.wait(waited) {
            Ok(())
        } else {
            Err(Error::StillOn { name: self.name().to_owned(), what, waited })
        }
    }

    fn console(&self) -> Console {
        Console::new(self.file("console"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.state.path(&format!("nodes/{}/{name}", self.name()))
    }

    /// The log of the last boot stays beside that of this one.
    fn keep_serial_log(&self) -> Result<(), Error> {
        let serial = self.serial();
        let path = serial.path();
        match fs::rename(path, path.with_extension("log.1")) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::File { path: path.to_owned(), source })
            }
            _ => Ok(()),
        }
    }

    /// What the guest is told about itself: a tar archive that it reads straight from a disk.
    fn write_identity(&self, pki: &Pki) -> Result<(), Error> {
        let Description { name, index, .. } = &self.description;
        let path = self.file("identity.tar");
        let mut archive = tar::Builder::new(Vec::new());
        let mut put = |file: &str, content: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o600);
            header.set_size(u64::try_from(content.len()).unwrap_or(u64::MAX));
            archive.append_data(&mut header, file, content)
        };
        let environment = format!(
            "NODE_NAME={name}\nNODE_INDEX={index}\nNODE_IP={}\nNODE_LIMIT={NODE_LIMIT}\n",
            network::node_address(*index)
        );
        let fail = |source| Error::File { path: path.clone(), source };
        put("node.env", environment.as_bytes()).map_err(fail)?;
        for (from, to) in [
            ("ca.crt".to_owned(), "ca.crt"),
            (format!("{name}.kubeconfig"), "kubelet.kubeconfig"),
            (format!("{name}-server.crt"), "server.crt"),
            (format!("{name}-server.key"), "server.key"),
            ("kube-proxy.kubeconfig".to_owned(), "kube-proxy.kubeconfig"),
        ] {
            let content = fs::read(pki.path(&from)).map_err(fail)?;
            put(to, &content).map_err(fail)?;
        }
        let bytes = archive.into_inner().map_err(fail)?;
        self.state.write(&format!("nodes/{name}/identity.tar"), bytes)?;
        Ok(())
    }
}

/// Stays the same over wipes: 32 hex digits.
fn machine_id(name: &str) -> String {
    let mut id = hex::encode(Sha256::digest(format!("invivo-lab {name}")));
    id.truncate(32);
    id
}

/// The same with dashes.
fn uuid(id: &str) -> String {
    let part = |from: usize, to: usize| id.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_machine_id() {
        assert_eq!(machine_id("node1"), machine_id("node1"));
        assert_ne!(machine_id("node1"), machine_id("node2"));
        assert_eq!(uuid(&machine_id("node1")).len(), 36);
    }
}
