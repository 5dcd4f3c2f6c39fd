//! Programs that sleep in code that is to be patched, where tasks do not move.

use std::arch::asm;
use std::ffi::{CStr, CString};
use std::fs;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::PATIENCE;
use crate::boot::INSIDE;
use crate::plan::{CONTAINER, POD};

/// Whoever opens it for reading waits for a writer.
const PIPE: &str = "/run/go-on";
const LOOK: Duration = Duration::from_millis(10);

/// The program that has forked.
static PARENT: Mutex<Option<Child>> = Mutex::new(None);

/// This very program once more, as what [`crate::in_the_guest`] knows by that name.
pub(super) fn start(role: &str) -> Child {
    Command::new("/inside").arg(INSIDE).env("INVIVO_GUEST", role).spawn().unwrap()
}

/// The thread of `program` that sleeps in the kernel and is woken by nothing but its end: it counts as
/// a disk sleep, and nothing else on the way there does.
pub(super) fn asleep(program: &Child) -> u32 {
    let tasks = format!("/proc/{}/task", program.id());
    let sleeps = |task: &u32| {
        let stat = fs::read_to_string(format!("{tasks}/{task}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('D'))
    };
    let start = Instant::now();
    loop {
        let entries = fs::read_dir(&tasks).unwrap().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        if let Some(task) = ids.into_iter().find(sleeps) {
            return task;
        }
        assert!(start.elapsed() < PATIENCE, "nobody sleeps in {tasks}");
        thread::sleep(LOOK);
    }
}

/// Lets a program of a pod fork, and gives the thread that waits.
pub(super) fn begin_fork() -> u32 {
    let _ = fs::remove_file(PIPE);
    rustix::fs::mknodat(CWD, PIPE, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let parent = start("parent");
    let thread = asleep(&parent);
    *PARENT.lock().unwrap() = Some(parent);
    thread
}

/// Lets its child go on, and sees its parent to its end.
pub(super) fn end_fork() {
    fs::write(PIPE, b"").unwrap();
    let mut parent = PARENT.lock().unwrap().take().unwrap();
    assert!(parent.wait().unwrap().success());
}

/// The program: as kubelet's cgroupfs driver has it in its cgroup, and by a name of its own.
pub(crate) fn fork() {
    let cgroup = format!("/sys/fs/cgroup/kubepods/pod{POD}/{CONTAINER}");
    fs::create_dir_all(&cgroup).unwrap();
    fs::write(format!("{cgroup}/cgroup.procs"), "0").unwrap();
    fs::write("/proc/thread-self/comm", "parent").unwrap();
    let child = vfork_a_reader(&CString::new(PIPE).unwrap());
    let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0));
}

/// `vfork(2)`: the child shares the memory and runs first. It opens `file` for reading, and ends.
fn vfork_a_reader(file: &CStr) -> Pid {
    let mut answer = libc::SYS_vfork;
    // SAFETY: the child has registers of its own, writes to no memory and leaves by itself.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov eax, {open}",
            "xor esi, esi",
            "syscall",
            "mov eax, {exit}",
            "xor edi, edi",
            "syscall",
            "2:",
            open = const libc::SYS_open,
            exit = const libc::SYS_exit,
            inout("rax") answer,
            in("rdi") file.as_ptr(),
            out("rcx") _,
            out("r11") _,
        );
    }
    Pid::from_raw(i32::try_from(answer).unwrap()).unwrap()
}

/// In whatever code is behind `/proc/hold`, until it is killed.
pub(crate) fn sleep() {
    fs::write("/proc/thread-self/comm", std::env::var("INVIVO_GUEST").unwrap()).unwrap();
    panic!("not held: {:?}", fs::read("/proc/hold"));
}

/// The same, once this thread has moved to new code.
pub(crate) fn sleep_in_new_code() {
    while fs::read_to_string("/proc/thread-self/patch_state").unwrap().trim() != "1" {
        thread::sleep(LOOK);
    }
    sleep();
}
