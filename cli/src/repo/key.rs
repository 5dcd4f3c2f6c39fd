//! Keys and certificates in files. Secret keys are read from files that nobody else can read, and
//! never printed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use invivo_feed::publish::{Certificate, SecretKey};

use crate::exit::Failure;

/// The longest key file that is read.
const LONGEST: u64 = 1 << 20;

pub(super) fn secret(path: &Path) -> Result<SecretKey, Failure> {
    let file = File::open(path).map_err(|e| trouble("read the key", path, &e))?;
    let mode = file.metadata().map_err(|e| trouble("read the key", path, &e))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Failure::error(format!(
            "the key {} can be read by others (mode {:04o})\n  chmod 600 {}; if the machine has other users, replace the key",
            path.display(),
            mode & 0o7777,
            path.display()
        )));
    }
    let bytes = all(file).map_err(|e| trouble("read the key", path, &e))?;
    SecretKey::read(&bytes).map_err(|e| Failure::of(&e).while_doing(&format!("the key {}", path.display())))
}

pub(super) fn certificate(path: &Path) -> Result<Certificate, Failure> {
    let bytes = file(path, "read the certificate", LONGEST)?;
    Certificate::read(&bytes)
        .map_err(|e| Failure::of(&e).while_doing(&format!("the certificate {}", path.display())))
}

/// Reads a file of at most `longest` bytes.
pub(crate) fn file(path: &Path, what: &str, longest: u64) -> Result<Vec<u8>, Failure> {
    let file = File::open(path).map_err(|e| trouble(what, path, &e))?;
    let mut bytes = Vec::new();
    file.take(longest.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| trouble(what, path, &e))?;
    if bytes.len() as u64 > longest {
        return Err(Failure::error(format!("{what} {}: it is longer than {longest} bytes", path.display())));
    }
    Ok(bytes)
}

fn all(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a new file; one that is there stays.
pub(super) fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|e| trouble("write", path, &e))
}

pub(crate) fn trouble(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::error(format!("{what} {}: {error}", path.display()))
}
