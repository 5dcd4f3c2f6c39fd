//! The product's own images, made from its programs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::cache::Cache;
use crate::gotools::GoTools;
use crate::oci::{Image, Item};
use crate::{command, registry};

/// The programs that become images, and who they run as.
const IMAGES: [(&str, &str); 4] = [
    ("invivo-operator", "65532:65532"),
    ("invivo-patch-server", "65532:65532"),
    ("invivo-agent", "65532:65532"),
    ("invivo-loader", "0:0"),
];

/// Makes each image from the programs in one folder and hands it to `put` as `NAME:VERSION`.
/// Stripped copies are left in `work`.
///
/// # Errors
/// When a program was not built, or `put` fails.
pub fn each(
    programs: &Path,
    work: &Path,
    mut put: impl FnMut(&str, &Image) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for (name, user) in IMAGES {
        let source = programs.join(name);
        ensure!(source.exists(), "{} was not built", source.display());
        // Symbols are of no use in an image and take half of what a node has to pull.
        let small = work.join(name);
        command::output(Command::new("strip").arg("--strip-all").arg("-o").arg(&small).arg(&source))?;
        let image = Image {
            entrypoint: vec![format!("/{name}")],
            user: user.to_owned(),
            items: vec![Item { source: Some(small), path: name.to_owned(), mode: 0o755 }],
        };
        put(&format!("{name}:{}", env!("CARGO_PKG_VERSION")), &image)?;
    }
    Ok(())
}

/// Makes them from the programs beside this one and puts them into a registry that is not the lab's,
/// with the credentials that `docker login` or `crane auth login` left.
///
/// # Errors
/// When a program was not built, or the registry refuses.
pub fn push_to(prefix: &str) -> anyhow::Result<()> {
    let tools = GoTools::only(&Cache::open()?, "crane")?;
    let own = std::env::current_exe()?;
    let programs = own.parent().context("this program is in no folder")?;
    let work = tempfile::tempdir()?;
    each(programs, work.path(), |name, image| {
        let layout = tempfile::tempdir()?;
        let reference = format!("{prefix}/{name}");
        let digest = registry::push(&tools, image, layout.path(), &reference, &[])?;
        println!("{reference} {digest}");
        Ok(())
    })
}
