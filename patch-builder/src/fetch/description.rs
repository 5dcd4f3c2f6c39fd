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

/// The files that a description names; none if it names none, one that could be elsewhere, or one without
/// its SHA-256: whoever unpacks the package takes the files of all of its lists.
pub(super) fn listed(text: &str) -> Option<Vec<Listed>> {
    let listed: Vec<Listed> = list(text, "Checksums-Sha256:")
        .map(|(sha256, name)| {
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_+-.~".contains(&b);
            let is_file = !name.is_empty() && name.bytes().all(is_plain) && !name.starts_with(['-', '.']);
            is_file.then_some(Listed { name: name.to_owned(), sha256: sha256.parse().ok()? })
        })
        .collect::<Option<_>>()?;
    let has_sum = |name: &str| listed.iter().any(|file| file.name == name);
    let mut others = ["Files:", "Checksums-Sha1:"].into_iter().flat_map(|field| list(text, field));
    let all = !listed.is_empty() && others.all(|(_, name)| has_sum(name));
    all.then_some(listed)
}

/// The sums and names of one list.
fn list<'a>(text: &'a str, field: &'static str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let lines = text.lines().skip_while(move |line| !line.trim_end().eq_ignore_ascii_case(field)).skip(1);
    lines.take_while(|line| line.starts_with(' ')).map(|line| {
        let mut words = line.split_whitespace();
        (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_description_names_the_files_beside_it_and_nothing_else() {
        let of = |name: &str| {
            listed(&format!(
                "Format: 3.0 (quilt)\nChecksums-Sha1:\n 0 3 {name}\nChecksums-Sha256:\n {SUM} 3 {name}\nFiles:\n 0 3 {name}\n"
            ))
        };
        let found = of("linux_6.1.180.orig.tar.xz").unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "linux_6.1.180.orig.tar.xz");
        for bad in ["../x", "/etc/passwd", "-x", ".hidden", ""] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
        assert_eq!(listed("Source: linux\n"), None);
        let more = format!("Checksums-Sha256:\n {SUM} 3 a.tar.xz\nFiles:\n 0 3 a.tar.xz\n 0 3 b.tar.xz\n");
        assert_eq!(listed(&more), None, "nobody could compare b.tar.xz");
    }
}
