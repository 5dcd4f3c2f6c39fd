//! Memory that is not needed any more.

/// Gives what is free back to the system. An instruction takes some hundred KiB in pieces, between
/// which little stays that is needed; malloc would keep all of it for the next, perhaps weeks later.
#[allow(unsafe_code, reason = "no safe interface tells malloc")]
pub(crate) fn give_back() {
    // SAFETY: takes a number and touches nothing that is in use.
    unsafe { libc::malloc_trim(0) };
}
