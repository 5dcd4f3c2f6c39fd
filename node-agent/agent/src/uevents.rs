//! Kernel modules that come and go, as the kernel announces them to whoever listens. To listen needs
//! no privilege, and what is heard only wakes the loader, which looks for itself: an announcement
//! that was missed or made up costs a look or a minute.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net;

#[cfg(test)]
use rustix::net::SendFlags;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// The kernel's own announcements; those of group 2 are udev's.
const KERNEL: u32 = 1;
/// Longest announcement; the kernel's own limit is 2 KiB of fields behind a path.
const LONGEST: usize = 8 << 10;

/// The kernel's announcements, or nothing. The socket is of another family than its type says, which
/// matters to whoever asks it for addresses alone: it is the only safe way to wait for one here.
#[derive(Debug, Default)]
pub struct Uevents(Option<UnixDatagram>);

impl Uevents {
    /// Listens. Where that is not allowed it says so, once, and hears nothing.
    pub fn listen() -> Self {
        match open().and_then(|socket| UnixDatagram::from_std(net::UnixDatagram::from(socket))) {
            Ok(socket) => Self(Some(socket)),
            Err(error) => {
                tracing::warn!(error = %error, "modules that come and go are not heard; the loader looks once a minute");
                Self(None)
            }
        }
    }

    /// Ends when a module has come or gone; never if nothing is heard.
    pub async fn module_moved(&mut self) {
        while let Some(socket) = &self.0 {
            match socket.async_io(Interest::READABLE, || receive(socket)).await {
                Ok(true) => return,
                Ok(false) => {}
                // More was announced than there is room for: a module may be among it.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
                    return;
                }
                Err(error) => {
                    tracing::warn!(error = %error, "modules that come and go are heard no more");
                    self.0 = None;
                }
            }
        }
        std::future::pending::<()>().await;
    }
}

fn open() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, KERNEL))?;
    Ok(socket)
}

/// Whether the next announcement is of a module.
fn receive(socket: &UnixDatagram) -> io::Result<bool> {
    let mut message = [0; LONGEST];
    let (length, _, from) = rustix::net::recvfrom(socket, &mut message, RecvFlags::empty())?;
    let is_kernel =
        from.and_then(|from| SocketAddrNetlink::try_from(from).ok()).is_some_and(|from| from.pid() == 0);
    Ok(is_kernel && message.get(..length).is_some_and(is_of_module))
}

/// `add@/module/exfat`, then fields, each ended by a zero byte.
fn is_of_module(message: &[u8]) -> bool {
    let mut fields = message.split(|byte| *byte == 0);
    let moved = fields
        .next()
        .is_some_and(|head| head.starts_with(b"add@/module/") || head.starts_with(b"remove@/module/"));
    moved && fields.any(|field| field == b"SUBSYSTEM=module")
}

/// Who listens and who can have the kernel announce something, both in a network namespace of their
/// own: nobody else on the machine hears of it. None without root, whom alone the kernel obeys.
#[cfg(test)]
#[allow(unsafe_code, reason = "leaving a namespace is unsafe for what it may share, here nothing")]
pub(crate) fn apart() -> Option<(Uevents, OwnedFd)> {
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIP: only root may have the kernel announce something");
        return None;
    }
    let runtime = tokio::runtime::Handle::current();
    let sockets = std::thread::spawn(move || {
        // SAFETY: only the network is left, by this thread alone.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
        let _entered = runtime.enter();
        (Uevents::listen(), open().unwrap())
    });
    Some(sockets.join().unwrap())
}

/// Has the kernel announce this to all who listen in the socket's network namespace. It takes such
/// wishes in a message of its own with a number behind.
#[cfg(test)]
pub(crate) fn announce(socket: &OwnedFd, message: &[u8]) {
    const HEADER: u32 = 16;
    let mut bytes = Vec::new();
    bytes.extend((HEADER + u32::try_from(message.len()).unwrap()).to_ne_bytes());
    // NLMSG_MIN_TYPE, NLM_F_REQUEST, then no number and from nobody.
    bytes.extend([0x10_u16.to_ne_bytes(), 1_u16.to_ne_bytes()].concat());
    bytes.extend([0; 8]);
    bytes.extend(message);
    let to_kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(socket, &bytes, SendFlags::empty(), &to_kernel).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn message(head: &str, subsystem: &str) -> Vec<u8> {
        format!("{head}\0ACTION=x\0DEVPATH=x\0SUBSYSTEM={subsystem}\0SEQNUM=77\0").into_bytes()
    }

    #[test]
    fn modules_that_come_and_go_are_told_from_everything_else() {
        for head in ["add@/module/exfat", "remove@/module/exfat"] {
            assert!(is_of_module(&message(head, "module")), "{head}");
        }
        for (head, subsystem) in [
            ("change@/module/exfat", "module"),
            ("add@/devices/virtual/net/lo", "net"),
            ("add@/module/exfat", "drivers"),
            ("add@/bus/module/x", "module"),
            ("libudev", "module"),
            ("", "module"),
        ] {
            assert!(!is_of_module(&message(head, subsystem)), "{head} {subsystem}");
        }
        let whole = message("add@/module/exfat", "module");
        for cut in 0..whole.len() - b"\0SEQNUM=77\0".len() {
            assert!(!is_of_module(&whole[..cut]), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn what_the_kernel_announces_is_heard_and_of_modules_alone() {
        let Some((mut heard, socket)) = apart() else { return };
        assert!(heard.0.is_some());
        announce(&socket, &message("add@/devices/virtual/net/lo", "net"));
        announce(&socket, &message("change@/module/exfat", "module"));
        let wait = Duration::from_millis(200);
        assert!(tokio::time::timeout(wait, heard.module_moved()).await.is_err(), "none has come or gone");
        announce(&socket, &message("remove@/module/exfat", "module"));
        tokio::time::timeout(Duration::from_secs(10), heard.module_moved()).await.unwrap();
    }

    #[tokio::test]
    async fn what_programs_announce_by_themselves_is_not_heard() {
        let Some((mut heard, socket)) = apart() else { return };
        let to_all = SocketAddrNetlink::new(0, KERNEL);
        let message = message("add@/module/exfat", "module");
        rustix::net::sendto(&socket, &message, SendFlags::empty(), &to_all).unwrap();
        let wait = Duration::from_millis(200);
        assert!(tokio::time::timeout(wait, heard.module_moved()).await.is_err());
    }

    #[tokio::test]
    async fn who_hears_nothing_waits_for_ever() {
        let mut deaf = Uevents::default();
        assert!(tokio::time::timeout(Duration::from_millis(50), deaf.module_moved()).await.is_err());
    }
}
