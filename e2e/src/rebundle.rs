//! Bundles made from the real one that a careless author could sign: for another repository, or
//! with a module that checks well and that no kernel takes.

use std::io::Read as _;
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

/// A patch by hand: the real one with other code, perhaps in place of another function.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByHand<'a> {
    /// Sets and levels of a repository only rise: in the order in which the scenarios publish them.
    pub(crate) set: &'a str,
    pub(crate) level: u8,
    /// The kernel's function that this one replaces; no longer a name than [`FUNCTION`].
    pub(crate) replaces: &'a str,
    /// What it does instead.
    pub(crate) code: &'a [u8],
}

/// The function that the real patch replaces.
pub(crate) const FUNCTION: &str = "ip_options_get";
/// `ud2`: whoever calls it makes the kernel oops.
pub(crate) const OOPS: &[u8] = &[0x0f, 0x0b];
/// `mov $-11,%rax; ret`: whoever calls it is told `EAGAIN`.
pub(crate) const TELL_EAGAIN: &[u8] = &[0x48, 0xc7, 0xc0, 0xf5, 0xff, 0xff, 0xff, 0xc3];

impl ByHand<'_> {
    /// Writes its bundle, made of this one.
    ///
    /// # Errors
    /// When `bundle` is none, or the new one cannot be written.
    pub(crate) fn make(&self, bundle: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
        /// The kernel's own hook takes the first bytes of a function.
        const HOOK: usize = 5;
        let (manifest, mut module) = at_level(bundle, self.set, self.level)?;
        let at = place_of(&module, FUNCTION)? + HOOK;
        module
            .get_mut(at..at + self.code.len())
            .context("a function without a body")?
            .copy_from_slice(self.code);
        if self.replaces != FUNCTION {
            let named = |name: &str| [name.as_bytes(), b"\0"].concat();
            let (old, mut new) = (named(FUNCTION), named(self.replaces));
            ensure!(new.len() <= old.len(), "{} is too long a name", self.replaces);
            new.resize(old.len(), 0);
            replace(&mut module, &old, &new)?;
        }
        sealed(manifest, &module, folder)
    }
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

/// The same patch as level 2 of another set, with so many random bytes behind its module that the
/// bundle is of this size: the kernel reads no further than the file's own sections.
///
/// # Errors
/// When `bundle` is none, or the new one cannot be written.
pub(crate) fn of_size(bundle: &Path, set: &str, size: usize, folder: &Path) -> anyhow::Result<PathBuf> {
    let (manifest, mut module) = at_level(bundle, set, 2)?;
    let mut noise = vec![0; size.saturating_sub(module.len())];
    std::fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut noise))?;
    module.extend(noise);
    sealed(manifest, &module, folder)
}

/// Writes a bundle of a module as it now is.
fn sealed(mut manifest: Manifest, module: &[u8], folder: &Path) -> anyhow::Result<PathBuf> {
    let named = manifest.modules.first_mut().context("a manifest without a module")?;
    (named.sha256, named.length) = (invivo_feed::digest(module), module.len() as u64);
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
