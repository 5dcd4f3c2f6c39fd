//! The filter on this very process. Each case runs in a child, since a filter never comes off.
#![allow(unsafe_code, reason = "system calls that no safe interface offers are what is tested")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::Command;

const CASE: &str = "INVIVO_FILTER_CASE";

/// Runs the case of this name in a child with the filter on; gives its exit code, none if it was
/// ended by a signal.
fn filtered(case: &str) -> Option<i32> {
    let this = std::env::current_exe().unwrap();
    let child =
        Command::new(this).args(["--exact", "in_the_child", "--nocapture"]).env(CASE, case).status().unwrap();
    child.code()
}

/// What a child does; silent without a case.
#[test]
fn in_the_child() {
    let Ok(case) = std::env::var(CASE) else { return };
    invivo_loader::filter::install().unwrap();
    let refused = |error: io::Error| error.raw_os_error() == Some(libc::EPERM);
    let call = |number: libc::c_long, first: libc::c_long| {
        // SAFETY: none of the calls tried reads or writes memory with these arguments.
        let result = unsafe { libc::syscall(number, first, 0, 0, 0) };
        (result < 0).then(|| io::Error::last_os_error().raw_os_error().unwrap())
    };
    let held = match case.as_str() {
        "unix" => UnixStream::pair().is_ok(),
        "tcp" => TcpListener::bind("127.0.0.1:0").is_err_and(refused),
        "udp" => UdpSocket::bind("[::1]:0").is_err_and(refused),
        "netlink" => call(libc::SYS_socket, libc::AF_NETLINK.into()) == Some(libc::EPERM),
        "high half" => {
            call(libc::SYS_socket, (1 << 32) | libc::c_long::from(libc::AF_INET)) == Some(libc::EPERM)
        }
        "io_uring" => call(libc::SYS_io_uring_setup, 8) == Some(libc::EPERM),
        "x32" => call(0x4000_0000 | libc::SYS_getpid, 0) == Some(libc::EPERM),
        "i386" => i386_getpid() == -libc::EPERM,
        "exec" => Command::new("/bin/true").status().is_err_and(refused),
        "finit_module" => call(libc::SYS_finit_module, -1) == Some(libc::EPERM),
        other => panic!("no case {other}"),
    };
    std::process::exit(if held { 0 } else { 3 });
}

/// `getpid` by the gate of 32-bit programs.
fn i386_getpid() -> i32 {
    let mut result: i32 = 20;
    // SAFETY: getpid takes no arguments and touches no memory; the gate clobbers only r8 to r11.
    unsafe {
        std::arch::asm!(
            "int 0x80",
            inlateout("eax") result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    result
}

#[test]
fn unix_sockets_work() {
    assert_eq!(filtered("unix"), Some(0));
}

#[test]
fn no_other_socket_family_can_be_had() {
    for case in ["tcp", "udp", "netlink", "high half"] {
        assert_eq!(filtered(case), Some(0), "{case}");
    }
}

#[test]
fn io_uring_cannot_be_set_up() {
    assert_eq!(filtered("io_uring"), Some(0));
}

#[test]
fn other_system_call_interfaces_are_refused() {
    assert_eq!(filtered("x32"), Some(0));
    // A kernel built without it ends the process: refused as well.
    assert!(matches!(filtered("i386"), Some(0) | None));
}

#[test]
fn no_program_and_no_module_from_a_file() {
    for case in ["exec", "finit_module"] {
        assert_eq!(filtered(case), Some(0), "{case}");
    }
}
