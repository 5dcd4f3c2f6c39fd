//! What nodes boot from: one root image for all, and for each kernel its image, its initramfs and
//! its modules.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use invivo_guest::Initramfs;

use crate::cache::{self, Cache, Key};
use crate::command;
use crate::gotools::GoTools;
use crate::packages::{self, Packages, RELEASE};

/// The kernel that nodes run: Debian's 6.1.170-3, the archive's only build that is open to
/// CVE-2026-53249.
pub const NODE_KERNEL: &str = "6.1.0-47-cloud-amd64";

/// A kernel that no repository of patches knows.
pub const OTHER_KERNEL: &str = "6.12.117+deb12-cloud-amd64";

/// Files that are baked into the root image, and the scripts that bake.
const GUEST_FILES: &[(&str, &str)] = &[
    ("build-root.sh", include_str!("../guest/build-root.sh")),
    ("console.service", include_str!("../guest/console.service")),
    ("console.sh", include_str!("../guest/console.sh")),
    ("containerd.toml", include_str!("../guest/containerd.toml")),
    ("hosts.toml", include_str!("../guest/hosts.toml")),
    ("kube-proxy.service", include_str!("../guest/kube-proxy.service")),
    ("kubelet.service", include_str!("../guest/kubelet.service")),
    ("kubelet.yaml", include_str!("../guest/kubelet.yaml")),
    ("node-identity.service", include_str!("../guest/node-identity.service")),
    ("node-identity.sh", include_str!("../guest/node-identity.sh")),
];
const MODULES_SCRIPT: &str = include_str!("../guest/build-modules.sh");
const INIT: &str = include_str!("../guest/init");
const PACKAGES: &str = include_str!("../guest/packages.txt");

/// Why an image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// A script or program.
    #[error(transparent)]
    Command(#[from] command::Error),
    /// A package.
    #[error(transparent)]
    Packages(#[from] packages::Error),
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The package of a kernel holds none.
    #[error("the package of {0} holds no kernel")]
    NoKernel(String),
}

/// The image that all nodes share.
#[derive(Debug, Clone)]
pub struct RootImage {
    folder: PathBuf,
}

/// One kernel, ready to boot.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its release, as `uname -r` says it.
    pub release: String,
    folder: PathBuf,
}

impl RootImage {
    /// Makes it, if it is not in the cache.
    ///
    /// # Errors
    /// When debootstrap or a script fails.
    pub fn build(cache: &Cache, tools: &GoTools) -> Result<Self, Error> {
        let packages = Packages::new(cache);
        let names: Vec<&str> = PACKAGES.split_whitespace().collect();
        let debian = Key::new(RELEASE).with("packages", names.join(" "));
        let tree = cache.make::<Error>("guest/debian", &debian, |out| {
            let mut list = names.clone();
            list.sort_unstable();
            command::logged(
                Command::new("debootstrap")
                    .args(["--variant=minbase", &format!("--include={}", list.join(","))])
                    .arg(RELEASE)
                    .arg(out)
                    .arg(packages.mirror()?),
                &cache.path("tmp/debootstrap.log"),
            )?;
            Ok(())
        })?;
        let busybox = packages.unpacked("busybox-static")?;
        let programs = tools.kubernetes();
        let mut key = Key::new("root")
            .with("debian", debian.name())
            .with("programs", programs.to_string_lossy().as_bytes())
            .with("busybox", busybox.to_string_lossy().as_bytes());
        for (name, content) in GUEST_FILES {
            key = key.with(name, content);
        }
        let folder = cache.make("guest/root", &key, |out| {
            let guest = out.join("guest");
            make_folder(&guest)?;
            for (name, content) in GUEST_FILES {
                write(&guest.join(name), content.as_bytes())?;
            }
            let staged = out.join("programs");
            make_folder(&staged)?;
            for (from, name) in [
                (programs.join("kubelet"), "kubelet"),
                (programs.join("kube-proxy"), "kube-proxy"),
                (busybox.join("bin/busybox"), "busybox"),
            ] {
                copy(&from, &staged.join(name))?;
            }
            command::output(
                Command::new("bash").arg(guest.join("build-root.sh")).args([&tree, &guest, &staged]).arg(out),
            )?;
            remove_folder(&staged)
        })?;
        Ok(Self { folder })
    }

    /// The root file system, read-only.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root.ext4")
    }

    /// The template of a node's own disk.
    pub fn template(&self) -> PathBuf {
        self.folder.join("var.ext4")
    }
}

impl Kernel {
    /// Makes what is needed to boot `release`, if it is not in the cache.
    ///
    /// # Errors
    /// When Debian has no such kernel, or a script fails.
    pub fn build(cache: &Cache, release: &str) -> Result<Self, Error> {
        let packages = Packages::new(cache);
        let package = packages.unpacked(&format!("linux-image-{release}"))?;
        let busybox = packages.unpacked("busybox-static")?;
        let key = Key::new(release)
            .with("package", package.to_string_lossy().as_bytes())
            .with("busybox", busybox.to_string_lossy().as_bytes())
            .with("script", MODULES_SCRIPT)
            .with("init", INIT);
        let folder = cache.make("guest/kernel", &key, |out| {
            let image = package.join(format!("boot/vmlinuz-{release}"));
            if !image.exists() {
                return Err(Error::NoKernel(release.to_owned()));
            }
            copy(&image, &out.join("vmlinuz"))?;
            let script = out.join("build-modules.sh");
            write(&script, MODULES_SCRIPT.as_bytes())?;
            command::output(Command::new("bash").arg(&script).arg(&package).arg(release).arg(out))?;
            let early = out.join("early");
            let initramfs = initramfs(&early, &busybox.join("bin/busybox"))?;
            write(&out.join("initrd"), &initramfs)?;
            remove_folder(&early)
        })?;
        Ok(Self { release: release.to_owned(), folder })
    }

    /// The kernel's image.
    pub fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The first file system.
    pub fn initrd(&self) -> PathBuf {
        self.folder.join("initrd")
    }

    /// The modules, a read-only file system.
    pub fn modules(&self) -> PathBuf {
        self.folder.join("modules.ext4")
    }
}

/// Busybox, the modules that the disks need, and the first program.
fn initramfs(early: &Path, busybox: &Path) -> Result<Vec<u8>, Error> {
    let order = read(&early.join("modules.order"))?;
    let mut archive = Initramfs::new()
        .directory("bin")
        .directory("lib")
        .directory("proc")
        .directory("sys")
        .directory("dev")
        .file("bin/busybox", 0o755, &read(busybox)?);
    for program in ["cat", "insmod", "mkdir", "mount", "sh", "sleep", "switch_root"] {
        archive = archive.link(&format!("bin/{program}"), "busybox");
    }
    for module in String::from_utf8_lossy(&order).lines() {
        let file = format!("{module}.ko");
        archive = archive.file(&format!("lib/{file}"), 0o644, &read(&early.join(&file))?);
    }
    Ok(archive.file("modules.order", 0o644, &order).file("init", 0o755, INIT.as_bytes()).finish())
}

fn error(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::File { path, source }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(error(path))
}

fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    fs::write(path, content).map_err(error(path))
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::copy(from, to).map(|_| ()).map_err(error(from))
}

fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(error(path))
}

fn remove_folder(path: &Path) -> Result<(), Error> {
    fs::remove_dir_all(path).map_err(error(path))
}
