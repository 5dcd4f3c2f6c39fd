//! How the types of a file are described (BTF), for the comparison of layouts.

use std::path::Path;

use super::Error;
use crate::command::{self, clean};
use crate::unpack;

/// Every function and every variable in a section of its own, types described, nothing for a debugger.
pub const FLAGS: &str = "-ffunction-sections -fdata-sections -g0 -gbtf";

/// The same by a compiler that does not describe types.
const WITHOUT_TYPES: &str = "-ffunction-sections -fdata-sections -g0";

/// The same, with what a debugger wants to know of them.
const FOR_DEBUGGERS: &str = "-ffunction-sections -fdata-sections -gdwarf-4";

/// The first gcc that knows `-gbtf`, as the kernel's configuration writes versions.
const FIRST: u64 = 120_000;

/// Where the description of types comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Types {
    /// The compiler writes it into the object.
    Compiler,
    /// pahole makes it of what a second compilation has for debuggers.
    Debugger,
}

impl Types {
    /// The way that the compiler which made the kernel of `tree` allows.
    ///
    /// # Errors
    ///
    /// The tree does not tell how the kernel is configured.
    pub(super) fn of(tree: &Path) -> Result<Self, Error> {
        let config = unpack::read(&tree.join(".config"))?;
        let config = String::from_utf8_lossy(&config);
        let version = config.lines().find_map(|line| line.strip_prefix("CONFIG_GCC_VERSION=")?.parse().ok());
        Ok(if version.is_some_and(|version: u64| version < FIRST) { Self::Debugger } else { Self::Compiler })
    }

    /// The flags for the code.
    pub(super) fn flags(self) -> &'static str {
        match self {
            Self::Compiler => FLAGS,
            Self::Debugger => WITHOUT_TYPES,
        }
    }

    /// The flags for a compilation that is made for its types alone; none if that of the code has them.
    pub(super) fn own_flags(self) -> Option<&'static str> {
        match self {
            Self::Compiler => None,
            Self::Debugger => Some(FOR_DEBUGGERS),
        }
    }

    /// The version of the program that makes the description; none if that is the compiler.
    ///
    /// # Errors
    ///
    /// pahole is not installed.
    pub(super) fn maker(self) -> Result<Option<String>, Error> {
        match self {
            Self::Compiler => Ok(None),
            Self::Debugger => {
                let said = command::run(clean("pahole").arg("--version")).map_err(Error::Types)?;
                Ok(Some(String::from_utf8_lossy(&said.stdout).trim().to_owned()))
            }
        }
    }
}

/// The types that `object`, compiled for a debugger, describes. `folder` is for what is made on the way.
///
/// # Errors
///
/// pahole is not installed, or does not understand the object.
pub(super) fn encode(object: &Path, folder: &Path) -> Result<Vec<u8>, Error> {
    let types = folder.join("types.btf");
    let mut option = std::ffi::OsString::from("--btf_encode_detached=");
    option.push(&types);
    command::run(clean("pahole").arg(option).arg(object)).map_err(Error::Types)?;
    Ok(unpack::read(&types)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;
    use crate::btf;

    fn of(config: &str) -> Types {
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join(".config"), config).unwrap();
        Types::of(tree.path()).unwrap()
    }

    #[test]
    fn the_kernels_configuration_tells_whether_its_compiler_describes_types() {
        assert_eq!(of("CONFIG_GCC_VERSION=120200\n"), Types::Compiler);
        assert_eq!(of("CONFIG_CC_IS_GCC=y\nCONFIG_GCC_VERSION=100201\n"), Types::Debugger);
        assert!(Types::of(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn an_object_of_which_pahole_makes_nothing_is_no_file_that_does_not_compile() {
        let folder = tempfile::tempdir().unwrap();
        let object = folder.path().join("sample.o");
        fs::write(&object, "no object").unwrap();
        let error = encode(&object, folder.path()).unwrap_err();
        assert!(matches!(error, Error::Types(_)), "{error}");
    }

    #[test]
    fn types_that_the_compiler_does_not_make_are_those_of_one_version_of_pahole() {
        assert_eq!(Types::Compiler.maker().unwrap(), None);
        let version = Types::Debugger.maker().unwrap().unwrap();
        assert!(version.starts_with('v') && !version.ends_with('\n'), "{version:?}");
    }

    /// The types of a text, once from the compiler and once from pahole.
    fn both(text: &str) -> [Vec<u8>; 2] {
        let folder = tempfile::tempdir().unwrap();
        let object = folder.path().join("sample.o");
        fs::write(folder.path().join("sample.c"), text).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.current_dir(folder.path()).args(["-O2", "-c", "-o", "sample.o", "sample.c"]);
        assert!(gcc.args(FOR_DEBUGGERS.split(' ')).status().unwrap().success());
        let compiled = crate::sample::compile(text, &[]);
        [compiled.types, encode(&object, folder.path()).unwrap()]
    }

    #[test]
    fn what_a_debugger_knows_of_types_is_what_the_compiler_says_of_them() {
        let with = |member: &str| {
            format!(
                "enum state {{ OPEN, CLOSED }};\nstruct sock {{ int a; {member} enum state s; void (*f)(long); }};\n\
                 int get(struct sock *s) {{ return s->a + s->s; }}\n"
            )
        };
        let ([by_gcc, by_pahole], [_, grown]) = (both(&with("")), both(&with("long b;")));
        let [by_gcc, by_pahole, grown] =
            [&by_gcc, &by_pahole, &grown].map(|bytes| btf::Types::parse(bytes).unwrap());
        assert_eq!(btf::contradictions(&by_gcc, &by_pahole), [""; 0]);
        assert_eq!(btf::count(&by_gcc), btf::count(&by_pahole));
        assert_eq!(btf::contradictions(&by_pahole, &grown), ["struct sock"]);
    }
}
