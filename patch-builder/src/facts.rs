//! What a kernel is, read from its image: never from names of packages or files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use invivo_terms::{Arch, BuildId};
use object::LittleEndian;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use serde::{Deserialize, Serialize};

use crate::cache::{self, Cache};
use crate::command::{self, clean, not_run};
use crate::kallsyms::{self, Symbols};
use crate::lock::KernelLock;
use crate::progress::{Progress, Step};
use crate::{fetch, unpack};

/// The image does not tell what it is, or is not what the lock says.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image's package cannot be had.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// The image's package does not hold what it should.
    #[error(transparent)]
    Unpack(#[from] unpack::Error),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// The image cannot be unpacked.
    #[error(transparent)]
    Command(#[from] command::Error),
    /// A file on the way cannot be written.
    #[error("write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The image is not a kernel that we can read.
    #[error("kernel image: {0}")]
    Image(&'static str),
    /// The kernel's symbol table cannot be read.
    #[error(transparent)]
    Symbols(#[from] kallsyms::Error),
    /// The kernel is another one than the lock says.
    #[error("{field}: the lock says {lock:?}, the image says {image:?}")]
    Differs {
        /// Which fact.
        field: &'static str,
        /// By the lock.
        lock: String,
        /// By the image.
        image: String,
    },
}

/// What identifies a kernel build and what it demands of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Facts {
    /// GNU build id.
    pub build_id: BuildId,
    /// What `uname -r` says.
    pub release: String,
    /// What `uname -v` says.
    pub version: String,
    /// What `uname -m` says.
    pub arch: Arch,
    /// What it demands of a module's `vermagic`, to the letter: it ends with a blank.
    pub vermagic: String,
    /// The compiler that made it, as that compiler's `--version` begins.
    pub compiler: String,
}

/// A kernel image, unpacked.
#[derive(Debug)]
pub struct Kernel {
    /// What it is.
    pub facts: Facts,
    /// The symbols that livepatch can find in it.
    pub symbols: Symbols,
    /// The image as a boot loader takes it.
    pub image: PathBuf,
}

/// Reads the kernel that `lock` pins and compares it with the lock.
///
/// # Errors
///
/// The package cannot be had, the image cannot be read, or it is another kernel.
pub fn read(cache: &Cache, lock: &KernelLock, progress: Progress) -> Result<Kernel, Error> {
    let key = lock.packages.image.sha256.as_str();
    let folder = cache.folder("kernels", key, |folder| {
        let deb = fetch::package(cache, &lock.packages.image, progress)?;
        progress(Step::Facts, &format!("unpacking the kernel {}", lock.release));
        let scratch = cache.scratch()?;
        // Whatever it is called: another kernel is told by its own words.
        unpack::files(&deb, &["./boot/vmlinuz-*"], scratch.path())?;
        let image = only_file(&scratch.path().join("boot"))?;
        decompress(&image, &folder.join("vmlinux"))?;
        let kept = folder.join("vmlinuz");
        fs::rename(&image, &kept).map_err(|source| Error::Write { path: kept, source })
    })?;
    let vmlinux = unpack::read(&folder.join("vmlinux"))?;
    let facts = of_vmlinux(&vmlinux)?;
    compare(lock, &facts)?;
    progress(Step::Facts, &format!("{} has build id {}", facts.release, facts.build_id));
    Ok(Kernel { facts, symbols: Symbols::of_vmlinux(&vmlinux)?, image: folder.join("vmlinuz") })
}

/// The only file in a folder.
fn only_file(folder: &Path) -> Result<PathBuf, unpack::Error> {
    let failed = |source| unpack::Error::Read { path: folder.to_owned(), source };
    let files = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(failed)?;
    match files.as_slice() {
        [file] => Ok(file.path()),
        files => Err(failed(io::Error::other(format!("has {} files, not one", files.len())))),
    }
}

fn compare(lock: &KernelLock, facts: &Facts) -> Result<(), Error> {
    let pairs = [
        ("release", lock.release.as_str(), facts.release.as_str()),
        ("version", &lock.version, &facts.version),
        ("buildId", lock.build_id.as_str(), facts.build_id.as_str()),
        ("vermagic", &lock.vermagic, &facts.vermagic),
        ("compiler", &lock.compiler, &facts.compiler),
    ];
    match pairs.into_iter().find(|(_, lock, image)| lock != image) {
        None => Ok(()),
        Some((field, lock, image)) => {
            Err(Error::Differs { field, lock: lock.to_owned(), image: image.to_owned() })
        }
    }
}

/// The compressed kernel within a boot image (Documentation/arch/x86/boot.rst: `setup_sects`,
/// `header`, `payload_offset`, `payload_length`).
fn payload(image: &[u8]) -> Result<&[u8], Error> {
    const SECTOR: usize = 512;
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if image.get(0x202..0x206) != Some(b"HdrS") {
        return Err(Error::Image("not a boot image for x86"));
    }
    let range = || {
        let setup = (usize::from(*image.get(0x1f1)?) + 1) * SECTOR;
        let start = setup.checked_add(word(0x248)?)?;
        // The last four bytes are the kernel's size, for the boot stub.
        image.get(start..start.checked_add(word(0x24c)?)?.checked_sub(4)?)
    };
    range().ok_or(Error::Image("ends before its payload"))
}

/// The compressions that kernels of Debian come in: how each begins, and what undoes it.
const COMPRESSIONS: [(&[u8], &str, &[&str]); 3] = [
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz", &["--decompress", "--stdout", "--single-stream"]),
    (&[0x02, 0x21, 0x4c, 0x18], "lz4", &["--decompress", "--stdout"]),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", &["--decompress", "--stdout"]),
];

fn decompress(image: &Path, vmlinux: &Path) -> Result<(), Error> {
    let bytes = unpack::read(image)?;
    let payload = payload(&bytes)?;
    let Some((_, program, arguments)) = COMPRESSIONS.iter().find(|(magic, ..)| payload.starts_with(magic))
    else {
        return Err(Error::Image("its payload is compressed in an unknown way"));
    };
    let failed = |source| Error::Write { path: vmlinux.to_owned(), source };
    let out = File::create(vmlinux).map_err(failed)?;
    let mut child = clean(program)
        .args(*arguments)
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| not_run(program, e))?;
    let written = child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(payload));
    let status = child.wait().map_err(failed)?;
    written.map_err(failed)?;
    if status.success() { Ok(()) } else { Err(Error::Image("its payload does not decompress")) }
}

fn of_vmlinux(vmlinux: &[u8]) -> Result<Facts, Error> {
    let (release, compiler, version) = banner(vmlinux)?;
    Ok(Facts {
        build_id: build_id(vmlinux)?,
        vermagic: vermagic(vmlinux, &release)?,
        release,
        version,
        arch: Arch::X86_64,
        compiler,
    })
}

/// The build id in the notes that the program headers name. A search for bytes would find those of
/// the vDSO images that the kernel carries.
fn build_id(vmlinux: &[u8]) -> Result<BuildId, Error> {
    let bad = |_| Error::Image("not an ELF file for x86-64");
    let header = FileHeader64::<LittleEndian>::parse(vmlinux).map_err(bad)?;
    let endian = header.endian().map_err(bad)?;
    if header.e_machine.get(endian) != elf::EM_X86_64 {
        return Err(Error::Image("not for x86-64"));
    }
    let mut found = Vec::new();
    for segment in header.program_headers(endian, vmlinux).map_err(bad)? {
        let Some(mut notes) = segment.notes(endian, vmlinux).map_err(bad)? else { continue };
        while let Some(note) = notes.next().map_err(bad)? {
            if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
                found.push(hex::encode(note.desc()));
            }
        }
    }
    match found.as_slice() {
        [one] => one.parse().map_err(|_| Error::Image("its build id does not have 20 bytes")),
        [] => Err(Error::Image("has no build id")),
        _ => Err(Error::Image("has several build ids")),
    }
}

/// Release, compiler and version from the banner that the kernel prints first:
/// `Linux version RELEASE (BUILDER) (COMPILER, LINKER) #1 ...`.
fn banner(vmlinux: &[u8]) -> Result<(String, String, String), Error> {
    const START: &[u8] = b"Linux version ";
    let none = Error::Image("does not name its release, compiler and version");
    let parse = |at: usize| {
        let rest = vmlinux.get(at + START.len()..)?;
        let line = rest.get(..rest.iter().take(1024).position(|b| *b == b'\n')?)?;
        let line = std::str::from_utf8(line).ok()?;
        let (release, rest) = line.split_once(' ')?;
        let (_, rest) = rest.split_once(") (")?;
        let (compiler, rest) = rest.split_once(", ")?;
        let version = rest.get(rest.find(") #")? + 2..)?;
        // The kernel also carries a banner from before the number of its build was known.
        version.get(1..2)?.parse::<u8>().ok()?;
        Some((release.to_owned(), compiler.to_owned(), version.to_owned()))
    };
    find_all(vmlinux, START).find_map(parse).ok_or(none)
}

/// The string that the module loader compares a module's own with.
fn vermagic(vmlinux: &[u8], release: &str) -> Result<String, Error> {
    let start = format!("{release} SMP ");
    let parse = |at: usize| {
        let rest = vmlinux.get(at..)?;
        let text = rest.get(..rest.iter().take(256).position(|b| *b == 0)?)?;
        let text = std::str::from_utf8(text).ok()?;
        text.contains("mod_unload").then(|| text.to_owned())
    };
    find_all(vmlinux, start.as_bytes())
        .find_map(parse)
        .ok_or(Error::Image("does not say what it demands of a module"))
}

/// Where `needle` begins in `haystack`.
fn find_all<'a>(haystack: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = needle.first().copied().unwrap_or_default();
    haystack
        .iter()
        .enumerate()
        .filter(move |(_, byte)| **byte == first)
        .map(|(at, _)| at)
        .filter(move |at| haystack.get(*at..).is_some_and(|rest| rest.starts_with(needle)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BANNER: &[u8] = b"..%s version %s\n\0Linux version \0Linux version 6.1.0-47-cloud-amd64 \
        (someone@example.org) (gcc-12 x, GNU ld y) # SMP PREEMPT_DYNAMIC Debian 6.1.170-3 (2026-05-08)\n\0Linux version 6.1.0-47-cloud-amd64 \
        (someone@example.org) (gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40) \
        #1 SMP PREEMPT_DYNAMIC Debian 6.1.170-3 (2026-05-08)\n\0..";

    #[test]
    fn the_banner_is_taken_apart() {
        let (release, compiler, version) = banner(BANNER).unwrap();
        assert_eq!(release, "6.1.0-47-cloud-amd64");
        assert_eq!(compiler, "gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0");
        assert_eq!(version, "#1 SMP PREEMPT_DYNAMIC Debian 6.1.170-3 (2026-05-08)");
    }

    #[test]
    fn a_kernel_without_a_banner_is_refused() {
        assert!(matches!(banner(b"Linux version 6"), Err(Error::Image(_))));
    }

    #[test]
    fn vermagic_ends_at_its_zero_and_keeps_its_last_blank() {
        let text = b"x\x006.1.0 SMP foo\x006.1.0 SMP preempt mod_unload modversions \x00y";
        assert_eq!(vermagic(text, "6.1.0").unwrap(), "6.1.0 SMP preempt mod_unload modversions ");
    }

    /// An ELF file with one program header whose notes are `notes`, and `before` in front of them.
    fn with_notes(before: &[u8], notes: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
        file[16..20].copy_from_slice(&[2, 0, 62, 0]);
        file[20] = 1;
        file[32] = 64; // e_phoff
        file[52] = 64;
        file[54] = 56;
        file[56] = 1; // e_phnum
        file[58] = 64;
        let offset = u64::try_from(file.len() + before.len()).unwrap();
        let size = u64::try_from(notes.len()).unwrap();
        file[64] = 4; // PT_NOTE
        file[72..80].copy_from_slice(&offset.to_le_bytes());
        file[96..104].copy_from_slice(&size.to_le_bytes());
        file[112] = 4;
        file.extend_from_slice(before);
        file.extend_from_slice(notes);
        file
    }

    fn note(name: [u8; 4], kind: u32, id: [u8; 20]) -> Vec<u8> {
        [&4u32.to_le_bytes()[..], &20u32.to_le_bytes(), &kind.to_le_bytes(), &name, &id].concat()
    }

    #[test]
    fn the_build_id_is_the_one_in_the_program_headers_notes() {
        let vdso = note(*b"GNU\0", 3, [1; 20]);
        let notes =
            [note(*b"Xen\0", 3, [2; 20]), note(*b"GNU\0", 1, [3; 20]), note(*b"GNU\0", 3, [4; 20])].concat();
        assert_eq!(build_id(&with_notes(&vdso, &notes)).unwrap().as_str(), "04".repeat(20));
    }

    #[test]
    fn a_kernel_with_two_build_ids_or_none_is_refused() {
        let one = note(*b"GNU\0", 3, [4; 20]);
        assert!(build_id(&with_notes(&[], &[one.clone(), one].concat())).is_err());
        assert!(build_id(&with_notes(&[], &note(*b"Xen\0", 3, [4; 20]))).is_err());
        assert!(build_id(b"not ELF").is_err());
    }

    #[test]
    fn a_boot_image_that_ends_early_is_refused() {
        let mut image = vec![0; 0x250];
        assert!(matches!(payload(&image), Err(Error::Image("not a boot image for x86"))));
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x24c..0x250].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
        assert!(matches!(payload(&image), Err(Error::Image("ends before its payload"))));
    }
}
