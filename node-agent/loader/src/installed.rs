//! Which build of a kernel module is loaded, and which one `modprobe` would take from disk. Build ids
//! tell accidents apart, not attacks: a file that was edited after linking keeps its own.
//!
//! Everything read here is the host's; lengths are bounded all the same.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use invivo_terms::{BuildId, TargetName};
use lzma_rust2::XzReader;

use crate::running::build_id;
use crate::targets::{Build, Builds};

/// Longest `modules.dep`; Debian's have some 600 KiB.
const MOST_INDEX: u64 = 16 << 20;
/// Longest file of a module that is looked into, packed or not; the largest of Debian's have 10 MiB.
const MOST_MODULE: u64 = 128 << 20;
/// How far into a module its notes are looked for; linkers put them first.
const HEAD: u64 = 256 << 10;
/// Longest notes of a loaded module.
const MOST_NOTES: u64 = 64 << 10;
/// Most memory for unpacking, in KiB; kernels' modules are packed with windows of 1 or 2 MiB.
const MOST_WINDOW: u32 = 16 << 10;
/// From `elf.h`: size of a section header, the most of them, and the type of notes.
const SECTION: u64 = 64;
const MOST_SECTIONS: u64 = 4096;
const NOTES: u64 = 7;

/// Modules on disk. Remembers what was in a file for as long as the file is the same.
#[derive(Debug, Default)]
pub struct Installed(BTreeMap<PathBuf, (Stamp, Build)>);

/// Changes with a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &fs::Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            length: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

impl Installed {
    /// The builds of these targets; `folder` is `/lib/modules/<release>`, `sys` is `/sys`.
    pub fn builds<'a>(
        &mut self,
        folder: &Path,
        sys: &Path,
        targets: impl Iterator<Item = &'a TargetName>,
    ) -> BTreeMap<TargetName, Builds> {
        // A folder that is missing must not look like one without modules.
        let found = text(&folder.join("modules.dep"), MOST_INDEX).ok();
        let index = found.as_deref().map(index);
        targets
            .map(|target| {
                let file = match index.as_ref().map(|index| index.get(target.as_str())) {
                    None => Build::Unknown,
                    Some(None) => Build::None,
                    Some(Some(path)) => {
                        within(folder, path).map_or(Build::Unknown, |path| self.of_file(&path))
                    }
                };
                (target.clone(), Builds { file, loaded: loaded(sys, target) })
            })
            .collect()
    }

    fn of_file(&mut self, path: &Path) -> Build {
        let read = || -> io::Result<(File, Stamp)> {
            // A pipe must not keep the loader waiting.
            const O_NONBLOCK: i32 = 0o4000;
            let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
            let found = file.metadata()?;
            if found.is_file() {
                Ok((file, Stamp::of(&found)))
            } else {
                Err(io::ErrorKind::InvalidInput.into())
            }
        };
        let Ok((file, stamp)) = read() else { return Build::Unknown };
        if let Some((known, build)) = self.0.get(path)
            && *known == stamp
        {
            return build.clone();
        }
        let build = match path.extension().and_then(|extension| extension.to_str()) {
            Some("ko") => in_module(file),
            Some("xz") => in_module(XzReader::new_mem_limit(io::BufReader::new(file), false, MOST_WINDOW)),
            _ => None,
        };
        let build = build.map_or(Build::Unknown, Build::Is);
        self.0.insert(path.to_owned(), (stamp, build.clone()));
        build
    }
}

/// Where `modprobe` finds each module. `depmod` has put the folders in order already (`updates`
/// before what came with the kernel), and lists each module once.
fn index(text: &str) -> BTreeMap<String, &str> {
    let mut index = BTreeMap::new();
    for line in text.lines() {
        let Some((path, _)) = line.split_once(':') else { continue };
        let file = path.rsplit('/').next().unwrap_or(path);
        let Some((name, _)) = file.split_once(".ko") else { continue };
        index.entry(name.replace('-', "_")).or_insert(path);
    }
    index
}

/// A path of the index. What leads out of the folder is on another mount.
fn within(folder: &Path, path: &str) -> Option<PathBuf> {
    let plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    plain.then(|| folder.join(path))
}

fn loaded(sys: &Path, target: &TargetName) -> Build {
    let folder = sys.join("module").join(target.as_str());
    match fs::symlink_metadata(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Build::None,
        Err(_) => return Build::Unknown,
        Ok(_) => {}
    }
    let notes = bytes(&folder.join("notes/.note.gnu.build-id"), MOST_NOTES);
    notes.ok().and_then(|notes| build_id(&notes)).map_or(Build::Unknown, Build::Is)
}

/// The build id in the bytes of a module. Read from front to back, since they may come unpacked on the
/// way.
pub fn in_module(module: impl Read) -> Option<BuildId> {
    let mut module = module.take(MOST_MODULE);
    let mut head = Vec::new();
    module.by_ref().take(HEAD).read_to_end(&mut head).ok()?;
    if head.get(..6) != Some(b"\x7fELF\x02\x01") || number(&head, 0x3a, 2)? != SECTION {
        return None;
    }
    let (at, count) = (number(&head, 0x28, 8)?, number(&head, 0x3c, 2)?);
    if count > MOST_SECTIONS {
        return None;
    }
    let mut whole = head.as_slice().chain(module);
    io::copy(&mut whole.by_ref().take(at), &mut io::sink()).ok()?;
    let mut headers = Vec::new();
    whole.take(count * SECTION).read_to_end(&mut headers).ok()?;
    let notes = |header: &[u8]| -> Option<BuildId> {
        if number(header, 4, 4)? != NOTES {
            return None;
        }
        let from = usize::try_from(number(header, 0x18, 8)?).ok()?;
        let length = usize::try_from(number(header, 0x20, 8)?).ok()?;
        build_id(head.get(from..from.checked_add(length)?)?)
    };
    headers.chunks(64).find_map(notes)
}

/// A little-endian number of so many bytes.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(width)?)?;
    Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn bytes(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

fn text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(bytes(path, most)?).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
#[path = "tests/installed.rs"]
mod tests;
