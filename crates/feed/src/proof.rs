//! The proof of a bundle: every document from the pinned root to the manifest.

use serde::{Deserialize, Serialize};

/// A document as it came, with its detached signatures (binary OpenPGP signature packets, one after the other).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The exact bytes that were signed.
    #[serde(with = "text")]
    pub document: Vec<u8>,
    /// The signatures.
    #[serde(with = "text")]
    pub signatures: Vec<u8>,
}

impl Signed {
    /// Length of both in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.document.len() as u64 + self.signatures.len() as u64
    }
}

/// Everything that vouches for one module, but the module itself. Tens of KiB, and never more than
/// [`cap::PROOF`](crate::document::cap::PROOF) as JSON; stored beside a settled level it is enough to
/// apply that level again without a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// `trust/1.json` up to the current one.
    pub trust: Vec<Signed>,
    /// `timestamp.json`
    pub timestamp: Signed,
    /// `index/N.json`
    pub index: Signed,
    /// `kernels/<sha256>.json`
    #[serde(with = "text")]
    pub kernel: Vec<u8>,
    /// The bundle's `manifest.json`.
    #[serde(with = "text")]
    pub manifest: Vec<u8>,
}

impl Proof {
    /// Length as JSON, with a manifest of this many bytes in place of its own: what a node that keeps
    /// it needs room for, told before the manifest is there.
    ///
    /// # Errors
    ///
    /// None that is known; JSON's own.
    pub fn length_with(&self, manifest: u64) -> serde_json::Result<u64> {
        let mut count = Count(0);
        serde_json::to_writer(&mut count, self)?;
        let encoded = |bytes: u64| bytes.div_ceil(3).saturating_mul(4);
        Ok(count.0.saturating_sub(encoded(self.manifest.len() as u64)).saturating_add(encoded(manifest)))
    }
}

/// Counts what is written.
struct Count(u64);

impl std::io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Bytes as base64 text, a third longer than they are. JSON's own way, a list of numbers, would make
/// a proof three and a half times as long.
mod text {
    use std::fmt;

    use base64::Engine as _;
    use base64::display::Base64Display;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&Base64Display::new(bytes, &STANDARD))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        from.deserialize_str(Text)
    }

    /// Decodes from the text where it stands, so that megabytes are not copied twice.
    struct Text;

    impl Visitor<'_> for Text {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes as base64 text")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
            STANDARD.decode(text).map_err(E::custom)
        }
    }
}
