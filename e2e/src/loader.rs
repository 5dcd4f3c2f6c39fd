//! Says to the loader of a node what its agent could, or anybody with the agent's user.

use std::time::Duration;

use anyhow::{Context, bail};
use invivo_wire::{Answer, Request, State, frame};

use crate::stage::Stage;

/// Where the message and the program that sends it are put on a node.
const MESSAGE: &str = "/var/lib/invivo-lab/message";
const SENDER: &str = "/var/lib/invivo-lab/send";

/// How things stand on a node, as its loader tells the agent.
///
/// # Errors
/// When it cannot be asked, or answers something else.
pub(crate) fn state(stage: &Stage<'_>, node: &str) -> anyhow::Result<State> {
    let mut message = Vec::new();
    frame::write(&mut message, &Request::State, &[])?;
    let said = said(stage, node, &message)?;
    match serde_json::from_str(said.trim()).with_context(|| format!("the loader of {node} said {said:?}"))? {
        Answer::State(state) => Ok(*state),
        other @ (Answer::Cleared { .. } | Answer::Refused { .. }) => bail!("the loader of {node}: {other:?}"),
    }
}

/// What the loader of `node` answers to these bytes from the agent's user.
///
/// # Errors
/// When they cannot be sent.
pub(crate) fn said(stage: &Stage<'_>, node: &str, message: &[u8]) -> anyhow::Result<String> {
    let guest = stage.node(node)?;
    let file = stage.product.folder("loader")?.join("message");
    std::fs::write(&file, message)?;
    let sender = std::env::current_exe()?.with_file_name("invivo-lab-send");
    for (from, to) in [(file, MESSAGE), (sender, SENDER)] {
        let copied = stage.lab.copy_to(&guest, &from, to)?;
        if !copied.success() {
            bail!("copy to {node}: {}", copied.text());
        }
    }
    let output = guest.run(
        // The folder is entered as root; what follows has the agent's user and nothing more.
        &format!(
            "chmod 755 {SENDER} /var/lib/invivo-lab; chmod 644 {MESSAGE}
             cd /proc/$(pidof invivo-loader | cut -d' ' -f1)/root/run/invivo &&
             setpriv --reuid 65532 --regid 65532 --clear-groups {SENDER} loader.sock {MESSAGE}"
        ),
        Duration::from_mins(2),
    )?;
    Ok(output.text())
}
