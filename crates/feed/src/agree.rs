//! Whether a manifest says the same as the kernel document that names it.

use invivo_terms::{Refusal, RepositoryName};

use crate::document::{KernelFacts, LevelEntry, Manifest};
use crate::{Document, Rejection};

/// Compares everything that both documents say.
///
/// # Errors
///
/// `SignatureConfusion` for another repository, `WrongKernel` for another build, `MixAndMatch` else.
pub(crate) fn manifest(
    repository: &RepositoryName,
    kernel: &KernelFacts,
    entry: &LevelEntry,
    manifest: &Manifest,
) -> Result<(), Rejection> {
    let refuse = |refusal, detail: String| Err(Rejection::new(refusal, Document::Manifest, detail));
    if manifest.repository != *repository {
        return refuse(Refusal::SignatureConfusion, format!("it is of repository {}", manifest.repository));
    }
    if manifest.kernel != *kernel {
        let found = &manifest.kernel;
        return refuse(Refusal::WrongKernel, format!("it is for {} {}", found.release, found.build_id));
    }
    if manifest.vermagic.split(' ').next() != Some(kernel.release.as_str()) {
        return refuse(
            Refusal::WrongKernel,
            format!("vermagic {:.64} is not of {}", manifest.vermagic, kernel.release),
        );
    }
    if manifest.set != entry.set || manifest.level != entry.level {
        return refuse(
            Refusal::MixAndMatch,
            format!("it is of set {}, level {}", manifest.set, manifest.level),
        );
    }
    let same_modules = manifest.modules.len() == entry.modules.len()
        && manifest.modules.iter().zip(&entry.modules).all(|(ours, theirs)| {
            ours.name == theirs.name && ours.length == theirs.length && ours.sha256 == theirs.sha256
        });
    if !same_modules {
        return refuse(Refusal::MixAndMatch, "its modules are not the ones named".to_owned());
    }
    if manifest.modules.iter().any(|module| module.name.level() != manifest.level) {
        return refuse(Refusal::Malformed, "a module is named for another level".to_owned());
    }
    if manifest.mechanisms != entry.mechanisms
        || manifest.complete != entry.complete
        || manifest.fixes != entry.fixes
    {
        return refuse(
            Refusal::MixAndMatch,
            "its mechanisms, claim or fixes are not the ones named".to_owned(),
        );
    }
    Ok(())
}
