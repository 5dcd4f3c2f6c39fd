//! Made-up kernels, modules and manifests for tests: true in form, so that everything that checks
//! them has something to check, and of no use to a kernel.

use std::collections::BTreeMap;

use invivo_terms::{Arch, BuildId, InvalidName, Level, ModuleName, RepositoryName, SetName};

use sequoia_openpgp::Packet;
use sequoia_openpgp::serialize::MarshalInto as _;

use crate::document::{BundleMechanism, Evidence, Fix, KernelFacts, Manifest, ManifestModule, PatchedObject};
use crate::{Document, digest, signature};

/// A bundle's parts.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The manifest.
    pub manifest: Manifest,
    /// The same as `manifest.json`.
    pub manifest_bytes: Vec<u8>,
    /// The only module's name.
    pub name: ModuleName,
    /// The only module: an ELF file with a modinfo and no code.
    pub module: Vec<u8>,
}

/// A kernel build whose id is this hex digit 40 times.
///
/// # Errors
///
/// For anything but a lower-case hex digit.
pub fn kernel(digit: char) -> Result<KernelFacts, InvalidName> {
    Ok(KernelFacts {
        build_id: build_id(digit)?,
        release: "6.1.0-47-cloud-amd64".to_owned(),
        version: "6.1.170-3".to_owned(),
        arch: Arch::X86_64,
        distribution: "debian".to_owned(),
    })
}

/// The build id that is this hex digit 40 times.
///
/// # Errors
///
/// For anything but a lower-case hex digit.
pub fn build_id(digit: char) -> Result<BuildId, InvalidName> {
    digit.to_string().repeat(40).parse()
}

/// A bundle for `kernel` at `level`, of `set` of `repository`.
///
/// # Errors
///
/// Never for a level that fits a name.
pub fn sample(
    repository: &RepositoryName,
    kernel: &KernelFacts,
    set: &SetName,
    level: Level,
) -> Result<Sample, InvalidName> {
    let vermagic = format!("{} SMP preempt mod_unload modversions ", kernel.release);
    let inputs = digest(format!("{repository} {set} {level} {}", kernel.build_id).as_bytes());
    let short = inputs.as_str().get(..16).unwrap_or_default();
    let name: ModuleName = format!("invivo_l{level}_{short}").parse()?;
    let module = module(&[
        ("name", name.as_str()),
        ("vermagic", &vermagic),
        ("license", "GPL"),
        ("livepatch", "Y"),
        ("invivo_build_id", kernel.build_id.as_str()),
        ("invivo_level", &level.to_string()),
        ("invivo_set", set.as_str()),
    ]);
    let manifest = Manifest {
        repository: repository.clone(),
        set: set.clone(),
        level,
        kernel: kernel.clone(),
        vermagic,
        modules: vec![ManifestModule {
            name: name.clone(),
            length: module.len() as u64,
            sha256: digest(&module),
            objects: vec![PatchedObject {
                name: "vmlinux".to_owned(),
                build_id: None,
                functions: vec!["sock_do_ioctl".to_owned()],
            }],
        }],
        mechanisms: vec![BundleMechanism::Livepatch],
        complete: None,
        fixes: vec![Fix {
            cve: "CVE-2026-53249".to_owned(),
            cvss: Some("7.8".to_owned()),
            severity: Some("high".to_owned()),
            title: "a made-up hole".to_owned(),
            url: None,
        }],
        evidence: Evidence {
            inputs,
            compiler: "none".to_owned(),
            packages: BTreeMap::new(),
            checks: Vec::new(),
        },
    };
    let manifest_bytes = serde_json::to_vec(&manifest).unwrap_or_default();
    Ok(Sample { manifest, manifest_bytes, name, module })
}

/// The first of the signatures beside a document, or nothing where there is none.
///
/// Half of the file is not that: signatures by keys of one kind differ in length, as the leading
/// zeros of their numbers are left out.
pub fn first_signature(signatures: &[u8]) -> Vec<u8> {
    let packets = signature::packets(Document::Index, signatures).unwrap_or_default();
    packets.into_iter().next().and_then(|first| Packet::from(first).to_vec().ok()).unwrap_or_default()
}

/// A relocatable x86-64 ELF file that holds nothing but these fields of modinfo.
pub fn module(modinfo: &[(&str, &str)]) -> Vec<u8> {
    let text: Vec<u8> =
        modinfo.iter().flat_map(|(key, value)| format!("{key}={value}\0").into_bytes()).collect();
    let names = b"\0.modinfo\0.shstrtab\0";
    let at_names = 64 + text.len() as u64;
    let at_headers = at_names + names.len() as u64;
    let mut file = Vec::new();
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend_from_slice(&1u16.to_le_bytes());
    file.extend_from_slice(&62u16.to_le_bytes());
    file.extend_from_slice(&1u32.to_le_bytes());
    file.extend_from_slice(&[0; 16]);
    file.extend_from_slice(&at_headers.to_le_bytes());
    file.extend_from_slice(&0u32.to_le_bytes());
    for number in [64u16, 0, 0, 64, 3, 2] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    file.extend_from_slice(&text);
    file.extend_from_slice(names);
    for (name, kind, offset, size) in
        [(0u32, 0u32, 0, 0), (1, 1, 64, text.len() as u64), (10, 3, at_names, names.len() as u64)]
    {
        file.extend_from_slice(&name.to_le_bytes());
        file.extend_from_slice(&kind.to_le_bytes());
        for number in [0, 0, offset, size] {
            file.extend_from_slice(&number.to_le_bytes());
        }
        file.extend_from_slice(&[0; 24]);
    }
    file
}
