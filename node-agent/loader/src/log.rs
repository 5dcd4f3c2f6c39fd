//! The kernel's log, where the loader is granted `CAP_SYSLOG`.

use std::ffi::c_int;

use crate::verdict::Record;

/// Most bytes that are looked at, the latest. As much as most kernels keep.
const MOST: usize = 256 << 10;
/// `SYSLOG_ACTION_READ_ALL`: reads without taking anything away from others who read.
const READ_ALL: c_int = 3;

/// The end of the log; none where this process may not read it.
#[allow(unsafe_code, reason = "no safe interface reads the kernel's log")]
pub(crate) fn observe() -> Option<Record> {
    let mut text = vec![0_u8; MOST];
    let length = c_int::try_from(text.len()).ok()?;
    // SAFETY: the kernel writes no more than `length` bytes, and the buffer has as many.
    let read = unsafe { libc::klogctl(READ_ALL, text.as_mut_ptr().cast(), length) };
    text.truncate(usize::try_from(read).ok()?);
    Some(Record::new(&text))
}
