//! Nodes whose kernels allow less.

use std::time::Duration;

use anyhow::ensure;
use invivo_api::Signing;
use invivo_terms::{Level, NodeState};

use super::verdicts::wait_of;
use crate::image::NODE_KERNEL;
use crate::node::Node;
use crate::stage::{PATIENCE, Stage};

pub(super) fn apparmor(stage: &Stage<'_>) -> anyhow::Result<()> {
    with_node(stage, "apparmor=1 security=apparmor", "true", |node| {
        wait_of(stage, node.name(), "level 1", |status| status.level == Level(1))?;
        let script = "cat /proc/$(pidof invivo-loader)/attr/current /proc/sys/kernel/watchdog";
        let confined = node.run(script, Duration::from_secs(30))?;
        println!("  {}: {}", node.name(), confined.text().trim().replace('\n', ", watchdog "));
        ensure!(
            confined.text().contains("cri-containerd.apparmor.d (enforce)"),
            "the loader is not confined"
        );
        ensure!(confined.text().trim().ends_with('1'), "no watchdog");
        wait_of(stage, node.name(), "Settled", |status| status.state == NodeState::Settled)?;
        Ok(())
    })
}

pub(super) fn signatures(stage: &Stage<'_>) -> anyhow::Result<()> {
    refused(
        stage,
        "apparmor=0 nowatchdog module.sig_enforce=1",
        "true",
        Signing::Enforced,
        "ModuleSigningKeyMissing",
    )
}

pub(super) fn lockdown(stage: &Stage<'_>) -> anyhow::Result<()> {
    // As with Secure Boot: nothing of it is on the kernel's command line.
    let lock = "echo integrity > /sys/kernel/security/lockdown";
    refused(stage, crate::node::USUAL, lock, Signing::Lockdown, "Lockdown")
}

/// A node that `prepare` has made stricter before its agent comes.
fn refused(
    stage: &Stage<'_>,
    parameters: &str,
    prepare: &str,
    demands: Signing,
    reason: &str,
) -> anyhow::Result<()> {
    with_node(stage, parameters, prepare, |node| {
        let told = |status: &invivo_api::NodePatchStatus| status.reason.as_deref() == Some(reason);
        let status = wait_of(stage, node.name(), reason, told)?;
        println!("  {}: {} {}", node.name(), status.state, status.message.as_deref().unwrap_or_default());
        ensure!(status.level == Level::UNPATCHED, "level {} is on", status.level);
        let signing = status.kernel.map(|kernel| kernel.signing);
        println!("  {}: kernel.signing {signing:?}", node.name());
        ensure!(signing == Some(demands), "not {demands:?}");
        let loaded = node.run("lsmod | grep -c ^invivo_", Duration::from_secs(30))?;
        ensure!(loaded.text().trim() == "0", "a module was loaded: {}", loaded.text());
        Ok(())
    })
}

/// One node more, told to take the patch; gone afterwards.
fn with_node(
    stage: &Stage<'_>,
    parameters: &str,
    prepare: &str,
    check: impl FnOnce(&Node) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let added = stage.lab.add_node(NODE_KERNEL, None, parameters)?;
    let prepared = added.run(prepare, Duration::from_secs(30))?;
    ensure!(prepared.success(), "{prepare}: {}", prepared.text());
    let result = stage.target_at_once("Latest").and_then(|()| check(&added));
    added.power_off()?;
    stage.product.kubectl(&["delete", "node", added.name()])?;
    stage.fleet.wait("its NodePatch to be gone", PATIENCE, || {
        Ok(match stage.fleet.patches()?.remove(added.name()) {
            None => crate::fleet::Seen::Answer(()),
            Some(_) => crate::fleet::Seen::NotYet("it is there".to_owned()),
        })
    })?;
    added.remove()?;
    result
}
