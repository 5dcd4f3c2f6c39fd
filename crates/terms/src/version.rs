//! What a scanner may believe about a patched kernel.

use crate::Level;

/// The effective version: `complete` where the signed manifest claims that all fixes up to a
/// version are in, else the running version with the level appended (`6.1.170-3+invivo4`).
/// Level 0 is the running version itself.
pub fn effective_version(running: &str, level: Level, complete: Option<&str>) -> String {
    match (level, complete) {
        (Level::UNPATCHED, _) => running.to_owned(),
        (_, Some(version)) => version.to_owned(),
        (level, None) => format!("{running}+invivo{level}"),
    }
}

/// A version as a label value: `+` and `~` cannot stand there and become `_`; cut to 63 characters.
pub fn label_value(version: &str) -> String {
    version
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' })
        .take(63)
        .collect::<String>()
        .trim_end_matches(['.', '-', '_'])
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_claim_changes_the_version_itself() {
        assert_eq!(effective_version("6.1.170-3", Level(0), Some("6.1.176-1")), "6.1.170-3");
        assert_eq!(effective_version("6.1.170-3", Level(4), None), "6.1.170-3+invivo4");
        assert_eq!(effective_version("6.1.170-3", Level(4), Some("6.1.176-1")), "6.1.176-1");
    }

    #[test]
    fn a_label_value_holds_what_kubernetes_takes() {
        assert_eq!(label_value("6.1.170-3+invivo4"), "6.1.170-3_invivo4");
        assert_eq!(label_value("6.1~rc1+"), "6.1_rc1");
        assert!(label_value(&"1".repeat(80)).len() <= 63);
    }
}
