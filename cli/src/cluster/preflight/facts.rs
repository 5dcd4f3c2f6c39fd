//! What can be seen of a node's kernel without any right: by a script in an ordinary pod.

use std::fmt::Write;

use invivo_terms::BuildId;
use serde::Serialize;

/// Reads world-readable files of /sys and /proc and prints them, a key and a value a line. What
/// cannot be read is left out; `end` tells that nothing is missing.
pub(super) const SCRIPT: &str = r#"
f() { [ -r "$2" ] && echo "$1 $(head -c 2048 "$2" | tr '\n\0' '  ')"; }
[ -r /sys/kernel/notes ] && echo "notes $(od -An -v -tx1 /sys/kernel/notes | tr -d ' \n')"
f release /proc/sys/kernel/osrelease
[ -d /sys/kernel ] && if [ -d /sys/kernel/livepatch ]; then echo livepatch Y; else echo livepatch N; fi
for p in /sys/kernel/livepatch/*; do [ -d "$p" ] && echo "patch ${p##*/}"; done
f sig_enforce /sys/module/module/parameters/sig_enforce
f modules_disabled /proc/sys/kernel/modules_disabled
f lockdown /sys/kernel/security/lockdown
f cmdline /proc/cmdline
f apparmor /sys/module/apparmor/parameters/enabled
[ -d /sys/fs/selinux ] && echo selinux Y
echo end
"#;

/// The note of owner `GNU` with the build id.
const BUILD_ID_NOTE: u32 = 3;

/// What was seen; what could not be is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// The kernel's GNU build id.
    pub build_id: Option<BuildId>,
    /// `uname -r`.
    pub release: Option<String>,
    /// Whether the kernel can livepatch.
    pub livepatch: Option<bool>,
    /// Live patches that are loaded, ours or others'.
    pub patches: Option<Vec<String>>,
    /// Whether modules must be signed.
    pub signatures: Option<bool>,
    /// Whether no module can be loaded any more until the next boot.
    pub modules_disabled: Option<bool>,
    /// `none`, `integrity`, `confidentiality`.
    pub lockdown: Option<String>,
    /// `AppArmor`, `SELinux`.
    pub security_modules: Vec<&'static str>,
}

impl Facts {
    /// From what the script printed.
    ///
    /// # Errors
    ///
    /// It did not come to its end.
    pub fn read(printed: &str) -> Result<Self, String> {
        let all: Vec<(&str, &str)> = printed
            .lines()
            .map(|line| line.split_once(' ').map_or((line, ""), |(key, value)| (key, value.trim())))
            .collect();
        if !all.iter().any(|(key, _)| *key == "end") {
            return Err("the probe's answer is not complete".to_owned());
        }
        let one = |wanted: &str| all.iter().find(|(key, _)| *key == wanted).map(|(_, value)| *value);
        let yes = |wanted: &str| match one(wanted) {
            Some("Y" | "1") => Some(true),
            Some("N" | "0") => Some(false),
            Some(_) | None => None,
        };
        let livepatch = yes("livepatch");
        let patches = all.iter().filter(|(key, _)| *key == "patch").map(|(_, name)| (*name).to_owned());
        let modules = [("AppArmor", yes("apparmor")), ("SELinux", yes("selinux"))];
        Ok(Self {
            build_id: one("notes").and_then(bytes).and_then(|notes| build_id(&notes)),
            release: one("release").map(str::to_owned),
            livepatch,
            patches: livepatch.map(|_| patches.collect()),
            signatures: yes("sig_enforce"),
            modules_disabled: yes("modules_disabled"),
            lockdown: one("lockdown").and_then(chosen).or_else(|| one("cmdline").and_then(asked_for)),
            security_modules: modules
                .iter()
                .filter(|(_, on)| *on == Some(true))
                .map(|(name, _)| *name)
                .collect(),
        })
    }
}

/// `none [integrity] confidentiality`: the one in brackets.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}

/// The kernel was told to lock down when it was booted. That it was not told says nothing: firmware
/// may have asked for it.
fn asked_for(cmdline: &str) -> Option<String> {
    cmdline.split(' ').filter_map(|word| word.strip_prefix("lockdown=")).next_back().map(str::to_owned)
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// The notes are walked, not searched: the same bytes can stand in another note.
fn build_id(notes: &[u8]) -> Option<BuildId> {
    let mut rest = notes;
    loop {
        let (owner_length, after) = word(rest)?;
        let (length, after) = word(after)?;
        let (kind, after) = word(after)?;
        let (owner, after) = padded(after, owner_length)?;
        let (content, after) = padded(after, length)?;
        if owner == b"GNU\0" && kind == BUILD_ID_NOTE {
            return hex(content).parse().ok();
        }
        rest = after;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a text does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn word(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*word), rest))
}

fn padded(bytes: &[u8], length: u32) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(length).ok()?;
    let content = bytes.get(..length)?;
    Some((content, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn note(owner: &[u8], kind: u32, content: &[u8]) -> String {
        let mut note = Vec::new();
        for number in [u32::try_from(owner.len()).unwrap(), u32::try_from(content.len()).unwrap(), kind] {
            note.extend(number.to_le_bytes());
        }
        for part in [owner, content] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        hex(&note)
    }

    #[test]
    fn everything_that_the_script_prints_is_understood() {
        let notes = note(b"Linux\0", 1, b"odd") + &note(b"GNU\0", 3, &[0xab; 20]);
        let printed = format!(
            "notes {notes}\nrelease 6.1.0-47-cloud-amd64 \nlivepatch Y\npatch kpatch_cve\nsig_enforce N \n\
             modules_disabled 0 \nlockdown none [integrity] confidentiality \ncmdline quiet\napparmor Y \nend\n"
        );
        let facts = Facts::read(&printed).unwrap();
        assert_eq!(facts.build_id, Some("ab".repeat(20).parse().unwrap()));
        assert_eq!(facts.release.as_deref(), Some("6.1.0-47-cloud-amd64"));
        assert_eq!(facts.patches, Some(vec!["kpatch_cve".to_owned()]));
        assert_eq!((facts.livepatch, facts.signatures), (Some(true), Some(false)));
        assert_eq!(facts.modules_disabled, Some(false));
        assert_eq!(facts.lockdown.as_deref(), Some("integrity"));
        assert_eq!(facts.security_modules, ["AppArmor"]);
    }

    #[test]
    fn what_could_not_be_read_is_unknown_and_never_a_no() {
        let facts = Facts::read("cmdline quiet splash\nend\n").unwrap();
        assert_eq!(facts, Facts::default());
        let facts = Facts::read("cmdline lockdown=none lockdown=confidentiality\nend\n").unwrap();
        assert_eq!(facts.lockdown.as_deref(), Some("confidentiality"));
        assert!(Facts::read("livepatch Y\n").is_err(), "an answer that was cut off");
    }

    #[test]
    fn notes_that_make_no_sense_give_no_build_id() {
        for notes in ["", "0", "zz", "ffffffffffffffff03000000", &note(b"GNU\0", 3, &[1; 19])] {
            let facts = Facts::read(&format!("notes {notes}\nend\n")).unwrap();
            assert_eq!(facts.build_id, None, "{notes}");
        }
    }

    #[test]
    fn the_script_runs_in_a_plain_shell_and_sees_this_very_kernel() {
        let output = Command::new("sh").args(["-c", SCRIPT]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let facts = Facts::read(&String::from_utf8(output.stdout).unwrap()).unwrap();
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(facts.release.as_deref(), Some(release.trim()));
    }
}
