//! The clock of PID 1: CLOCK_BOOTTIME, which no one can set and which counts from the kernel's start. The wall clock is
//! for what the calendar decides, and tells when it is set.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};

use crate::sys;

/// Time since the kernel started, suspend included. Zero if the kernel does not tell, which it always does.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// [`since_boot`] in whole microseconds, as the messages carry it.
pub fn microseconds() -> u64 {
    in_microseconds(since_boot())
}

/// A time on this clock in whole microseconds.
pub fn in_microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What is wrong with the time of day, if anything is. Nothing here depends on it, but certificates and logs do.
pub fn problem() -> Option<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    implausible(now)
}

fn implausible(now: u64) -> Option<String> {
    let year = 1970 + now / 31_556_952; // the Gregorian calendar's mean year
    (!berth_control::clock::is_plausible(now)).then(|| {
        format!(
            "the clock is wrong, it says {year}: name `time_servers` in [network], or set the machine's clock, `date -s` on the console does it until power-off"
        )
    })
}

/// What is steered away slowly, in microseconds: the kernel takes up to half a second (MAXPHASE of linux/timex.h).
const STEERED: std::ops::RangeInclusive<i64> = -400_000..=400_000;

/// Sets the wall clock forward by so many microseconds: at once if it is far off, else by letting it run faster or slower.
/// `next` is when it is compared again, in seconds. An error says why it stays as it is.
pub fn correct(behind: i64, next: u64) -> Result<(), String> {
    let failed = |error| format!("set the clock: {error}");
    if STEERED.contains(&behind) {
        return sys::clock::steer(behind, next).map_err(failed);
    }
    let before = i64::try_from(wall().as_micros()).unwrap_or(i64::MAX);
    let seconds = u64::try_from(before.saturating_add(behind)).unwrap_or_default() / 1_000_000;
    if implausible(seconds).is_some() {
        return Err(format!("a time server says that it is {seconds} s after 1970, which cannot be"));
    }
    sys::clock::step(behind).map_err(failed)?;
    log::info!("the clock was {} s {}", behind.unsigned_abs() / 1_000_000, if behind < 0 { "fast" } else { "slow" });
    Ok(())
}

/// The wall clock, since 1970 in UTC; zero for a time before that.
pub fn wall() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_REALTIME).ok().filter(|time| time.tv_sec() >= 0);
    time.map(Duration::from).unwrap_or_default()
}

/// Readable when somebody has set the wall clock: timerfd_create(2), TFD_TIMER_CANCEL_ON_SET.
#[derive(Debug)]
pub struct Settings(TimerFd);

impl Settings {
    /// From now on.
    pub fn watch() -> nix::Result<Self> {
        let timer = TimerFd::new(TimerClock::CLOCK_REALTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        let settings = Self(timer);
        settings.arm()?;
        Ok(settings)
    }

    /// Makes it wait for the next time.
    pub fn acknowledge(&self) -> nix::Result<()> {
        // ECANCELED is what it is for, and counts as done; EAGAIN: nothing has happened.
        let _ = self.0.wait();
        self.arm()
    }

    fn arm(&self) -> nix::Result<()> {
        let never = Expiration::OneShot(TimeSpec::new(i64::from(u32::MAX) * 4, 0));
        self.0.set(never, TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET)
    }
}

impl AsFd for Settings {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_time_that_cannot_be_is_told() {
        assert!(super::implausible(60).is_some_and(|problem| problem.contains("1970")));
        assert!(super::implausible(4_102_531_200).is_some_and(|problem| problem.contains("2100")));
        assert_eq!(super::implausible(1_795_000_000), None);
    }

    #[test]
    fn no_server_sets_a_time_that_cannot_be() {
        // Nothing is set, or this machine's clock would be wrong.
        for behind in [i64::MIN, -1_000_000_000_000_000_000, 3_000_000_000_000_000, i64::MAX] {
            assert!(super::correct(behind, 64).is_err_and(|reason| reason.contains("cannot be")));
        }
    }

    #[test]
    fn the_clock_moves_forwards_only() {
        let before = super::microseconds();
        assert!(before > 0);
        assert!(super::microseconds() >= before);
    }

    #[test]
    fn a_clock_that_nobody_sets_is_no_event() {
        let settings = super::Settings::watch().unwrap();
        let reactor = crate::reactor::Reactor::new().unwrap();
        reactor.add(&settings, crate::reactor::Token::Clock).unwrap();
        settings.acknowledge().unwrap();
        assert_eq!(reactor.wait(Some(std::time::Duration::ZERO)).unwrap(), []);
        assert!(super::wall() > std::time::Duration::from_secs(1_700_000_000));
    }
}
