//! A distribution's changelog of its kernel: which flaws each version closes, by their titles.

/// One change that closes a flaw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The version of the distribution's kernel that brought it.
    pub version: String,
    /// The names of the flaws.
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

/// The changes with a flaw's name after the version `from`, up to and with `to`, newest version
/// first.
pub fn between(changelog: &str, from: &str, to: &str) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut version = None;
    let mut inside = false;
    let mut item = String::new();
    for line in changelog.lines().chain(["end"]) {
        let continues = line.strip_prefix("      ").filter(|_| !item.is_empty());
        if let Some(more) = continues {
            item.push(' ');
            item.push_str(more.trim());
            continue;
        }
        if let Some(found) = version.filter(|_| inside) {
            changes.extend(change(found, &item));
        }
        item.clear();
        if let Some(found) = line.strip_prefix("linux (").and_then(|rest| rest.split_once(')')) {
            version = Some(found.0);
            inside = (inside || found.0 == to) && found.0 != from;
        } else if let Some(text) = line.strip_prefix("    - ") {
            item.push_str(text.trim());
        }
    }
    changes
}

fn change(version: &str, item: &str) -> Option<Change> {
    let (text, cves) = item.rsplit_once(" (CVE-")?;
    let cves = format!("CVE-{}", cves.strip_suffix(')')?);
    let (machines, title) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((machines, title)) => (machines.split(',').map(|m| m.trim().to_owned()).collect(), title.trim()),
        None => (Vec::new(), text),
    };
    Some(Change {
        version: version.to_owned(),
        cves: cves.split(',').map(|cve| cve.trim().to_owned()).collect(),
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
    - net: fix a thing
      in f() (CVE-2026-0003)
    - [arm64] no matter (CVE-2026-0004)
    - no flaw

 -- A Person <a@example.org>  Thu, 01 Jan 2026 00:00:00 +0000

linux (2-1) bookworm; urgency=high

    - [x86] both (CVE-2026-0001, CVE-2026-0002)

linux (1-1) bookworm; urgency=high

    - old (CVE-2025-0001)
";

    #[test]
    fn flaws_between_two_versions_are_found_with_whole_titles() {
        let found = between(TEXT, "1-1", "3-1");
        let titles: Vec<_> = found.iter().map(|c| c.title.as_str()).collect();
        assert_eq!(titles, ["net: fix a thing in f()", "no matter", "both"]);
        assert_eq!(found[2].cves, ["CVE-2026-0001", "CVE-2026-0002"]);
        assert_eq!((found[0].version.as_str(), found[2].version.as_str()), ("3-1", "2-1"));
        assert_eq!(found.iter().map(Change::is_for_us).collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn versions_outside_are_left_out() {
        assert_eq!(between(TEXT, "1-1", "2-1").len(), 1);
        assert_eq!(between(TEXT, "2-1", "3-1").len(), 2);
        assert!(between(TEXT, "2-1", "9-9").is_empty());
    }
}
