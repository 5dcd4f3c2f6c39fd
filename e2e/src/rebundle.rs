//! Bundles made from the real one that a careless author could sign: for another repository, or
//! with a module that checks well and that no kernel takes.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use invivo_bundle::{Bundle, pack, unpack};
use invivo_feed::document::Manifest;
use invivo_terms::{Level, ModuleName, RepositoryName, SetName};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

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
    let (manifest, mut module) = at_level(bundle, set, 2)?;
    let build_id = hex::decode(manifest.kernel.build_id.as_str()).context("a build id")?;
    let mut other = build_id.clone();
    *other.first_mut().context("an empty build id")? ^= 1;
    replace(&mut module, &build_id, &other)?;
    sealed(manifest, &module, folder)
}

/// The patch as level 3 of another set, whose new `function` is an invalid instruction: whoever
/// calls it makes the kernel oops.
///
/// # Errors
/// When `bundle` is none, or the new one cannot be written.
pub(crate) fn oopses_when_called(
    bundle: &Path,
    set: &str,
    function: &str,
    folder: &Path,
) -> anyhow::Result<PathBuf> {
    /// `ud2`
    const INVALID: [u8; 2] = [0x0f, 0x0b];
    /// The kernel's own hook takes the first bytes of a function.
    const HOOK: usize = 5;
    let (manifest, mut module) = at_level(bundle, set, 3)?;
    let at = place_of(&module, function)? + HOOK;
    module.get_mut(at..at + INVALID.len()).context("a function without a body")?.copy_from_slice(&INVALID);
    sealed(manifest, &module, folder)
}

/// Where a function's code is in the file.
fn place_of(module: &[u8], function: &str) -> anyhow::Result<usize> {
    let file = object::File::parse(module).context("a module")?;
    let symbol = file
        .symbols()
        .find(|symbol| symbol.name() == Ok(function) && symbol.kind() == SymbolKind::Text)
        .with_context(|| format!("{function} is not in the module"))?;
    let section = file.section_by_index(symbol.section_index().context("an undefined function")?)?;
    let (start, _) = section.file_range().context("a section without bytes")?;
    Ok(usize::try_from(start + symbol.address())?)
}

/// The bundle's parts as another level, of another set.
fn at_level(bundle: &Path, set: &str, level: u8) -> anyhow::Result<(Manifest, Vec<u8>)> {
    let (mut manifest, mut module) = open(bundle)?;
    let named = manifest.modules.first_mut().context("a manifest without a module")?;
    let old = named.name.to_string();
    let new = old.replace("_l1_", &format!("_l{level}_"));
    replace(&mut module, old.as_bytes(), new.as_bytes())?;
    replace(&mut module, b"invivo_level=1\0", format!("invivo_level={level}\0").as_bytes())?;
    replace(
        &mut module,
        format!("invivo_set={}\0", manifest.set).as_bytes(),
        format!("invivo_set={set}\0").as_bytes(),
    )?;
    named.name = new.parse::<ModuleName>()?;
    manifest.level = Level(level.into());
    manifest.set = set.parse::<SetName>()?;
    Ok((manifest, module))
}

/// Writes a bundle of a module as it now is.
fn sealed(mut manifest: Manifest, module: &[u8], folder: &Path) -> anyhow::Result<PathBuf> {
    manifest.modules.first_mut().context("a manifest without a module")?.sha256 = invivo_feed::digest(module);
    write(&manifest, module, folder)
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
