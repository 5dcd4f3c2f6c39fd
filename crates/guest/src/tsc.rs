//! How fast this processor's time stamp counter runs.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
use std::{
    thread,
    time::{Duration, Instant},
};

/// The rate of the time stamp counter in kHz; `None` on other architectures.
///
/// Five measurements of 50 ms; the one whose readings lay closest to each other counts, so that a
/// busy machine does not spoil it.
#[cfg(target_arch = "x86_64")]
pub(crate) fn khz() -> Option<u64> {
    (0..5).filter_map(|_| measure()).min_by_key(|(uncertainty, _)| *uncertainty).map(|(_, khz)| khz)
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn khz() -> Option<u64> {
    None
}

#[cfg(target_arch = "x86_64")]
fn measure() -> Option<(Duration, u64)> {
    let (before, start, start_width) = read();
    thread::sleep(Duration::from_millis(50));
    let (after, end, end_width) = read();
    let nanos = u64::try_from(end.duration_since(start).as_nanos()).ok()?;
    let ticks = after.checked_sub(before)?;
    // ticks / (nanos / 1e6 ms) = ticks per ms = kHz; 50 ms at 5 GHz times 1e6 stays below 2^64.
    let khz = ticks.checked_mul(1_000_000)?.checked_div(nanos)?;
    Some((start_width + end_width, khz))
}

/// The counter, the clock at the same moment, and how far apart the clock readings around it were.
#[cfg(target_arch = "x86_64")]
fn read() -> (u64, Instant, Duration) {
    let before = Instant::now();
    // SAFETY: `rdtsc` reads a register; every x86-64 processor has it and Linux allows it.
    let ticks = unsafe { core::arch::x86_64::_rdtsc() };
    let width = before.elapsed();
    (ticks, before + width / 2, width)
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_rate_is_that_of_a_real_processor() {
        let khz = super::khz().unwrap();
        assert!((500_000..8_000_000).contains(&khz), "{khz} kHz");
    }
}
