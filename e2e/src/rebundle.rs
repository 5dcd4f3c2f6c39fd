//! Bundles made from the real one that a careless author could sign: for another repository, or
//! with a module that checks well and that no kernel takes.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use invivo_bundle::{Bundle, pack, unpack};
use invivo_feed::document::Manifest;
use invivo_terms::{Level, ModuleName, RepositoryName, SetName};

/// The same patch, for a repository of another name. Returns the path of the new bundle.
///
/// # Errors
/// When `bundle` is none, or the new one cannot be written.
pub(crate) fn for_repository(bundle: &Path, name: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let (mut manifest, module) = open(bundle)?;
    manifest.repository = name.parse::<RepositoryName>()?;
    write(&manifest, &module, folder)
}

/// The patch as level 2 of another set, with one bit changed in the build id that the module
/// compares with the running kernel's: signed and whole, and refused by its own check (`EINVAL`).
///
/// # Errors
/// When `bundle` is none, or the new one cannot be written.
pub(crate) fn refused_by_kernel(bundle: &Path, set: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let (mut manifest, mut module) = open(bundle)?;
    let named = manifest.modules.first_mut().context("a manifest without a module")?;
    let old = named.name.to_string();
    let new = old.replace("_l1_", "_l2_");
    replace(&mut module, old.as_bytes(), new.as_bytes())?;
    replace(&mut module, b"invivo_level=1\0", b"invivo_level=2\0")?;
    replace(
        &mut module,
        format!("invivo_set={}\0", manifest.set).as_bytes(),
        format!("invivo_set={set}\0").as_bytes(),
    )?;
    let build_id = hex::decode(manifest.kernel.build_id.as_str()).context("a build id")?;
    let mut other = build_id.clone();
    *other.first_mut().context("an empty build id")? ^= 1;
    replace(&mut module, &build_id, &other)?;

    named.name = new.parse::<ModuleName>()?;
    named.sha256 = invivo_feed::digest(&module);
    manifest.level = Level(2);
    manifest.set = set.parse::<SetName>()?;
    write(&manifest, &module, folder)
}

fn open(bundle: &Path) -> anyhow::Result<(Manifest, Vec<u8>)> {
    let bytes = std::fs::read(bundle).with_context(|| format!("read {}", bundle.display()))?;
    let Bundle { manifest, modules } = unpack(&bytes)?;
    let module = modules.into_iter().next().context("a bundle without a module")?;
    Ok((serde_json::from_slice(&manifest)?, module.bytes))
}

fn write(manifest: &Manifest, module: &[u8], folder: &Path) -> anyhow::Result<PathBuf> {
    let name = &manifest.modules.first().context("a manifest without a module")?.name;
    let bytes = pack(&serde_json::to_vec(manifest)?, &[(name, module)])?;
    let path = folder.join("patch.bundle");
    std::fs::write(&path, bytes).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Replaces every occurrence by as many other bytes.
fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) -> anyhow::Result<()> {
    ensure!(old.len() == new.len(), "bytes that would move the others");
    let mut found = false;
    for at in 0..=bytes.len().saturating_sub(old.len()) {
        if let Some(there) = bytes.get_mut(at..at + old.len()).filter(|there| *there == old) {
            there.copy_from_slice(new);
            found = true;
        }
    }
    ensure!(found, "{:?} is not in the module", String::from_utf8_lossy(old));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_occurrence_is_replaced_and_none_is_an_error() {
        let mut bytes = b"-old-old".to_vec();
        replace(&mut bytes, b"old", b"new").unwrap();
        assert_eq!(bytes, b"-new-new");
        assert!(replace(&mut bytes, b"old", b"new").is_err());
        assert!(replace(&mut bytes, b"new", b"longer").is_err());
    }
}
