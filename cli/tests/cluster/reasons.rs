//! `docs/reasons.md` has every reason that the programs know, with cause, check and remedy, and no
//! other; and each of them is said by some program. (Holds have a page and a test of their own.)

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use invivo_agent::verdict::Trouble;
use invivo_cli::cluster::Unseen;
use invivo_operator::reason::{Feed, Policy, Quarantine};
use invivo_terms::{Block, EvidenceVerdict, Refusal};
use invivo_wire::Fault;

/// A section of the page.
struct Section {
    title: &'static str,
    /// The enums whose words it has, as the sources write them.
    enums: Vec<(&'static str, Vec<&'static str>)>,
}

fn sections() -> Vec<Section> {
    macro_rules! all {
        ($kind:ty) => {
            <$kind>::ALL.iter().map(|word| word.as_str()).collect()
        };
    }
    let section = |title, enums| Section { title, enums };
    vec![
        section("PatchPolicy", vec![("Policy", all!(Policy))]),
        section("PatchFeed", vec![("Feed", all!(Feed))]),
        section("PatchSet: Eligible", vec![("ConditionType", vec!["Eligible"]), ("Block", all!(Block))]),
        section("PatchSet: Quarantined", vec![("Quarantine", all!(Quarantine))]),
        section("PatchSet: evidence", vec![("EvidenceVerdict", all!(EvidenceVerdict))]),
        section("NodePatch", vec![("Trouble", all!(Trouble)), ("Fault", all!(Fault))]),
        section("Refusals", vec![("Refusal", all!(Refusal))]),
        section("The command line", vec![("Unseen", all!(Unseen))]),
    ]
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_reason_has_a_cause_a_check_and_a_remedy_in_the_documents() {
    let page = std::fs::read_to_string(repository().join("docs/reasons.md")).unwrap();
    let mut wrong = Vec::new();
    let mut titles: BTreeSet<&str> =
        page.split("\n## ").skip(1).map(|section| section.lines().next().unwrap()).collect();
    for Section { title, enums } in sections() {
        titles.remove(title);
        let text = page.split("\n## ").find(|section| section.lines().next() == Some(title));
        let text = text.unwrap_or_else(|| panic!("docs/reasons.md has no section {title}"));
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
            .collect();
        let mut known: BTreeSet<String> = BTreeSet::new();
        for word in enums.iter().flat_map(|(_, words)| words) {
            let name = format!("`{word}`");
            match rows.iter().filter(|row| row[0] == name).collect::<Vec<_>>().as_slice() {
                [row] if row.len() == 4 && row.iter().all(|cell| !cell.is_empty()) => {}
                [_] => wrong.push(format!("{title}: {word} lacks its cause, its check or its remedy")),
                [] => wrong.push(format!("{title}: nothing is said of {word}")),
                _ => wrong.push(format!("{title}: {word} stands there more than once")),
            }
            known.insert(name);
        }
        let strange = rows.iter().filter(|row| !known.contains(row[0]));
        wrong.extend(strange.map(|row| format!("{title}: no program says {}", row[0])));
    }
    wrong.extend(titles.into_iter().map(|title| format!("section {title} has no list to compare with")));
    assert!(wrong.is_empty(), "docs/reasons.md:\n{}", wrong.join("\n"));
}

/// The programs' own sources, without what only tests see.
fn sources() -> Vec<String> {
    fn collect(folder: &Path, into: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && name != "tests" {
                collect(&path, into);
            } else if path.extension().is_some_and(|kind| kind == "rs") && name != "tests.rs" {
                let text = std::fs::read_to_string(&path).unwrap();
                into.push(text.split("\n#[cfg(test)]\nmod tests {").next().unwrap().to_owned());
            }
        }
    }
    let mut sources = Vec::new();
    for folder in [
        "cli/src",
        "operator/src",
        "patch-server/src",
        "node-agent/agent/src",
        "node-agent/loader/src",
        "crates/terms/src",
        "crates/feed/src",
        "crates/bundle/src",
        "crates/transport/src",
    ] {
        collect(&repository().join(folder), &mut sources);
    }
    sources
}

/// Whether the source makes a value of this name, rather than only compares with it: a pattern
/// stands before an arrow or beside a bar.
fn makes(source: &str, value: &str) -> bool {
    source.match_indices(value).any(|(at, _)| {
        let (before, after) = (source[..at].trim_end(), source[at + value.len()..].trim_start());
        let whole = !source[at + value.len()..].starts_with(|next: char| next.is_alphanumeric());
        let beside = before.strip_suffix('|').is_some_and(|before| !opens_closure(before));
        whole && !beside && !after.starts_with("=>") && !after.starts_with('|')
    })
}

/// Whether the bar behind this closes the parameters of a closure.
fn opens_closure(before: &str) -> bool {
    before.rsplit_once('|').is_some_and(|(before, names)| before.ends_with('(') && !names.contains("::"))
}

/// The compiler sees to it that a reason is one of the list; that each of the list is a reason of
/// something it cannot see, for the lists themselves name them all.
#[test]
fn every_reason_is_said_by_some_program() {
    let sources = sources();
    let mut silent = Vec::new();
    for (name, words) in sections().into_iter().flat_map(|section| section.enums) {
        let definition = format!("pub enum {name} {{");
        for word in words {
            let said = sources.iter().any(|source| {
                makes(source, &format!("{name}::{word}"))
                    || (source.contains(&definition) && makes(source, &format!("Self::{word}")))
            });
            if !said {
                silent.push(format!("{name}::{word}"));
            }
        }
    }
    assert!(silent.is_empty(), "nothing says {}", silent.join(", "));
}
