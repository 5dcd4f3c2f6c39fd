//! The harmless check of a recipe: asks the running kernel of a node whether the hole is open.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;

use crate::cache::{Cache, Key};
use crate::node::Node;
use crate::{Lab, command};

/// Where the program is on a node; on its disk, so that a reset keeps it.
pub(crate) const ON_NODE: &str = "/var/lib/invivo-lab/check";

/// What a check said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hole {
    /// The kernel does what it should not.
    Open,
    /// It refuses.
    Closed,
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Closed => "closed",
        })
    }
}

/// A recipe's check program.
#[derive(Debug, Clone)]
pub struct Check {
    program: PathBuf,
}

impl Check {
    /// Compiles `check.c` of a recipe, static.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn build(recipe: &Path) -> anyhow::Result<Self> {
        let source = recipe.join("check.c");
        let text = std::fs::read(&source).with_context(|| format!("read {}", source.display()))?;
        let folder = Cache::open()?.make::<anyhow::Error>(
            "check",
            &Key::new("check").with("source", &text),
            |folder| {
                command::output(
                    Command::new("gcc")
                        .args(["-O2", "-static", "-Wall", "-Werror", "-s", "-o"])
                        .arg(folder.join("check"))
                        .arg(&source),
                )?;
                Ok(())
            },
        )?;
        Ok(Self { program: folder.join("check") })
    }

    /// Puts it on a node.
    ///
    /// # Errors
    /// When the node does not take it.
    pub fn install(&self, lab: &Lab, node: &Node) -> anyhow::Result<()> {
        let output = lab.copy_to(node, &self.program, ON_NODE)?;
        if !output.success() {
            bail!("copy the check to {}: {}", node.name(), output.text());
        }
        let output = node.run(&format!("chmod 755 {ON_NODE}"), Duration::from_secs(30))?;
        if !output.success() {
            bail!("make the check executable on {}: {}", node.name(), output.text());
        }
        Ok(())
    }

    /// Runs it there.
    ///
    /// # Errors
    /// When it cannot tell.
    pub fn run(&self, node: &Node) -> anyhow::Result<Hole> {
        let output = node.run(ON_NODE, Duration::from_mins(1))?;
        match output.status {
            0 => Ok(Hole::Closed),
            10 => Ok(Hole::Open),
            status => {
                bail!("the check on {} could not tell (status {status}): {}", node.name(), output.text())
            }
        }
    }
}
