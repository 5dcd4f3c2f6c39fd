//! What the kernel's errors of a module load mean. The table is `kmod/README.md`'s.

use rustix::io::Errno;

/// Whether the same load may well be taken later.
pub fn passes(errno: Errno) -> bool {
    matches!(errno, Errno::BUSY | Errno::AGAIN | Errno::NOMEM)
}

/// Name and meaning of an error of `init_module`.
pub fn of_load(errno: Errno) -> (String, &'static str) {
    let (name, meaning) = match errno {
        Errno::INVAL => (
            "EINVAL",
            "the module was made for another kernel build, or a symbol it needs is not there, perhaps in a target",
        ),
        Errno::NOEXEC => (
            "ENOEXEC",
            "version magic or symbol versions differ, livepatch is not built in, or the file is damaged",
        ),
        Errno::BUSY => ("EBUSY", "another patch is in transition, or a tracer or kprobe owns a function"),
        Errno::EXIST => ("EEXIST", "a module of this name is still loaded and could not be removed"),
        Errno::KEYREJECTED => {
            ("EKEYREJECTED", "the kernel enforces signatures and trusts none that the module has")
        }
        Errno::NOKEY => ("ENOKEY", "the kernel does not have the key that signed the module"),
        Errno::PERM => {
            ("EPERM", "CAP_SYS_MODULE is missing, modules are disabled, or the kernel is locked down")
        }
        Errno::NOMEM => ("ENOMEM", "no memory"),
        Errno::SRCH => ("ESRCH", "`skip` names what is not a target of the patch"),
        Errno::NODATA => ("ENODATA", "`skip` names everything that the patch changes"),
        Errno::NOENT => ("ENOENT", "a symbol that the module needs is not in this kernel"),
        Errno::AGAIN => ("EAGAIN", "the kernel asks to try again"),
        other => return (format!("errno {}", other.raw_os_error()), "see the node's kernel log"),
    };
    (name.to_owned(), meaning)
}
