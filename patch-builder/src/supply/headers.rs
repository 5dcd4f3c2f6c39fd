//! The headers of a newer source that are not the kernel's own: where what a fix uses may be from.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use crate::recipe::is_header;
use crate::select::headers::{Config, pieces};

/// Functions and macros of these headers by their names: for each the headers' paths and the texts.
#[derive(Debug, Default)]
pub struct Headers {
    by_name: BTreeMap<String, Vec<(String, String)>>,
}

impl Headers {
    /// What the headers below `newer` have, as the kernel is configured, and those of the tree `own` do not have
    /// under the same name.
    ///
    /// # Errors
    ///
    /// A folder or a file cannot be read.
    pub fn of(own: &Path, newer: &Path, config: &Config) -> io::Result<Self> {
        let mut found = Self::default();
        for path in super::changes::files(newer)? {
            let name = path.to_string_lossy().into_owned();
            if !is_header(&name) {
                continue;
            }
            let text = fs::read(newer.join(&path))?;
            let (text, before) =
                (String::from_utf8_lossy(&text), fs::read(own.join(&path)).unwrap_or_default());
            let before = String::from_utf8_lossy(&before);
            let known = pieces(&before, config);
            let new = pieces(&text, config);
            for (piece, text) in new.into_iter().filter(|(piece, _)| !known.contains_key(piece)) {
                found.by_name.entry(piece.to_owned()).or_default().push((name.clone(), text.to_owned()));
            }
        }
        Ok(found)
    }

    /// The header that alone has something of this name, and its text.
    pub fn find(&self, name: &str) -> Option<(&str, &str)> {
        match self.by_name.get(name)?.as_slice() {
            [(path, text)] => Some((path, text)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_in_one_header_is_found_and_what_two_have_is_not() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("own/net/a.h", "#define OLD 1\n");
        put("new/net/a.h", "#define OLD 2\n#define ONE 1\n#define BOTH 1\n");
        put("new/net/b.h", "#define BOTH 2\n");
        put("new/net/c.c", "#define CODE 2\n");
        let found =
            Headers::of(&root.path().join("own"), &root.path().join("new"), &Config::default()).unwrap();
        assert_eq!(found.find("ONE"), Some(("net/a.h", "#define ONE 1\n")));
        assert!(["OLD", "BOTH", "CODE"].iter().all(|name| found.find(name).is_none()));
    }
}
