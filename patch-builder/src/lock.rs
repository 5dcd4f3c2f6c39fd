//! The lock file of a kernel build: which packages it is made of, and what they must turn out to be.

use std::path::{Path, PathBuf};
use std::{fs, io};

use invivo_terms::{Arch, BuildId, Digest};
use serde::{Deserialize, Serialize};

/// The longest lock or recipe that is read, in bytes.
const LIMIT: u64 = 256 * 1024;

/// A lock or a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is larger than any that a person wrote.
    #[error("{path}: longer than {LIMIT} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what it should be; the message names line and field.
    #[error("{path}: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and what was expected there.
        message: String,
    },
    /// A value has the right type and makes no sense.
    #[error("{path}: {field}: {message}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

/// One Debian package, named so exactly that only one file in the world is it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, `all` where it has none; `source` for a source package.
    pub architecture: String,
    /// SHA-256 of the package file; of a source package that of the description, which has those of the
    /// other files.
    pub sha256: Digest,
}

/// The architecture of source packages, as Debian's own tools name it.
pub const SOURCE: &str = "source";

impl Package {
    /// The name of the package's file, as apt stores it.
    pub fn file_name(&self) -> String {
        if self.is_source() {
            let version = self.version.split_once(':').map_or(self.version.as_str(), |(_, version)| version);
            return format!("{}_{version}.dsc", self.name);
        }
        format!("{}_{}_{}.deb", self.name, self.version.replace(':', "%3a"), self.architecture)
    }

    /// Whether it is a source package: a description, an archive and the distribution's changes of it.
    pub fn is_source(&self) -> bool {
        self.architecture == SOURCE
    }

    /// Whether name, version and architecture consist of what Debian's policy allows in them; they
    /// become parts of file names and arguments of commands.
    fn is_well_formed(&self) -> bool {
        let plain = |text: &str, extra: &[u8]| {
            text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
        };
        plain(&self.name, b"+-.") && plain(&self.version, b"+-.:~") && plain(&self.architecture, b"-")
    }
}

/// The packages of one kernel build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Packages {
    /// The kernel image; its build id and its symbols are the truth about the build.
    pub image: Package,
    /// Headers and configuration of the flavour.
    pub headers: Package,
    /// Headers that all flavours share.
    pub headers_common: Package,
    /// Build tools.
    pub kbuild: Package,
    /// The kernel and its modules with all their symbols, for debuggers.
    pub debug: Package,
    /// The source that the build was made from.
    pub source: Package,
    /// The compiler that made it, where the distributions that a builder runs on have it no more; none if
    /// the machine's own is meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compiler: Vec<Package>,
}

impl Packages {
    /// All of them, with the role that each plays; those of a compiler have their own names.
    pub fn each(&self) -> impl Iterator<Item = (&str, &Package)> {
        let roles = [
            ("image", &self.image),
            ("headers", &self.headers),
            ("headersCommon", &self.headers_common),
            ("kbuild", &self.kbuild),
            ("debug", &self.debug),
            ("source", &self.source),
        ];
        let compiler = self.compiler.iter().map(|package| (package.name.as_str(), package));
        roles.into_iter().chain(compiler)
    }
}

/// One kernel build, pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KernelLock {
    /// What `uname -r` says.
    pub release: String,
    /// What `uname -v` says.
    pub version: String,
    /// The distribution's version of the kernel.
    pub package_version: String,
    /// The distribution, such as `debian`.
    pub distribution: String,
    /// What `uname -m` says.
    pub arch: Arch,
    /// GNU build id of the kernel.
    pub build_id: BuildId,
    /// What the kernel demands of a module's `vermagic`, to the letter: it ends with a blank.
    pub vermagic: String,
    /// The first line of the compiler's `--version`.
    pub compiler: String,
    /// Archives that have its packages, beside those that the machine uses: address, suite and component.
    /// Never written: the same packages are the same kernel wherever they come from, and what is written of a lock
    /// names modules.
    #[serde(default, skip_serializing)]
    pub archives: Vec<String>,
    /// Where all of this comes from.
    pub packages: Packages,
}

impl KernelLock {
    /// Reads and checks a lock file.
    ///
    /// # Errors
    ///
    /// It cannot be read or parsed, or names something impossible.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let lock: Self = read_yaml(path)?;
        for (_, package) in lock.packages.each() {
            check_package(path, "packages", package)?;
        }
        if let Some(archive) = lock.archives.iter().find(|archive| !is_archive(archive)) {
            let message = format!("{archive:?} is not an address, a suite and a component");
            return Err(Error::Value { path: path.to_owned(), field: "archives", message });
        }
        let first = lock.vermagic.split(' ').next();
        if first != Some(lock.release.as_str()) {
            let message = format!("does not begin with the release {}", lock.release);
            return Err(Error::Value { path: path.to_owned(), field: "vermagic", message });
        }
        Ok(lock)
    }
}

/// Whether a line names an archive and nothing else: it becomes one of `sources.list`.
fn is_archive(line: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"+-._~:/".contains(&b);
    let mut words = line.split(' ');
    let address = words.next().unwrap_or_default();
    let more: Vec<&str> = words.collect();
    ["http://", "https://"].iter().any(|scheme| address.starts_with(scheme))
        && more.len() == 2
        && more.iter().chain([&address]).all(|word| !word.is_empty() && word.bytes().all(is_plain))
}

/// Refuses a package whose parts could not be a file name.
pub(crate) fn check_package(path: &Path, field: &'static str, package: &Package) -> Result<(), Error> {
    if package.is_well_formed() {
        return Ok(());
    }
    let message =
        format!("{:?}: name, version or architecture has characters that no package has", package.name);
    Err(Error::Value { path: path.to_owned(), field, message })
}

/// Reads a short YAML file whose fields are all known.
pub(crate) fn read_yaml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(read)?.len() > LIMIT {
        return Err(Error::TooLong { path: path.to_owned() });
    }
    let text = fs::read_to_string(path).map_err(read)?;
    serde_saphyr::from_str(&text).map_err(|e| Error::Parse { path: path.to_owned(), message: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/kernels/6.1.0-47-cloud-amd64.yaml")
    }

    fn changed(from: &str, to: &str) -> Error {
        let text = fs::read_to_string(shipped()).unwrap();
        assert!(text.contains(from), "{from:?} is not in the lock");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text.replacen(from, to, 1)).unwrap();
        KernelLock::read(file.path()).unwrap_err()
    }

    #[test]
    fn the_shipped_lock_is_read() {
        let lock = KernelLock::read(&shipped()).unwrap();
        assert_eq!(lock.release, "6.1.0-47-cloud-amd64");
        assert_eq!(lock.packages.image.file_name(), "linux-image-6.1.0-47-cloud-amd64_6.1.170-3_amd64.deb");
    }

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        let error = changed("release:", "relase: x\nrelease:");
        assert!(error.to_string().contains("relase"), "{error}");
    }

    #[test]
    fn a_version_that_is_a_path_or_an_option_is_refused() {
        for bad in ["../../x", "-oDebug=1", "1 2", ""] {
            let error = changed("version: 6.1.170-3", &format!("version: {bad:?}"));
            assert!(matches!(error, Error::Value { .. }), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_vermagic_of_another_release_is_refused() {
        let error = changed("vermagic: \"6.1.0-47-cloud-amd64", "vermagic: \"6.1.0-48-cloud-amd64");
        assert!(matches!(error, Error::Value { field: "vermagic", .. }), "{error}");
    }

    #[test]
    fn an_archive_that_says_more_than_where_it_is_is_refused() {
        for bad in [
            "file:/tmp bullseye main",
            "http://a [trusted=yes] main",
            "http://a bullseye",
            "http://a b c d",
            "http://a b c\\ndeb http://d e f",
        ] {
            let error = changed("packages:", &format!("archives: [\"{bad}\"]\npackages:"));
            assert!(matches!(error, Error::Value { field: "archives", .. }), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_compiler_whose_packages_are_named_is_a_part_of_what_the_lock_pins() {
        let path = shipped().with_file_name("5.10.0-43-cloud-amd64.yaml");
        let lock = KernelLock::read(&path).unwrap();
        let roles: Vec<&str> = lock.packages.each().map(|(role, _)| role).collect();
        assert_eq!(roles.len(), 9, "{roles:?}");
        assert!(roles.contains(&"image") && roles.contains(&"gcc-10"), "{roles:?}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = KernelLock::read(Path::new("/no/such.yaml")).unwrap_err();
        assert!(error.to_string().contains("/no/such.yaml"));
    }
}
