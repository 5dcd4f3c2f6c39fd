//! A repository made with `invivo repo`, the way a patch author makes one.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::product::{FEED, Product, SET};

/// The people who sign; two of three must.
const HOLDERS: [&str; 3] = ["ada", "bob", "eve"];
/// The online key.
const CLOCK: &str = "clock";

/// A published repository: a folder of plain files, and the keys that it was made with.
#[derive(Debug, Clone)]
pub struct Repository {
    /// Keys, desk and forgeries.
    work: PathBuf,
    folder: PathBuf,
}

impl Repository {
    /// Keys, repository, bundle, two signatures of three, published.
    pub(crate) fn publish(product: &Product<'_>, work: &Path, bundle: &Path) -> anyhow::Result<Self> {
        Self::publish_all(product, work, &[(SET, bundle)])
    }

    /// The same for several bundles at once, each with its set.
    pub(crate) fn publish_all(
        product: &Product<'_>,
        work: &Path,
        bundles: &[(&str, &Path)],
    ) -> anyhow::Result<Self> {
        let repository = Self::at(work, FEED);
        for name in HOLDERS.iter().chain(&[CLOCK]) {
            product.invivo(&[
                "repo",
                "keygen",
                "--name",
                name,
                "--key",
                &repository.key(name),
                "--cert",
                &repository.certificate(name),
            ])?;
        }
        repository.found(product, FEED)?;
        repository.add_all(product, bundles, "stable")?;
        Ok(repository)
    }

    /// One that was published before.
    pub(crate) fn open(work: &Path) -> anyhow::Result<Self> {
        let repository = Self::at(work, FEED);
        if !repository.folder.is_dir() {
            bail!("no repository in {}", work.display());
        }
        Ok(repository)
    }

    /// Another repository of the same people with another name.
    pub(crate) fn sister(&self, product: &Product<'_>, name: &str, bundle: &Path) -> anyhow::Result<Self> {
        let sister = Self::at(&self.work, name);
        sister.clear()?;
        sister.found(product, name)?;
        sister.add(product, bundle, SET, "stable")?;
        Ok(sister)
    }

    /// Another repository of the same people, in order and with nothing in it.
    pub(crate) fn without_sets(&self, product: &Product<'_>, name: &str) -> anyhow::Result<Self> {
        let bare = Self::at(&self.work, name);
        bare.clear()?;
        bare.found(product, name)?;
        bare.add_all(product, &[], "stable")?;
        Ok(bare)
    }

    fn clear(&self) -> anyhow::Result<()> {
        let desk = self.desk();
        if Path::new(&desk).exists() {
            std::fs::remove_dir_all(&desk).with_context(|| format!("empty {desk}"))?;
        }
        Ok(())
    }

    /// Publishes one more bundle.
    pub(crate) fn add(
        &self,
        product: &Product<'_>,
        bundle: &Path,
        set: &str,
        channel: &str,
    ) -> anyhow::Result<()> {
        self.add_all(product, &[(set, bundle)], channel)
    }

    /// Publishes several bundles at once, each with its set.
    pub(crate) fn add_all(
        &self,
        product: &Product<'_>,
        bundles: &[(&str, &Path)],
        channel: &str,
    ) -> anyhow::Result<()> {
        for (set, bundle) in bundles {
            let bundle = bundle.to_string_lossy();
            product.invivo(&["repo", "add", &self.desk(), &bundle, "--set", set, "--channel", channel])?;
        }
        self.release(product)
    }

    /// Its author takes a set back.
    pub(crate) fn withdraw(&self, product: &Product<'_>, set: &str) -> anyhow::Result<()> {
        product.invivo(&["repo", "withdraw", &self.desk(), "--set", set])?;
        self.release(product)
    }

    fn release(&self, product: &Product<'_>) -> anyhow::Result<()> {
        product.invivo(&["repo", "stage", &self.desk()])?;
        self.sign(product)?;
        product.invivo(&["repo", "publish", &self.desk(), "--timestamp-key", &self.key(CLOCK)])?;
        Ok(())
    }

    fn at(work: &Path, name: &str) -> Self {
        Self { work: work.to_owned(), folder: work.join(format!("desk-{name}/repository")) }
    }

    fn found(&self, product: &Product<'_>, name: &str) -> anyhow::Result<()> {
        let mut create: Vec<String> =
            ["repo", "create", &self.desk(), "--name", name, "--threshold", "2"].map(str::to_owned).into();
        for holder in HOLDERS {
            create.extend(["--trust".into(), self.certificate(holder)]);
            create.extend(["--index".into(), self.certificate(holder)]);
        }
        create.extend(["--timestamp".into(), self.certificate(CLOCK)]);
        product.invivo(&create.iter().map(String::as_str).collect::<Vec<_>>())?;
        self.sign(product)
    }

    fn sign(&self, product: &Product<'_>) -> anyhow::Result<()> {
        for name in ["ada", "bob"] {
            product.invivo(&["repo", "sign", &self.desk(), "--key", &self.key(name)])?;
        }
        Ok(())
    }

    /// Its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where forgeries of it are kept.
    pub(crate) fn work(&self) -> &Path {
        &self.work
    }

    /// The digest that people pin.
    ///
    /// # Errors
    /// When `trust/1.json` is not there.
    pub fn root(&self) -> anyhow::Result<String> {
        use sha2::{Digest, Sha256};
        let bytes = std::fs::read(self.folder.join("trust/1.json")).context("read trust/1.json")?;
        Ok(hex::encode(Sha256::digest(bytes)))
    }

    fn desk(&self) -> String {
        self.folder.parent().unwrap_or(&self.folder).to_string_lossy().into_owned()
    }

    fn key(&self, name: &str) -> String {
        self.work.join(format!("{name}.key")).to_string_lossy().into_owned()
    }

    fn certificate(&self, name: &str) -> String {
        self.work.join(format!("{name}.cert")).to_string_lossy().into_owned()
    }
}
