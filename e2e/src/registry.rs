//! The lab's own registry of images; nodes know it as `registry.lab`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command;
use crate::gotools::GoTools;
use crate::network::HOST;
use crate::oci::{self, Image, Item};
use crate::state::{self, State, listens};

/// Why an image is not in the registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry itself.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The image.
    #[error(transparent)]
    Oci(#[from] oci::Error),
    /// The push.
    #[error(transparent)]
    Command(#[from] command::Error),
    /// The lab's own program is not where it should be.
    #[error("no {0} beside this program: build the whole crate")]
    NoPause(PathBuf),
}

/// The registry of a lab.
#[derive(Debug, Clone, Copy)]
pub struct Registry<'a> {
    /// Where crane is.
    pub tools: &'a GoTools,
    /// Its pid file, log and content.
    pub state: &'a State,
}

impl Registry<'_> {
    /// Starts it, if it does not run, and puts the image in that every pod needs.
    ///
    /// # Errors
    /// When it cannot be started, or that image is not there.
    pub fn up(self) -> Result<(), Error> {
        let address = format!("{HOST}:5000");
        let content = self.state.folder("registry")?;
        self.state.service(
            "registry",
            Command::new(self.tools.program("crane"))
                .args(["registry", "serve", "--address", &address, "--disk"])
                .arg(content),
        )?;
        self.state.wait_ready("registry", Duration::from_secs(20), || listens(&address))?;
        let pause = pause()?;
        self.push(
            "pause:1",
            &Image {
                entrypoint: vec!["/pause".into()],
                user: "65535:65535".into(),
                items: vec![Item { source: Some(pause), path: "pause".into(), mode: 0o755 }],
            },
        )?;
        Ok(())
    }

    /// Makes an image and puts it in as `registry.lab/NAME:TAG`; returns its digest.
    ///
    /// # Errors
    /// When a file cannot be read or the registry refuses.
    pub fn push(self, name: &str, image: &Image) -> Result<String, Error> {
        let folder = format!("run/push-{}", std::process::id());
        self.state.remove(&folder)?;
        let layout = self.state.folder(&folder)?;
        let pushed = push(self.tools, image, &layout, &format!("{HOST}:5000/{name}"), &["--insecure"]);
        self.state.remove(&folder)?;
        pushed
    }
}

/// Makes an image in the empty folder `layout` and puts it into whatever registry `reference` names;
/// returns its digest.
///
/// # Errors
/// When a file cannot be read or the registry refuses.
pub fn push(
    tools: &GoTools,
    image: &Image,
    layout: &Path,
    reference: &str,
    options: &[&str],
) -> Result<String, Error> {
    let digest = image.write(layout)?;
    let mut crane = Command::new(tools.program("crane"));
    command::output(crane.arg("push").args(options).arg(layout).arg(reference))?;
    Ok(digest)
}

/// The program of the pods' sandboxes; cargo puts it beside this one.
fn pause() -> Result<PathBuf, Error> {
    let beside = std::env::current_exe().unwrap_or_default();
    let folder = beside.parent().map_or_else(PathBuf::new, PathBuf::from);
    // A test is one folder further down.
    [folder.join("invivo-lab-pause"), folder.join("../invivo-lab-pause")]
        .into_iter()
        .find(|path| path.exists())
        .ok_or_else(|| Error::NoPause(folder.join("invivo-lab-pause")))
}
