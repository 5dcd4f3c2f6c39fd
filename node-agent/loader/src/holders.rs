//! Who else redirects a function that a patch is to redirect. The kernel gives a function to one of
//! them at a time and says no more than `EBUSY`; tracefs tells who it is.

use std::fs;
use std::path::Path;

/// Most functions that are named.
const MOST: usize = 3;

/// Who holds any of these functions, for people; nothing where that cannot be read. `tracing` is the
/// host's `/sys/kernel/tracing`.
pub(crate) fn observe(tracing: &Path, functions: &[String]) -> Vec<String> {
    let list = fs::read_to_string(tracing.join("enabled_functions")).unwrap_or_default();
    held(&list, functions)
}

/// Lines of the list are `function [module] (callbacks) FLAGS tramp: … ->callback…`. Flag `I`: it is
/// redirected, which can be done by one alone. Live patches share it among themselves.
fn held(list: &str, functions: &[String]) -> Vec<String> {
    let one = |line: &str| {
        let name = line.split_whitespace().next()?;
        let function = functions.iter().find(|function| *function == name)?;
        let (_, rest) = line.split_once(')')?;
        let flags = rest.split_whitespace().take_while(|word| word.len() == 1);
        let redirected = flags.clone().any(|flag| flag == "I");
        (redirected && !rest.contains("klp_ftrace_handler"))
            .then(|| format!("{function} is held by {}", holder(rest)))
    };
    list.lines().filter_map(one).take(MOST).collect()
}

/// By the function of the kernel that is called instead.
fn holder(rest: &str) -> String {
    const KNOWN: [(&str, &str); 2] =
        [("kprobe_ftrace_handler", "a kprobe"), ("bpf_trampoline", "a BPF program")];
    let known = KNOWN.iter().find(|(callback, _)| rest.contains(callback));
    let named = || rest.rsplit("->").next().and_then(|last| last.split(['+', ' ']).next());
    match known {
        Some((_, who)) => (*who).to_owned(),
        None => named().filter(|name| !name.is_empty()).unwrap_or("somebody").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
vfs_read (2) R   \tops: some
ip_options_get (1) R I     \ttramp: 0xffffffffc0402000 (kprobe_ftrace_handler+0x0/0x1b0) ->kprobe_ftrace_handler+0x0/0x1b0
tgt_value [tgt] (1) R I     \ttramp: 0xffffffffc0403000 (other_patcher+0x0/0x20) ->other_patcher+0x0/0x20
cmdline_proc_show (1) R I     \ttramp: 0xffffffffc0404000 (klp_ftrace_handler+0x0/0x1a0) ->klp_ftrace_handler+0x0/0x1a0
version_proc_show (1) R     \ttramp: 0xffffffffc0405000 (kprobe_ftrace_handler+0x0/0x1b0) ->kprobe_ftrace_handler+0x0/0x1b0
";

    fn of(functions: &[&str]) -> Vec<String> {
        held(LIST, &functions.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn who_redirects_a_function_is_told_by_its_callback() {
        assert_eq!(of(&["ip_options_get"]), ["ip_options_get is held by a kprobe"]);
        assert_eq!(of(&["vfs_read", "tgt_value"]), ["tgt_value is held by other_patcher"]);
    }

    #[test]
    fn who_only_watches_and_who_is_a_live_patch_holds_nothing() {
        assert!(of(&["version_proc_show", "cmdline_proc_show", "vfs_read", "ip_options"]).is_empty());
    }

    #[test]
    fn where_nothing_can_be_read_nobody_is_named() {
        let nowhere = tempfile::tempdir().unwrap();
        assert!(observe(nowhere.path(), &["ip_options_get".to_owned()]).is_empty());
    }
}
