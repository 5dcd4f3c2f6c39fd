//! A recipe: one fix, as a person describes it.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use crate::lock::Error;
use crate::lock::{Package, check_package, read_yaml};

/// The recipe's file within its folder.
pub const FILE: &str = "recipe.yaml";

/// How bad a flaw is, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Hardly of use to an attacker.
    Low,
    /// Of use together with something else.
    Medium,
    /// Of use alone.
    High,
    /// To be closed today.
    Critical,
}

/// One flaw that the recipe closes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fix {
    /// `CVE-2026-53249`.
    pub cve: String,
    /// CVSS base score, where one was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cvss: Option<f32>,
    /// How bad it is, where somebody has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// One line.
    pub title: String,
    /// Where to read more.
    pub url: String,
}

/// One source file of the fix: what is edited. What is compiled may be others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceFile {
    /// Its path within the kernel source: a C file, or a header.
    pub path: String,
    /// The C files that it is compiled in: of a header those that use what the fix changes in it, of a C file
    /// that others include these. Itself if none is named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compiled_in: Vec<String>,
    /// The functions that the fix is in, old and new.
    pub functions: Vec<String>,
    /// Texts by which declarations, macros and the like are known that come with them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// What the fix uses of headers of the fixed source and the original ones do not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<FromHeader>,
    /// All that differs in the file is the fix, not only these functions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole: bool,
}

impl SourceFile {
    /// The C files that it is compiled in.
    pub fn units(&self) -> impl Iterator<Item = &str> {
        let alone = self.compiled_in.is_empty().then_some(self.path.as_str());
        alone.into_iter().chain(self.compiled_in.iter().map(String::as_str))
    }

    /// What is wrong with it, if anything is.
    fn fault(&self) -> Option<String> {
        let path = &self.path;
        if !is_inside(path) || !["c", "h"].contains(&extension(path)) {
            return Some(format!("{path:?} is not a path to a C file or a header within the source"));
        }
        if is_header(path) && self.compiled_in.is_empty() {
            return Some(format!("{path}: compiledIn names no C file that uses the header"));
        }
        if let Some(bad) = self.units().find(|unit| !is_inside(unit) || extension(unit) != "c") {
            return Some(format!("{bad:?} is not a path to a C file within the source"));
        }
        let units: BTreeSet<&str> = self.units().collect();
        if units.len() != self.units().count() {
            return Some(format!("{path}: compiledIn names a file twice"));
        }
        if let Some(bad) = self.headers.iter().find(|header| {
            !is_inside(&header.path)
                || !is_header(&header.path)
                || header.names.iter().any(|name| !is_identifier(name))
        }) {
            return Some(format!("{:?} is not a header, or names no name", bad.path));
        }
        // A header may have nothing but a macro to change.
        let has_other = !self.compiled_in.is_empty() && (self.whole || !self.also.is_empty());
        if self.functions.is_empty() && !has_other {
            return Some(format!("{path}: names no function"));
        }
        let bad = self.functions.iter().find(|function| !is_identifier(function))?;
        Some(format!("{bad:?} is not the name of a function"))
    }
}

/// Small functions and macros of one header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FromHeader {
    /// The header's path within the kernel source.
    pub path: String,
    /// The names of what is taken of it.
    pub names: Vec<String>,
}

/// One fix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recipe {
    /// One line for people.
    pub title: String,
    /// A paragraph for people: what changes for programs that run.
    pub summary: String,
    /// What it closes.
    pub fixes: Vec<Fix>,
    /// First version of the distribution's kernel that has the fix.
    pub fixed: String,
    /// The package with the fixed source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Package>,
    /// Or a patch file in the recipe's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// What to take from it.
    pub files: Vec<SourceFile>,
    /// New code of the fix may be called after the patch was taken off: its address is stored somewhere.
    /// The patch then stays in memory until the machine is booted again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never_unload: bool,
    /// A C program in the recipe's folder that tells whether the running kernel has the hole, by
    /// its exit code: 0 closed, 10 open, anything else: could not tell. None where the hole cannot be
    /// shown without harm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}

impl Recipe {
    /// Reads and checks the recipe in `folder`.
    ///
    /// # Errors
    ///
    /// It cannot be read or parsed, or names something impossible.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let recipe: Self = read_yaml(&path)?;
        recipe.check(&path)?;
        Ok(recipe)
    }

    fn check(&self, path: &Path) -> Result<(), Error> {
        let wrong = |field, message: String| Err(Error::Value { path: path.to_owned(), field, message });
        match (&self.source, &self.patch) {
            (Some(source), None) => check_package(path, "source", source)?,
            (None, Some(file)) if is_file(file) => {}
            _ => return wrong("source", "is either a package or the name of a patch file".to_owned()),
        }
        if self.fixes.is_empty() {
            return wrong("fixes", "names no flaw".to_owned());
        }
        if let Some(fix) = self.fixes.iter().find(|f| !is_cve(&f.cve)) {
            return wrong("fixes", format!("{:?} is not the name of a CVE", fix.cve));
        }
        if self.files.is_empty() {
            return wrong("files", "names no file".to_owned());
        }
        for file in &self.files {
            if let Some(fault) = file.fault() {
                return wrong("files", fault);
            }
            if !file.headers.is_empty() && self.source.is_none() {
                return wrong("files", "headers are taken of a source package alone".to_owned());
            }
        }
        let mut functions: Vec<_> = self.functions().collect();
        functions.sort_unstable();
        if let Some([twice, _]) = functions.windows(2).find(|w| w.first() == w.last()) {
            return wrong("files", format!("{twice} is named twice"));
        }
        if let Some(check) = self.check.as_ref().filter(|check| !is_file(check)) {
            return wrong("check", format!("{check:?} is not a file of the recipe's folder"));
        }
        Ok(())
    }

    /// All functions that the recipe replaces.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.files.iter().flat_map(|f| f.functions.iter().map(String::as_str))
    }

    /// The path of the check program's source, for a recipe read from `folder`.
    pub fn check_source(&self, folder: &Path) -> Option<PathBuf> {
        self.check.as_ref().map(|check| folder.join(check))
    }

    /// What it closes, as names of flaws.
    pub fn name(&self) -> String {
        self.fixes.iter().map(|fix| fix.cve.as_str()).collect::<Vec<_>>().join(" ")
    }
}

/// Whether a name is that of a file in the recipe's own folder.
fn is_file(name: &str) -> bool {
    is_inside(name) && !name.contains('/')
}

pub(crate) fn is_cve(text: &str) -> bool {
    let number =
        |s: &str, least: usize| s.len() >= least && s.len() <= 9 && s.bytes().all(|b| b.is_ascii_digit());
    text.strip_prefix("CVE-")
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(year, n)| year.len() == 4 && number(year, 4) && number(n, 4))
}

/// Whether a path is one within the source, of plain characters.
pub(crate) fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
        && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./".contains(&b))
        && !path.starts_with('-')
}

/// Whether a path is that of a header.
pub(crate) fn is_header(path: &str) -> bool {
    extension(path) == "h"
}

/// What follows the last dot of a path.
pub(crate) fn extension(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(_, extension)| extension)
}

/// Whether `text` is an identifier of C.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn shipped() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/CVE-2026-53249")
    }

    fn changed(from: &str, to: &str) -> Error {
        let text = fs::read_to_string(shipped().join(FILE)).unwrap();
        assert!(text.contains(from), "{from:?} is not in the recipe");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), text.replacen(from, to, 1)).unwrap();
        Recipe::read(folder.path()).unwrap_err()
    }

    #[test]
    fn the_shipped_recipe_is_read() {
        let recipe = Recipe::read(&shipped()).unwrap();
        assert_eq!(recipe.functions().collect::<Vec<_>>(), ["ip_options_get"]);
        assert!(recipe.check_source(&shipped()).unwrap().is_file());
    }

    #[test]
    fn a_file_outside_of_the_source_is_refused() {
        for bad in ["../secret.c", "/etc/x.c", "net/ipv4/ip_options.S", "net/a b.c"] {
            let error = changed("path: net/ipv4/ip_options.c", &format!("path: {bad:?}"));
            assert!(matches!(error, Error::Value { field: "files", .. }), "{bad:?}: {error}");
        }
    }

    #[test]
    fn a_header_names_the_files_that_it_is_compiled_in() {
        let with = |more: &str| {
            let file = format!("path: include/net/ip.h\n    {more}");
            changed("path: net/ipv4/ip_options.c", &file).to_string()
        };
        for (more, why) in [
            ("", "compiledIn names no C file"),
            ("compiledIn: [include/net/tcp.h]", "is not a path to a C file"),
            ("compiledIn: [net/a.c, ../b.c]", "is not a path to a C file"),
            ("compiledIn: [net/a.c, net/a.c]", "names a file twice"),
        ] {
            assert!(with(more).contains(why), "{more}: {}", with(more));
        }
        let text = fs::read_to_string(shipped().join(FILE)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let header = "path: include/net/ip.h\n    compiledIn: [net/a.c, net/b.c]\n    also: [LIMIT]";
        let text = text.replace("path: net/ipv4/ip_options.c", header);
        fs::write(folder.path().join(FILE), text.replace("[ip_options_get]", "[]")).unwrap();
        let recipe = Recipe::read(folder.path()).unwrap();
        assert_eq!(recipe.files[0].units().collect::<Vec<_>>(), ["net/a.c", "net/b.c"]);
    }

    #[test]
    fn a_name_that_is_not_a_function_is_refused() {
        let error = changed("functions: [ip_options_get]", "functions: [\"ip options\"]");
        assert!(matches!(error, Error::Value { field: "files", .. }), "{error}");
    }

    #[test]
    fn a_function_named_twice_is_refused() {
        let error = changed("functions: [ip_options_get]", "functions: [ip_options_get, ip_options_get]");
        assert!(error.to_string().contains("ip_options_get is named twice"), "{error}");
    }

    #[test]
    fn a_cve_that_is_none_is_refused() {
        for bad in ["CVE-26-1", "cve-2026-53249", "CVE-2026-1\\nx"] {
            let error = changed("cve: CVE-2026-53249", &format!("cve: \"{bad}\""));
            assert!(matches!(error, Error::Value { field: "fixes", .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn a_check_outside_of_the_folder_is_refused() {
        let error = changed("check: check.c", "check: ../check.c");
        assert!(matches!(error, Error::Value { field: "check", .. }), "{error}");
    }
}
