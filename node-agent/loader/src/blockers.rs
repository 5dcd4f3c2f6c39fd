//! Who keeps a transition from ending, and whose that is.

use std::fs;
use std::path::Path;

use invivo_wire::Blocker;

use crate::running::Folders;

/// Most threads that are named.
const MOST: usize = 5;

/// Threads whose `patch_state` is still `old` (0 while a patch is being put on, 1 while one is being
/// taken off). Every thread is looked at, not only processes. What cannot be read is left out: this
/// is for people.
pub(crate) fn observe(folders: &Folders, old: i8) -> Vec<Blocker> {
    let ids = |path: &Path| {
        fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok())
            .collect::<Vec<_>>()
    };
    let old = old.to_string();
    let mut found = Vec::new();
    for pid in ids(&folders.proc) {
        let tasks = folders.proc.join(format!("{pid}/task"));
        for tid in ids(&tasks) {
            let of = |file: &str| fs::read_to_string(tasks.join(format!("{tid}/{file}"))).unwrap_or_default();
            if of("patch_state").trim() == old {
                let (pod_uid, container) = owner(&of("cgroup"));
                let comm = of("comm").trim().chars().filter(|c| !c.is_control()).take(15).collect();
                found.push(Blocker { tid, comm, pod_uid, container });
                if found.len() == MOST {
                    return found;
                }
            }
        }
    }
    found
}

/// Pod and container in a thread's cgroup path, as kubelet names them with either cgroup driver:
/// `…/kubepods-burstable-pod<uid with _>.slice/cri-containerd-<id>.scope` or
/// `…/kubepods/burstable/pod<uid>/<id>`.
fn owner(cgroup: &str) -> (Option<String>, Option<String>) {
    let parts = || cgroup.lines().flat_map(|line| line.split('/'));
    let pod = parts().find_map(|part| {
        let named = part.strip_suffix(".slice").unwrap_or(part);
        let uid = named.rsplit_once("pod")?.1.replace('_', "-");
        is_uid(&uid).then_some(uid)
    });
    let container = parts().find_map(|part| {
        let named = part.strip_suffix(".scope").unwrap_or(part);
        let id = named.rsplit_once('-').map_or(named, |(_, id)| id);
        (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
    });
    (pod, container)
}

/// A uuid, or the digest that a static pod has for one.
fn is_uid(text: &str) -> bool {
    [36, 32].contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "17bc4457-ed03-4733-b60b-5c9b6d21e5b7";

    #[test]
    fn a_thread_in_the_old_code_is_named_with_its_pod() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders::below(root.path());
        for (pid, tid, state) in [(1, 1, "1"), (7, 7, "1"), (7, 8, "0")] {
            let task = folders.proc.join(format!("{pid}/task/{tid}"));
            fs::create_dir_all(&task).unwrap();
            fs::write(task.join("patch_state"), format!("{state}\n")).unwrap();
            fs::write(task.join("comm"), "sleeper\n").unwrap();
            fs::write(
                task.join("cgroup"),
                format!("0::/../../kubepods/besteffort/pod{UID}/{}\n", "ab".repeat(32)),
            )
            .unwrap();
        }
        let blocker = Blocker {
            tid: 8,
            comm: "sleeper".to_owned(),
            pod_uid: Some(UID.to_owned()),
            container: Some("ab".repeat(32)),
        };
        assert_eq!(observe(&folders, 0), [blocker]);
    }

    #[test]
    fn both_ways_of_naming_a_pods_cgroup_are_read_and_others_are_nobodys() {
        let id = "0f".repeat(32);
        let systemd = format!(
            "0::/../../kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-{id}.scope",
            UID.replace('-', "_")
        );
        for path in [systemd, format!("0::/kubepods/pod{UID}/{id}")] {
            assert_eq!(owner(&path), (Some(UID.to_owned()), Some(id.clone())), "{path}");
        }
        for path in ["", "0::/", "0::/system.slice/podman.service", "0::/user.slice/pod-of-whales"] {
            assert_eq!(owner(path), (None, None), "{path}");
        }
    }
}
