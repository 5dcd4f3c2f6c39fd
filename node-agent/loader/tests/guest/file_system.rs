//! What the state folder lies on.

use std::error::Error;
use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use invivo_patch_builder::{Cache, KernelLock, fetch};
use serde::{Deserialize, Serialize};

/// Of a node's root, as distributions make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    /// The one that `INVIVO_FILE_SYSTEM` names.
    pub(crate) fn from_env() -> Result<Self, Box<dyn Error>> {
        match std::env::var("INVIVO_FILE_SYSTEM").as_deref() {
            Err(_) | Ok("ext4") => Ok(Self::Ext4),
            Ok("xfs") => Ok(Self::Xfs),
            Ok(other) => Err(format!("no file system {other}").into()),
        }
    }

    pub(crate) const fn name(self) -> &'static std::ffi::CStr {
        match self {
            Self::Ext4 => c"ext4",
            Self::Xfs => c"xfs",
        }
    }

    /// The kernel's modules for it, in the order in which they are loaded.
    pub(crate) const fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 => &[],
            Self::Xfs => &["lib/libcrc32c.ko", "fs/xfs/xfs.ko"],
        }
    }

    /// Those modules, as the kernel's package has them.
    pub(crate) fn module_files(
        self,
        cache: &Cache,
        lock: &KernelLock,
    ) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
        let package = fetch::package(cache, &lock.packages.image, &mut |_, _| ())?;
        self.modules().iter().map(|module| member(&package, module)).collect()
    }

    /// An empty one. XFS takes no less room, nor a log that is smaller.
    pub(crate) fn image(self) -> Result<Arc<Vec<u8>>, Box<dyn Error>> {
        let (size, mut make) = match self {
            Self::Ext4 => (32 << 20, Command::new("mke2fs")),
            Self::Xfs => (320 << 20, Command::new("mkfs.xfs")),
        };
        match self {
            Self::Ext4 => make
                .args(["-q", "-F", "-t", "ext4", "-b", "4096"])
                .args(["-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"]),
            Self::Xfs => make.args(["-q", "-f", "-K", "-s", "size=4096"]),
        };
        let image = tempfile::NamedTempFile::new()?;
        image.as_file().set_len(size)?;
        let output = make.arg(image.path()).output()?;
        if !output.status.success() {
            return Err(format!("{make:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(Arc::new(fs::read(image.path())?))
    }
}

fn member(package: &std::path::Path, module: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut files =
        Command::new("dpkg-deb").arg("--fsys-tarfile").arg(package).stdout(Stdio::piped()).spawn()?;
    let mut tar = Command::new("tar")
        .args(["--extract", "--to-stdout", "--wildcards"])
        .arg(format!("*/kernel/{module}"))
        .stdin(files.stdout.take().ok_or("no pipe")?)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut bytes = Vec::new();
    tar.stdout.take().ok_or("no pipe")?.read_to_end(&mut bytes)?;
    tar.wait()?;
    files.wait()?;
    if bytes.starts_with(b"\x7fELF") { Ok(bytes) } else { Err(format!("no {module} in the package").into()) }
}
