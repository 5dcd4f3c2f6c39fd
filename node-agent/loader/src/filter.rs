//! The loader's own seccomp filter. The two containers of the pod share a network namespace, so
//! this filter is what keeps the loader off the network.
//!
//! - `socket`, `socketpair`: only `AF_UNIX`.
//! - `io_uring_setup`: refused, since it can open sockets without either call.
//! - every other system-call interface of the machine (i386, x32): refused, since their numbers
//!   differ and would get round the rules.
//! - `execve`, `execveat`, `ptrace`, `bpf`, `unshare`, `setns`, `finit_module`: refused, since the
//!   loader never needs them. Modules are loaded from memory that was verified, never from a file.
//!
//! Refused means `EPERM`. The program is written out because seccompiler's own compiler knows no
//! x32: there the architecture is the same and only a bit in the number differs.

use seccompiler::{BpfProgram, apply_filter_all_threads, sock_filter};

/// From `linux/bpf_common.h`: load a 32-bit word of the system call's data.
const LOAD: u16 = 0x20;
/// Jump if equal.
const JUMP_EQUAL: u16 = 0x15;
/// Jump if greater or equal, unsigned.
const JUMP_AT_LEAST: u16 = 0x35;
/// End with this verdict.
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`: number, architecture, low half of the first argument.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const ALLOW: u32 = 0x7fff_0000;
/// `SECCOMP_RET_ERRNO | EPERM`
const REFUSE: u32 = 0x0005_0001;

const X86_64: u32 = 0xc000_003e;
/// Numbers from here on are x32's.
const X32: u32 = 0x4000_0000;
const AF_UNIX: u32 = 1;

const SOCKET: u32 = 41;
const SOCKETPAIR: u32 = 53;
/// `execve`, `ptrace`, `unshare`, `setns`, `finit_module`, `bpf`, `execveat`, `io_uring_setup`.
const REFUSED: [u32; 8] = [59, 101, 272, 308, 313, 321, 322, 425];

/// Why the filter is not in force.
#[derive(Debug, thiserror::Error)]
#[error("installing the system-call filter")]
pub struct FilterError(#[from] seccompiler::Error);

fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Skips `then` instructions if the loaded word compares, `otherwise` if not.
fn jump(code: u16, k: u32, then: u8, otherwise: u8) -> sock_filter {
    sock_filter { code, jt: then, jf: otherwise, k }
}

/// The program, in the order in which it runs.
fn program() -> BpfProgram {
    let mut program = vec![
        statement(LOAD, ARCHITECTURE),
        jump(JUMP_EQUAL, X86_64, 1, 0),
        statement(RETURN, REFUSE),
        statement(LOAD, NUMBER),
        jump(JUMP_AT_LEAST, X32, 0, 1),
        statement(RETURN, REFUSE),
    ];
    for number in REFUSED {
        program.extend([jump(JUMP_EQUAL, number, 0, 1), statement(RETURN, REFUSE)]);
    }
    program.extend([
        jump(JUMP_EQUAL, SOCKET, 2, 0),
        jump(JUMP_EQUAL, SOCKETPAIR, 1, 0),
        statement(RETURN, ALLOW),
        statement(LOAD, FIRST_ARGUMENT),
        jump(JUMP_EQUAL, AF_UNIX, 0, 1),
        statement(RETURN, ALLOW),
        statement(RETURN, REFUSE),
    ]);
    program
}

/// Puts the filter on every thread of this process, for good, and gives up the right to gain
/// privileges.
///
/// # Errors
///
/// If the kernel does not take it; then the loader must not run.
pub fn install() -> Result<(), FilterError> {
    Ok(apply_filter_all_threads(&program())?)
}
