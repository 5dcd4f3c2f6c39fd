//! A distribution's changelog of its kernel: which changes each version brings, by their titles, and
//! which flaws they close.

use crate::recipe::is_cve;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The version of the distribution's kernel that brought it.
    pub version: String,
    /// The names of the flaws; none for a change that closes none, as far as is known.
    pub cves: Vec<String>,
    /// Its title, as its author wrote it.
    pub title: String,
    /// The machines that it is for; empty for all.
    pub machines: Vec<String>,
}

impl Change {
    /// Whether it is for machines like ours.
    pub fn is_for_us(&self) -> bool {
        let ours = ["x86", "amd64"];
        self.machines.is_empty() || self.machines.iter().any(|machine| ours.contains(&machine.as_str()))
    }
}

/// The changes after the version `from`, up to and with `to`, newest version first; also those that
/// close no flaw that has a name.
pub fn between(changelog: &str, from: &str, to: &str) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut version = None;
    let mut inside = false;
    let mut item: Option<(usize, String)> = None;
    for line in changelog.lines().chain(["end"]) {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some((start, so_far)) = &mut item
            && indent >= *start + 2
            && !["- ", "* "].iter().any(|bullet| text.starts_with(bullet))
        {
            so_far.push(' ');
            so_far.push_str(text.trim_end());
            continue;
        }
        let finished = item.take().map(|(_, text)| text);
        changes.extend(version.filter(|_| inside).zip(finished).and_then(|(v, text)| change(v, &text)));
        if let Some(found) = head(line) {
            version = Some(found);
            inside = (inside || found == to) && found != from;
        } else if let Some(text) = text.strip_prefix("- ").or_else(|| text.strip_prefix("* ")) {
            item = Some((indent, text.trim_end().to_owned()));
        }
    }
    changes
}

/// The versions of a changelog, newest first.
pub fn versions(changelog: &str) -> Vec<&str> {
    changelog.lines().filter_map(head).collect()
}

/// The version that begins with a line of the changelog. A kernel made for an older release of the
/// distribution is called otherwise (`linux-6.12`) and tells of the one that it is made of as well.
fn head(line: &str) -> Option<&str> {
    let (name, rest) = line.strip_prefix("linux")?.split_once(" (")?;
    let is_name = name.is_empty() || name.starts_with('-') && !name.contains(' ');
    rest.split_once(')').map(|(version, _)| version).filter(|_| is_name)
}

fn change(version: &str, item: &str) -> Option<Change> {
    // "New upstream stable update:" and its address.
    if item.is_empty() || item.starts_with("New upstream") {
        return None;
    }
    let named = item.rsplit_once(" (CVE-").and_then(|(text, rest)| Some((text, rest.strip_suffix(')')?)));
    let (text, cves) = named.map_or((item, String::new()), |(text, rest)| (text, format!("CVE-{rest}")));
    let (machines, title) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((machines, title)) => (machines.split(',').map(|m| m.trim().to_owned()).collect(), title.trim()),
        None => (Vec::new(), text),
    };
    Some(Change {
        version: version.to_owned(),
        cves: cves.split(',').map(str::trim).filter(|cve| is_cve(cve)).map(str::to_owned).collect(),
        title: title.to_owned(),
        machines,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
linux (3-1) bookworm-security; urgency=high

  * New upstream stable update:
    https://example.org/ChangeLog-3
    - net: fix a thing
      in f() (CVE-2026-0003)
    - [arm64] no matter (CVE-2026-0004)
    - no flaw

  [ A Person ]
  * nfsd: look
    first (CVE-2026-0005)

 -- A Person <a@example.org>  Thu, 01 Jan 2026 00:00:00 +0000

linux (2-1) bookworm; urgency=high

    - [x86] both (CVE-2026-0001, CVE-2026-0002)

linux (1-1) bookworm; urgency=high

    - old (CVE-2025-0001)
";

    #[test]
    fn changes_between_two_versions_are_found_with_whole_titles() {
        let found = between(TEXT, "1-1", "3-1");
        let titles: Vec<_> = found.iter().map(|c| c.title.as_str()).collect();
        let all = ["net: fix a thing in f()", "no matter", "no flaw", "nfsd: look first", "both"];
        assert_eq!(titles, all);
        assert_eq!(found[4].cves, ["CVE-2026-0001", "CVE-2026-0002"]);
        assert!(found[2].cves.is_empty());
        assert_eq!((found[0].version.as_str(), found[4].version.as_str()), ("3-1", "2-1"));
        let ours: Vec<_> = found.iter().map(Change::is_for_us).collect();
        assert_eq!(ours, [true, false, true, true, true]);
    }

    #[test]
    fn versions_outside_are_left_out() {
        assert_eq!(between(TEXT, "1-1", "2-1").len(), 1);
        assert_eq!(between(TEXT, "2-1", "3-1").len(), 4);
        assert!(between(TEXT, "2-1", "9-9").is_empty());
        assert_eq!(versions(TEXT), ["3-1", "2-1", "1-1"]);
    }

    #[test]
    fn a_kernel_made_for_an_older_release_brings_what_it_is_made_of() {
        let own = "linux-6.12 (3-1~deb12u1) bookworm; urgency=high\n\n  * Rebuild for bookworm\n\n";
        let text = format!("{own}{TEXT}").replace("linux (2-1)", "linux-6.12 (2-1~deb12u1) x\n\nlinux (2-1)");
        assert_eq!(versions(&text), ["3-1~deb12u1", "3-1", "2-1~deb12u1", "2-1", "1-1"]);
        let titles = |from| between(&text, from, "3-1~deb12u1").len();
        assert_eq!((titles("2-1~deb12u1"), titles("1-1")), (5, 6));
    }
}
