//! What this program asks of a bundle beyond packing and unpacking.

use invivo_bundle::Bundle;
use invivo_feed::document::Manifest;
use invivo_feed::{Document, Rejection};
use invivo_terms::{ModuleName, Refusal, SetName};

/// The set that a bundle's manifest says it is of.
///
/// # Errors
///
/// `Malformed`.
pub(crate) fn set_of(bundle: &Bundle) -> Result<SetName, Rejection> {
    serde_json::from_slice::<Manifest>(&bundle.manifest)
        .map(|manifest| manifest.set)
        .map_err(|error| Rejection::new(Refusal::Malformed, Document::Manifest, error.to_string()))
}

/// A module of a bundle.
///
/// # Errors
///
/// `ArbitrarySoftware` if the bundle does not have what its manifest names.
pub(crate) fn module<'a>(bundle: &'a Bundle, name: &ModuleName) -> Result<&'a [u8], Rejection> {
    let found = bundle.modules.iter().find(|module| module.name == *name);
    found.map(|module| module.bytes.as_slice()).ok_or_else(|| {
        Rejection::new(Refusal::ArbitrarySoftware, Document::Module, format!("the bundle has no {name}"))
    })
}
