//! The how-tos, done: every command and every object of each page, in its order.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::fleet::Seen;
use crate::product::SET;
use crate::stage::{PATIENCE, Stage};

/// The names that the pages use.
const FEED: &str = "production";
const POLICY: &str = "workers";
/// What they leave behind beside their policy and feeds.
const MADE: [&str; 3] = [
    "clusterrolebinding/approvers",
    "clusterrolebinding/withdraws-approvals",
    "clusterrole/withdraws-approvals",
];

/// A block of a page: what it is written in, whose it is, and itself.
#[derive(Debug)]
struct Block {
    language: String,
    user: Option<String>,
    text: String,
}

/// The older policy keeps its nodes, so whatever the pages' one says moves none.
pub(super) fn how_tos(stage: &Stage<'_>) -> anyhow::Result<()> {
    stage.product.apply(&stage.product.feed_named(FEED, &stage.url, &stage.repository.root()?))?;
    stage.product.apply(&format!(
        "apiVersion: invivo.dev/v1alpha1\nkind: PatchPolicy\nmetadata: {{name: {POLICY}}}\nspec: {{feed: {FEED}}}\n"
    ))?;
    let done = do_pages(stage);
    stage.product.kubectl(&["delete", "--ignore-not-found", "patchpolicy", POLICY])?;
    stage.product.kubectl(&["delete", "--ignore-not-found", "patchfeed", "production-q2", FEED])?;
    for made in MADE {
        stage.product.kubectl(&["delete", "--ignore-not-found", made])?;
    }
    done
}

fn do_pages(stage: &Stage<'_>) -> anyhow::Result<()> {
    let folder = stage.product.tree().join("docs/how-to");
    let mut pages: Vec<PathBuf> = std::fs::read_dir(&folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("read {}", folder.display()))?;
    pages.sort();
    ensure!(pages.len() >= 5, "only {} pages in {}", pages.len(), folder.display());
    for page in pages {
        // A page may end with sets withheld that the next one wants.
        stage.fleet.wait(&format!("PatchSet {FEED}.{SET}"), PATIENCE, || {
            let set = format!("{FEED}.{SET}");
            Ok(Seen::Answer(stage.product.kubectl(&["get", "patchset", &set, "-o", "name"])?))
        })?;
        let text = std::fs::read_to_string(&page).with_context(|| format!("read {}", page.display()))?;
        let blocks = blocks(&text);
        let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ensure!(!blocks.is_empty(), "{name} shows nothing to do");
        for block in &blocks {
            match block.language.as_str() {
                "yaml" => {
                    stage.product.apply(&block.text).with_context(|| format!("{name}: {}", block.text))?;
                }
                "sh" => run(stage, block).with_context(|| format!("{name}: {}", block.text))?,
                other => bail!("{name} has a block in {other:?}, which nobody tries"),
            }
        }
        println!("  {name}: {} blocks", blocks.len());
    }
    Ok(())
}

/// The fenced blocks of a page. Behind the language may stand who does it: ```` ```sh ada@example.com ````.
fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(info), None) => {
                let mut words = info.split_whitespace().map(str::to_owned);
                let language = words.next().unwrap_or_default();
                open = Some(Block { language, user: words.next(), text: String::new() });
            }
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// In a shell that finds kubectl with the plugin, as the administrator or as whom the block names.
fn run(stage: &Stage<'_>, block: &Block) -> anyhow::Result<()> {
    let plugins = stage.product.folder("plugins")?;
    let plugin = plugins.join("kubectl-invivo");
    std::os::unix::fs::symlink(stage.product.program("invivo"), &plugin).context("install the plugin")?;
    let kubectl = stage.lab.kubectl();
    let tools = PathBuf::from(kubectl.get_program()).parent().context("kubectl is in no folder")?.to_owned();
    let path = std::env::join_paths(
        [plugins.clone(), tools]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let mut kubeconfig = stage.lab.pki().path("admin.kubeconfig");
    if let Some(user) = &block.user {
        let ours = std::fs::read_to_string(&kubeconfig)?;
        let theirs = ours.replace("  user:\n", &format!("  user:\n    as: {user}\n"));
        ensure!(theirs != ours, "the kubeconfig has another form");
        kubeconfig = plugins.join("kubeconfig");
        std::fs::write(&kubeconfig, theirs)?;
    }
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &block.text])
        .env("PATH", path)
        .env("KUBECONFIG", kubeconfig)
        .output()
        .context("start bash")?;
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_its_fenced_blocks_with_their_language_and_who_does_them() {
        let page = "Text\n\n```sh\na\nb\n```\nmore\n```yaml\nc: d\n```\n```sh ada@example.com\ne\n```\n";
        let seen: Vec<_> = blocks(page)
            .into_iter()
            .map(|block| format!("{} {:?} {}", block.language, block.user, block.text))
            .collect();
        let wanted = ["sh None a\nb\n", "yaml None c: d\n", "sh Some(\"ada@example.com\") e\n"];
        assert_eq!(seen, wanted);
    }
}
