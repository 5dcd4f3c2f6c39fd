//! A bundle's file form: a tar file under zstd with `manifest.json` and `modules/<name>.ko`.
//!
//! There is one way to write each bundle: fixed order (the manifest, then the modules by name),
//! fixed owner, mode and time. Reading accepts nothing else, so that two readers cannot see two
//! things in one file. What a bundle holds is believed only after `invivo-feed` has checked it.

use std::io::{self, Read, Write};

use invivo_feed::document::cap;
use invivo_feed::{Document, MAX_MODULES, Rejection};
use invivo_terms::{ModuleName, Refusal};
use tar::{EntryType, Header};

/// Size of a tar block.
const BLOCK: usize = 512;
/// The most that a bundle may unpack to: its largest module, its manifest, and as much again for
/// further modules.
const MAX_UNPACKED: u64 = 2 * cap::MODULE;
/// The most memory, as a power of two, that unpacking may ask for its window: 8 MiB.
const MAX_WINDOW_LOG: u32 = 23;
/// The window that [`pack`] writes, as a power of two: 256 KiB. Who unpacks holds it in memory, beside
/// the bundle and the module; most modules are smaller.
const WINDOW_LOG: u32 = 18;
/// How hard to press.
const LEVEL: i32 = 19;
const MANIFEST: &str = "manifest.json";

/// What a bundle holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// `manifest.json`, exactly.
    pub manifest: Vec<u8>,
    /// The modules, by name.
    pub modules: Vec<Module>,
}

/// One module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name in the kernel.
    pub name: ModuleName,
    /// The `.ko` file, exactly.
    pub bytes: Vec<u8>,
}

/// Packs a bundle. The same parts give the same bytes, in whatever order the modules are given.
///
/// # Errors
///
/// `EndlessData` for a part over its cap; `Malformed` for no module, too many, or one name twice.
pub fn pack(manifest: &[u8], modules: &[(&ModuleName, &[u8])]) -> Result<Vec<u8>, Rejection> {
    let mut modules = modules.to_vec();
    modules.sort_by_key(|(name, _)| *name);
    if modules.is_empty() || modules.len() > MAX_MODULES || !modules.is_sorted_by(|a, b| a.0 < b.0) {
        return Err(malformed(format!("1 to {MAX_MODULES} modules, each name once")));
    }
    let mut tar = Vec::new();
    append(&mut tar, MANIFEST, manifest, cap::MANIFEST)?;
    for (name, bytes) in modules {
        append(&mut tar, &path(name), bytes, cap::MODULE)?;
    }
    tar.resize(tar.len() + 2 * BLOCK, 0);
    if tar.len() as u64 > MAX_UNPACKED {
        return Err(endless("its parts together", MAX_UNPACKED));
    }
    let packed = compress(&tar).map_err(|error| malformed(format!("cannot be compressed: {error}")))?;
    if packed.len() as u64 > cap::BUNDLE {
        return Err(endless("it", cap::BUNDLE));
    }
    Ok(packed)
}

/// Unpacks a bundle.
///
/// # Errors
///
/// `EndlessData` for what is over a cap or unpacks to too much; `Malformed` for anything that
/// [`pack`] does not write.
pub fn unpack(bundle: &[u8]) -> Result<Bundle, Rejection> {
    if bundle.len() as u64 > cap::BUNDLE {
        return Err(endless("it", cap::BUNDLE));
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bundle).map_err(|error| unreadable(&error))?;
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(|error| unreadable(&error))?;
    let mut reader = Bounded { inner: decoder, left: MAX_UNPACKED };
    let Some((first, manifest)) = entry(&mut reader, cap::MANIFEST)? else {
        return Err(malformed("it is empty"));
    };
    if first != MANIFEST {
        return Err(malformed("it does not begin with its manifest"));
    }
    let mut modules: Vec<Module> = Vec::new();
    while let Some((path, bytes)) = entry(&mut reader, cap::MODULE)? {
        let name = path.strip_prefix("modules/").and_then(|name| name.strip_suffix(".ko"));
        let name: Option<ModuleName> = name.and_then(|name| name.parse().ok());
        let name = name.ok_or_else(|| malformed(format!("an entry {path:.100}")))?;
        if modules.len() == MAX_MODULES || modules.last().is_some_and(|last| last.name >= name) {
            return Err(malformed(format!("at most {MAX_MODULES} modules, by name, each once")));
        }
        modules.push(Module { name, bytes });
    }
    if modules.is_empty() {
        return Err(malformed("it holds no module"));
    }
    Ok(Bundle { manifest, modules })
}

fn path(name: &ModuleName) -> String {
    format!("modules/{name}.ko")
}

/// The one header that an entry of this path and length has.
fn header(path: &str, length: u64) -> Option<Header> {
    let mut header = Header::new_ustar();
    header.set_path(path).ok()?;
    header.set_size(length);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(EntryType::Regular);
    header.set_cksum();
    Some(header)
}

fn append(tar: &mut Vec<u8>, path: &str, bytes: &[u8], limit: u64) -> Result<(), Rejection> {
    if bytes.len() as u64 > limit {
        return Err(endless(path, limit));
    }
    let header =
        header(path, bytes.len() as u64).ok_or_else(|| malformed(format!("an entry {path:.100}")))?;
    tar.extend_from_slice(header.as_bytes());
    tar.extend_from_slice(bytes);
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    Ok(())
}

fn compress(tar: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.window_log(WINDOW_LOG)?;
    encoder.set_pledged_src_size(Some(tar.len() as u64))?;
    encoder.write_all(tar)?;
    encoder.finish()
}

/// The next entry, or `None` at the end, after which nothing may stand.
fn entry(reader: &mut impl Read, limit: u64) -> Result<Option<(String, Vec<u8>)>, Rejection> {
    let block = block(reader)?;
    if block == [0; BLOCK] {
        let mut rest = Vec::new();
        reader.take(2 * BLOCK as u64).read_to_end(&mut rest).map_err(|error| unreadable(&error))?;
        return if rest == [0; BLOCK] { Ok(None) } else { Err(malformed("something stands behind its end")) };
    }
    let found = Header::from_byte_slice(&block);
    let length = found.entry_size().map_err(|_| malformed("an entry without a length"))?;
    let path = found.path_bytes();
    let path =
        std::str::from_utf8(&path).map_err(|_| malformed("an entry whose path is not text"))?.to_owned();
    if length > limit {
        return Err(endless(&path, limit));
    }
    if header(&path, length).is_none_or(|expected| *expected.as_bytes() != block) {
        return Err(malformed(format!("an entry {path:.100} of another kind, owner, mode or time")));
    }
    let mut bytes = Vec::new();
    reader.by_ref().take(length).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 != length {
        return Err(malformed("it is cut short"));
    }
    let mut padding = vec![0; bytes.len().next_multiple_of(BLOCK) - bytes.len()];
    reader.read_exact(&mut padding).map_err(|error| unreadable(&error))?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(malformed("something stands between its entries"));
    }
    Ok(Some((path, bytes)))
}

fn block(reader: &mut impl Read) -> Result<[u8; BLOCK], Rejection> {
    let mut block = [0; BLOCK];
    reader.read_exact(&mut block).map_err(|error| unreadable(&error))?;
    Ok(block)
}

/// Gives out at most so many bytes, and an error rather than an end where there are more.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(got as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(got)
    }
}

fn unreadable(error: &io::Error) -> Rejection {
    match error.kind() {
        io::ErrorKind::FileTooLarge => endless("what it unpacks to", MAX_UNPACKED),
        io::ErrorKind::UnexpectedEof => malformed("it is cut short"),
        _ => malformed(format!("it does not unpack: {error}")),
    }
}

fn endless(what: &str, limit: u64) -> Rejection {
    Rejection::new(Refusal::EndlessData, Document::Bundle, format!("{what:.100} is over {limit} bytes"))
}

fn malformed(detail: impl Into<String>) -> Rejection {
    Rejection::new(Refusal::Malformed, Document::Bundle, detail)
}

#[cfg(test)]
mod tests;
