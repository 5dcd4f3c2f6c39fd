//! What people let in: approvals by two, each in their own name.

use anyhow::{Context, ensure};
use invivo_terms::Hold;

use super::cautious::held;
use crate::check::Hole;
use crate::demo::{CANARY, NODES};
use crate::product::{FEED, SET};
use crate::stage::Stage;

/// The role by which people decide about sets.
const ROLE: &str = "invivo-approver";
/// Its binding in this scenario.
const BINDING: &str = "invivo-lab-approvers";

pub(super) fn two_people_approve(stage: &Stage<'_>) -> anyhow::Result<()> {
    let feed = stage.product.feed(&stage.url, &stage.repository.root()?);
    stage.product.apply(&(feed + "  approval: {mode: Manual, required: 2}\n"))?;
    let users = ["--user=ada", "--user=bob", "--user=eve"];
    let bind = ["create", "clusterrolebinding", BINDING, "--clusterrole", ROLE];
    stage.product.kubectl(&[&bind[..], &users].concat())?;
    let result = decide(stage);
    stage.product.kubectl(&["delete", "clusterrolebinding", BINDING])?;
    result
}

fn decide(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.target("Latest")?;
    held(stage, CANARY, Hold::AwaitingApproval)?;
    let stolen = approve(stage, "eve", "ada").err().context("eve approved in ada's name")?;
    println!("  eve, in ada's name: {}", format!("{stolen:#}").lines().last().unwrap_or_default());
    ensure!(format!("{stolen:#}").contains("may only write your own entry"), "refused otherwise: {stolen:#}");
    approve(stage, "ada", "ada")?;
    held(stage, CANARY, Hold::AwaitingApproval)?;
    stage.require(CANARY, Hole::Open)?;
    approve(stage, "bob", "bob")?;
    stage.wait_closed(&NODES)?;
    let entries = stage.product.kubectl(&[
        "get",
        "patchset",
        &format!("{FEED}.{SET}"),
        "-o",
        "jsonpath={.spec.approvals[*].user}",
    ])?;
    ensure!(entries.trim() == "ada bob", "approved by {entries}");
    Ok(())
}

/// `user` writes an approval in the name of `named`, under a field manager of their own.
fn approve(stage: &Stage<'_>, user: &str, named: &str) -> anyhow::Result<()> {
    let set = format!("{FEED}.{SET}");
    let digest = stage.product.kubectl(&["get", "patchset", &set, "-o", "jsonpath={.spec.digest}"])?;
    let entry = format!(
        "apiVersion: invivo.dev/v1alpha1\nkind: PatchSet\nmetadata: {{name: {set}}}\nspec:\n  approvals:\n  - \
         {{user: {named}, decision: Approve, digest: \"{}\", reason: ran in the lab}}\n",
        digest.trim()
    );
    let path = stage.product.folder("approval")?.join("approval.yaml");
    std::fs::write(&path, entry).with_context(|| format!("write {}", path.display()))?;
    let file = path.to_str().context("a path that is no text")?;
    stage.product.kubectl(&[
        "apply",
        "--server-side",
        "--field-manager",
        &format!("invivo-{user}"),
        "--as",
        user,
        "-f",
        file,
    ])?;
    Ok(())
}
