//! What a patch module says of itself: the `.modinfo` section of its ELF file, read within bounds.

use invivo_terms::{BuildId, ModuleName, Refusal};

use crate::document::{BundleMechanism, Manifest, cap};
use crate::{Document, Rejection};

/// The most sections; a patch module has a few dozen.
const MAX_SECTIONS: u16 = 4_096;
/// The longest `.modinfo`, in bytes.
const MAX_MODINFO: u64 = 64 << 10;
/// Size of an ELF64 section header.
const SECTION_HEADER: u64 = 64;
/// `e_type` of a relocatable file.
const ET_REL: u16 = 1;
/// `e_machine` of x86-64.
const EM_X86_64: u16 = 62;

/// The fields of `.modinfo` that tell what a patch module is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModInfo {
    /// `name`
    pub name: String,
    /// `vermagic`
    pub vermagic: String,
    /// Whether `livepatch=Y` is there; the kernel applies klp relocations only then.
    pub livepatch: bool,
    /// `invivo_build_id`: the kernel build that the module was made for and checks at its load.
    pub build_id: Option<String>,
    /// `invivo_level`
    pub level: Option<String>,
    /// `invivo_set`
    pub set: Option<String>,
    /// `invivo_features`, separated by commas: what it can do for the modules that it changes.
    pub features: Option<String>,
}

impl ModInfo {
    /// Reads a module's bytes.
    ///
    /// # Errors
    ///
    /// `Malformed` where they are no 64-bit little-endian relocatable ELF file with one
    /// `.modinfo`, or a field is missing or stands twice; `WrongKernel` for another machine.
    pub fn read(module: &[u8]) -> Result<Self, Rejection> {
        if module.len() as u64 > cap::MODULE {
            return Err(Rejection::new(
                Refusal::EndlessData,
                Document::Module,
                "longer than a module may be",
            ));
        }
        let section = modinfo(module)?;
        let mut fields = Fields::default();
        for entry in section.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
            let entry = std::str::from_utf8(entry).map_err(|_| malformed("its modinfo is not text"))?;
            let (key, value) =
                entry.split_once('=').ok_or_else(|| malformed("its modinfo has no key=value"))?;
            fields.take(key, value)?;
        }
        Ok(Self {
            name: fields.name.ok_or_else(|| malformed("its modinfo has no name"))?,
            vermagic: fields.vermagic.ok_or_else(|| malformed("its modinfo has no vermagic"))?,
            livepatch: fields.livepatch.is_some_and(|value| value == "Y"),
            build_id: fields.build_id,
            level: fields.level,
            set: fields.set,
            features: fields.features,
        })
    }

    /// Whether it says that it can do this. The kernel ignores a parameter that a module does not
    /// have, so this is asked before one is passed.
    pub fn can(&self, feature: &str) -> bool {
        self.features.iter().flat_map(|features| features.split(',')).any(|one| one == feature)
    }

    /// Compares with the manifest that names the module.
    ///
    /// # Errors
    ///
    /// `WrongKernel` where it is for another build; `ArbitrarySoftware` where it is another module.
    pub fn agrees(&self, manifest: &Manifest, name: &ModuleName) -> Result<(), Rejection> {
        let refuse = |refusal, detail: String| Err(Rejection::new(refusal, Document::Module, detail));
        if self.build_id.as_deref() != Some(manifest.kernel.build_id.as_str()) {
            let found = self.build_id.as_deref().unwrap_or("no build");
            return refuse(
                Refusal::WrongKernel,
                format!("{name} is for {found:.64}, not {}", manifest.kernel.build_id),
            );
        }
        if self.vermagic != manifest.vermagic {
            return refuse(
                Refusal::WrongKernel,
                format!("{name} has vermagic {:.64}, not {:.64}", self.vermagic, manifest.vermagic),
            );
        }
        if self.name != name.as_str() {
            return refuse(Refusal::ArbitrarySoftware, format!("{name} calls itself {:.64}", self.name));
        }
        let level = manifest.level.to_string();
        if self.level.as_ref().is_some_and(|found| *found != level)
            || self.set.as_ref().is_some_and(|found| found != manifest.set.as_str())
        {
            return refuse(Refusal::ArbitrarySoftware, format!("{name} is of another set or level"));
        }
        for mechanism in &manifest.mechanisms {
            match mechanism {
                BundleMechanism::Livepatch if !self.livepatch => {
                    return refuse(Refusal::ArbitrarySoftware, format!("{name} is not a livepatch"));
                }
                BundleMechanism::Livepatch => {}
            }
        }
        Ok(())
    }
}

/// The running kernel, as its own files tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunningKernel<'a> {
    /// From `/sys/kernel/notes`.
    pub build_id: &'a BuildId,
    /// `uname -r`
    pub release: &'a str,
    /// `uname -m`
    pub arch: invivo_terms::Arch,
}

/// Compares a verified manifest with the kernel that runs.
///
/// # Errors
///
/// `WrongKernel`.
pub fn check_running(manifest: &Manifest, running: RunningKernel<'_>) -> Result<(), Rejection> {
    let made_for = &manifest.kernel;
    if made_for.build_id != *running.build_id
        || made_for.release != running.release
        || made_for.arch != running.arch
    {
        let detail = format!(
            "made for {} {}, running is {:.64} {}",
            made_for.release, made_for.build_id, running.release, running.build_id
        );
        return Err(Rejection::new(Refusal::WrongKernel, Document::Manifest, detail));
    }
    Ok(())
}

/// Each field once: the kernel takes the first of two, another reader may take the second.
#[derive(Default)]
struct Fields {
    name: Option<String>,
    vermagic: Option<String>,
    livepatch: Option<String>,
    build_id: Option<String>,
    level: Option<String>,
    set: Option<String>,
    features: Option<String>,
}

impl Fields {
    fn take(&mut self, key: &str, value: &str) -> Result<(), Rejection> {
        let field = match key {
            "name" => &mut self.name,
            "vermagic" => &mut self.vermagic,
            "livepatch" => &mut self.livepatch,
            "invivo_build_id" => &mut self.build_id,
            "invivo_level" => &mut self.level,
            "invivo_set" => &mut self.set,
            "invivo_features" => &mut self.features,
            _ => return Ok(()),
        };
        if field.replace(value.to_owned()).is_some() {
            return Err(malformed(format!("its modinfo has two of {key}")));
        }
        Ok(())
    }
}

/// The bytes of the one `.modinfo`.
fn modinfo(module: &[u8]) -> Result<&[u8], Rejection> {
    let relocatable =
        module.get(..6) == Some(b"\x7fELF\x02\x01") && number(module, 16, 2) == Some(u64::from(ET_REL));
    if !relocatable {
        return Err(malformed("not a 64-bit little-endian relocatable ELF file"));
    }
    if number(module, 18, 2) != Some(u64::from(EM_X86_64)) {
        return Err(Rejection::new(
            Refusal::WrongKernel,
            Document::Module,
            "made for another machine than x86_64",
        ));
    }
    let short = || malformed("its section headers are not where they should be");
    let headers = number(module, 0x28, 8).ok_or_else(short)?;
    let count = number(module, 0x3c, 2).ok_or_else(short)?;
    let names = number(module, 0x3e, 2).ok_or_else(short)?;
    if number(module, 0x3a, 2) != Some(SECTION_HEADER) || count > u64::from(MAX_SECTIONS) || names >= count {
        return Err(short());
    }
    let section = |at: u64| -> Option<(u64, &[u8])> {
        let header = slice(module, at.checked_mul(SECTION_HEADER)?.checked_add(headers)?, SECTION_HEADER)?;
        let field = |offset, width| number(header, offset, width);
        let (name, offset, size) = (field(0, 4)?, field(0x18, 8)?, field(0x20, 8)?);
        // A section without bytes in the file (type 8, .bss) has a size all the same.
        let bytes = if field(4, 4)? == 8 { &[][..] } else { slice(module, offset, size)? };
        Some((name, bytes))
    };
    let (_, strings) = section(names).ok_or_else(short)?;
    let mut found = None;
    for at in 0..count {
        let (name, bytes) = section(at).ok_or_else(short)?;
        let name = usize::try_from(name).ok().and_then(|name| strings.get(name..)).ok_or_else(short)?;
        if name.starts_with(b".modinfo\0") && found.replace(bytes).is_some() {
            return Err(malformed("it has two .modinfo sections"));
        }
    }
    match found {
        Some(bytes) if bytes.len() as u64 <= MAX_MODINFO => Ok(bytes),
        Some(_) => Err(malformed("its modinfo is too long")),
        None => Err(malformed("it has no modinfo")),
    }
}

/// A little-endian number of so many bytes.
fn number(bytes: &[u8], at: u64, width: u64) -> Option<u64> {
    Some(slice(bytes, at, width)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn slice(bytes: &[u8], at: u64, length: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(at).ok()?..usize::try_from(at.checked_add(length)?).ok()?)
}

fn malformed(detail: impl Into<String>) -> Rejection {
    Rejection::new(Refusal::Malformed, Document::Module, detail)
}
