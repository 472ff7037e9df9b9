//! The one clock that the load and the endpoint share, and a timer that is as fine.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

const SECOND: u64 = 1_000_000_000;

/// Nanoseconds of the monotonic clock, the same in all processes of a machine.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * SECOND + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Wakes a poll at a time. The poll's own timeout is in milliseconds, too coarse for arrivals.
#[derive(Debug)]
pub(crate) struct Timer {
    file: OwnedFd,
    set: u64,
}

impl Timer {
    /// A timer that reports to `poll` as `token`.
    pub(crate) fn new(poll: &mio::Poll, token: mio::Token) -> std::io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let file = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let raw = file.as_raw_fd();
        poll.registry().register(
            &mut mio::unix::SourceFd(&raw),
            token,
            mio::Interest::READABLE,
        )?;
        Ok(Self { file, set: 0 })
    }

    /// Fires at `at`; one that has passed fires at once.
    pub(crate) fn wake_at(&mut self, at: u64) -> std::io::Result<()> {
        if self.set == at {
            return Ok(());
        }
        self.set = at;
        let at = at.max(1);
        let time = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: i64::try_from(at / SECOND).unwrap_or(i64::MAX),
                tv_nsec: i64::try_from(at % SECOND).unwrap_or(0),
            },
        };
        timerfd_settime(&self.file, TimerfdTimerFlags::ABSTIME, &time)?;
        Ok(())
    }

    /// It has fired: the same time may be set again.
    pub(crate) fn fired(&mut self) {
        self.set = 0;
    }
}
