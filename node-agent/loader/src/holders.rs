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

/// An entry of the list is `function [module] (callbacks) FLAGS tramp: … ->callback…`, and below it,
/// indented, what is called directly. Flag `I`: it is redirected, which can be done by one alone; `D`:
/// it calls a trampoline directly, as BPF programs have it done. Live patches share a function among
/// themselves.
fn held(list: &str, functions: &[String]) -> Vec<String> {
    let one = |(line, below): (&str, Option<&str>)| {
        let name = line.split_whitespace().next()?;
        let function = functions.iter().find(|function| *function == name)?;
        let (_, rest) = line.split_once(')')?;
        let flags: Vec<&str> = rest.split_whitespace().take_while(|word| word.len() == 1).collect();
        let (redirected, direct) = (flags.contains(&"I"), flags.contains(&"D"));
        let held = (redirected || direct) && !rest.contains("klp_ftrace_handler");
        held.then(|| format!("{function} is held by {}", holder(rest, below, direct)))
    };
    entries(list).filter_map(one).take(MOST).collect()
}

/// Each line that is not indented, with the indented one that follows it.
fn entries(list: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let below = list.lines().skip(1).map(Some).chain([None]);
    let indented = |line: &&str| line.starts_with(char::is_whitespace);
    list.lines()
        .zip(below)
        .filter(move |(line, _)| !indented(line))
        .map(move |(line, below)| (line, below.filter(indented)))
}

/// By the function of the kernel that is called instead.
fn holder(rest: &str, below: Option<&str>, direct: bool) -> String {
    const KNOWN: [(&str, &str); 2] =
        [("kprobe_ftrace_handler", "a kprobe"), ("bpf_trampoline", "a BPF program")];
    let told = below.filter(|_| direct).unwrap_or(rest);
    if let Some((_, who)) = KNOWN.iter().find(|(callback, _)| told.contains(callback)) {
        return (*who).to_owned();
    }
    let unnamed = if direct { "a BPF program" } else { "somebody" };
    let named = told.rsplit_once("->").and_then(|(_, last)| last.split(['+', ' ']).next());
    // The kernel's own way to a trampoline whose name is not told.
    let named = named.filter(|name| !name.is_empty() && *name != "call_direct_funcs");
    named.unwrap_or(unnamed).to_owned()
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
tcp_v4_connect (1) R   D   \ttramp: ftrace_regs_caller+0x0/0x68 (call_direct_funcs+0x0/0x20)
\tdirect-->bpf_trampoline_6442505669+0x0/0x148
tcp_drop (1) R I D \ttramp: ftrace_regs_caller+0x0/0x58 (call_direct_funcs+0x0/0x30) ->call_direct_funcs+0x0/0x30
\tdirect-->bpf_trampoline_6442550536_0+0x0/0x1000
unix_ioctl (1) R   D   \ttramp: ftrace_regs_caller+0x0/0x68 (call_direct_funcs+0x0/0x20)
schedule (1) R   D   \ttramp: ftrace_regs_caller+0x0/0x68 (call_direct_funcs+0x0/0x20)
\tdirect-->my_tramp+0x0/0x30 [ftrace_direct]
vfs_tmpfile (1) R   D   \ttramp: ftrace_regs_caller+0x0/0x68 (call_direct_funcs+0x0/0x20) ->call_direct_funcs+0x0/0x20
ip_rcv (1) R     \ttramp: 0xffffffffc0405000 (function_trace_call+0x0/0x1b0) ->function_trace_call+0x0/0x1b0
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
    fn a_bpf_program_is_called_directly_and_redirects_nothing() {
        assert_eq!(of(&["tcp_v4_connect"]), ["tcp_v4_connect is held by a BPF program"]);
        assert_eq!(of(&["tcp_drop"]), ["tcp_drop is held by a BPF program"]);
        // Where its trampoline is not told, and one that is somebody else's.
        assert_eq!(of(&["unix_ioctl"]), ["unix_ioctl is held by a BPF program"]);
        assert_eq!(of(&["vfs_tmpfile"]), ["vfs_tmpfile is held by a BPF program"]);
        assert_eq!(of(&["schedule"]), ["schedule is held by my_tramp"]);
        assert!(of(&["ip_rcv", "direct-->my_tramp+0x0/0x30"]).is_empty());
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
