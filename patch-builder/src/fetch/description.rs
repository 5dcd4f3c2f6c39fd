//! What the description of a source package (`.dsc`) says of its files (deb-src-control(5)).

use invivo_terms::Digest;

/// One file of a source package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its name, in the description's own folder.
    pub name: String,
    /// Its SHA-256.
    pub sha256: Digest,
}

/// The files that a description names; none if it names none, or one that could be elsewhere.
pub(super) fn listed(text: &str) -> Option<Vec<Listed>> {
    let mut lines = text.lines().skip_while(|line| line.trim_end() != "Checksums-Sha256:").skip(1);
    let listed: Vec<Listed> = lines
        .by_ref()
        .take_while(|line| line.starts_with(' '))
        .map(|line| {
            let mut words = line.split_whitespace();
            let (sha256, name) = (words.next()?, words.nth(1)?);
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_+-.~".contains(&b);
            let is_file = name.bytes().all(is_plain) && !name.starts_with(['-', '.']);
            is_file.then_some(Listed { name: name.to_owned(), sha256: sha256.parse().ok()? })
        })
        .collect::<Option<_>>()?;
    Some(listed).filter(|listed| !listed.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_description_names_the_files_beside_it_and_nothing_else() {
        let of = |name: &str| {
            listed(&format!(
                "Format: 3.0 (quilt)\nChecksums-Sha1:\n 00 1 other\nChecksums-Sha256:\n {SUM} 3 {name}\nFiles:\n 0 3 x\n"
            ))
        };
        let found = of("linux_6.1.180.orig.tar.xz").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "linux_6.1.180.orig.tar.xz");
        for bad in ["../x", "/etc/passwd", "-x", ".hidden", ""] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
        assert_eq!(listed("Source: linux\n"), None);
    }
}
