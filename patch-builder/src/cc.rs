//! Compiles a module with Kbuild, the kernel's own compiler and nothing of the machine in the result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::{fs, io};

use crate::cache::Cache;
use crate::command::{self, clean};
use crate::lock::KernelLock;
use crate::progress::Progress;
use crate::toolchain;

/// A module cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// make or the compiler fails; their words say where.
    #[error(transparent)]
    Command(#[from] command::Error),
    /// The compiler that the kernel's lock brings along cannot be had.
    #[error("compiler")]
    Toolchain(#[from] Box<toolchain::Error>),
    /// The packages of the compiler that the kernel's lock brings along do not have it: the machine's must not be
    /// taken for it.
    #[error("the packages of the kernel's compiler have no {program}")]
    Lacks {
        /// What is not in them.
        program: String,
    },
    /// The machine has another compiler than the one that made the kernel, or the lock brings another along.
    #[error("the kernel was made by {wanted:?}, and would be patched by {found:?}")]
    Compiler {
        /// The kernel's.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A source cannot be written, or the module not be read.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What is added to the kernel's own flags. No debug information: nothing to strip, and no place
/// where a path of this machine could stay.
pub(crate) const FLAGS: &str = "-g0";

/// Refuses any compiler but the one that `lock` names by the first line of its `--version`: the one that it
/// brings along, or the machine's. Another one may lay out types, pass arguments and inline differently.
///
/// # Errors
///
/// There is none, or another one.
pub fn check_compiler(cache: &Cache, lock: &KernelLock, progress: Progress) -> Result<(), Error> {
    let wanted = lock.compiler.as_str();
    let program = wanted.split(' ').next().unwrap_or_default();
    let folder = toolchain::folder(cache, lock, progress).map_err(Box::new)?;
    let mut compiler = match folder {
        None => clean(program),
        Some(folder) => {
            toolchain::own(program, &folder).ok_or_else(|| Error::Lacks { program: program.to_owned() })?
        }
    };
    let output = command::run(compiler.arg("--version"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.lines().next().unwrap_or_default();
    if found == wanted {
        return Ok(());
    }
    Err(Error::Compiler { wanted: wanted.to_owned(), found: found.to_owned() })
}

/// Compiles `sources` (path and text of each file) in the empty folder `work` against the kernel
/// tree `tree`, and returns the module `name`.
///
/// # Errors
///
/// A file cannot be written, or the compiler refuses the sources.
pub fn compile(
    tree: &Path,
    work: &Path,
    name: &str,
    sources: &BTreeMap<String, String>,
) -> Result<Vec<u8>, Error> {
    link(tree, work, name, sources, &[])
}

/// The same, together with `objects`: what `name.mk` calls `part0.o`, `part1.o` and so on.
///
/// # Errors
///
/// A file cannot be written, or the compiler or the linker refuses something.
pub fn link(
    tree: &Path,
    work: &Path,
    name: &str,
    sources: &BTreeMap<String, String>,
    objects: &[&[u8]],
) -> Result<Vec<u8>, Error> {
    let put = |file: &str, bytes: &[u8]| {
        let path = work.join(file);
        path.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, bytes))
            .map_err(|source| Error::File { path, source })
    };
    for (file, text) in sources {
        put(file, text.as_bytes())?;
    }
    for (n, object) in objects.iter().enumerate() {
        put(&format!("part{n}.o_shipped"), object)?;
        // Kbuild wants to know how every object was made.
        put(&format!(".part{n}.o.cmd"), b"")?;
    }
    // What is left of paths (__FILE__ in headers) becomes relative to the tree.
    let maps = [work, tree].map(|folder| format!("-ffile-prefix-map={}/=", folder.display()));
    let flags = format!("KCFLAGS={FLAGS} {}", maps.join(" "));
    let make = toolchain::command("make", tree)?
        .args(["--silent", "--jobs=2", "-C"])
        .arg(tree)
        .arg(format!("M={}", work.display()))
        .arg(flags)
        // Unexported symbols are undefined here; the next step resolves them or refuses.
        .args(["KBUILD_MODPOST_WARN=1", "modules"])
        .output();
    let make = make.map_err(|e| command::not_run("make", e))?;
    if !make.status.success() {
        return Err(failed(&make).into());
    }
    let path = work.join(format!("{name}.ko"));
    fs::read(&path).map_err(|source| Error::File { path, source })
}

/// make's failure: of the compiler's words its errors, each behind the function that it is in.
pub(crate) fn failed(make: &Output) -> command::Error {
    let words = String::from_utf8_lossy(&make.stderr);
    let says = |line: &&str| {
        [": error: ", ": fatal error: ", ": In function '", ": At top level:"]
            .iter()
            .any(|w| line.contains(w))
    };
    let errors: Vec<&str> = words.lines().filter(says).collect();
    let is_plain = errors.iter().any(|line| line.contains("error: "));
    let words = if is_plain { errors.join("\n") } else { words.trim().to_owned() };
    let words = words.chars().take(WORDS).collect();
    command::Error::Failed { program: "make".into(), status: make.status.to_string(), words }
}

/// The most that is kept of them, in characters.
const WORDS: usize = 16_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_the_compiler_says_errors_are_kept_with_their_functions() {
        let says = "a.c: In function 'f':\na.c:1:2: error: 'x' undeclared\n    1 | x\na.c: In function 'g':\n\
            a.c:9:2: warning: unused\na.c: At top level:\na.c:10:1: error: conflicting types for 'h'\nmake: *** Error 2\n";
        let output = |text: &str| {
            clean("sh").args(["-c", &format!("cat >&2 <<'E'\n{text}E\nexit 2")]).output().unwrap()
        };
        let words = |text: &str| match failed(&output(text)) {
            command::Error::Failed { words, .. } => words,
            other => other.to_string(),
        };
        let wanted = "a.c: In function 'f':\na.c:1:2: error: 'x' undeclared\na.c: In function 'g':\n\
            a.c: At top level:\na.c:10:1: error: conflicting types for 'h'";
        assert_eq!(words(says), wanted);
        assert_eq!(words("ERROR: modpost: no\n"), "ERROR: modpost: no");
    }

    #[test]
    fn another_compiler_is_refused() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/kernels");
        let mut lock = KernelLock::read(&root.join("6.1.0-47-cloud-amd64.yaml")).unwrap();
        let mut check = |compiler: &str| {
            lock.compiler = compiler.to_owned();
            check_compiler(&Cache::at("/nowhere"), &lock, &mut |_, _| ()).unwrap_err()
        };
        let error = check("sh (Debian 12.2.0-14+deb12u1) 12.2.0");
        assert!(matches!(error, Error::Command(_) | Error::Compiler { .. }), "{error}");
        let error = check("gcc-99 (Debian) 99");
        assert!(error.to_string().contains("gcc-99 is not installed"), "{error}");
    }
}
