//! A wait that wakes the process once. The runtime's own timers are kept in wheels, coarse ones for
//! those that are far, and wake it on their way from one to the next: three times for a minute.

use std::io;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::net::unix::pipe::Receiver;
use tokio::time::Instant;

/// One timer of the kernel's, or the runtime's where that cannot be had. It is read like a pipe.
#[derive(Debug)]
pub struct Alarm(Option<Receiver>);

impl Default for Alarm {
    /// Not set yet.
    fn default() -> Self {
        match open() {
            Ok(timer) => Self(Some(timer)),
            Err(error) => {
                tracing::warn!(error = %error, "no timer of the kernel's; the runtime's wakes more often");
                Self(None)
            }
        }
    }
}

impl Alarm {
    /// Ends at that moment. Whoever waits anew does so for the new moment alone.
    pub async fn at(&self, when: Instant) {
        if let Some(timer) = &self.0 {
            match wait(timer, when.saturating_duration_since(Instant::now())).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(error = %error, "the kernel's timer does not wake"),
            }
        }
        tokio::time::sleep_until(when).await;
    }
}

fn open() -> io::Result<Receiver> {
    let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
    Receiver::from_owned_fd_unchecked(timer)
}

async fn wait(timer: &Receiver, length: Duration) -> io::Result<()> {
    if length.is_zero() {
        return Ok(());
    }
    let it_value = Timespec::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    loop {
        timer.readable().await?;
        match timer.try_read(&mut [0; 8]) {
            Ok(_) => return Ok(()),
            // It rang for somebody before.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_rings_at_its_moment_also_for_those_who_come_after_somebody_who_left() {
        let alarm = Alarm::default();
        let begun = Instant::now();
        alarm.at(begun).await;
        let (short, long) = (Duration::from_millis(40), Duration::from_millis(120));
        // One leaves before it rings, one after and before he looks.
        assert!(tokio::time::timeout(short / 4, alarm.at(begun + short)).await.is_err());
        std::thread::sleep(short);
        alarm.at(begun + long).await;
        assert!(begun.elapsed() >= long);
        alarm.at(begun).await;
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn where_the_kernel_has_no_timer_the_runtimes_does() {
        let begun = Instant::now();
        Alarm(None).at(begun + Duration::from_millis(20)).await;
        assert!(begun.elapsed() >= Duration::from_millis(20));
    }
}
